"""The twin, checked against cases worked out by hand.

Unless said otherwise: decode_s[T] = 1 + T/8, mixed_s[T] = 2 + T/8 and every other coefficient is 0.
All numbers are binary fractions, so every comparison is exact.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from infermix.route.view import Ask, FleetView
from infermix.workload.requests import Requests, make_requests
from tests.naive.policies import least_wait, pool_split, round_robin
from tests.naive.sim import COMPLETED, REFUSED, UNFINISHED, NaivePool, simulate


def a_pool(
    *, instances: int = 1, block_tokens: int = 2, blocks: int = 100, max_num_seqs: int = 4, max_batched_tokens: int = 8
) -> NaivePool:
    return NaivePool(
        instances=instances,
        decode_s=[1 + t / 8 for t in range(max_batched_tokens + 1)],
        mixed_s=[2 + t / 8 for t in range(max_batched_tokens + 1)],
        per_seq_s=0.0,
        kv_s=0.0,
        pair_s=0.0,
        load_s=0.0,
        block_tokens=block_tokens,
        blocks=blocks,
        max_num_seqs=max_num_seqs,
        max_batched_tokens=max_batched_tokens,
        serves=None,
        prefill_s_per_token=0.25,
        step_s=1.5,
    )


def rows(*triples: tuple[float, int, int], cached: list[int] | int = 0, class_id: list[int] | int = 0) -> Requests:
    """Requests from (arrival, input, output)."""
    names = ("only",) if isinstance(class_id, int) else tuple(f"c{k}" for k in range(max(class_id) + 1))
    return make_requests(
        names,
        [t for t, _, _ in triples],
        [i for _, i, _ in triples],
        [o for _, _, o in triples],
        cached_tokens=cached,
        class_id=class_id,
    )


class Recorder:
    """A policy that remembers what it was shown."""

    def __init__(self, answers: list[int]) -> None:
        self.answers, self.views, self.asks = answers, list[FleetView](), list[Ask]()

    def __call__(self, view: FleetView, ask: Ask) -> int:
        self.views.append(view)
        self.asks.append(ask)
        return self.answers[len(self.asks) - 1]


def test_single_request_with_every_coefficient() -> None:
    # input 4, cached 1, output 3; per_seq 1/2, kv 1/16, pair 1/32, load 1/4.
    # Step 1: chunk m=3 at s=1. mixed[3] = 2.375; one sequence 0.5; K = 1+3 = 4: 0.25;
    #         Q = 3·1 + 3·4/2 = 9: 0.28125; C = 1: 0.25. t = 3.65625, from 0.5 to 4.15625 (first).
    # Step 2: decode[1] = 1.125 + 0.5 + K = 4+1 = 5: 0.3125. t = 1.9375, to 6.09375.
    # Step 3: 1.125 + 0.5 + K = 6: 0.375. t = 2, to 8.09375 (last).
    # Blocks of 2: ceil(4/2), ceil(5/2), ceil(6/2) = 2, 3, 3.
    pool = replace(a_pool(), per_seq_s=0.5, kv_s=1 / 16, pair_s=1 / 32, load_s=0.25)
    run = simulate(rows((0.5, 4, 3), cached=1), [pool], least_wait)
    assert (run.first_s, run.last_s) == ([4.15625], [8.09375])
    assert (run.instance, run.status) == ([0], [COMPLETED])
    assert (run.busy_s, run.steps, run.decode_tokens, run.prompt_tokens) == ([7.59375], [3], [2], [3])
    assert (run.kv_peak_blocks, run.preemptions) == ([3], [0])


def test_two_requests_share_a_batch() -> None:
    # A: at 0, input 4, output 4. B: at 1, input 2, output 2.
    # Step 1, 0 to 2.5: A reads 4 (mixed[4]).            A has 1.
    # Step 2, to 4.875: A decodes, B reads 2 (mixed[3]). A has 2, B has 1.
    # Step 3, to 6.125: both decode (decode[2] = 1.25).  A has 3, B has 2: done.
    # Step 4, to 7.25: A decodes (decode[1] = 1.125).    A has 4: done.
    run = simulate(rows((0, 4, 4), (1, 2, 2)), [a_pool()], least_wait)
    assert run.first_s == [2.5, 4.875]
    assert run.last_s == [7.25, 6.125]
    assert (run.steps, run.decode_tokens, run.prompt_tokens, run.busy_s) == ([4], [4], [6], [7.25])


def test_prompt_in_three_chunks() -> None:
    # Budget 4, input 10, output 2, pair 1/64, kv 1/16. Chunks 4, 4, 2 at 0, 4, 8.
    # Q = 10, 16+10 = 26, 16+3 = 19 (in all 10·11/2 = 55); K = 4, 8, 10.
    # Step 1: 2.5  + 4/16 + 10/64 = 2.90625.  Step 2: 2.5 + 8/16 + 26/64 = 3.40625, to 6.3125.
    # Step 3: 2.25 + 10/16 + 19/64 = 3.171875, to 9.484375 (first).
    # Step 4: 1.125 + K = 11: 0.6875 = 1.8125, to 11.296875 (last).
    pool = replace(a_pool(max_batched_tokens=4), pair_s=1 / 64, kv_s=1 / 16)
    run = simulate(rows((0, 10, 2)), [pool], least_wait)
    assert (run.first_s, run.last_s) == ([9.484375], [11.296875])
    assert (run.steps, run.decode_tokens, run.prompt_tokens) == ([4], [1], [10])


def test_second_prompt_takes_what_the_last_chunk_leaves() -> None:
    # Budget 4. A: at 0, input 10, output 2. B: at 0.5, input 3, output 1.
    # Steps 1 and 2, to 5: A reads 4 and 4; no budget for B.
    # Step 3, to 7.5: A reads 2, B reads 2 (mixed[4] = 2.5). A has 1.
    # Step 4, to 9.75: A decodes, B reads its last token (mixed[2] = 2.25). Both are done.
    run = simulate(rows((0, 10, 2), (0.5, 3, 1)), [a_pool(max_batched_tokens=4)], least_wait)
    assert run.first_s == [7.5, 9.75]
    assert run.last_s == [9.75, 9.75]
    assert (run.steps, run.decode_tokens, run.prompt_tokens) == ([4], [1], [13])


def test_decoding_goes_before_chunks_in_the_budget() -> None:
    # Budget 4, two slots. A: at 0, input 2, output 3. B: at 0.5, input 6, output 1.
    # Step 1, to 2.25: A reads 2. Step 2, to 4.75: A decodes, B reads 3 (mixed[4]).
    # Step 3, to 7.25: A decodes (done), B reads its other 3 (mixed[4]), done.
    run = simulate(rows((0, 2, 3), (0.5, 6, 1)), [a_pool(max_batched_tokens=4, max_num_seqs=2)], least_wait)
    assert (run.first_s, run.last_s) == ([2.25, 7.25], [7.25, 7.25])
    assert (run.steps, run.prompt_tokens) == ([3], [8])


def test_kv_exhaustion_preempts_the_last() -> None:
    # 4 blocks of 2 tokens. A: input 3, output 4. B: input 3, output 3. Both at 0.
    # Step 1, to 2.75: A and B read 3 (2 blocks each; mixed[6]). Both have 1.
    # Step 2, to 4: both decode, 4 tokens fit in 2 blocks (decode[2]). Both have 2.
    # Step 3, to 5.125: A needs ceil(5/2) = 3 blocks, none is free: B goes back to the queue with 2
    #         tokens. A decodes alone (decode[1]). A has 3. (Nothing is admitted in this step.)
    # Step 4, to 6.25: A needs ceil(6/2) = 3, has them. B's prompt of 5 needs 3, 1 is free: waits. A done.
    # Step 5, to 8.875: B reads 5 again (mixed[5] = 2.625) and with it gets its third token: done.
    run = simulate(rows((0, 3, 4), (0, 3, 3)), [a_pool(blocks=4, max_num_seqs=2)], least_wait)
    assert run.first_s == [2.75, 2.75]
    assert run.last_s == [6.25, 8.875]
    assert (run.preemptions, run.kv_peak_blocks) == ([1], [4])
    assert (run.steps, run.decode_tokens, run.prompt_tokens, run.busy_s) == ([5], [4], [11], [8.875])


def test_preempted_goes_before_those_who_wait() -> None:
    # As above, and C: at 1, input 1, output 1, for which there is no slot at first.
    # Step 3 preempts B: it goes before C. Step 4, to 6.25: B needs 3 blocks, 1 is free; C would fit, but must not
    # overtake. Step 5, to 9: B reads 5 and C reads 1 (mixed[6] = 2.75). Both are done.
    run = simulate(rows((0, 3, 4), (0, 3, 3), (1, 1, 1)), [a_pool(blocks=4, max_num_seqs=2)], least_wait)
    assert run.first_s == [2.75, 2.75, 9.0]
    assert run.last_s == [6.25, 9.0, 9.0]
    assert (run.preemptions, run.steps, run.prompt_tokens) == ([1], [5], [12])


def test_last_sequence_preempts_itself_and_loads_its_cache_once() -> None:
    # 4 blocks of 2 tokens, load_s = 1. A: input 3, output 2. B: input 4 (1 cached), output 2. C: at 0.5, input 1,
    # output 1; three slots.
    # Step 1, to 3.75: A reads 3, B reads 3 and loads 1 (mixed[6] + 1). All 4 blocks are taken.
    # Step 2, to 4.875: A needs 2 blocks, has them. B needs ceil(5/2) = 3, none is free, and B is the last: it
    #         preempts itself. 2 blocks are free now, but nothing is admitted in this step. A is done (decode[1]).
    # Step 3, to 7.5: B reads 5 - 1 = 4 without a load, C reads 1 (mixed[5]). Both are done.
    pool = replace(a_pool(blocks=4, max_num_seqs=3), load_s=1.0)
    run = simulate(rows((0, 3, 2), (0, 4, 2), (0.5, 1, 1), cached=[0, 1, 0]), [pool], least_wait)
    assert run.first_s == [3.75, 3.75, 7.5]
    assert run.last_s == [4.875, 7.5, 7.5]
    assert (run.preemptions, run.steps, run.decode_tokens, run.prompt_tokens) == ([1], [3], [1], [11])


def test_preempted_while_reading_gives_back_what_it_read() -> None:
    # Budget 4, 4 blocks of 2. A: at 0, input 2, output 3. B: at 0.5, input 6, output 1. Recorder: C at 5, refused.
    # Step 1, 0 to 2.25: A reads 2 (1 block).
    # Step 2, to 4.75: A needs ceil(3/2) = 2 blocks; B needs 3, 2 are free: waits. decode[1] = 1.125, to 3.375.
    # Step 3, to 4.5: A needs ceil(4/2) = 2. A is done. Step 4, to 7: B reads 4. Step 5, to 9.25: B reads 2, done.
    # With 5 blocks instead: Step 2, 2.25 to 4.75: A takes its 2nd block, B takes 3 and reads 3 (mixed[4]).
    # Step 3, to 7.25: A decodes and is done, B reads 3 and is done. No preemption in either.
    requests = rows((0, 2, 3), (0.5, 6, 1))
    four = simulate(requests, [a_pool(blocks=4, max_batched_tokens=4)], least_wait)
    assert (four.last_s, four.preemptions) == ([4.5, 9.25], [0])
    five = simulate(requests, [a_pool(blocks=5, max_batched_tokens=4)], least_wait)
    assert (five.last_s, five.preemptions) == ([7.25, 7.25], [0])
    # Budget 2, 5 blocks, A: input 2, output 5; B: at 0.5, input 6, output 1.
    # Step 1, 0 to 2.25: A reads 2 (1 block). Step 2, to 4.5: A (2 blocks), B takes 3, reads 1 (mixed[2]).
    # Step 3, to 6.75: A has 2, needs ceil(4/2) = 2; B reads 1. A has 3.
    # Step 4: A needs ceil(5/2) = 3, none is free: B, which has read 2 of 6, goes back.
    #         decode[1], to 7.875. A has 4. Step 5: A needs 3; B needs 3, 2 are free: waits. To 9; A done.
    # Steps 6 to 8: B reads 2, 2, 2 (2.25 each), to 15.75.
    # Counters at 5 (step 3 runs, 1 of B read): queued 5. At 7 (step 4 runs): B waits with 6 again.
    watch = Recorder([0, 0, -1, -1])
    pool = a_pool(blocks=5, max_batched_tokens=2, max_num_seqs=2)
    run = simulate(rows((0, 2, 5), (0.5, 6, 1), (5, 1, 1), (7, 1, 1)), [pool], watch)
    assert (run.last_s[:2], run.preemptions) == ([9.0, 15.75], [1])
    assert (run.prompt_tokens, run.decode_tokens) == ([10], [4])
    assert [int(view.queued_tokens[0]) for view in watch.views] == [0, 2, 5, 6]
    assert [int(view.waiting[0]) for view in watch.views] == [0, 0, 0, 1]
    assert [int(view.running[0]) for view in watch.views] == [0, 1, 2, 1]
    assert [int(view.context_tokens[0]) for view in watch.views] == [0, 2, 8, 8]


def test_arrival_at_the_end_of_a_step_joins_the_next() -> None:
    # A: at 0, input 4, output 2. Step 1 ends at 2.5, B (input 2, output 1) arrives at 2.5.
    # Step 2, to 4.875: A decodes, B reads 2 (mixed[3] = 2.375). B saw the counters after step 1.
    watch = Recorder([0, 0])
    run = simulate(rows((0, 4, 2), (2.5, 2, 1)), [a_pool()], watch)
    assert (run.first_s, run.last_s, run.steps) == ([2.5, 4.875], [4.875, 4.875], [2])
    seen = watch.views[1]
    assert (seen.queued_tokens[0], seen.running[0], seen.waiting[0], seen.inflight[0]) == (0, 1, 0, 1)


def test_arrivals_together_share_the_first_step() -> None:
    # Three at 1, inputs 2, 3, 2, outputs 1: one step of 7 tokens (mixed[7] = 2.875), to 3.875.
    # The second and third see the earlier ones waiting: a step starts only after all arrivals.
    watch = Recorder([0, 0, 0])
    run = simulate(rows((1, 2, 1), (1, 3, 1), (1, 2, 1)), [a_pool()], watch)
    assert (run.first_s, run.last_s, run.steps) == ([3.875] * 3, [3.875] * 3, [1])
    assert [int(view.waiting[0]) for view in watch.views] == [0, 1, 2]
    assert [int(view.queued_tokens[0]) for view in watch.views] == [0, 2, 5]


def test_steps_that_end_together_end_before_an_arrival() -> None:
    # Two instances; A and B (input 4, output 1) at 0 go to 0 and 1 (least wait), both end at 2.5.
    # C at 2.5 finds both idle and goes to 0; D at 2.5 sees C's 4 tokens there and goes to 1.
    run = simulate(rows((0, 4, 1), (0, 4, 1), (2.5, 4, 1), (2.5, 4, 1)), [a_pool(instances=2)], least_wait)
    assert run.instance == [0, 1, 0, 1]
    assert run.last_s == [2.5, 2.5, 5.0, 5.0]


def test_blocks_freed_at_the_moment_another_needs_them() -> None:
    # 4 blocks of 2. A: input 3, output 2. B: input 3, output 3. Both at 0.
    # Step 1, to 2.75 (mixed[6]). Step 2, to 4: both have 2 and all 4 blocks are taken; A is done.
    # Step 3: B needs ceil(5/2) = 3: A has just given back 2. No preemption; to 5.125.
    run = simulate(rows((0, 3, 2), (0, 3, 3)), [a_pool(blocks=4)], least_wait)
    assert (run.last_s, run.preemptions, run.kv_peak_blocks) == ([4.0, 5.125], [0], [4])


def test_refusals() -> None:
    # Capacity 8 tokens. Input 8: 9 do not fit, not eligible. Input 6, output 4: eligible, but 9 > 8: the instance
    # refuses it, and it counts as sent. Input 6, output 3: 8, it runs. The last is refused by the policy.
    watch = Recorder([0, 0, 0, -1])
    run = simulate(rows((0, 8, 1), (0, 6, 4), (0, 6, 3), (0, 1, 1)), [a_pool(blocks=4)], watch)
    assert run.status == [REFUSED, REFUSED, COMPLETED, REFUSED]
    assert run.instance == [-1, -1, 0, -1]
    assert [bool(view.eligible[0]) for view in watch.views] == [False, True, True, True]
    assert [int(view.sent[0, 0]) for view in watch.views] == [0, 0, 1, 2]
    assert [int(view.inflight[0]) for view in watch.views] == [0, 0, 0, 1]
    assert math.isnan(run.first_s[0])
    assert math.isnan(run.last_s[0])


@pytest.mark.parametrize(("until", "busy", "steps"), [(4.0, 2.5, 1), (4.875, 4.875, 2), (6.0, 4.875, 2)])
def test_until(until: float, busy: float, steps: int) -> None:
    # The case of two requests that share a batch; its steps end at 2.5, 4.875, 6.125, 7.25. C arrives at 7.
    run = simulate(rows((0, 4, 4), (1, 2, 2), (7, 1, 1)), [a_pool()], least_wait, until_s=until)
    assert run.status == [UNFINISHED] * 3
    assert run.first_s[0] == 2.5
    assert all(math.isnan(last) for last in run.last_s)
    assert math.isnan(run.first_s[1]) == (until < 4.875)
    assert (run.busy_s, run.steps, run.instance) == ([busy], [steps], [0, 0, -1])


def test_policies_by_hand() -> None:
    # Pool 0 (two instances) serves class 0 only, pool 1 (one instance) serves both; all idle.
    requests = rows((0, 4, 1), (0, 4, 1), (0, 4, 1), (0, 4, 1), class_id=[0, 1, 0, 0])
    pools = [replace(a_pool(instances=2), serves={0}), replace(a_pool(), prefill_s_per_token=0.5)]
    # Row 0: 3 eligible, 0 mod 3 = 0. Row 1: only instance 2. Row 2: 2 mod 3 = 2. Row 3: 3 mod 3 = 0.
    assert simulate(requests, pools, round_robin).instance == [0, 2, 2, 0]
    # Row 0: 1, 1, 2 s: 0. Row 1: only 2. Row 2: 2, 1, 4 s: 1. Row 3: 2, 2, 4 s, equal loads: 0.
    assert simulate(requests, pools, least_wait).instance == [0, 2, 1, 0]
    # Class 0 has 1/4, 3/4. Row 0: 0.25·1, 0.75·1: pool 1. Row 1: pool 1 (only one with a share).
    # Row 2: total 1: 0.5 - 0, 1.5 - 1: equal: pool 0, instance 0. Row 3: total 2: 0.75 - 1, 2.25 - 1: pool 1.
    share = [[0.25, 0.75], [0.0, 1.0]]
    assert simulate(requests, pools, pool_split, share=share).instance == [2, 2, 0, 2]
    assert simulate(requests, pools, pool_split, share=[[0.0, 0.0]] * 2).status == [REFUSED] * 4


def test_least_wait_counts_who_is_beyond_the_slots() -> None:
    # One slot, two instances with different prices of a step; prompts of 1 token (0.25 s), typical output 2.
    # Row 0: 0.25 and 0.25, loads equal: 0. Row 1: at 0: 0.5 + 1·2·1.5 = 3.5, at 1: 0.25: 1.
    # Row 2: 0.5 + 3 = 3.5 and 0.5 + 1·2·1 = 2.5: 1. Row 3: 3.5 and 0.75 + 2·2·1 = 4.75: 0.
    pools = [a_pool(max_num_seqs=1), replace(a_pool(max_num_seqs=1), step_s=1.0)]
    run = simulate(rows(*[(0, 1, 1)] * 4), pools, least_wait, typical_output_tokens=[2.0])
    assert run.instance == [0, 1, 1, 0]

"""The twin with engines and fleets, checked against cases worked out by hand.

Unless said otherwise: decode_s[T] = 1 + T/8, mixed_s[T] = 2 + T/8, blocks of 2 tokens, every other coefficient 0. All
numbers are binary fractions, so every comparison is exact.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infermix import rng
from infermix.route.view import Ask, FleetView
from infermix.workload.requests import Requests, make_requests
from tests.naive.policies import least_wait, round_robin
from tests.naive.sim import (
    COMPLETED,
    DECODE,
    PREFILL,
    REFUSED,
    NaivePool,
    NaiveResult,
    NaiveRules,
    simulate,
)
from tests.naive.test_twin import Recorder, a_pool, rows


def urgent(table: Requests, *priority: int) -> Requests:
    return replace(table, priority=np.array(priority, dtype=np.int8))


def with_ids(table: Requests, *ids: list[int], size: int = 2) -> Requests:
    """Each row with its block ids."""
    starts = np.cumsum([0, *[len(mine) for mine in ids]])
    flat = np.array([number for mine in ids for number in mine], dtype=np.int64)
    return replace(table, block_start=(starts,), block_ids=(flat,), block_id_tokens=size)


def turns(*rows: tuple[float, int, int, int, int]) -> Requests:
    """One session, each row after the last, from (pause, input, output, cached, parent)."""
    pause, inputs, outputs, cached, parent = zip(*rows, strict=True)
    arrival = [0.0] * len(rows)
    return make_requests(
        ("only",), arrival, inputs, outputs, cached_tokens=cached, session=1, parent=parent, think_s=pause
    )


def caching(**changes: Any) -> NaivePool:
    return replace(a_pool(), prefix_cache=True, **changes)


# -- watermark and priority -----------------------------------------------------------------------


def test_the_more_urgent_overtakes_in_the_queue() -> None:
    # One slot. A: at 0, to 2.25 (mixed[2]). B (0) and D (0), C (1), E (1) wait: C, E, B, D, a step of 2.25 each.
    table = urgent(rows((0, 2, 1), (0.25, 2, 1), (0.5, 2, 1), (0.75, 2, 1), (1, 2, 1)), 0, 0, 1, 0, 1)
    run = simulate(table, [a_pool(max_num_seqs=1)], least_wait)
    assert run.last_s == [2.25, 9.0, 4.5, 11.25, 6.75]
    assert run.admit_s == [0.0, 6.75, 2.25, 9.0, 4.5]


def test_the_least_urgent_loses_what_it_has_just_been_given() -> None:
    # 4 blocks. A: input 3, output 4, priority 0. B: input 4, output 4, priority 1. Both at 0.
    # Step 1, to 2.875 (mixed[7]): 2 blocks each. Step 2: A needs 2 blocks, is in; B needs 3, none is free: A, which
    # stands before it, goes. decode[1], to 4. Step 3, to 5.125: A needs ceil(4/2) = 2 of 1 free. Step 4, to 6.25: B
    # takes the fourth block, and is done. Step 5: A reads 4, to 8.75; steps 6 and 7, to 11.
    table = urgent(rows((0, 3, 4), (0, 4, 4)), 0, 1)
    run = simulate(table, [a_pool(blocks=4)], least_wait)
    assert run.last_s == [11.0, 6.25]
    assert (run.preemptions, run.decode_tokens, run.prompt_tokens, run.steps) == ([1], [5], [11], [7])
    assert sorted(run.gaps[0, 0]) == [1.125, 1.125, 1.125, 1.125, 1.125, 5.875]


def test_a_preempted_sequence_goes_before_its_own_priority_only() -> None:
    # As above, with C (input 2, output 1) of priority 1, 0 and -1 at 1; three slots, 5 blocks, so step 2 has 1 free.
    # Step 1, to 2.875. Step 2: B takes the fifth block, so C waits; decode[2], to 4.125. Step 3: A needs ceil(5/2) = 3
    # blocks, is itself the least urgent and goes; B decodes on 3 blocks, to 5.25. Step 4: B takes its fourth. A's
    # prompt of 5 needs 3, C's 1 block: C of priority 1 goes first and is read in step 4; C of 0 or -1 waits behind A,
    # until B is done at 6.375.
    for priority, admit in ((1, 5.25), (0, 6.375), (-1, 6.375)):
        table = urgent(rows((0, 3, 4), (0, 4, 4), (1, 2, 1)), 0, 1, priority)
        run = simulate(table, [a_pool(blocks=5, max_num_seqs=3)], least_wait)
        assert run.preemptions == [1]
        assert run.admit_s[2] == admit


def test_admission_leaves_the_watermark_free() -> None:
    # 4 blocks, 1 of them to be left. Input 6: 7 tokens do not fit into 3 blocks, so not eligible. Input 5, output 3:
    # eligible, but 7 > 6 is refused. A and B of input 3 need 2 blocks each; 2 + 1 > 2, so B waits for A's end.
    watch = Recorder([0, 0, 0, 0])
    table = rows((0, 6, 1), (0, 5, 3), (0, 3, 2), (0, 3, 1))
    run = simulate(table, [replace(a_pool(blocks=4), watermark_blocks=1)], watch)
    assert [bool(view.eligible[0]) for view in watch.views] == [False, True, True, True]
    assert run.status == [REFUSED, REFUSED, COMPLETED, COMPLETED]
    assert run.last_s[2:] == [3.5, 5.875]


# -- prefix cache -----------------------------------------------------------------------------------


def test_a_turn_finds_what_the_last_left() -> None:
    # Row 0: input 5, output 3: path of 7 tokens; to 2.625, 3.75, 4.875. Row 1 at 5.875: input 9, shares 7: three shared
    # blocks, all in memory. It reads 9 - 6 = 3: mixed[3], to 8.25, and brings 6 in.
    table = turns((0, 5, 3, 0, -1), (1, 9, 1, 7, 0))
    watch = Recorder([0, 0])
    run = simulate(table, [caching(load_s=1 / 8)], watch)
    assert run.last_s == [4.875, 8.25 + 6 / 8]
    assert (run.hit_tokens, run.loaded_tokens) == ([0, 6], [0, 0])
    assert (run.prompt_tokens, run.decode_tokens) == ([8], [2])
    assert run.kv_peak_blocks == [5]  # ceil(9/2), three of them cached and protected


def test_the_counter_is_put_right_at_admission() -> None:
    # As above, with a third request that asks while row 1 (believed: 9 - 7 = 2 to read; in truth 3) is being read.
    table = turns((0, 5, 3, 0, -1), (1, 9, 1, 7, 0), (2, 4, 1, 0, 0))
    watch = Recorder([0, 0, 0])
    simulate(table, [caching()], watch)
    assert [ask.cached_tokens for ask in watch.asks] == [0, 7, 0]
    assert [int(view.queued_tokens[0]) for view in watch.views] == [0, 0, 3]


def test_one_token_at_least_is_computed() -> None:
    # Twice the same prompt of two whole blocks: both are found, and the last token is computed anew.
    # Row 0: mixed[4], to 2.5. Row 1: mixed[1], from 3 to 5.125.
    table = with_ids(rows((0, 4, 1), (3, 4, 1)), [1, 2], [1, 2])
    run = simulate(table, [caching()], least_wait)
    assert (run.last_s, run.hit_tokens) == ([2.5, 5.125], [0, 3])


def test_ids_of_blocks_that_are_not_whole_do_not_count() -> None:
    # Input 5 with three ids of 2 tokens: the third is not whole, so 4 tokens are shared, not 6. The answer never is.
    table = with_ids(rows((0, 5, 4), (20, 9, 1)), [1, 2, 3], [1, 2, 3, 4])
    run = simulate(table, [caching()], least_wait)
    assert run.hit_tokens == [0, 4]


def test_equal_ids_after_different_ones_are_not_shared() -> None:
    table = with_ids(rows((0, 6, 1), (20, 6, 1)), [1, 5, 3], [1, 2, 3])
    assert simulate(table, [caching()], least_wait).hit_tokens == [0, 2]


def test_a_class_shares_as_far_as_both_have_it() -> None:
    # Without parents: 8 and 5 tokens of the class are the same 5; blocks of 2: 4 tokens. Another class has its own.
    table = rows((0, 9, 1), (20, 6, 1), (40, 9, 1), (60, 9, 1), cached=[8, 5, 8, 8], class_id=[0, 0, 0, 1])
    assert simulate(table, [caching()], least_wait).hit_tokens == [0, 4, 8, 0]


def test_a_fork_shares_what_its_parent_had() -> None:
    # Row 1 goes on with the whole path of row 0 (7 tokens), row 2 with 5 of them; row 3 with all of row 1 (12 + 1).
    # Row 2 belongs to the parent's session, so it does not share with its class.
    table = turns((0, 5, 3, 0, -1), (1, 12, 2, 7, 0), (20, 8, 1, 5, 0), (40, 20, 1, 13, 1))
    assert simulate(table, [caching()], least_wait).hit_tokens == [0, 6, 4, 12]


def test_another_instance_knows_nothing_of_it() -> None:
    table = turns((0, 5, 3, 0, -1), (1, 9, 1, 7, 0), (1, 12, 1, 9, 1))
    run = simulate(table, [caching(instances=2)], round_robin)
    assert (run.instance, run.hit_tokens) == ([0, 1, 0], [0, 0, 6])


def test_what_was_released_longest_ago_gives_way_the_deepest_first() -> None:
    # 4 blocks. A (two shared blocks), then B (two): the memory is full of them, A's released first.
    # C takes one block: A's second. Its own full block stays, too. A comes again: its first block is found; it takes
    # one, B's second. B comes again: its first is found; it takes one.
    table = with_ids(rows(*[(10 * k, 2 if k == 2 else 4, 1) for k in range(5)]), [1, 2], [3, 4], [9], [1, 2], [3, 4])
    run = simulate(table, [caching(blocks=4)], least_wait)
    assert run.hit_tokens == [0, 0, 0, 2, 2]


def test_what_is_not_shared_gives_way_before_what_is() -> None:
    # 3 blocks. D: one shared block, one of its own. E takes two: the empty one and D's own. D's shared block is found.
    table = with_ids(rows((0, 4, 1), (10, 3, 1), (20, 4, 1)), [1], [], [1])
    assert simulate(table, [caching(blocks=3)], least_wait).hit_tokens == [0, 0, 2]
    # E of three blocks takes that one, too.
    table = with_ids(rows((0, 4, 1), (10, 5, 1), (20, 4, 1)), [1], [], [1])
    assert simulate(table, [caching(blocks=3)], least_wait).hit_tokens == [0, 0, 0]


def test_a_hit_makes_younger() -> None:
    # 4 blocks. A and B with a shared block each (and one unshared), A again, then C of two blocks, which takes the two
    # released longest ago. Blocks after A, B: a' a b' b in order of release. A again takes a' and lets a'' and a go
    # last: b' b a'' a. C takes b' and b: A's block is found, B's is not.
    table = with_ids(rows(*[(10.0 * k, 4, 1) for k in range(6)]), [1], [2], [1], [], [1], [2])
    assert simulate(table, [caching(blocks=4)], least_wait).hit_tokens == [0, 0, 2, 0, 2, 0]


def test_a_protected_block_does_not_give_way() -> None:
    # 4 blocks. A: input 4 in two shared blocks, output 3: to 2.5, 3.625, 4.75, with a third block for its fifth token.
    # B at 1 needs 2 blocks: 1 is free after step 1 (4 - 2 cached and protected - 1 taken), so it waits until 4.75.
    table = with_ids(rows((0, 4, 3), (1, 4, 1), (20, 4, 1)), [1, 2], [], [1, 2])
    run = simulate(table, [caching(blocks=4)], least_wait)
    assert (run.admit_s[1], run.last_s[:2], run.kv_peak_blocks) == (4.75, [4.75, 7.25], [3])
    # A leaves 1, 2 and one empty block (its third holds 2 of 6 tokens: full, too: input 4 + output 3 - 1 = 6).
    # B takes the empty one and A's third, which is not shared and went first; the last finds both.
    assert run.hit_tokens == [0, 0, 3]


def test_two_that_read_the_same_keep_one_copy() -> None:
    # Both at 0 with the same two blocks, output 3: each takes 2 of its own (peak 4). When both prompts end, the second
    # copy is given back: then 2 protected and one more block each for the fifth token: 4. C at 3.5 (in step 2, 3 to
    # 4.25) finds both blocks in a memory of 5: it needs none, and is admitted at 4.25.
    table = with_ids(rows((0, 4, 3), (0, 4, 3), (3.5, 4, 1)), [1, 2], [1, 2], [1, 2])
    run = simulate(table, [caching(blocks=5)], least_wait)
    assert (run.admit_s, run.hit_tokens, run.kv_peak_blocks) == ([0.0, 0.0, 4.25], [0, 0, 3], [4])
    # With A and B decoding, C reading 1: mixed[3], to 6.625.
    assert run.last_s == [6.625] * 3


def test_a_preempted_turn_finds_its_blocks_again() -> None:
    # 4 blocks, A: input 3, output 4, nothing shared. B: input 4 in two shared blocks, output 2.
    # Step 1, to 2.875 (mixed[7]). Step 2: A has 2 blocks for 4 tokens; B needs a third, none is free: it is the last
    # and goes, leaving its 2 shared blocks cached. decode[1], to 4. Step 3: A needs a third block: none is empty, so
    # B's second gives way, released first. B (prompt 5) finds one block, and takes 2 of the 0 others: waits, to 5.125.
    # Step 4: A has 3 blocks for 6 tokens, is done at 6.25. B finds 1 block, reads 3: mixed[3], to 8.625.
    table = with_ids(rows((0, 3, 4), (0, 4, 2), (30, 4, 1)), [], [1, 2], [1, 2])
    run = simulate(table, [caching(blocks=4)], least_wait)
    assert (run.preemptions, run.last_s[:2], run.hit_tokens) == ([1], [6.25, 8.625], [0, 2, 3])


@pytest.mark.parametrize(("retention", "hit"), [(7.5, 4), (7.4375, 0)])
def test_what_is_too_old_is_not_found(retention: float, hit: int) -> None:
    # Released at 2.5, asked for at 10.
    table = with_ids(rows((0, 4, 1), (10, 6, 1)), [1, 2], [1, 2])
    assert simulate(table, [caching(retention_s=retention)], least_wait).hit_tokens == [0, hit]


# -- lower tiers --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "remote", "cost", "read"),
    [
        ((1 / 8, 1 / 4), (1 / 16, 5 / 8), 0.75, 1),  # 0.75 and 0.875 against 1: host
        ((1 / 8, 1 / 2), (1 / 16, 5 / 8), 0.875, 1),  # 1 and 0.875: remote
        ((1 / 8, 1 / 2), (1 / 16, 1.0), 1.0, 1),  # 1 and 1.25: host, as good as nothing
        ((1 / 8, 5 / 8), (1 / 16, 1.0), 0.0, 4),  # both dearer than reading 4 tokens
        ((1 / 16, 1 / 4), (1 / 8, 0.0), 0.5, 1),  # equal
    ],
)
def test_the_tier_that_costs_least(
    host: tuple[float, float], remote: tuple[float, float], cost: float, read: int
) -> None:
    # 3 blocks. A of two shared blocks; B takes all three; A again finds none here and two in each tier, which would
    # save 4 tokens of 1/4 s. With them it reads 1 token.
    pool = caching(blocks=3, host_blocks=10, remote_blocks=10)
    pool = replace(pool, host_load_s=host[0], host_latency_s=host[1], remote_load_s=remote[0])
    table = with_ids(rows((0, 4, 1), (10, 5, 1), (20, 4, 1)), [1, 2], [], [1, 2])
    run = simulate(table, [replace(pool, remote_latency_s=remote[1])], least_wait)
    assert run.last_s[2] == 20 + 2 + read / 8 + cost
    assert (run.hit_tokens, run.loaded_tokens) == ([0] * 3, [0, 0, 4 - read if read < 4 else 0])


def test_a_tier_adds_to_what_is_found_here() -> None:
    # 3 blocks. A: two shared blocks; B takes two: the empty one, and A's second. A again: one found here, the second
    # loaded: 2 tokens of 1/16 and 1/8 s: 1/4, less than 2/4. mixed[1] + 1/4.
    pool = caching(blocks=3, host_blocks=10, host_load_s=1 / 16, host_latency_s=1 / 8)
    table = with_ids(rows((0, 4, 1), (10, 3, 1), (20, 4, 1)), [1, 2], [], [1, 2])
    run = simulate(table, [pool], least_wait)
    assert (run.last_s[2], run.hit_tokens[2], run.loaded_tokens[2]) == (22.375, 2, 1)


@pytest.mark.parametrize(("room", "between", "loaded"), [(1, 1, 2), (2, 1, 4), (2, 3, 2), (2, 5, 0), (4, 5, 4)])
def test_a_small_tier_forgets_the_deepest_first(room: int, between: int, loaded: int) -> None:
    # A of two shared blocks on instance 0; a request of 1, 3 or 5 tokens, 0 to 2 full blocks of its own, on instance 1;
    # a third there finds what the remote tier still has of A: its first block is copied last.
    table = with_ids(rows((0, 4, 1), (10, between, 1), (30, 6, 1)), [1, 2], [], [1, 2])
    run = simulate(table, [caching(instances=2, remote_blocks=room)], Recorder([0, 1, 1]))
    assert run.loaded_tokens == [0, 0, loaded]


def test_the_remote_tier_is_that_of_the_pool() -> None:
    # Two instances, round robin: the second request finds nothing at the other, but the remote copy; not its host's.
    table = with_ids(rows((0, 4, 1), (10, 6, 1)), [1, 2], [1, 2])
    remote, host = caching(instances=2, remote_blocks=4), caching(instances=2, host_blocks=4)
    assert simulate(table, [remote], round_robin).loaded_tokens == [0, 4]
    assert simulate(table, [host], round_robin).loaded_tokens == [0, 0]


# -- prefill and decode apart -------------------------------------------------------------------------


def apart(**changes: Any) -> list[NaivePool]:
    prefill = replace(a_pool(**changes), role=PREFILL, transfer_s_per_token=1 / 4, transfer_latency_s=1 / 8)
    return [prefill, replace(a_pool(), role=DECODE, transfer_s_per_token=1 / 8, transfer_latency_s=1 / 2)]


def test_a_request_changes_its_instance() -> None:
    # Input 4, output 3. Prompt to 2.5. Transfer of 1/2 + 4/4 (the larger of each), to 4. Two steps of 1.125, to 6.25.
    watch = Recorder([0, 1])
    run = simulate(rows((0, 4, 3)), apart(), watch)
    assert (run.admit_s, run.first_s, run.last_s) == ([0.0], [2.5], [6.25])
    assert (run.instance, run.prefill_instance) == ([1], [0])
    assert (run.steps, run.prompt_tokens, run.decode_tokens) == ([1, 2], [4, 0], [0, 2])
    assert run.kv_peak_blocks == [2, 3]
    assert run.gaps == {(1, 0): [2.625, 1.125]}
    assert [view.eligible.tolist() for view in watch.views] == [[True, False], [False, True]]
    assert [(ask.now_s, ask.cached_tokens) for ask in watch.asks] == [(0.0, 0), (2.5, 4)]
    assert [view.sent[0].tolist() for view in watch.views] == [[0, 0], [1, 0]]
    assert [view.role.tolist() for view in watch.views] == [[1, 2]] * 2


def test_an_answer_of_one_token_stays() -> None:
    run = simulate(rows((0, 4, 1)), apart(), least_wait)
    assert (run.last_s, run.instance, run.prefill_instance) == ([2.5], [0], [-1])


def test_transfers_queue_and_blocks_stay_taken() -> None:
    # Two of input 4, output 2 at 0: both prompts to 3 (mixed[8]). Transfers to 4.5 and 6, decoding to 5.625 and 7.125.
    # With 5 blocks C (input 4) has one free until the first is delivered: read from 4.5 to 7, sent to 8.5, to 9.625.
    watch = Recorder([0, 0, 0, 1, 1, 0, 1])
    run = simulate(rows((0, 4, 2), (0, 4, 2), (1, 4, 2), (5, 1, 1)), apart(blocks=5), watch)
    assert run.first_s[:3] == [3.0, 3.0, 7.0]
    assert run.last_s[:3] == [5.625, 7.125, 9.625]
    assert run.admit_s[2] == 4.5
    seen = watch.views[5]  # at 5: C is being read; A decodes, B is on its way
    assert (seen.inflight.tolist(), seen.waiting.tolist(), seen.running.tolist()) == ([1, 2], [0, 1], [1, 1])
    assert (seen.context_tokens.tolist(), seen.queued_tokens.tolist()) == ([4, 8], [4, 0])


def test_a_hand_off_that_nobody_takes() -> None:
    # The policy refuses the first (its child comes half a second later), and the decode instance the second, which is
    # too long for it: 4 + 6 - 1 > 8. Both leave their first token, and their blocks: the child needs 4 of 5.
    table = make_requests(
        ("only",), [0.0, 0.0, 0.0], [4, 4, 7], [3, 6, 1], parent=[-1, -1, 0], session=[0, 1, 0], think_s=0.5
    )
    prefill, decode = apart(blocks=5)
    watch = Recorder([0, 0, -1, 1, 0])
    run = simulate(table, [prefill, replace(decode, blocks=4)], watch)
    assert run.status == [REFUSED, REFUSED, COMPLETED]
    assert (run.first_s[:2], run.instance, run.prefill_instance) == ([3.0, 3.0], [-1, -1, 0], [0, 0, -1])
    assert math.isnan(run.last_s[0])
    assert (run.arrival_s[2], run.last_s[2]) == (3.5, 6.375)
    assert watch.views[4].sent[0].tolist() == [2, 1]


def test_no_decode_pool_no_prefill() -> None:
    # A decode pool of 8 tokens takes no prompt of 8, so it may not be read either.
    prefill, decode = apart()
    watch = Recorder([0, 0])
    run = simulate(rows((0, 8, 1)), [prefill, replace(decode, blocks=4)], watch)
    assert (run.status, watch.views[0].eligible.tolist()) == ([REFUSED], [False, False])


def test_a_preemption_where_it_decodes() -> None:
    # Inputs 3, outputs 4 and 3, no transfer time. Prompts to 2.75 (mixed[6]); then 4 blocks: both take 2, decode[2], to
    # 4. A needs a third: B goes with 2 tokens. A alone to 5.125 and 6.25. B reads 5 anew, to 8.875, its third token.
    prefill, decode = (replace(pool, transfer_s_per_token=0.0, transfer_latency_s=0.0) for pool in apart())
    run = simulate(rows((0, 3, 4), (0, 3, 3), cached=[1, 2]), [prefill, replace(decode, blocks=4)], least_wait)
    assert run.first_s == [2.375] * 2  # 1 and 2 tokens were cached there: mixed[3]
    assert run.last_s == [6.25 - 0.375, 8.875 - 0.375]
    assert (run.preemptions, run.prompt_tokens, run.decode_tokens) == ([0, 1], [3, 5], [0, 4])


def test_the_prompt_stays_in_the_cache_of_the_prefill_instance() -> None:
    prefill, decode = apart()
    table = with_ids(rows((0, 5, 3), (20, 5, 3)), [1, 2], [1, 2])
    run = simulate(table, [replace(prefill, prefix_cache=True), decode], least_wait)
    assert (run.hit_tokens, run.first_s) == ([0, 4], [2.625, 22.125])


# -- speculation --------------------------------------------------------------------------------------


def test_steps_of_several_tokens() -> None:
    # Input 4, output 8, a = 2, at most 4: 7 to come in round(3.5) = 4 steps of 1.75: 1, 3, 5, 7. K from 5 on.
    # Blocks of 4: one for the prompt, the next at once, the third 2 steps later.
    # Prompt: mixed[4] + 4/64, to 2.5625; then 4 · 1.125 + 30.5/64, to 7.5390625.
    pool = replace(a_pool(block_tokens=4), kv_s=1 / 64, accepted_per_step=2.0, accepted_most=4)
    run = simulate(rows((0, 4, 8)), [pool], least_wait)
    assert (run.first_s, run.last_s) == ([2.5625], [7.5390625])
    assert (run.steps, run.decode_tokens, run.kv_peak_blocks) == ([5], [7], [3])
    assert run.gaps[0, 0] == [1.125 + k / 64 for k in (5, 6.75, 8.5, 10.25)]


def test_a_preemption_keeps_its_tokens_and_draws_anew() -> None:
    # 4 blocks of 4, two requests of input 4, output 8, a = 2. Prompts to 3 (mixed[8]). Two steps of decode[2], to 5.5:
    # both have 1 + 3. A takes its third block: B goes with 4 tokens. A to 6.625 and 7.75: done. B reads 8, to 10.75: 5
    # tokens. 3 to come: round(1.5) = 2 steps, to 13.
    pool = replace(a_pool(block_tokens=4, blocks=4), accepted_per_step=2.0, accepted_most=4)
    run = simulate(rows((0, 4, 8), (0, 4, 8)), [pool], least_wait)
    assert (run.last_s, run.preemptions) == ([7.75, 13.0], [1])
    assert (run.steps, run.decode_tokens, run.prompt_tokens) == ([8], [13], [16])


def test_who_preempts_itself_alone_begins_anew_at_once() -> None:
    # 5 blocks of 4, input 17, output 4: 20 tokens fill them. a = 4: a block in every step, the first at once, so that a
    # sixth is needed: it preempts itself with 1 token and reads 18 anew (mixed[18]), with 2 and reads 19, then 20.
    pool = a_pool(block_tokens=4, blocks=5, max_batched_tokens=32)
    run = simulate(rows((0, 17, 4)), [replace(pool, accepted_per_step=4.0, accepted_most=7)], least_wait)
    assert (run.last_s, run.steps, run.preemptions) == ([4.125 + 4.25 + 4.375 + 4.5], [4], [3])


@pytest.mark.parametrize("seed", range(6))
def test_the_number_of_steps_is_drawn(seed: int) -> None:
    # 41 to come, a = 2, v = 3, at most 5: the mean is 20.5, the deviation sqrt(41 · 3 / 8) = 3.92; between 9 and 41.
    u1, u2 = float(rng.u01(seed, 1, 0)), float(rng.u01(seed, 2, 0))
    z = math.sqrt(-2 * math.log(u1)) * math.cos(2 * math.pi * u2)
    steps = min(max(math.floor(21 + z * math.sqrt(123 / 8)), 9), 41)
    pool = replace(a_pool(), accepted_per_step=2.0, accepted_variance=3.0, accepted_most=5)
    run = simulate(rows((0, 4, 42)), [pool], least_wait, seed=seed)
    assert (run.steps, run.decode_tokens, len(run.gaps[0, 0])) == ([1 + steps], [41], steps)


# -- groups -----------------------------------------------------------------------------------------


def test_the_slowest_group_is_waited_for() -> None:
    # Inputs 2, 2, 4, outputs 2, kv 1/64, two groups: A and C, and B. Prompts: K is 2 + 4 and 2: mixed[8] + 2 · 6/64.
    # Then 3 + 5 and 3: decode[3] + 2 · 8/64.
    pool = replace(a_pool(), kv_s=1 / 64, ranks=2)
    run = simulate(rows((0, 2, 2), (0, 2, 2), (0, 4, 2)), [pool], least_wait)
    assert (run.first_s[0], run.last_s[0]) == (3.1875, 3.1875 + 1.625)


def test_a_group_keeps_its_members() -> None:
    # A (input 2, output 1) joins group 0, B (2, 9) 1, C (2, 9) 0; A ends at 2.75 + 2 · 4/64 = 2.875. D at 1 joins the
    # first group with one member: 0, with C. Step 2: B and C decode (K 3 each), D reads 2: mixed[4] + 2 · (3 + 2)/64.
    pool = replace(a_pool(), kv_s=1 / 64, ranks=2)
    run = simulate(rows((0, 2, 1), (0, 2, 9), (0, 2, 9), (1, 2, 1)), [pool], least_wait)
    assert run.last_s[0] == 2.875
    assert run.last_s[3] == 2.875 + 2.5 + 10 / 64


# -- instances that come and go ------------------------------------------------------------------------


def failing(*events: tuple[float, int, str], resume: bool = False) -> NaiveRules:
    return NaiveRules(events=events, resume=resume)


def test_a_failure_sends_back() -> None:
    # Input 4, output 4. On instance 0 to 2.5; it fails at 3, in the step to 3.625. Instance 1: 3 + 2.5 = 5.5, and three
    # steps, to 8.875.
    rules = failing((3, 0, "fail"))
    run = simulate(rows((0, 4, 4)), [a_pool(instances=2)], least_wait, rules=rules)
    assert (run.first_s, run.last_s, run.instance, run.restarts) == ([5.5], [8.875], [1], [1])
    assert (run.busy_s, run.steps, run.decode_tokens) == ([3.0, 5.875], [1, 4], [0, 3])
    assert (run.on_s, run.admit_s) == ([3.0, 8.875], [3.0])


def test_a_failure_after_which_tokens_are_kept() -> None:
    # It has one token at 3 and reads 4 + 1 anew (1 cached): mixed[4], to 5.5, its second; two steps, to 7.75.
    rules = failing((3, 0, "fail"), resume=True)
    run = simulate(rows((0, 4, 4), cached=1), [a_pool(instances=2)], least_wait, rules=rules)
    assert (run.first_s, run.last_s, run.restarts) == ([2.375], [7.75], [1])
    assert run.gaps[0, 0] == [3.125, 1.125, 1.125]
    assert run.prompt_tokens == [3, 4]


def test_a_failure_empties_the_queue_and_the_cache() -> None:
    # One slot. A runs, B waits; instance 0 fails at 1: both go to instance 1, in row order. At 20 instance 0 is up
    # again: the same prompt finds nothing there.
    table = with_ids(rows((0, 4, 1), (0.5, 4, 1), (10, 4, 1), (30, 4, 1)), *[[1, 2]] * 4)
    pool = caching(instances=2, max_num_seqs=1)
    rules = failing((1, 0, "fail"), (2, 1, "drain"), (9, 0, "start"), (20, 0, "fail"), (20, 0, "start"))
    run = simulate(table, [pool], Recorder([0, 0, 1, 1, 0, 0]), rules=rules)
    assert run.last_s == [3.5, 5.625, 12.5, 32.5]  # mixed[4], mixed[1] after a hit, mixed[4], mixed[4]
    assert (run.restarts, run.hit_tokens) == ([1, 1, 0, 0], [0, 3, 0, 0])


def test_a_step_that_ends_as_its_instance_fails_counts() -> None:
    run = simulate(rows((0, 4, 1)), [a_pool()], least_wait, rules=failing((2.5, 0, "fail")))
    assert (run.status, run.restarts, run.busy_s) == ([COMPLETED], [0], [2.5])


def test_nobody_is_left() -> None:
    table = make_requests(("only",), [0, 0], [4, 4], [4, 1], parent=[-1, 0], session=0, think_s=1.0)
    run = simulate(table, [a_pool()], least_wait, rules=failing((3, 0, "fail"), resume=True))
    assert (run.status, run.instance) == ([REFUSED] * 2, [-1] * 2)
    assert (run.first_s[0], run.arrival_s, run.on_s) == (2.5, [0.0, 4.0], [3.0])


def test_a_delivery_to_one_that_has_failed_since() -> None:
    # Prompt to 2.5, transfer of 1.5 to instance 1, to 4. It fails at 3 and is up again at 3.5. At 4 the request
    # arrives anew: prompt to 6.5, transfer to 8, two steps, to 10.25.
    rules = failing((3, 1, "fail"), (3.5, 1, "start"))
    run = simulate(rows((0, 4, 3)), apart(), least_wait, rules=rules)
    assert (run.first_s, run.last_s, run.restarts) == ([6.5], [10.25], [1])
    assert (run.steps, run.on_s) == ([2, 2], [10.25, 9.75])


def test_the_prefill_instance_fails_during_the_transfer() -> None:
    # The request arrives all the same; its blocks are gone, and the instance is new.
    rules = failing((3, 0, "fail"), (3.5, 0, "start"))
    run = simulate(rows((0, 4, 3), (3.75, 4, 1)), apart(blocks=3), least_wait, rules=rules)
    assert (run.last_s, run.restarts, run.instance) == ([6.25, 6.25], [0, 0], [1, 0])


def test_a_draining_instance_goes_on() -> None:
    # Instance 0 drains at 1 with A (to 4.75) on it; B at 2 sees instance 1 only; C at 10 too: 0 is down since 4.75.
    watch = Recorder([0, 1, 1])
    rules = failing((1, 0, "drain"))
    run = simulate(rows((0, 4, 3), (2, 4, 1), (10, 4, 1)), [a_pool(instances=2)], watch, rules=rules)
    assert [view.eligible.tolist() for view in watch.views] == [[True, True], [False, True], [False, True]]
    assert (run.last_s, run.on_s) == ([4.75, 4.5, 12.5], [4.75, 12.5])


def test_a_draining_instance_may_come_back() -> None:
    rules = failing((1, 0, "drain"), (2, 0, "start"))
    run = simulate(rows((0, 4, 3), (2, 4, 1)), [replace(a_pool(), start_s=9.0)], least_wait, rules=rules)
    assert (run.status, run.on_s) == ([COMPLETED] * 2, run.last_s[:1])


def test_a_transfer_keeps_a_draining_instance() -> None:
    # Prompt to 2.5, transfer to 4: until then instance 0 is draining, not down.
    run = simulate(rows((0, 4, 3)), apart(), least_wait, rules=failing((1, 0, "drain")))
    assert run.on_s == [4.0, 6.25]


def test_a_cold_start() -> None:
    # Instance 1 begins down, is started at 1 and up at 3: at 2.5 not eligible, at 3 it is.
    watch = Recorder([0, 0, 1])
    pool = replace(a_pool(instances=2), instances_up=1, start_s=2.0)
    run = simulate(rows((0, 4, 1), (2.5, 4, 1), (3, 4, 1)), [pool], watch, rules=failing((1, 1, "start")))
    assert [view.eligible.tolist() for view in watch.views] == [[True, False]] * 2 + [[True, True]]
    assert run.on_s == [5.5, 4.5]


def test_a_failure_while_it_starts() -> None:
    watch = Recorder([0, 0])
    pool = replace(a_pool(instances=2), instances_up=1, start_s=2.0)
    rules = failing((1, 1, "start"), (2, 1, "fail"), (2.5, 1, "start"))
    run = simulate(rows((4, 4, 1), (4.5, 4, 1)), [pool], watch, rules=rules)
    assert [view.eligible.tolist() for view in watch.views] == [[True, False], [True, True]]
    assert run.on_s[1] == run.last_s[1] - 2.5 + 1


def test_autoscaling() -> None:
    # 1 to 3 instances, 2 in flight for each, every 4 s, two ticks too many before any drains, 1 s to start.
    # Five requests of input 2, output 8 at 0 with five slots: step 1 reads four (mixed[8], to 3); step 2 decodes them
    # and reads the fifth (mixed[6], to 5.75); six steps of decode[5], to 15.5, when the first four are done; then
    # decode[1], to 16.625.
    # Tick at 4: 5 in flight, wanted 3: 1 and 2 start, up at 5. Ticks at 8 and 12: 3 wanted. At 16: 1 in flight and
    # wanted, 3 there: once. At 20: none in flight: least is 1: twice: 1 and 2 drain, highest first, and are down.
    # The last request comes at 30.
    pool = replace(a_pool(instances=3, max_num_seqs=5), instances_up=1, start_s=1.0, least=1, target_inflight=2.0)
    pool = replace(pool, scale_every_s=4.0, scale_down_after=2)
    table = rows(*[(0, 2, 8)] * 5, (4.5, 9, 1), (5, 9, 1), (30, 2, 1))
    watch = Recorder([0] * 5 + [-1, -1, 0])
    run = simulate(table, [pool], watch)
    assert run.last_s[:5] == [15.5] * 4 + [16.625]
    assert [view.eligible.tolist() for view in watch.views[5:]] == [
        [True, False, False],
        [True, True, True],
        [True, False, False],
    ]
    assert run.on_s == [32.25, 16.0, 16.0]


def test_autoscaling_wakes_who_drains_first() -> None:
    # Two instances with a request each (to 14.875, 12 tokens of 1.125 after 2.5), 4 wanted of each. Tick at 4: 2 in
    # flight, wanted 1: instance 1 drains. Rows 2 to 6 then go to 0. Tick at 8: 7 in flight: 2 wanted: 1 comes back.
    pool = replace(a_pool(instances=2), target_inflight=4.0, scale_every_s=4.0, start_s=100.0)
    table = rows((0, 4, 12), (0, 4, 12), *[(5, 2, 2)] * 5, (8, 2, 1))
    watch = Recorder([0, 1] + [0] * 5 + [1])
    simulate(table, [pool], watch)
    assert [view.eligible.tolist() for view in watch.views[2:]] == [[True, False]] * 5 + [[True, True]]


# -- the gateway ----------------------------------------------------------------------------------------


def refused(run: NaiveResult) -> list[int]:
    return [row for row, status in enumerate(run.status) if status == REFUSED]


def test_a_ration() -> None:
    # Half a request a second, one at once. 0: taken. 1: 0.5. 2: 1, taken. 2.5: 0.25. 10: full. 10 again: none left.
    rules = NaiveRules(ration_per_s=[0.5], ration_burst=[1.0])
    table = rows(*[(t, 2, 1) for t in (0, 1, 2, 2.5, 10, 10)])
    assert refused(simulate(table, [a_pool()], least_wait, rules=rules)) == [1, 3, 5]


def test_who_could_not_be_served_takes_no_ration() -> None:
    rules = NaiveRules(ration_per_s=[0.0], ration_burst=[1.0])
    table = rows((0, 300, 1), (1, 2, 1), (2, 2, 1))
    assert refused(simulate(table, [a_pool()], least_wait, rules=rules)) == [0, 2]


def test_a_class_is_shed() -> None:
    # Two instances of 4 places, class 0 up to 1/4 of them: refused with 2 in flight; class 1 has no limit.
    rules = NaiveRules(shed_above=[0.25, math.inf])
    table = rows(*[(k / 8, 2, 1) for k in range(5)], class_id=[0, 1, 0, 1, 0])
    assert refused(simulate(table, [a_pool(instances=2)], least_wait, rules=rules)) == [2, 4]


def test_nobody_waits_longer_than_is_allowed() -> None:
    # 1/4 s for each queued token: after two prompts of 4 on two instances the wait is 1 s everywhere.
    table = rows(*[(k / 8, 4, 1) for k in range(4)])
    for limit_s, out in ((1.0, []), (0.9375, [2, 3])):
        rules = NaiveRules(max_wait_s=[limit_s])
        assert refused(simulate(table, [a_pool(instances=2)], least_wait, rules=rules)) == out


def test_the_gateway_does_not_ask_again() -> None:
    # One request a day: neither the hand-off nor a second arrival is counted.
    rules = NaiveRules(ration_per_s=[0.0], ration_burst=[1.0], events=((1.0, 0, "fail"),))
    prefill, decode = apart(instances=2)
    run = simulate(rows((0, 4, 3)), [prefill, decode], least_wait, rules=rules)
    assert (run.status, run.restarts, run.first_s) == ([COMPLETED], [1], [3.5])


# -- old signals ------------------------------------------------------------------------------------------


def test_counters_are_old() -> None:
    # Readings at 0, 2, 4 (before arrivals, after steps that end): A and B are seen from 2 on; the steps end at 2.25,
    # 4.5. C comes at 2 itself.
    table = rows((0, 2, 9), (0.5, 2, 1), (2, 2, 1), (3, 2, 1), (5, 2, 1))
    watch: list[tuple[FleetView, Ask]] = []

    def policy(view: FleetView, ask: Ask) -> int:
        watch.append((view, ask))
        return 0

    simulate(table, [a_pool()], policy, rules=NaiveRules(stale_s=2.0))
    assert [float(view.age_s[0]) for view, _ in watch] == [0.0, 0.5, 0.0, 1.0, 1.0]
    assert [int(view.inflight[0]) for view, _ in watch] == [0, 0, 2, 2, 4]
    assert [int(view.running[0]) for view, _ in watch] == [0, 0, 1, 1, 3]
    assert [int(view.sent[0, 0]) for view, _ in watch] == [0, 1, 2, 3, 4]

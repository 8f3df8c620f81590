"""Laws that hold on every sample path, tested on random small cases (see docs/laws.md)."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infermix.route.view import Ask, FleetView
from tests.laws.engines import naive_engine
from tests.laws.strategies import OPEN, Case, Engine, by_all_counters, cases, policies, scaled, with_columns
from tests.naive.policies import least_wait, round_robin
from tests.naive.sim import COMPLETED, REFUSED, UNFINISHED, NaivePool, NaiveResult, Policy
from tests.nightly import examples

EPS = 1e-9
law = settings(max_examples=examples(60), deadline=None, derandomize=True)


def least_prefill_s(pool: NaivePool, tokens: int, cached: int) -> float:
    """The least time in which any cutting into chunks reads a prompt; tables increase with T."""
    best = [0.0] + [math.inf] * tokens
    for done in range(1, tokens + 1):
        for chunk in range(1, min(done, pool.max_batched_tokens) + 1):
            best[done] = min(best[done], best[done - chunk] + pool.mixed_s[chunk] + pool.per_seq_s)
    whole = cached + tokens
    pairs = tokens * cached + tokens * (tokens + 1) // 2  # the same for every cutting
    return best[tokens] + pool.kv_s * whole + pool.pair_s * pairs + pool.load_s * cached


def least_decode_s(pool: NaivePool, prompt: int, output: int) -> float:
    """The least time from the first token to the last: a step of its own for each further token."""
    context = sum(prompt + generated for generated in range(1, output))
    return (output - 1) * (pool.decode_s[1] + pool.per_seq_s) + pool.kv_s * context


@law
@given(case=cases(), policy=policies())
def test_requests_and_tokens_are_conserved(engine: Engine, case: Case, policy: Policy) -> None:
    """L1: each request is completed or refused, just once; each KV token past the cache is computed.

    A preemption can only add work: what it throws away is computed again.
    """
    run = case.run(engine, policy)
    table = case.requests
    for row, status in enumerate(run.status):
        assert status in (COMPLETED, REFUSED)
        assert (run.instance[row] >= 0) == (status == COMPLETED)
        assert math.isnan(run.first_s[row]) == math.isnan(run.last_s[row]) == (status == REFUSED)
        if status == COMPLETED:
            pool = case.pool_of(run.instance[row])
            assert pool.serves_class(int(table.class_id[row]))
            assert table.input_tokens[row] + table.output_tokens[row] - 1 <= pool.capacity_tokens()
    for one in range(case.instances()):
        rows = case.rows_of(run, one)
        prompt = sum(int(table.input_tokens[row] - table.cached_tokens[row]) for row in rows)
        decode = sum(int(table.output_tokens[row]) - 1 for row in rows)
        assert run.prompt_tokens[one] >= prompt
        assert run.decode_tokens[one] <= decode
        assert run.prompt_tokens[one] + run.decode_tokens[one] >= prompt + decode
        if run.preemptions[one] == 0:
            assert (run.prompt_tokens[one], run.decode_tokens[one]) == (prompt, decode)
        assert run.decode_tokens[one] >= decode - run.preemptions[one]


@law
@given(case=cases(), policy=policies())
def test_no_token_before_its_work(engine: Engine, case: Case, policy: Policy) -> None:
    """L2: the first token comes after the arrival and the least time of the own uncached prompt; the
    last after the first and a step for each further token (preempted or not)."""
    run = case.run(engine, policy)
    table = case.requests
    for row, where in enumerate(run.instance):
        if where < 0:
            continue
        pool = case.pool_of(where)
        prompt, cached, output = (
            int(table.input_tokens[row]),
            int(table.cached_tokens[row]),
            int(table.output_tokens[row]),
        )
        ttft = run.first_s[row] - float(table.arrival_s[row])
        assert ttft >= least_prefill_s(pool, prompt - cached, cached) - EPS
        assert run.last_s[row] - run.first_s[row] >= least_decode_s(pool, prompt, output) - EPS
        assert (run.first_s[row] == run.last_s[row]) == (output == 1)


@law
@given(case=cases(), policy=policies(), part=st.floats(0.05, 0.95))
def test_the_clock_only_goes_forward(engine: Engine, case: Case, policy: Policy, part: float) -> None:
    """L3: a run that ends at ``until_s`` is the beginning of the whole run: no event is later than the
    end, none before it is missing or different."""
    whole = case.run(engine, policy)
    until_s = part * max([t for t in whole.last_s if not math.isnan(t)], default=1.0)
    cut = case.run(engine, policy, until_s=until_s)
    for row, arrival in enumerate(case.requests.arrival_s):
        asked = arrival <= until_s
        assert cut.instance[row] == (whole.instance[row] if asked else -1)
        for short, full in ((cut.first_s[row], whole.first_s[row]), (cut.last_s[row], whole.last_s[row])):
            assert short == pytest.approx(full, rel=EPS) if full <= until_s else math.isnan(short)
        done = whole.status[row] == REFUSED or whole.last_s[row] <= until_s
        assert cut.status[row] == (whole.status[row] if asked and done else UNFINISHED)
    for one in range(case.instances()):
        assert cut.busy_s[one] <= min(whole.busy_s[one], until_s) + EPS
        assert cut.steps[one] <= whole.steps[one]


@law
@given(case=cases())
def test_kv_blocks_are_bounded_and_come_back(engine: Engine, case: Case) -> None:
    """L4: the peak is at least what the longest request of the instance needs and at most all blocks;
    when all have finished every block is free again: the same requests, sent once more after a
    pause, find the instance as new and take the same times and the same peak."""
    pool = replace(case.pools[0], instances=1)
    case = Case(case.requests, [pool], [[1.0] for _ in case.share], case.typical)
    run = case.run(engine, least_wait)
    table = case.requests
    ends = [int(table.input_tokens[row] + table.output_tokens[row]) - 1 for row in case.rows_of(run, 0)]
    assert pool.blocks_for(max(ends, default=0)) <= run.kv_peak_blocks[0] <= pool.blocks

    pause = 1024.0
    assert all(math.isnan(last) or last < pause for last in run.last_s)
    twice = with_columns(
        table,
        arrival_s=[*table.arrival_s, *(table.arrival_s + pause)],
        **OPEN,
        **{
            name: [*getattr(table, name), *getattr(table, name)]
            for name in ("input_tokens", "output_tokens", "cached_tokens", "class_id")
        },
    )
    again = Case(twice, case.pools, case.share, case.typical).run(engine, least_wait)
    count = len(table)
    assert again.status == run.status * 2
    for row in range(count):
        for short, double in ((run.first_s, again.first_s), (run.last_s, again.last_s)):
            assert double[row] == pytest.approx(short[row], rel=EPS, nan_ok=True)
            assert double[count + row] == pytest.approx(short[row] + pause, rel=EPS, nan_ok=True)
    assert again.steps[0] == 2 * run.steps[0]
    assert again.preemptions[0] == 2 * run.preemptions[0]
    assert again.kv_peak_blocks == run.kv_peak_blocks


@law
@given(case=cases(), policy=policies())
def test_never_idle_with_work(engine: Engine, case: Case, policy: Policy) -> None:
    """L5: an instance computes exactly while it has a request in flight: its busy time is the length of
    the union of [arrival, last token] of its requests (a head of the queue can always run alone)."""
    run = case.run(engine, policy)
    for one in range(case.instances()):
        spans = sorted((float(case.requests.arrival_s[row]), run.last_s[row]) for row in case.rows_of(run, one))
        covered, reach = 0.0, -math.inf
        for begin, end in spans:
            covered += max(0.0, end - max(begin, reach))
            reach = max(reach, end)
        assert run.busy_s[one] == pytest.approx(covered, rel=1e-9, abs=1e-9)


@law
@given(case=cases(), policy=policies())
def test_same_input_same_output(engine: Engine, case: Case, policy: Policy) -> None:
    """L6: two runs of the same input agree to the last bit."""
    assert repr(case.run(engine, policy)) == repr(case.run(engine, policy))


def with_other_futures(case: Case, run: NaiveResult, now_s: float, luck: Random) -> Case:
    """The case with other output lengths for all that is not finished at ``now_s``.

    What has happened up to now stays as it was: requests without a token exchange their lengths;
    those that have some get more; whether the instance accepts stays the same.
    """
    table = case.requests
    output = [int(tokens) for tokens in table.output_tokens]
    open_rows = [
        row
        for row, arrival in enumerate(run.arrival_s)
        if arrival > now_s or (run.status[row] == COMPLETED and run.last_s[row] > now_s)
    ]
    silent = [row for row in open_rows if not run.first_s[row] <= now_s]
    lengths = [output[row] + luck.randint(0, 5) for row in silent]
    luck.shuffle(lengths)
    for row, length in zip(silent, lengths, strict=True):
        output[row] = length
    for row in set(open_rows) - set(silent):
        output[row] += luck.randint(1, 30)
    for row in open_rows:
        if run.arrival_s[row] <= now_s:
            pool = case.pool_of(run.instance[row])
            longest = min(pool.capacity_tokens() + 1, pool.max_context)
            output[row] = min(output[row], longest - int(table.input_tokens[row]))
    changed = with_columns(table, output_tokens=output)
    return Case(changed, case.pools, case.share, case.typical)


@law
@given(
    case=cases(),
    policy=st.one_of(policies(), st.just(by_all_counters)),
    part=st.floats(0.1, 0.9),
    luck=st.integers(0, 9999),
)
def test_no_oracle(engine: Engine, case: Case, policy: Policy, part: float, luck: int) -> None:
    """L7: other output lengths of the requests that are not finished when a decision is taken do not
    change this decision or any earlier one."""
    run = case.run(engine, policy)
    row = int(part * (len(case.requests) - 1))
    now_s = float(case.requests.arrival_s[row])
    other = with_other_futures(case, run, now_s, Random(luck)).run(engine, policy)
    assert other.instance[: row + 1] == run.instance[: row + 1]


@law
@given(case=cases(), part=st.floats(0.1, 0.9), luck=st.integers(0, 9999))
def test_no_oracle_in_the_view(case: Case, part: float, luck: int) -> None:
    """L7 again, twin only: a policy that records all it sees is shown the very same numbers."""
    row = int(part * (len(case.requests) - 1))
    now_s = float(case.requests.arrival_s[row])
    seen: list[list[str]] = []

    def record(view: FleetView, ask: Ask) -> int:
        seen[-1].append(repr([column.tolist() for column in view] + list(ask)))  # an unknown price is NaN
        return by_all_counters(view, ask)

    seen.append([])
    run = case.run(naive_engine, record)
    seen.append([])
    with_other_futures(case, run, now_s, Random(luck)).run(naive_engine, record)
    assert seen[0][: row + 1] == seen[1][: row + 1]


@law
@given(case=cases(serve_all=True), policy=policies(), more=st.integers(2, 4))
def test_more_instances_than_one_never_wait_longer(engine: Engine, case: Case, policy: Policy, more: int) -> None:
    """L8a: with one slot per instance, going from one instance to several lets nobody wait longer.

    A theorem for every policy and all lengths. One slot: a request runs alone, so its service
    time is its own, whoever serves it. On one instance request i starts at max(arrival, when all
    before it are done). With several it starts at max(arrival, when those before it *on its
    instance* are done); by induction these were not done later than before. Nothing is preempted:
    a request that runs alone fits.
    """
    one = single_slot(case, 1)
    before = one.run(engine, policy)
    after = single_slot(case, more).run(engine, policy)
    assert after.status == before.status
    for row, status in enumerate(before.status):
        if status == COMPLETED:
            assert after.first_s[row] <= before.first_s[row] + EPS
            assert after.last_s[row] <= before.last_s[row] + EPS


@law
@given(case=cases(serve_all=True), count=st.integers(1, 4))
def test_one_more_instance_never_raises_the_wait(engine: Engine, case: Case, count: int) -> None:
    """L8b: with one slot per instance, equal requests and round robin, one more instance lets nobody
    wait longer, whatever their number c is.

    A theorem: with service time S the ends are C(i) = max(a(i), C(i-c)) + S. C does not descend
    in i (induction, a does not), so C'(i-c-1) <= C'(i-c) <= C(i-c) and C'(i) <= C(i) for c+1.
    Neither unequal lengths nor other policies are covered: there counter-examples exist.
    """
    few = single_slot(case, count)
    table = few.requests
    size = len(table)
    first = {"input_tokens": [int(table.input_tokens[0])] * size, "output_tokens": [int(table.output_tokens[0])] * size}
    equal = with_columns(table, cached_tokens=[0] * size, **first)
    before = Case(equal, few.pools, few.share, few.typical).run(engine, round_robin)
    after = Case(equal, single_slot(case, count + 1).pools, few.share, few.typical).run(engine, round_robin)
    assume(before.status[0] == COMPLETED)
    for earlier, later in ((after.first_s, before.first_s), (after.last_s, before.last_s)):
        assert all(a <= b + EPS for a, b in zip(earlier, later, strict=True))


def single_slot(case: Case, instances: int) -> Case:
    """The first pool of a case alone, with one slot per instance."""
    pool = case.pools[0]
    changed = replace(pool, instances=instances, max_num_seqs=1)
    return Case(case.requests, [changed], [[1.0] for _ in case.share], case.typical)


@law
@given(case=cases(), policy=policies(), power=st.sampled_from([-2, 1, 3]))
def test_twice_as_slow_takes_twice_as_long(engine: Engine, case: Case, policy: Policy, power: int) -> None:
    """L9: all times multiplied by a power of two (exact in floating point): all answers are, too."""
    factor = 2.0**power
    run = case.run(engine, policy)
    slow_requests = with_columns(case.requests, arrival_s=factor * case.requests.arrival_s)
    slow = Case(slow_requests, [scaled(pool, factor) for pool in case.pools], case.share, case.typical)
    other = slow.run(engine, policy)
    assert (other.instance, other.status, other.steps) == (run.instance, run.status, run.steps)
    assert (other.preemptions, other.kv_peak_blocks) == (run.preemptions, run.kv_peak_blocks)
    for mine, theirs in ((run.first_s, other.first_s), (run.last_s, other.last_s), (run.busy_s, other.busy_s)):
        assert theirs == pytest.approx([factor * t for t in mine], rel=1e-12, nan_ok=True)


@law
@given(case=cases())
def test_counters_are_what_is_in_flight(case: Case) -> None:
    """L10: (twin only) the counters that an arrival is shown are those of the requests in flight:
    accepted earlier and not finished yet. Their mean over arrivals is what Little's law speaks of."""
    seen: list[FleetView] = []

    def record(view: FleetView, ask: Ask) -> int:
        seen.append(view)
        return by_all_counters(view, ask)

    run = case.run(naive_engine, record)
    table = case.requests
    for row, view in enumerate(seen):
        now_s = float(table.arrival_s[row])
        for one in range(case.instances()):
            flight = [k for k in case.rows_of(run, one) if k < row and run.last_s[k] > now_s]
            assert view.inflight[one] == len(flight) == view.waiting[one] + view.running[one]
            assert view.context_tokens[one] == sum(int(table.input_tokens[k]) for k in flight)


@law
@given(case=cases(ample_kv=True), policy=policies())
def test_no_more_than_the_slots_decode_at_once(engine: Engine, case: Case, policy: Policy) -> None:
    """L11: without preemption, at most ``max_num_seqs`` requests of an instance are between their first
    and last token at any time; and no step computes more than ``max_batched_tokens``."""
    run = case.run(engine, policy)
    assert sum(run.preemptions) == 0
    for one in range(case.instances()):
        pool = case.pool_of(one)
        tokens = run.prompt_tokens[one] + run.decode_tokens[one]
        assert run.steps[one] <= tokens <= run.steps[one] * pool.max_batched_tokens
        assert run.decode_tokens[one] <= run.steps[one] * pool.max_num_seqs
        rows = [row for row in case.rows_of(run, one) if run.first_s[row] < run.last_s[row]]
        # ends before begins at equal times: a freed slot is taken from the same moment on
        changes = sorted([(run.last_s[row], -1) for row in rows] + [(run.first_s[row], 1) for row in rows])
        now_decoding = 0
        for _, change in changes:
            now_decoding += change
            assert now_decoding <= pool.max_num_seqs


@law
@given(case=cases(), policy=policies())
def test_first_come_first_served(engine: Engine, case: Case, policy: Policy) -> None:
    """L12: on an instance that preempts nobody, first tokens come in the order of arrival (a prompt is
    read to its end before the budget of a step goes to the next)."""
    run = case.run(engine, policy)
    for one in range(case.instances()):
        if run.preemptions[one] == 0:
            firsts = [run.first_s[row] for row in case.rows_of(run, one)]
            assert firsts == sorted(firsts)


@law
@given(case=cases(), policy=policies())
def test_pools_do_not_see_each_other(engine: Engine, case: Case, policy: Policy) -> None:
    """L13: each instance alone, given just the requests that were sent to it, does what it did among
    the others."""
    run = case.run(engine, policy)
    for one in range(case.instances()):
        rows = case.rows_of(run, one)
        if not rows:
            continue
        table = case.requests
        own = with_columns(
            table,
            **OPEN,
            **{
                name: getattr(table, name)[rows]
                for name in ("arrival_s", "input_tokens", "output_tokens", "cached_tokens", "class_id")
            },
        )
        pool = replace(case.pool_of(one), instances=1)
        alone = Case(own, [pool], [[1.0] for _ in case.share], case.typical).run(engine, round_robin)
        assert alone.first_s == pytest.approx([run.first_s[row] for row in rows], rel=EPS)
        assert alone.last_s == pytest.approx([run.last_s[row] for row in rows], rel=EPS)
        assert (alone.steps, alone.preemptions) == ([run.steps[one]], [run.preemptions[one]])
        assert alone.kv_peak_blocks == [run.kv_peak_blocks[one]]

"""Laws of engines and fleets that hold on every sample path, tested on random small cases (docs/laws.md)."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.route.view import Ask, FleetView
from infermix.workload.requests import Requests, make_requests
from tests.laws.engines import kernel_engine, kernel_has_features, naive_engine
from tests.laws.feature_cases import FEATURES, FeatureCase, random_case
from tests.laws.strategies import Engine, by_all_counters, policies, scaled
from tests.naive.policies import least_wait, round_robin
from tests.naive.sim import (
    BOTH,
    COMPLETED,
    DECODE,
    PREFILL,
    REFUSED,
    UNFINISHED,
    NaivePool,
    NaiveResult,
    NaiveRules,
    Policy,
)
from tests.naive.test_twin import a_pool
from tests.nightly import examples

EPS = 1e-9
law = settings(max_examples=examples(30), deadline=None, derandomize=True)


@pytest.fixture(autouse=True)
def _known(request: pytest.FixtureRequest) -> None:
    if "engine" in request.fixturenames and request.getfixturevalue("engine") is kernel_engine:
        if not kernel_has_features():
            pytest.skip("the kernel does not know them")


def drawn(*, always: Iterable[str] = (), never: Iterable[str] = (), most: int = 5) -> st.SearchStrategy[FeatureCase]:
    """Cases of any features, but for some."""
    some = st.frozensets(st.sampled_from([name for name in FEATURES if name not in {*never}]), max_size=most)
    return st.builds(lambda number, names: random_case(number, names | {*always}), st.integers(0, 2**32 - 1), some)


def changed(case: FeatureCase, **changes: Any) -> FeatureCase:
    """All pools changed in the same way."""
    return replace(case, pools=[replace(pool, **changes) for pool in case.pools])


def first_instance(run: NaiveResult, row: int) -> int:
    """Where its prompt was read."""
    return run.prefill_instance[row] if run.prefill_instance[row] >= 0 else run.instance[row]


def plain(run: NaiveResult, case: FeatureCase) -> bool:
    """Nothing was computed twice, or for nothing; and every step of a sequence gives one token."""
    lost = [
        row for row, status in enumerate(run.status) if status != COMPLETED and run.first_s[row] == run.first_s[row]
    ]
    steady = all(pool.accepted_per_step == 1 and pool.accepted_variance == 0 for pool in case.pools)
    return steady and not lost and sum(run.preemptions) == sum(run.restarts) == 0


# -- conservation ---------------------------------------------------------------------------------------


@law
@given(case=drawn(), policy=policies())
def test_every_request_ends_once(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L28: completed with all its tokens, or refused; where it was is a place that may have it."""
    run = case.run(engine, policy)
    table = case.requests
    for row, status in enumerate(run.status):
        assert status in (COMPLETED, REFUSED)
        assert (run.instance[row] >= 0) == (status == COMPLETED)
        assert math.isnan(run.last_s[row]) == (status == REFUSED)
        if status == COMPLETED:
            at = case.pool_of(run.instance[row])
            assert at.serves_class(int(table.class_id[row]))
            assert at.role == (DECODE if run.prefill_instance[row] >= 0 else at.role)
            assert at.role != PREFILL or table.output_tokens[row] == 1
            longest = int(table.input_tokens[row] + table.output_tokens[row]) - 1
            assert longest <= at.usable_tokens() or at.role == PREFILL
        if run.prefill_instance[row] >= 0:
            assert case.pool_of(run.prefill_instance[row]).role == PREFILL


@law
@given(case=drawn(), policy=policies())
def test_tokens_are_conserved(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L28: where nothing is lost, each token of a path that was not found is computed once, and each pause between two
    tokens is counted once; otherwise no fewer."""
    run = case.run(engine, policy)
    table = case.requests
    prompt, between = 0, 0
    for row, status in enumerate(run.status):
        if status == COMPLETED:
            cache = case.pool_of(first_instance(run, row)).prefix_cache
            found = run.hit_tokens[row] + run.loaded_tokens[row] if cache else int(table.cached_tokens[row])
            prompt += int(table.input_tokens[row]) - found
            between += int(table.output_tokens[row]) - 1
    counted = sum(len(times) for times in run.gaps.values())
    if plain(run, case):
        assert (sum(run.prompt_tokens), sum(run.decode_tokens), counted) == (prompt, between, between)
    elif all(pool.accepted_most == 1 for pool in case.pools) and not sum(run.restarts):
        assert counted >= between
        assert counted >= sum(run.decode_tokens)


@law
@given(case=drawn(never=["speculation"]), policy=policies())
def test_blocks_are_bounded(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L29: the peak lies between what the longest that ran there needs and all there is. (That none is taken twice, and
    that all are free or cached at the end, the twin asserts in every run.)"""
    run = case.run(engine, policy)
    table = case.requests
    need = [0] * case.instances()
    for row, status in enumerate(run.status):
        if status == COMPLETED:
            inputs, outputs = int(table.input_tokens[row]), int(table.output_tokens[row])
            last, first = run.instance[row], first_instance(run, row)
            need[last] = max(need[last], case.pool_of(last).blocks_for(inputs + outputs - 1))
            need[first] = max(need[first], case.pool_of(first).blocks_for(inputs))
    for one, peak in enumerate(run.kv_peak_blocks):
        assert need[one] <= peak <= case.pool_of(one).blocks


# -- time ---------------------------------------------------------------------------------------------


@law
@given(case=drawn(), policy=policies())
def test_no_effect_before_its_cause(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L30: arrival, admission, first token, transfer, last token, in this order; a child comes after its parent; an
    instance is busy only while it is on."""
    run = case.run(engine, policy)
    table = case.requests
    for row, status in enumerate(run.status):
        parent = int(table.parent[row])
        if parent >= 0 and run.status[parent] == COMPLETED:
            assert run.arrival_s[row] == pytest.approx(run.last_s[parent] + float(table.think_s[row]), rel=EPS)
        if status != COMPLETED:
            continue
        assert run.arrival_s[row] <= run.admit_s[row] + EPS
        assert run.admit_s[row] < run.first_s[row] <= run.last_s[row]
        before = run.prefill_instance[row]
        if before >= 0 and run.restarts[row] == 0:
            ends = case.pool_of(before), case.pool_of(run.instance[row])
            token_s = max(pool.transfer_s_per_token for pool in ends)
            least_s = max(pool.transfer_latency_s for pool in ends) + int(table.input_tokens[row]) * token_s
            assert run.last_s[row] - run.first_s[row] >= least_s - EPS
    end_s = max([t for t in run.last_s if not math.isnan(t)], default=0.0)
    for busy_s, on_s in zip(run.busy_s, run.on_s, strict=True):
        assert busy_s <= on_s + EPS
        assert busy_s <= end_s + EPS or sum(run.restarts) > 0


@law
@given(case=drawn(), policy=policies(), part=st.floats(0.05, 0.95))
def test_a_run_that_is_cut_is_the_beginning(engine: Engine, case: FeatureCase, policy: Policy, part: float) -> None:
    """L30: what has happened by the end of a shorter run happened in the whole run, too."""
    whole = case.run(engine, policy)
    until_s = part * max([t for t in whole.last_s if not math.isnan(t)], default=1.0)
    cut = case.run(engine, policy, until_s=until_s)
    for row, status in enumerate(cut.status):
        assert status in (whole.status[row], UNFINISHED)
        assert (status == COMPLETED) == (whole.last_s[row] <= until_s)
        if whole.restarts[row] == 0:
            for short, full in ((cut.first_s[row], whole.first_s[row]), (cut.last_s[row], whole.last_s[row])):
                assert short == pytest.approx(full, rel=EPS) if full <= until_s else math.isnan(short)
        assert cut.restarts[row] <= whole.restarts[row]
    for name in ("busy_s", "on_s", "steps", "preemptions", "prompt_tokens", "decode_tokens", "kv_peak_blocks"):
        for short, full in zip(getattr(cut, name), getattr(whole, name), strict=True):
            assert short <= full + EPS


@law
@given(case=drawn(), policy=policies())
def test_same_input_same_output(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L6 with engines and fleets: two runs of the same input agree to the last bit."""
    assert repr(case.run(engine, policy, seed=3)) == repr(case.run(engine, policy, seed=3))


def slower(case: FeatureCase, factor: float) -> FeatureCase:
    """All times multiplied, rates divided."""
    table, rules = case.requests, case.rules
    times = (
        "retention_s",
        "host_load_s",
        "host_latency_s",
        "remote_load_s",
        "remote_latency_s",
        "transfer_s_per_token",
        "transfer_latency_s",
        "start_s",
        "scale_every_s",
    )
    pools = [
        replace(scaled(pool, factor), **{name: factor * getattr(pool, name) for name in times}) for pool in case.pools
    ]
    slow_rules = replace(
        rules,
        events=tuple((factor * time_s, one, what) for time_s, one, what in rules.events),
        stale_s=factor * rules.stale_s,
        ration_per_s=rules.ration_per_s and [rate / factor for rate in rules.ration_per_s],
        max_wait_s=rules.max_wait_s and [factor * wait_s for wait_s in rules.max_wait_s],
    )
    slow = replace(table, arrival_s=factor * table.arrival_s, think_s=np.float32(factor) * table.think_s)
    return replace(case, requests=slow, pools=pools, rules=slow_rules)


@law
@given(case=drawn(), policy=policies(), power=st.sampled_from([-2, 1, 3]))
def test_twice_as_slow_takes_twice_as_long(engine: Engine, case: FeatureCase, policy: Policy, power: int) -> None:
    """L9 with engines and fleets: all times multiplied by a power of two, those of the rules too, and rates divided:
    all answers are multiplied."""
    factor = 2.0**power
    run, other = case.run(engine, policy), slower(case, factor).run(engine, policy)
    for name in ("instance", "prefill_instance", "status", "steps", "preemptions", "hit_tokens", "restarts"):
        assert getattr(other, name) == getattr(run, name), name
    for name in ("arrival_s", "admit_s", "first_s", "last_s", "busy_s", "on_s"):
        expected = [factor * t for t in getattr(run, name)]
        assert getattr(other, name) == pytest.approx(expected, rel=1e-12, abs=1e-12 * factor, nan_ok=True), name


@law
@given(
    case=drawn(always=["ids"], never=["sessions", "speculation"]),
    part=st.floats(0.1, 0.9),
    luck=st.integers(0, 9999),
)
def test_no_oracle(case: FeatureCase, part: float, luck: int) -> None:
    """L7 with engines and fleets, twin only: other lengths of the answers that are not finished at a moment change
    nothing that a policy was shown up to it. (With speculation a step gives the tokens that its length implies, and in
    sessions the answer is part of what the next turn shares; both are told from the length.)"""
    seen: list[list[str]] = []

    def record(view: FleetView, ask: Ask) -> int:
        if ask.now_s <= now_s:
            seen[-1].append(repr([column.tolist() for column in view] + list(ask)))  # an unknown price is NaN
        return by_all_counters(view, ask)

    now_s = math.inf
    seen.append([])
    run = case.run(naive_engine, record)
    now_s = sorted(run.arrival_s)[int(part * (len(run.arrival_s) - 1))]
    for table in (case.requests, other_futures(case, run, now_s, Random(luck))):
        seen.append([])
        replace(case, requests=table).run(naive_engine, record)
    assert seen[1] == seen[2]


def other_futures(case: FeatureCase, run: NaiveResult, now_s: float, luck: Random) -> Requests:
    """Longer answers of some that are not finished at that time; none gets more than every pool can finish, so that no
    instance refuses what it took."""
    table = case.requests
    output = table.output_tokens.copy()
    for row, status in enumerate(run.status):
        ended_s = run.last_s[row] if status == COMPLETED else run.arrival_s[row]
        if ended_s > now_s:
            room = [min(pool.usable_tokens() + 1, pool.max_context) for pool in case.pools]
            most = min([tokens - int(table.input_tokens[row]) for tokens in room])
            if int(output[row]) < most:
                output[row] = luck.randint(max(int(output[row]), 2) if output[row] > 1 else 1, most)
                output[row] = output[row] if table.output_tokens[row] > 1 else 1
    return replace(table, output_tokens=output)


# -- what is off, and what is neutral --------------------------------------------------------------------


@law
@given(case=drawn(always=["closed"], never=["sessions", "ids", "tiers", "retention"]), policy=policies())
def test_a_cache_of_what_nobody_shares_changes_nothing(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L31: where no request has cached tokens, no two share any; then a prefix cache with all its tiers changes
    nothing, to the bit, whatever the memory: what it keeps gives way to every block taken, and nobody asks for it."""
    alone = replace(case.requests, cached_tokens=np.zeros(len(case.requests), dtype=np.int32))
    case = replace(case, requests=alone)
    on: dict[str, Any] = {"prefix_cache": True, "host_blocks": 50, "remote_blocks": 50, "retention_s": 0.01}
    caching = [pool if pool.role == DECODE else replace(pool, **on) for pool in case.pools]
    assert repr(case.run(engine, policy)) == repr(replace(case, pools=caching).run(engine, policy))


@law
@given(case=drawn(never=["failures", "resume", "scaling", "admission", "stale"]), policy=policies())
def test_rules_that_never_apply_change_nothing(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L31: events when all is over, limits that are never reached, a scaler that wants what there is, steps that accept
    one token for sure: to the bit nothing changes."""
    classes = len(case.share)
    without = changed(case, accepted_per_step=1.0, accepted_variance=0.0, accepted_most=1)
    run = without.run(engine, policy)
    late_s = 2.0 * max([t for t in run.last_s if not math.isnan(t)], default=1.0) + 1.0
    rules = NaiveRules(
        events=((late_s, 0, "fail"),),
        resume=True,
        ration_per_s=[1.0] * classes,
        ration_burst=[1e6] * classes,
        shed_above=[math.inf] * classes,
        max_wait_s=[math.inf] * classes,
    )
    pools = [
        replace(pool, least=pool.instances, target_inflight=1.0, scale_every_s=0.01, start_s=5.0, accepted_most=4)
        for pool in without.pools
    ]
    assert repr(replace(case, pools=pools, rules=rules).run(engine, policy)) == repr(run)


@law
@given(case=drawn(never=["ranks"]), policy=policies(), ranks=st.sampled_from([2, 4]))
def test_a_group_alone_is_all_there_is(engine: Engine, case: FeatureCase, policy: Policy, ranks: int) -> None:
    """L32: with one slot all is read by one group of R, so reading takes R times as long: the same as reading in one
    group at a rate R times slower."""
    single = changed(case, max_num_seqs=1)
    slow = [
        replace(pool, kv_s=ranks * pool.kv_s, pair_s=ranks * pool.pair_s, load_s=ranks * pool.load_s)
        for pool in single.pools
    ]
    run, other = changed(single, ranks=ranks).run(engine, policy), replace(single, pools=slow).run(engine, policy)
    assert (run.status, run.instance, run.steps) == (other.status, other.instance, other.steps)
    assert run.last_s == pytest.approx(other.last_s, rel=EPS, nan_ok=True)


# -- prefix cache ---------------------------------------------------------------------------------------


@law
@given(case=drawn(always=["sessions"]), policy=policies())
def test_what_is_found_is_less_than_what_is_asked_for(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L33: one token at least is computed at every admission; and what is found is whole blocks, but for that."""
    run = case.run(engine, policy)
    table = case.requests
    for row, (hit, loaded) in enumerate(zip(run.hit_tokens, run.loaded_tokens, strict=True)):
        longest = int(table.input_tokens[row] + table.output_tokens[row]) - 1
        assert 0 <= hit <= hit + loaded <= longest - 1
        if sum(run.preemptions) == sum(run.restarts) == 0:
            assert hit + loaded <= int(table.input_tokens[row]) - 1
            at = first_instance(run, row)
            if at >= 0 and 0 < hit + loaded < int(table.input_tokens[row]) - 1:
                assert (hit + loaded) % case.pool_of(at).block_tokens == 0


@law
@given(
    turns=st.lists(st.tuples(st.integers(1, 20), st.integers(1, 9), st.floats(0.0, 1.0)), min_size=1, max_size=8),
    block=st.sampled_from([1, 2, 4, 8]),
    linked=st.booleans(),
)
def test_a_lone_session_finds_all_that_it_shares(
    engine: Engine, turns: list[tuple[int, int, float]], block: int, linked: bool
) -> None:
    """L33: one session with memory enough: each turn finds the whole blocks of what it shares with the one before,
    whether its parent is named or only its session."""
    inputs, outputs, cached = [], [], []
    path = 0
    for more, output, part in turns:
        cached.append(int(part * path))
        inputs.append(cached[-1] + more)
        outputs.append(output)
        path = inputs[-1] + output - 1
    count = len(turns)
    parent = [row - 1 if linked else -1 for row in range(count)]
    arrival = [100.0 * row for row in range(count)]
    table = make_requests(
        ("only",), arrival, inputs, outputs, cached_tokens=cached, session=3, parent=parent, think_s=1.0
    )
    pool = replace(a_pool(block_tokens=block, blocks=10_000), prefix_cache=True)
    run = engine(table, [pool], least_wait)
    assert run.hit_tokens == [
        min(share // block * block, prompt - 1) for share, prompt in zip(cached, inputs, strict=True)
    ]


@law
@given(case=drawn(always=["sessions"], never=["tiers", "retention", "admission"], most=2))
def test_a_cache_that_is_shared_by_all_instances_is_found_by_all(engine: Engine, case: FeatureCase) -> None:
    """L33: with a remote tier of all blocks at no cost, each request that is asked for alone finds all whole blocks of
    what it shares with anything that was finished before, wherever that ran."""
    table = case.requests
    apart_s = 1000.0 * np.arange(len(table), dtype=np.float64)
    open_table = replace(
        table, arrival_s=apart_s, parent=np.full(len(table), -1, dtype=np.int32), think_s=0 * table.think_s
    )
    pool = replace(
        a_pool(instances=3, block_tokens=4, blocks=1000),
        prefix_cache=True,
        remote_blocks=10**6,
    )
    one = engine(open_table, [replace(pool, instances=1)], round_robin)
    many = engine(open_table, [pool], round_robin)
    together = [hit + loaded for hit, loaded in zip(many.hit_tokens, many.loaded_tokens, strict=True)]
    assert together == one.hit_tokens
    assert sum(one.loaded_tokens) == 0


# -- prefill and decode apart ------------------------------------------------------------------------------


@law
@given(
    shapes=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 20)), min_size=1, max_size=6),
    token_s=st.floats(0.0, 0.1),
    latency_s=st.floats(0.0, 1.0),
)
def test_alone_the_transfer_is_all_that_is_added(
    engine: Engine, shapes: list[tuple[int, int]], token_s: float, latency_s: float
) -> None:
    """L34: requests that never meet: reading and decoding apart, on equal instances, adds just the transfer."""
    inputs, outputs = zip(*shapes, strict=True)
    table = make_requests(("only",), [1000.0 * row for row in range(len(shapes))], inputs, outputs)
    pool = a_pool()
    together = engine(table, [pool], least_wait)
    prefill = replace(pool, role=PREFILL, transfer_s_per_token=token_s, transfer_latency_s=latency_s)
    split = engine(table, [prefill, replace(pool, role=DECODE)], least_wait)
    assert split.first_s == pytest.approx(together.first_s, rel=EPS)
    moved = [latency_s + n * token_s if out > 1 else 0.0 for n, out in shapes]
    expected = [last + more for last, more in zip(together.last_s, moved, strict=True)]
    assert split.last_s == pytest.approx(expected, rel=EPS)
    assert split.prefill_instance == [0 if out > 1 else -1 for _, out in shapes]


# -- priority, gateway -----------------------------------------------------------------------------------


@law
@given(case=drawn(always=["priority"], never=["failures", "resume", "apart"]), policy=policies())
def test_the_more_urgent_are_admitted_first(engine: Engine, case: FeatureCase, policy: Policy) -> None:
    """L35: with one slot nobody is admitted while someone more urgent waits at the same instance."""
    single = changed(case, max_num_seqs=1, role=BOTH, accepted_per_step=1.0, accepted_variance=0.0, accepted_most=1)
    run = single.run(engine, policy)
    priority = single.requests.priority
    for one in range(single.instances()):
        rows = single.rows_of(run, one)
        for late in rows:
            ahead = [row for row in rows if priority[row] > priority[late] and run.arrival_s[row] < run.admit_s[late]]
            assert all(run.admit_s[row] < run.admit_s[late] for row in ahead)


@law
@given(case=drawn(never=["admission"]), policy=policies(), rate=st.floats(0.1, 100.0), burst=st.floats(1.0, 10.0))
def test_a_class_gets_no_more_than_its_ration(
    engine: Engine, case: FeatureCase, policy: Policy, rate: float, burst: float
) -> None:
    """L36: of the new requests of a class up to any time no more than burst + rate · time are let in."""
    classes = len(case.share)
    rationed = replace(case.rules, ration_per_s=[rate] * classes, ration_burst=[burst] * classes)
    run = replace(case, rules=rationed).run(engine, policy)
    for k in range(classes):
        mine = [row for row, one in enumerate(case.requests.class_id) if one == k and run.status[row] == COMPLETED]
        for count, at_s in enumerate(sorted(run.arrival_s[row] for row in mine), start=1):
            assert count <= burst + rate * at_s + EPS


@law
@given(case=drawn(always=["failures"], never=["scaling"]), policy=policies())
def test_nobody_is_sent_to_who_is_not_up(case: FeatureCase, policy: Policy) -> None:
    """L37, twin only: an instance that has failed takes nothing until it is started (a drain may find it starting)."""
    shown: list[tuple[float, list[bool]]] = []

    def record(view: FleetView, ask: Ask) -> int:
        shown.append((ask.now_s, view.eligible.tolist()))
        return policy(view, ask)

    case.run(naive_engine, record)
    for one in range(case.instances()):
        downs = [time_s for time_s, who, what in case.rules.events if who == one and what == "fail"]
        starts = [time_s for time_s, who, what in case.rules.events if who == one and what == "start"]
        for now_s, eligible in shown:
            gone = [t for t in downs if t <= now_s]
            if gone and not any(t > max(gone) and t <= now_s for t in starts):
                assert not eligible[one]


def pool_of_one() -> NaivePool:
    return a_pool(max_num_seqs=1)


@law
@given(
    gaps=st.lists(st.floats(0.01, 5.0), min_size=3, max_size=30),
    fail_s=st.floats(0.0, 40.0),
    resume=st.booleans(),
)
def test_a_failure_repeats_what_is_lost(engine: Engine, gaps: list[float], fail_s: float, resume: bool) -> None:
    """L37: with a second instance to go to, all requests are completed; without resuming each token that came out is
    counted for one life, so that the last life has all of them."""
    arrival = np.cumsum(gaps)
    table = make_requests(("only",), arrival, 6, 5)
    rules = NaiveRules(events=((fail_s, 0, "fail"),), resume=resume)
    run = engine(table, [replace(pool_of_one(), instances=2)], least_wait, rules=rules)
    assert run.status == [COMPLETED] * len(gaps)
    counted = sum(len(times) for times in run.gaps.values())
    again = sum(run.restarts)
    assert counted == 4 * len(gaps) if resume or again == 0 else counted >= 4 * len(gaps)
    assert all(one == 1 for row, one in enumerate(run.instance) if run.restarts[row])
    assert run.on_s[0] == pytest.approx(min(fail_s, run.on_s[1]), rel=EPS)

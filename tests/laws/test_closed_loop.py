"""Laws of requests that wait for answers: on every sample path, and where a closed form is known (docs/laws.md)."""

from __future__ import annotations

import heapq
import math
from dataclasses import replace
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.arrays import Floats, Ints
from infermix.rng import uniforms
from infermix.route.view import Ask, FleetView
from infermix.workload.requests import Requests, make_requests
from tests.laws.engines import naive_engine
from tests.laws.strategies import OPEN, Case, Engine, by_all_counters, closed_cases, policies, scaled, with_columns
from tests.laws.test_queues import enough, mean_and_error, single_server
from tests.laws.test_sample_paths import EPS, with_other_futures
from tests.naive.policies import least_wait, round_robin
from tests.naive.sim import COMPLETED, REFUSED, UNFINISHED, NaivePool, NaiveResult, Policy
from tests.nightly import examples

law = settings(max_examples=examples(30), deadline=None, derandomize=True)


def end_s(run: NaiveResult, row: int) -> float:
    """When the children of a request have their times told: infinite if it has not ended."""
    if run.status[row] == UNFINISHED:
        return math.inf
    return run.arrival_s[row] if run.status[row] == REFUSED else run.last_s[row]


def most_in_flight(run: NaiveResult) -> int:
    """A request is in flight from its arrival to its last token; ends come before arrivals at equal times."""
    done = [row for row, status in enumerate(run.status) if status == COMPLETED]
    changes = sorted([(run.last_s[row], -1) for row in done] + [(run.arrival_s[row], 1) for row in done])
    return int(np.cumsum([change for _, change in changes]).max(initial=0))


@law
@given(case=closed_cases(), policy=policies())
def test_every_request_comes_and_ends(engine: Engine, case: Case, policy: Policy) -> None:
    """L20: without an end of the run each request arrives, once, and is completed or refused; those without a
    parent at the time of the table, the others exactly their pause after the end of their parent."""
    run = case.run(engine, policy)
    table = case.requests
    for row, parent in enumerate(table.parent):
        assert run.status[row] in (COMPLETED, REFUSED)
        assert (run.instance[row] >= 0) == (run.status[row] == COMPLETED)
        assert math.isnan(run.last_s[row]) == (run.status[row] == REFUSED)
        if parent < 0:
            assert run.arrival_s[row] == table.arrival_s[row]
        else:
            assert run.arrival_s[row] == end_s(run, parent) + float(table.think_s[row])


@law
@given(case=closed_cases(), policy=policies(), part=st.floats(0.05, 0.95))
def test_a_run_that_is_cut_is_the_beginning(engine: Engine, case: Case, policy: Policy, part: float) -> None:
    """L20: cut at ``until_s`` each request is completed, refused or unfinished as it was by then, and exactly those
    whose parent had not ended never arrive."""
    whole = case.run(engine, policy)
    until_s = part * max(end_s(whole, row) for row in range(len(case.requests)))
    cut = case.run(engine, policy, until_s=until_s)
    for row, parent in enumerate(case.requests.parent):
        arrival = whole.arrival_s[row] if parent < 0 or end_s(whole, parent) <= until_s else math.inf
        assert cut.arrival_s[row] == pytest.approx(arrival, rel=EPS)
        assert cut.instance[row] == (whole.instance[row] if arrival <= until_s else -1)
        assert cut.status[row] == (whole.status[row] if end_s(whole, row) <= until_s else UNFINISHED)


@law
@given(case=closed_cases())
def test_policies_are_asked_in_order_of_time_and_row(case: Case) -> None:
    """L20, twin only (the kernel by L19): once for each request, with its row and its session."""
    asks: list[Ask] = []

    def record(view: FleetView, ask: Ask) -> int:
        asks.append(ask)
        return by_all_counters(view, ask)

    run = case.run(naive_engine, record)
    rows = [ask.number for ask in asks]
    assert sorted(rows) == list(range(len(case.requests)))
    assert [(ask.now_s, ask.session) for ask in asks] == [
        (run.arrival_s[row], case.requests.session[row]) for row in rows
    ]
    parent = case.requests.parent
    assert all(parent[row] < 0 or rows.index(parent[row]) < place for place, row in enumerate(rows))
    assert [ask.now_s for ask in asks] == sorted(ask.now_s for ask in asks)
    for before, after in pairwise(asks):
        assert before.now_s < after.now_s or before.number < after.number


@law
@given(case=closed_cases(chains=True), policy=policies())
def test_no_more_in_flight_than_sessions(engine: Engine, case: Case, policy: Policy) -> None:
    """L21: N chains keep at most N requests in flight."""
    run = case.run(engine, policy)
    assert most_in_flight(run) <= int((case.requests.parent < 0).sum())


@law
@given(case=closed_cases(), policy=policies())
def test_instances_do_what_they_do_for_open_arrivals(engine: Engine, case: Case, policy: Policy) -> None:
    """L22: each instance alone, given what was sent to it as open arrivals at the times that came about, does the
    same again: the loop changes when requests come, and nothing else."""
    run = case.run(engine, policy)
    names = ("input_tokens", "output_tokens", "cached_tokens", "class_id")
    for one in range(case.instances()):
        rows = sorted(case.rows_of(run, one), key=lambda row: (run.arrival_s[row], row))
        columns = {name: getattr(case.requests, name)[rows] for name in names}
        arrival = [run.arrival_s[row] for row in rows]
        own = with_columns(case.requests, arrival_s=arrival, **columns, **OPEN)
        pool = replace(case.pool_of(one), instances=1)
        alone = Case(own, [pool], [[1.0] for _ in case.share], case.typical).run(engine, round_robin)
        assert alone.first_s == pytest.approx([run.first_s[row] for row in rows], rel=EPS)
        assert alone.last_s == pytest.approx([run.last_s[row] for row in rows], rel=EPS)
        assert (alone.steps, alone.preemptions) == ([run.steps[one]], [run.preemptions[one]])
        assert alone.kv_peak_blocks == [run.kv_peak_blocks[one]]


@law
@given(case=closed_cases(), policy=policies(), power=st.sampled_from([-2, 1, 3]))
def test_all_times_twice(engine: Engine, case: Case, policy: Policy, power: int) -> None:
    """L9 in a closed loop: all times, pauses too, multiplied by a power of two: all answers are. And L6: two runs of
    the same input agree to the last bit."""
    factor = 2.0**power
    table = case.requests
    run = case.run(engine, policy)
    assert repr(run) == repr(case.run(engine, policy))
    slow = with_columns(table, arrival_s=factor * table.arrival_s, think_s=np.float32(factor) * table.think_s)
    other = Case(slow, [scaled(pool, factor) for pool in case.pools], case.share, case.typical).run(engine, policy)
    assert (other.instance, other.status, other.steps) == (run.instance, run.status, run.steps)
    assert (other.preemptions, other.kv_peak_blocks) == (run.preemptions, run.kv_peak_blocks)
    for name in ("arrival_s", "first_s", "last_s", "busy_s"):
        expected = [factor * t for t in getattr(run, name)]
        assert getattr(other, name) == pytest.approx(expected, rel=1e-12, nan_ok=True)


@law
@given(
    case=closed_cases(chains=True, max_sessions=1),
    policy=policies(),
    faster=st.lists(st.floats(0.1, 1.0), min_size=6, max_size=6),
)
def test_a_faster_machine_never_delays_a_lone_session(
    engine: Engine, case: Case, policy: Policy, faster: list[float]
) -> None:
    """L23: one session alone: with any of the times of a step made shorter everything comes no later, so that the
    throughput is no lower.

    A theorem: at most one request is in flight (L21), so each runs alone on one of equal instances, its steps are
    those of its own tokens, each no longer than before; by induction no arrival is later. Nothing is said of
    several sessions, or of instances that differ.
    """
    pool = replace(case.pools[0], serves=None)
    quick = replace(
        pool,
        decode_s=[faster[0] * t for t in pool.decode_s],
        mixed_s=[faster[1] * t for t in pool.mixed_s],
        **{
            name: f * getattr(pool, name)
            for name, f in zip(("per_seq_s", "kv_s", "pair_s", "load_s"), faster[2:], strict=True)
        },
    )
    share = [[1.0] for _ in case.share]
    before, after = (Case(case.requests, [one], share, case.typical).run(engine, policy) for one in (pool, quick))
    assert after.status == before.status
    for name in ("arrival_s", "first_s", "last_s"):
        for early, late in zip(getattr(after, name), getattr(before, name), strict=True):
            assert early <= late + EPS or math.isnan(late)


@law
@given(
    case=closed_cases(),
    policy=st.one_of(policies(), st.just(by_all_counters)),
    part=st.floats(0.1, 0.9),
    luck=st.integers(0, 9999),
)
def test_no_oracle_closed(engine: Engine, case: Case, policy: Policy, part: float, luck: int) -> None:
    """L7 in a closed loop: other output lengths of all that is not finished at a moment change no decision up to it,
    nor when the requests came that it was about."""
    run = case.run(engine, policy)
    now_s = sorted(run.arrival_s)[int(part * (len(case.requests) - 1))]
    other = with_other_futures(case, run, now_s, Random(luck)).run(engine, policy)
    for row, arrival in enumerate(run.arrival_s):
        if arrival <= now_s:
            assert other.instance[row] == run.instance[row]
            assert other.arrival_s[row] == pytest.approx(arrival, rel=EPS)
        else:
            assert other.arrival_s[row] > now_s


def rounds(sessions: int, count: int, think_s: float, input_tokens: Ints | int, output_tokens: int) -> Requests:
    """Sessions that all ask at time 0 and then, round after round, their pause after the answer."""
    row = np.arange(count)
    parent = np.where(row < sessions, -1, row - sessions)
    lengths = np.broadcast_to(input_tokens, count), np.full(count, output_tokens)
    return make_requests(("only",), np.zeros(count), *lengths, session=row % sessions, parent=parent, think_s=think_s)


@pytest.mark.parametrize("sessions", [1, 2, 4, 5, 9])
def test_constant_service_and_pause(engine: Engine, sessions: int) -> None:
    """L24: N sessions with a constant pause Z at one server with a constant service time S, all from time 0 on: the
    i-th answer of session k ends at (k + 1) S + i max(Z + S, N S), to the bit, so that the throughput is the lesser of
    N / (Z + S) and 1 / S; for one session 1 / (Z + S)."""
    prompt_s, decode_s, output, pause_s = 0.25, 0.125, 3, 1.5
    service_s = prompt_s + (output - 1) * decode_s  # 0.5: four sessions keep the server busy
    pool = replace(single_server(), mixed_s=[prompt_s] * 2, decode_s=[decode_s] * 2)
    count = 40 * sessions
    run = engine(rounds(sessions, count, pause_s, input_tokens=1, output_tokens=output), [pool], least_wait)
    turn, session = np.divmod(np.arange(count), sessions)
    cycle_s = max(pause_s + service_s, sessions * service_s)
    assert run.last_s == ((session + 1) * service_s + turn * cycle_s).tolist()
    per_s = sessions / (run.last_s[-1] - run.last_s[-1 - sessions])
    assert per_s == min(sessions / (pause_s + service_s), 1 / service_s)


TOKEN_S = 1e-3
MEAN_TOKENS = 1 / (1 - math.exp(-TOKEN_S))  # of an exponential time of mean 1 s, counted in whole tokens


def prompt_reader(most: int) -> NaivePool:
    """One slot that reads any prompt in one step, a millisecond a token."""
    return replace(
        single_server(),
        decode_s=[TOKEN_S * tokens for tokens in range(most + 1)],
        mixed_s=[TOKEN_S * tokens for tokens in range(most + 1)],
        max_batched_tokens=most,
        blocks=most,
    )


def mean_values(sessions: int, service_s: float, pause_s: float) -> tuple[float, float]:
    """Throughput and mean number in the system of the machine repairman (M/M/1 with N sources), by mean values."""
    queue, per_s = 0.0, 0.0
    for n in range(1, sessions + 1):
        stay_s = service_s * (1 + queue)
        per_s = n / (pause_s + stay_s)
        queue = per_s * stay_s
    return per_s, queue


def one_after_the_other(requests: Requests, service_s: Floats) -> tuple[list[float], list[float]]:
    """Arrivals and ends of a single server, first come first served: each end brings the next of its session."""
    count, sessions = len(requests), int((requests.parent < 0).sum())
    arrival, end = [0.0] * count, [0.0] * count
    coming = [(0.0, row) for row in range(sessions)]
    free_s = 0.0
    while coming:
        came_s, row = heapq.heappop(coming)
        arrival[row] = came_s
        end[row] = free_s = max(free_s, came_s) + float(service_s[row])
        if row + sessions < count:
            heapq.heappush(coming, (free_s + float(requests.think_s[row + sessions]), row + sessions))
    return arrival, end


@pytest.mark.parametrize("sessions", [1, 4, 12])
def test_machine_repairman(engine: Engine, sessions: int) -> None:
    """L25: N sessions with pause Z at a single server with exponential service times (of mean S, in whole
    milliseconds): each arrival and answer obeys the recursion of that queue; throughput and mean number in flight are
    those of M/M/1 with N sources, which depend on the mean of the pause only, within four standard errors.
    L26: the bounds N / (Z + S) and 1 / S hold for the sample, and so does Little's law."""
    count, pause_s, service_s = enough(engine) // 2, 5.0, TOKEN_S * MEAN_TOKENS
    tokens = np.maximum(1, np.ceil(-np.log(uniforms(2024, 3, count)) / TOKEN_S)).astype(np.int64)
    table = rounds(sessions, count, pause_s, input_tokens=tokens, output_tokens=1)
    run = engine(table, [prompt_reader(int(tokens.max()))], least_wait)
    arrival, last = np.array(run.arrival_s), np.array(run.last_s)
    expected_arrival, expected_last = one_after_the_other(table, np.asarray(TOKEN_S * tokens, dtype=np.float64))
    assert np.allclose(arrival, expected_arrival, rtol=1e-9, atol=1e-9)
    assert np.allclose(last, expected_last, rtol=1e-9, atol=1e-9)
    assert most_in_flight(run) == sessions

    full_s = float(last[-sessions:].min())  # until then there are N sessions
    per_s, in_flight = mean_values(sessions, service_s, pause_s)
    ends = np.sort(last[last <= full_s])
    gap_s, error = mean_and_error(np.diff(ends))
    assert error < (0.05 if engine is naive_engine else 0.01) * gap_s, "too few requests to say anything"
    assert abs(gap_s - 1 / per_s) < 4 * error

    moments = np.linspace(0.0, full_s, 20 * count, endpoint=False)
    arrived = np.searchsorted(np.sort(arrival), moments, side="right")
    left = np.searchsorted(ends, moments, side="right")
    seen, error = mean_and_error((arrived - left).astype(np.float64))
    assert abs(seen - in_flight) < 4 * error + sessions / count

    # on the sample itself: a session pauses or has a request in flight; no server is busy for longer than there is time
    done = last <= full_s
    work_s, rate = float(TOKEN_S * tokens[done].sum()), float(done.sum()) / full_s
    assert done.sum() * pause_s + work_s <= sessions * (full_s + pause_s) * (1 + EPS)
    assert work_s <= full_s * (1 + EPS)
    stay_s = float((last - arrival)[done].mean())
    assert abs(seen - rate * stay_s) < 4 * error
    assert abs(seen + rate * pause_s - sessions) < 4 * error + 2 * sessions**2 / count

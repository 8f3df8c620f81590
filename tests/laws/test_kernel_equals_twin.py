"""L17 and L18: the compiled kernel does what the twin does, off ties and in written ties."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.workload.requests import Requests, make_requests
from tests.laws.engines import kernel_engine, naive_engine
from tests.laws.strategies import POLICIES, Case, by_all_counters, cases, closed_cases, with_columns
from tests.naive.policies import least_wait
from tests.naive.sim import NaivePool, NaiveResult, Policy
from tests.nightly import examples

pytest.importorskip("infermix.sim.run")

names = pytest.mark.parametrize("policy", [*POLICIES, by_all_counters], ids=lambda policy: policy.__name__)


COUNTS = ("steps", "decode_tokens", "prompt_tokens", "kv_peak_blocks", "preemptions")


def assert_same(
    kernel: NaiveResult, twin: NaiveResult, *, exact: bool = False, counts: tuple[str, ...] = COUNTS
) -> None:
    assert kernel.status == twin.status
    assert kernel.instance == twin.instance
    rel = 0.0 if exact else 1e-9
    late = max([t for t in twin.last_s if t == t], default=0.0)
    for name in ("arrival_s", "first_s", "last_s", "busy_s"):
        expected = pytest.approx(getattr(twin, name), rel=rel, abs=rel * late, nan_ok=True)
        assert getattr(kernel, name) == expected, name
    for name in counts:
        assert getattr(kernel, name) == getattr(twin, name), name


@names
@settings(max_examples=examples(200), deadline=None, derandomize=True)
@given(case=cases())
def test_off_ties(policy: Policy, case: Case) -> None:
    """L17: the same instance and status, counts and, to a relative 1e-9, times. ``by_all_counters`` makes the
    route depend on every counter that a policy is shown."""
    assert_same(case.run(kernel_engine, policy, seed=7), case.run(naive_engine, policy, seed=7))


@names
@settings(max_examples=examples(120), deadline=None, derandomize=True)
@given(case=closed_cases())
def test_closed_loop_off_ties(policy: Policy, case: Case) -> None:
    """L19: the same where requests wait for answers; and the same arrival times came about."""
    assert_same(case.run(kernel_engine, policy, seed=7), case.run(naive_engine, policy, seed=7))


@names
@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(case=st.one_of(cases(), closed_cases()), part=st.floats(0.05, 0.95))
def test_cut_short(policy: Policy, case: Case, part: float) -> None:
    """L17 and L19, for runs that end before all is done."""
    whole = case.run(naive_engine, policy)
    until_s = part * max([t for t in whole.last_s if t == t], default=1.0)
    kernel = case.run(kernel_engine, policy, until_s=until_s)
    assert_same(kernel, case.run(naive_engine, policy, until_s=until_s))


@names
@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(case=st.one_of(cases(), closed_cases()), ticks=st.integers(1, 8))
def test_random_ties(policy: Policy, case: Case, ticks: int) -> None:
    """L18 and L19: all times are small multiples of a binary fraction, so events fall together all the time."""
    pools = []
    for pool in case.pools:
        sizes = range(pool.max_batched_tokens + 1)
        pools.append(
            replace(
                pool,
                decode_s=[(ticks + t // 8) / 64 for t in sizes],
                mixed_s=[(2 * ticks + t // 4) / 64 for t in sizes],
                per_seq_s=0.0,
                kv_s=1 / 64 if pool.kv_s else 0.0,
                pair_s=0.0,
                load_s=1 / 64 if pool.load_s else 0.0,
                prefill_s_per_token=1 / 64,
                step_s=1 / 64,
            )
        )
    requests = with_columns(
        case.requests,
        arrival_s=[round(64 * t) / 64 for t in case.requests.arrival_s],
        think_s=[round(64 * t) / 64 for t in case.requests.think_s],
    )
    share = [[round(8 * part) / 8 for part in row] for row in case.share]
    tied = Case(requests, pools, share, [1.0 + ticks] * len(case.typical))
    assert_same(tied.run(kernel_engine, policy), tied.run(naive_engine, policy), exact=True)


def binary_pool(**changes: object) -> NaivePool:
    pool = NaivePool(
        instances=1,
        decode_s=[1 + t / 8 for t in range(9)],
        mixed_s=[2 + t / 8 for t in range(9)],
        per_seq_s=0.0,
        kv_s=0.0,
        pair_s=0.0,
        load_s=0.0,
        block_tokens=2,
        blocks=100,
        max_num_seqs=4,
        max_batched_tokens=8,
        serves=None,
        prefill_s_per_token=0.25,
        step_s=1.5,
    )
    return replace(pool, **changes)  # type: ignore[arg-type]


# (arrival, input, output) of each request; the times by hand are in tests/naive/test_twin.py
TIES: dict[str, tuple[list[tuple[float, int, int]], NaivePool]] = {
    "arrival at the end of a prompt step": ([(0, 4, 2), (2.5, 2, 1)], binary_pool()),
    "arrival at the end of a decode step": ([(0, 4, 9), (2.5 + 3 * 1.125, 2, 3)], binary_pool()),
    "arrival at the end of the last step": ([(0, 4, 2), (3.625, 2, 3)], binary_pool()),
    "together at an idle instance": ([(1, 2, 1), (1, 3, 1), (1, 2, 1)], binary_pool()),
    "together at a busy instance": ([(0, 3, 5), (1, 2, 4), (1, 3, 2), (1, 2, 3)], binary_pool(max_num_seqs=3)),
    "together on several instances": ([(0.5, 3, 3)] * 7, binary_pool(instances=3)),
    "simultaneous ends, then an arrival": (
        [(0, 4, 1), (0, 4, 1), (2.5, 4, 1), (2.5, 4, 1)],
        binary_pool(instances=2),
    ),
    "simultaneous ends of decodes, then arrivals": (
        [(0, 4, 5), (0, 4, 5), (0, 4, 5), (7, 4, 2), (7, 4, 2), (7, 1, 1), (7, 1, 1)],
        binary_pool(instances=3, max_num_seqs=2),
    ),
    "finishes exactly when KV runs out": ([(0, 3, 2), (0, 3, 3)], binary_pool(blocks=4)),
    "needs a block one step before another finishes": ([(0, 3, 3), (0, 3, 3)], binary_pool(blocks=4)),
    "finishes as KV runs out, with one waiting": ([(0, 3, 2), (0, 3, 3), (0, 3, 2), (4, 5, 2)], binary_pool(blocks=4)),
    "preempts the last": ([(0, 3, 4), (0, 3, 3)], binary_pool(blocks=4, max_num_seqs=2)),
    "preempts the last, with one waiting": (
        [(0, 3, 4), (0, 3, 3), (1, 1, 1)],
        binary_pool(blocks=4, max_num_seqs=2),
    ),
    "preempts itself": ([(0, 3, 2), (0, 4, 2), (0.5, 1, 1)], binary_pool(blocks=4, max_num_seqs=3)),
    "preempted while reading": (
        [(0, 2, 5), (0.5, 6, 1), (5, 1, 1), (7, 1, 1)],
        binary_pool(
            blocks=5, max_batched_tokens=2, max_num_seqs=2, decode_s=[1, 1.125, 1.25], mixed_s=[2, 2.125, 2.25]
        ),
    ),
    "fills the memory exactly": ([(0, 5, 4), (0, 5, 4)], binary_pool(blocks=4)),
    "one token too many, twice": ([(0, 8, 1), (0, 6, 4), (0, 6, 3)], binary_pool(blocks=4)),
}


@names
@pytest.mark.parametrize("name", TIES)
def test_written_ties(policy: Policy, name: str) -> None:
    """L18: cases in which events fall together on purpose, in exactly representable times."""
    triples, pool = TIES[name]
    requests = make_requests(
        ("only",), [t for t, _, _ in triples], [i for _, i, _ in triples], [o for _, _, o in triples]
    )
    case = Case(requests, [pool], [[1.0]], [2.0])
    assert_same(case.run(kernel_engine, policy), case.run(naive_engine, policy), exact=True)


def test_end_of_the_run_at_the_end_of_a_step() -> None:
    """L18: a step that ends at ``until_s`` counts, one that ends later does not.

    Whether a step that would *start* at the very end is still scheduled (it could only raise the KV peak or
    preempt) the contract leaves open, so at such moments these two counts are not compared.
    """
    requests = make_requests(("only",), [0.0, 1.0, 4.875], [4, 2, 2], [4, 2, 1])
    case = Case(requests, [binary_pool()], [[1.0]], [2.0])
    for until_s in (2.5, 4.0, 4.875, 6.125, 7.25):
        kernel, twin = (case.run(engine, least_wait, until_s=until_s) for engine in (kernel_engine, naive_engine))
        assert_same(kernel, twin, exact=True)


# (arrival, input, output, parent, pause) of each request, then by hand: arrivals that come about, last tokens
CLOSED_TIES: dict[str, tuple[list[tuple[float, int, int, int, float]], NaivePool, list[float], list[float]]] = {
    "no pause: part of the very next step": (
        [(0, 4, 2, -1, 0), (0, 4, 4, -1, 0), (0, 2, 1, 0, 0)],
        binary_pool(),
        [0, 0, 4.25],
        [4.25, 7.75, 6.625],
    ),
    "no pause: behind those that wait already": (
        [(0, 4, 2, -1, 0), (1, 4, 1, -1, 0), (1, 2, 1, 0, 0)],
        binary_pool(max_num_seqs=1),
        [0, 1, 3.625],
        [3.625, 6.125, 8.375],
    ),
    "no pause at all: the instance never rests": (
        [(0, 2, 1, -1, 0), (0, 2, 1, 0, 0), (0, 2, 1, 1, 0), (0, 2, 1, 2, 0)],
        binary_pool(),
        [0, 2.25, 4.5, 6.75],
        [2.25, 4.5, 6.75, 9],
    ),
    "together with a later row": (
        [(0, 4, 2, -1, 0), (0, 2, 1, 0, 1), (4.625, 4, 1, -1, 0)],
        binary_pool(max_num_seqs=1),
        [0, 4.625, 4.625],
        [3.625, 6.875, 9.375],
    ),
    "together with an earlier row": (
        [(0, 4, 2, -1, 0), (4.625, 4, 1, -1, 0), (5, 2, 1, 0, 1)],
        binary_pool(max_num_seqs=1),
        [0, 4.625, 4.625],
        [3.625, 7.125, 9.375],
    ),
    "together at an idle instance": (
        [(0, 4, 2, -1, 0), (4.625, 2, 1, -1, 0), (5, 2, 1, 0, 1)],
        binary_pool(),
        [0, 4.625, 4.625],
        [3.625, 7.125, 7.125],
    ),
    "at the end of a step of another": (
        [(0, 4, 2, -1, 0), (0, 4, 9, -1, 0), (0, 2, 1, 0, 2.25)],
        binary_pool(),
        [0, 0, 6.5],
        [4.25, 13.375, 8.875],
    ),
    "children together, and a later row with them": (
        [(0, 4, 2, -1, 0), (0, 2, 1, 0, 1), (0, 2, 1, 0, 1), (4.625, 4, 1, -1, 0)],
        binary_pool(max_num_seqs=1),
        [0, 4.625, 4.625, 4.625],
        [3.625, 6.875, 9.125, 11.625],
    ),
    "refused by all, then by the instance, and another row in between": (
        [(1, 8, 5, -1, 0), (1, 2, 9, 0, 0), (1, 4, 1, -1, 0), (1, 2, 1, 1, 0), (1, 2, 1, 1, 0.5)],
        binary_pool(blocks=4, max_num_seqs=1),
        [1, 1, 1, 1, 1.5],
        [math.nan, math.nan, 3.5, 5.75, 8],
    ),
    "parents that end together": (
        [(0, 4, 2, -1, 0), (0, 4, 2, -1, 0), (0, 2, 1, 1, 0), (0, 4, 1, 0, 0), (4.25, 1, 1, -1, 0)],
        binary_pool(max_num_seqs=2),
        [0, 0, 4.25, 4.25, 4.25],
        [4.25, 4.25, 7, 7, 9.125],
    ),
}


def closed_requests(rows: list[tuple[float, int, int, int, float]]) -> Requests:
    arrival, inputs, outputs, parent, think_s = zip(*rows, strict=True)
    return make_requests(("only",), arrival, inputs, outputs, parent=parent, think_s=think_s, session=range(len(rows)))


@names
@pytest.mark.parametrize("name", CLOSED_TIES)
@pytest.mark.parametrize("instances", [1, 2])
def test_closed_loop_ties(policy: Policy, name: str, instances: int) -> None:
    """L19: requests come at the moment of another event on purpose; on one instance also worked out by hand."""
    rows, pool, arrival, last = CLOSED_TIES[name]
    case = Case(closed_requests(rows), [replace(pool, instances=instances)], [[1.0]], [2.0])
    twin = case.run(naive_engine, policy)
    if instances == 1:
        assert twin.arrival_s == arrival
        assert twin.last_s == pytest.approx(last, rel=0.0, nan_ok=True)
    assert_same(case.run(kernel_engine, policy), twin, exact=True)


@pytest.mark.parametrize(
    ("until_s", "arrival"),
    [
        (0.5, [0, math.inf, math.inf, 1, math.inf]),  # the refused one would come later
        (1.0, [0, math.inf, math.inf, 1, 1]),
        (3.5, [0, math.inf, math.inf, 1, 1]),
        (3.625, [0, 3.625, 4.625, 1, 1]),  # the parent ends at the very end: its children have their times
        (4.625, [0, 3.625, 4.625, 1, 1]),
    ],
)
def test_the_parent_ends_at_the_end_of_the_run(until_s: float, arrival: list[float]) -> None:
    """L19: a parent that ends, or is refused, at ``until_s`` counts; a child that comes then is still routed."""
    rows = [
        (0.0, 4, 2, -1, 0.0),
        (0.0, 2, 1, 0, 0.0),
        (0.0, 2, 1, 0, 1.0),
        (1.0, 900, 1, -1, 0.0),
        (1.0, 901, 1, 3, 0.0),
    ]
    case = Case(closed_requests(rows), [binary_pool()], [[1.0]], [2.0])
    twin = case.run(naive_engine, least_wait, until_s=until_s)
    assert twin.arrival_s == arrival
    assert [number >= 0 for number in twin.instance[:3]] == [t <= until_s for t in arrival[:3]]
    assert_same(case.run(kernel_engine, least_wait, until_s=until_s), twin, exact=True)


def test_a_closed_loop_simulated_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """L19: the kernel hands back after so many arrivals; it goes on as if it had not."""
    rows = [(row / 8, 1 + row % 5, 1 + row % 7, row - 4 if row % 9 > 3 else -1, (row % 3) / 8) for row in range(60)]
    case = Case(closed_requests(rows), [binary_pool(instances=2, max_num_seqs=2)], [[1.0]], [2.0])
    twin = case.run(naive_engine, least_wait)
    for size in (1, 7):
        monkeypatch.setattr("infermix.sim.run.ARRIVALS_PER_CALL", size)
        assert_same(case.run(kernel_engine, least_wait), twin, exact=True)

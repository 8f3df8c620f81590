"""L17 and L18: the compiled kernel does what the twin does, off ties and in written ties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.workload.requests import make_requests
from tests.laws.engines import kernel_engine, naive_engine
from tests.laws.strategies import POLICIES, Case, by_all_counters, cases
from tests.naive.policies import least_wait
from tests.naive.sim import NaivePool, NaiveResult, Policy

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
    for name in ("first_s", "last_s", "busy_s"):
        expected = pytest.approx(getattr(twin, name), rel=rel, abs=rel * late, nan_ok=True)
        assert getattr(kernel, name) == expected, name
    for name in counts:
        assert getattr(kernel, name) == getattr(twin, name), name


@names
@settings(max_examples=200, deadline=None, derandomize=True)
@given(case=cases())
def test_off_ties(policy: Policy, case: Case) -> None:
    """L17: the same instance and status, counts and, to a relative 1e-9, times. ``by_all_counters`` makes the
    route depend on every counter that a policy is shown."""
    assert_same(case.run(kernel_engine, policy, seed=7), case.run(naive_engine, policy, seed=7))


@names
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases(), part=st.floats(0.05, 0.95))
def test_cut_short(policy: Policy, case: Case, part: float) -> None:
    """L17, for runs that end before all is done."""
    whole = case.run(naive_engine, policy)
    until_s = part * max([t for t in whole.last_s if t == t], default=1.0)
    kernel = case.run(kernel_engine, policy, until_s=until_s)
    assert_same(kernel, case.run(naive_engine, policy, until_s=until_s))


@names
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases(), ticks=st.integers(1, 8))
def test_random_ties(policy: Policy, case: Case, ticks: int) -> None:
    """L18: all times are small multiples of a binary fraction, so that events fall together all the time."""
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
    requests = make_requests(
        case.requests.class_names,
        [round(64 * t) / 64 for t in case.requests.arrival_s],
        case.requests.input_tokens,
        case.requests.output_tokens,
        cached_tokens=case.requests.cached_tokens,
        class_id=case.requests.class_id,
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

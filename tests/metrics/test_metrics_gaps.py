"""Times between tokens and in the queue: the compiled counts are those of the twin, token by token."""

from __future__ import annotations

import importlib
from typing import Any
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings

from infermix.sim.result import COMPLETED, Run
from infermix.sim.state import GAP_BINS, PoolSpec, gap_edges_s
from infermix.workload.requests import make_requests
from tests.laws.engines import kernel_engine, naive_engine
from tests.laws.strategies import Case, cases
from tests.naive.policies import least_wait
from tests.nightly import examples

run_module = importlib.import_module("infermix.sim.run")
EDGES = gap_edges_s()


def kernel_run(case: Case, **choices: Any) -> Run:
    kept: list[Run] = []
    simulate_pools = run_module.simulate_pools

    def keeping(*args: Any, **kwargs: Any) -> Run:
        kept.append(simulate_pools(*args, **kwargs))
        return kept[-1]

    with mock.patch.object(run_module, "simulate_pools", keeping):
        case.run(kernel_engine, least_wait, **choices)
    return kept[0]


def twin_gaps(case: Case, **choices: Any) -> tuple[dict[tuple[int, int], list[float]], int]:
    """(pool, class) → every time between two tokens, written down as the tokens come; how many were preempted."""
    found = case.run(naive_engine, least_wait, **choices)
    return found.gaps, sum(found.preemptions)


def check_counts(case: Case, **choices: Any) -> tuple[int, int]:
    run, (gaps, preempted) = kernel_run(case, **choices), twin_gaps(case, **choices)
    for p, c in np.ndindex(run.gaps.shape[:2]):
        told = np.sort(np.array(gaps.get((p, c), [])))
        assert run.gaps[p, c].sum() == len(told)
        below = np.cumsum(run.gaps[p, c])[:-1]
        least = np.searchsorted(told, EDGES[1:-1] * (1 - 1e-9))
        most = np.searchsorted(told, EDGES[1:-1] * (1 + 1e-9))
        assert np.all((least <= below) & (below <= most))
    return int(run.gaps.sum()), preempted


@settings(max_examples=examples(150), deadline=None)
@given(case=cases())
def test_every_time_between_tokens_is_counted_in_its_bin(case: Case) -> None:
    check_counts(case)


@settings(max_examples=examples(50), deadline=None)
@given(case=cases())
def test_a_run_that_is_cut_counts_what_came_out(case: Case) -> None:
    whole = kernel_run(case)
    ends = whole.last_s[np.isfinite(whole.last_s)]
    if len(ends):
        check_counts(case, until_s=float(np.median(ends)) * 1.0001)


@settings(max_examples=examples(60), deadline=None)
@given(case=cases())
def test_tokens_and_times_are_conserved(case: Case) -> None:
    run = kernel_run(case)
    done = run.status == COMPLETED
    assert run.gaps.sum() == (run.requests.output_tokens[done] - 1).sum()
    spent = float((run.last_s - run.first_s)[done].sum())
    counts = run.gaps.sum(axis=(0, 1))
    assert counts @ EDGES[:-1] <= spent * (1 + 1e-9) and spent <= counts @ EDGES[1:] * (1 + 1e-9)
    assert np.all(run.admit_s[done] >= run.requests.arrival_s[done]) and np.all(run.admit_s[done] < run.first_s[done])


def one_pool(**changes: Any) -> PoolSpec:
    """Every step lasts a second."""
    plain: dict[str, Any] = {
        "instances": 1, "decode_s": np.ones(9), "mixed_s": np.ones(9), "per_seq_s": 0.0, "kv_s": 0.0, "pair_s": 0.0,
        "load_s": 0.0, "block_tokens": 4, "blocks": 100, "max_num_seqs": 1, "max_batched_tokens": 8,
        "serves": np.array([True]), "prefill_s_per_token": 0.1, "step_s": 1.0,
    }  # fmt: skip
    return PoolSpec(**{**plain, **changes})


def test_a_queue_by_hand() -> None:
    """One slot: the second is first part of the step that starts when the first, of three tokens, is out."""
    requests = make_requests(("c",), [0.5, 0.75], [4, 4], [3, 2])
    run = run_module.simulate_pools(requests, [one_pool()], "least_wait")
    assert run.admit_s.tolist() == [0.5, 3.5] and run.queue_s.tolist() == [0.0, 2.75]
    assert run.first_s.tolist() == [1.5, 4.5] and run.last_s.tolist() == [3.5, 5.5]
    assert run.gaps.sum() == 3 == run.gaps[0, 0, np.searchsorted(EDGES, 1.0)] and run.came.all()


def test_a_stall_by_hand() -> None:
    """Two that fill all blocks: the younger one loses its own and waits from its last token to the next."""
    requests = make_requests(("c",), [0.0, 0.0], [4, 4], [6, 3])
    run = run_module.simulate_pools(requests, [one_pool(blocks=3, max_num_seqs=2)], "least_wait")
    assert run.preemptions.tolist() == [1]
    assert run.last_s[0] == 6.0 and run.first_s.tolist() == [1.0, 1.0]
    stall_s = run.last_s[1] - run.first_s[1] - 1.0
    bins = np.flatnonzero(run.gaps[0, 0])
    assert run.gaps.sum() == 7 and stall_s > 1.0
    assert bins.tolist() == [np.searchsorted(EDGES, 1.0), np.searchsorted(EDGES, stall_s, side="right") - 1]
    assert run.gaps[0, 0, bins].tolist() == [6, 1]


def test_growing_steps_are_spread_over_the_bins_they_reach() -> None:
    """A jump of 999 steps from 1 ms to some 11 ms, each bin holding as many as a loop puts there."""
    kv_s = 1e-5
    pool = one_pool(decode_s=np.full(9, 1e-3), mixed_s=np.full(9, 1e-3), kv_s=kv_s, blocks=1000)
    run = run_module.simulate_pools(make_requests(("c",), [0.0], [1], [1000]), [pool], "least_wait")
    steps = 1e-3 + kv_s * np.arange(2, 1001)
    told = np.histogram(steps, EDGES)[0]
    assert np.abs(run.gaps[0, 0] - told).sum() <= 2 and (run.gaps[0, 0] > 0).sum() > 150


def test_bins_are_narrow_and_reach_far() -> None:
    assert len(EDGES) == GAP_BINS + 1 and EDGES[0] < 1e-7 and EDGES[-1] > 36_000
    assert np.all(np.diff(EDGES) > 0) and (EDGES[1:] / EDGES[:-1]).max() == pytest.approx(1 + 1 / 64)

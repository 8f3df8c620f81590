"""Attainment, its interval, and percentiles."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermix.metrics.confidence import Z_95, wilson
from infermix.metrics.goodput import meets
from infermix.metrics.latency import percentiles
from infermix.workload.classes import Slo

NAN = float("nan")
NONE = np.zeros(1)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # R. G. Newcombe, Statistics in Medicine 17 (1998), 857-872, table I, method 3 (score)
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@given(n=st.integers(1, 100_000), share=st.floats(0, 1))
def test_wilson_ends_solve_the_score_equation(n: int, share: float) -> None:
    k = round(share * n)
    low, high = wilson(k, n)
    assert 0 <= low <= k / n + 1e-12 and k / n - 1e-12 <= high <= 1
    for p in (low, high):
        assert abs(k / n - p) == pytest.approx(Z_95 * sqrt(p * (1 - p) / n), abs=1e-7)
    assert wilson(n - k, n) == (pytest.approx(1 - high, abs=1e-12), pytest.approx(1 - low, abs=1e-12))


def test_wilson_of_nothing_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def one(slo: Slo, ttft: float, tpot: float, e2e: float, uncached: int = 0) -> bool:
    found = meets(slo, np.array([ttft]), np.array([tpot]), np.array([e2e]), np.array([uncached]))
    assert found.dtype == np.bool_ and found.shape == (1,)
    return bool(found[0])


def test_every_target_alone() -> None:
    assert one(Slo(ttft_s=1.0), 1.0, 9.0, 99.0) and not one(Slo(ttft_s=1.0), 1.0001, 0.0, 2.0)
    assert one(Slo(tpot_s=0.1), 9.0, 0.1, 99.0) and not one(Slo(tpot_s=0.1), 0.0, 0.1001, 2.0)
    assert one(Slo(e2e_s=5.0), 4.0, 1.0, 5.0) and not one(Slo(e2e_s=5.0), 0.0, 0.0, 5.0001)


def test_targets_hold_jointly() -> None:
    slo = Slo(ttft_s=1.0, tpot_s=0.1, e2e_s=5.0)
    assert one(slo, 1.0, 0.1, 5.0)
    for missed in ((1.1, 0.1, 5.0), (1.0, 0.2, 5.0), (1.0, 0.1, 5.1)):
        assert not one(slo, *missed)


def test_tpot_is_ignored_for_one_token() -> None:
    assert one(Slo(tpot_s=0.01), 0.5, NAN, 0.5)
    assert one(Slo(ttft_s=1.0, tpot_s=0.01), 0.5, NAN, 0.5)
    assert not one(Slo(ttft_s=0.4, tpot_s=0.01), 0.5, NAN, 0.5)


@pytest.mark.parametrize("slo", [Slo(ttft_s=9.0), Slo(tpot_s=9.0), Slo(e2e_s=9.0)])
def test_refused_and_unfinished_are_misses(slo: Slo) -> None:
    assert not one(slo, NAN, NAN, NAN)  # refused
    assert not one(slo, 0.1, NAN, NAN)  # its first token came, its last did not


def test_ttft_grows_with_uncached_tokens() -> None:
    slo = Slo(ttft_s=1.0, ttft_s_per_1k_uncached=0.5)
    assert one(slo, 2.0, 0.0, 3.0, uncached=2000) and not one(slo, 2.0, 0.0, 3.0, uncached=1999)


@given(st.lists(st.floats(0, 100), max_size=20), st.floats(0.1, 99))
def test_attainment_never_falls_with_looser_promises(times: list[float], promise: float) -> None:
    t = np.array(times, dtype=float)
    strict, loose = (meets(Slo(ttft_s=p), t, t, t, 0 * t) for p in (promise, 1.5 * promise))
    assert bool(np.all(loose >= strict))


def test_percentiles_are_of_the_finite_values() -> None:
    values = np.concatenate([np.arange(101.0), [NAN, np.inf]])
    assert percentiles(values) == {"p50": 50.0, "p90": 90.0, "p99": 99.0}
    assert percentiles(np.array([3.0])) == {"p50": 3.0, "p90": 3.0, "p99": 3.0}
    assert all(np.isnan(v) for v in percentiles(np.array([NAN])).values())

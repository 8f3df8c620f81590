"""Intervals of percentiles against brute force, and how often they hold the truth."""

from __future__ import annotations

from math import comb, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermix.metrics.intervals import order_interval, order_ranks, t_95, t_interval


def ranks_by_sums(n: int, share: float) -> tuple[int, int]:
    """Every binomial weight, written out."""
    weight = [comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(n + 1)]
    low = max(rank for rank in range(n + 1) if sum(weight[:rank]) <= 0.025)
    high = min(rank for rank in range(n + 2) if sum(weight[rank:]) <= 0.025)
    return low, high


@given(n=st.integers(1, 250), share=st.sampled_from([0.5, 0.9, 0.99]))
def test_ranks_are_those_of_the_binomial_law(n: int, share: float) -> None:
    assert order_ranks(n, share) == ranks_by_sums(n, share)


def test_ranks_of_a_large_sample_are_near_the_normal_ones() -> None:
    n = 1_000_000
    for share in (0.5, 0.9, 0.99):
        margin = 1.959964 * sqrt(n * share * (1 - share))
        low, high = order_ranks(n, share)
        assert low == pytest.approx(n * share - margin, abs=3) and high == pytest.approx(n * share + margin, abs=3)


def test_small_samples_leave_an_end_open_and_say_so() -> None:
    assert order_interval(np.empty(0), 0.5) == (None, None)
    assert order_interval(np.arange(5.0), 0.5) == (None, None)
    assert order_interval(np.arange(6.0), 0.5) == (0.0, 5.0)
    assert order_interval(np.arange(367.0), 0.99)[1] is None
    assert order_interval(np.arange(368.0), 0.99)[1] == 367.0


@pytest.mark.parametrize(("n", "share"), [(60, 0.5), (200, 0.9), (1000, 0.99)])
def test_the_interval_holds_the_true_percentile_nineteen_times_in_twenty(n: int, share: float) -> None:
    """At least 95 %, and not by being wide: one rank less at each end would fall below."""
    random = np.random.default_rng(5)
    truth, trials = -np.log(1 - share), 4000
    low, high = order_ranks(n, share)
    drawn = np.sort(random.exponential(size=(trials, n)), axis=1)
    held = np.mean((drawn[:, low - 1] <= truth) & (truth < drawn[:, high - 1]))
    assert 0.95 - 0.01 <= held <= 0.975
    tighter = np.mean((drawn[:, low] <= truth) & (truth < drawn[:, high - 2]))
    assert tighter < held


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (4, 2.776), (29, 2.045), (31, 2.0395), (100, 1.984)])
def test_quantiles_of_students_t(freedom: int, quantile: float) -> None:
    assert t_95(freedom) == pytest.approx(quantile, abs=5e-4)


@pytest.mark.parametrize("n", [2, 5, 40])
def test_the_interval_between_seeds_holds_the_mean_nineteen_times_in_twenty(n: int) -> None:
    random = np.random.default_rng(6)
    held = 0
    for row in random.normal(3.0, 2.0, size=(4000, n)):
        low, high = t_interval(row)
        assert low is not None and high is not None
        held += low <= 3.0 <= high
    assert 0.935 <= held / 4000 <= 0.965


def test_one_value_has_no_interval() -> None:
    assert t_interval(np.array([1.0])) == (None, None) == t_interval(np.array([1.0, np.nan]))

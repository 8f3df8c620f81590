"""Confidence intervals of percentiles: from one sample by its order statistics, from several by Student's t."""

from __future__ import annotations

from math import sqrt

import numpy as np

from infermix.arrays import Floats
from infermix.metrics.confidence import Z_95

Interval = tuple[float | None, float | None]
"""Lower and upper end; None where the sample is too small to tell it."""

_T_95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""Two-sided 95 % quantiles of Student's t for 1 to 30 degrees of freedom."""
_WINDOW = 12.0
"""Standard deviations around the mean beyond which a binomial has less than 1e-30."""


def order_ranks(n: int, share: float, doubt: float = 0.05) -> tuple[int, int]:
    """Ranks (from 1) of the order statistics between which the ``share`` quantile of the law lies.

    The number of n independent draws at or below the quantile is binomial, so the quantile lies between the
    draws of rank l and u unless that number is below l or at least u; both ends leave out at most half the
    doubt (H. A. David, H. N. Nagaraja, Order Statistics, 3rd edition, section 7.1). Rank 0: below all draws;
    rank n + 1: above all.

    >>> order_ranks(100, 0.5)
    (40, 61)
    """
    mean, spread = n * share, sqrt(n * share * (1 - share))
    first = max(0, int(mean - _WINDOW * spread) - 1)
    last = min(n, int(mean + _WINDOW * spread) + 1)
    k = np.arange(first, last + 1, dtype=np.float64)
    steps = np.log((n - k[:-1]) / (k[:-1] + 1) * (share / (1 - share)))
    logs = np.concatenate([[0.0], np.cumsum(steps)])
    weights = np.exp(logs - logs.max())
    below = np.cumsum(weights) / weights.sum()
    above = np.cumsum(weights[::-1])[::-1] / weights.sum()
    low = first + int(np.searchsorted(below, doubt / 2, side="right"))
    high = first + int(np.count_nonzero(above > doubt / 2))
    return low, high


def order_interval(ordered: Floats, share: float) -> Interval:
    """95 % interval of a quantile from one ascending sample; independent draws of one law are assumed.

    >>> order_interval(np.arange(1.0, 101.0), 0.5)
    (40.0, 61.0)
    """
    n = len(ordered)
    if n == 0:
        return None, None
    low, high = order_ranks(n, share)
    return (float(ordered[low - 1]) if low >= 1 else None), (float(ordered[high - 1]) if high <= n else None)


def t_95(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t.

    >>> t_95(4), round(t_95(60), 3)
    (2.776, 2.0)
    """
    if freedom <= len(_T_95):
        return _T_95[freedom - 1]
    z = Z_95  # expansion in 1 / freedom: Abramowitz and Stegun 26.7.5
    first = (z**3 + z) / (4 * freedom)
    second = (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return z + first + second


def t_interval(values: Floats) -> Interval:
    """95 % interval of a mean from independent values, such as the same percentile under several seeds.

    >>> low, high = t_interval(np.array([1.0, 2.0, 3.0]))
    >>> round(low, 3), round(high, 3)
    (-0.484, 4.484)
    """
    kept = values[np.isfinite(values)]
    if len(kept) < 2:
        return None, None
    margin = t_95(len(kept) - 1) * float(kept.std(ddof=1)) / sqrt(len(kept))
    mean = float(kept.mean())
    return mean - margin, mean + margin

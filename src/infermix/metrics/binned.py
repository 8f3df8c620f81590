"""Percentiles of values that were only counted, by bin."""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats, Ints
from infermix.metrics.latency import PERCENTILES


def binned_quantiles(counts: Ints, edges: Floats, shares: Floats) -> Floats:
    """Quantiles of counted values, which are taken to be spread evenly over their bin; NaN when there are none.

    >>> binned_quantiles(np.array([2, 2]), np.array([0.0, 1.0, 3.0]), np.array([0.25, 0.5, 1.0])).tolist()
    [0.5, 1.0, 3.0]
    """
    total = counts.sum()
    if total == 0:
        return np.full(len(shares), np.nan)
    until = np.cumsum(counts)
    wanted = shares * total
    place = np.searchsorted(until, wanted, side="left")
    part = (wanted - (until[place] - counts[place])) / counts[place]
    return np.asarray(edges[place] + part * (edges[place + 1] - edges[place]))


def binned_percentiles(counts: Ints, edges: Floats) -> dict[str, float]:
    """p50, p90 and p99 of counted values."""
    found = binned_quantiles(counts, edges, np.array(PERCENTILES) / 100.0)
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, found, strict=True)}

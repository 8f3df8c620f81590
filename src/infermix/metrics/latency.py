"""Percentiles of latencies."""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats

PERCENTILES = (50, 90, 99)


def percentiles(values: Floats) -> dict[str, float]:
    """p50, p90 and p99 of the finite values [s]; NaN when there are none.

    >>> percentiles(np.array([1.0, 2.0, 3.0]))["p50"]
    2.0
    """
    finite = values[np.isfinite(values)]
    found = np.percentile(finite, PERCENTILES) if len(finite) else [np.nan] * len(PERCENTILES)
    return {f"p{p}": float(v) for p, v in zip(PERCENTILES, found, strict=True)}

"""Laws of the times between arrivals: Poisson, gamma and Weibull, as stationary renewal processes.

Variates are counter-based: the i-th gap of a stream is the same whatever the horizon. A process
starts in equilibrium, so that rate times horizon requests are expected over *any* horizon: the
first gap is what remains of one that was picked by its length.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import exp, inf, lgamma, sqrt
from typing import Literal

import msgspec
import numpy as np

from infermix.arrays import Bools, Floats, Ints
from infermix.errors import InputError
from infermix.rng import u01

MAX_CV = 30.0
"""Beyond this nearly all gaps are nothing and the law says no more than that."""
FIRST_BLOCK = 512
BLOCK = 32768
"""Gaps drawn at a time: the working arrays stay in cache, and sums do not depend on the horizon."""
_ATTEMPTS = 20
_SLOTS = 64
"""Uniform numbers set aside for each variate: three an attempt, and the last for shapes below 1."""


class Arrivals(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A law of the times between arrivals and their coefficient of variation."""

    law: Literal["poisson", "gamma", "weibull"] = "poisson"
    cv: float = 1.0
    """Standard deviation over mean of the gaps; above 1 is bursty, below 1 is regular."""

    def check(self, where: str) -> None:
        """Raise InputError unless the coefficient of variation goes with the law."""
        if not 0.01 <= self.cv <= MAX_CV:
            raise InputError("cv out of range", where=f"{where}.cv", value=self.cv, allowed=f"0.01 to {MAX_CV:g}")
        if self.law == "poisson" and self.cv != 1.0:
            raise InputError(
                "Poisson arrivals have a cv of 1",
                where=f"{where}.cv",
                value=self.cv,
                allowed="1",
                mend='say law = "gamma"',
            )

    @property
    def shape(self) -> float:
        """Shape of the gamma or Weibull distribution that has this coefficient of variation."""
        return weibull_shape(self.cv) if self.law == "weibull" else self.cv**-2.0


@lru_cache(maxsize=64)
def weibull_shape(cv: float) -> float:
    """Shape of a Weibull distribution with this coefficient of variation.

    >>> round(weibull_shape(1.0), 9)
    1.0
    """
    low, high = 0.05, 200.0
    for _ in range(80):
        middle = sqrt(low * high)
        spread = exp(lgamma(1 + 2 / middle) - 2 * lgamma(1 + 1 / middle)) - 1
        low, high = (middle, high) if spread > cv * cv else (low, middle)
    return low


def gamma_variates(shape: Floats, seed: int, stream: int, index: Ints) -> Floats:
    """Gamma variates of scale 1, one for each counter.

    Marsaglia and Tsang, "A simple method for generating gamma variables", ACM TOMS 26(3), 2000:
    their rejection, and their power of a uniform number for shapes below 1.
    """
    base = index.astype(np.uint64) * np.uint64(_SLOTS)
    boosted = np.where(shape < 1.0, shape + 1.0, shape)
    d = boosted - 1.0 / 3.0
    c = 1.0 / np.sqrt(9.0 * d)
    found, left = d.copy(), np.arange(len(index))
    for attempt in range(_ATTEMPTS):
        u, v, w = (u01(seed, stream, base[left] + np.uint64(3 * attempt + k)) for k in range(3))
        normal = np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
        cube = np.maximum(1.0 + c[left] * normal, 1e-9) ** 3
        good = np.log(w) < 0.5 * normal**2 + d[left] * (1.0 - cube + np.log(cube))
        found[left[good]] = (d[left] * cube)[good]
        left = left[~good]
        if not len(left):
            break
    small = shape < 1.0
    if small.any():
        luck = u01(seed, stream, base[small] + np.uint64(_SLOTS - 1))
        found[small] *= np.exp(np.log(luck) / shape[small])
    return found


def unit_gaps(weibull: Bools, shape: Floats, seed: int, stream: int, index: Ints) -> Floats:
    """Gaps of mean 1, one for each counter: Weibull where ``weibull``, else gamma, of the shape given."""
    gaps = np.empty(len(index))
    other = ~weibull
    if other.any():
        gaps[other] = gamma_variates(shape[other], seed, stream, index[other]) / shape[other]
    if weibull.any():
        k = shape[weibull]
        gaps[weibull] = (-np.log(u01(seed, stream, index[weibull].astype(np.uint64)))) ** (1.0 / k) / _weibull_mean(k)
    return gaps


def first_gaps(weibull: Bools, shape: Floats, seed: int, stream: int, index: Ints) -> Floats:
    """What remains of a gap picked by its length, in units of the mean gap.

    Picked by its length, a gamma gap has a shape one higher; the power k of a Weibull gap is
    gamma distributed with shape 1 + 1/k.
    """
    picked = gamma_variates(np.where(weibull, 1.0 + 1.0 / shape, shape + 1.0), seed, stream, 2 * index)
    lengths = np.empty(len(index))
    other = ~weibull
    lengths[other] = picked[other] / shape[other]
    lengths[weibull] = picked[weibull] ** (1.0 / shape[weibull]) / _weibull_mean(shape[weibull])
    return lengths * u01(seed, stream, ((2 * index + 1) * _SLOTS).astype(np.uint64))


def _weibull_mean(shape: Floats) -> Floats:
    return np.exp([lgamma(1.0 + 1.0 / k) for k in np.atleast_1d(shape).tolist()])


def law_arrivals(law: Arrivals, rate_per_s: float, horizon_s: float, seed: int, gap: int, first: int) -> Floats:
    """Arrivals in [0, horizon) of a law at a rate; ``gap`` and ``first`` are streams."""
    kind, shape = np.array([law.law == "weibull"]), np.array([law.shape])

    def drawn(index: Ints) -> Floats:
        return unit_gaps(np.repeat(kind, len(index)), np.repeat(shape, len(index)), seed, gap, index) / rate_per_s

    start = float(first_gaps(kind, shape, seed, first, np.zeros(1, np.int64))[0]) / rate_per_s
    return renewal(drawn, start, horizon_s)


def renewal(gaps: Callable[[Ints], Floats], first_s: float, horizon_s: float) -> Floats:
    """Arrivals in [0, horizon) of which the first comes at ``first_s``; gap i is ``gaps([i])``.

    Blocks grow from ``FIRST_BLOCK`` to ``BLOCK`` gaps.
    """
    now, low, size, blocks = first_s, 0, FIRST_BLOCK, [np.array([first_s])]
    while now < horizon_s:
        times = np.cumsum(gaps(np.arange(low, low + size)))
        times += now
        now, low, size = float(times[-1]), low + size, min(2 * size, BLOCK)
        blocks.append(times)
    arrival = np.concatenate(blocks)
    return arrival[: np.searchsorted(arrival, horizon_s)]


def index_of_dispersion(t_s: Floats, window_s: float, span_s: float = inf) -> float:
    """Variance over mean of the counts in windows; 1 for Poisson arrivals, NaN with fewer than 10 windows."""
    end = min(float(t_s[-1]), span_s) if len(t_s) else 0.0
    windows = int(end // window_s)
    if windows < 10:
        return float("nan")
    counts = np.bincount((t_s[t_s < windows * window_s] // window_s).astype(np.int64), minlength=windows)
    return float(counts.var() / counts.mean()) if counts.any() else float("nan")

"""Yield: from defects on an area to dies that work, and to dies that work with spare cores."""

from __future__ import annotations

import math

import numpy as np

from infermix.arrays import Floats


def poisson(defects: Floats) -> Floats:
    """Share of dies without a defect where defects fall independently; ``defects`` = area x density (E4).

    >>> round(float(poisson(np.float64(814) / 1000)), 3)
    0.443
    """
    return np.exp(-defects)


def murphy(defects: Floats) -> Floats:
    """Yield where the density itself varies, triangular (E4; Murphy).

    >>> round(float(murphy(np.float64(814) / 1000)), 3)
    0.468
    """
    return (-np.expm1(-defects) / defects) ** 2


def seeds(defects: Floats) -> Floats:
    """Yield where the density varies widely, as on memory (E4; Seeds).

    >>> round(float(seeds(np.float64(814) / 1000)), 3)
    0.406
    """
    return np.exp(-np.sqrt(defects))


def negative_binomial(defects: Floats, clustering: Floats) -> Floats:
    """Yield where defects cluster; small ``clustering`` is strong clustering (E4).

    >>> [round(float(negative_binomial(np.float64(814) / 1000, a)), 3) for a in (2, 3, 6, 10)]
    [0.505, 0.487, 0.466, 0.457]
    """
    return (1 + defects / clustering) ** -clustering


def critical(defects: Floats, share: Floats) -> Floats:
    """Defects that lie where they do harm (E5; CATCH)."""
    return defects * share


def harvest(defects: Floats, share: Floats, cores: int, need: int, rest_yield: Floats) -> Floats:
    """Share of dies that work with at least ``need`` of ``cores`` cores (E6).

    Parameters
    ----------
    defects
        Area of the die x density.
    share
        Share of the die that the cores fill, 0 to 1.
    cores, need
        Cores that lie on the die, and that must work.
    rest_yield
        Yield of what lies beside the cores and has no spares.

    A leading axis of the terms is summed in logarithms, so that a million cores are no harder than a hundred.
    """
    good = np.exp(-defects * share / cores)
    spare = np.arange(cores - need + 1)
    log_ways = np.array([_log_choose(cores, int(bad)) for bad in spare])
    with np.errstate(divide="ignore"):
        log_bad = np.log(-np.expm1(np.log(good)))
    terms = (cores - spare) * np.log(good)[..., None] + np.where(spare > 0, spare * log_bad[..., None], 0) + log_ways
    enough: Floats = np.minimum(np.exp(terms).sum(axis=-1), 1)
    return rest_yield * enough


def _log_choose(count: int, chosen: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(chosen + 1) - math.lgamma(count - chosen + 1)


def bad_cores(cores: Floats, defects_per_mm2: Floats, core_mm2: Floats) -> Floats:
    """Cores of a wafer-sized chip that defects are expected to hit (E7)."""
    return cores * -np.expm1(-defects_per_mm2 * core_mm2)


def learned(first: Floats, last: Floats, years: Floats, learning_years: Floats) -> Floats:
    """Density of defects after some years of making a node (E8).

    >>> float(learned(np.float64(3), np.float64(1), np.float64(0), np.float64(1)))
    3.0
    """
    return last + (first - last) * np.exp(-years / learning_years)

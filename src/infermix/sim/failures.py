"""Random failures: when instances fail and are started again, as events of a run."""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats
from infermix.rng import u01
from infermix.units import SECONDS_PER_HOUR

STREAM = 0x4641494C
"""Streams of failures begin here, one for each instance."""


def failure_times(horizon_s: float, mtbf_hours: float, repair_s: float, instance: int, seed: int) -> Floats:
    """Times in [0, horizon) at which one instance fails [s].

    It is up for exponential times of mean ``mtbf_hours`` and then ``repair_s`` in repair; the k-th of these times is a
    function of seed, instance and k alone, so that a longer horizon, or more instances, leave the others as they are.

    >>> failure_times(0.0, 1.0, 60.0, 0, 1)
    array([], dtype=float64)
    """
    mean_s = mtbf_hours * SECONDS_PER_HOUR
    many, ends = 16, np.zeros(0)
    while horizon_s > 0.0:
        up_s = -mean_s * np.log(u01(seed, STREAM + instance, np.arange(many)))
        ends = np.cumsum(up_s) + repair_s * np.arange(many)
        if ends[-1] >= horizon_s:
            break
        many *= 4
    return np.asarray(ends[ends < horizon_s])


def failure_events(
    horizon_s: float, mtbf_hours: float, repair_s: float, instance: int, seed: int, *, starts: bool = True
) -> list[tuple[float, int, str]]:
    """The same as events of a run: every failure and, with ``starts``, the start when its repair is over."""
    found = []
    for at in failure_times(horizon_s, mtbf_hours, repair_s, instance, seed).tolist():
        found.append((at, instance, "fail"))
        if starts:
            found.append((at + repair_s, instance, "start"))
    return found

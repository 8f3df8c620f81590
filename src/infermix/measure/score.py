"""How far simulated times are from measured ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.arrays import Bools, Floats
from infermix.measure.timed import TIMES, Timed

KNEE = 0.1
"""Logarithm of a ratio beyond which an error counts by its size, not by its square."""
MISSING = 3.0
"""Logarithm that a request which was measured but does not end in the simulation counts as."""
POINTS = (50, 90)


def log_ratios(found: Timed, real: Timed, part: Bools) -> dict[str, Floats]:
    """Logarithms of simulated over measured times of a part, by time; those not measured are left out.

    In a closed loop who meets whom is chance, so times are paired by size within a class, not by request.
    """
    ratios = {}
    for name in TIMES:
        ours, theirs = getattr(found, name), getattr(real, name)
        if real.closed:
            ours, theirs = _by_size(ours, real), _by_size(theirs, real)
        known = part & (theirs > 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(ours[known] / theirs[known])
        ratios[name] = np.where(np.isfinite(logs), np.clip(logs, -MISSING, MISSING), MISSING)
    return ratios


def residuals(found: Timed, real: Timed, part: Bools) -> Floats:
    """Errors whose squares add up to about the loss: those beyond ``KNEE`` are taken down to its size."""
    known = [logs for logs in log_ratios(found, real, part).values() if len(logs)]
    return np.concatenate([logs / np.sqrt(len(logs) * np.hypot(1.0, logs / KNEE)) for logs in known])


def _by_size(values: Floats, real: Timed) -> Floats:
    """Values in ascending order within each class, at the places of the class."""
    ordered, classes = values.copy(), real.requests.class_id
    for one in np.unique(classes):
        ordered[classes == one] = np.sort(values[classes == one])
    return ordered


def loss(found: Timed, real: Timed, part: Bools) -> float:
    """What a fit makes small: the mean over TTFT, TPOT and E2E of squared logarithms, tamed beyond ``KNEE``."""
    means = [
        float(np.mean(np.sqrt(1.0 + np.square(logs / KNEE)) - 1.0))
        for logs in log_ratios(found, real, part).values()
        if len(logs)
    ]
    return float(np.mean(means))


def errors(found: Timed, real: Timed, part: Bools) -> dict[str, Any]:
    """By time: requests, median and 90th percentile of |ln(simulated / measured)|, and its median with its sign."""
    told: dict[str, Any] = {}
    for name, logs in log_ratios(found, real, part).items():
        size = np.abs(logs)
        told[name] = {
            "n": len(logs),
            "median_abs_log_error": _at(size, 50),
            "p90": _at(size, 90),
            "bias": _at(logs, 50),
        }
    return told


def compared(found: Timed, real: Timed, part: Bools) -> dict[str, Any]:
    """By time, its percentiles and mean: measured, simulated, and how far off the one is from the other."""
    told: dict[str, Any] = {}
    for name in TIMES:
        ours, theirs = getattr(found, name)[part], getattr(real, name)[part]
        known = np.isfinite(theirs)
        told[name] = {f"p{q}": _pair(_at(theirs[known], q), _at(ours[known], q)) for q in POINTS}
        told[name]["mean"] = _pair(_mean(theirs[known]), _mean(ours[known]))
    return told


def _pair(measured: float, simulated: float) -> dict[str, float]:
    return {"measured": measured, "simulated": simulated, "off": simulated / measured - 1.0}


def _at(values: Floats, percent: int) -> float:
    finite = values[np.isfinite(values)]
    return float(np.percentile(finite, percent)) if len(finite) else float("nan")


def _mean(values: Floats) -> float:
    finite = values[np.isfinite(values)]
    return float(np.mean(finite)) if len(finite) else float("nan")

"""Slices of time that errors are told by: hours where a log is long enough, else minutes or seconds."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np

from infermix.arrays import Floats, Ints
from infermix.units import SECONDS_PER_HOUR

LENGTHS_S = (SECONDS_PER_HOUR, 600.0, 60.0, 30.0, 10.0, 5.0, 1.0)
LEAST_SLICES = 4
DAY_S = 24 * SECONDS_PER_HOUR


def slices(arrival_s: Floats, began_unix_s: float) -> tuple[tuple[str, ...], Ints]:
    """(labels, slice of every request): hours of the day in a log of two days and more.

    >>> slices(np.array([0.0, 5.0, 3700.0, 15000.0]), float("nan"))
    (('hour 0', 'hour 1', 'hour 4'), array([0, 0, 1, 2]))
    """
    span = float(arrival_s[-1] - arrival_s[0])
    start = began_unix_s if np.isfinite(began_unix_s) else 0.0
    length = next((x for x in LENGTHS_S if span >= LEAST_SLICES * x), LENGTHS_S[-1])
    number = np.floor((start + arrival_s) / length).astype(np.int64)
    if span >= 2 * DAY_S:
        number %= round(DAY_S / length)
    values, codes = np.unique(number, return_inverse=True)
    return tuple(_label(int(v), length, np.isfinite(began_unix_s), span) for v in values), codes


def _label(number: int, length_s: float, dated: bool, span_s: float) -> str:
    if length_s == SECONDS_PER_HOUR and (span_s >= 2 * DAY_S or not dated):
        return f"hour {number}"
    if not dated:
        return f"{number * length_s:g} s on"
    moment = datetime.fromtimestamp(number * length_s, UTC)
    return moment.strftime("%d %b %H:00" if length_s == SECONDS_PER_HOUR else "%H:%M:%S") + " UTC"

"""The shape of a day: how the rate of a class swings around its mean over 24 hours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import pi

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.errors import InputError
from infermix.units import SECONDS_PER_HOUR
from infermix.workload.rows import Rows, Source

HOURS = 24
MAX_PEAK_TO_MEAN = 2.0
"""A sine that stays above nothing peaks at twice its mean."""


class Sine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A day that swings as a sine: its busiest hour over its mean, and which hour that is (0 to 23)."""

    peak_to_mean: float
    peak_hour: int = 14


Shape = Sine | list[float]
"""A sine, or relative rates of equal parts of the day from midnight on (24 for hours)."""


def check_shape(shape: Shape, where: str) -> None:
    """Raise InputError when a shape falls below nothing, is nothing throughout, or names no hour."""
    if isinstance(shape, Sine):
        if not 1.0 <= shape.peak_to_mean <= MAX_PEAK_TO_MEAN:
            raise InputError(
                "peak_to_mean out of range",
                where=f"{where}.peak_to_mean",
                value=shape.peak_to_mean,
                allowed=f"1 to {MAX_PEAK_TO_MEAN:g}",
                mend="give a steeper day as a list of 24 numbers",
            )
        if not 0 <= shape.peak_hour < HOURS:
            raise InputError("no such hour", where=f"{where}.peak_hour", value=shape.peak_hour, allowed="0 to 23")
        return
    wrong = next((x for x in shape if not 0 <= x < float("inf")), None)
    if wrong is not None:
        raise InputError("relative rates must not be negative", where=where, value=wrong, allowed="0 or more")
    if not shape or HOURS % len(shape) or sum(shape) <= 0:
        raise InputError(
            "a day needs relative rates of equal parts, whole hours each",
            where=where,
            value=f"{len(shape)} numbers with sum {sum(shape):g}",
            allowed="1, 2, 3, 4, 6, 8, 12 or 24 numbers, not all 0",
        )


def by_hour(shape: Shape | None) -> Floats:
    """Rate of each hour of the day over the mean rate.

    >>> by_hour([1.0, 3.0])[[0, 11, 12]].tolist()
    [0.5, 0.5, 1.5]
    >>> float(by_hour(Sine(peak_to_mean=1.6, peak_hour=9)).max().round(9))
    1.6
    """
    if shape is None:
        return np.ones(HOURS)
    if isinstance(shape, list):
        parts = np.repeat(np.asarray(shape, dtype=np.float64), HOURS // len(shape))
        return np.asarray(parts / parts.mean())
    hours = (np.arange(HOURS) - shape.peak_hour) / HOURS
    return np.asarray(1.0 + (shape.peak_to_mean - 1.0) * np.cos(2 * pi * hours))


def peak_hours(shapes: Mapping[str, Shape | None], weights: Mapping[str, float]) -> list[int]:
    """The hours of the day in which the weighted sum of rates is highest.

    ``weights`` say what a mean second of each class weighs, for example in tokens.
    """
    load = np.sum([weights[name] * by_hour(shape) for name, shape in shapes.items()], axis=0)
    return [int(h) for h in np.flatnonzero(load >= load.max() * (1 - 1e-9))]


@dataclass(frozen=True)
class Shaped:
    """A source whose clock runs faster when the day is busy, so that its rate follows the shape.

    Time starts at ``start_hour`` of the day. All times of the source are stretched alike, also
    those between the requests of a session.
    """

    source: Source
    hourly: tuple[float, ...]
    start_hour: float = 0.0

    @property
    def rate_per_s(self) -> float:
        """Mean rate over a day [1/s]."""
        return self.source.rate_per_s

    @property
    def once_s(self) -> float:
        """As of the source, on the clock of the day [s]."""
        return float(self._clock(np.array([self.source.once_s]))[0])

    @property
    def dispersion(self) -> float:
        """As of the source."""
        return self.source.dispersion

    @property
    def repairs(self) -> dict[str, int]:
        """As of the source."""
        return self.source.repairs

    def rows(self, horizon_s: float, seed: int) -> Rows:
        """Requests that arrive in [0, horizon)."""
        found = self.source.rows(float(self._worked(np.array([horizon_s]))[0]), seed)
        arrival = np.minimum(self._clock(found.arrival_s), np.nextafter(horizon_s, 0.0))
        return found._replace(arrival_s=arrival)

    def _knots(self) -> tuple[Floats, Floats]:
        """(hours since midnight, mean hours of work done by then) over one day."""
        return np.arange(HOURS + 1.0), np.concatenate(([0.0], np.cumsum(self.hourly)))

    def _worked(self, t_s: Floats) -> Floats:
        """Seconds at the mean rate in the first ``t_s`` seconds."""
        hours, work = self._knots()

        def until(hour: Floats) -> Floats:
            days, rest = np.divmod(hour, HOURS)
            return days * HOURS + np.interp(rest, hours, work)

        at = t_s / SECONDS_PER_HOUR + self.start_hour
        return (until(at) - until(np.array([self.start_hour]))) * SECONDS_PER_HOUR

    def _clock(self, worked_s: Floats) -> Floats:
        """When so many seconds at the mean rate are done."""
        hours, work = self._knots()
        before = float(np.interp(self.start_hour % HOURS, hours, work))
        days, rest = np.divmod(worked_s / SECONDS_PER_HOUR + before, HOURS)
        return (days * HOURS + np.interp(rest, work, hours) - self.start_hour % HOURS) * SECONDS_PER_HOUR


def hours_of(span: Sequence[int] | None) -> frozenset[int]:
    """Hours of the day in ``[from, to)``, over midnight where from is later than to; all where not said.

    >>> sorted(hours_of([22, 2]))
    [0, 1, 22, 23]
    """
    if span is None:
        return frozenset(range(HOURS))
    start, end = span
    return frozenset(h % HOURS for h in range(start, end + (HOURS if end <= start else 0)))

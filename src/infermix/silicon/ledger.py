"""The ledger: every constant that an answer hangs on, with its source, and how much hangs on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.silicon.constants import CONFIDENCES, Constants
from infermix.silicon.draw import Draw, one_by_one

PERCENTILES = (10, 50, 90)
MOST_OF_IT = 80
"""Percent of the variance whose worst confidence is that of the answer."""


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One constant of an answer."""

    id: str
    value: float
    low: float
    high: float
    unit: str
    source: tuple[str, ...]
    date: str
    confidence: str
    note: str
    elasticity: float
    """Percent that the answer moves for one percent of the constant."""
    at_low: float
    at_high: float
    """The answer with this constant at the ends of its range, all others nominal."""

    @property
    def swing(self) -> float:
        """How far the range of this constant moves the answer."""
        return abs(self.at_high - self.at_low)


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A quantity at nominal constants, and its percentiles over their ranges."""

    nominal: float
    p10: float
    p50: float
    p90: float


def ledger(table: Constants, ids: Sequence[str], answer: Callable[[Draw], Floats]) -> tuple[Line, ...]:
    """Lines of these constants for one answer, the widest swing first."""
    draw, order = one_by_one(table, ids)
    found = np.broadcast_to(answer(draw), (1 + 3 * len(order),))
    base, count = float(found[0]), len(order)
    lines = []
    for place, id_ in enumerate(order):
        item = table[id_]
        moved = float(found[1 + 2 * count + place])
        lines.append(
            Line(
                **{name: getattr(item, name) for name in item.__struct_fields__},
                elasticity=100 * (moved / base - 1) if base and item.value else 0,
                at_low=float(found[1 + place]),
                at_high=float(found[1 + count + place]),
            )
        )
    return tuple(sorted(lines, key=lambda line: (-line.swing, -abs(line.elasticity), line.id)))


def confidence(lines: Sequence[Line]) -> str:
    """The worst letter among the constants that make most of the variance; the best where nothing varies."""
    total = sum(line.swing**2 for line in lines)
    letters, seen = [min(CONFIDENCES)], total * 0
    for line in lines:
        if not total or 100 * seen >= MOST_OF_IT * total:
            break
        letters.append(line.confidence)
        seen += line.swing**2
    return max(letters)


def spread(nominal: Floats, samples: Floats) -> Spread:
    """A quantity and its percentiles."""
    low, middle, high = np.percentile(np.atleast_1d(samples), PERCENTILES)
    return Spread(nominal=float(nominal), p10=float(low), p50=float(middle), p90=float(high))

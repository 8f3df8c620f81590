"""Values of constants, nominal or drawn, for equations that are evaluated over all of them at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from infermix.arrays import Floats
from infermix.rng import uniforms
from infermix.silicon.constants import Constants

SAMPLES = 2**12
"""Points of a quasi-Monte Carlo run."""
NEWTON_STEPS = 40


def exact(value: float) -> Floats:
    """A number as the array without axes that equations take."""
    return np.asarray(value, dtype=np.float64)


class Draw:
    """Values of the constants, one for each sample, that remembers which were asked for."""

    def __init__(self, table: Constants, values: Mapping[str, Floats] | None = None) -> None:
        self.table = table
        self.values = dict(values or {})
        self.read: dict[str, None] = {}
        self.kept: dict[str, tuple[Floats, ...]] = {}
        """What was computed of these values and is asked for again."""

    def __call__(self, id_: str) -> Floats:
        """The value of one constant, or of every sample."""
        self.read[id_] = None
        found = self.values.get(id_)
        return exact(self.table[id_].value) if found is None else found


def points(seed: int, dimensions: int, count: int) -> Floats:
    """Points of the unit cube that fill it evenly: Roberts' sequence of the generalised golden ratio, shifted.

    Rows are points. Roberts, The unreasonable effectiveness of quasirandom sequences, 2018.

    >>> points(1, 2, 4).shape
    (4, 2)
    """
    ratio = exact(2)
    for _ in range(NEWTON_STEPS):  # ratio ** (dimensions + 1) = ratio + 1
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1, dimensions + 1)
    found: Floats = np.mod(uniforms(seed, dimensions, dimensions) + np.arange(1, count + 1)[:, None] * steps, 1)
    return found


def triangular(share: Floats, low: float, mode: float, high: float) -> Floats:
    """The value below which a share of a triangular distribution lies.

    >>> float(triangular(np.float64(1) / 2, 0, 1, 2))
    1.0
    """
    if high == low:
        return np.full(np.shape(share), mode, dtype=np.float64)
    turn = (mode - low) / (high - low)
    rising = low + np.sqrt(share * (high - low) * (mode - low))
    falling = high - np.sqrt((1 - share) * (high - low) * (high - mode))
    return np.where(share < turn, rising, falling)


def drawn(table: Constants, ids: Iterable[str], seed: int, count: int = SAMPLES) -> Draw:
    """Samples of these constants; those of one group move together."""
    wanted = [id_ for id_ in ids if table[id_].high > table[id_].low]
    groups = sorted({table[id_].group for id_ in wanted})
    cube = points(seed, max(len(groups), 1), count)
    values = {}
    for id_ in wanted:
        item = table[id_]
        values[id_] = triangular(cube[:, groups.index(item.group)], item.low, item.value, item.high)
    return Draw(table, values)


def one_by_one(table: Constants, ids: Iterable[str]) -> tuple[Draw, list[str]]:
    """Rows that move one constant each: nominal, then all at their low, at their high, and one percent up."""
    wanted = list(ids)
    rows = 1 + 3 * len(wanted)
    values = {}
    for place, id_ in enumerate(wanted):
        item = table[id_]
        column = np.full(rows, item.value)
        column[1 + place], column[1 + len(wanted) + place] = item.low, item.high
        column[1 + 2 * len(wanted) + place] = item.value + item.value / 100
        values[id_] = column
    return Draw(table, values), wanted

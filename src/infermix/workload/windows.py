"""Poisson arrivals with lognormal lengths, window after window: as many requests as one likes, in little memory.

Everything about request i hangs on the seed and on i alone, so that the rows are the same whatever the windows.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints
from infermix.errors import InputError
from infermix.rng import u01
from infermix.workload.requests import Requests, make_requests
from infermix.workload.rows import GAP, LENGTH, PICK

WINDOW = 50_000
_KEY = zlib.crc32(b"poisson windows") * 16


@dataclass(frozen=True)
class Lengths:
    """Tokens, lognormal: mean and standard deviation over mean before they are rounded and cut to 1 .. ``most``."""

    mean: float
    cv: float = 1.0
    most: int = 100_000

    def __post_init__(self) -> None:
        if not (self.mean > 0.0 and self.cv >= 0.0 and self.most >= 1):
            raise InputError("lengths out of range", value=self, allowed="mean > 0, cv >= 0, most >= 1")

    def of(self, normal: Floats) -> npt.NDArray[np.int32]:
        """Lengths that belong to normal variates."""
        spread2 = np.log1p(self.cv**2)
        tokens = np.exp(np.log(self.mean) - 0.5 * spread2 + np.sqrt(spread2) * normal)
        return np.asarray(np.clip(np.rint(tokens), 1, self.most), dtype=np.int32)


@dataclass(frozen=True)
class PlainClass:
    """Requests of one kind: mean rate [1/s] and lengths."""

    name: str
    rate_per_s: float
    inputs: Lengths
    outputs: Lengths


def poisson_windows(
    classes: tuple[PlainClass, ...], requests: int, *, seed: int, window: int = WINDOW
) -> Iterator[Requests]:
    """So many requests of all classes, ``window`` at a time, for ``sim.stream.simulate_stream``.

    >>> chat = PlainClass("chat", 10.0, Lengths(1000.0), Lengths(200.0, cv=0.0))
    >>> many, few = (list(poisson_windows((chat,), 1000, seed=1, window=w)) for w in (300, 1000))
    >>> [len(table) for table in many], bool(many[3].arrival_s[-1] == few[0].arrival_s[-1])
    ([300, 300, 300, 100], True)
    """
    rates = np.array([cls.rate_per_s for cls in classes])
    if not (len(rates) and np.all(rates > 0.0) and window >= 1):
        raise InputError("rates and windows must be positive", where="poisson_windows", value=(rates.tolist(), window))
    now_s = 0.0
    for first in range(0, requests, window):
        number = np.arange(first, min(first + window, requests))
        arrival_s = _arrivals(number, float(rates.sum()), seed, now_s)
        now_s = float(arrival_s[-1])
        yield _table(classes, rates, number, arrival_s, seed)


def _arrivals(number: Ints, rate_per_s: float, seed: int, from_s: float) -> Floats:
    """Arrival times [s]; summed one after the other, so that windows do not show in the last bit."""
    gaps = -np.log(u01(seed, _KEY + GAP, number)) / rate_per_s
    gaps[0] += from_s
    return np.cumsum(gaps)


def _table(classes: tuple[PlainClass, ...], rates: Floats, number: Ints, arrival_s: Floats, seed: int) -> Requests:
    names = tuple(cls.name for cls in classes)
    picked = np.searchsorted(np.cumsum(rates) / rates.sum(), u01(seed, _KEY + PICK, number)).astype(np.int16)
    class_id = np.minimum(picked, len(classes) - 1)
    radius = np.sqrt(-2.0 * np.log(u01(seed, _KEY + LENGTH, 2 * number)))
    angle = 2.0 * np.pi * u01(seed, _KEY + LENGTH, 2 * number + 1)
    inputs, outputs = np.empty((2, len(number)), dtype=np.int32)
    for c, cls in enumerate(classes):
        mine = class_id == c
        inputs[mine] = cls.inputs.of(radius[mine] * np.cos(angle[mine]))
        outputs[mine] = cls.outputs.of(radius[mine] * np.sin(angle[mine]))
    return make_requests(names, arrival_s, inputs, outputs, class_id=class_id)

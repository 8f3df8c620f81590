"""Distributions of a profile: quantile functions, a coarse joint table, and drawing from them.

A joint distribution of token counts is stored in two parts, each small:

- a *quantile function* per column (about 30 to 100 knots), which keeps mean and percentiles;
- a *table of counts* over coarse cells of ranks (a copula), which keeps how the columns depend on
  each other and on the position of a request in its session.

A request is drawn by choosing a cell, then ranks inside it, then values at those ranks. For speed
all of it is expanded once into look-up tables.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints, check_equal_lengths
from infermix.errors import InputError

SLOTS = 65536
"""Entries of an expanded quantile function; finer than the traces behind it."""
_CELL_SLOTS = 4096


class Quantiles(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A quantile function, linear between knots: ``values[i]`` is the quantile at ``levels[i]``."""

    levels: tuple[float, ...]
    values: tuple[float, ...]

    def check(self, where: str, low: float = 0.0, high: float = 1e12) -> None:
        """Raise InputError unless levels climb from 0 to 1, and values climb within ``low`` to ``high``."""
        levels, values = np.asarray(self.levels), np.asarray(self.values)
        if len(levels) != len(values) or len(levels) < 2:
            raise InputError(
                "levels and values must pair up",
                where=where,
                value=(len(levels), len(values)),
                allowed="two knots or more",
            )
        if levels[0] != 0 or levels[-1] != 1 or np.any(np.diff(levels) < 0):
            raise InputError("levels must climb from 0 to 1", where=where, value=self.levels[:3])
        if not (values[0] >= low and values[-1] <= high and np.all(np.diff(values) >= 0)):
            raise InputError("values must climb", where=where, value=self.values[:3], allowed=f"{low} to {high}")

    def expand(self) -> Floats:
        """The function at the middle of each of ``SLOTS`` equal ranks."""
        return np.interp((np.arange(SLOTS) + 0.5) / SLOTS, self.levels, self.values)


class Joint(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Counts of requests over cells [turn][input rank][share rank, cold last][output rank].

    ``turns`` are the first positions in the session of each stratum (``(0,)`` without sessions);
    the cuts are ranks from 0 to 1. The share is uncached over input tokens. A *cold* request has
    nothing cached; share ranks are among the warm requests only, and empty when all are cold.
    """

    turns: tuple[int, ...] = (0,)
    input_cuts: tuple[float, ...]
    share_cuts: tuple[float, ...] = ()
    output_cuts: tuple[float, ...]
    counts: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Cells per axis."""
        warm = max(len(self.share_cuts) - 1, 0)
        return len(self.turns), len(self.input_cuts) - 1, warm + 1, len(self.output_cuts) - 1

    def check(self, where: str) -> None:
        """Raise InputError when cuts do not climb from 0 to 1 or counts do not fill the cells."""
        for name in ("input_cuts", "share_cuts", "output_cuts"):
            cuts = getattr(self, name)
            if not cuts and name == "share_cuts":
                continue
            if len(cuts) < 2 or cuts[0] != 0 or cuts[-1] != 1 or np.any(np.diff(cuts) <= 0):
                raise InputError(f"{name} must climb from 0 to 1", where=where, value=cuts)
        if not self.turns or self.turns[0] != 0 or np.any(np.diff(self.turns) <= 0):
            raise InputError("turns must climb from 0", where=where, value=self.turns)
        cells = int(np.prod(self.shape))
        if len(self.counts) != cells or min(self.counts) < 0:
            raise InputError(
                "counts must fill the cells",
                where=where,
                value=len(self.counts),
                allowed=f"{cells} counts, none negative",
            )
        if not np.asarray(self.counts).reshape(len(self.turns), -1).sum(axis=1).all():
            raise InputError("a stratum of turns holds no request", where=where, mend="merge it with its neighbour")


@dataclass(frozen=True)
class Lengths:
    """Token columns of drawn requests [tokens]."""

    input_tokens: npt.NDArray[np.int32]
    uncached_tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]

    def __post_init__(self) -> None:
        check_equal_lengths(self)


@dataclass(frozen=True, eq=False)
class Sampler:
    """A joint distribution expanded for drawing; made by ``sampler``.

    ``input_tokens`` and ``input_bin`` are [stratum, slot] by the rank of the input within its
    stratum; ``cell`` is [stratum·bins + bin, slot]; the rest describe cells and columns. Answers end
    where input and output reach ``max_context`` tokens (0: they do not).
    """

    turns: Ints
    weights: Floats
    input_tokens: npt.NDArray[np.int32]
    input_bin: npt.NDArray[np.int32]
    cell: npt.NDArray[np.int32]
    share_span: Floats
    output_span: Floats
    share: Floats
    output: npt.NDArray[np.int32]
    all_cold: bool
    max_context: int = 0

    def draw(self, stratum: npt.NDArray[np.integer] | int, rank: Floats, luck: Floats) -> Lengths:
        """Draw one request per element.

        Parameters
        ----------
        stratum
            Index into ``turns``, or 0 for all.
        rank
            Rank of the input within its stratum, in (0, 1); one number per session keeps a long
            session long.
        luck
            Uniform numbers in (0, 1); their leading digits choose the cell, the following the
            ranks inside it.
        """
        slots = self.input_tokens.shape[1]
        slot = (rank * slots).astype(np.int32)
        slot += np.asarray(stratum, dtype=np.int32) * np.int32(slots)
        inputs = self.input_tokens.ravel()[slot]
        pick, luck = _digit(luck, _CELL_SLOTS)
        cell = self.cell.ravel()[self.input_bin.ravel()[slot] * np.int32(_CELL_SLOTS) + pick]
        fine = luck * _CELL_SLOTS
        within = np.floor(fine)
        outputs = self.output[_at(self.output_span, cell, fine - within)]
        if self.max_context:
            outputs = np.minimum(outputs, np.maximum(self.max_context - inputs, 1))
        if self.all_cold:
            return Lengths(inputs, inputs, outputs)
        share = self.share[_at(self.share_span, cell, (within + 0.5) * (1.0 / _CELL_SLOTS))]
        return Lengths(inputs, np.maximum(np.rint(share * inputs), 1).astype(np.int32), outputs)

    def stratum(self, turn: npt.NDArray[np.integer]) -> npt.NDArray[np.int32]:
        """Stratum of each position in a session."""
        table = np.searchsorted(self.turns, np.arange(int(self.turns[-1]) + 1), side="right") - 1
        stratum: npt.NDArray[np.int32] = table.astype(np.int32)[np.minimum(turn, self.turns[-1])]
        return stratum


def _digit(u: Floats, base: int) -> tuple[npt.NDArray[np.int32], Floats]:
    """First digit of uniform numbers in a base, and what remains (uniform again, a few bits shorter)."""
    scaled = u * base
    digit = scaled.astype(np.int32)
    return digit, scaled - digit


def _at(spans: Floats, cell: npt.NDArray[np.int32], v: Floats) -> npt.NDArray[np.int32]:
    """Slot at the fraction v of each cell's span of ranks; spans hold first and width, interleaved."""
    return (spans[2 * cell] + v * spans[2 * cell + 1]).astype(np.int32)


@lru_cache(maxsize=16)
def sampler(
    joint: Joint, inputs: Quantiles, share: Quantiles | None, outputs: Quantiles, max_context: int = 0
) -> Sampler:
    """Expand a joint distribution for drawing."""
    strata, bins, states, _ = joint.shape
    counts = np.asarray(joint.counts, dtype=np.float64).reshape(joint.shape)
    slots = SLOTS if strata == 1 else SLOTS // 4
    per_bin = counts.sum(axis=(2, 3))
    input_table = _tokens(inputs)
    cuts = np.asarray(joint.input_cuts)
    tokens, bin_of = np.empty((strata, slots), np.int32), np.empty((strata, slots), np.int32)
    middle = (np.arange(slots) + 0.5) / slots
    for s in range(strata):
        chosen, within = _invert(per_bin[s], middle)
        rank = cuts[chosen] + within * (cuts[chosen + 1] - cuts[chosen])
        tokens[s] = input_table[np.minimum((rank * SLOTS).astype(np.int64), SLOTS - 1)]
        bin_of[s] = chosen + s * bins
    flat = counts.reshape(strata * bins, -1)
    middle = (np.arange(_CELL_SLOTS) + 0.5) / _CELL_SLOTS
    cell = np.stack([_invert(row if row.any() else row + 1, middle)[0] for row in flat]).astype(np.int32)
    warm = _spans(joint.share_cuts, SLOTS) if share is not None else []
    out = _spans(joint.output_cuts, SLOTS)
    return Sampler(
        turns=np.asarray(joint.turns, dtype=np.int64),
        weights=per_bin.sum(axis=1) / counts.sum(),
        input_tokens=tokens,
        input_bin=bin_of,
        cell=cell,
        share_span=np.array([x for span in [*warm, (SLOTS, 0.0)] for x in span * len(out)]),
        output_span=np.array([x for _ in range(states) for span in out for x in span]),
        share=np.append(share.expand() if share is not None else np.ones(SLOTS), 1.0),
        output=_tokens(outputs),
        all_cold=share is None,
        max_context=max_context,
    )


def _tokens(quantiles: Quantiles) -> npt.NDArray[np.int32]:
    return np.maximum(np.rint(quantiles.expand()), 1).astype(np.int32)


def _spans(cuts: tuple[float, ...], slots: int) -> list[tuple[float, float]]:
    edges = np.asarray(cuts) * slots
    return [(float(a), float(b - a)) for a, b in pairwise(edges)]


def _invert(weights: Floats, u: Floats) -> tuple[Ints, Floats]:
    """Index drawn by weight at each u, and where within it u falls (0 to 1)."""
    edges = np.concatenate(([0.0], np.cumsum(weights / weights.sum())))
    index = np.clip(np.searchsorted(edges, u, side="right") - 1, 0, len(weights) - 1)
    width = edges[index + 1] - edges[index]
    return index, np.clip((u - edges[index]) / np.where(width > 0, width, 1.0), 0.0, 1.0 - 1e-12)

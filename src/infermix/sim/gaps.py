"""Times between the tokens of a request, counted by class while the steps that make them end.

A decoding sequence gets a token in every step, and steps of a busy instance follow each other without a pause, so
the time between two tokens is the length of a step, or of all that lay between a preemption and the next token.
Bins are those of ``sim.state``: 64 to an octave, so that one holds lengths that differ by 1.6 % at most.
"""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from infermix.jit import inline, ordered, part
from infermix.sim.state import GAP_BINS, GAP_EXPONENT, GAP_PARTS, gap_edges_s

_SHIFT = np.int64(53 - GAP_PARTS.bit_length())
"""Bits of a float below those that tell its bin: the exponent and the first bits of the fraction do."""
_FIRST = np.int64((GAP_EXPONENT + 1022) * GAP_PARTS)
_EDGES_S = gap_edges_s()


@inline
def bin_of(gap_s: float) -> int:
    """The bin that holds a time."""
    place: int = (ordered(gap_s) >> _SHIFT) - _FIRST
    return min(max(place, 0), GAP_BINS - 1)


@inline
def count_gaps(gaps: Any, decoding_of: Any, place: int, steps: int) -> None:
    """Every sequence that decodes has waited so many steps of this length; both arrays by class."""
    for c in range(len(decoding_of)):
        gaps[c, place] += steps * decoding_of[c]


@part
def count_jump_gaps(gaps: Any, decoding_of: Any, first_s: float, growth_s: float, k: int) -> None:
    """The k steps of a jump, each ``growth_s`` longer than the last: those that share a bin are counted at once."""
    place, last = bin_of(first_s), bin_of(first_s + (k - 1) * growth_s)
    done = 0
    if place < last:
        per_s = 1.0 / growth_s
        while place < last:
            upto = min(k, int(ceil((_EDGES_S[place + 1] - first_s) * per_s)))
            if upto > done:
                count_gaps(gaps, decoding_of, place, upto - done)
                done = upto
            place += 1
    count_gaps(gaps, decoding_of, last, k - done)

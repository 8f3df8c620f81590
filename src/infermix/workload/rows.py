"""Requests of one class as its source draws them, and the purposes of its random streams."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints

PHASE, THIN, START, PICK, GAP, LENGTH, RANK, TOKENS, FIRST = range(9)
"""Purposes of random streams; a class's stream of one purpose is its own key times 16 plus this."""

Int32s = npt.NDArray[np.int32]
T = TypeVar("T", bound=np.generic)


class Blocks(NamedTuple):
    """Prefix block ids of requests: those of row i are ``ids[start[i]:start[i + 1]]``."""

    start: Ints
    ids: Ints

    def take(self, row: Ints) -> Blocks:
        """The blocks of some rows, in their order.

        >>> Blocks(np.array([0, 2, 3]), np.array([7, 8, 9])).take(np.array([1, 0, 1]))
        Blocks(start=array([0, 1, 3, 4]), ids=array([9, 7, 8, 9]))
        """
        sizes = np.diff(self.start)[row]
        start = np.concatenate(([0], np.cumsum(sizes)))
        place = np.arange(start[-1]) + np.repeat(self.start[row] - start[:-1], sizes)
        return Blocks(start, self.ids[place])

    def copies(self, row: Ints, copy: Ints) -> Blocks:
        """The blocks of some rows, with ids that only rows of the same copy have: other users, who share nothing.

        >>> Blocks(np.array([0, 2, 3]), np.array([7, 9, 7])).copies(np.array([0, 1, 1]), np.array([0, 0, 1])).ids
        array([0, 1, 0, 2])
        """
        known, number = np.unique(self.ids, return_inverse=True)
        start, ids = Blocks(self.start, number).take(row)
        return Blocks(start, ids + np.repeat(copy, np.diff(start)) * len(known))


class Rows(NamedTuple):
    """Requests of one class within the horizon, in any order.

    ``parent`` is the row of the request whose answer this one waited for (-1: none) and
    ``think_s`` the pause after that answer [s]; None where a source does not say.
    """

    arrival_s: Floats
    input_tokens: Int32s
    cached_tokens: Int32s
    output_tokens: Int32s
    session: Int32s
    parent: Int32s | None = None
    think_s: npt.NDArray[np.float32] | None = None
    blocks: Blocks | None = None
    """None where a source does not know them."""

    @property
    def sessions(self) -> int:
        """One more than the highest session number; 0 without sessions."""
        return int(self.session.max()) + 1 if len(self.session) else 0


class Source(Protocol):
    """Where the requests of a class come from."""

    @property
    def rate_per_s(self) -> float:
        """Mean rate [1/s]."""

    @property
    def once_s(self) -> float:
        """Horizon in which a recorded trace is offered once [s]; 0 where nothing is replayed."""

    @property
    def dispersion(self) -> float:
        """Rough standard deviation of the count over the root of the count."""

    @property
    def repairs(self) -> dict[str, int]:
        """What was repaired while reading."""

    def rows(self, horizon_s: float, seed: int) -> Rows:
        """Requests that arrive in [0, horizon); ``rate_per_s`` times horizon in expectation."""


def joined(parts: Sequence[Rows]) -> Rows:
    """Rows of several sources one after the other; sessions and parents are numbered on."""
    sessions, parents, thinks, after, first = [], [], [], 0, 0
    for part in parts:
        n = len(part.arrival_s)
        sessions.append(np.where(part.session >= 0, part.session + np.int32(after), np.int32(-1)).astype(np.int32))
        after += part.sessions
        parent = np.full(n, -1, np.int32) if part.parent is None else part.parent
        parents.append(np.where(parent >= 0, parent + np.int32(first), np.int32(-1)).astype(np.int32))
        thinks.append(np.zeros(n, np.float32) if part.think_s is None else part.think_s)
        first += n

    def column(values: list[npt.NDArray[T]]) -> npt.NDArray[T]:
        return np.concatenate(values)

    return Rows(
        column([part.arrival_s for part in parts]),
        column([part.input_tokens for part in parts]),
        column([part.cached_tokens for part in parts]),
        column([part.output_tokens for part in parts]),
        column(sessions),
        column(parents),
        column(thinks),
        _joined_blocks(parts),
    )


def _joined_blocks(parts: Sequence[Rows]) -> Blocks | None:
    """Blocks of all sources, ids numbered on from one to the next; None unless every source that has rows knows them.

    A table with ids takes what is shared from them alone, so half of them would be worse than none.
    """
    starts, ids, after, ends = [np.zeros(1, np.int64)], [], 0, 0
    for part in parts:
        if not len(part.arrival_s):
            continue
        if part.blocks is None:
            return None
        starts.append(part.blocks.start[1:] + ends)
        ids.append(part.blocks.ids + after)
        ends += len(part.blocks.ids)
        after += int(part.blocks.ids.max(initial=-1)) + 1
    return Blocks(np.concatenate(starts), np.concatenate(ids)) if ids else None


def without_parents(n: int) -> Int32s:
    """The session or parent column of requests that have none."""
    return np.full(n, -1, np.int32)


def in_order(parent: Int32s, order: Ints) -> Int32s:
    """Parents as rows of the reordered table; ``order[i]`` is the old row of the new row i.

    >>> in_order(np.array([-1, 2, 0], np.int32), np.array([0, 2, 1])).tolist()
    [-1, 0, 1]
    """
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order), dtype=np.int32)
    old = parent[order]
    return np.where(old >= 0, place[old], np.int32(-1)).astype(np.int32)

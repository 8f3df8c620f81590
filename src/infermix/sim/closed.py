"""Requests that wait for the answer to another one, and the heap of those whose time has been told.

A parent names its first child and each child its next sibling. When the parent's last token is out, or it
was refused, its children go into the heap, ordered by arrival and then by row.
"""

from __future__ import annotations

from typing import Any

from infermix.jit import inline, kernel
from infermix.sim.state import NONE, OPEN, WAITING


@kernel
def release_children(state: Any, i: int, end_s: float) -> None:
    """The children of request i arrive each their pause after ``end_s``."""
    child = state.requests[i].child
    while child != NONE:
        state.requests[child].arrival_s = end_s + state.requests[child].think_s
        _push(state, child)
        child = state.requests[child].sibling


@inline
def next_arrival(state: Any) -> int:
    """Row of the request that arrives next; -1 if none is known. Of equal times the lower row comes first."""
    n = len(state.requests)
    row = state.counts[OPEN]
    while row < n and state.requests[row].parent != NONE:
        row += 1
    state.counts[OPEN] = row
    if state.counts[WAITING] == 0:
        return row if row < n else NONE
    top: int = state.heap[0]
    return row if row < n and _before(state, row, top) else top


@inline
def take(state: Any, i: int) -> None:
    """Request i, the next to arrive, arrives."""
    if state.requests[i].parent == NONE:
        state.counts[OPEN] = i + 1
    else:
        _pop(state)


@inline
def _before(state: Any, a: int, b: int) -> bool:
    first, second = state.requests[a].arrival_s, state.requests[b].arrival_s
    return bool(first < second or (first == second and a < b))


@kernel
def _push(state: Any, i: int) -> None:
    place = state.counts[WAITING]
    state.counts[WAITING] += 1
    while place > 0:
        above = (place - 1) // 2
        if not _before(state, i, state.heap[above]):
            break
        state.heap[place] = state.heap[above]
        place = above
    state.heap[place] = i


@kernel
def _pop(state: Any) -> None:
    state.counts[WAITING] -= 1
    size = state.counts[WAITING]
    last, place = state.heap[size], 0
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and _before(state, state.heap[below + 1], state.heap[below]):
            below += 1
        if not _before(state, state.heap[below], last):
            break
        state.heap[place] = state.heap[below]
        place = below
    state.heap[place] = last

"""What is due at a time of its own: requests that wait for an answer, move between instances, or come again.

A parent names its first child and each child its next sibling. When the parent's last token is out, or it
was refused, its children become due, ordered by time and then by row.
"""

from __future__ import annotations

from typing import Any

from infermix.jit import inline, part
from infermix.sim.state import ARRIVES, NONE


@inline
def release_children(state: Any, i: int, end_s: float) -> None:
    """The children of request i arrive each their pause after ``end_s``."""
    _release_children(state.requests, state.extras, state.due, state.clock, i, end_s)


@part
def _release_children(requests: Any, extras: Any, due: Any, clock: Any, i: int, end_s: float) -> None:
    child = extras[i & clock[0].wide].child
    while child != NONE:
        due_s = end_s + extras[child].think_s
        requests[child].arrival_s = due_s
        _push(extras, due, clock, child, due_s, ARRIVES)
        child = extras[child].sibling


@inline
def next_due(state: Any) -> int:
    """Row of the request to which something happens next; -1 if none is known. Of equal times the lower row."""
    clock = state.clock[0]
    n = len(state.requests)
    row: int = clock.arrivals
    if clock.wide != 0:
        while row < n and state.extras[row].parent != NONE:
            row += 1
        clock.arrivals = row
    if clock.due == 0:
        return row if row < n else NONE
    top: int = state.due[0]
    if row < n:
        open_s, top_s = state.requests[row].arrival_s, state.extras[top].due_s
        if open_s < top_s or (open_s == top_s and row < top):
            return row
    return top


@inline
def due_s_of(state: Any, i: int) -> float:
    """When that is [s]."""
    if i == state.clock[0].arrivals:
        return float(state.requests[i].arrival_s)
    return float(state.extras[i & state.clock[0].wide].due_s)


@inline
def take(state: Any, i: int) -> int:
    """It happens now; returns what it is."""
    if i == state.clock[0].arrivals:
        state.clock[0].arrivals = i + 1
        return ARRIVES
    _pop(state.extras, state.due, state.clock)
    stage: int = state.extras[i].stage
    return stage


@inline
def push(state: Any, i: int, due_s: float, stage: int) -> None:
    """Something happens to request i at ``due_s``."""
    _push(state.extras, state.due, state.clock, i, due_s, stage)


@inline
def _before(extras: Any, a: int, b: int) -> bool:
    first, second = extras[a].due_s, extras[b].due_s
    return bool(first < second or (first == second and a < b))


@part
def _push(extras: Any, due: Any, clock: Any, i: int, due_s: float, stage: int) -> None:
    extras[i].due_s = due_s
    extras[i].stage = stage
    place = clock[0].due
    clock[0].due += 1
    while place > 0:
        above = (place - 1) // 2
        if not _before(extras, i, due[above]):
            break
        due[place] = due[above]
        place = above
    due[place] = i


@part
def _pop(extras: Any, due: Any, clock: Any) -> None:
    clock[0].due -= 1
    size = clock[0].due
    last, place = due[size], 0
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and _before(extras, due[below + 1], due[below]):
            below += 1
        if not _before(extras, due[below], last):
            break
        due[place] = due[below]
        place = below
    due[place] = last

"""The waiting queues of an instance: one for each priority, first in first out, the most urgent first."""

from __future__ import annotations

from typing import Any

from infermix.jit import small
from infermix.sim.state import NONE


@small
def append(state: Any, j: int, i: int) -> bool:
    """Request i joins the end of its queue; whether it is now the first of all."""
    level = state.requests[i].level
    queue = state.queues[j, level]
    state.requests[i].behind = NONE
    first = queue[0] == NONE
    if first:
        queue[0] = i
        for above in range(level):
            first = first and state.queues[j, above, 0] == NONE
    else:
        state.requests[queue[1]].behind = i
    queue[1] = i
    state.instances[j].waiting += 1
    return bool(first)


@small
def put_first(state: Any, j: int, i: int) -> None:
    """Request i goes before all of its priority."""
    queue = state.queues[j, state.requests[i].level]
    state.requests[i].behind = queue[0]
    if queue[0] == NONE:
        queue[1] = i
    queue[0] = i
    state.instances[j].waiting += 1


@small
def head_of(state: Any, j: int) -> int:
    """The first of all that wait; -1: nobody."""
    for level in range(state.queues.shape[1]):
        head: int = state.queues[j, level, 0]
        if head != NONE:
            return head
    return NONE


@small
def drop_head(state: Any, j: int, i: int) -> None:
    """Request i, the first of all, leaves the queues."""
    queue = state.queues[j, state.requests[i].level]
    queue[0] = state.requests[i].behind
    if queue[0] == NONE:
        queue[1] = NONE
    state.instances[j].waiting -= 1

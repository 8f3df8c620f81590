"""A binary heap of slots per instance, keyed by the iteration at which each sequence ends, then by admission."""

from __future__ import annotations

from typing import Any

from infermix.jit import small


@small
def _sooner(slots: Any, one: int, other: int) -> bool:
    """Whether one slot ends before another, or with it and was admitted before it."""
    if slots[one].end != slots[other].end:
        return bool(slots[one].end < slots[other].end)
    return bool(slots[one].turn < slots[other].turn)


@small
def push(slots: Any, instance: Any, slot: int) -> None:
    """Add a slot; its ``end`` is set."""
    place = instance.heap_size
    instance.heap_size += 1
    _rise(slots, place, slot)


@small
def remove(slots: Any, instance: Any, slot: int) -> None:
    """Take a slot out, wherever it stands."""
    place = slots[slot].heap_place
    instance.heap_size -= 1
    last = instance.heap_size
    if place == last:
        return
    moved = slots[last].heap
    if place > 0 and _sooner(slots, moved, slots[(place - 1) // 2].heap):
        _rise(slots, place, moved)
    else:
        _sink(slots, last, place, moved)


@small
def _rise(slots: Any, place: int, slot: int) -> None:
    while place > 0:
        above = (place - 1) // 2
        other = slots[above].heap
        if not _sooner(slots, slot, other):
            break
        slots[place].heap = other
        slots[other].heap_place = place
        place = above
    slots[place].heap = slot
    slots[slot].heap_place = place


@small
def _sink(slots: Any, size: int, place: int, slot: int) -> None:
    while True:
        below = 2 * place + 1
        if below >= size:
            break
        if below + 1 < size and _sooner(slots, slots[below + 1].heap, slots[below].heap):
            below += 1
        other = slots[below].heap
        if not _sooner(slots, other, slot):
            break
        slots[place].heap = other
        slots[other].heap_place = place
        place = below
    slots[place].heap = slot
    slots[slot].heap_place = place

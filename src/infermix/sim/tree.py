"""Which instance is next: a tournament over ``next_s``, so that a change costs as many games as the fleet has halves.

At equal times steps that end come before those that start, and lower numbers first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.jit import inline, kernel
from infermix.sim.state import IDLE


@inline
def before(state: Any, a: int, b: int) -> bool:
    """Whether what instance a does next comes before what instance b does; a is the lower number."""
    if state.next_s[a] != state.next_s[b]:
        return bool(state.next_s[a] < state.next_s[b])
    if state.next_s[a] == np.inf:
        return True
    return bool(state.instances[a].doing != IDLE or state.instances[b].doing == IDLE)


@kernel
def replay(state: Any, j: int) -> None:
    """Instance j has changed: its games are played again."""
    place = (len(state.next_s) + j) >> 1
    while place >= 1:
        first, second = state.tree[2 * place], state.tree[2 * place + 1]
        state.tree[place] = first if before(state, first, second) else second
        place >>= 1


def first_tree(leaves: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """The tree of instances that have nothing to do; ``leaves`` is a power of two."""
    tree = np.zeros(2 * leaves, dtype=np.int32)
    tree[leaves:] = np.arange(leaves)
    for place in range(leaves - 1, 0, -1):
        tree[place] = tree[2 * place]
    return tree

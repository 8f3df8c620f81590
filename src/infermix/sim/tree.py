"""Which instance is next: a tournament over ``next_s``, so that a change costs as many games as the fleet has halves.

At equal times steps that end come before those that start, and lower numbers first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.jit import ordered, part, small
from infermix.sim.state import IDLE

_NEVER = int(np.array(np.inf).view(np.int64))


@part
def _replay(tree: Any, next_s: Any, instances: Any, j: int) -> None:
    place, winner, winner_s = len(next_s) + j, j, ordered(next_s[j])
    while place > 1:
        other = int(tree[place ^ 1])
        other_s = ordered(next_s[other])
        if other_s == winner_s:
            winner = winner if winner_s == _NEVER else _first_of_tied(instances, winner, other)
        else:
            winner = other if other_s < winner_s else winner
            winner_s = min(winner_s, other_s)
        place >>= 1
        tree[place] = winner


@small
def _first_of_tied(instances: Any, one: int, other: int) -> int:
    """Which of two instances with equal times comes first."""
    ends, other_ends = instances[one].doing != IDLE, instances[other].doing != IDLE
    if ends == other_ends:
        return min(one, other)
    return one if ends else other


@small
def replay(state: Any, j: int) -> None:
    """Instance j has changed: its games are played again."""
    _replay(state.tree, state.next_s, state.instances, j)


def first_tree(leaves: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """The tree of instances that have nothing to do; ``leaves`` is a power of two."""
    tree = np.zeros(2 * leaves, dtype=np.int32)
    tree[leaves:] = np.arange(leaves)
    for place in range(leaves - 1, 0, -1):
        tree[place] = tree[2 * place]
    return tree

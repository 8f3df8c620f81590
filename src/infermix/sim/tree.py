"""Which instance is next: a tournament over ``next_s``, so that a change costs as many games as the fleet has halves.

At equal times steps that end come before those that start, and lower numbers first.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.jit import part, small
from infermix.sim.state import IDLE


@part
def _replay(tree: Any, next_s: Any, instances: Any, j: int) -> None:
    place, winner, winner_s = len(next_s) + j, j, next_s[j]
    while place > 1:
        other = int(tree[place ^ 1])
        other_s = next_s[other]
        wins = other_s < winner_s
        if other_s == winner_s and other_s < np.inf:
            wins = _wins_tie(instances, other, winner)
        winner = other if wins else winner
        winner_s = other_s if wins else winner_s
        place >>= 1
        tree[place] = winner


@small
def _wins_tie(instances: Any, one: int, other: int) -> bool:
    """Whether the first of two instances with equal times comes first."""
    ends, other_ends = instances[one].doing != IDLE, instances[other].doing != IDLE
    return bool(one < other if ends == other_ends else ends)


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

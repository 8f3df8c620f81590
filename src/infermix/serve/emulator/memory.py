"""KV blocks of one emulated instance with a prefix cache, and the tiers below, as ``docs/design/simulator.md`` has it.

A block has a key: equal beginnings, equal keys. Python's dictionaries keep the order in which keys were put, so the
first key of ``loose`` is the block that was released longest ago.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile

Key = Hashable


@dataclass
class Memory:
    """The KV blocks of an instance: taken by sequences, cached, or empty."""

    blocks: int
    retention_s: float = math.inf
    taken: int = 0
    claims: Counter[Key] = field(default_factory=Counter)
    """Key → sequences of the batch that have it in their path."""
    held: set[Key] = field(default_factory=set)
    """Cached blocks that a sequence of the batch claims."""
    loose: dict[Key, float] = field(default_factory=dict)
    """Cached blocks that nobody claims, and when each was released [s]: they give way, the first one first."""

    @property
    def free(self) -> int:
        """Blocks that can be taken: empty ones, and cached ones that nobody claims."""
        return self.blocks - self.taken - len(self.held)


def take(memory: Memory, count: int) -> None:
    """Empty blocks first, then cached ones, the one released longest ago first."""
    memory.taken += count
    too_many = memory.taken + len(memory.held) + len(memory.loose) - memory.blocks
    for _ in range(too_many):
        del memory.loose[next(iter(memory.loose))]


def is_fresh(memory: Memory, key: Key, now_s: float) -> bool:
    """Whether a block is cached and, where nobody claims it, not too old."""
    return key in memory.held or (key in memory.loose and now_s - memory.loose[key] <= memory.retention_s)


def leading(memory: Memory, keys: Sequence[Key], now_s: float) -> int:
    """How many of the keys, from the first, are found."""
    return sum(1 for _ in takewhile(lambda key: is_fresh(memory, key, now_s), keys))


def newly_claimed(memory: Memory, keys: Iterable[Key], now_s: float) -> int:
    """Free blocks that claiming these keys would take away."""
    return sum(key in memory.loose and now_s - memory.loose[key] <= memory.retention_s for key in keys)


def claim(memory: Memory, keys: Iterable[Key], now_s: float) -> None:
    """A sequence with this path joins the batch; what it would have found, but is too old, is dropped."""
    for key in keys:
        released_s = memory.loose.pop(key, None)
        if released_s is not None and now_s - released_s <= memory.retention_s:
            memory.held.add(key)
    memory.claims.update(keys)


def keep(memory: Memory, key: Key) -> None:
    """A block of a sequence that claims the key becomes a cached one; a second copy is given back."""
    memory.taken -= 1
    if key not in memory.loose:
        memory.held.add(key)


def let_go(memory: Memory, claimed: Sequence[Key], unclaimed: Sequence[Key], now_s: float) -> None:
    """A sequence leaves the batch: of its path, what is cached and nobody claims any more is released, deepest first.

    ``unclaimed`` are blocks of its own, deeper than its claims, that nobody will ask for.
    """
    memory.claims.subtract(claimed)
    for key in (*unclaimed, *reversed(claimed)):
        if memory.claims[key] > 0:
            continue
        del memory.claims[key]
        if key in memory.held or key in memory.loose:
            memory.held.discard(key)
            memory.loose.pop(key, None)
            memory.loose[key] = now_s


@dataclass
class Tier:
    """Blocks outside of the KV memory, and when each was released [s]; nobody claims them."""

    blocks: int
    load_s: float = 0.0
    """For each token."""
    latency_s: float = 0.0
    retention_s: float = math.inf
    loose: dict[Key, float] = field(default_factory=dict)


def copy_to(tier: Tier, copies: Sequence[Key], path: Sequence[Key], now_s: float) -> None:
    """Take copies; they and what else of the path is here count as released now, the deepest first."""
    if tier.blocks == 0:
        return
    copied, along = set(copies), set(path)
    for key in (*(key for key in copies if key not in along), *reversed(path)):
        if key in copied or key in tier.loose:
            tier.loose.pop(key, None)
            tier.loose[key] = now_s
    for _ in range(len(tier.loose) - tier.blocks):
        del tier.loose[next(iter(tier.loose))]


def leading_in(tier: Tier, keys: Sequence[Key], now_s: float) -> int:
    """How many of the keys, from the first, the tier has."""
    held = tier.loose
    return sum(1 for _ in takewhile(lambda key: key in held and now_s - held[key] <= tier.retention_s, keys))

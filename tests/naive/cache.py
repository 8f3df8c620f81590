"""KV blocks of an instance with a prefix cache, and the tiers below: every block by its key, every release numbered."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

Key = tuple[str, int]
"""("shared", node of a path), or ("own", serial): a block that nobody will ask for."""

_serials = itertools.count()


def unique_key() -> Key:
    """A key that nobody else has."""
    return "own", next(_serials)


@dataclass
class Release:
    """When a block was last let go: its number in the order of all releases, and its time."""

    number: int
    time_s: float


@dataclass
class Tier:
    """Blocks outside of the KV memory; nothing in it is protected."""

    blocks: int
    retention_s: float
    held: dict[Key, Release] = field(default_factory=dict)
    releases: int = 0

    def put(self, copies: list[Key], path: list[Key], now_s: float) -> None:
        """Take copies; they and what else of the path is here are the youngest, the first key released first.

        Then the oldest give way.
        """
        if self.blocks == 0:
            return
        for key in [*(key for key in copies if key not in path), *reversed(path)]:
            if key in copies or key in self.held:
                self.releases += 1
                self.held[key] = Release(self.releases, now_s)
        while len(self.held) > self.blocks:
            del self.held[min(self.held, key=lambda one: self.held[one].number)]

    def leading(self, keys: list[Key], now_s: float) -> int:
        """How many of the keys, from the first, are found."""
        return len(list(itertools.takewhile(lambda key: self.found(key, now_s), keys)))

    def found(self, key: Key, now_s: float) -> bool:
        return key in self.held and now_s - self.held[key].time_s <= self.retention_s

    def clear(self) -> None:
        self.held.clear()


@dataclass
class Memory:
    """The KV blocks of one instance: taken by sequences, cached, or empty."""

    blocks: int
    retention_s: float
    taken: int = 0
    cached: dict[Key, Release | None] = field(default_factory=dict)
    """None: protected ever since it was cached."""
    claims: dict[int, list[Key]] = field(default_factory=dict)
    """Row of a request that is in the batch: the keys that it protects."""
    releases: int = 0

    def protected(self, key: Key) -> bool:
        return any(key in keys for keys in self.claims.values())

    def free(self) -> int:
        """Blocks that can be taken: empty ones, and cached ones that are not protected."""
        if not self.cached:
            return self.blocks - self.taken
        return self.blocks - self.taken - sum(self.protected(key) for key in self.cached)

    def take(self, count: int) -> None:
        """Empty blocks first, then the cached one that was released longest ago."""
        for _ in range(count):
            if self.taken + len(self.cached) == self.blocks:
                ages = {
                    key: release.number
                    for key, release in self.cached.items()
                    if release is not None and not self.protected(key)
                }
                del self.cached[min(ages, key=lambda key: ages[key])]
            self.taken += 1

    def give_back(self, count: int) -> None:
        self.taken -= count
        assert self.taken >= 0

    def keep(self, key: Key) -> None:
        """A block of a sequence becomes a cached one; a second copy is given back."""
        self.give_back(1)
        self.cached.setdefault(key, None)

    def release(self, keys: list[Key], now_s: float) -> None:
        """Of these keys, those cached and not protected count as released now, the first key first."""
        for key in keys:
            if key in self.cached and not self.protected(key):
                self.releases += 1
                self.cached[key] = Release(self.releases, now_s)

    def forget(self, keys: list[Key], now_s: float) -> None:
        """Of these keys, those not protected and released too long ago are dropped."""
        for key in keys:
            release = self.cached.get(key)
            if release is not None and not self.protected(key) and now_s - release.time_s > self.retention_s:
                del self.cached[key]

    def fresh(self, key: Key, now_s: float) -> bool:
        """Whether the key is cached, and protected or not too old."""
        release = self.cached.get(key)
        young = release is None or self.protected(key) or now_s - release.time_s <= self.retention_s
        return key in self.cached and young

    def leading(self, keys: list[Key], now_s: float) -> int:
        """How many of the keys, from the first, are cached and not too old."""
        return len(list(itertools.takewhile(lambda key: self.fresh(key, now_s), keys)))

    def clear(self) -> None:
        self.taken = 0
        self.cached.clear()
        self.claims.clear()

    def check(self) -> None:
        assert self.taken >= 0
        assert self.taken + len(self.cached) <= self.blocks
        assert all(release is not None or self.protected(key) for key, release in self.cached.items())

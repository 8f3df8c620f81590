"""The prefix cache by segments against the one block by block, after every step of a random life."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix import jit
from infermix.sim import cache as compiled
from infermix.sim.cache import StoreSpec, entries_needed, free_entries, grow, make_cache
from infermix.sim.paths import paths_of
from infermix.workload.requests import Requests
from tests.naive import paths as naive
from tests.naive.cache import Key, Memory, Tier, unique_key
from tests.naive.tables import KINDS, random_requests
from tests.nightly import examples

clear = jit.outermost(compiled.clear)
copy_down = jit.outermost(compiled.copy_down)
found_blocks = jit.outermost(compiled.found_blocks)
join = jit.outermost(compiled.join)
make_room = jit.outermost(compiled.make_room)
protect = jit.outermost(compiled.protect)
release = jit.outermost(compiled.release)
unprotected_blocks = jit.outermost(compiled.unprotected_blocks)

NONE = -1
INSTANCES = 2


@dataclass
class Running:
    """A request in a batch. ``matched`` of its blocks are the cache's, ``own`` its own."""

    row: int
    instance: int
    prompt: int
    position: int
    matched: int
    own: int
    reading: bool = True


@dataclass
class Twins:
    """The instances of a pool and their host tiers, twice."""

    requests: Requests
    block_tokens: int
    blocks: int
    host_blocks: int
    retention_s: float
    now_s: float = 0.0
    running: list[Running] = field(default_factory=list)
    home: dict[int, int] = field(default_factory=dict)
    """Row to the instance that it is on, running or preempted."""
    ended: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.tree, walks = paths_of(self.requests), naive.paths_of(self.requests)
        self.shared = [walk.shared for walk in walks]
        self.keys: list[list[Key]] = [[("shared", node) for node in walk.keys(self.block_tokens)] for walk in walks]
        self.generated = [0] * len(self.requests)
        self.memory = [Memory(self.blocks, self.retention_s) for _ in range(INSTANCES)]
        self.host = [Tier(self.host_blocks, self.retention_s) for _ in range(INSTANCES)]
        own = StoreSpec(self.blocks, self.block_tokens, self.retention_s)
        host = StoreSpec(self.host_blocks, self.block_tokens, self.retention_s)
        self.cache = make_cache(self.tree, [own] * INSTANCES + [host] * INSTANCES, 0)
        self.free = [self.blocks] * INSTANCES
        self.key_of = {place: key for row in range(len(self.requests)) for place, key in self._places(row)}

    def _places(self, row: int) -> list[tuple[tuple[int, int], Key]]:
        """Where the keys of a path are in the tree: (segment, number of the block in the path)."""
        found, rows, at = [], self.tree.segments, int(self.tree.segment[row])
        for b, key in reversed(list(enumerate(self.keys[row]))):
            while rows["from_tokens"][at] >= (b + 1) * self.block_tokens:
                at = int(rows["parent"][at])
            found.append(((at, b), key))
        return found

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def tokens_left(self, seq: Running) -> int:
        return int(self.requests.output_tokens[seq.row]) - self.generated[seq.row]

    # -- what happens ----------------------------------------------------------------------

    def make_room_for_entries(self) -> None:
        missing = entries_needed(self.tree, 1, 2) - free_entries(self.cache)
        if missing > 0:
            self.cache = grow(self.cache, missing)

    def admit(self, row: int, j: int) -> bool:
        memory, segment = deepcopy(self.memory[j]), int(self.tree.segment[row])
        prompt = int(self.requests.input_tokens[row]) + self.generated[row]
        tokens = min(prompt, self.shared[row])
        keys = self.keys[row][: tokens // self.block_tokens]
        memory.forget(self.keys[row], self.now_s)
        here = len(list(takewhile(lambda key: key in memory.cached, keys)))
        assert found_blocks(self.cache, j, segment, tokens, self.now_s) == here
        there = self.host[j].leading(keys, self.now_s)
        assert found_blocks(self.cache, INSTANCES + j, segment, tokens, self.now_s) == there
        newly = sum(key in memory.cached and not memory.protected(key) for key in self.keys[row])
        assert unprotected_blocks(self.cache, j, segment, self.now_s) == newly
        need = self.blocks_for(prompt) - here
        if need > memory.free() - newly:
            return False
        memory.claims[row] = self.keys[row]
        memory.take(need)
        self.memory[j] = memory
        assert protect(self.cache, j, segment, self.now_s) == newly
        self.free[j] -= newly + need
        make_room(self.cache, j, self.free[j])
        self.home[row] = j
        self.running.append(Running(row, j, prompt, min(here * self.block_tokens, prompt - 1), here, need))
        return True

    def end_prompt(self, seq: Running) -> None:
        tokens = min(seq.prompt, self.shared[seq.row])
        seq.position, seq.reading = seq.prompt, False
        self._keep(seq, tokens)
        new = join(self.cache, seq.instance, int(self.tree.segment[seq.row]), tokens)
        gone = tokens // self.block_tokens - seq.matched
        self.free[seq.instance] += gone - new
        seq.matched, seq.own = seq.matched + gone, seq.own - gone
        self.generated[seq.row] += 1

    def _keep(self, seq: Running, tokens: int) -> None:
        for key in self.keys[seq.row][seq.matched : tokens // self.block_tokens]:
            self.memory[seq.instance].keep(key)

    def decode(self, seq: Running, tokens: int) -> bool:
        """Yield so many tokens; False where there is no block for them."""
        held = self.blocks_for(int(self.requests.input_tokens[seq.row]) + self.generated[seq.row] + tokens - 1)
        need = max(held - seq.matched - seq.own, 0)
        if need > self.free[seq.instance]:
            return False
        self.memory[seq.instance].take(need)
        self.free[seq.instance] -= need
        make_room(self.cache, seq.instance, self.free[seq.instance])
        seq.own += need
        self.generated[seq.row] += tokens
        return True

    def leave(self, seq: Running, *, finished: bool) -> None:
        """Preempted or finished."""
        row, j, segment = seq.row, seq.instance, int(self.tree.segment[seq.row])
        memory = self.memory[j]
        tokens = seq.position if seq.reading else int(self.requests.input_tokens[row]) + self.generated[row] - 1
        full, shared = tokens // self.block_tokens, min(tokens, self.shared[row])
        ours = self.keys[row][: shared // self.block_tokens]
        unshared = [unique_key() for _ in range(full - len(ours))] if finished else []
        self._keep(seq, shared)
        for key in unshared:
            memory.keep(key)
        memory.give_back(seq.own - max(len(ours) - seq.matched, 0) - len(unshared))
        del memory.claims[row]
        memory.release([*unshared, *reversed(self.keys[row])], self.now_s)

        self.free[j] += seq.own - join(self.cache, j, segment, shared)
        self.free[j] += release(self.cache, j, segment, len(unshared), self.now_s)
        self.running.remove(seq)
        if finished:
            self.ended.add(row)
            self.host[j].put([*(unique_key() for _ in unshared), *ours], self.keys[row], self.now_s)
            copy_down(self.cache, INSTANCES + j, segment, shared, len(unshared), self.now_s)

    def fail(self, j: int) -> None:
        for seq in [seq for seq in self.running if seq.instance == j]:
            release(self.cache, j, int(self.tree.segment[seq.row]), 0, self.now_s)
            self.running.remove(seq)
        for row in [row for row, home in self.home.items() if home == j]:
            del self.home[row]
            self.generated[row] *= row % 2  # some begin anew, some keep their tokens
        clear(self.cache, j)
        clear(self.cache, INSTANCES + j)
        self.memory[j].clear()
        self.host[j].clear()
        self.free[j] = self.blocks

    # -- what must hold --------------------------------------------------------------------

    def check(self) -> None:
        for j, memory in enumerate(self.memory):
            memory.check()
            store = self.cache.stores[j]
            assert self.free[j] == memory.free()
            assert store["protected"] == sum(memory.protected(key) for key in memory.cached)
            held = {key: (0 if one is None else one.number) for key, one in memory.cached.items()}
            loose = {key: number for key, number in held.items() if not memory.protected(key)}
            self._check_store(j, held, loose)
            tier = {key: one.number for key, one in self.host[j].held.items()}
            self._check_store(INSTANCES + j, tier, tier)
        used = sum(len(chain) for chain in self._entries().values())
        assert used + free_entries(self.cache) == len(self.cache.entries)

    def _entries(self) -> dict[int, list[int]]:
        """Of each store the entries: those in the hash table, and garbage."""
        found: dict[int, list[int]] = {k: [] for k in range(2 * INSTANCES)}
        for first in self.cache.buckets.tolist():
            e = first
            while e != NONE:
                found[int(self.cache.entries["store"][e])].append(e)
                e = int(self.cache.entries["chain"][e])
        for k, entries in found.items():
            entries += [e for e in self._list(k) if self.cache.entries["segment"][e] == NONE]
        return found

    def _list(self, k: int) -> list[int]:
        """The entries without pins of a store, the one released longest ago first."""
        found, before, e = [], NONE, int(self.cache.stores["head"][k])
        while e != NONE:
            assert self.cache.entries["previous"][e] == before
            found.append(e)
            before, e = e, int(self.cache.entries["next"][e])
        assert self.cache.stores["tail"][k] == before
        return found

    def _blocks(self, e: int) -> list[Key | None]:
        """The blocks of an entry, the one that gives way first first."""
        entry: Any = self.cache.entries[e]
        if entry["segment"] == NONE:
            return [None] * int(entry["have"])
        first = int(self.tree.segments["from_tokens"][entry["segment"]]) // self.block_tokens
        return [self.key_of[int(entry["segment"]), first + b] for b in reversed(range(int(entry["have"])))]

    def _check_store(self, k: int, held: dict[Key, int], loose: dict[Key, int]) -> None:
        entries = self._entries()[k]
        blocks = [key for e in entries for key in self._blocks(e)]
        assert sorted(filter(None, blocks)) == sorted(key for key in held if key[0] == "shared")
        assert len(blocks) == len(held) == self.cache.stores["resident"][k]
        order = [key if key[0] == "shared" else None for key in sorted(loose, key=lambda key: loose[key])]
        assert [key for e in self._list(k) for key in self._blocks(e)] == order
        self._check_ancestors(k, entries)

    def _check_ancestors(self, k: int, entries: list[int]) -> None:
        """What is before a block that can be found is there."""
        rows = self.cache.entries
        have = {int(rows["segment"][e]): int(rows["have"][e]) for e in entries}
        for e in entries:
            fresh = rows["pins"][e] > 0 or self.now_s - rows["released_s"][e] <= self.retention_s
            at = int(rows["segment"][e])
            if at == NONE or not rows["have"][e] or not fresh:
                continue
            while (at := int(self.tree.segments["parent"][at])) != NONE:
                part = self.tree.segments[at]
                full = part["to_tokens"] // self.block_tokens - part["from_tokens"] // self.block_tokens
                assert have.get(at, 0) == full


def live(random: np.random.Generator, twins: Twins, steps: int) -> None:
    """Random things happen in an order that a fleet allows: a child comes after its parent has ended."""
    requests, n = twins.requests, len(twins.requests)
    for _ in range(steps):
        twins.now_s += float(random.exponential()) * int(random.integers(0, 2))
        twins.make_room_for_entries()
        at_work = {seq.row for seq in twins.running}
        ready = [
            row
            for row in range(n)
            if row not in at_work | twins.ended
            and (requests.parent[row] < 0 or int(requests.parent[row]) in twins.ended)
        ]
        what = random.random()
        if what < 0.03:
            twins.fail(int(random.integers(INSTANCES)))
        elif ready and (what < 0.35 or not twins.running):
            row = int(random.choice(ready))
            twins.admit(row, twins.home.get(row, int(random.integers(INSTANCES))))
        elif twins.running:
            seq = twins.running[int(random.integers(len(twins.running)))]
            _go_on(random, twins, seq)
        twins.check()
        if len(twins.ended) == n:
            break


def _go_on(random: np.random.Generator, twins: Twins, seq: Running) -> None:
    if random.random() < 0.15:
        return twins.leave(seq, finished=False)
    if seq.reading and random.random() < 0.3:
        seq.position = int(random.integers(seq.position, seq.prompt))
        return None
    if seq.reading:
        twins.end_prompt(seq)
    elif not twins.decode(seq, int(random.integers(1, twins.tokens_left(seq) + 1))):
        return twins.leave(seq, finished=False)
    return twins.leave(seq, finished=True) if twins.tokens_left(seq) == 0 else None


def random_twins(random: np.random.Generator, n: int, kind: str) -> Twins:
    requests = random_requests(random, n, kind)
    block_tokens = int(random.integers(1, 6))
    longest = int((requests.input_tokens + requests.output_tokens).max())
    most = -(-longest // block_tokens) + 1
    blocks, host = int(random.integers(most, 3 * most)), int(random.integers(0, 3 * most))
    return Twins(requests, block_tokens, blocks, host, float(random.choice([np.inf, 8.0, 2.0])))


@pytest.mark.uncompiled_s(20)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(60), deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 20))
def test_a_random_life_leaves_the_same_blocks_in_the_same_order(kind: str, seed: int, n: int) -> None:
    random = np.random.default_rng(seed)
    live(random, random_twins(random, n, kind), 12 * n)

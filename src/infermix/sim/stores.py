"""The KV memories of a fleet as stores of the prefix cache: HBM and host tier of instances, remote tier of pools."""

from __future__ import annotations

import numpy as np

from infermix.sim.cache import Cache, StoreSpec, free_entries, grow, make_cache
from infermix.sim.paths import SEGMENT, Paths, paths_of
from infermix.sim.state import PoolSpec
from infermix.workload.requests import Requests

STORES_PER_REQUEST = 3
"""A finished request leaves blocks in its instance's memory, in the host tier and in the remote tier."""


def paths_for(requests: Requests, specs: list[PoolSpec]) -> Paths:
    """What the requests share; nothing, where no pool keeps a cache."""
    if any(s.prefix_cache for s in specs):
        return paths_of(requests)
    nothing = np.zeros(len(requests), dtype=np.int32)
    return Paths(np.zeros(0, dtype=SEGMENT), nothing - 1, nothing)


def make_stores(paths: Paths, specs: list[PoolSpec]) -> Cache:
    """Empty stores in the order that ``sim.prefix`` counts on; no stores where no pool keeps a cache."""
    if not any(s.prefix_cache for s in specs):
        return make_cache(paths, [], 0)
    own = [StoreSpec(s.blocks, s.block_tokens, s.retention_s) for s in specs for _ in range(s.instances)]
    host = [StoreSpec(s.host_blocks, s.block_tokens, s.retention_s) for s in specs for _ in range(s.instances)]
    remote = [StoreSpec(s.remote_blocks, s.block_tokens, s.retention_s) for s in specs]
    return make_cache(paths, own + host + remote, 0)


def with_entries(cache: Cache, deepest: int, requests: int) -> Cache:
    """The cache with entries for so many requests more, in flight or to come."""
    missing = requests * STORES_PER_REQUEST * (1 + deepest) - free_entries(cache)
    return grow(cache, max(missing, len(cache.entries) // 2)) if missing > 0 else cache

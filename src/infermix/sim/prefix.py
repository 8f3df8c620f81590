"""What a prefix cache means to a batch: which part of a prompt need not be read, and who pays for blocks.

``free_blocks`` of an instance counts blocks that no sequence has taken and no running sequence protects; cached blocks
that nobody protects are among them, and give way when they must (``sim.cache``).
"""

from __future__ import annotations

from typing import Any

from infermix.jit import inline, part
from infermix.sim import cache
from infermix.sim.state import NONE

REMOTE, HOST, NOWHERE = 2, 1, 0


@inline
def _host_store(state: Any, j: int) -> int:
    return len(state.instances) + j


@inline
def _remote_store(state: Any, j: int) -> int:
    pool: int = state.instances[j].pool
    return 2 * len(state.instances) + pool


@inline
def clear_for_lookup(state: Any, j: int) -> None:
    """Cached blocks that had to give way are gone before anybody looks."""
    cache.make_room(state.cache, j, state.instances[j].free_blocks)


@part
def found_in_cache(state: Any, j: int, i: int, prompt: int) -> int:
    """Leading blocks of a prompt that instance j has."""
    extra = state.extras[i]
    if extra.segment == NONE:
        return 0
    found: int = cache.found_blocks(
        state.cache, j, extra.segment, min(extra.shared, prompt), state.instances[j].start_s
    )
    return found


@part
def would_protect(state: Any, j: int, i: int) -> int:
    """Free blocks that ``protect_path`` would take."""
    segment = state.extras[i].segment
    if segment == NONE:
        return 0
    blocks: int = cache.unprotected_blocks(state.cache, j, segment, state.instances[j].start_s)
    return blocks


@part
def protect_path(state: Any, j: int, i: int) -> int:
    """Shared blocks of request i stay while it runs; returns how many were free."""
    segment = state.extras[i].segment
    if segment == NONE:
        return 0
    blocks: int = cache.protect(state.cache, j, segment, state.instances[j].start_s)
    return blocks


@part
def loaded_from_tiers(state: Any, j: int, i: int, prompt: int, kept: int) -> int:
    """Where reading begins; loads from the tier that saves most, at the cost of ``tier_s``."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    extra = state.extras[i]
    blocks, best_s, cost_s, now_s = kept, 0.0, 0.0, instance.start_s
    if extra.segment != NONE:
        limit = min(extra.shared, prompt)
        for tier in (HOST, REMOTE):
            store = _host_store(state, j) if tier == HOST else _remote_store(state, j)
            capacity = pool.host_blocks if tier == HOST else pool.remote_blocks
            if capacity == 0:
                continue
            found = cache.found_blocks(state.cache, store, extra.segment, limit, now_s)
            if found <= kept:
                continue
            load_s = pool.host_load_s if tier == HOST else pool.remote_load_s
            latency_s = pool.host_latency_s if tier == HOST else pool.remote_latency_s
            tokens = (found - kept) * pool.block_tokens
            net_s = tokens * load_s + latency_s - tokens * pool.prefill_s_per_token
            if net_s < best_s or (net_s == best_s and blocks == kept):
                blocks, best_s = found, net_s
                cost_s = tokens * load_s + latency_s
    if blocks > kept:
        instance.tier_s += cost_s
    position: int = min(blocks * pool.block_tokens, prompt - 1)
    extra.hit = min(kept * pool.block_tokens, prompt - 1)
    extra.loaded = position - extra.hit
    return position


@part
def prompt_joins_cache(state: Any, j: int, slot: int) -> None:
    """The prompt has been read: its shared blocks are the cache's; second copies are given back."""
    instance = state.instances[j]
    row = state.slots[j, slot]
    extra = state.extras[row.request]
    if extra.segment == NONE:
        return
    tokens = min(row.prompt, extra.shared)
    clear_for_lookup(state, j)
    new = cache.join(state.cache, j, extra.segment, tokens)
    blocks = tokens // state.pools[instance.pool].block_tokens
    instance.free_blocks += blocks - row.cached_blocks - new
    row.cached_blocks = blocks


@part
def blocks_given_back(state: Any, j: int, i: int, tokens: int, own: int, finished: bool, now_s: float) -> int:
    """A sequence with ``tokens`` of its path in KV leaves ``own`` blocks of its own; returns how many more are free."""
    extra = state.extras[i]
    block_tokens = state.pools[state.instances[j].pool].block_tokens
    clear_for_lookup(state, j)
    shared = min(tokens, extra.shared)
    given = own
    if extra.segment != NONE:
        given -= cache.join(state.cache, j, extra.segment, shared)
    unshared = 0
    if finished:
        unshared = tokens // block_tokens - (shared // block_tokens if extra.segment != NONE else 0)
    given += cache.release(state.cache, j, extra.segment, unshared, now_s)
    return given


@part
def copy_to_tiers(state: Any, j: int, i: int, tokens: int, now_s: float) -> None:
    """Full blocks of a finished request are in the lower tiers, too."""
    pool = state.pools[state.instances[j].pool]
    extra = state.extras[i]
    shared = min(tokens, extra.shared) if extra.segment != NONE else 0
    unshared = tokens // pool.block_tokens - shared // pool.block_tokens
    if pool.host_blocks > 0:
        cache.copy_down(state.cache, _host_store(state, j), extra.segment, shared, unshared, now_s)
    if pool.remote_blocks > 0:
        cache.copy_down(state.cache, _remote_store(state, j), extra.segment, shared, unshared, now_s)

"""How long steps last: the formula of ``docs/design/simulator.md`` and its closed form over k steps."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

import numpy as np

from infermix.jit import inline, part, small


@small
def decode_step_s(pool: Any, base_s: float, decoding: int, kv_tokens: float) -> float:
    """Seconds of one step in which ``decoding`` sequences yield a token each."""
    seconds: float = base_s + pool.per_seq_s * decoding + pool.kv_s * kv_tokens
    return seconds


@small
def decode_jump_s(pool: Any, base_s: float, decoding: int, kv_tokens: float, growth: float, k: int) -> float:
    """Seconds of k decode steps in a row: every step reads ``growth`` KV tokens more than the last."""
    one = decode_step_s(pool, base_s, decoding, kv_tokens)
    seconds: float = k * one + pool.kv_s * growth * (0.5 * k * (k - 1))
    return seconds


@part
def steps_to_reach(pool: Any, base_s: float, decoding: int, kv_tokens: float, growth: float, wanted_s: float) -> int:
    """Smallest k >= 1 whose jump lasts at least ``wanted_s``: the root of a parabola, then settled exactly."""
    half = 0.5 * pool.kv_s * growth
    slope = decode_step_s(pool, base_s, decoding, kv_tokens) - half
    k = max(1, int(ceil(2.0 * wanted_s / (slope + sqrt(slope * slope + 4.0 * half * wanted_s)))))
    while k > 1 and decode_jump_s(pool, base_s, decoding, kv_tokens, growth, k - 1) >= wanted_s:
        k -= 1
    while decode_jump_s(pool, base_s, decoding, kv_tokens, growth, k) < wanted_s:
        k += 1
    return k


@small
def jump_s(state: Any, j: int, k: int) -> float:
    """Seconds of k decode steps of instance j from its ``start_s`` on."""
    instance = state.instances[j]
    base_s = state.tables[0, instance.pool, instance.decoding]
    return decode_jump_s(
        state.pools[instance.pool], base_s, instance.decoding, instance.lead_kv, instance.lead_growth, k
    )


@small
def steps_until(state: Any, j: int, now_s: float) -> int:
    """Steps of the jump of instance j, at least one, after which ``now_s`` has been reached."""
    instance = state.instances[j]
    base_s = state.tables[0, instance.pool, instance.decoding]
    return steps_to_reach(
        state.pools[instance.pool],
        base_s,
        instance.decoding,
        instance.lead_kv,
        instance.lead_growth,
        now_s - instance.start_s,
    )


@inline
def mixed_step_s(state: Any, j: int) -> float:
    """Seconds of the step that instance j has scheduled, with prompt chunks or newcomers in it."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    readers = instance.chunks - instance.joiners
    tokens = instance.decoding + instance.chunk_tokens
    seconds: float = (
        state.tables[1 if readers > 0 else 0, instance.pool, tokens]
        + pool.per_seq_s * (instance.decoding + readers)
        + instance.tier_s
    )
    if pool.ranks > 1:
        slowest = 0.0
        for r in range(pool.ranks):
            group = state.groups[j, r]
            slowest = max(slowest, pool.kv_s * group.kv_tokens + group.chunk_s)
        slow: float = seconds + pool.ranks * slowest
        return slow
    seconds += pool.kv_s * (instance.kv_tokens + instance.chunk_kv)
    seconds += pool.pair_s * instance.chunk_pairs + pool.load_s * instance.chunk_cached
    return seconds


@inline
def set_lead(state: Any, j: int, most: int) -> int:
    """What the slowest group of instance j reads; returns for how many steps, ``most`` at most, it is the slowest."""
    instance = state.instances[j]
    ranks = state.pools[instance.pool].ranks
    if ranks == 1:
        instance.lead_kv = instance.kv_tokens
        instance.lead_growth = instance.growth
        return most
    return _lead_of_groups(state, j, most, ranks)


@part
def _lead_of_groups(state: Any, j: int, most: int, ranks: int) -> int:
    leader = 0
    for r in range(1, ranks):
        mine, best = state.groups[j, r], state.groups[j, leader]
        if mine.kv_tokens > best.kv_tokens or (mine.kv_tokens == best.kv_tokens and mine.growth > best.growth):
            leader = r
    first = state.groups[j, leader]
    state.instances[j].lead_kv = ranks * first.kv_tokens
    state.instances[j].lead_growth = ranks * first.growth
    for r in range(ranks):
        other = state.groups[j, r]
        if other.growth > first.growth:
            overtaken = np.floor((first.kv_tokens - other.kv_tokens) / (other.growth - first.growth))
            most = min(most, int(overtaken) + 1)
    return most

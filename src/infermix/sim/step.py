"""How long steps last: the formula of ``docs/design/simulator.md`` and its closed form over k steps."""

from __future__ import annotations

from math import ceil, sqrt
from typing import Any

from infermix.jit import inline, kernel


@inline
def decode_step_s(pool: Any, base_s: float, decoding: int, kv_tokens: int) -> float:
    """Seconds of one step in which ``decoding`` sequences yield a token each."""
    seconds: float = base_s + pool.per_seq_s * decoding + pool.kv_s * kv_tokens
    return seconds


@inline
def decode_jump_s(pool: Any, base_s: float, decoding: int, kv_tokens: int, k: int) -> float:
    """Seconds of k decode steps in a row: every step reads ``decoding`` KV tokens more than the last."""
    one = decode_step_s(pool, base_s, decoding, kv_tokens)
    seconds: float = k * one + pool.kv_s * decoding * (0.5 * k * (k - 1))
    return seconds


@kernel
def steps_to_reach(pool: Any, base_s: float, decoding: int, kv_tokens: int, wanted_s: float) -> int:
    """Smallest k >= 1 whose jump lasts at least ``wanted_s``: the root of a parabola, then settled exactly."""
    half = 0.5 * pool.kv_s * decoding
    slope = decode_step_s(pool, base_s, decoding, kv_tokens) - half
    k = max(1, int(ceil(2.0 * wanted_s / (slope + sqrt(slope * slope + 4.0 * half * wanted_s)))))
    while k > 1 and decode_jump_s(pool, base_s, decoding, kv_tokens, k - 1) >= wanted_s:
        k -= 1
    while decode_jump_s(pool, base_s, decoding, kv_tokens, k) < wanted_s:
        k += 1
    return k

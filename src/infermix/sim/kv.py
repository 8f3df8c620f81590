"""KV blocks: who takes one in which step, and how long the free ones last.

A decoding sequence takes a block every ``block_tokens`` steps, always at the same *phase* of the
iteration counter; so counting sequences by phase tells the blocks of any stretch of steps at once.
"""

from __future__ import annotations

from typing import Any

from infermix.jit import kernel


@kernel
def blocks_for(tokens: int, block_tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return (tokens + block_tokens - 1) // block_tokens


@kernel
def blocks_of_steps(phases: Any, block_tokens: int, decoding: int, first: int, k: int) -> int:
    """Blocks taken in the k steps from iteration ``first`` on."""
    total = decoding * (k // block_tokens)
    for i in range(first, first + k % block_tokens):
        total += phases[i % block_tokens]
    return total


@kernel
def steps_that_fit(phases: Any, block_tokens: int, decoding: int, first: int, free: int, most: int) -> int:
    """How many of ``most`` steps from iteration ``first`` on find their blocks among ``free``."""
    if decoding == 0 or decoding * (most // block_tokens + 1) <= free:
        return most
    k = (free // decoding) * block_tokens
    left = free - decoding * (free // decoding)
    while k < most:
        need = phases[(first + k) % block_tokens]
        if need > left:
            break
        left -= need
        k += 1
    return min(k, most)

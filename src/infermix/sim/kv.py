"""KV blocks: who takes one in which step, and how long the free ones last.

A decoding sequence takes a block every ``block_tokens`` steps, always at the same *phase* of the
iteration counter; so counting sequences by phase tells the blocks of any stretch of steps at once.
"""

from __future__ import annotations

from typing import Any

from infermix.jit import inline, part


@inline
def blocks_for(tokens: int, block_tokens: int) -> int:
    """Blocks that hold so many tokens."""
    return (tokens + block_tokens - 1) // block_tokens


@part
def blocks_of_steps(phases: Any, block_tokens: int, decoding: int, first: int, k: int) -> int:
    """Blocks taken in the k steps from iteration ``first`` on: whole rounds of the phases, and some phases in a row."""
    cycles = k // block_tokens
    begin = first % block_tokens
    end = begin + k - cycles * block_tokens
    total = decoding * cycles
    for phase in range(len(phases)):
        inside = ((phase >= begin) & (phase < end)) | (phase < end - block_tokens)
        total += phases[phase] if inside else 0
    return total


@part
def steps_that_fit(phases: Any, block_tokens: int, decoding: int, first: int, free: int, most: int) -> int:
    """How many of ``most`` steps from iteration ``first`` on find their blocks among ``free``."""
    if decoding == 0 or decoding * (most + block_tokens) <= free * block_tokens:
        return most
    cycles = free // decoding
    left = free - decoding * cycles
    k = cycles * block_tokens
    phase = first % block_tokens
    while k < most and phases[phase] <= left:
        left -= phases[phase]
        k += 1
        phase += 1
        if phase == block_tokens:
            phase = 0
    return min(k, most)

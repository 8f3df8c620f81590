"""A sequence in its slot: how many tokens and blocks it has at any step, without visiting the steps."""

from __future__ import annotations

from math import ceil, floor, sqrt
from typing import Any

from infermix.jit import part, small
from infermix.sim import heap
from infermix.sim.kv import blocks_for
from infermix.sim.state import NONE, RUNNING


@small
def join(state: Any, j: int, i: int) -> int:
    """Request i takes a free slot at the end of the running list."""
    instance = state.instances[j]
    slot: int = instance.free_slot
    if slot == NONE:
        slot = instance.used_slots
        instance.used_slots += 1
        row = state.slots[j, slot]
    else:
        row = state.slots[j, slot]
        instance.free_slot = row.next
    row.request = i
    row.decoding = 0
    row.grown = NONE
    row.turn = instance.admissions
    instance.admissions += 1
    row.next = NONE
    row.previous = instance.tail
    if instance.tail == NONE:
        instance.head = slot
    else:
        state.slots[j, instance.tail].next = slot
    instance.tail = slot
    instance.running += 1
    state.counters[RUNNING, j] += 1
    if state.pools[instance.pool].ranks > 1:
        _join_group(state, j, slot)
    return slot


@part
def _join_group(state: Any, j: int, slot: int) -> None:
    """The group with the fewest sequences takes it, the first of equals."""
    best = 0
    for r in range(1, state.pools[state.instances[j].pool].ranks):
        if state.groups[j, r].running < state.groups[j, best].running:
            best = r
    state.slots[j, slot].rank = best
    state.groups[j, best].running += 1


@small
def leave(state: Any, j: int, slot: int) -> None:
    """The slot leaves the running list."""
    instance = state.instances[j]
    row = state.slots[j, slot]
    if row.previous == NONE:
        instance.head = row.next
    else:
        state.slots[j, row.previous].next = row.next
    if row.next == NONE:
        instance.tail = row.previous
    else:
        state.slots[j, row.next].previous = row.previous
    row.next = instance.free_slot
    instance.free_slot = slot
    instance.running -= 1
    state.counters[RUNNING, j] -= 1
    if state.pools[instance.pool].ranks > 1:
        state.groups[j, row.rank].running -= 1


@small
def begin_decoding(state: Any, j: int, slot: int, out: int) -> None:
    """From the next step on the sequence yields tokens; it has ``out`` of them."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    row = state.slots[j, slot]
    i = row.request
    steps = state.requests[i].output - out
    row.rate = 1.0
    slack = row.prompt_blocks * pool.block_tokens - row.prompt
    if pool.accepted_per_step > 1.0 or pool.accepted_variance > 0.0:
        steps = steps_of_answer(pool, steps, state.extras[i].z)
        row.rate = floor(1024.0 * (state.requests[i].output - out) / steps + 0.5) / 1024.0
        slack = min(int(ceil(slack / pool.accepted_per_step)), pool.stride - 1)
    row.decoding = 1
    row.had = out
    row.began = instance.iteration
    row.end = instance.iteration + steps
    context = state.requests[i].input + out
    row.kv_start = context - row.rate * instance.iteration
    row.first_take = instance.iteration + slack
    row.phase = row.first_take % pool.stride
    instance.decoding += 1
    instance.kv_tokens += context
    instance.growth += row.rate
    state.phases[j, row.phase] += 1
    if pool.ranks > 1:
        state.groups[j, row.rank].kv_tokens += context
        state.groups[j, row.rank].growth += row.rate
    heap.push(state.slots[j], instance, slot)


@part
def steps_of_answer(pool: Any, tokens: int, z: float) -> int:
    """Steps in which a sequence gets so many tokens, when each brings a random number of them."""
    mean = pool.accepted_per_step
    spread = sqrt(tokens * pool.accepted_variance / (mean * mean * mean))
    drawn = int(floor(tokens / mean + z * spread + 0.5))
    least: int = blocks_for(tokens, pool.accepted_most)
    return max(least, min(drawn, tokens))


@small
def stop_decoding(state: Any, j: int, slot: int) -> None:
    """The sequence decodes no more; it is still in its slot."""
    instance = state.instances[j]
    row = state.slots[j, slot]
    context = row.kv_start + row.rate * instance.iteration
    instance.decode_tokens += generated_now(state, j, slot) - row.had
    instance.decoding -= 1
    instance.kv_tokens -= context
    instance.growth -= row.rate
    state.decoding_of[j, state.requests[row.request].class_id] -= 1
    state.phases[j, row.phase] -= 1
    if state.pools[instance.pool].ranks > 1:
        state.groups[j, row.rank].kv_tokens -= context
        state.groups[j, row.rank].growth -= row.rate
    heap.remove(state.slots[j], instance, slot)


@small
def generated_now(state: Any, j: int, slot: int) -> int:
    """Tokens that a decoding sequence has after the steps that are over."""
    row = state.slots[j, slot]
    iteration = state.instances[j].iteration
    output: int = state.requests[row.request].output
    if row.end == iteration:
        return output
    had: int = row.had
    return min(output - 1, had + int(floor(row.rate * (iteration - row.began))))


@small
def kv_now(state: Any, j: int, slot: int) -> int:
    """Tokens of its path that are in the KV cache."""
    row = state.slots[j, slot]
    if row.decoding == 0:
        position: int = row.position
        return position
    computed: int = state.requests[row.request].input + generated_now(state, j, slot) - 1
    return computed


@small
def held_blocks(state: Any, j: int, slot: int) -> int:
    """Blocks of a sequence, those that it shares with the cache among them."""
    row = state.slots[j, slot]
    held: int = row.prompt_blocks
    iteration = state.instances[j].iteration
    if row.decoding == 1:
        if iteration > row.first_take:
            held += (iteration - 1 - row.first_take) // state.pools[state.instances[j].pool].stride + 1
        if row.grown == iteration:
            held += 1
    return held

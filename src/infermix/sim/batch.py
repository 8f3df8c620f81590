"""One instance's scheduler: what the next step carries, and what is true when it ends.

Follows ``docs/design/simulator.md``, section "One step". Decode steps that differ only in the KV
length are planned together as a *jump*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.jit import inline, kernel
from infermix.sim import heap
from infermix.sim.closed import release_children
from infermix.sim.gaps import bin_of, count_jump_gaps
from infermix.sim.kv import blocks_for, blocks_of_steps, steps_that_fit
from infermix.sim.state import COMPLETED, IDLE, JUMP, MIXED, NONE, STARTED
from infermix.sim.step import decode_jump_s, decode_step_s


@inline
def enqueue(state: Any, j: int, i: int, now_s: float) -> None:
    """Request i joins the end of instance j's queue."""
    instance = state.instances[j]
    state.requests[i].behind = NONE
    if instance.wait_tail == NONE:
        instance.wait_head = i
    else:
        state.requests[instance.wait_tail].behind = i
    instance.wait_tail = i
    instance.inflight += 1
    instance.waiting += 1
    instance.queued_tokens += state.requests[i].input - state.requests[i].cached
    instance.context_tokens += state.requests[i].input
    if instance.doing == IDLE and state.next_s[j] == np.inf:
        state.next_s[j] = now_s


@inline
def start(state: Any, j: int) -> None:
    """Schedule what instance j does from ``next_s`` on, or leave it idle."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    instance.start_s = state.next_s[j]
    instance.chunks = 0
    phase = instance.iteration % pool.block_tokens
    wanted = state.phases[j, phase]
    preempted = wanted > instance.free_blocks
    if preempted:
        _grow_scarce(state, j, phase)
    else:
        instance.free_blocks -= wanted
    budget = pool.max_batched_tokens - instance.decoding
    instance.chunk_kv = 0
    instance.chunk_pairs = 0
    instance.chunk_cached = 0
    instance.chunk_tokens = 0
    if instance.tail != NONE and state.slots[j, instance.tail].decoding == 0 and budget > 0:
        budget -= _take_chunk(state, j, instance.tail, budget)
    if not preempted:
        _admit(state, j, budget)
    used = pool.blocks - instance.free_blocks
    instance.kv_peak_blocks = max(instance.kv_peak_blocks, used)
    if instance.chunks > 0:
        _plan_mixed(state, j)
    elif instance.decoding > 0:
        _plan_jump(state, j)
    else:
        instance.doing = IDLE
        state.next_s[j] = np.inf


@inline
def _plan_mixed(state: Any, j: int) -> None:
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    tokens = instance.decoding + instance.chunk_tokens
    sequences = instance.decoding + instance.chunks
    seconds = (
        decode_step_s(pool, state.tables[1, instance.pool, tokens], sequences, instance.kv_tokens + instance.chunk_kv)
        + pool.pair_s * instance.chunk_pairs
        + pool.load_s * instance.chunk_cached
    )
    instance.doing = MIXED
    instance.planned = 1
    state.next_s[j] = instance.start_s + seconds


@inline
def _plan_jump(state: Any, j: int) -> None:
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    to_end = state.slots[j, state.slots[j, 0].heap].end - instance.iteration
    after_first = steps_that_fit(
        state.phases[j], pool.block_tokens, instance.decoding, instance.iteration + 1, instance.free_blocks, to_end - 1
    )
    instance.doing = JUMP
    plan_steps(state, j, 1 + after_first)


@inline
def plan_steps(state: Any, j: int, k: int) -> None:
    """Let the jump of instance j last k steps."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    base_s = state.tables[0, instance.pool, instance.decoding]
    instance.planned = k
    state.next_s[j] = instance.start_s + decode_jump_s(pool, base_s, instance.decoding, instance.kv_tokens, k)


@kernel
def _grow_scarce(state: Any, j: int, phase: int) -> None:
    """Phase 1 when blocks run out: those that enter a new block get one in order, at the cost of the last admitted."""
    instance = state.instances[j]
    slot = instance.head
    while slot != NONE:
        row = state.slots[j, slot]
        if row.decoding == 1 and row.phase == phase:
            gone = False
            while instance.free_blocks == 0 and not gone:
                victim = instance.tail
                gone = victim == slot
                _preempt(state, j, victim)
            if gone:
                break
            instance.free_blocks -= 1
        slot = row.next


@kernel
def _preempt(state: Any, j: int, slot: int) -> None:
    """The sequence loses its blocks and waits at the front of the queue to be read anew."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    row = state.slots[j, slot]
    i = row.request
    held = row.prompt
    queued = row.prompt - row.position
    if row.decoding == 1:
        held = row.kv_base + instance.iteration - 1
        queued = 0
        state.requests[i].generated = state.requests[i].output - (row.end - instance.iteration)
        state.requests[i].stalled_s = instance.start_s
        instance.decoding -= 1
        state.decoding_of[j, state.requests[i].class_id] -= 1
        instance.kv_tokens -= row.kv_base + instance.iteration
        state.phases[j, row.phase] -= 1
        heap.remove(state.slots[j], instance, slot)
    instance.free_blocks += blocks_for(held, pool.block_tokens)
    _leave(state, j, slot)
    state.requests[i].behind = instance.wait_head
    instance.wait_head = i
    if instance.wait_tail == NONE:
        instance.wait_tail = i
    instance.preemptions += 1
    instance.waiting += 1
    instance.queued_tokens += state.requests[i].input + state.requests[i].generated - state.requests[i].cached - queued


@inline
def _admit(state: Any, j: int, budget: int) -> None:
    """Phase 2: first in, first out, while budget, slots and blocks last."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    while instance.wait_head != NONE and budget > 0 and instance.running < pool.max_num_seqs:
        i = instance.wait_head
        prompt = state.requests[i].input + state.requests[i].generated
        blocks = blocks_for(prompt, pool.block_tokens)
        if blocks > instance.free_blocks:
            break
        instance.free_blocks -= blocks
        instance.wait_head = state.requests[i].behind
        if instance.wait_head == NONE:
            instance.wait_tail = NONE
        slot = _join(state, j, i)
        row = state.slots[j, slot]
        row.prompt = prompt
        row.position = state.requests[i].cached
        if state.requests[i].status != STARTED:
            instance.chunk_cached += state.requests[i].cached
            state.requests[i].status = STARTED
            state.requests[i].admit_s = instance.start_s
        budget -= _take_chunk(state, j, slot, budget)


@inline
def _take_chunk(state: Any, j: int, slot: int, budget: int) -> int:
    instance = state.instances[j]
    row = state.slots[j, slot]
    m: int = min(row.prompt - row.position, budget)
    row.chunk = m
    instance.chunk_kv += row.position + m
    instance.chunk_pairs += np.int64(m) * row.position + np.int64(m) * (m + 1) // 2
    instance.chunk_tokens += m
    state.slots[j, instance.chunks].chunked = slot
    instance.chunks += 1
    return m


@inline
def _join(state: Any, j: int, i: int) -> int:
    """Request i takes a free slot at the end of the running list."""
    instance = state.instances[j]
    instance.free_slots -= 1
    slot: int = state.slots[j, instance.free_slots].free
    row = state.slots[j, slot]
    row.request = i
    row.decoding = 0
    row.next = NONE
    row.previous = instance.tail
    if instance.tail == NONE:
        instance.head = slot
    else:
        state.slots[j, instance.tail].next = slot
    instance.tail = slot
    instance.running += 1
    instance.waiting -= 1
    return slot


@inline
def _leave(state: Any, j: int, slot: int) -> None:
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
    state.slots[j, instance.free_slots].free = slot
    instance.free_slots += 1
    instance.running -= 1


@inline
def finish(state: Any, j: int) -> None:
    """What instance j was doing ends at ``next_s``; it may start anew at that moment."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    k = instance.planned
    if k > 1:
        instance.free_blocks -= blocks_of_steps(
            state.phases[j], pool.block_tokens, instance.decoding, instance.iteration + 1, k - 1
        )
        instance.kv_peak_blocks = max(instance.kv_peak_blocks, pool.blocks - instance.free_blocks)
    if instance.decoding > 0:
        _count_gaps(state, j, k)
    count_steps(instance, k)
    instance.busy_s += state.next_s[j] - instance.start_s
    instance.doing = IDLE
    while instance.heap_size > 0 and state.slots[j, state.slots[j, 0].heap].end == instance.iteration:
        _complete(state, j, state.slots[j, 0].heap)
    for c in range(instance.chunks):
        _end_chunk(state, j, state.slots[j, c].chunked)
    instance.chunks = 0
    if instance.running == 0 and instance.wait_head == NONE:
        state.next_s[j] = np.inf


@kernel
def _count_gaps(state: Any, j: int, k: int) -> None:
    """Every decoding sequence waited once for each of the k steps."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    mean_s, growth_s = state.next_s[j] - instance.start_s, pool.kv_s * instance.decoding
    if k > 1:
        mean_s /= k
    spread_s = 0.5 * growth_s * (k - 1)
    place = bin_of(mean_s - spread_s)
    if place == bin_of(mean_s + spread_s):
        for c in range(state.gaps.shape[1]):
            state.gaps[instance.pool, c, place] += k * state.decoding_of[j, c]
    else:
        count_jump_gaps(state.gaps[instance.pool], state.decoding_of[j], mean_s - spread_s, growth_s, k)


@inline
def count_steps(instance: Any, k: int) -> None:
    """Every decoding sequence has k tokens more."""
    instance.iteration += k
    instance.steps += k
    instance.seq_steps += k * (instance.decoding + instance.chunks)
    instance.decode_tokens += k * instance.decoding
    instance.kv_tokens += k * instance.decoding


@inline
def _complete(state: Any, j: int, slot: int) -> None:
    """A decoding sequence has all its tokens."""
    instance = state.instances[j]
    row = state.slots[j, slot]
    heap.remove(state.slots[j], instance, slot)
    instance.decoding -= 1
    state.decoding_of[j, state.requests[row.request].class_id] -= 1
    instance.kv_tokens -= row.kv_base + instance.iteration
    state.phases[j, row.phase] -= 1
    _release(state, j, slot, row.kv_base + instance.iteration - 1)


@inline
def _release(state: Any, j: int, slot: int, held_tokens: int) -> None:
    instance = state.instances[j]
    i = state.slots[j, slot].request
    instance.free_blocks += blocks_for(held_tokens, state.pools[instance.pool].block_tokens)
    _leave(state, j, slot)
    state.requests[i].last_s = state.next_s[j]
    state.requests[i].status = COMPLETED
    instance.inflight -= 1
    instance.context_tokens -= state.requests[i].input
    if state.requests[i].child != NONE:
        release_children(state, i, state.next_s[j])


@inline
def _end_chunk(state: Any, j: int, slot: int) -> None:
    """A chunk was read; a prompt that is complete yields one token at once."""
    instance = state.instances[j]
    block_tokens = state.pools[instance.pool].block_tokens
    row = state.slots[j, slot]
    i = row.request
    row.position += row.chunk
    instance.prompt_tokens += row.chunk
    instance.queued_tokens -= row.chunk
    if row.position < row.prompt:
        return
    out = state.requests[i].generated + 1
    if out == 1:
        state.requests[i].first_s = state.next_s[j]
    else:
        stall_s = state.next_s[j] - state.requests[i].stalled_s
        state.gaps[instance.pool, state.requests[i].class_id, bin_of(stall_s)] += 1
    if out == state.requests[i].output:
        _release(state, j, slot, row.prompt)
        return
    row.decoding = 1
    row.kv_base = state.requests[i].input + out - instance.iteration
    row.end = instance.iteration + state.requests[i].output - out
    row.phase = (1 - row.kv_base) % block_tokens
    instance.decoding += 1
    state.decoding_of[j, state.requests[i].class_id] += 1
    instance.kv_tokens += row.kv_base + instance.iteration
    state.phases[j, row.phase] += 1
    heap.push(state.slots[j], instance, slot)

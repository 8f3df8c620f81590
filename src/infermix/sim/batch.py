"""One instance's scheduler: what the next step carries, and what is true when it ends.

Follows ``docs/design/simulator.md``, section "One step". Decode steps that differ only in the KV
length are planned together as a *jump*.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.jit import inline, part, small
from infermix.sim.due import push, release_children
from infermix.sim.gaps import bin_of, count_jump_gaps
from infermix.sim.kv import blocks_for, blocks_of_steps, steps_that_fit
from infermix.sim.prefix import (
    blocks_given_back,
    clear_for_lookup,
    copy_to_tiers,
    found_in_cache,
    loaded_from_tiers,
    prompt_joins_cache,
    protect_path,
    would_protect,
)
from infermix.sim.sequence import begin_decoding, generated_now, held_blocks, join, kv_now, leave, stop_decoding
from infermix.sim.state import (
    COMPLETED,
    CONTEXT_TOKENS,
    DECODE,
    DELIVERED,
    HANDS_OFF,
    IDLE,
    INFLIGHT,
    JUMP,
    MIXED,
    NONE,
    PREFILL,
    QUEUED,
    QUEUED_TOKENS,
    RETURNS,
    STARTED,
    UNFINISHED,
)
from infermix.sim.step import jump_s, mixed_step_s, set_lead
from infermix.sim.waiting import append, drop_head, head_of, put_first


@inline
def believed_cached(state: Any, i: int, p: int) -> int:
    """Tokens of the prompt that the gateway takes to be on a pool's instance already."""
    if state.pools[p].role == DECODE:
        return 0
    cached: int = state.requests[i].cached
    return cached


@small
def enqueue(state: Any, j: int, i: int, now_s: float) -> bool:
    """Request i joins the end of instance j's queue; whether it is now the first."""
    first = append(state, j, i)
    if state.instances[j].doing == IDLE and state.next_s[j] == np.inf:
        state.next_s[j] = now_s
    return first


@inline
def start(state: Any, j: int) -> None:
    """Schedule what instance j does from ``next_s`` on, or leave it idle."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    instance.start_s = state.next_s[j]
    instance.chunks = 0
    phase = instance.iteration % pool.stride
    wanted = state.phases[j, phase]
    preempted = wanted > instance.free_blocks
    if preempted:
        _grow_scarce(state, j, phase)
    else:
        instance.free_blocks -= wanted
    budget = pool.max_batched_tokens - instance.decoding
    _clear_chunks(state, j)
    if instance.tail != NONE and state.slots[j, instance.tail].decoding == 0 and budget > 0:
        budget -= _take_chunk(state, j, instance.tail, budget)
    if instance.waiting > 0 and (not preempted or instance.running == 0):
        _admit(state, j, budget)
    instance.kv_peak_blocks = max(instance.kv_peak_blocks, pool.blocks - instance.free_blocks)
    if instance.chunks > 0:
        instance.doing = MIXED
        instance.planned = 1
        state.next_s[j] = instance.start_s + mixed_step_s(state, j)
    elif instance.decoding > 0:
        _plan_jump(state, j, preempted)
    else:
        instance.doing = IDLE
        state.next_s[j] = np.inf


@inline
def _clear_chunks(state: Any, j: int) -> None:
    instance = state.instances[j]
    instance.joiners = 0
    instance.chunk_kv = 0
    instance.chunk_pairs = 0
    instance.chunk_cached = 0
    instance.chunk_tokens = 0
    instance.tier_s = 0.0
    if state.groups.shape[1] > 1:
        for r in range(state.groups.shape[1]):
            state.groups[j, r].chunk_s = 0.0


@inline
def _plan_jump(state: Any, j: int, one_step: bool) -> None:
    """As many decode steps as nobody can join, leave or lack a block; one after a preemption, which closed the door."""
    instance = state.instances[j]
    to_end = 1 if one_step else state.slots[j, state.slots[j, 0].heap].end - instance.iteration
    to_end = set_lead(state, j, to_end)
    after_first = steps_that_fit(
        state.phases[j],
        state.pools[instance.pool].stride,
        instance.decoding,
        instance.iteration + 1,
        instance.free_blocks,
        to_end - 1,
    )
    instance.doing = JUMP
    plan_steps(state, j, 1 + after_first)


@small
def plan_steps(state: Any, j: int, k: int) -> None:
    """Let the jump of instance j last k steps."""
    instance = state.instances[j]
    instance.planned = k
    state.next_s[j] = instance.start_s + jump_s(state, j, k)


@part
def _grow_scarce(state: Any, j: int, phase: int) -> None:
    """Phase 1 when blocks run out: those that enter a new block get one in order, at the cost of the least urgent."""
    instance = state.instances[j]
    slot = instance.head
    while slot != NONE:
        row = state.slots[j, slot]
        if row.decoding == 1 and row.phase == phase:
            gone, following = False, NONE
            while instance.free_blocks == 0 and not gone:
                victim = _least_urgent(state, j)
                gone = victim == slot
                following = row.next
                _preempt(state, j, victim)
            if gone:
                slot = following
                continue
            instance.free_blocks -= 1
            row.grown = instance.iteration
        slot = row.next


@inline
def _least_urgent(state: Any, j: int) -> int:
    """The last of the running list among those with the lowest priority."""
    slot: int = state.instances[j].tail
    if state.queues.shape[1] == 1:
        return slot
    worst = slot
    while slot != NONE:
        if state.requests[state.slots[j, slot].request].level > state.requests[state.slots[j, worst].request].level:
            worst = slot
        slot = state.slots[j, slot].previous
    return worst


@part
def _preempt(state: Any, j: int, slot: int) -> None:
    """The sequence loses its blocks and waits at the front of its queue to be read anew."""
    instance = state.instances[j]
    row = state.slots[j, slot]
    i = row.request
    queued = row.prompt - row.position
    give_up_kv(state, j, slot, False)
    if row.decoding == 1:
        queued = 0
        state.requests[i].generated = generated_now(state, j, slot)
        state.requests[i].stalled_s = instance.start_s
        stop_decoding(state, j, slot)
    leave(state, j, slot)
    put_first(state, j, i)
    instance.preemptions += 1
    state.counters[QUEUED, j] += 1
    state.counters[QUEUED_TOKENS, j] += (
        state.requests[i].input + state.requests[i].generated - believed_cached(state, i, instance.pool) - queued
    )


@small
def give_up_kv(state: Any, j: int, slot: int, finished: bool) -> None:
    """The blocks of a sequence are free again; what a prefix cache keeps of them stays until it must give way."""
    instance = state.instances[j]
    held = held_blocks(state, j, slot)
    if state.pools[instance.pool].prefix_cache:
        i = state.slots[j, slot].request
        tokens = min(kv_now(state, j, slot), held * state.pools[instance.pool].block_tokens)
        own = held - state.slots[j, slot].cached_blocks
        instance.free_blocks += blocks_given_back(state, j, i, tokens, own, finished, instance.start_s)
        if finished:
            copy_to_tiers(state, j, i, tokens, state.next_s[j])
    else:
        instance.free_blocks += held


@inline
def _admit(state: Any, j: int, budget: int) -> None:
    """Phase 2: the most urgent first, first in first out, while budget, slots and blocks last."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    while budget > 0 and instance.running < pool.max_num_seqs:
        i = head_of(state, j)
        if i == NONE:
            break
        if pool.role == DECODE and state.extras[i].stage == DELIVERED:
            if not _admit_delivered(state, j, i):
                break
            budget -= 1
            continue
        prompt = state.requests[i].input + state.requests[i].generated
        blocks = blocks_for(prompt, pool.block_tokens)
        position = believed_cached(state, i, instance.pool)
        kept = 0
        if pool.prefix_cache:
            clear_for_lookup(state, j)
            kept = found_in_cache(state, j, i, prompt)
            if blocks - kept + would_protect(state, j, i) + pool.watermark_blocks > instance.free_blocks:
                break
            instance.free_blocks -= protect_path(state, j, i)
            state.counters[QUEUED_TOKENS, j] += position
            position = loaded_from_tiers(state, j, i, prompt, kept)
            state.counters[QUEUED_TOKENS, j] -= position
            instance.chunk_cached += position
        elif blocks + pool.watermark_blocks > instance.free_blocks:
            break
        elif state.requests[i].status != STARTED:
            instance.chunk_cached += position
        instance.free_blocks -= blocks - kept
        slot = _seat(state, j, i)
        row = state.slots[j, slot]
        row.prompt = prompt
        row.prompt_blocks = blocks
        row.cached_blocks = kept
        row.position = position
        if pool.ranks > 1 and (pool.prefix_cache or state.requests[i].status != STARTED):
            state.groups[j, row.rank].chunk_s += pool.load_s * position
        if state.requests[i].status != STARTED:
            state.requests[i].status = STARTED
            if np.isnan(state.requests[i].admit_s):
                state.requests[i].admit_s = instance.start_s
        budget -= _take_chunk(state, j, slot, budget)


@inline
def _seat(state: Any, j: int, i: int) -> int:
    """Request i, the first in the queue, takes a free slot at the end of the running list."""
    drop_head(state, j, i)
    state.counters[QUEUED, j] -= 1
    return join(state, j, i)


@part
def _admit_delivered(state: Any, j: int, i: int) -> bool:
    """A request whose prompt was read elsewhere decodes at once, if its blocks are free."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    prompt = state.requests[i].input + state.requests[i].generated - 1
    blocks = blocks_for(prompt + 1, pool.block_tokens)
    if blocks + pool.watermark_blocks > instance.free_blocks:
        return False
    instance.free_blocks -= blocks
    slot = _seat(state, j, i)
    row = state.slots[j, slot]
    row.prompt = prompt
    row.position = prompt
    row.prompt_blocks = blocks_for(prompt, pool.block_tokens)
    row.cached_blocks = 0
    row.chunk = 0
    begin_decoding(state, j, slot, state.requests[i].generated)
    state.extras[i].stage = RETURNS
    state.slots[j, instance.chunks].chunked = slot
    instance.chunks += 1
    instance.joiners += 1
    return True


@small
def _take_chunk(state: Any, j: int, slot: int, budget: int) -> int:
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    row = state.slots[j, slot]
    m: int = min(row.prompt - row.position, budget)
    row.chunk = m
    pairs = np.int64(m) * row.position + np.int64(m) * (m + 1) // 2
    instance.chunk_kv += row.position + m
    instance.chunk_pairs += pairs
    instance.chunk_tokens += m
    if pool.ranks > 1:
        state.groups[j, row.rank].chunk_s += pool.kv_s * (row.position + m) + pool.pair_s * pairs
    state.slots[j, instance.chunks].chunked = slot
    instance.chunks += 1
    return m


@inline
def finish(state: Any, j: int) -> None:
    """What instance j was doing ends at ``next_s``; it may start anew at that moment."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    k = instance.planned
    if k > 1:
        instance.free_blocks -= blocks_of_steps(
            state.phases[j], pool.stride, instance.decoding, instance.iteration + 1, k - 1
        )
        instance.kv_peak_blocks = max(instance.kv_peak_blocks, pool.blocks - instance.free_blocks)
    if instance.decoding > 0:
        count_gaps_of(state, j, k)
    count_steps(state, j, k)
    instance.busy_s += state.next_s[j] - instance.start_s
    instance.start_s = state.next_s[j]
    instance.doing = IDLE
    if instance.joiners > 0:
        _count_first_gaps(state, j)
    while instance.heap_size > 0 and state.slots[j, state.slots[j, 0].heap].end == instance.iteration:
        slot = state.slots[j, 0].heap
        give_up_kv(state, j, slot, True)
        stop_decoding(state, j, slot)
        _complete(state, j, slot)
    for c in range(instance.chunks):
        _end_chunk(state, j, state.slots[j, c].chunked)
    instance.chunks = 0
    if instance.running == 0 and instance.waiting == 0:
        state.next_s[j] = np.inf


@part
def count_gaps_of(state: Any, j: int, k: int) -> None:
    """Every decoding sequence waited once for each of the k steps that end at ``next_s``."""
    instance = state.instances[j]
    seconds = state.next_s[j] - instance.start_s
    if k == 1:
        place = bin_of(seconds)
        for c in range(state.gaps.shape[1]):
            state.gaps[instance.pool, c, place] += state.decoding_of[j, c]
    else:
        growth_s = state.pools[instance.pool].kv_s * instance.lead_growth
        first_s = seconds / k - 0.5 * growth_s * (k - 1)
        count_jump_gaps(state.gaps[instance.pool], state.decoding_of[j], first_s, growth_s, k)


@part
def _count_first_gaps(state: Any, j: int) -> None:
    """Sequences that joined from elsewhere waited for their second token since their first."""
    instance = state.instances[j]
    for c in range(instance.chunks):
        row = state.slots[j, state.slots[j, c].chunked]
        if row.chunk == 0:
            class_id = state.requests[row.request].class_id
            gap_s = instance.start_s - state.requests[row.request].stalled_s
            state.gaps[instance.pool, class_id, bin_of(gap_s)] += 1
            state.decoding_of[j, class_id] += 1


@small
def count_steps(state: Any, j: int, k: int) -> None:
    """Every decoding sequence has k steps more."""
    instance = state.instances[j]
    instance.iteration += k
    instance.steps += k
    instance.seq_steps += k * (instance.decoding + instance.chunks - instance.joiners)
    instance.kv_tokens += k * instance.growth
    if state.groups.shape[1] > 1:
        for r in range(state.groups.shape[1]):
            state.groups[j, r].kv_tokens += k * state.groups[j, r].growth


@small
def _complete(state: Any, j: int, slot: int) -> None:
    """The sequence has all its tokens; its blocks are free already."""
    i = state.slots[j, slot].request
    leave(state, j, slot)
    state.requests[i].last_s = state.next_s[j]
    state.requests[i].status = COMPLETED
    state.counters[INFLIGHT, j] -= 1
    state.counters[CONTEXT_TOKENS, j] -= state.requests[i].input
    if state.clock[0].wide != 0 and state.extras[i].child != NONE:
        release_children(state, i, state.next_s[j])


@inline
def _end_chunk(state: Any, j: int, slot: int) -> None:
    """A chunk was read; a prompt that is complete yields one token at once."""
    instance = state.instances[j]
    row = state.slots[j, slot]
    i = row.request
    if row.chunk == 0:
        return
    row.position += row.chunk
    instance.prompt_tokens += row.chunk
    state.counters[QUEUED_TOKENS, j] -= row.chunk
    if row.position < row.prompt:
        return
    if state.pools[instance.pool].prefix_cache:
        prompt_joins_cache(state, j, slot)
    out = state.requests[i].generated + 1
    if out == 1:
        state.requests[i].first_s = state.next_s[j]
    else:
        stall_s = state.next_s[j] - state.requests[i].stalled_s
        state.gaps[instance.pool, state.requests[i].class_id, bin_of(stall_s)] += 1
    if out == state.requests[i].output:
        give_up_kv(state, j, slot, True)
        _complete(state, j, slot)
    elif state.pools[instance.pool].role == PREFILL:
        _leave_for_decode(state, j, slot, out)
    else:
        begin_decoding(state, j, slot, out)
        state.decoding_of[j, state.requests[i].class_id] += 1


@part
def _leave_for_decode(state: Any, j: int, slot: int, out: int) -> None:
    """The prompt is read; the request moves on, its blocks stay until it has been delivered."""
    instance = state.instances[j]
    row = state.slots[j, slot]
    i = row.request
    state.requests[i].generated = out
    state.requests[i].stalled_s = state.next_s[j]
    extra = state.extras[i]
    extra.prefill_instance = j
    extra.held = row.prompt_blocks - row.cached_blocks
    extra.source_life = instance.life
    instance.sending += 1
    leave(state, j, slot)
    state.counters[INFLIGHT, j] -= 1
    state.counters[CONTEXT_TOKENS, j] -= state.requests[i].input
    push(state, i, state.next_s[j], HANDS_OFF)


@part
def send_back(state: Any, i: int, now_s: float) -> None:
    """The request has lost its instance and arrives again, with its tokens or without."""
    request = state.requests[i]
    request.instance = NONE
    request.status = UNFINISHED
    if not state.clock[0].resume:
        request.generated = 0
        request.first_s = np.nan
        request.admit_s = np.nan
    state.extras[i].restarts += 1
    state.extras[i].prefill_instance = NONE
    push(state, i, now_s, RETURNS)

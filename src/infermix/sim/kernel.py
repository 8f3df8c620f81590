"""The event loop: bring the instances up to each arrival, ask the policy, hand the request over."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from infermix import jit
from infermix.jit import inline, kernel
from infermix.route.view import Ask, FleetView
from infermix.sim.batch import count_steps, enqueue, finish, plan_steps, start
from infermix.sim.closed import next_arrival, release_children, take
from infermix.sim.gaps import count_jump_gaps
from infermix.sim.kv import blocks_for, blocks_of_steps
from infermix.sim.state import IDLE, JUMP, NONE, REFUSED, State
from infermix.sim.step import decode_jump_s, steps_to_reach


@kernel
def advance(state: Any, j: int, now_s: float) -> None:
    """Everything of instance j that ends at or before ``now_s`` or starts before it."""
    instance = state.instances[j]
    while state.next_s[j] <= now_s and state.next_s[j] < np.inf:
        if instance.doing != IDLE:
            finish(state, j)
        elif state.next_s[j] < now_s:
            start(state, j)
        else:
            break


@kernel
def cut_jump(state: Any, j: int, now_s: float) -> None:
    """A newcomer may join: the jump of instance j ends with the step that is under way."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    base_s = state.tables[0, instance.pool, instance.decoding]
    k = steps_to_reach(pool, base_s, instance.decoding, instance.kv_tokens, now_s - instance.start_s)
    if k < instance.planned:
        plan_steps(state, j, k)


@inline
def mark_eligible(state: Any, i: int) -> bool:
    """Set the mask of instances that may take request i; False if there is none."""
    found = False
    for p in range(len(state.pools)):
        pool = state.pools[p]
        fits = state.requests[i].input + 1 <= min(pool.blocks * pool.block_tokens, pool.max_context)
        allowed = fits and state.serves[p, state.requests[i].class_id]
        found = found or allowed
        if pool.allowed != allowed:
            pool.allowed = allowed
            for j in range(pool.first, pool.first + pool.instances):
                state.instances[j].eligible = allowed
    return found


@inline
def hand_over(state: Any, view: Any, i: int, j: int) -> None:
    """Instance j takes request i, or refuses one that it could never finish."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    view.sent[state.requests[i].class_id, instance.pool] += 1
    total = state.requests[i].input + state.requests[i].output
    if total - 1 > pool.blocks * pool.block_tokens or total > pool.max_context:
        state.requests[i].status = REFUSED
        return
    state.requests[i].instance = j
    was_empty = instance.wait_head == NONE
    enqueue(state, j, i, state.requests[i].arrival_s)
    may_join = was_empty and instance.running < pool.max_num_seqs
    if instance.doing == JUMP and may_join:
        if blocks_for(state.requests[i].input, pool.block_tokens) <= instance.free_blocks:
            cut_jump(state, j, state.requests[i].arrival_s)


@inline
def _ask(state: Any, i: int) -> Ask:
    """What a gateway knows of request i; every field has one machine type, so that any policy takes it."""
    request = state.requests[i]
    whole: Any = np.int64
    c = whole(request.class_id)
    return Ask(
        whole(i), c, whole(0), whole(request.session), request.arrival_s, whole(request.input), whole(request.cached),
        state.typical_output[c], whole(0), request.deadline_s, request.u, whole(request.prefix),
    )  # fmt: skip


@inline
def route(state: Any, view: Any, policy: Any, i: int) -> None:
    """Request i arrives: the policy is asked and its choice takes the request, or it is refused."""
    if not mark_eligible(state, i):
        state.requests[i].status = REFUSED
        return
    ask = _ask(state, i)
    j = policy(view, ask)
    if j < 0 or j >= len(state.instances) or not state.instances[j].eligible:
        state.requests[i].status = REFUSED
    else:
        hand_over(state, view, i, j)


def run_arrivals(state: State, view: FleetView, policy: Any, first: int, last: int, until_s: float) -> int:
    """Simulate the arrivals ``first`` to ``last - 1``; returns how many arrived (at or before ``until_s``)."""
    for i in range(first, last):
        now_s = state.requests[i].arrival_s
        if now_s > until_s:
            return i
        for j in range(len(state.instances)):
            if state.next_s[j] <= now_s:
                advance(state, j, now_s)
        route(state, view, policy, i)
    return last


def run_closed(state: State, view: FleetView, policy: Any, first: int, last: int, until_s: float) -> int:
    """The same where answers bring further requests: in order of time over all instances.

    ``first`` requests have arrived before; returns how many have when ``last`` have or none is left.
    """
    arrived = first
    while arrived < last:
        i = next_arrival(state)
        now_s = state.requests[i].arrival_s if i != NONE else np.inf
        j = _next_change(state, min(now_s, until_s))
        if j != NONE:
            if state.instances[j].doing != IDLE:
                finish(state, j)
            else:
                start(state, j)
        elif i == NONE or now_s > until_s:
            break
        else:
            take(state, i)
            arrived += 1
            route(state, view, policy, i)
            if state.requests[i].status == REFUSED:
                release_children(state, i, now_s)
    return arrived


@inline
def _next_change(state: Any, until_s: float) -> int:
    """The instance whose step ends first, up to ``until_s``, or starts first, before it; -1 if none.

    At equal times ends come before starts, and lower numbers first.
    """
    best, best_s, best_ends = NONE, np.inf, False
    for j in range(len(state.instances)):
        next_s = state.next_s[j]
        if next_s > until_s or next_s > best_s or next_s == np.inf:
            continue
        ends = state.instances[j].doing != IDLE
        if not ends and next_s == until_s:
            continue
        if next_s < best_s or (ends and not best_ends):
            best, best_s, best_ends = j, next_s, ends
    return best


@kernel
def drain(state: Any, until_s: float) -> None:
    """After the last arrival: let every instance work until it is empty, or until ``until_s``."""
    for j in range(len(state.instances)):
        advance(state, j, until_s)
        instance = state.instances[j]
        if instance.doing == JUMP and instance.planned > 1:
            _stop_jump(state, j, until_s)


@kernel
def _stop_jump(state: Any, j: int, until_s: float) -> None:
    """Count the steps of an unfinished jump that ended at or before ``until_s``."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    base_s = state.tables[0, instance.pool, instance.decoding]
    wanted_s = until_s - instance.start_s
    k = steps_to_reach(pool, base_s, instance.decoding, instance.kv_tokens, wanted_s)
    took_s = decode_jump_s(pool, base_s, instance.decoding, instance.kv_tokens, k)
    if took_s > wanted_s:
        k -= 1
        took_s = decode_jump_s(pool, base_s, instance.decoding, instance.kv_tokens, k)
    scheduled = blocks_of_steps(state.phases[j], pool.block_tokens, instance.decoding, instance.iteration + 1, k)
    instance.kv_peak_blocks = max(instance.kv_peak_blocks, pool.blocks - instance.free_blocks + scheduled)
    growth_s = pool.kv_s * instance.decoding
    first_s = decode_jump_s(pool, base_s, instance.decoding, instance.kv_tokens, 1)
    if k > 0:
        count_jump_gaps(state.gaps[instance.pool], state.decoding_of[j], first_s, growth_s, k)
    count_steps(instance, k)
    instance.busy_s += took_s
    instance.planned = 0


@cache
def compiled_run(closed: bool, state_type: Any, view_type: Any, policy_type: Any) -> Callable[..., int]:
    """``run_arrivals`` or ``run_closed`` compiled once for any policy, and cached on disk."""
    run = run_closed if closed else run_arrivals
    if not jit.ENABLED:
        return run
    integer, real = jit.type_of(0), jit.type_of(0.0)
    return jit.compiled(run, "int64", state_type, view_type, policy_type, integer, integer, real)

"""The event loop: whatever comes next, instances' steps, controls, or requests, in the order of the contract."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from infermix import jit
from infermix.jit import inline, kernel, part
from infermix.route.view import Ask, FleetView
from infermix.sim.batch import enqueue, finish, plan_steps, start
from infermix.sim.control import control, rest_if_drained, skip_readings, stop_jump
from infermix.sim.due import due_s_of, next_due, release_children, take
from infermix.sim.gate import lets_in
from infermix.sim.handoff import deliver, leave_source, send
from infermix.sim.kv import blocks_for
from infermix.sim.sequence import generated_now
from infermix.sim.state import (
    ARRIVES,
    BOTH,
    CONTEXT_TOKENS,
    DECODE,
    DELIVERED,
    DOWN,
    DRAINING,
    HANDS_OFF,
    IDLE,
    INFLIGHT,
    JUMP,
    NONE,
    PREFILL,
    QUEUED,
    QUEUED_TOKENS,
    REFUSED,
    UP,
    State,
)
from infermix.sim.step import steps_until
from infermix.sim.tree import replay


@inline
def advance(state: Any, j: int, horizon_s: float, only_one: bool) -> None:
    """What instance j does next, or all that ends at or before the horizon or starts before it."""
    instance = state.instances[j]
    while True:
        if instance.doing != IDLE:
            finish(state, j)
            if instance.status == DRAINING:
                rest_if_drained(state, j, instance.start_s)
        else:
            start(state, j)
        if only_one or state.next_s[j] > horizon_s or state.next_s[j] == np.inf:
            break
        if instance.doing == IDLE and state.next_s[j] == horizon_s:
            break
    replay(state, j)


@inline
def _fits(state: Any, i: int, p: int) -> bool:
    """Whether a pool serves the class and takes the prompt and a token."""
    pool = state.pools[p]
    room = min(pool.kv_tokens, pool.max_context)
    return bool(state.requests[i].input + 1 <= room and state.serves[p, state.requests[i].class_id])


@inline
def _may_take(state: Any, i: int, p: int, stage: int) -> bool:
    """Whether a pool may take request i at this stage of its life."""
    if not _fits(state, i, p):
        return False
    role = state.pools[p].role
    if stage == HANDS_OFF:
        return bool(role == DECODE)
    return bool(role == BOTH or (role == PREFILL and _decodes_somewhere(state, i)))


@part
def _decodes_somewhere(state: Any, i: int) -> bool:
    for p in range(len(state.pools)):
        if state.pools[p].role == DECODE and _fits(state, i, p):
            return True
    return False


@inline
def mark_eligible(state: Any, i: int, stage: int) -> bool:
    """Set the mask of instances that may take request i; False if there is none."""
    found = False
    for p in range(len(state.pools)):
        pool = state.pools[p]
        allowed = _may_take(state, i, p, stage)
        found = found or (allowed and pool.up > 0)
        if pool.allowed != allowed:
            pool.allowed = allowed
            for j in range(pool.first, pool.first + pool.instances):
                state.eligible[j] = allowed and state.instances[j].status == UP
    return found


@inline
def _could_finish(state: Any, i: int, p: int) -> bool:
    """Whether an instance of the pool has room for all of request i (a prefill instance: for its prompt)."""
    pool = state.pools[p]
    total = state.requests[i].input + state.requests[i].output
    if total > pool.max_context:
        return False
    return bool(pool.role == PREFILL or total - 1 <= pool.kv_tokens)


@part
def hand_over(state: Any, i: int, j: int, now_s: float) -> None:
    """Instance j takes request i at the end of its queue; its jump may have to end; its games are not yet played."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    first = enqueue(state, j, i, now_s)
    if instance.doing == JUMP and first and instance.running < pool.max_num_seqs:
        if pool.prefix_cache or blocks_for(state.requests[i].input, pool.block_tokens) <= instance.free_blocks:
            k = steps_until(state, j, now_s)
            if k < instance.planned:
                plan_steps(state, j, k)


@inline
def accept(state: Any, i: int, j: int, now_s: float) -> None:
    """Instance j takes a request that comes, or comes again."""
    state.requests[i].instance = j
    state.counters[INFLIGHT, j] += 1
    state.counters[QUEUED, j] += 1
    state.counters[QUEUED_TOKENS, j] += state.requests[i].input + state.requests[i].generated - state.requests[i].cached
    state.counters[CONTEXT_TOKENS, j] += state.requests[i].input
    hand_over(state, i, j, now_s)


@inline
def _ask(state: Any, i: int, stage: int, now_s: float) -> Ask:
    """What a gateway knows of request i; every field has one machine type, so that any policy takes it."""
    request = state.requests[i]
    extra = state.extras[i & state.clock[0].wide]
    whole: Any = np.int64
    c = whole(request.class_id)
    cached = request.input if stage == HANDS_OFF else request.cached
    number = whole(i + state.clock[0].first_number)
    return Ask(
        number, c, whole(0), whole(extra.session), now_s, whole(request.input), whole(cached),
        state.typical_output[c], whole(extra.priority), extra.deadline_s, request.u, whole(extra.prefix),
    )  # fmt: skip


@inline
def _choose(state: Any, view: Any, policy: Any, i: int, stage: int, now_s: float) -> int:
    """The policy's choice, as far as the gateway and the instance agree; -1: nobody."""
    if not mark_eligible(state, i, stage):
        return NONE
    ask = _ask(state, i, stage, now_s)
    if state.clock[0].stale_s > 0.0:
        for j in range(len(state.age_s)):
            state.age_s[j] = now_s - state.clock[0].reading_s
    if stage == ARRIVES and not lets_in(state, view, ask):
        return NONE
    j = policy(view, ask)
    if j < 0 or j >= len(state.instances) or not state.eligible[j]:
        return NONE
    p = state.instances[j].pool
    view.sent[ask.class_id, p] += 1
    return j if _could_finish(state, i, p) else NONE


@inline
def route(state: Any, view: Any, policy: Any, i: int, stage: int, now_s: float) -> int:
    """Request i comes, comes again, or moves on: the policy is asked and its choice takes it, or it is refused.

    Returns the instance that has something to do now, -1 if none has.
    """
    j = _choose(state, view, policy, i, stage, now_s)
    if j == NONE:
        state.requests[i].status = REFUSED
        if stage == HANDS_OFF:
            leave_source(state, i, now_s)
            state.requests[i].instance = NONE
        if state.clock[0].wide != 0:
            release_children(state, i, now_s)
    elif stage == HANDS_OFF:
        send(state, i, j, now_s)
        j = NONE
    else:
        accept(state, i, j, now_s)
    return j


@inline
def _deliver(state: Any, i: int, now_s: float) -> int:
    j = deliver(state, i, now_s)
    if j != NONE:
        hand_over(state, i, j, now_s)
    return j


def run(state: State, view: FleetView, policy: Any, first: int, last: int, until_s: float) -> int:
    """As ``_run``, for callers outside."""
    return _run(jit.refer(state), jit.refer(view), policy, first, last, until_s)


@part
def _run(state: Any, view: Any, policy: Any, first: int, last: int, until_s: float) -> int:
    """Simulate until ``last`` requests have arrived, ``first`` of them before; after the last one to the very end.

    Returns how many have arrived at or before ``until_s``.
    """
    clock: Any = state.clock[0]
    arrived, touched = first, NONE
    while True:
        i = next_due(state)
        due_s = due_s_of(state, i) if i != NONE else np.inf
        horizon_s = min(due_s, clock.control_s, until_s)
        while True:
            j = _next_instance(state, touched, horizon_s)
            touched = NONE
            if not _comes_by(state, j, horizon_s):
                break
            advance(state, j, horizon_s, clock.linked)
            if clock.wide != 0:
                i = next_due(state)
                due_s = due_s_of(state, i) if i != NONE else np.inf
                horizon_s = min(due_s, clock.control_s, until_s)
        if min(due_s, state.next_s[j]) == np.inf or min(due_s, clock.control_s) > until_s:
            break
        if clock.control_s <= due_s:
            _control(state, min(due_s, state.next_s[j], until_s))
            continue
        comes_first = i == clock.arrivals or state.extras[i].stage == ARRIVES
        if comes_first and arrived == last:
            break
        arrived += comes_first
        stage = take(state, i)
        clock.now_s = max(clock.now_s, due_s)
        if stage == DELIVERED:
            touched = _deliver(state, i, due_s)
        else:
            touched = route(state, view, policy, i, stage, due_s)
    return arrived


@inline
def _comes_by(state: Any, j: int, horizon_s: float) -> bool:
    """Whether what instance j does next ends by the horizon, or starts before it."""
    next_s = state.next_s[j]
    return bool(next_s < horizon_s or (next_s == horizon_s and next_s < np.inf and state.instances[j].doing != IDLE))


@inline
def _next_instance(state: Any, touched: int, horizon_s: float) -> int:
    """The instance that comes next; where nothing hangs on their order, the one just touched if it comes in time."""
    if touched != NONE:
        if not state.clock[0].linked and _comes_by(state, touched, horizon_s):
            return touched
        replay(state, touched)
    first: int = state.tree[1]
    return first


@part
def _control(state: Any, next_s: float) -> None:
    """What is due now; a reading only if something else happens before the next one."""
    clock = state.clock[0]
    now_s = clock.control_s
    if now_s == clock.next_reading_s:
        skip_readings(state, next_s)
    if clock.control_s == now_s:
        clock.now_s = max(clock.now_s, now_s)
        control(state, now_s)


@kernel
def close(state: Any, until_s: float) -> None:
    """At the end of a run: count the steps of jumps that ended before it did, and how long instances were on."""
    _close(jit.refer(state), until_s)


@part
def _close(state: Any, until_s: float) -> None:
    end_s = state.clock[0].now_s
    cut = next_due(state) != NONE
    for j in range(len(state.instances)):
        end_s = max(end_s, state.instances[j].start_s)
        cut = cut or state.next_s[j] < np.inf
    if cut and until_s < np.inf:
        end_s = until_s
    for j in range(len(state.instances)):
        instance = state.instances[j]
        if instance.doing == JUMP and instance.planned > 1 and until_s < np.inf:
            stop_jump(state, j, until_s)
    for j in range(len(state.instances)):
        instance = state.instances[j]
        if instance.status != DOWN:
            instance.on_s += end_s - instance.on_since_s
        slot = instance.head
        while slot != NONE:
            if state.slots[j, slot].decoding == 1:
                instance.decode_tokens += generated_now(state, j, slot) - state.slots[j, slot].had
            slot = state.slots[j, slot].next


@cache
def compiled_run(state_type: Any, view_type: Any, policy_type: Any) -> Callable[..., int]:
    """``run`` compiled once for any policy, and cached on disk."""
    if not jit.ENABLED:
        return run
    integer, real = jit.type_of(0), jit.type_of(0.0)
    return jit.compiled(run, "int64", state_type, view_type, policy_type, integer, integer, real)

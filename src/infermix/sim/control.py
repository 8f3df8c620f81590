"""What happens to instances and readings at times of their own: failures, drains, starts, autoscaling, old signals."""

from __future__ import annotations

from math import ceil
from typing import Any

import numpy as np

from infermix.jit import part
from infermix.sim import cache
from infermix.sim.batch import count_gaps_of, count_steps, send_back
from infermix.sim.kv import blocks_of_steps
from infermix.sim.sequence import generated_now, leave
from infermix.sim.state import (
    DELIVERED,
    DOWN,
    DRAIN,
    DRAINING,
    FAIL,
    HANDS_OFF,
    IDLE,
    INFLIGHT,
    JUMP,
    NONE,
    STARTING,
    UP,
)
from infermix.sim.step import jump_s, steps_until
from infermix.sim.tree import replay
from infermix.sim.waiting import drop_head, head_of


@part
def _next_change_s(state: Any) -> float:
    """When the next event, start or tick of autoscaling is due [s]."""
    clock = state.clock[0]
    soonest = np.inf
    if clock.event < len(state.events):
        soonest = min(soonest, state.events[clock.event].time_s)
    if clock.starting > 0:
        for j in range(len(state.instances)):
            if state.instances[j].status == STARTING:
                soonest = min(soonest, state.instances[j].ready_s)
    if clock.scaled:
        for p in range(len(state.pools)):
            soonest = min(soonest, state.pools[p].tick_s)
    return soonest


@part
def control(state: Any, now_s: float) -> None:
    """Everything that is due now, in the order of the contract."""
    clock = state.clock[0]
    if clock.next_reading_s == now_s:
        read_counters(state, now_s)
    while clock.event < len(state.events) and state.events[clock.event].time_s <= now_s:
        event = state.events[clock.event]
        clock.event += 1
        if event.what == FAIL:
            fail(state, event.instance, now_s)
        elif event.what == DRAIN:
            drain(state, event.instance, now_s)
        else:
            switch_on(state, event.instance, now_s)
    if clock.starting > 0:
        for j in range(len(state.instances)):
            if state.instances[j].status == STARTING and state.instances[j].ready_s <= now_s:
                clock.starting -= 1
                set_status(state, j, UP)
    if clock.scaled:
        for p in range(len(state.pools)):
            if state.pools[p].tick_s <= now_s:
                scale(state, p, now_s)
                state.pools[p].tick_s += state.pools[p].scale_every_s
    clock.control_s = min(clock.next_reading_s, _next_change_s(state))


@part
def read_counters(state: Any, now_s: float) -> None:
    """Policies see the counters as they are now, until the next reading."""
    clock = state.clock[0]
    for row in range(state.counters.shape[0]):
        for j in range(state.counters.shape[1]):
            state.seen[row, j] = state.counters[row, j]
    clock.reading_s = now_s
    clock.next_reading_s = (np.floor(now_s / clock.stale_s + 0.5) + 1.0) * clock.stale_s


@part
def skip_readings(state: Any, until_s: float) -> None:
    """Nothing happens before ``until_s``: of the readings before it only the last one counts."""
    clock = state.clock[0]
    until_s = min(until_s, _next_change_s(state))
    last_s = (ceil(until_s / clock.stale_s) - 1.0) * clock.stale_s
    if clock.next_reading_s < last_s < until_s:
        clock.next_reading_s = last_s
        clock.control_s = last_s


@part
def set_status(state: Any, j: int, status: int) -> None:
    """Instance j takes requests, or takes none any more."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    pool.up += int(status == UP) - int(instance.status == UP)
    instance.status = status
    state.eligible[j] = pool.allowed and status == UP


@part
def switch_off(state: Any, j: int, now_s: float) -> None:
    """Instance j is down from now on, and its memory empty."""
    instance = state.instances[j]
    set_status(state, j, DOWN)
    if state.pools[instance.pool].prefix_cache:
        cache.clear(state.cache, j)
        cache.clear(state.cache, len(state.instances) + j)
    instance.on_s += now_s - instance.on_since_s


@part
def switch_on(state: Any, j: int, now_s: float) -> None:
    """A draining instance takes requests again; one that is down loads its model first."""
    instance = state.instances[j]
    if instance.status == DRAINING:
        set_status(state, j, UP)
    elif instance.status == DOWN:
        instance.on_since_s = now_s
        start_s = state.pools[instance.pool].start_s
        if start_s > 0.0:
            set_status(state, j, STARTING)
            instance.ready_s = now_s + start_s
            state.clock[0].starting += 1
        else:
            set_status(state, j, UP)


@part
def drain(state: Any, j: int, now_s: float) -> None:
    """Instance j takes nothing new, and is down when it is empty."""
    if state.instances[j].status == UP:
        set_status(state, j, DRAINING)
        rest_if_drained(state, j, now_s)


@part
def rest_if_drained(state: Any, j: int, now_s: float) -> None:
    """A draining instance that is empty goes down."""
    instance = state.instances[j]
    if instance.status == DRAINING and state.counters[INFLIGHT, j] == 0 and instance.sending == 0:
        switch_off(state, j, now_s)


@part
def fail(state: Any, j: int, now_s: float) -> None:
    """Instance j is lost with all that it held; its requests arrive again."""
    instance = state.instances[j]
    if instance.status == DOWN:
        return
    if instance.status == STARTING:
        state.clock[0].starting -= 1
    last_token_s = _lose_step(state, j, now_s)
    while instance.head != NONE:
        slot = instance.head
        i = state.slots[j, slot].request
        if state.slots[j, slot].decoding == 1:
            state.requests[i].generated = generated_now(state, j, slot)
            instance.decode_tokens += state.requests[i].generated - state.slots[j, slot].had
            if state.slots[j, slot].chunk > 0 or state.slots[j, slot].began < instance.iteration:
                state.requests[i].stalled_s = last_token_s
        leave(state, j, slot)
        if state.pools[instance.pool].prefix_cache:
            cache.release(state.cache, j, state.extras[i].segment, 0, now_s)
        send_back(state, i, now_s)
    i = head_of(state, j)
    while i != NONE:
        drop_head(state, j, i)
        send_back(state, i, now_s)
        i = head_of(state, j)
    _empty(state, j)
    switch_off(state, j, now_s)
    replay(state, j)


@part
def _lose_step(state: Any, j: int, now_s: float) -> float:
    """The step in progress is lost, those of a jump that are over are not; returns the end of the last of them."""
    instance = state.instances[j]
    if instance.doing == IDLE:
        return float(now_s)
    last_s: float = instance.start_s
    if instance.doing == JUMP:
        last_s += stop_jump(state, j, now_s)
    instance.busy_s += now_s - last_s
    return last_s


@part
def stop_jump(state: Any, j: int, until_s: float) -> float:
    """Count the steps of an unfinished jump that ended at or before ``until_s``; returns what they took [s]."""
    instance = state.instances[j]
    stride = state.pools[instance.pool].stride
    k = steps_until(state, j, until_s)
    took_s = jump_s(state, j, k)
    if took_s > until_s - instance.start_s:
        k -= 1
        took_s = jump_s(state, j, k)
    scheduled = blocks_of_steps(state.phases[j], stride, instance.decoding, instance.iteration + 1, k)
    used = state.pools[instance.pool].blocks - instance.free_blocks
    instance.kv_peak_blocks = max(instance.kv_peak_blocks, used + scheduled)
    if k > 0:
        state.next_s[j] = instance.start_s + took_s
        count_gaps_of(state, j, k)
        count_steps(state, j, k)
    instance.busy_s += took_s
    instance.planned = 0
    return took_s


@part
def _empty(state: Any, j: int) -> None:
    """Nothing is left of what instance j had; requests on their way to it find another life."""
    instance = state.instances[j]
    pool = state.pools[instance.pool]
    for row in range(state.counters.shape[0]):
        state.counters[row, j] = 0
    for phase in range(state.phases.shape[1]):
        state.phases[j, phase] = 0
    for c in range(state.decoding_of.shape[1]):
        state.decoding_of[j, c] = 0
    for r in range(state.groups.shape[1]):
        state.groups[j, r].kv_tokens = 0.0
        state.groups[j, r].growth = 0.0
    if pool.prefix_cache:
        _release_senders(state, j)
    instance.decoding = 0
    instance.heap_size = 0
    instance.kv_tokens = 0.0
    instance.growth = 0.0
    instance.chunks = 0
    instance.joiners = 0
    instance.sending = 0
    instance.free_blocks = pool.blocks
    instance.doing = IDLE
    instance.life += 1
    state.next_s[j] = np.inf


@part
def _release_senders(state: Any, j: int) -> None:
    """Nobody protects any more what requests on their way from instance j have left there."""
    for place in range(state.clock[0].due):
        i = state.due[place]
        extra = state.extras[i]
        moves = extra.stage == HANDS_OFF or extra.stage == DELIVERED
        if moves and extra.prefill_instance == j and extra.source_life == state.instances[j].life:
            cache.release(state.cache, j, extra.segment, 0, 0.0)


@part
def scale(state: Any, p: int, now_s: float) -> None:
    """One tick of a pool's autoscaling."""
    pool = state.pools[p]
    inflight, on = 0, 0
    for j in range(pool.first, pool.first + pool.instances):
        status = state.instances[j].status
        if status != DOWN:
            inflight += state.counters[INFLIGHT, j]
        on += int(status == UP) + int(status == STARTING)
    wanted = min(max(int(ceil(inflight / pool.target_inflight)), pool.least), pool.instances)
    if on > wanted:
        pool.calm += 1
        if pool.calm >= pool.scale_down_after:
            _drain_last(state, p, on - wanted, now_s)
            pool.calm = 0
        return
    pool.calm = 0
    for status in (DRAINING, DOWN):
        for j in range(pool.first, pool.first + pool.instances):
            if on < wanted and state.instances[j].status == status:
                switch_on(state, j, now_s)
                on += 1


@part
def _drain_last(state: Any, p: int, many: int, now_s: float) -> None:
    pool = state.pools[p]
    j = pool.first + pool.instances - 1
    while many > 0 and j >= pool.first:
        if state.instances[j].status == UP:
            drain(state, j, now_s)
            many -= 1
        j -= 1

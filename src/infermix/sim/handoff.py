"""From a prefill instance to a decode instance: over two links that may be busy, and what is free when it is there."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.jit import part
from infermix.sim.batch import send_back
from infermix.sim.control import rest_if_drained
from infermix.sim.due import push
from infermix.sim.prefix import blocks_given_back, copy_to_tiers
from infermix.sim.state import (
    CONTEXT_TOKENS,
    DELIVERED,
    IDLE,
    INFLIGHT,
    QUEUED,
)
from infermix.sim.tree import replay


@part
def send(state: Any, i: int, j: int, now_s: float) -> None:
    """The KV cache of request i sets out for instance j as soon as both links are free."""
    extra = state.extras[i]
    source, target = state.instances[extra.prefill_instance], state.instances[j]
    one, other = state.pools[source.pool], state.pools[target.pool]
    tokens = state.requests[i].input + state.requests[i].generated - 1
    starts_s = max(now_s, source.link_s, target.link_s)
    takes_s = max(one.transfer_latency_s, other.transfer_latency_s) + tokens * max(
        one.transfer_s_per_token, other.transfer_s_per_token
    )
    source.link_s = starts_s + takes_s
    target.link_s = starts_s + takes_s
    source.link_busy_s += takes_s
    target.link_busy_s += takes_s
    source.sent_tokens += tokens
    extra.target_life = target.life
    state.requests[i].instance = j
    state.counters[INFLIGHT, j] += 1
    state.counters[QUEUED, j] += 1
    state.counters[CONTEXT_TOKENS, j] += state.requests[i].input
    push(state, i, starts_s + takes_s, DELIVERED)


@part
def leave_source(state: Any, i: int, now_s: float) -> None:
    """The prefill instance of request i has its blocks back, if it has not failed since."""
    extra = state.extras[i]
    p = extra.prefill_instance
    source = state.instances[p]
    if extra.source_life != source.life:
        return
    source.sending -= 1
    if state.pools[source.pool].prefix_cache:
        tokens = state.requests[i].input + state.requests[i].generated - 1
        source.free_blocks += blocks_given_back(state, p, i, tokens, extra.held, True, now_s)
        copy_to_tiers(state, p, i, tokens, now_s)
    else:
        source.free_blocks += extra.held
    if source.doing == IDLE and source.waiting > 0 and state.next_s[p] == np.inf:
        state.next_s[p] = now_s
        replay(state, p)
    rest_if_drained(state, p, now_s)


@part
def deliver(state: Any, i: int, now_s: float) -> int:
    """Request i is where it decodes; returns that instance, -1 if it has failed meanwhile and the request comes again.

    Nothing else takes the instance away: one that drains waits for what is on its way to it.
    """
    j: int = state.requests[i].instance
    leave_source(state, i, now_s)
    if state.instances[j].life == state.extras[i].target_life:
        return j
    send_back(state, i, now_s)
    return -1

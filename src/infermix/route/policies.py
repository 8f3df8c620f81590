"""Routing policies: plain functions of what a gateway can see, compiled by the simulator.

Each answers the number of an instance, or -1 when none is eligible. A fallback is the same policy
asked again with the first choice masked in ``view.eligible``.
"""

from __future__ import annotations

import numpy as np

from infermix.jit import inline, kernel
from infermix.route.scorers import wait_s
from infermix.route.view import Ask, FleetView


@kernel
def round_robin(view: FleetView, ask: Ask) -> int:
    """Eligible instances in turn, by the number of the request. Wins only where all are alike and lengths too."""
    eligible = 0
    for j in range(len(view.pool)):
        eligible += view.eligible[j]
    if eligible == 0:
        return -1
    rank = ask.number % eligible
    for j in range(len(view.pool)):
        if view.eligible[j]:
            if rank == 0:
                return j
            rank -= 1
    return -1


@inline
def _emptier(view: FleetView, j: int, other: int) -> bool:
    """Whether instance j fills less of its batch than another: inflight / max_num_seqs, without dividing."""
    return bool(view.inflight[j] * view.max_num_seqs[other] < view.inflight[other] * view.max_num_seqs[j])


@inline
def _least_wait_among(
    view: FleetView, ask: Ask, pool: int, first: int, last: int, best: int, best_wait: float
) -> tuple[int, float]:
    """The best of instances ``first`` to ``last - 1`` and of what was best before."""
    for j in range(first, last):
        if not view.eligible[j] or (pool >= 0 and view.pool[j] != pool):
            continue
        wait = wait_s(view, ask, j)
        if wait > best_wait:
            continue
        if best < 0 or wait < best_wait or _emptier(view, j, best):
            best, best_wait = j, wait
    return best, best_wait


@inline
def _least_wait_in(view: FleetView, ask: Ask, pool: int) -> int:
    """Least modelled wait among the eligible instances of a pool (-1: of all pools), from a new one on each time."""
    count = len(view.pool)
    start = ask.number % count
    best, best_wait = _least_wait_among(view, ask, pool, start, count, -1, np.inf)
    best, best_wait = _least_wait_among(view, ask, pool, 0, start, best, best_wait)
    return best


@kernel
def least_wait(view: FleetView, ask: Ask) -> int:
    """The instance that would turn to the request first; ties go to the emptier batch, then in turn."""
    return _least_wait_in(view, ask, -1)


@kernel
def pool_split(view: FleetView, ask: Ask) -> int:
    """Follow the plan's shares: the pool furthest behind its share of the class, and least wait inside it."""
    total = 0
    for p in range(view.share.shape[1]):
        total += view.sent[ask.class_id, p]
    best, best_lag = -1, -np.inf
    for p in range(view.share.shape[1]):
        share = view.share[ask.class_id, p]
        if share <= 0.0:
            continue
        lag = share * (1 + total) - view.sent[ask.class_id, p]
        if lag > best_lag and _any_eligible(view, p):
            best, best_lag = p, lag
    return _least_wait_in(view, ask, best) if best >= 0 else -1


@inline
def _any_eligible(view: FleetView, pool: int) -> bool:
    for j in range(len(view.pool)):
        if view.pool[j] == pool and view.eligible[j]:
            return True
    return False

"""Routing policies: plain functions of what a gateway can see, compiled by the simulator.

Each answers the number of an instance, or -1 when none is eligible. A fallback is the same policy
asked again with the first choice masked in ``view.eligible``. Which wins where: ``docs/design/routing.md``.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from infermix.jit import inline, part
from infermix.route.admit import in_time
from infermix.route.luck import unit_of
from infermix.route.scorers import (
    predicted_e2e_s,
    predicted_ttft_s,
    price_and_delay_usd,
    queue_s,
    slo_use,
    usd_per_request,
    wait_s,
)
from infermix.route.view import Ask, FleetView

SPILL_FACTOR = 2.0
"""Affinity holds while the wait at home is at most this many times the least wait, and a reading of the prompt."""
SURELY = 1.0 - 1e-13
"""Far more than what rounding takes from a bound."""


@part
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
def _is_idle(view: FleetView, j: int, pool: int) -> bool:
    """Whether an eligible instance of a pool (-1: of all pools) is idle: no wait is less, no batch emptier."""
    idle = view.inflight[j] == 0 and view.queued_tokens[j] == 0
    return bool(idle and view.eligible[j] and (pool < 0 or view.pool[j] == pool))


@inline
def _idle_from(view: FleetView, start: int, pool: int) -> int:
    """The first idle instance from ``start`` on, then from the first on; -1: none."""
    for j in range(start, len(view.pool)):
        if _is_idle(view, j, pool):
            return j
    for j in range(start):
        if _is_idle(view, j, pool):
            return j
    return -1


@inline
def _least_wait_in(view: FleetView, ask: Ask, pool: int) -> int:
    """Least modelled wait among the eligible instances of a pool (-1: of all pools), from a new one on each time."""
    count = len(view.pool)
    j = ask.number % max(count, 1)
    best, best_wait = _idle_from(view, j, pool), np.inf
    if best >= 0:
        return best
    for _ in range(count):
        wait = wait_s(view, ask, j)
        if wait <= best_wait and view.eligible[j] and (pool < 0 or view.pool[j] == pool):
            if best < 0 or wait < best_wait or _emptier(view, j, best):
                best, best_wait = j, wait
        j = j + 1 if j + 1 < count else 0
    return best


@part
def least_wait(view: FleetView, ask: Ask) -> int:
    """The instance that would turn to the request first; ties go to the emptier batch, then in turn.

    Wins where every instance keeps every promise that is made, so that only queues matter.
    """
    return _least_wait_in(view, ask, -1)


@part
def pool_split(view: FleetView, ask: Ask) -> int:
    """Follow the plan's shares: the pool furthest behind its share of the class, and least wait inside it.

    Wins where traffic is as planned: what is proved is this, and classes keep out of each other's way.
    """
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


Score = Callable[[FleetView, Ask, int], float]
Test = Callable[[FleetView, Ask, int], bool]


@inline
def _anyone(view: FleetView, ask: Ask, j: int) -> bool:  # noqa: ARG001
    return True


@inline
def _in_slo(view: FleetView, ask: Ask, j: int) -> bool:
    return slo_use(view, ask, j) <= 1.0


@inline
def _in_flight(view: FleetView, ask: Ask, j: int) -> float:  # noqa: ARG001
    return float(view.inflight[j])


@inline
def _fullness(view: FleetView, ask: Ask, j: int) -> float:  # noqa: ARG001
    return float(view.inflight[j] / view.max_num_seqs[j])


@inline
def _least(view: FleetView, ask: Ask, keep: Test, score: Score, tie: Score) -> int:
    """Of eligible instances that pass a test the one with the least score, then the least tie, then in turn."""
    count = len(view.pool)
    start = ask.number % max(count, 1)
    best, best_score = -1, np.inf
    for k in range(count):
        j = start + k if start + k < count else start + k - count
        if not view.eligible[j] or not keep(view, ask, j):
            continue
        mine = score(view, ask, j)
        if best < 0 or mine < best_score or (mine == best_score and tie(view, ask, j) < tie(view, ask, best)):
            best, best_score = j, mine
    return best


@part
def least_inflight(view: FleetView, ask: Ask) -> int:
    """Fewest requests in flight, ties in turn. Wins where speeds are alike and nothing is known of prompts."""
    return _least(view, ask, _anyone, _in_flight, _fullness)


@inline
def _better_of(view: FleetView, ask: Ask, first: int, second: int) -> int:
    """The one with less wait, then the emptier batch, then the first."""
    one, other = wait_s(view, ask, first), wait_s(view, ask, second)
    if other < one or (other == one and _emptier(view, second, first)):
        return second
    return first


@inline
def _eligible_at(view: FleetView, rank: int) -> int:
    """The eligible instance of that rank, from 0."""
    for j in range(len(view.pool)):
        if view.eligible[j]:
            if rank == 0:
                return j
            rank -= 1
    return -1


@part
def power_of_two(view: FleetView, ask: Ask) -> int:
    """Of two eligible instances drawn by lot the one with less wait; looks at two only, unless one is masked.

    Wins where the fleet is large and alike, or counters are old: nobody is everybody's favourite. Draws that meet a
    masked instance are drawn anew among eligible ones, so that every pair of those is as likely as any other.
    """
    count = len(view.pool)
    if count > 1:
        place = ask.u * count
        first = min(int(place), count - 1)
        second = min(int((place - first) * (count - 1)), count - 2)
        second += second >= first
        if view.eligible[first] and view.eligible[second]:
            return _better_of(view, ask, first, second)
    eligible = 0
    for j in range(count):
        eligible += view.eligible[j]
    if eligible < 2:
        return _eligible_at(view, 0)
    luck = int(ask.u * 4294967296.0)
    rank = int(unit_of(luck, 0) * eligible)
    other = int(unit_of(luck, 1) * (eligible - 1))
    other += other >= rank
    return _better_of(view, ask, _eligible_at(view, rank), _eligible_at(view, other))


@inline
def _winner(view: FleetView, key: int) -> int:
    """The eligible instance that wins the key's lottery, its chances as its tokens a second.

    The least draw wins, ``-log(u) s``. Since ``-log(u) >= 1 - u``, few instances need a logarithm.
    """
    best, best_draw = -1, np.inf
    for j in range(len(view.pool)):
        u = unit_of(key, j)
        if (1.0 - u) * view.step_s[j] * SURELY < best_draw * view.max_num_seqs[j] and view.eligible[j]:
            draw = _draw(view, u, j)
            if draw < best_draw:
                best, best_draw = j, draw
    return best


@inline
def _draw(view: FleetView, u: float, j: int) -> float:
    draw: float = -np.log(u) * view.step_s[j] / view.max_num_seqs[j]
    return draw


@inline
def _home(view: FleetView, ask: Ask, key: int) -> int:
    """Rendezvous: the winner of the key's lottery among the eligible instances that have time.

    Time has whose wait is at most ``SPILL_FACTOR`` times the least, and reading the whole prompt.
    """
    home = _winner(view, key)
    if home < 0 or queue_s(view, ask, home) <= ask.input_tokens * view.prefill_s_per_token[home]:
        return home
    return _home_in_time(view, ask, key)


@part
def _home_in_time(view: FleetView, ask: Ask, key: int) -> int:
    """As ``_home``, when the winner of all may not have time."""
    least = np.inf
    for j in range(len(view.pool)):
        if view.eligible[j]:
            least = min(least, queue_s(view, ask, j))
    best, best_draw = -1, np.inf
    for j in range(len(view.pool)):
        if not view.eligible[j]:
            continue
        reading = ask.input_tokens * view.prefill_s_per_token[j]
        if queue_s(view, ask, j) <= SPILL_FACTOR * least + reading:
            draw = _draw(view, unit_of(key, j), j)
            if draw < best_draw:
                best, best_draw = j, draw
    return best


@part
def session_affinity(view: FleetView, ask: Ask) -> int:
    """A session's own instance as long as its wait bears it; requests without a session go where the wait is least.

    Wins where turns share long prefixes that stay in the instance's KV cache: coding agents, long conversations.
    """
    if ask.session < 0:
        return _least_wait_in(view, ask, -1)
    return _home(view, ask, ask.session)


@part
def prefix_affinity(view: FleetView, ask: Ask) -> int:
    """The instance of the prompt's first blocks, else of its session, as long as its wait bears it; else least wait.

    Wins where many conversations begin alike: long system prompts, templates, documents asked about again.
    """
    if ask.prefix >= 0:
        return _home(view, ask, ask.prefix)
    if ask.session >= 0:
        return _home(view, ask, ask.session)
    return _least_wait_in(view, ask, -1)


@part
def cheapest_meeting_slo(view: FleetView, ask: Ask) -> int:
    """Least price per request among instances predicted to keep the promise, else the one that misses it least.

    Wins where chips of very different price share classes of different urgency. Equal prices: soonest done.
    """
    best = _least(view, ask, _in_slo, usd_per_request, predicted_e2e_s)
    return best if best >= 0 else _least(view, ask, _anyone, slo_use, predicted_e2e_s)


@part
def slo_headroom(view: FleetView, ask: Ask) -> int:
    """The largest margin to the tightest promise; without a promise the soonest done.

    Wins on attainment where the fleet is paid for anyway and several kinds of targets are tight at once.
    """
    return _least(view, ask, _anyone, slo_use, predicted_e2e_s)


@part
def price_of_delay(view: FleetView, ask: Ask) -> int:
    """Least price of the request and of its user's time together: a worth of nothing is cheapest, of all fastest.

    Wins where waiting has a price that differs by class, promises or none; without one it is the cheapest instance.
    """
    return _least(view, ask, _anyone, price_and_delay_usd, predicted_e2e_s)


@part
def pool_split_spill(view: FleetView, ask: Ask) -> int:
    """The plan's shares, but where that pool would break the promise and another would not, that other.

    Wins where one pool is short and another has room, as after failures; spills to pools with a share of 0, too.
    """
    planned = pool_split(view, ask)
    if planned >= 0 and _in_slo(view, ask, planned):
        return planned
    other = _least(view, ask, _in_slo, slo_use, predicted_e2e_s)
    if planned >= 0 and other < 0:
        return planned
    return other if other >= 0 else _least(view, ask, _anyone, slo_use, predicted_e2e_s)


@part
def deadline(view: FleetView, ask: Ask) -> int:
    """The instance that is done soonest, of those in time; late on all: refused if the class says so, else soonest.

    Wins under overload: what cannot be in time any more makes nobody else late.
    """
    best = _least(view, ask, in_time, predicted_e2e_s, predicted_ttft_s)
    if best >= 0 or view.refuse_late[ask.class_id]:
        return best
    return _least(view, ask, _anyone, predicted_e2e_s, predicted_ttft_s)

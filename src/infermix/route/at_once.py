"""Policies over all instances at once, in NumPy: what plain Python decides with where instances are many.

Each picks what its namesake in ``route.policies`` picks, to the last bit: the same operations in the same order, on
columns in place of numbers. What those say of a policy holds here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from infermix.arrays import Bools, Floats, Ints
from infermix.route import admit
from infermix.route.policies import SPILL_FACTOR
from infermix.route.view import Ask, FleetView

MANY = 8
"""From so many instances on this is faster than a loop."""

_deadline_s: Callable[[FleetView, Ask], float] = getattr(admit.deadline_s, "py_func", admit.deadline_s)


# Scores, as in ``route.scorers``, a column each.


class Predicted(NamedTuple):
    """Of a request on every instance [s]."""

    ttft: Floats
    tpot: Floats
    e2e: Floats


def _wait_s(view: FleetView, ask: Ask) -> Floats:
    wait = view.queued_tokens * view.prefill_s_per_token
    excess = view.inflight + 1 - view.max_num_seqs
    over = excess > 0
    if over.any():
        wait = np.where(over, wait + excess * ask.typical_output_tokens * view.step_s / view.max_num_seqs, wait)
    return wait


def _seats(view: FleetView, context: Floats | float) -> Floats:
    fit: Floats = np.maximum(1.0, view.kv_capacity_tokens / np.maximum(context, 1.0))
    seats: Floats = np.minimum(fit, view.max_num_seqs)
    return seats


def _context_and_room(view: FleetView, ask: Ask) -> tuple[Floats, Floats]:
    """Mean context of those in flight, this one among them, and seats for such."""
    prompts = (view.context_tokens + ask.input_tokens) / (view.inflight + 1)
    context = prompts + 0.5 * ask.typical_output_tokens
    return context, _seats(view, context)


def _each_s(view: FleetView, context: Floats | float) -> Floats:
    each: Floats = view.step_per_seq_s + view.step_per_kv_s * context
    return each


def _queue_s(view: FleetView, ask: Ask, context: Floats, room: Floats) -> Floats:
    wait = view.queued_tokens * view.prefill_s_per_token
    excess = view.inflight + 1 - room
    over = excess > 0.0
    if over.any():
        step = view.step_base_s + room * _each_s(view, context)
        wait = np.where(over, wait + excess * ask.typical_output_tokens * step / room, wait)
    return wait


def _own_prefill_s(view: FleetView, ask: Ask) -> Floats:
    return (ask.input_tokens - ask.cached_tokens) * view.prefill_s_per_token


def _predicted(view: FleetView, ask: Ask) -> Predicted:
    context, room = _context_and_room(view, ask)
    batch = np.minimum(view.inflight + 1.0, room)
    step = view.step_base_s + batch * _each_s(view, context)
    prefill = _own_prefill_s(view, ask)
    ttft = _queue_s(view, ask, context, room) + prefill + step
    tpot = step + (batch - 1.0) * prefill / max(ask.typical_output_tokens, 1.0)
    return Predicted(ttft, tpot, ttft + max(ask.typical_output_tokens - 1.0, 0.0) * tpot)


def _usd(view: FleetView, ask: Ask) -> Floats:
    context = ask.input_tokens + 0.5 * ask.typical_output_tokens
    room = _seats(view, context)
    step = (view.step_base_s + room * _each_s(view, context)) / room
    usd = view.usd_per_s * (_own_prefill_s(view, ask) + ask.typical_output_tokens * step)
    return np.where(np.isnan(usd), np.inf, usd)


def _slo_use(view: FleetView, ask: Ask, predicted: Predicted) -> Floats:
    c = ask.class_id
    grace = view.slo_ttft_s_per_token[c] * (ask.input_tokens - ask.cached_tokens)
    used = predicted.ttft / (view.slo_ttft_s[c] + grace)
    if ask.typical_output_tokens > 1.0:
        used = np.maximum(used, predicted.tpot / view.slo_tpot_s[c])
    most: Floats = np.maximum(used, predicted.e2e / view.slo_e2e_s[c])
    return most


# Choosing among columns.


def _in_turn(view: FleetView, ask: Ask, places: Ints) -> int:
    """The first of these instances from the request's number on."""
    start = ask.number % max(len(view.pool), 1)
    at = int(np.searchsorted(places, start))
    return int(places[at if at < len(places) else 0])


def _least(view: FleetView, ask: Ask, kept: Bools, score: Any, tie: Any) -> int:
    """Of the instances that are kept the one with the least score, then the least tie, then in turn; -1: none."""
    places = np.flatnonzero(kept)
    for column in (score, tie):
        if len(places) > 1:
            values = column[places]
            places = places[values == values.min()]
    return _in_turn(view, ask, places) if len(places) else -1


def _fullness(view: FleetView) -> Floats:
    return view.inflight / view.max_num_seqs


def _unit_of(key: int, numbers: Any) -> Any:
    """As ``route.luck.unit_of``."""
    return (_mixed((_mixed(key & 0xFFFFFFFF) + (numbers + 1) * 0x1E3779B1) & 0xFFFFFFFF) + 0.5) * (1.0 / 4294967296.0)


def _mixed(x: Any) -> Any:
    x = (x ^ (x >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    x = (x ^ (x >> 16)) * 0x45D9F3B & 0xFFFFFFFF
    return x ^ (x >> 16)


# The policies.


def round_robin(view: FleetView, ask: Ask) -> int:
    """Eligible instances in turn."""
    places = np.flatnonzero(view.eligible)
    return int(places[ask.number % len(places)]) if len(places) else -1


def least_inflight(view: FleetView, ask: Ask) -> int:
    """Fewest requests in flight."""
    return _least(view, ask, view.eligible, view.inflight, _fullness(view))


def least_wait(view: FleetView, ask: Ask) -> int:
    """Least modelled wait."""
    return _least(view, ask, view.eligible, _wait_s(view, ask), _fullness(view))


def power_of_two(view: FleetView, ask: Ask) -> int:
    """Less wait of two drawn by lot."""
    count = len(view.pool)
    if count > 1:
        place = ask.u * count
        first = min(int(place), count - 1)
        second = min(int((place - first) * (count - 1)), count - 2)
        second += second >= first
        if view.eligible[first] and view.eligible[second]:
            return _better_of(view, ask, first, second)
    places = np.flatnonzero(view.eligible)
    if len(places) < 2:
        return int(places[0]) if len(places) else -1
    luck = int(ask.u * 4294967296.0)
    rank = int(_unit_of(luck, 0) * len(places))
    other = int(_unit_of(luck, 1) * (len(places) - 1))
    other += other >= rank
    return _better_of(view, ask, int(places[rank]), int(places[other]))


def _better_of(view: FleetView, ask: Ask, first: int, second: int) -> int:
    wait, full = _wait_s(view, ask), _fullness(view)
    return second if (wait[second], full[second]) < (wait[first], full[first]) else first


def _home(view: FleetView, ask: Ask, key: int) -> int:
    """The winner of the key's lottery among the eligible instances that have time."""
    draws = -np.log(_unit_of(key, np.arange(len(view.pool)))) * view.step_s / view.max_num_seqs
    draws[~view.eligible] = np.inf
    home = _first_least(draws)
    if home < 0:
        return -1
    queue = _queue_s(view, ask, *_context_and_room(view, ask))
    if queue[home] <= ask.input_tokens * view.prefill_s_per_token[home]:
        return home
    reading = ask.input_tokens * view.prefill_s_per_token
    draws[queue > SPILL_FACTOR * queue[view.eligible].min() + reading] = np.inf
    return _first_least(draws)


def _first_least(column: Floats) -> int:
    """The first place of the least value; -1 where none is finite."""
    if not len(column):
        return -1
    place = int(column.argmin())
    return place if column[place] < np.inf else -1


def session_affinity(view: FleetView, ask: Ask) -> int:
    """The session's own instance while its wait bears it."""
    return least_wait(view, ask) if ask.session < 0 else _home(view, ask, ask.session)


def prefix_affinity(view: FleetView, ask: Ask) -> int:
    """The instance of the prompt's first blocks while its wait bears it."""
    return _home(view, ask, ask.prefix) if ask.prefix >= 0 else session_affinity(view, ask)


def pool_split(view: FleetView, ask: Ask) -> int:
    """The plan's shares, least wait inside the pool."""
    share, sent = view.share[ask.class_id], view.sent[ask.class_id]
    there = np.bincount(view.pool[view.eligible], minlength=len(share)) > 0
    lag = share * (1 + sent.sum()) - sent
    lag[~there | (share <= 0.0)] = -np.inf
    best = int(lag.argmax())
    if lag[best] == -np.inf:
        return -1
    return _least(view, ask, view.eligible & (view.pool == best), _wait_s(view, ask), _fullness(view))


def pool_split_spill(view: FleetView, ask: Ask) -> int:
    """The plan's shares, another pool where that one would break the promise."""
    planned, predicted = pool_split(view, ask), _predicted(view, ask)
    use = _slo_use(view, ask, predicted)
    if planned >= 0 and use[planned] <= 1.0:
        return planned
    other = _least(view, ask, view.eligible & (use <= 1.0), use, predicted.e2e)
    if planned >= 0 and other < 0:
        return planned
    return other if other >= 0 else _least(view, ask, view.eligible, use, predicted.e2e)


def cheapest_meeting_slo(view: FleetView, ask: Ask) -> int:
    """Least price among instances predicted to keep the promise."""
    predicted = _predicted(view, ask)
    use = _slo_use(view, ask, predicted)
    best = _least(view, ask, view.eligible & (use <= 1.0), _usd(view, ask), predicted.e2e)
    return best if best >= 0 else _least(view, ask, view.eligible, use, predicted.e2e)


def slo_headroom(view: FleetView, ask: Ask) -> int:
    """Largest margin to the promise."""
    predicted = _predicted(view, ask)
    return _least(view, ask, view.eligible, _slo_use(view, ask, predicted), predicted.e2e)


def price_of_delay(view: FleetView, ask: Ask) -> int:
    """Least price of request and user's time together."""
    e2e = _predicted(view, ask).e2e
    return _least(view, ask, view.eligible, _usd(view, ask) + view.delay_usd_per_s[ask.class_id] * e2e, e2e)


def deadline(view: FleetView, ask: Ask) -> int:
    """Soonest done; refuses what is late where the class says so."""
    predicted, c = _predicted(view, ask), ask.class_id
    first_most = view.slo_ttft_s[c] + view.slo_ttft_s_per_token[c] * (ask.input_tokens - ask.cached_tokens)
    in_time = ~(predicted.ttft > first_most) & (ask.now_s + predicted.e2e <= _deadline_s(view, ask))
    best = _least(view, ask, view.eligible & in_time, predicted.e2e, predicted.ttft)
    if best >= 0 or view.refuse_late[c]:
        return best
    return _least(view, ask, view.eligible, predicted.e2e, predicted.ttft)


AT_ONCE: dict[str, Callable[[FleetView, Ask], int]] = {
    policy.__name__: policy
    for policy in (
        round_robin, least_inflight, least_wait, power_of_two, session_affinity, prefix_affinity, pool_split,
        pool_split_spill, cheapest_meeting_slo, slo_headroom, price_of_delay, deadline,
    )
}  # fmt: skip

"""The routing policies in plain Python, as their definitions read."""

from __future__ import annotations

import math
from collections.abc import Callable

from infermix.route.view import Ask, FleetView

Score = Callable[[FleetView, Ask, int], float]


def _eligible(view: FleetView) -> list[int]:
    return [number for number in range(len(view.eligible)) if view.eligible[number]]


def round_robin(view: FleetView, ask: Ask) -> int:
    """The k-th eligible instance, k = index modulo their number."""
    choice = _eligible(view)
    return choice[ask.number % len(choice)] if choice else -1


def wait_s(view: FleetView, ask: Ask, number: int) -> float:
    """Modelled wait before one instance turns to the request."""
    slots = int(view.max_num_seqs[number])
    tokens = int(view.queued_tokens[number])
    over = max(0, int(view.inflight[number]) + 1 - slots)
    prefill = tokens * float(view.prefill_s_per_token[number])
    return prefill + over * ask.typical_output_tokens * float(view.step_s[number]) / slots


def _least_wait_of(view: FleetView, ask: Ask, choice: list[int]) -> int:
    if not choice:
        return -1

    def key(number: int) -> tuple[float, float, int]:
        load = int(view.inflight[number]) / int(view.max_num_seqs[number])
        turn = (number - ask.number) % len(view.pool)
        return wait_s(view, ask, number), load, turn

    return min(choice, key=key)


def least_wait(view: FleetView, ask: Ask) -> int:
    """Least modelled wait; ties: least inflight / max_num_seqs, then the first from number index on."""
    return _least_wait_of(view, ask, _eligible(view))


def pool_split(view: FleetView, ask: Ask) -> int:
    """The pool that is furthest behind its share, then the least wait in it."""
    total = sum(int(sent) for sent in view.sent[ask.class_id])
    best_pool, best_lag = -1, 0.0
    for pool in range(len(view.share[ask.class_id])):
        share = float(view.share[ask.class_id][pool])
        if share <= 0 or not any(int(view.pool[number]) == pool for number in _eligible(view)):
            continue
        lag = share * (1 + total) - int(view.sent[ask.class_id][pool])
        if best_pool < 0 or lag > best_lag:
            best_pool, best_lag = pool, lag
    return _least_wait_of(view, ask, [number for number in _eligible(view) if int(view.pool[number]) == best_pool])


# -- what one instance would do for the request -------------------------------------------------


def seats(view: FleetView, number: int, context: float) -> float:
    """How many sequences of that context decode together."""
    by_memory = int(view.kv_capacity_tokens[number]) / max(context, 1.0)
    return min(float(view.max_num_seqs[number]), max(1.0, by_memory))


def step_s(view: FleetView, number: int, batch: float, context: float) -> float:
    """A decode step of that many sequences of that context."""
    each = float(view.step_per_seq_s[number]) + float(view.step_per_kv_s[number]) * context
    return float(view.step_base_s[number]) + batch * each


def context_there(view: FleetView, ask: Ask, number: int) -> float:
    """Mean prompt in flight with this one, and half a typical answer."""
    prompts = (int(view.context_tokens[number]) + ask.input_tokens) / (int(view.inflight[number]) + 1)
    return prompts + 0.5 * ask.typical_output_tokens


def queue_s(view: FleetView, ask: Ask, number: int) -> float:
    """Prompts before this one, and places that must become free."""
    context = context_there(view, ask, number)
    room = seats(view, number, context)
    wait = int(view.queued_tokens[number]) * float(view.prefill_s_per_token[number])
    over = int(view.inflight[number]) + 1 - room
    if over > 0:
        wait += over * ask.typical_output_tokens * step_s(view, number, room, context) / room
    return wait


def own_s(view: FleetView, ask: Ask, number: int) -> float:
    """Reading what is not cached."""
    return (ask.input_tokens - ask.cached_tokens) * float(view.prefill_s_per_token[number])


def step_with_it_s(view: FleetView, ask: Ask, number: int) -> float:
    """The step of the batch with this request."""
    context = context_there(view, ask, number)
    return step_s(view, number, batch_with_it(view, ask, number), context)


def batch_with_it(view: FleetView, ask: Ask, number: int) -> float:
    """All in flight, as far as places reach."""
    room = seats(view, number, context_there(view, ask, number))
    return min(int(view.inflight[number]) + 1.0, room)


def ttft_s(view: FleetView, ask: Ask, number: int) -> float:
    """Queue, own prompt, one step."""
    return queue_s(view, ask, number) + own_s(view, ask, number) + step_with_it_s(view, ask, number)


def tpot_s(view: FleetView, ask: Ask, number: int) -> float:
    """A step, and its share of the prompts of those who replace the others."""
    others = (batch_with_it(view, ask, number) - 1.0) * own_s(view, ask, number)
    return step_with_it_s(view, ask, number) + others / max(ask.typical_output_tokens, 1.0)


def e2e_s(view: FleetView, ask: Ask, number: int) -> float:
    """First token, then the rest of a typical answer."""
    return ttft_s(view, ask, number) + max(ask.typical_output_tokens - 1.0, 0.0) * tpot_s(view, ask, number)


def usd(view: FleetView, ask: Ask, number: int) -> float:
    """Seconds of a busy instance times its price; no price: infinite."""
    context = ask.input_tokens + 0.5 * ask.typical_output_tokens
    room = seats(view, number, context)
    seconds = own_s(view, ask, number) + ask.typical_output_tokens * (step_s(view, number, room, context) / room)
    price = float(view.usd_per_s[number])
    return math.inf if math.isnan(price) else price * seconds


def ttft_target_s(view: FleetView, ask: Ask) -> float:
    """With the grace for uncached tokens."""
    grace = float(view.slo_ttft_s_per_token[ask.class_id]) * (ask.input_tokens - ask.cached_tokens)
    return float(view.slo_ttft_s[ask.class_id]) + grace


def slo_use(view: FleetView, ask: Ask, number: int) -> float:
    """The largest ratio of prediction to promise."""
    used = [ttft_s(view, ask, number) / ttft_target_s(view, ask)]
    used.append(e2e_s(view, ask, number) / float(view.slo_e2e_s[ask.class_id]))
    if ask.typical_output_tokens > 1:
        used.append(tpot_s(view, ask, number) / float(view.slo_tpot_s[ask.class_id]))
    return max(used)


# -- policies that look at them -----------------------------------------------------------------


def _first(view: FleetView, ask: Ask, choice: list[int], *keys: Score) -> int:
    """The least by some keys, then in turn from the request's number on."""

    def rank(number: int) -> tuple[float, ...]:
        return (*(key(view, ask, number) for key in keys), (number - ask.number) % len(view.pool))

    return min(choice, key=rank, default=-1)


def least_inflight(view: FleetView, ask: Ask) -> int:
    """Fewest in flight; ties: the emptier batch."""

    def inflight(view: FleetView, ask: Ask, number: int) -> float:
        return int(view.inflight[number])

    def fullness(view: FleetView, ask: Ask, number: int) -> float:
        return int(view.inflight[number]) / int(view.max_num_seqs[number])

    return _first(view, ask, _eligible(view), inflight, fullness)


def draws_of_two(view: FleetView, ask: Ask) -> tuple[int, int] | None:
    """The two instances that the lot names; None with fewer than two eligible ones."""
    choice = _eligible(view)
    if len(choice) < 2:
        return None
    count = len(view.pool)
    first, second = _two(ask.u * count % 1.0, int(ask.u * count), count)
    if view.eligible[first] and view.eligible[second]:
        return first, second
    luck = int(ask.u * 2**32)
    first = int(unit_of(luck, 0) * len(choice))
    first, second = _two(unit_of(luck, 1), first, len(choice))
    return choice[first], choice[second]


def _two(u: float, first: int, count: int) -> tuple[int, int]:
    others = [number for number in range(count) if number != first]
    return first, others[int(u * (count - 1))]


def power_of_two(view: FleetView, ask: Ask) -> int:
    """Of two by lot the one with less wait, then the emptier, then the first."""
    drawn = draws_of_two(view, ask)
    if drawn is None:
        return next(iter(_eligible(view)), -1)

    def key(number: int) -> tuple[float, float]:
        return wait_s(view, ask, number), int(view.inflight[number]) / int(view.max_num_seqs[number])

    return min(drawn, key=key)


def scrambled(x: int) -> int:
    """Two rounds of xor-shift and multiply modulo 2^32."""
    for _ in range(2):
        x = (x ^ (x >> 16)) * 0x45D9F3B % 2**32
    return x ^ (x >> 16)


def unit_of(key: int, number: int) -> float:
    """A number between 0 and 1 from two numbers."""
    return (scrambled((scrambled(key % 2**32) + (number + 1) * 0x1E3779B1) % 2**32) + 0.5) / 2**32


def home(view: FleetView, ask: Ask, key: int) -> int:
    """The winner of an exponential race at the rate of tokens a second, among those whose wait is bearable."""
    choice = _eligible(view)
    if not choice:
        return -1
    least = min(queue_s(view, ask, number) for number in choice)

    def bearable(number: int) -> bool:
        return queue_s(view, ask, number) <= 2 * least + ask.input_tokens * float(view.prefill_s_per_token[number])

    def arrives(number: int) -> float:
        return -math.log(unit_of(key, number)) * float(view.step_s[number]) / int(view.max_num_seqs[number])

    return min((number for number in choice if bearable(number)), key=arrives)


def session_affinity(view: FleetView, ask: Ask) -> int:
    """Home of the session, or least wait."""
    return home(view, ask, ask.session) if ask.session >= 0 else least_wait(view, ask)


def prefix_affinity(view: FleetView, ask: Ask) -> int:
    """Home of the prefix, else of the session, else least wait."""
    return home(view, ask, ask.prefix) if ask.prefix >= 0 else session_affinity(view, ask)


def cheapest_meeting_slo(view: FleetView, ask: Ask) -> int:
    """The cheapest that keeps the promise, else the least miss."""
    good = [number for number in _eligible(view) if slo_use(view, ask, number) <= 1]
    return _first(view, ask, good, usd, e2e_s) if good else slo_headroom(view, ask)


def slo_headroom(view: FleetView, ask: Ask) -> int:
    """The least share of the promise used up."""
    return _first(view, ask, _eligible(view), slo_use, e2e_s)


def price_of_delay(view: FleetView, ask: Ask) -> int:
    """Least price and worth of the wait together."""

    def together(view: FleetView, ask: Ask, number: int) -> float:
        return usd(view, ask, number) + float(view.delay_usd_per_s[ask.class_id]) * e2e_s(view, ask, number)

    return _first(view, ask, _eligible(view), together, e2e_s)


def pool_split_spill(view: FleetView, ask: Ask) -> int:
    """The plan's choice unless it breaks the promise and another keeps it."""
    planned = pool_split(view, ask)
    if planned >= 0 and slo_use(view, ask, planned) <= 1:
        return planned
    good = [number for number in _eligible(view) if slo_use(view, ask, number) <= 1]
    if good:
        return _first(view, ask, good, slo_use, e2e_s)
    return planned if planned >= 0 else slo_headroom(view, ask)


def deadline_of(view: FleetView, ask: Ask) -> float:
    """The request's own, else the class's, else what TTFT and TPOT imply for a typical answer."""
    if math.isfinite(ask.deadline_s):
        return ask.deadline_s
    promised = float(view.slo_e2e_s[ask.class_id])
    if math.isinf(promised):
        rest = max(ask.typical_output_tokens - 1.0, 0.0)
        promised = ttft_target_s(view, ask) + (rest * float(view.slo_tpot_s[ask.class_id]) if rest else 0.0)
    return ask.now_s + promised


def in_time(view: FleetView, ask: Ask, number: int) -> bool:
    """First token as promised, last before the deadline."""
    soon = ttft_s(view, ask, number) <= ttft_target_s(view, ask)
    return soon and ask.now_s + e2e_s(view, ask, number) <= deadline_of(view, ask)


def deadline(view: FleetView, ask: Ask) -> int:
    """Soonest done of those in time; else refused, or soonest done."""
    good = [number for number in _eligible(view) if in_time(view, ask, number)]
    if good or view.refuse_late[ask.class_id]:
        return _first(view, ask, good, e2e_s, ttft_s)
    return _first(view, ask, _eligible(view), e2e_s, ttft_s)

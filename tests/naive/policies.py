"""Three routing policies in plain Python, as their definitions read."""

from __future__ import annotations

from infermix.route.view import Ask, FleetView


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

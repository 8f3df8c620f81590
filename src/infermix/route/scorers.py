"""Scores of one instance for one request: seconds, dollars, and the share of a promise that is used up.

All of them lean on the modelled speeds of the view and on counters that a gateway keeps itself; how long the answer
will be is guessed from the class's history (``ask.typical_output_tokens``).
"""

from __future__ import annotations

import numpy as np

from infermix.jit import inline, part
from infermix.route.view import Ask, FleetView


@inline
def wait_s(view: FleetView, ask: Ask, j: int) -> float:
    """Modelled seconds before instance j turns to this request: prompts queued before it, slots that must become free.

    Slots become free at the rate ``max_num_seqs / (typical output x step)``.
    """
    wait: float = view.queued_tokens[j] * view.prefill_s_per_token[j]
    excess = view.inflight[j] + 1 - view.max_num_seqs[j]
    if excess > 0:
        wait += excess * ask.typical_output_tokens * view.step_s[j] / view.max_num_seqs[j]
    return wait


@inline
def seats(view: FleetView, j: int, context_tokens: float) -> float:
    """Sequences of such a context that instance j decodes together: as many as slots and KV memory take, at least 1."""
    fit: float = max(1.0, view.kv_capacity_tokens[j] / max(context_tokens, 1.0))
    return min(fit, float(view.max_num_seqs[j]))


@inline
def mean_context(view: FleetView, ask: Ask, j: int) -> float:
    """Context of a request in flight on instance j, this one among them, halfway through its answer [tokens]."""
    prompts: float = (view.context_tokens[j] + ask.input_tokens) / (view.inflight[j] + 1)
    return prompts + 0.5 * ask.typical_output_tokens


@inline
def step_s_of(view: FleetView, j: int, batch: float, context_tokens: float) -> float:
    """Modelled seconds of a decode step of ``batch`` sequences of such a context on instance j."""
    each = view.step_per_seq_s[j] + view.step_per_kv_s[j] * context_tokens
    seconds: float = view.step_base_s[j] + batch * each
    return seconds


@part
def queue_s(view: FleetView, ask: Ask, j: int) -> float:
    """As ``wait_s``, but places are also scarce where KV memory is: the wait that long contexts meet."""
    context = mean_context(view, ask, j)
    room = seats(view, j, context)
    wait: float = view.queued_tokens[j] * view.prefill_s_per_token[j]
    excess = view.inflight[j] + 1 - room
    if excess > 0.0:
        wait += excess * ask.typical_output_tokens * step_s_of(view, j, room, context) / room
    return wait


@inline
def own_prefill_s(view: FleetView, ask: Ask, j: int) -> float:
    """Modelled seconds that instance j reads this prompt's uncached tokens."""
    seconds: float = (ask.input_tokens - ask.cached_tokens) * view.prefill_s_per_token[j]
    return seconds


@inline
def batch_step_s(view: FleetView, ask: Ask, j: int) -> float:
    """Modelled seconds of a decode step of instance j with this request in its batch."""
    context = mean_context(view, ask, j)
    batch = min(view.inflight[j] + 1.0, seats(view, j, context))
    return step_s_of(view, j, batch, context)


@part
def predicted_ttft_s(view: FleetView, ask: Ask, j: int) -> float:
    """Modelled time to first token on instance j: the queue, the own prompt, and the step that they ride on."""
    return queue_s(view, ask, j) + own_prefill_s(view, ask, j) + batch_step_s(view, ask, j)


@part
def predicted_tpot_s(view: FleetView, ask: Ask, j: int) -> float:
    """Modelled time per output token on instance j.

    Its batch is taken to last: who finishes is replaced by a request like this one, whose prompt is read meanwhile.
    """
    context = mean_context(view, ask, j)
    batch = min(view.inflight[j] + 1.0, seats(view, j, context))
    others = (batch - 1.0) * own_prefill_s(view, ask, j) / max(ask.typical_output_tokens, 1.0)
    seconds: float = step_s_of(view, j, batch, context) + others
    return seconds


@part
def predicted_e2e_s(view: FleetView, ask: Ask, j: int) -> float:
    """Modelled time to the last token of a typical answer on instance j."""
    rest = max(ask.typical_output_tokens - 1.0, 0.0)
    return predicted_ttft_s(view, ask, j) + rest * predicted_tpot_s(view, ask, j)


@part
def usd_per_request(view: FleetView, ask: Ask, j: int) -> float:
    """Price of the time that this request takes of a busy instance j: reading, and its place in full batches [USD].

    It does not hang on the load of the moment. Infinite where the price of the instance is unknown.
    """
    context = ask.input_tokens + 0.5 * ask.typical_output_tokens
    room = seats(view, j, context)
    step = step_s_of(view, j, room, context) / room
    usd: float = view.usd_per_s[j] * (own_prefill_s(view, ask, j) + ask.typical_output_tokens * step)
    if np.isnan(usd):
        return np.inf
    return usd


@part
def slo_use(view: FleetView, ask: Ask, j: int) -> float:
    """Share of its tightest promise that the request would use up on instance j: 1 just meets it.

    One minus it is the margin; 0 where nothing was promised. TPOT is not asked where a typical answer has one token.
    """
    c = ask.class_id
    grace = view.slo_ttft_s_per_token[c] * (ask.input_tokens - ask.cached_tokens)
    used = predicted_ttft_s(view, ask, j) / (view.slo_ttft_s[c] + grace)
    if ask.typical_output_tokens > 1.0:
        used = max(used, predicted_tpot_s(view, ask, j) / view.slo_tpot_s[c])
    most: float = max(used, predicted_e2e_s(view, ask, j) / view.slo_e2e_s[c])
    return most


@part
def price_and_delay_usd(view: FleetView, ask: Ask, j: int) -> float:
    """Price of the request on instance j and what its user's waiting is worth, together."""
    usd: float = usd_per_request(view, ask, j) + view.delay_usd_per_s[ask.class_id] * predicted_e2e_s(view, ask, j)
    return usd

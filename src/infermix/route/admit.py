"""Deadlines: when a request is late, and whether it may be refused for that."""

from __future__ import annotations

import numpy as np

from infermix.jit import inline, part
from infermix.route.scorers import predicted_e2e_s, predicted_ttft_s
from infermix.route.view import Ask, FleetView


@inline
def deadline_s(view: FleetView, ask: Ask) -> float:
    """When the last token must be out: what the request says, else what its class was promised; inf: never.

    A class that was promised TTFT and TPOT but no time to the last token has those for a typical answer.
    """
    if ask.deadline_s < np.inf:
        return ask.deadline_s
    c = ask.class_id
    promised: float = view.slo_e2e_s[c]
    if promised == np.inf:
        grace = view.slo_ttft_s_per_token[c] * (ask.input_tokens - ask.cached_tokens)
        rest = max(ask.typical_output_tokens - 1.0, 0.0)
        promised = view.slo_ttft_s[c] + grace
        if rest > 0.0:
            promised += rest * view.slo_tpot_s[c]
    return ask.now_s + promised


@part
def in_time(view: FleetView, ask: Ask, j: int) -> bool:
    """Whether instance j would be done before the deadline, its first token as promised."""
    grace = view.slo_ttft_s_per_token[ask.class_id] * (ask.input_tokens - ask.cached_tokens)
    if predicted_ttft_s(view, ask, j) > view.slo_ttft_s[ask.class_id] + grace:
        return False
    return bool(ask.now_s + predicted_e2e_s(view, ask, j) <= deadline_s(view, ask))

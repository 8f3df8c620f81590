"""Scores of one instance for one request, in seconds."""

from __future__ import annotations

from infermix.jit import inline
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

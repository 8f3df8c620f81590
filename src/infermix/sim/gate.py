"""Whom the gateway turns away before it asks the policy: rations, full fleets, waits that are too long."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.jit import inline, part
from infermix.route.scorers import wait_s
from infermix.route.view import Ask, FleetView


@inline
def lets_in(state: Any, view: FleetView, ask: Ask) -> bool:
    """Whether the gateway asks the policy at all."""
    return len(state.gates) == 0 or _within_limits(state, view, ask)


@part
def _within_limits(state: Any, view: FleetView, ask: Ask) -> bool:
    gate = state.gates[ask.class_id]
    if gate.ration_per_s < np.inf or gate.ration_burst < np.inf:
        gate.left = min(gate.ration_burst, gate.left + (ask.now_s - gate.filled_s) * gate.ration_per_s)
        gate.filled_s = ask.now_s
        if gate.left < 1.0:
            return False
        gate.left -= 1.0
    if gate.shed_above < np.inf:
        seats, taken = 0, 0
        for j in range(len(view.pool)):
            if view.eligible[j]:
                seats += view.max_num_seqs[j]
                taken += view.inflight[j]
        if taken >= gate.shed_above * seats:
            return False
    if gate.max_wait_s < np.inf:
        for j in range(len(view.pool)):
            if view.eligible[j] and wait_s(view, ask, j) <= gate.max_wait_s:
                return True
        return False
    return True

"""Deployments whose step times were measured: their table, and the limits of the engine that was measured."""

from __future__ import annotations

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog.measured import Measured
from infermix.perf.deployment import Deployment


def measured_of(d: Deployment) -> Measured | None:
    """What was measured of this model on this layout of its system; None where steps are modelled."""
    layout = (d.model.id, d.tp, d.pp, d.dp, d.ep, d.stages)
    for own in d.system.measured:
        if (own.model, own.tp, own.pp, own.dp, own.ep, own.stages) == layout and d.spec is None:
            return own
    return None


def base_s(own: Measured, tokens: Floats) -> Floats:
    """Seconds of a step of so many tokens, beside what contexts and sequences add [s]."""
    arithmetic = own.token_s * tokens
    base: Floats = np.maximum(own.step_s, arithmetic) if own.overlap else own.step_s + arithmetic
    return base


def within_measured(d: Deployment) -> Deployment:
    """No more sequences and tokens at once than the engine that was measured takes."""
    own = measured_of(d)
    if own is None:
        return d
    seqs = min(d.max_num_seqs, own.max_num_seqs)
    tokens = max(seqs, min(d.max_batched_tokens, own.max_batched_tokens))
    return msgspec.structs.replace(d, max_num_seqs=seqs, max_batched_tokens=tokens)

"""Step time on chips that hold the weights in SRAM: layers stand in line, tokens pass through.

Every layer owns 1/L of the silicon. A *stage* is a layer; it works on a microbatch of b tokens at a
time: ``t_stage(b) = t_sync + weights read / BW_l + b flop / P_l``. With B sequences in flight:

- decode: every sequence gets a token each ``max(L, B/b) t_stage(b)``: flat while B <= L, then b grows;
- a prompt chunk of m tokens follows in microbatches and must drain: ``(L + T/b) t_stage(b)``;
- a sequence that verifies drafts passes with all its tokens in one microbatch.

Behaviour under concurrency follows from this arithmetic; no public measurement confirms it yet.
"""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats
from infermix.perf import model_cost, ops
from infermix.perf.deployment import Deployment

MICROBATCHES: Floats = np.array([2.0**i for i in range(13)])


def sync_s(d: Deployment) -> float:
    """Seconds a layer needs whatever it computes; MoE layers need more by a factor."""
    f = d.efficiency.figures
    factor = f["moe_layer_factor"].value if d.model.experts else 1.0
    return f["layer_s"].value * factor


def stage_s(d: Deployment, microbatch: Floats) -> Floats:
    """Seconds of one layer for a microbatch of b tokens, attention over the context left out."""
    model, layers = d.model, d.model.layers
    read = _weight_bytes_read(d, microbatch) / (_bandwidth(d) / layers)
    arithmetic = microbatch * model_cost.flop_per_token(model) / layers / (compute(d) / layers)
    return sync_s(d) + read + arithmetic


def decode_s(d: Deployment, tokens: Floats) -> Floats:
    """Seconds in which so many decoding sequences pass once [s]."""
    layers, width = float(d.model.layers), d.spec.width if d.spec else 1
    microbatch = np.maximum(1.0, tokens / layers) * width
    return layers * stage_s(d, microbatch) + draft_s(d, tokens) + _beside_s(d)


def draft_s(d: Deployment, sequences: Floats) -> Floats:
    """Seconds of drafting: one more layer for each token ahead [s]."""
    depth = d.spec.draft_layers if d.spec else 0
    return depth * stage_s(d, np.maximum(1.0, sequences / d.model.layers)) if depth else 0.0 * sequences


def mixed_s(d: Deployment, tokens: Floats) -> Floats:
    """Seconds until a step of so many tokens, a prompt chunk among them, has drained [s].

    The engine picks the microbatch that drains soonest.
    """
    layers = float(d.model.layers)
    drafted = np.minimum(tokens, d.max_num_seqs)
    verified = tokens + drafted * (d.spec.depth if d.spec else 0)
    each = np.maximum(verified, 1.0)
    microbatch = np.minimum(MICROBATCHES[:, None], each[None, :])
    best: Floats = ((layers + np.ceil(verified / MICROBATCHES[:, None])) * stage_s(d, microbatch)).min(axis=0)
    least: Floats = decode_s(d, drafted) - _beside_s(d)
    return np.maximum(best + draft_s(d, drafted), least) + _beside_s(d)


def kv_s(d: Deployment) -> float:
    """Seconds for each KV token read, at the layers with full attention: bandwidth, or arithmetic under MLA [s]."""
    model = d.model
    width = d.spec.width if d.spec else 1
    read = model_cost.context_bytes_per_token(model, d.kv) / _seeing(d) / _bandwidth(d)
    arithmetic = width * model_cost.context_flop_per_read(model) / _seeing(d) / compute(d)
    return model.layers * max(read, arithmetic)


def pair_s(d: Deployment) -> float:
    """Seconds for each pair of a prompt token and a token of its context, at the same layers [s]."""
    return d.model.layers * model_cost.context_flop_per_pair(d.model) / _seeing(d) / compute(d)


def load_s(d: Deployment) -> float:
    """Seconds to bring in one cached token's KV over the off-chip links.

    Contexts of idle sessions do not fit into SRAM, so a cached prefix comes from outside when its next
    request starts; every system of the replica loads its own layers' share at once.
    """
    links = d.efficiency.figures["offchip_bytes_per_s"].value * d.stages
    return model_cost.kv_bytes_per_token(d.model, d.kv) / links


def issue_interval_s(d: Deployment) -> float:
    """Seconds between two tokens that enter the line one by one [s]."""
    return float(stage_s(d, np.ones(1))[0])


def _seeing(d: Deployment) -> int:
    """Attention blocks that see the whole context, at least 1."""
    kinds = model_cost.attention_kinds(d.model)
    return max(1, kinds.full + kinds.sparse)


def _weight_bytes_read(d: Deployment, microbatch: Floats) -> Floats:
    """Bytes of one (mean) layer's weights that a microbatch reads; none where they are wired in."""
    if d.chip.only_models:
        return 0.0 * microbatch
    parts = model_cost.weight_parts(d.model, d.weights)
    touched = model_cost.experts_touched(d.model, microbatch) / d.model.experts if d.model.experts else 0.0
    return (parts.mixers + parts.mlp + parts.experts * touched + 0.0 * microbatch) / d.model.layers


def _beside_s(d: Deployment) -> float:
    """Hops between systems, and the vocabulary projection with sampling [s]."""
    f = d.efficiency.figures
    return d.stages * f["hop_s"].value + f["head_s"].value


def _bandwidth(d: Deployment) -> float:
    assert d.chip.sram_bytes_per_s is not None
    return d.chips * d.chip.sram_bytes_per_s.value


def compute(d: Deployment) -> float:
    """Arithmetic that all chips of a replica reach [FLOP/s]."""
    peak = ops.peak_flop_per_s(d.chip, "bf16")[0]
    return d.chips * peak * d.efficiency.figures["gemm_flop"].value

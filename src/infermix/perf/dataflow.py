"""Step time on chips that hold the weights in SRAM: layers stand in line, tokens pass through.

Every layer owns 1/L of the silicon. A *stage* is a layer; it works on a microbatch of b tokens at a
time: ``t_stage(b) = t_sync + weights read / BW_l + b flop / P_l``. With B sequences in flight:

- decode: every sequence gets a token each ``max(L, B/b) t_stage(b)``: flat while B <= L, then b grows;
- a prompt chunk of m tokens follows in microbatches and must drain: ``(L + T/b) t_stage(b)``.

Behaviour under concurrency follows from this arithmetic; no public measurement confirms it yet.
"""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats
from infermix.perf import model_cost, ops
from infermix.perf.deployment import Deployment

MICROBATCHES = 2.0 ** np.arange(0, 13)


def sync_s(d: Deployment) -> float:
    """Seconds a layer needs whatever it computes; MoE layers need more by a factor."""
    f = d.efficiency.figures
    factor = f["moe_layer_factor"].value if d.model.experts else 1.0
    return f["layer_s"].value * factor


def stage_s(d: Deployment, microbatch: Floats) -> Floats:
    """Seconds of one layer for a microbatch of b tokens, attention over the context left out."""
    model, layers = d.model, d.model.layers
    read = _weight_bytes_read(d, microbatch) / (_bandwidth(d) / layers)
    arithmetic = microbatch * model_cost.flop_per_token(model) / layers / (_compute(d) / layers)
    return sync_s(d) + read + arithmetic


def decode_s(d: Deployment, tokens: Floats) -> Floats:
    """Seconds in which each of so many decoding sequences gets one token [s]."""
    layers = float(d.model.layers)
    microbatch = np.maximum(1.0, tokens / layers)
    return layers * stage_s(d, microbatch) + _beside_s(d)


def mixed_s(d: Deployment, tokens: Floats) -> Floats:
    """Seconds until a step of so many tokens, a prompt chunk among them, has drained [s].

    The engine picks the microbatch that drains soonest.
    """
    layers = float(d.model.layers)
    best = np.full_like(tokens, np.inf)
    for b in MICROBATCHES:
        best = np.minimum(best, (layers + np.ceil(tokens / b)) * stage_s(d, np.minimum(b, np.maximum(tokens, 1.0))))
    return np.maximum(best, decode_s(d, np.minimum(tokens, d.max_num_seqs)) - _beside_s(d)) + _beside_s(d)


def kv_s(d: Deployment) -> float:
    """Seconds for each KV token read, at the layers with full attention [s]."""
    return d.model.layers * model_cost.kv_bytes_per_layer(d.model, d.kv) / _bandwidth(d)


def pair_s(d: Deployment) -> float:
    """Seconds for each pair of a prompt token and a token of its context, at the same layers [s]."""
    return d.model.layers * model_cost.flop_per_pair(d.model) / _compute(d)


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


def _weight_bytes_read(d: Deployment, microbatch: Floats) -> Floats:
    """Bytes of one (mean) layer's weights that a microbatch reads."""
    model, (dense, moe) = d.model, model_cost.layer_counts(d.model)
    total = model.layers * model_cost.attention_weights(model) * model_cost.bytes_per_weight(d.weights, "attention")
    total = total + dense * model_cost.dense_mlp_weights(model, model.ffn) * model_cost.bytes_per_weight(
        d.weights, "mlp"
    )
    per_layer = total / model.layers + 0.0 * microbatch
    if moe:
        routed = model_cost.experts_touched(model, microbatch) * model_cost.expert_weights(model)
        shared = model_cost.shared_expert_weights(model) + model.hidden * model.experts
        per_layer = per_layer + moe / model.layers * (
            routed * model_cost.bytes_per_weight(d.weights, "experts")
            + shared * model_cost.bytes_per_weight(d.weights, "mlp")
        )
    return per_layer


def _beside_s(d: Deployment) -> float:
    """Hops between systems, and the vocabulary projection with sampling [s]."""
    f = d.efficiency.figures
    return d.stages * f["hop_s"].value + f["head_s"].value


def _bandwidth(d: Deployment) -> float:
    assert d.chip.sram_bytes_per_s is not None
    return d.chips * d.chip.sram_bytes_per_s.value


def _compute(d: Deployment) -> float:
    peak = ops.peak_flop_per_s(d.chip, "bf16")[0]
    return d.chips * peak * d.efficiency.figures["gemm_flop"].value

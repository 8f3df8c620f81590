"""Step time on chips that stream weights from HBM."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats
from infermix.perf import comm, model_cost, ops
from infermix.perf.deployment import Deployment
from infermix.perf.memory import kv_replication


class StepParts(NamedTuple):
    """Where the time of the layers goes, over the tokens of a step [s]."""

    attention_gemm: Floats
    mlp: Floats
    collectives: Floats
    fixed: Floats


def layers_s(d: Deployment, tokens: Floats) -> StepParts:
    """Seconds of all layers for a step of so many tokens, attention over the context left out.

    Each of ``dp`` ranks computes an even share of the tokens.
    """
    model, dense_moe = d.model, model_cost.layer_counts(d.model)
    mine = np.ceil(tokens / d.dp)
    dense, moe = dense_moe
    mlp = dense * _dense_mlp_s(d, mine, model.ffn)
    if moe:
        mlp = mlp + moe * _moe_s(d, mine)
    reduced = mine * model.hidden * model_cost.ACTIVATION_BYTES
    collectives = 2 * model.layers * comm.all_reduce_s(d.chip, d.efficiency, d.tp, reduced)
    fixed = model.layers * (d.efficiency.figures["layer_s"].value + d.efficiency.figures["attention_floor_s"].value)
    return StepParts(model.layers * _attention_gemms_s(d, mine), mlp, collectives, fixed + 0.0 * mine)


def head_s(d: Deployment) -> float:
    """Vocabulary projection read once, and what the host does between steps [s]."""
    one = ops.gemm_s(d.chip, d.efficiency, "bf16", "bf16", np.ones(1), d.model.hidden, d.model.vocab / d.tp)
    return float(one[0]) + d.efficiency.figures["host_s"].value


def per_seq_s(d: Deployment) -> float:
    """Seconds for each sequence in the step: logits, and the windows of sliding layers [s]."""
    f = d.efficiency.figures
    assert d.chip.mem_bytes_per_s is not None
    logits = (
        2.0 * d.model.hidden * d.model.vocab / d.tp / (f["gemm_flop"].value * ops.peak_flop_per_s(d.chip, "bf16")[0])
    )
    windows = model_cost.kv_bytes_per_sequence(d.model, d.kv) * kv_replication(d) / d.tp
    return (logits + windows / (f["attention_bytes"].value * d.chip.mem_bytes_per_s.value)) / d.dp


def kv_s(d: Deployment) -> float:
    """Seconds for each KV token read by the batch [s]."""
    assert d.chip.mem_bytes_per_s is not None
    rate = d.efficiency.figures["attention_bytes"].value * d.chip.mem_bytes_per_s.value
    return model_cost.kv_bytes_per_token(d.model, d.kv) * kv_replication(d) / (d.tp * d.dp * rate)


def pair_s(d: Deployment) -> float:
    """Seconds for each pair of a prompt token and a token of its context [s]."""
    rate = d.efficiency.figures["attention_flop"].value * ops.peak_flop_per_s(d.chip, "bf16")[0]
    return model_cost.full_layers(d.model) * model_cost.flop_per_pair(d.model) / (d.tp * d.dp * rate)


def _attention_gemms_s(d: Deployment, tokens: Floats) -> Floats:
    model = d.model
    stored = "bf16" if d.weights == "mxfp4" else d.weights
    width = model.heads / d.tp + 2 * max(1.0, model.kv_heads / d.tp)
    qkv = ops.gemm_s(d.chip, d.efficiency, stored, stored, tokens, model.hidden, width * model.head_dim)
    out = ops.gemm_s(d.chip, d.efficiency, stored, stored, tokens, model.heads / d.tp * model.head_dim, model.hidden)
    window = model.sliding_window or 0
    sliding = (model.layers - model_cost.full_layers(model)) / model.layers
    rate = d.efficiency.figures["attention_flop"].value * ops.peak_flop_per_s(d.chip, "bf16")[0]
    return qkv + out + sliding * window * model_cost.flop_per_pair(model) * tokens / (d.tp * rate)


def _dense_mlp_s(d: Deployment, tokens: Floats, width: float) -> Floats:
    stored = "bf16" if d.weights == "mxfp4" else d.weights
    up = ops.gemm_s(
        d.chip, d.efficiency, stored, stored, tokens, d.model.hidden, (2 if d.model.gated_mlp else 1) * width / d.tp
    )
    down = ops.gemm_s(d.chip, d.efficiency, stored, stored, tokens, width / d.tp, d.model.hidden)
    return up + down


def _moe_s(d: Deployment, tokens: Floats) -> Floats:
    model = d.model
    touched = model_cost.experts_touched(model, tokens)
    copies = tokens * model.active_experts
    width = model.expert_ffn / d.tp
    up = ops.gemm_s(
        d.chip,
        d.efficiency,
        d.weights,
        d.weights,
        copies,
        model.hidden,
        (2 if model.gated_mlp else 1) * width,
        matrices=touched,
    )
    down = ops.gemm_s(d.chip, d.efficiency, d.weights, d.weights, copies, width, model.hidden, matrices=touched)
    router = ops.gemm_s(d.chip, d.efficiency, "bf16", "bf16", tokens, model.hidden, model.experts)
    shared = _dense_mlp_s(d, tokens, model.shared_experts * model.shared_expert_ffn) if model.shared_experts else 0.0
    return up + down + router + shared + d.efficiency.figures["moe_layer_s"].value

"""Step time on chips that hold the weights in SRAM: layers stand in line, tokens pass through.

A *place* in line is a layer, or a part of one where a family says ``stages_per_layer``; N places own 1/N
of the silicon each. A place works on a microbatch of b tokens at a time:
``t(b) = t_sync + weights read / BW_n + b flop / P_n``. With B sequences in flight:

- decode: every sequence gets a token each ``max(N, B/b) t(b)``: flat while B <= N, then b grows;
- a prompt chunk of T tokens follows in microbatches and must drain: ``(N + T/b) t(b)``;
- a sequence that verifies drafts passes with all its tokens in one microbatch.

NorthPole's published times agree with this (28 users on two models); on wafers and Groq chips no public
measurement tells of more than one user.
"""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats
from infermix.perf import model_cost, ops
from infermix.perf.deployment import Deployment

MICROBATCHES: Floats = np.array([2.0**i for i in range(13)])


def places(d: Deployment) -> float:
    """Stages in line: layers, or parts of them."""
    figures = d.efficiency.figures
    return d.model.layers * (figures["stages_per_layer"].value if "stages_per_layer" in figures else 1.0)


def sync_s(d: Deployment) -> float:
    """Seconds a layer needs whatever it computes; MoE layers need more by a factor."""
    f = d.efficiency.figures
    factor = f["moe_layer_factor"].value if d.model.experts else 1.0
    return f["layer_s"].value * factor


def stage_s(d: Deployment, microbatch: Floats) -> Floats:
    """Seconds of one place for a microbatch of b tokens, attention over the context left out."""
    line = places(d)
    read = _weight_bytes_read(d, microbatch) / line / (_bandwidth(d) / line)
    arithmetic = microbatch * model_cost.flop_per_token(d.model) / line / (compute(d) / line)
    return sync_s(d) * d.model.layers / line + read + arithmetic


def decode_s(d: Deployment, tokens: Floats) -> Floats:
    """Seconds in which so many decoding sequences pass once [s]."""
    line, width = places(d), d.spec.width if d.spec else 1
    microbatch = np.maximum(1.0, tokens / line) * width
    return line * stage_s(d, microbatch) + draft_s(d, tokens) + _beside_s(d)


def draft_s(d: Deployment, sequences: Floats) -> Floats:
    """Seconds of drafting: one more layer for each token ahead [s]."""
    depth, line = d.spec.draft_layers if d.spec else 0, places(d)
    each = depth * line / d.model.layers
    return each * stage_s(d, np.maximum(1.0, sequences / line)) if depth else 0.0 * sequences


def mixed_s(d: Deployment, tokens: Floats) -> Floats:
    """Seconds until a step of so many tokens, a prompt chunk among them, has drained [s].

    The engine picks the microbatch that drains soonest.
    """
    line = places(d)
    drafted = np.minimum(tokens, d.max_num_seqs)
    verified = tokens + drafted * (d.spec.depth if d.spec else 0)
    each = np.maximum(verified, 1.0)
    microbatch = np.minimum(MICROBATCHES[:, None], each[None, :])
    best: Floats = ((line + np.ceil(verified / MICROBATCHES[:, None])) * stage_s(d, microbatch)).min(axis=0)
    least: Floats = decode_s(d, drafted) - _beside_s(d)
    return np.maximum(best + draft_s(d, drafted), least) + _beside_s(d)


def kv_s(d: Deployment) -> float:
    """Seconds for each KV token read, at the layers with full attention: bandwidth, or arithmetic under MLA [s]."""
    model = d.model
    width = d.spec.width if d.spec else 1
    read = model_cost.context_bytes_per_token(model, d.kv) / _seeing(d) / _bandwidth(d)
    arithmetic = width * model_cost.context_flop_per_read(model) / _seeing(d) / compute(d)
    return places(d) * max(read, arithmetic)


def pair_s(d: Deployment) -> float:
    """Seconds for each pair of a prompt token and a token of its context, at the same layers [s]."""
    return places(d) * model_cost.context_flop_per_pair(d.model) / _seeing(d) / compute(d)


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
    """Bytes of all layers' weights that a microbatch reads on its way; none where they are wired in."""
    if d.chip.only_models:
        return 0.0 * microbatch
    parts = model_cost.weight_parts(d.model, d.weights)
    touched = model_cost.experts_touched(d.model, microbatch) / d.model.experts if d.model.experts else 0.0
    return parts.mixers + parts.mlp + parts.experts * touched + 0.0 * microbatch


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

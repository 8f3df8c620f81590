"""Attention and feed-forward on different machines: one keeps the KV cache, the other the experts.

Every layer runs attention on one deployment and its MLP or experts on another; activations go over and back, so
``T = L (t_attention + t_ffn + 2 t_net) / accepted_per_step``. While one half works on a batch the other is idle,
unless several batches are in flight, which raises throughput and leaves the time of a token.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from infermix.catalog import shape
from infermix.errors import InputError, NoAnswer
from infermix.perf import dataflow, model_cost, roofline
from infermix.perf.deployment import Deployment, check_deployment
from infermix.perf.memory import MOST_STAGES, capacity_bytes, kv_replication
from infermix.perf.table import missing_figures


class SplitSpeed(msgspec.Struct, kw_only=True):
    """Speed of a batch on two machines at once."""

    tpot_s: float
    tokens_per_s: float
    """Output with two batches in flight, so that neither half waits for the other."""
    tokens_per_s_user: float
    attention_s: float
    """All layers' attention, for a step [s]."""
    ffn_s: float
    network_s: float
    kv_tokens_left: int
    """On the machine that runs attention."""
    hypothetical: bool = True
    """No such pair has been shown to work at the figures told."""


def split_speed(attention: Deployment, ffn: Deployment, *, batch: int, context: float) -> SplitSpeed:
    """Speed when ``attention`` runs the attention blocks and ``ffn`` everything else.

    Parameters
    ----------
    batch, context
        Sequences that decode together, and the mean context of one [tokens].

    Raises
    ------
    InputError
        The two run different models, or ``attention`` is an SRAM machine, or ``ffn`` speculates otherwise.
    NoAnswer
        A half does not fit, or a figure is missing.
    """
    _check(attention, ffn)
    left = _kv_tokens_left(attention)
    if batch * context > left:
        raise NoAnswer(f"{batch} contexts of {context:,.0f} tokens exceed the {left:,} KV tokens left")
    held = _ffn_bytes(ffn)
    if held > capacity_bytes(ffn):
        raise NoAnswer(f"the feed-forward half ({held / 1e9:,.0f} GB) does not fit on {ffn.name}")
    tokens = np.array([float(batch * (attention.spec.width if attention.spec else 1))])
    attention_s, ffn_s = _attention_s(attention, tokens, batch, context), _ffn_s(ffn, tokens)
    network_s = 2 * attention.model.layers * _hop_s(attention, ffn, float(tokens[0]))
    kept = attention.spec.accepted_per_step if attention.spec else 1.0
    step = attention_s + ffn_s + network_s
    return SplitSpeed(
        tpot_s=step / kept,
        tokens_per_s=2 * batch * kept / (step + max(attention_s, ffn_s, network_s)),
        tokens_per_s_user=kept / step,
        attention_s=attention_s,
        ffn_s=ffn_s,
        network_s=network_s,
        kv_tokens_left=left,
    )


def fewest_for_ffn(ffn: Deployment) -> int | None:
    """Fewest SRAM machines in line that hold the feed-forward half; None if no number up to ``MOST_STAGES`` does."""
    fewest = max(1, math.ceil(_ffn_bytes(ffn) / capacity_bytes(msgspec.structs.replace(ffn, stages=1))))
    return fewest if fewest <= MOST_STAGES else None


def _check(attention: Deployment, ffn: Deployment) -> None:
    for d in (attention, ffn):
        check_deployment(d)
        if missing := missing_figures(d):
            raise NoAnswer(f"{d.chip.id}: no step time, the catalogue lacks {', '.join(missing)}")
    if attention.model.id != ffn.model.id or attention.spec != ffn.spec:
        raise InputError("both halves must run the same model with the same speculation")
    if attention.is_pipeline:
        allowed = "a machine that streams from memory; the KV cache is what SRAM has no room for"
        raise InputError("attention on an SRAM machine", value=attention.system.id, allowed=allowed)
    if attention.pp > 1 or ffn.pp > 1:
        raise InputError("a split goes through all layers on both machines", value="pp", allowed="pp = 1")


def _kv_tokens_left(d: Deployment) -> int:
    parts = model_cost.weight_parts(d.model, d.weights)
    free = capacity_bytes(d) - d.dp * (parts.mixers + parts.head + parts.embedding)
    return int(free // (kv_replication(d) * max(1.0, model_cost.kv_bytes_per_token(d.model, d.kv))))


def _ffn_bytes(d: Deployment) -> float:
    parts = model_cost.weight_parts(d.model, d.weights)
    copies = 1 if d.is_pipeline or d.ep > 1 else d.dp
    return parts.experts * copies + parts.mlp * (1 if d.is_pipeline else d.dp)


def _attention_s(
    d: Deployment, tokens: np.ndarray[tuple[int], np.dtype[np.float64]], batch: int, context: float
) -> float:
    """Attention of all layers, vocabulary and host included [s]."""
    stack, count, f = roofline.stack_s(d, tokens), shape.blocks(d.model), d.efficiency.figures
    mixers = count.attention + count.linear
    launches = d.model.layers * f["layer_s"].value / 2 + mixers * f["attention_floor_s"].value
    share = mixers / (mixers + count.dense + count.moe)
    beside = roofline.head_s(d) + batch * (roofline.per_seq_s(d) + roofline.kv_s(d) * context)
    return float(stack.mixers[0]) + share * float(stack.collectives[0]) + launches + beside


def _ffn_s(d: Deployment, tokens: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """MLPs and experts of all layers [s]."""
    if d.is_pipeline:
        return _ffn_in_sram_s(d, float(tokens[0]))
    stack, count, f = roofline.stack_s(d, tokens), shape.blocks(d.model), d.efficiency.figures
    share = (count.dense + count.moe) / (count.attention + count.linear + count.dense + count.moe)
    launches = d.model.layers * f["layer_s"].value / 2 + count.moe * f["moe_layer_s"].value
    return float(stack.mlp[0]) + float(stack.experts[0]) + share * float(stack.collectives[0]) + launches


def _ffn_in_sram_s(d: Deployment, tokens: float) -> float:
    """All tokens pass each layer together: half its synchronisation, its weights read once, its arithmetic [s]."""
    parts = model_cost.weight_parts(d.model, d.weights)
    touched = float(model_cost.experts_touched(d.model, np.array(tokens))) / d.model.experts if d.model.experts else 0.0
    assert d.chip.sram_bytes_per_s is not None
    read = d.model.layers * (parts.mlp + parts.experts * touched) / (d.chips * d.chip.sram_bytes_per_s.value)
    mlps = model_cost.flop_per_token(d.model) - 2 * _mixer_weights(d)
    return d.model.layers * dataflow.sync_s(d) / 2 + read + d.model.layers * tokens * mlps / dataflow.compute(d)


def _mixer_weights(d: Deployment) -> float:
    count = shape.blocks(d.model)
    return count.attention * shape.attention_weights(d.model) + count.linear * d.model.linear_weights


def _hop_s(attention: Deployment, ffn: Deployment, tokens: float) -> float:
    """One way between the machines, for the activations of a batch [s]."""
    network = attention.chip.scaleout_bytes_per_s
    if network is None:
        raise NoAnswer(f"{attention.chip.id}: the catalogue lacks scaleout_bytes_per_s")
    rates = [attention.chips * network.value * attention.efficiency.figures["internode_bytes"].value]
    if "offchip_bytes_per_s" in ffn.efficiency.figures:
        rates.append(ffn.stages * ffn.efficiency.figures["offchip_bytes_per_s"].value)
    elif ffn.chip.scaleout_bytes_per_s is not None:
        share = ffn.efficiency.figures["internode_bytes"].value
        rates.append(ffn.chips * ffn.chip.scaleout_bytes_per_s.value * share)
    sent = tokens * attention.model.hidden * model_cost.ACTIVATION_BYTES
    return attention.efficiency.figures["internode_start_s"].value + sent / min(rates)

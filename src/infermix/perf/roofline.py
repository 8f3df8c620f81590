"""Step time on chips that stream weights from memory.

A step is cut into ``pp`` microbatches that follow each other through the stages; each of ``dp`` groups
computes an even share of a microbatch. Where ``ep`` shares out the experts, tokens travel to them and
the slowest rank is waited for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats
from infermix.catalog import shape
from infermix.perf import comm, model_cost, ops
from infermix.perf.deployment import Deployment
from infermix.perf.memory import fullest_stage, kv_replication

LAUNCH_OVERLAP = 2.5
"""How far launches hide behind the layers before them, as ``gemm_overlap``: Llama-2-70B on 2, 4 and 8 GPUs took 37, 29
and 30 ms a token (H100) and 55, 43 and 45 ms (A100) under vLLM of 2023."""


class StepParts(NamedTuple):
    """Where the time of the layers goes, over the tokens of a step [s]."""

    mixers: Floats
    """Projections of attention and of linear mixers, and what is attended to within windows."""
    mlp: Floats
    """Dense MLPs, shared experts, routers."""
    experts: Floats
    collectives: Floats
    launches: Floats

    @property
    def total(self) -> Floats:
        """All parts."""
        return self.mixers + self.mlp + self.experts + self.collectives + self.launches


def decode_s(d: Deployment, tokens: Floats) -> Floats:
    """Seconds in which so many decoding sequences pass once, attention over the context left out [s]."""
    width = d.spec.width if d.spec else 1
    return base_s(d, tokens * width) + draft_s(d, tokens)


def mixed_s(d: Deployment, tokens: Floats, *, spread: bool = True) -> Floats:
    """Seconds of a step of so many tokens with a prompt chunk among them [s].

    The chunk enters ``pp`` stages in as many microbatches as make it leave soonest. Sequences that verify drafts
    are taken to be as many as may be.
    """
    drafted = np.minimum(tokens, d.max_num_seqs) if d.spec else 0.0 * tokens
    verified = tokens + drafted * (d.spec.depth if d.spec else 0)
    steady = base_s(d, verified, spread=spread) + prompt_launches_s(d)
    if d.pp == 1:
        return steady + draft_s(d, drafted)
    entered = [(d.pp + n - 1) / d.pp * stack_s(d, verified / n, spread=spread).total for n in range(1, d.pp + 1)]
    soonest: Floats = fullest_stage(d) * np.minimum.reduce(entered) + _beside_s(d, verified, spread=spread)
    return np.maximum(steady, soonest + prompt_launches_s(d)) + draft_s(d, drafted)


def prompt_launches_s(d: Deployment) -> float:
    """Seconds that launching a step with a prompt takes beyond a decode step, whose launches are recorded [s]."""
    f = d.efficiency.figures
    moe = shape.blocks(d.model).moe * f["prompt_moe_layer_s"].value
    return d.model.layers * f["prompt_layer_s"].value + moe + f["prompt_s"].value


def base_s(d: Deployment, tokens: Floats, *, spread: bool = True) -> Floats:
    """Seconds of a step of so many tokens, every stage at work on a microbatch of its own [s]."""
    layers = fullest_stage(d) * stack_s(d, tokens / d.pp, spread=spread).total
    return launched_s(d, layers) + _beside_s(d, tokens, spread=spread)


def launched_s(d: Deployment, layers: Floats) -> Floats:
    """Seconds of all layers on a host that launches their kernels one by one, ahead of the chip: nearly the longer.

    Engines that replay recorded launches have no ``eager_layer_s``.
    """
    each = d.efficiency.figures.get("eager_layer_s")
    if each is None:
        return layers
    return ops.joined(layers, d.model.layers * each.value + 0.0 * layers, LAUNCH_OVERLAP)


def _beside_s(d: Deployment, tokens: Floats, *, spread: bool = True) -> Floats:
    """Vocabulary projection, host, and hops between stages [s]."""
    sent = np.ceil(tokens / d.pp / (d.dp if spread else 1)) * d.model.hidden * model_cost.ACTIVATION_BYTES
    hops = (d.pp - 1) * comm.hop_s(d, sent) if d.pp > 1 else 0.0
    return head_s(d) + hops + 0.0 * tokens


def draft_s(d: Deployment, sequences: Floats) -> Floats:
    """Seconds of drafting: for each token ahead a layer and the vocabulary projection, for all sequences [s]."""
    if d.spec is None or not d.spec.draft_layers:
        return 0.0 * sequences
    one_layer = stack_s(d, sequences).total / d.model.layers
    return d.spec.draft_layers * (one_layer + _head_gemm_s(d)) * (sequences > 0)


def stack_s(d: Deployment, tokens: Floats, *, spread: bool = True) -> StepParts:
    """Seconds of all layers for a microbatch, attention over the context left out.

    ``spread`` shares the tokens evenly between the ``dp`` groups; a lone prompt stays in one of them.
    """
    count = shape.blocks(d.model)
    mine = np.ceil(tokens / d.dp) if spread else np.ceil(tokens)
    sliding = min(d.model.sliding_layers, count.attention)
    mixers = (count.attention - sliding) * _attention_s(d, mine) + count.linear * _linear_s(d, mine)
    if sliding:
        mixers = mixers + sliding * _attention_s(d, mine, sliding=True)
    mixers = mixers + _reach_s(d, mine)
    mlp, experts = count.dense * _dense_mlp_s(d, mine, d.model.ffn), 0.0 * mine
    moved = (count.attention + count.linear + count.dense) * _all_reduce_s(d, mine)
    if count.moe:
        mlp = mlp + count.moe * _beside_experts_s(d, mine)
        experts = count.moe * _experts_s(d, mine, mine * d.dp if spread else mine)
        moved = moved + count.moe * _moe_exchange_s(d, mine)
    f = d.efficiency.figures
    launches = d.model.layers * f["layer_s"].value + (count.attention + count.linear) * f["attention_floor_s"].value
    launches += count.moe * f["moe_layer_s"].value
    return StepParts(mixers, mlp, experts, moved, launches + 0.0 * mine)


def head_s(d: Deployment) -> float:
    """Vocabulary projection, read for every microbatch, and what the host does between steps [s]."""
    return d.pp * _head_gemm_s(d) + d.efficiency.figures["host_s"].value


def per_seq_s(d: Deployment) -> float:
    """Seconds for each sequence in the step: its share of the host, logits, windows, chosen tokens, states [s]."""
    f = d.efficiency.figures
    width = d.spec.width if d.spec else 1
    peak = ops.peak_flop_per_s(d.chip, "bf16")[0]
    logits = width * 2.0 * d.model.hidden * d.model.vocab / (d.tp * d.dp * f["gemm_flop"].value * peak)
    states = 2 * model_cost.state_bytes_per_sequence(d.model)
    windows = model_cost.window_bytes(d.model, d.kv)
    chosen = model_cost.reach_bytes_per_sequence(d.model, d.kv) - windows - states
    reach = windows * kv_replication(d, sliding=True) + chosen * kv_replication(d) + states
    host = d.efficiency.figures["seq_s"].value / d.dp
    return host + logits + reach / (d.chips * _attention_rate(d))


def kv_s(d: Deployment) -> float:
    """Seconds for each token of context that the batch reads: memory, or arithmetic where many heads share it [s]."""
    read = model_cost.context_bytes_per_token(d.model, d.kv) * kv_replication(d) / (d.chips * _attention_rate(d))
    share = "mla_flop" if shape.is_mla(d.model) else "attention_flop"
    width = d.spec.width if d.spec else 1
    reached = d.efficiency.figures[share].value * ops.attention_peak_flop_per_s(d.chip)
    return fullest_stage(d) * max(read, width * model_cost.context_flop_per_read(d.model) / (d.chips * reached))


def pair_s(d: Deployment) -> float:
    """Seconds for each pair of a prompt token and a token of its context [s]."""
    rate = d.efficiency.figures["attention_flop"].value * ops.attention_peak_flop_per_s(d.chip)
    return fullest_stage(d) * model_cost.context_flop_per_pair(d.model) / (d.chips * rate)


def _attention_rate(d: Deployment) -> float:
    """Bandwidth that decode attention reaches on one chip [bytes/s]."""
    assert d.chip.mem_bytes_per_s is not None
    share = "mla_bytes" if shape.is_mla(d.model) else "attention_bytes"
    return d.efficiency.figures[share].value * d.chip.mem_bytes_per_s.value


def _head_gemm_s(d: Deployment) -> float:
    return float(_gemm_s(d, "bf16", np.ones(1), d.model.hidden, d.model.vocab / d.tp)[0])


def _gemm_s(d: Deployment, weights: str, tokens: Floats, rows: float, columns: float) -> Floats:
    return ops.gemm_s(d.chip, d.efficiency, weights, tokens, rows, columns)


def _grouped_s(d: Deployment, copies: Floats, rows: float, columns: float, touched: Floats) -> Floats:
    return ops.gemm_s(d.chip, d.efficiency, d.weights, copies, rows, columns, matrices=touched, grouped=True)


def _attention_s(d: Deployment, tokens: Floats, *, sliding: bool = False) -> Floats:
    """Projections of one attention block."""
    model, weights = d.model, model_cost.stored(d.model, d.weights)
    if model.attention_block_weights is not None:
        return _gemm_s(d, weights, tokens, model.hidden, model.attention_block_weights / model.hidden / d.tp)
    if shape.is_mla(model):
        return _latent_attention_s(d, tokens, weights) + _indexer_s(d, tokens, weights)
    heads = shape.heads_of(model, sliding)
    queries = heads.query / d.tp * (2 if model.attention_gate else 1)
    width = queries + 2 * max(1.0, heads.kv / d.tp)
    qkv = _gemm_s(d, weights, tokens, model.hidden, width * heads.dim)
    out = _gemm_s(d, weights, tokens, heads.query / d.tp * heads.dim, model.hidden)
    return qkv + out + _indexer_s(d, tokens, weights)


def _latent_attention_s(d: Deployment, tokens: Floats, weights: str) -> Floats:
    """MLA: projections into the latents on every chip, out of them for the heads of each chip."""
    model, heads = d.model, d.model.heads / d.tp
    nope, rope, value = model.mla_qk_nope or 0, model.mla_qk_rope or 0, model.mla_v_head or 0
    latent, through = model.mla_kv_lora or 0, model.mla_q_lora or 0
    down = latent + rope + (through or heads * (nope + rope))
    seconds = _gemm_s(d, weights, tokens, model.hidden, down)
    if through:
        seconds = seconds + _gemm_s(d, weights, tokens, through, heads * (nope + rope))
    seconds = seconds + _gemm_s(d, weights, tokens, latent, heads * (nope + value))
    if model.attention_gate:
        seconds = seconds + _gemm_s(d, weights, tokens, model.hidden, heads * value)
    return seconds + _gemm_s(d, weights, tokens, heads * value, model.hidden)


def _indexer_s(d: Deployment, tokens: Floats, weights: str) -> Floats:
    """Projections of the indexer, on every chip."""
    if not d.model.indexer_heads:
        return 0.0 * tokens
    return _gemm_s(d, weights, tokens, d.model.hidden, shape.indexer_weights(d.model) / d.model.hidden)


def _linear_s(d: Deployment, tokens: Floats) -> Floats:
    """Projections of one linear mixer."""
    if not d.model.linear_layers:
        return 0.0 * tokens
    weights = model_cost.stored(d.model, d.weights)
    return _gemm_s(d, weights, tokens, d.model.hidden, d.model.linear_weights / d.model.hidden / d.tp)


def _reach_s(d: Deployment, tokens: Floats) -> Floats:
    """Arithmetic within windows, chosen tokens and states, over all blocks."""
    rate = d.efficiency.figures["attention_flop"].value * ops.attention_peak_flop_per_s(d.chip)
    return model_cost.reach_flop_per_token(d.model) * tokens / (d.tp * rate)


def _dense_mlp_s(d: Deployment, tokens: Floats, width: float) -> Floats:
    weights, gates = model_cost.stored(d.model, d.weights), 2 if d.model.gated_mlp else 1
    up = _gemm_s(d, weights, tokens, d.model.hidden, gates * width / d.tp)
    return up + _gemm_s(d, weights, tokens, width / d.tp, d.model.hidden)


def _beside_experts_s(d: Deployment, tokens: Floats) -> Floats:
    """Router and shared experts of one MoE block."""
    model = d.model
    router = _gemm_s(d, "bf16", tokens, model.hidden, model.experts)
    if model.expert_hidden:
        weights = model_cost.stored(model, d.weights)
        router = router + 2 * _gemm_s(d, weights, tokens, model.hidden, model.expert_hidden / d.tp)
    if not model.shared_experts:
        return router
    return router + _dense_mlp_s(d, tokens, model.shared_experts * model.shared_expert_ffn)


def _experts_s(d: Deployment, mine: Floats, everyone: Floats) -> Floats:
    """Routed experts of one MoE block on the slowest rank.

    Without ``ep`` every DP group computes its own tokens on all experts, split over ``tp``. With it, the tokens of
    ``everyone`` meet on ranks that hold 1/ep of the experts each, split over what is left of tp x dp.
    """
    model, gates = d.model, 2 if d.model.gated_mlp else 1
    rows = model.expert_hidden or model.hidden
    if d.ep == 1:
        copies, touched = mine * model.active_experts, model_cost.experts_touched(model, mine)
        width = model.expert_ffn / d.tp
    else:
        copies, touched = slowest_rank(d, everyone)
        width = model.expert_ffn * d.ep / (d.tp * d.dp)
    return _grouped_s(d, copies, rows, gates * width, touched) + _grouped_s(d, copies, width, rows, touched)


def slowest_rank(d: Deployment, tokens: Floats) -> tuple[Floats, Floats]:
    """(token copies, experts touched) of the busiest of ``ep`` ranks under uniform routing.

    The mean, and ``sqrt(2 variance ln ep)`` more: the expected maximum of ep nearly normal loads.
    """
    model, ep = d.model, d.ep
    held = model.experts / ep
    share = model.active_experts / model.experts
    mean = tokens * model.active_experts / ep
    copies = mean + np.sqrt(2.0 * mean * (1.0 - 1.0 / ep) * np.log(ep))
    missed = (1.0 - share) ** tokens
    touched = held * (1.0 - missed) + np.sqrt(2.0 * held * missed * (1.0 - missed) * np.log(ep))
    return np.minimum(copies, tokens * min(model.active_experts, held)), np.minimum(touched, held)


def _all_reduce_s(d: Deployment, tokens: Floats) -> Floats:
    return comm.all_reduce_s(d, d.tp, tokens * d.model.hidden * model_cost.ACTIVATION_BYTES)


def _moe_exchange_s(d: Deployment, tokens: Floats) -> Floats:
    """What one MoE block sends: a reduction within ``tp``, and with experts shared out over ``dp`` there and back.

    A token goes once to each rank that holds one of its experts; there in 8 bits where weights have no more, back
    in 16.
    """
    reduced = _all_reduce_s(d, tokens)
    if d.ep == 1 or d.dp == 1:
        return reduced
    ranks, model = d.tp * d.dp, d.model
    reached = d.ep * (1.0 - (1.0 - 1.0 / d.ep) ** model.active_experts)
    sent = tokens / d.tp * reached * (model.expert_hidden or model.hidden)
    there = 1.0 if ops.peak_flop_per_s(d.chip, d.weights)[1] != "bf16_flop_per_s" else model_cost.ACTIVATION_BYTES
    dispatch = comm.all_to_all_s(d, ranks, sent * there)
    return reduced + dispatch + comm.all_to_all_s(d, ranks, sent * model_cost.ACTIVATION_BYTES)

"""What a model costs to keep and to read: weights and KV in bytes, arithmetic in FLOP. No hardware.

Blocks of attention are of three kinds. *Full* ones attend to the whole context. *Sliding* ones attend to
the last ``sliding_window`` tokens, and keep no more. *Sparse* ones keep the whole context and an index of
it; an indexer reads the index and picks ``sparse_topk`` tokens, which alone are attended to. What does not
grow with the context is called the *reach* of a block.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats
from infermix.catalog import shape
from infermix.catalog.records import Model
from infermix.perf.deployment import BYTES_PER_KV, BYTES_PER_WEIGHT

ACTIVATION_BYTES = 2.0
"""Activations travel as bf16."""

VOCABULARY_BYTES = 2.0
"""Vocabulary matrices stay in 16 bits."""

ROUTER_BYTES = 2.0
"""So do routers."""

STATE_BYTES = 4.0
"""States of linear attention and state-space models are kept in fp32."""

INDEX_BYTES = 1.0
"""The index of sparse attention is kept in fp8."""


class AttentionKinds(NamedTuple):
    """How many attention blocks reach how far."""

    full: int
    sliding: int
    sparse: int


def attention_kinds(model: Model) -> AttentionKinds:
    """Attention blocks by kind; a model whose blocks all slide is taken as full, an upper bound beyond its window."""
    count = shape.blocks(model).attention
    if model.sparse_topk:
        return AttentionKinds(0, 0, count)
    sliding = model.sliding_layers if model.sliding_window and model.sliding_layers < count else 0
    return AttentionKinds(count - sliding, sliding, 0)


def experts_only(model: Model, weights: str) -> bool:
    """Whether checkpoints in this dtype keep only the experts in it: mxfp4, and int4 of MoE models."""
    return weights == "mxfp4" or (weights == "int4" and model.experts > 0)


def stored(model: Model, weights: str) -> str:
    """Dtype of what is neither expert nor vocabulary."""
    return "bf16" if experts_only(model, weights) else weights


class WeightBytes(NamedTuple):
    """Bytes of a model's weights by part."""

    mixers: float
    """Attention and linear mixers."""
    mlp: float
    """Dense MLPs, shared experts, routers."""
    experts: float
    head: float
    """Vocabulary projection."""
    embedding: float

    @property
    def total(self) -> float:
        """All parts."""
        return sum(self)


@lru_cache(maxsize=4096)
def weight_parts(model: Model, weights: str) -> WeightBytes:
    """Bytes of all weights by part; vocabulary matrices stay in 16 bits."""
    count, each = shape.blocks(model), BYTES_PER_WEIGHT[stored(model, weights)]
    mixers = count.attention * shape.attention_weights(model) + count.linear * model.linear_weights
    mlp = count.dense * shape.dense_mlp_weights(model, model.ffn)
    mlp += count.moe * shape.shared_expert_weights(model)
    experts = count.moe * model.experts * shape.expert_weights(model)
    return WeightBytes(
        mixers=mixers * each,
        mlp=mlp * each + count.moe * shape.router_weights(model) * ROUTER_BYTES,
        experts=experts * BYTES_PER_WEIGHT[weights],
        head=shape.head_weights(model) * VOCABULARY_BYTES,
        embedding=shape.embedding_weights(model) * VOCABULARY_BYTES,
    )


def weight_bytes(model: Model, weights: str) -> float:
    """Bytes of all weights."""
    return weight_parts(model, weights).total


def kv_bytes_per_layer(model: Model, kv: str, *, sliding: bool = False) -> float:
    """KV bytes of one token in one attention block."""
    return shape.kv_elements_per_layer(model, sliding) * BYTES_PER_KV[kv]


@lru_cache(maxsize=4096)
def window_bytes(model: Model, kv: str) -> float:
    """KV bytes of the full windows of all sliding blocks, for one sequence."""
    kinds, window = attention_kinds(model), model.sliding_window or 0
    return kinds.sliding * window * kv_bytes_per_layer(model, kv, sliding=True)


def index_bytes_per_layer(model: Model) -> float:
    """Bytes of the index of sparse attention, of one token in one block."""
    return model.indexer_head_dim * INDEX_BYTES if model.sparse_topk else 0.0


@lru_cache(maxsize=4096)
def kv_bytes_per_token(model: Model, kv: str) -> float:
    """Bytes that one more token of a long context takes in memory."""
    kinds = attention_kinds(model)
    kept = (kinds.full + kinds.sparse) * kv_bytes_per_layer(model, kv)
    return kept + kinds.sparse * index_bytes_per_layer(model)


def kv_bytes_per_sequence(model: Model, kv: str) -> float:
    """Bytes of a sequence that do not grow with it: full windows of sliding blocks, states of linear ones."""
    return window_bytes(model, kv) + state_bytes_per_sequence(model)


def state_bytes_per_sequence(model: Model) -> float:
    """Bytes of the states of all linear mixers for one sequence."""
    return shape.blocks(model).linear * model.linear_state_elements * STATE_BYTES


@lru_cache(maxsize=4096)
def context_bytes_per_token(model: Model, kv: str) -> float:
    """Bytes that a decoding token reads for each token of its context: keys and values, or only their index."""
    kinds = attention_kinds(model)
    return kinds.full * kv_bytes_per_layer(model, kv) + kinds.sparse * index_bytes_per_layer(model)


@lru_cache(maxsize=4096)
def reach_bytes_per_sequence(model: Model, kv: str) -> float:
    """Bytes that a decoding token reads whatever its context: windows, chosen tokens, states read and written."""
    chosen = attention_kinds(model).sparse * (model.sparse_topk or 0) * kv_bytes_per_layer(model, kv)
    return window_bytes(model, kv) + chosen + 2 * state_bytes_per_sequence(model)


def flop_per_pair(model: Model, *, sliding: bool = False) -> float:
    """Arithmetic of one (prompt token, context token) pair in one block: scores and weighted values [FLOP]."""
    if shape.is_mla(model):
        return 2.0 * model.heads * ((model.mla_qk_nope or 0) + (model.mla_qk_rope or 0) + (model.mla_v_head or 0))
    heads = shape.heads_of(model, sliding)
    return 4.0 * heads.query * heads.dim


def flop_per_read(model: Model) -> float:
    """Arithmetic of one (decoding token, context token) pair in one block; MLA works on the latent itself [FLOP]."""
    if shape.is_mla(model):
        return 2.0 * model.heads * (2 * (model.mla_kv_lora or 0) + (model.mla_qk_rope or 0))
    return flop_per_pair(model)


def flop_per_index(model: Model) -> float:
    """Arithmetic of the indexer for one pair in one block [FLOP]."""
    return 2.0 * model.indexer_heads * model.indexer_head_dim if model.sparse_topk else 0.0


def context_flop_per_pair(model: Model) -> float:
    """Arithmetic of one (prompt token, context token) pair over all blocks that see the whole context [FLOP]."""
    kinds = attention_kinds(model)
    return kinds.full * flop_per_pair(model) + kinds.sparse * flop_per_index(model)


def context_flop_per_read(model: Model) -> float:
    """The same for a decoding token [FLOP]."""
    kinds = attention_kinds(model)
    return kinds.full * flop_per_read(model) + kinds.sparse * flop_per_index(model)


@lru_cache(maxsize=4096)
def reach_flop_per_token(model: Model) -> float:
    """Arithmetic of a prompt token within windows, chosen tokens and states, over all blocks [FLOP]."""
    kinds = attention_kinds(model)
    windows = kinds.sliding * (model.sliding_window or 0) * flop_per_pair(model, sliding=True)
    chosen = kinds.sparse * (model.sparse_topk or 0) * flop_per_pair(model)
    return windows + chosen + 4.0 * shape.blocks(model).linear * model.linear_state_elements


def experts_touched(model: Model, tokens: Floats) -> Floats:
    """Expected number of experts that T tokens reach with top-k of E under uniform routing: E (1 - (1 - k/E)^T).

    Example: 256 experts, top-8, 8 tokens touch about 57.
    """
    missed = (1.0 - model.active_experts / model.experts) ** np.asarray(tokens, dtype=np.float64)
    return np.asarray(model.experts * (1.0 - missed))


def bytes_read(model: Model, weights: str, tokens: float) -> float:
    """Bytes of weights that a step reads: all but the input embedding and experts that none of its tokens reaches."""
    parts = weight_parts(model, weights)
    touched = float(experts_touched(model, np.array(tokens))) / model.experts if model.experts else 0.0
    return parts.mixers + parts.mlp + parts.head + parts.experts * touched


@lru_cache(maxsize=4096)
def flop_per_token(model: Model) -> float:
    """Arithmetic of one token in the layers, attention scores left out [FLOP]."""
    return 2.0 * (shape.active_parameters(model) - shape.head_weights(model))

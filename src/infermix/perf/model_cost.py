"""What a model needs, layer by layer: weights, KV bytes, arithmetic. Pure counting, no hardware."""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats
from infermix.catalog.records import Model
from infermix.perf.deployment import BYTES_PER_KV, BYTES_PER_WEIGHT

ACTIVATION_BYTES = 2.0
"""Activations travel as bf16."""


def attention_weights(model: Model) -> int:
    """Weights of one attention block: query, key, value and output projections [parameters]."""
    return model.hidden * model.head_dim * (2 * model.heads + 2 * model.kv_heads)


def dense_mlp_weights(model: Model, width: int) -> int:
    """Weights of one dense MLP of this inner width [parameters]."""
    return model.hidden * width * (3 if model.gated_mlp else 2)


def expert_weights(model: Model) -> int:
    """Weights of one routed expert [parameters]."""
    return dense_mlp_weights(model, model.expert_ffn)


def shared_expert_weights(model: Model) -> int:
    """Weights of a MoE layer's shared experts, read by every token [parameters]."""
    return dense_mlp_weights(model, model.shared_experts * model.shared_expert_ffn)


def head_weights(model: Model) -> int:
    """Vocabulary projection [parameters]."""
    return model.hidden * model.vocab


def embedding_weights(model: Model) -> int:
    """Input embedding, none of its own where it is tied to the head [parameters]."""
    return 0 if model.tied_embeddings else model.hidden * model.vocab


def layer_counts(model: Model) -> tuple[int, int]:
    """(dense layers, MoE layers)."""
    return (model.layers - model.moe_layers, model.moe_layers) if model.experts else (model.layers, 0)


def parameters(model: Model) -> int:
    """All weights, norms and biases left out [parameters].

    >>> # Llama-3.1-8B: 32 layers of 4096, 32 heads, 8 KV heads of 128, MLP 14336, vocabulary 128256: 8.03 billion
    """
    dense, moe = layer_counts(model)
    per_moe = model.experts * expert_weights(model) + shared_expert_weights(model) + model.hidden * model.experts
    return (
        model.layers * attention_weights(model)
        + dense * dense_mlp_weights(model, model.ffn)
        + moe * per_moe
        + head_weights(model)
        + embedding_weights(model)
    )


def bytes_per_weight(weights: str, part: str) -> float:
    """Bytes of a weight by part (``attention``, ``mlp``, ``experts``, ``vocabulary``).

    mxfp4 checkpoints keep only the experts in four bits; vocabulary matrices stay in bf16 throughout.
    """
    if part == "vocabulary" or (weights == "mxfp4" and part != "experts"):
        return 2.0
    return BYTES_PER_WEIGHT[weights]


def weight_bytes(model: Model, weights: str) -> float:
    """Bytes of all weights."""
    dense, moe = layer_counts(model)
    return (
        model.layers * attention_weights(model) * bytes_per_weight(weights, "attention")
        + dense * dense_mlp_weights(model, model.ffn) * bytes_per_weight(weights, "mlp")
        + moe * model.experts * expert_weights(model) * bytes_per_weight(weights, "experts")
        + moe * (shared_expert_weights(model) + model.hidden * model.experts) * bytes_per_weight(weights, "mlp")
        + (head_weights(model) + embedding_weights(model)) * bytes_per_weight(weights, "vocabulary")
    )


def full_layers(model: Model) -> int:
    """Layers that attend to the whole context."""
    return model.layers - model.sliding_layers if model.sliding_window else model.layers


def kv_bytes_per_layer(model: Model, kv: str) -> float:
    """KV bytes of one token in one layer."""
    return 2 * model.kv_heads * model.head_dim * BYTES_PER_KV[kv]


def kv_bytes_per_token(model: Model, kv: str) -> float:
    """KV bytes that one more token of a long context takes: the layers with full attention."""
    return full_layers(model) * kv_bytes_per_layer(model, kv)


def kv_bytes_per_sequence(model: Model, kv: str) -> float:
    """KV bytes of a sequence that do not grow with it: the full windows of sliding layers."""
    if not model.sliding_window:
        return 0.0
    return (model.layers - full_layers(model)) * model.sliding_window * kv_bytes_per_layer(model, kv)


def experts_touched(model: Model, tokens: Floats) -> Floats:
    """Expected number of experts that T tokens reach with top-k of E under uniform routing: E (1 - (1 - k/E)^T).

    Example: 256 experts, top-8, 8 tokens touch about 57.
    """
    missed = (1.0 - model.active_experts / model.experts) ** np.asarray(tokens, dtype=np.float64)
    return np.asarray(model.experts * (1.0 - missed))


def bytes_read(model: Model, weights: str, tokens: float) -> float:
    """Bytes of weights that a step reads: all but the input embedding and experts that none of its tokens reaches."""
    unread = embedding_weights(model) * bytes_per_weight(weights, "vocabulary")
    if model.experts:
        missed = model.experts - float(experts_touched(model, np.array(tokens)))
        unread += model.moe_layers * missed * expert_weights(model) * bytes_per_weight(weights, "experts")
    return weight_bytes(model, weights) - unread


def flop_per_token(model: Model) -> float:
    """Arithmetic of one token in the layers, attention scores left out [FLOP]."""
    dense, moe = layer_counts(model)
    active = model.active_experts * expert_weights(model) + shared_expert_weights(model) + model.hidden * model.experts
    weights = model.layers * attention_weights(model) + dense * dense_mlp_weights(model, model.ffn)
    return 2.0 * (weights + (moe * active if moe else 0))


def flop_per_pair(model: Model) -> float:
    """Arithmetic of one (new token, context token) pair in one layer: scores and weighted values [FLOP]."""
    return 4.0 * model.heads * model.head_dim

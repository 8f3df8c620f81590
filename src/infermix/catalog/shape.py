"""What a model's shape implies: blocks by kind, parameters, KV elements. Counting only, no hardware."""

from __future__ import annotations

from typing import NamedTuple

from infermix.catalog.records import Model


class Blocks(NamedTuple):
    """How many blocks of each kind a model has; a usual layer is one mixer (attention or linear) and one MLP."""

    attention: int
    """Softmax attention over the context, or over a window of it."""
    linear: int
    """Mixers that carry a state of fixed size: linear attention, state-space models."""
    dense: int
    """Dense MLPs."""
    moe: int
    """MLPs with routed experts."""


def blocks(model: Model) -> Blocks:
    """Blocks by kind.

    >>> from infermix.catalog.load import catalog
    >>> blocks(catalog().models["deepseek-v3"])
    Blocks(attention=61, linear=0, dense=3, moe=58)
    """
    attention = model.layers - model.linear_layers if model.attention_layers is None else model.attention_layers
    moe = model.moe_layers if model.experts else 0
    dense = model.layers - moe if model.mlp_layers is None else model.mlp_layers - moe
    return Blocks(attention, model.linear_layers, dense, moe)


class Heads(NamedTuple):
    """Heads of one attention block."""

    query: int
    kv: int
    dim: int


def heads_of(model: Model, sliding: bool = False) -> Heads:
    """Heads of a block that attends to the whole context, or of one that slides a window."""
    if not sliding:
        return Heads(model.heads, model.kv_heads, model.head_dim)
    own = (model.sliding_heads, model.sliding_kv_heads, model.sliding_head_dim)
    return Heads(*(mine or general for mine, general in zip(own, heads_of(model), strict=True)))


def is_mla(model: Model) -> bool:
    """Whether keys and values are kept as one latent vector a token (multi-head latent attention)."""
    return bool(model.mla_kv_lora)


def attention_weights(model: Model) -> int:
    """Weights of one attention block: projections of queries, keys, values and output [parameters].

    The mean over all blocks where sliding layers have other heads than the rest.
    """
    if model.attention_block_weights is not None:
        return model.attention_block_weights
    if is_mla(model):
        return _latent_attention_weights(model) + indexer_weights(model)
    full = _grouped_attention_weights(model, heads_of(model)) + indexer_weights(model)
    if heads_of(model) == heads_of(model, sliding=True):
        return full
    count, sliding = blocks(model).attention, model.sliding_layers
    of_sliding = _grouped_attention_weights(model, heads_of(model, sliding=True))
    return round(((count - sliding) * full + sliding * of_sliding) / count)


def _grouped_attention_weights(model: Model, heads: Heads) -> int:
    queries = heads.query * (2 if model.attention_gate else 1)
    return model.hidden * heads.dim * (queries + heads.query + 2 * heads.kv)


def _latent_attention_weights(model: Model) -> int:
    """MLA: queries through a latent of their own where there is one; keys and values from one shared latent."""
    nope, rope, value = model.mla_qk_nope or 0, model.mla_qk_rope or 0, model.mla_v_head or 0
    latent, head = model.mla_kv_lora or 0, nope + rope
    through = model.mla_q_lora
    queries = through * (model.hidden + model.heads * head) if through else model.hidden * model.heads * head
    keys = model.hidden * (latent + rope) + latent * model.heads * (nope + value)
    output = model.heads * value * model.hidden * (2 if model.attention_gate else 1)
    return queries + keys + output


def indexer_weights(model: Model) -> int:
    """Weights of the indexer that picks the tokens of sparse attention, in one block [parameters]."""
    if not model.indexer_heads:
        return 0
    queries = (model.mla_q_lora or model.hidden) * model.indexer_heads * model.indexer_head_dim
    return queries + model.hidden * (model.indexer_head_dim + model.indexer_heads)


def dense_mlp_weights(model: Model, width: int) -> int:
    """Weights of one dense MLP of this inner width [parameters]."""
    return model.hidden * width * (3 if model.gated_mlp else 2)


def expert_weights(model: Model) -> int:
    """Weights of one routed expert [parameters]."""
    return (model.expert_hidden or model.hidden) * model.expert_ffn * (3 if model.gated_mlp else 2)


def shared_expert_weights(model: Model) -> int:
    """Weights of a MoE block that every token reads: shared experts, projections to and from the experts' width."""
    shared = dense_mlp_weights(model, model.shared_experts * model.shared_expert_ffn)
    return shared + 2 * model.hidden * model.expert_hidden


def router_weights(model: Model) -> int:
    """Weights that choose the experts of a MoE block [parameters]."""
    return model.hidden * model.experts


def head_weights(model: Model) -> int:
    """Vocabulary projection [parameters]."""
    return model.hidden * model.vocab


def embedding_weights(model: Model) -> int:
    """Input embedding, none of its own where it is tied to the head [parameters]."""
    return 0 if model.tied_embeddings else model.hidden * model.vocab


def parameters(model: Model) -> int:
    """All weights; norms, biases and layers for multi-token prediction left out [parameters].

    >>> from infermix.catalog.load import catalog
    >>> round(parameters(catalog().models["llama-3.1-8b"]) / 1e9, 2)
    8.03
    """
    return _mixers(model) + _mlps(model, model.experts) + head_weights(model) + embedding_weights(model)


def active_parameters(model: Model) -> int:
    """Weights that one token meets: the chosen experts, no input embedding [parameters].

    >>> from infermix.catalog.load import catalog
    >>> round(active_parameters(catalog().models["gpt-oss-120b"]) / 1e9, 2)
    5.13
    """
    return _mixers(model) + _mlps(model, model.active_experts) + head_weights(model)


def _mixers(model: Model) -> int:
    count = blocks(model)
    return count.attention * attention_weights(model) + count.linear * model.linear_weights


def _mlps(model: Model, experts: int) -> int:
    count = blocks(model)
    moe = experts * expert_weights(model) + shared_expert_weights(model) + router_weights(model)
    return count.dense * dense_mlp_weights(model, model.ffn) + count.moe * moe


def kv_elements_per_layer(model: Model, sliding: bool = False) -> float:
    """Elements kept for one token in one attention block: keys and values, or MLA's latent with its rotary part.

    A mean over the blocks, and not always whole, where the cache is compressed along the tokens.
    """
    if model.attention_block_kv_elements is not None:
        return model.attention_block_kv_elements
    if is_mla(model):
        return (model.mla_kv_lora or 0) + (model.mla_qk_rope or 0)
    heads = heads_of(model, sliding)
    return 2 * heads.kv * heads.dim


def kv_elements_per_token(model: Model) -> float:
    """Elements kept for one token over all attention blocks, windows and indexers not considered."""
    sliding = model.sliding_layers
    full = blocks(model).attention - sliding
    return full * kv_elements_per_layer(model) + sliding * kv_elements_per_layer(model, sliding=True)

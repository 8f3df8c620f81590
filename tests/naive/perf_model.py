"""What a model's shape implies, counted block by block: weights, bytes, operations, KV. No hardware.

A model is a list of blocks: mixers (``full``, ``sparse``, ``sliding``, ``linear``) and MLPs (``dense``, ``moe``).
"""

from __future__ import annotations

from infermix.catalog.records import Model

BITS = {"fp32": 32.0, "bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "int8": 8.0}
"""Bits of a number; narrower ones share a scale, see ``bytes_of``."""

SCALED = {"mxfp4": (4, 8, 32), "int4": (4, 8, 32), "nvfp4": (4, 8, 16)}
"""(bits of a weight, bits of a block's scale, weights in the block)."""

BF16 = 2.0
FP32 = 4.0
FP8 = 1.0

MIXERS = ("full", "sparse", "sliding", "linear")
ATTENTION = ("full", "sparse", "sliding")


def bytes_of(dtype: str) -> float:
    """Bytes of one number with its share of the block's scale."""
    if dtype in SCALED:
        bits, scale, block = SCALED[dtype]
        return (bits + scale / block) / 8
    return BITS[dtype] / 8


def blocks_of(model: Model) -> list[str]:
    """Every block by kind; a model whose attention all slides is read as if none did."""
    attention = model.attention_layers
    if attention is None:
        attention = model.layers - model.linear_layers
    sliding = model.sliding_layers if model.sliding_window else 0
    if sliding == attention:
        sliding = 0
    mlps = model.layers if model.mlp_layers is None else model.mlp_layers
    moe = model.moe_layers if model.experts else 0
    seeing = "sparse" if model.sparse_topk else "full"
    found = ["sliding"] * sliding + [seeing] * (attention - sliding) + ["linear"] * model.linear_layers
    return found + ["dense"] * (mlps - moe) + ["moe"] * moe


def count(model: Model, *kinds: str) -> int:
    """Blocks of these kinds."""
    return sum(block in kinds for block in blocks_of(model))


def experts_alone_narrow(model: Model, weights: str) -> bool:
    """Checkpoints that keep only the experts in 4 bits."""
    return weights == "mxfp4" or (weights == "int4" and model.experts > 0)


def outside_experts(model: Model, weights: str) -> str:
    """Dtype of mixers, dense MLPs, shared experts."""
    return "bf16" if experts_alone_narrow(model, weights) else weights


def heads_of(model: Model, block: str) -> tuple[int, int, int]:
    """Query heads, KV heads, and their width."""
    if block != "sliding":
        return model.heads, model.kv_heads, model.head_dim
    return (
        model.sliding_heads or model.heads,
        model.sliding_kv_heads or model.kv_heads,
        model.sliding_head_dim or model.head_dim,
    )


def mlp_matrices(model: Model) -> int:
    """Matrices of an MLP: up and down, and a gate where there is one."""
    return 3 if model.gated_mlp else 2


def shared_width(model: Model) -> int:
    """Inner width of all shared experts together."""
    return model.shared_experts * model.shared_expert_ffn


def indexer_parameters(model: Model) -> float:
    """Queries of the indexer from the queries' latent (or the hidden width), one key, one weight a head."""
    if not model.indexer_heads:
        return 0.0
    source = model.mla_q_lora or model.hidden
    queries = source * model.indexer_heads * model.indexer_head_dim
    key = model.hidden * model.indexer_head_dim
    head_weights = model.hidden * model.indexer_heads
    return float(queries + key + head_weights)


def latent_parameters(model: Model) -> float:
    """MLA: every matrix once."""
    nope, rope, value = model.mla_qk_nope or 0, model.mla_qk_rope or 0, model.mla_v_head or 0
    latent = model.mla_kv_lora or 0
    total = 0.0
    if model.mla_q_lora:
        total += model.hidden * model.mla_q_lora
        total += model.mla_q_lora * model.heads * (nope + rope)
    else:
        total += model.hidden * model.heads * (nope + rope)
    total += model.hidden * (latent + rope)
    for _ in range(model.heads):
        total += latent * nope + latent * value
        total += value * model.hidden
        if model.attention_gate:
            total += model.hidden * value
    return total


def attention_parameters(model: Model, block: str) -> float:
    """Query, key, value and output of every head, a gate and an indexer where there are such."""
    if model.attention_block_weights is not None:
        return float(model.attention_block_weights)
    if model.mla_kv_lora:
        return latent_parameters(model) + indexer_parameters(model)
    queries, kv, width = heads_of(model, block)
    total = 0.0
    for _ in range(queries):
        total += 2 * model.hidden * width
        if model.attention_gate:
            total += model.hidden * width
    for _ in range(kv):
        total += 2 * model.hidden * width
    return total + (indexer_parameters(model) if block != "sliding" else 0.0)


def expert_parameters(model: Model) -> float:
    """One routed expert."""
    return mlp_matrices(model) * (model.expert_hidden or model.hidden) * model.expert_ffn


def block_parameters(model: Model, block: str) -> float:
    """Weights of a block, but for routed experts and the router."""
    if block in ATTENTION:
        return attention_parameters(model, block)
    if block == "linear":
        return float(model.linear_weights)
    if block == "dense":
        return float(mlp_matrices(model) * model.hidden * model.ffn)
    lead = 2 * model.hidden * model.expert_hidden
    return float(mlp_matrices(model) * model.hidden * shared_width(model) + lead)


def router_parameters(model: Model, block: str) -> float:
    """One score an expert."""
    return float(model.hidden * model.experts) if block == "moe" else 0.0


def block_bytes(model: Model, weights: str, block: str, experts: float) -> float:
    """Bytes of a block's weights, so many of its experts counted; routers stay in bf16."""
    total = block_parameters(model, block) * bytes_of(outside_experts(model, weights))
    total += router_parameters(model, block) * BF16
    if block == "moe":
        total += experts * expert_parameters(model) * bytes_of(weights)
    return total


def line_bytes(model: Model, weights: str, experts: float) -> float:
    """Bytes of all blocks, so many experts counted in each that has experts."""
    return sum(block_bytes(model, weights, block, experts) for block in blocks_of(model))


def expert_bytes(model: Model, weights: str) -> float:
    """Bytes of all routed experts."""
    return line_bytes(model, weights, model.experts) - line_bytes(model, weights, 0)


def vocabulary_bytes(model: Model) -> float:
    """Head and embedding in bf16; one where they are tied."""
    return (1 if model.tied_embeddings else 2) * model.hidden * model.vocab * BF16


def weight_bytes(model: Model, weights: str) -> float:
    """Bytes of all weights."""
    return line_bytes(model, weights, model.experts) + vocabulary_bytes(model)


def parameters(model: Model) -> float:
    """All weights."""
    total = (1 if model.tied_embeddings else 2) * float(model.hidden * model.vocab)
    for block in blocks_of(model):
        total += block_parameters(model, block) + router_parameters(model, block)
        total += model.experts * expert_parameters(model) if block == "moe" else 0
    return total


def token_flop(model: Model) -> float:
    """Two operations for every weight that a token meets in the blocks."""
    total = 0.0
    for block in blocks_of(model):
        total += 2 * (block_parameters(model, block) + router_parameters(model, block))
        total += 2 * model.active_experts * expert_parameters(model) if block == "moe" else 0
    return total


def missed(model: Model, tokens: float) -> float:
    """Chance that no token goes to an expert: each passes it by with chance 1 - k/E."""
    chance = 1.0
    for _ in range(int(tokens)):
        chance *= 1 - model.active_experts / model.experts
    return chance * (1 - model.active_experts / model.experts) ** (tokens - int(tokens))


def experts_touched(model: Model, tokens: float) -> float:
    """Experts of a block that these tokens reach."""
    return model.experts * (1 - missed(model, tokens))


def block_kv_bytes(model: Model, kv: str, block: str) -> float:
    """What one attention block keeps for one token, its index not counted."""
    if model.attention_block_kv_elements is not None:
        return model.attention_block_kv_elements * bytes_of(kv)
    if model.mla_kv_lora:
        return (model.mla_kv_lora + (model.mla_qk_rope or 0)) * bytes_of(kv)
    _, heads, width = heads_of(model, block)
    return 2 * heads * width * bytes_of(kv)


def index_bytes(model: Model) -> float:
    """The key of the indexer for one token in one block."""
    return model.indexer_head_dim * FP8 if model.indexer_heads else 0.0


def kept_kv_bytes(model: Model, kv: str) -> float:
    """Kept for one more token of context, over all blocks."""
    total = 0.0
    for block in blocks_of(model):
        if block == "full":
            total += block_kv_bytes(model, kv, block)
        if block == "sparse":
            total += block_kv_bytes(model, kv, block) + index_bytes(model)
    return total


def read_kv_bytes(model: Model, kv: str) -> float:
    """Read for one more token of context by a decoding one, over all blocks."""
    total = 0.0
    for block in blocks_of(model):
        if block == "full":
            total += block_kv_bytes(model, kv, block)
        if block == "sparse":
            total += index_bytes(model)
    return total


def state_bytes(model: Model) -> float:
    """States of one sequence in all linear mixers."""
    return sum(model.linear_state_elements * FP32 for block in blocks_of(model) if block == "linear")


def context_kv_bytes(model: Model, kv: str, context: float) -> float:
    """Bytes that a decoding token reads with so much context: windows and chosen tokens stop growing."""
    total = 0.0
    for block in blocks_of(model):
        if block == "full":
            total += context * block_kv_bytes(model, kv, block)
        if block == "sparse":
            total += min(context, model.sparse_topk or 0) * block_kv_bytes(model, kv, block)
            total += context * index_bytes(model)
        if block == "sliding":
            total += min(context, model.sliding_window or 0) * block_kv_bytes(model, kv, block)
    return total + state_bytes(model)


def pair_flop(model: Model, block: str) -> float:
    """Score and weighted value of one (new token, context token) pair in one block."""
    if model.mla_kv_lora:
        score = (model.mla_qk_nope or 0) + (model.mla_qk_rope or 0)
        return 2 * model.heads * (score + (model.mla_v_head or 0))
    queries, _, width = heads_of(model, block)
    return 4 * queries * width


def index_flop(model: Model) -> float:
    """Score of the indexer for one pair in one block."""
    return 2 * model.indexer_heads * model.indexer_head_dim


def read_flop(model: Model) -> float:
    """Of a decoding token for one of its context in one block: MLA works on the latent."""
    if model.mla_kv_lora:
        score, result = model.mla_kv_lora + (model.mla_qk_rope or 0), model.mla_kv_lora
        return 2 * model.heads * (score + result)
    return pair_flop(model, "full")


def context_pair_flop(model: Model) -> float:
    """One more pair of a prompt token and its context, over all blocks."""
    total = 0.0
    for block in blocks_of(model):
        if block == "full":
            total += pair_flop(model, block)
        if block == "sparse":
            total += index_flop(model)
    return total


def context_read_flop(model: Model) -> float:
    """One more token of context for a decoding one, over all blocks."""
    total = 0.0
    for block in blocks_of(model):
        if block == "full":
            total += read_flop(model)
        if block == "sparse":
            total += index_flop(model)
    return total


def reach_flop(model: Model) -> float:
    """Of one token within windows and chosen tokens, and four operations an element of state."""
    total = 0.0
    for block in blocks_of(model):
        if block == "sliding":
            total += (model.sliding_window or 0) * pair_flop(model, block)
        if block == "sparse":
            total += (model.sparse_topk or 0) * pair_flop(model, block)
        if block == "linear":
            total += 4 * model.linear_state_elements
    return total

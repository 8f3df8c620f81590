"""A slow, obvious step time: one layer after another, one operator after another, plain floats.

Shares no arithmetic with ``infermix.perf``: only the records (model, chip, efficiency) are read.
"""

from __future__ import annotations

import math

from infermix.catalog.records import Chip, Figure, Model
from infermix.perf.deployment import Deployment

BITS = {"fp32": 32.0, "bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "int8": 8.0}
"""Bits of a number; narrower ones share a scale, see ``bytes_of``."""

SCALED = {"mxfp4": (4, 8, 32), "int4": (4, 8, 32), "nvfp4": (4, 8, 16)}
"""(bits of a weight, bits of a block's scale, weights in the block)."""

BF16 = 2.0


def bytes_of(dtype: str) -> float:
    """Bytes of one weight with its share of the block's scale."""
    if dtype in SCALED:
        bits, scale, block = SCALED[dtype]
        return (bits + scale / block) / 8
    return BITS[dtype] / 8


def value(figure: Figure | None) -> float:
    """The number, 0 where the catalogue has none."""
    return figure.value if figure is not None else 0.0


def is_moe(model: Model, layer: int) -> bool:
    """Whether this layer's MLP has experts: the dense ones come first."""
    return model.experts > 0 and layer >= model.layers - model.moe_layers


def is_sliding(model: Model, layer: int) -> bool:
    """Whether this layer attends only to a window (which ones they are does not matter to time)."""
    return bool(model.sliding_window) and layer < model.sliding_layers


def outside_experts(weights: str) -> str:
    """Dtype of attention, dense MLPs, shared experts: mxfp4 checkpoints keep them in bf16."""
    return "bf16" if weights == "mxfp4" else weights


def mlp_matrices(model: Model) -> int:
    """Matrices of an MLP: up and down, and a gate where there is one."""
    return 3 if model.gated_mlp else 2


def shared_width(model: Model) -> int:
    """Inner width of all shared experts together."""
    return model.shared_experts * model.shared_expert_ffn


def attention_parameters(model: Model) -> int:
    """Query and output of every head, key and value of every KV head."""
    query = output = model.hidden * model.heads * model.head_dim
    key = value_ = model.hidden * model.kv_heads * model.head_dim
    return query + key + value_ + output


def expert_parameters(model: Model) -> int:
    """One routed expert."""
    return mlp_matrices(model) * model.hidden * model.expert_ffn


def layer_bytes(model: Model, weights: str, layer: int, experts: float) -> float:
    """Bytes of a layer's weights, so many of its experts counted."""
    wide = bytes_of(outside_experts(weights))
    total = attention_parameters(model) * wide
    if not is_moe(model, layer):
        return total + mlp_matrices(model) * model.hidden * model.ffn * wide
    total += experts * expert_parameters(model) * bytes_of(weights)
    total += mlp_matrices(model) * model.hidden * shared_width(model) * wide
    return total + model.hidden * model.experts * wide


def weight_bytes(model: Model, weights: str) -> float:
    """Bytes of all weights; vocabulary matrices are bf16, and one where they are tied."""
    total = 0.0
    for layer in range(model.layers):
        total += layer_bytes(model, weights, layer, model.experts)
    vocabulary_matrices = 1 if model.tied_embeddings else 2
    return total + vocabulary_matrices * model.hidden * model.vocab * BF16


def parameters(model: Model) -> float:
    """All weights, counted as bytes of a dtype of one byte."""
    vocabulary_matrices = 1 if model.tied_embeddings else 2
    layers = sum(layer_bytes(model, "int8", layer, model.experts) for layer in range(model.layers))
    return layers + vocabulary_matrices * model.hidden * model.vocab


def experts_touched(model: Model, tokens: float) -> float:
    """Every token passes an expert by with chance 1 - k/E."""
    missed = 1.0
    for _ in range(int(tokens)):
        missed *= 1 - model.active_experts / model.experts
    missed *= (1 - model.active_experts / model.experts) ** (tokens - int(tokens))
    return model.experts * (1 - missed)


def token_kv_bytes(model: Model, kv: str) -> float:
    """Key and value of one token in one layer."""
    return 2 * model.kv_heads * model.head_dim * bytes_of(kv)


def context_kv_bytes(model: Model, kv: str, context: float) -> float:
    """KV of one sequence of so many tokens: windows stop growing."""
    total = 0.0
    for layer in range(model.layers):
        kept = min(context, model.sliding_window or 0) if is_sliding(model, layer) else context
        total += kept * token_kv_bytes(model, kv)
    return total


def full_layers(model: Model) -> int:
    """Layers that see the whole context."""
    return sum(not is_sliding(model, layer) for layer in range(model.layers))


def token_flop(model: Model) -> float:
    """Two operations for every weight of the layers that a token meets."""
    total = 0.0
    for layer in range(model.layers):
        total += 2 * attention_parameters(model)
        if is_moe(model, layer):
            total += 2 * model.active_experts * expert_parameters(model)
            total += 2 * mlp_matrices(model) * model.hidden * shared_width(model)
            total += 2 * model.hidden * model.experts
        else:
            total += 2 * mlp_matrices(model) * model.hidden * model.ffn
    return total


def pair_flop(model: Model) -> float:
    """Score and weighted value of one (new token, context token) pair in one layer."""
    return 4 * model.heads * model.head_dim


def peak(chip: Chip, weights: str) -> tuple[float, bool]:
    """(dense peak for weights of this dtype, whether a rate of fp8 or fp4 units)."""
    narrow = value(chip.fp8_flop_per_s)
    if weights == "nvfp4" and chip.fp4_flop_per_s:
        return chip.fp4_flop_per_s.value, True
    if weights in ("nvfp4", "fp8") and narrow:
        return narrow, True
    if weights == "mxfp4" and chip.fp4_flop_per_s and narrow:
        return narrow, True
    if weights == "int8" and chip.int8_op_per_s:
        return chip.int8_op_per_s.value, False
    if chip.bf16_flop_per_s:
        return chip.bf16_flop_per_s.value, False
    if narrow:
        return narrow, True
    return value(chip.int8_op_per_s), False


def capacity_bytes(d: Deployment) -> float:
    """What the engine may use of all chips of an instance."""
    memory = d.chip.sram_bytes if d.is_pipeline else d.chip.mem_bytes
    chips = d.stages * d.system.chips if d.is_pipeline else d.tp * d.dp
    return sum(value(memory) * d.efficiency.figures["memory_use"].value for _ in range(chips))


def kv_tokens_left(d: Deployment) -> float:
    """Tokens that fit beside weights, buffers and the windows of every sequence."""
    model = d.model
    ranks = 1 if d.is_pipeline else d.tp
    copies = max(1.0, ranks / model.kv_heads)
    free = capacity_bytes(d)
    for _ in range(1 if d.is_pipeline else d.dp):
        free -= weight_bytes(model, d.weights)
    if not d.is_pipeline:
        for _ in range(d.tp * d.dp):
            free -= 8 * BF16 * model.hidden * d.max_batched_tokens / d.dp
        free -= 4 * model.vocab * d.max_num_seqs
    for layer in range(model.layers):
        if is_sliding(model, layer):
            free -= d.max_num_seqs * copies * (model.sliding_window or 0) * token_kv_bytes(model, d.kv)
    return free / (copies * full_layers(model) * token_kv_bytes(model, d.kv))


class Roofline:
    """Step time of a deployment on chips with off-chip memory."""

    def __init__(self, d: Deployment) -> None:
        self.d, self.model = d, d.model
        self.figures = {name: figure.value for name, figure in d.efficiency.figures.items()}
        self.bandwidth = value(d.chip.mem_bytes_per_s)
        self.bf16_peak = peak(d.chip, "bf16")[0]
        self.kv_heads_a_rank = max(1.0, self.model.kv_heads / d.tp)

    def gemm(self, dtype: str, tokens: float, rows: float, columns: float, *, matrices: float = 1) -> float:
        """``max(arithmetic, bytes) + floor``: weights, tokens in, tokens out."""
        rate, narrow = peak(self.d.chip, dtype)
        arithmetic = 2 * tokens * rows * columns / (rate * self.figures["gemm_flop_fp8" if narrow else "gemm_flop"])
        moved = matrices * rows * columns * bytes_of(dtype) + tokens * rows * BF16 + tokens * columns * BF16
        return max(arithmetic, moved / (self.figures["gemm_bytes"] * self.bandwidth)) + self.figures["gemm_floor_s"]

    def mlp(self, dtype: str, tokens: float, width: float, *, matrices: float = 1) -> float:
        """Up (with its gate), then down; TP shares the width."""
        wide = (mlp_matrices(self.model) - 1) * width / self.d.tp
        up = self.gemm(dtype, tokens, self.model.hidden, wide, matrices=matrices)
        return up + self.gemm(dtype, tokens, width / self.d.tp, self.model.hidden, matrices=matrices)

    def all_reduce(self, tokens: float) -> float:
        """A ring passes every rank's share around twice."""
        if self.d.tp == 1:
            return 0.0
        volume = 0.0
        for _ in range(2 * (self.d.tp - 1)):
            volume += tokens * self.model.hidden * BF16 / self.d.tp
        link = value(self.d.chip.link_bytes_per_s)
        rate = self.figures["allreduce_bytes"] * link
        if rate > link and "NVSwitch" not in self.d.chip.link:
            rate = link
        return self.figures["allreduce_start_s"] + volume / rate

    def layer(self, tokens: float, *, moe: bool, sliding: bool) -> float:
        """One layer for the tokens of one rank, the growing context left out."""
        model, d, narrow = self.model, self.d, outside_experts(self.d.weights)
        heads = model.heads / d.tp
        seconds = self.gemm(narrow, tokens, model.hidden, (heads + 2 * self.kv_heads_a_rank) * model.head_dim)
        seconds += self.figures["attention_floor_s"]
        if sliding:
            pairs = tokens * (model.sliding_window or 0)
            seconds += pairs * pair_flop(model) / d.tp / (self.figures["attention_flop"] * self.bf16_peak)
        seconds += self.gemm(narrow, tokens, heads * model.head_dim, model.hidden)
        seconds += self.all_reduce(tokens)
        if moe:
            seconds += self.gemm("bf16", tokens, model.hidden, model.experts)
            met, touched = tokens * model.active_experts, experts_touched(model, tokens)
            seconds += self.mlp(d.weights, met, model.expert_ffn, matrices=touched)
            if model.shared_experts:
                seconds += self.mlp(narrow, tokens, shared_width(model))
            seconds += self.figures["moe_layer_s"]
        else:
            seconds += self.mlp(narrow, tokens, model.ffn)
        return seconds + self.all_reduce(tokens) + self.figures["layer_s"]

    def base_s(self, tokens: int) -> float:
        """All layers, the vocabulary read once, the host; every DP rank has an even share of the tokens."""
        mine = math.ceil(tokens / self.d.dp)
        seconds, done = 0.0, dict[tuple[bool, bool], float]()
        for layer in range(self.model.layers):
            kind = is_moe(self.model, layer), is_sliding(self.model, layer)
            if kind not in done:
                done[kind] = self.layer(mine, moe=kind[0], sliding=kind[1])
            seconds += done[kind]
        seconds += self.gemm("bf16", 1, self.model.hidden, self.model.vocab / self.d.tp)
        return seconds + self.figures["host_s"]

    decode_s = mixed_s = base_s

    def per_seq_s(self) -> float:
        """Logits and full windows of one sequence, which one of the DP ranks computes."""
        seconds = 2 * self.model.hidden * self.model.vocab / self.d.tp / (self.figures["gemm_flop"] * self.bf16_peak)
        for layer in range(self.model.layers):
            if is_sliding(self.model, layer):
                seconds += (self.model.sliding_window or 0) * self._kv_layer_s()
        return seconds / self.d.dp

    def kv_s(self) -> float:
        """One more token of context in every layer with full attention."""
        seconds = 0.0
        for layer in range(self.model.layers):
            if not is_sliding(self.model, layer):
                seconds += self._kv_layer_s()
        return seconds / self.d.dp

    def pair_s(self) -> float:
        """One pair in every layer with full attention."""
        seconds = 0.0
        for layer in range(self.model.layers):
            if not is_sliding(self.model, layer):
                seconds += pair_flop(self.model) / self.d.tp / (self.figures["attention_flop"] * self.bf16_peak)
        return seconds / self.d.dp

    def load_s(self) -> float:
        """Cached tokens stay in memory."""
        return 0.0

    def issue_interval_s(self) -> float:
        """The next token starts when this one is done."""
        return self.base_s(1) + self.per_seq_s()

    latency_s = issue_interval_s

    def _kv_layer_s(self) -> float:
        own = 2 * self.kv_heads_a_rank * self.model.head_dim * bytes_of(self.d.kv)
        return own / (self.figures["attention_bytes"] * self.bandwidth)


class Pipeline:
    """Step time of a deployment whose layers stand in line in SRAM."""

    def __init__(self, d: Deployment) -> None:
        self.d, self.model = d, d.model
        self.figures = {name: figure.value for name, figure in d.efficiency.figures.items()}
        chips = d.stages * d.system.chips
        self.layer_bandwidth = chips * value(d.chip.sram_bytes_per_s) / self.model.layers
        self.flop = token_flop(d.model)
        self.layer_flop_per_s = chips * peak(d.chip, "bf16")[0] * self.figures["gemm_flop"] / self.model.layers

    def all_stages_s(self, microbatch: float) -> float:
        """One microbatch through every layer."""
        model, seconds = self.model, 0.0
        touched = experts_touched(model, microbatch) if model.experts else 0.0
        sync = self.figures["layer_s"] * (self.figures["moe_layer_factor"] if model.experts else 1)
        arithmetic = microbatch * self.flop / model.layers / self.layer_flop_per_s
        for layer in range(model.layers):
            read = layer_bytes(model, self.d.weights, layer, touched) / self.layer_bandwidth
            seconds += sync + read + arithmetic
        return seconds

    def stage_s(self, microbatch: float) -> float:
        """The mean layer."""
        return self.all_stages_s(microbatch) / self.model.layers

    def beside_s(self) -> float:
        """Hops from system to system, and the head."""
        seconds = self.figures["head_s"]
        for _ in range(self.d.stages):
            seconds += self.figures["hop_s"]
        return seconds

    def decode_s(self, tokens: int) -> float:
        """Flat while there are no more sequences than layers; then every layer takes several at once."""
        layers = self.model.layers
        return self.all_stages_s(1 if tokens <= layers else tokens / layers) + self.beside_s()

    def mixed_s(self, tokens: int) -> float:
        """Microbatches follow each other into the line and drain; the best power of two is taken."""
        best = math.inf
        for power in range(13):
            size = 2**power
            best = min(best, (self.model.layers + math.ceil(tokens / size)) * self.stage_s(min(size, tokens)))
        decode = self.decode_s(min(tokens, self.d.max_num_seqs)) - self.beside_s()
        return max(best, decode) + self.beside_s()

    def per_seq_s(self) -> float:
        """Logits are inside the time of a layer."""
        return 0.0

    def kv_s(self) -> float:
        """One KV token at every layer of the line, averaged over as many users as layers."""
        return token_kv_bytes(self.model, self.d.kv) / self.layer_bandwidth

    def pair_s(self) -> float:
        """One pair at every layer of the line."""
        return pair_flop(self.model) / self.layer_flop_per_s

    def load_s(self) -> float:
        """KV of one cached token over the links of every system."""
        moved = full_layers(self.model) * token_kv_bytes(self.model, self.d.kv)
        return moved / self.d.stages / self.figures["offchip_bytes_per_s"]

    def latency_s(self) -> float:
        """One token through the line."""
        return self.decode_s(1)

    def issue_interval_s(self) -> float:
        """The first layer is free for the next token."""
        return self.stage_s(1)


def twin(d: Deployment) -> Roofline | Pipeline:
    """The slow model of the machine that a deployment runs on."""
    return Pipeline(d) if d.is_pipeline else Roofline(d)

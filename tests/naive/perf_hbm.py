"""Step time of chips that stream weights from memory: one block after another, one product after another."""

from __future__ import annotations

import math

from infermix.perf.deployment import Deployment
from tests.naive import perf_memory as memory
from tests.naive import perf_model as count
from tests.naive.perf_chip import Peak, Wires, peak, value


class Roofline:
    """Step time of a deployment on chips with off-chip memory.

    ``lone``: every token belongs to one prompt, which stays in one of the ``dp`` groups.
    """

    def __init__(self, d: Deployment, lone: bool = False) -> None:
        self.d, self.model, self.lone = d, d.model, lone
        self.figures = {name: figure.value for name, figure in d.efficiency.figures.items()}
        self.bandwidth = value(d.chip.mem_bytes_per_s)
        self.attention_flop_per_s = self.figures["attention_flop"] * peak(d.chip, "bf16").rate
        self.wires = Wires(d)
        self.stored = count.outside_experts(d.model, d.weights)
        self.fullest = memory.fullest(d)
        self.depth = d.spec.depth if d.spec else 0
        self.drafts = self.depth if d.spec and d.spec.method != "ngram" else 0

    # products

    def gemm(self, dtype: str, tokens: float, rows: float, columns: float) -> float:
        """Arithmetic and bytes (weights, tokens in, tokens out), overlapping in part, and a launch."""
        unit = peak(self.d.chip, dtype)
        arithmetic = 2 * tokens * rows * columns / (unit.rate * self.figures[unit.share])
        moved = rows * columns * count.bytes_of(dtype) + tokens * (rows + columns) * count.BF16
        reading = moved / (self.figures["gemm_bytes"] * self.bandwidth)
        p = self.figures["gemm_overlap_narrow" if unit.quantises else "gemm_overlap"]
        longer, shorter = max(arithmetic, reading), min(arithmetic, reading)
        return longer * (1 + (shorter / longer) ** p) ** (1 / p) + self.floor(unit)

    def floor(self, unit: Peak) -> float:
        """Launch of a product, and of the quantising before it."""
        return self.figures["gemm_floor_s"] + (self.figures["quantise_s"] if unit.quantises else 0.0)

    def grouped(self, copies: float, rows: float, columns: float, touched: float) -> float:
        """Experts with few tokens each: arithmetic and bytes one after the other."""
        unit = peak(self.d.chip, self.d.weights)
        share = self.figures["moe_flop_narrow" if unit.quantises else "moe_flop"]
        moved = touched * rows * columns * count.bytes_of(self.d.weights) + copies * (rows + columns) * count.BF16
        work = 2 * copies * rows * columns / (unit.rate * share)
        return work + moved / (self.figures["moe_bytes"] * self.bandwidth) + self.floor(unit)

    def experts(self, copies: float, hidden: float, width: float, touched: float) -> float:
        """Up (with its gate), then down, of every expert touched."""
        wide = (count.mlp_matrices(self.model) - 1) * width
        return self.grouped(copies, hidden, wide, touched) + self.grouped(copies, width, hidden, touched)

    def mlp(self, dtype: str, tokens: float, hidden: float, width: float) -> float:
        """Up (with its gate), then down; ``width`` is this chip's."""
        wide = (count.mlp_matrices(self.model) - 1) * width
        up = self.gemm(dtype, tokens, hidden, wide)
        return up + self.gemm(dtype, tokens, width, hidden)

    # blocks; ``mine`` are the tokens of one dp group

    def attention(self, mine: float, block: str) -> float:
        """Projections of a grouped attention block."""
        model, tp = self.model, self.d.tp
        if model.attention_block_weights is not None:
            return self.gemm(self.stored, mine, model.hidden, model.attention_block_weights / model.hidden / tp)
        queries, kv, width = count.heads_of(model, block)
        columns = queries / tp * width
        columns += queries / tp * width if model.attention_gate else 0.0
        columns += 2 * max(1.0, kv / tp) * width
        seconds = self.gemm(self.stored, mine, model.hidden, columns)
        return seconds + self.gemm(self.stored, mine, queries / tp * width, model.hidden)

    def latent_attention(self, mine: float) -> float:
        """Projections of an MLA block."""
        model, heads = self.model, self.model.heads / self.d.tp
        if model.attention_block_weights is not None:
            return self.attention(mine, "full")
        nope, rope, width = model.mla_qk_nope or 0, model.mla_qk_rope or 0, model.mla_v_head or 0
        latent, queries = model.mla_kv_lora or 0, heads * (nope + rope)
        into = model.mla_q_lora or queries
        seconds = self.gemm(self.stored, mine, model.hidden, into + latent + rope)
        if model.mla_q_lora:
            seconds += self.gemm(self.stored, mine, model.mla_q_lora, queries)
        seconds += self.gemm(self.stored, mine, latent, heads * (nope + width))
        seconds += self.gemm(self.stored, mine, heads * width, model.hidden)
        if model.attention_gate:
            seconds += self.gemm(self.stored, mine, model.hidden, heads * width)
        return seconds

    def mixer(self, mine: float, block: str) -> float:
        """A mixer, its launch and the all-reduce behind it."""
        model, tp = self.model, self.d.tp
        if block == "linear":
            seconds = self.gemm(self.stored, mine, model.hidden, model.linear_weights / model.hidden / tp)
            seconds += mine * 4 * model.linear_state_elements / tp / self.attention_flop_per_s
        else:
            seconds = self.latent_attention(mine) if model.mla_kv_lora else self.attention(mine, block)
            if block != "sliding" and model.indexer_heads and model.attention_block_weights is None:
                seconds += self.gemm(self.stored, mine, model.hidden, count.indexer_parameters(model) / model.hidden)
            reach = {"sliding": model.sliding_window or 0, "sparse": model.sparse_topk or 0, "full": 0}[block]
            seconds += mine * reach * count.pair_flop(model, block) / tp / self.attention_flop_per_s
        return seconds + self.figures["attention_floor_s"] + self.all_reduce(mine)

    def moe(self, mine: float) -> float:
        """Router, shared experts, the way to the experts' width and back, experts, exchanges."""
        model, d = self.model, self.d
        seconds = self.gemm("bf16", mine, model.hidden, model.experts)
        if count.shared_width(model):
            seconds += self.mlp(self.stored, mine, model.hidden, count.shared_width(model) / d.tp)
        if model.expert_hidden:
            seconds += self.gemm(self.stored, mine, model.hidden, model.expert_hidden / d.tp)
            seconds += self.gemm(self.stored, mine, model.expert_hidden / d.tp, model.hidden)
        hidden = model.expert_hidden or model.hidden
        if d.ep == 1:
            met, touched = mine * model.active_experts, count.experts_touched(model, mine)
            seconds += self.experts(met, hidden, model.expert_ffn / d.tp, touched)
        else:
            met, touched = self.slowest_rank(mine if self.lone else mine * d.dp)
            width = model.expert_ffn * d.ep / (d.tp * d.dp)
            seconds += self.experts(met, hidden, width, touched)
        if d.ep > 1 and d.dp > 1:
            copies = d.ep * (1 - (1 - 1 / d.ep) ** model.active_experts)
            elements = mine / d.tp * copies * hidden
            there = 1.0 if peak(d.chip, d.weights).narrow else count.BF16
            seconds += self.wires.all_to_all(d.tp * d.dp, elements * there)
            seconds += self.wires.all_to_all(d.tp * d.dp, elements * count.BF16)
        return seconds + self.figures["moe_layer_s"] + self.all_reduce(mine)

    def slowest_rank(self, everyone: float) -> tuple[float, float]:
        """Copies of tokens, and experts touched, on the slowest of ``ep`` ranks."""
        ranks, model = self.d.ep, self.model
        local = model.experts / ranks
        mean = everyone * model.active_experts / ranks
        met = mean + math.sqrt(2 * mean * (1 - 1 / ranks) * math.log(ranks))
        missed = count.missed(model, everyone)
        touched = local * (1 - missed) + math.sqrt(2 * local * missed * (1 - missed) * math.log(ranks))
        return min(met, everyone * min(model.active_experts, local)), min(touched, local)

    def all_reduce(self, mine: float) -> float:
        """Of one hidden vector a token, over ``tp``."""
        return self.wires.all_reduce(self.d.tp, mine * self.model.hidden * count.BF16)

    def mine(self, tokens: float) -> float:
        """Tokens of the fullest ``dp`` group."""
        return float(math.ceil(tokens if self.lone else tokens / self.d.dp))

    def stack(self, tokens: float) -> float:
        """All blocks for so many tokens of the instance."""
        mine, seconds, done = self.mine(tokens), 0.0, dict[str, float]()
        for block in count.blocks_of(self.model):
            if block not in done:
                if block in count.MIXERS:
                    done[block] = self.mixer(mine, block)
                elif block == "moe":
                    done[block] = self.moe(mine)
                else:
                    width = self.model.ffn / self.d.tp
                    done[block] = self.mlp(self.stored, mine, self.model.hidden, width) + self.all_reduce(mine)
            seconds += done[block]
        for _ in range(self.model.layers):
            seconds += self.figures["layer_s"]
        return seconds

    # steps

    def head(self) -> float:
        """The vocabulary read once."""
        return self.gemm("bf16", 1, self.model.hidden, self.model.vocab / self.d.tp)

    def beside(self, tokens: float) -> float:
        """What stands beside the layers."""
        seconds = self.figures["host_s"]
        for stage in range(self.d.pp):
            seconds += self.head()
            if stage:
                seconds += self.wires.hop(self.mine(tokens / self.d.pp) * self.model.hidden * count.BF16)
        return seconds

    def base(self, tokens: float) -> float:
        """As many microbatches as stages, so that all stages work all the time."""
        return self.launched(self.fullest * self.stack(tokens / self.d.pp)) + self.beside(tokens)

    def launched(self, layers: float) -> float:
        """The host launches each layer ahead of the chip, where launches are not recorded."""
        host = self.figures.get("eager_layer_s", 0.0) * self.model.layers
        return float((layers**2.5 + host**2.5) ** 0.4)

    def drained(self, tokens: float) -> float:
        """A prompt chunk in the number of microbatches that lets it leave soonest."""
        best = math.inf
        for parts in range(1, self.d.pp + 1):
            slots = self.d.pp + parts - 1
            best = min(best, slots * self.stack(tokens / parts) / self.d.pp)
        return max(self.fullest * best + self.beside(tokens), self.base(tokens))

    def draft(self, sequences: float) -> float:
        """A layer and the vocabulary for each token ahead; decoding sequences are spread over the groups."""
        seconds, spread = 0.0, Roofline(self.d)
        for _ in range(self.drafts):
            seconds += spread.stack(sequences) / self.model.layers + self.head()
        return seconds

    def decode_s(self, tokens: int) -> float:
        """Every sequence verifies its drafts."""
        return self.base((1 + self.depth) * tokens) + self.draft(tokens)

    def mixed_s(self, tokens: int) -> float:
        """Any of the tokens, as many as may decode, may be a sequence that verifies its drafts."""
        decoding = min(tokens, self.d.max_num_seqs)
        launches = self.figures["prompt_s"]
        for _ in range(self.model.layers):
            launches += self.figures["prompt_layer_s"]
        for block in count.blocks_of(self.model):
            if block == "moe":
                launches += self.figures["prompt_moe_layer_s"]
        return self.drained(tokens + self.depth * decoding) + launches + self.draft(decoding)

    # terms beside the base

    def all_chips(self) -> int:
        """Chips of the instance."""
        return self.d.tp * self.d.pp * self.d.dp

    def kv_rate(self) -> float:
        """Bandwidth that attention reaches."""
        return self.figures["mla_bytes" if self.model.mla_kv_lora else "attention_bytes"] * self.bandwidth

    def per_seq_s(self) -> float:
        """Logits, windows, chosen tokens, states of one sequence."""
        d, model = self.d, self.model
        logits = 2 * model.hidden * model.vocab * (1 + self.depth)
        seconds = self.figures["seq_s"] / d.dp
        seconds += logits / (d.tp * d.dp) / (self.figures["gemm_flop"] * peak(d.chip, "bf16").rate)
        for block in count.blocks_of(model):
            moved = 0.0
            if block == "sliding":
                moved = (model.sliding_window or 0) * memory.copies(d, block) * count.block_kv_bytes(model, d.kv, block)
            if block == "sparse":
                moved = (model.sparse_topk or 0) * memory.copies(d, block) * count.block_kv_bytes(model, d.kv, block)
            if block == "linear":
                moved = 2 * model.linear_state_elements * count.FP32
            seconds += moved / self.kv_rate() / self.all_chips()
        return seconds

    def kv_s(self) -> float:
        """One more token of context: read, or computed with if that is longer."""
        d, model = self.d, self.model
        read = memory.copies(d) * count.read_kv_bytes(model, d.kv) / self.kv_rate()
        share = self.figures["mla_flop" if model.mla_kv_lora else "attention_flop"]
        work = (1 + self.depth) * count.context_read_flop(model) / (share * peak(d.chip, "bf16").rate)
        return self.fullest * max(read, work) / self.all_chips()

    def pair_s(self) -> float:
        """One pair of a prompt token and its context."""
        return self.fullest * count.context_pair_flop(self.model) / self.attention_flop_per_s / self.all_chips()

    def load_s(self) -> float:
        """Cached tokens stay in memory."""
        return 0.0

    def latency_s(self) -> float:
        """One token alone."""
        return self.decode_s(1) + self.per_seq_s()

    def issue_interval_s(self) -> float:
        """The next token starts when the first stage is done with this one."""
        return self.latency_s() / self.d.pp


def ttft_s(d: Deployment, prompt: int, cached: int = 0) -> float:
    """A lone prompt in chunks: one ``dp`` group works, the others stand idle."""
    twin, seconds, at = Roofline(d, lone=True), 0.0, min(cached, prompt - 1)
    while at < prompt:
        chunk = min(d.max_batched_tokens, prompt - at)
        pairs = sum(position + 1 for position in range(at, at + chunk))
        beside = twin.per_seq_s() + (at + chunk) * twin.kv_s() + pairs * twin.pair_s()
        seconds += twin.mixed_s(chunk) + d.dp * beside
        at += chunk
    return seconds

"""Step time of machines whose layers stand in line in SRAM."""

from __future__ import annotations

import math

from infermix.perf.deployment import Deployment
from tests.naive import perf_model as count
from tests.naive.perf_chip import peak, value


class Pipeline:
    """Step time of a deployment whose layers stand in line in SRAM."""

    def __init__(self, d: Deployment) -> None:
        self.d, self.model = d, d.model
        self.figures = {name: figure.value for name, figure in d.efficiency.figures.items()}
        chips = d.stages * d.system.chips
        self.parts = int(self.figures.get("stages_per_layer", 1))
        self.line = self.model.layers * self.parts
        self.own_bandwidth = chips * value(d.chip.sram_bytes_per_s) / self.line
        self.own_flop_per_s = chips * peak(d.chip, "bf16").rate * self.figures["gemm_flop"] / self.line
        self.own_flop = count.token_flop(d.model) / self.line
        self.always_bytes = count.line_bytes(d.model, d.weights, 0) / self.line
        self.expert_bytes = count.line_bytes(d.model, d.weights, 1) / self.line - self.always_bytes
        self.width = 1 + (d.spec.depth if d.spec else 0)
        self.drafts = d.spec.depth if d.spec and d.spec.method != "ngram" else 0

    def all_stages_s(self, microbatch: float) -> float:
        """One microbatch through every layer and part of one, which are all the mean one."""
        model, seconds = self.model, 0.0
        touched = count.experts_touched(model, microbatch) if model.experts else 0.0
        read = 0.0 if self.d.chip.only_models else self.always_bytes + touched * self.expert_bytes
        sync = self.figures["layer_s"] * (self.figures["moe_layer_factor"] if model.experts else 1)
        arithmetic = microbatch * self.own_flop / self.own_flop_per_s
        for _ in range(model.layers):
            for _ in range(self.parts):
                seconds += sync / self.parts + read / self.own_bandwidth + arithmetic
        return seconds

    def stage_s(self, microbatch: float) -> float:
        """The mean place in line."""
        return self.all_stages_s(microbatch) / self.line

    def beside_s(self) -> float:
        """Hops from system to system, and the head."""
        seconds = self.figures["head_s"]
        for _ in range(self.d.stages):
            seconds += self.figures["hop_s"]
        return seconds

    def decode_s(self, tokens: int) -> float:
        """Flat while there are no more sequences than places; then every place takes several at once."""
        microbatch = 1 if tokens <= self.line else tokens / self.line
        seconds = self.all_stages_s(self.width * microbatch)
        for _ in range(self.drafts * self.parts):
            seconds += self.stage_s(microbatch)
        return seconds + self.beside_s()

    def mixed_s(self, tokens: int) -> float:
        """Microbatches follow each other into the line and drain; the best power of two is taken."""
        decoding = min(tokens, self.d.max_num_seqs)
        tokens += decoding * (self.width - 1)
        best = math.inf
        for power in range(13):
            size = 2**power
            best = min(best, (self.line + math.ceil(tokens / size)) * self.stage_s(min(size, tokens)))
        for _ in range(self.drafts * self.parts):
            best += self.stage_s(max(1, decoding / self.line))
        return max(best + self.beside_s(), self.decode_s(decoding))

    def per_seq_s(self) -> float:
        """Logits are inside the time of a layer."""
        return 0.0

    def seeing(self) -> str:
        """The kind of block that sees the whole context, empty where none does."""
        for kind in ("full", "sparse"):
            if count.count(self.model, kind):
                return kind
        return ""

    def kv_s(self) -> float:
        """One more token of context at the slowest layer: KV (or index) read, or computed with if that is longer."""
        if not self.seeing():
            return 0.0
        full, model = self.seeing() == "full", self.model
        read = count.block_kv_bytes(model, self.d.kv, "full") if full else count.index_bytes(model)
        work = count.read_flop(model) if full else count.index_flop(model)
        return max(read / self.own_bandwidth, self.width * work / self.own_flop_per_s)

    def pair_s(self) -> float:
        """One pair at the slowest layer."""
        if not self.seeing():
            return 0.0
        full = self.seeing() == "full"
        work = count.pair_flop(self.model, "full") if full else count.index_flop(self.model)
        return work / self.own_flop_per_s

    def load_s(self) -> float:
        """KV of one cached token over the links of every system."""
        moved = count.kept_kv_bytes(self.model, self.d.kv)
        return moved / self.d.stages / self.figures["offchip_bytes_per_s"]

    def latency_s(self) -> float:
        """One token through the line."""
        return self.decode_s(1)

    def issue_interval_s(self) -> float:
        """The first layer is free for the next token."""
        return self.stage_s(1)


def ttft_s(d: Deployment, prompt: int, cached: int = 0) -> float:
    """A lone prompt in chunks, after its cached tokens have come in."""
    twin, seconds, at = Pipeline(d), 0.0, min(cached, prompt - 1)
    for _ in range(cached):
        seconds += twin.load_s()
    while at < prompt:
        chunk = min(d.max_batched_tokens, prompt - at)
        pairs = sum(position + 1 for position in range(at, at + chunk))
        seconds += twin.mixed_s(chunk) + (at + chunk) * twin.kv_s() + pairs * twin.pair_s()
        at += chunk
    return seconds

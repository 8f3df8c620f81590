"""What the simulation is about: pools, requests, the sequences that instances make of them, and steps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.naive.cache import Key
from tests.naive.paths import Path

COMPLETED, REFUSED, UNFINISHED = "completed", "refused", "unfinished"
BOTH, PREFILL, DECODE = 0, 1, 2


@dataclass
class NaivePool:
    """Equal instances and one step table."""

    instances: int
    decode_s: list[float]
    mixed_s: list[float]
    per_seq_s: float
    kv_s: float
    pair_s: float
    load_s: float
    block_tokens: int
    blocks: int
    max_num_seqs: int
    max_batched_tokens: int
    serves: set[int] | None
    prefill_s_per_token: float
    step_s: float
    max_context: int = 10**9
    usd_per_s: float = math.nan
    watermark_blocks: int = 0
    prefix_cache: bool = False
    retention_s: float = math.inf
    host_blocks: int = 0
    host_load_s: float = 0.0
    """For each token."""
    host_latency_s: float = 0.0
    remote_blocks: int = 0
    remote_load_s: float = 0.0
    """For each token."""
    remote_latency_s: float = 0.0
    role: int = BOTH
    transfer_s_per_token: float = 0.0
    transfer_latency_s: float = 0.0
    accepted_per_step: float = 1.0
    accepted_variance: float = 0.0
    accepted_most: int = 1
    ranks: int = 1
    start_s: float = 0.0
    instances_up: int | None = None
    """None: all."""
    least: int = 0
    target_inflight: float = math.inf
    """Infinite: no autoscaling."""
    scale_every_s: float = math.inf
    scale_down_after: int = 1

    def step_line(self) -> tuple[float, float]:
        """Base and slope of the decode step over the batch: least squares of relative errors at powers of two."""
        most = self.max_num_seqs
        batches = sorted({2**k for k in range(20) if 2**k <= most} | {most})
        times = [self.decode_s[n] + self.per_seq_s * n for n in batches]
        if most == 1:
            return times[0], 0.0
        weights = [1.0 / t**2 for t in times]
        w, wn = sum(weights), sum(u * n for u, n in zip(weights, batches, strict=True))
        wnn = sum(u * n * n for u, n in zip(weights, batches, strict=True))
        wt = sum(u * t for u, t in zip(weights, times, strict=True))
        wnt = sum(u * n * t for u, n, t in zip(weights, batches, times, strict=True))
        slope = (w * wnt - wn * wt) / (w * wnn - wn * wn)
        return (wt - slope * wn) / w, slope

    def serves_class(self, class_id: int) -> bool:
        return self.serves is None or class_id in self.serves

    def capacity_tokens(self) -> int:
        return self.blocks * self.block_tokens

    def usable_tokens(self) -> int:
        """What is left of the memory when the watermark stays free."""
        return (self.blocks - self.watermark_blocks) * self.block_tokens

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)

    def takes(self, request: Request) -> bool:
        """Whether the class is served here and the prompt and one token fit."""
        prompt = request.input + 1
        return self.serves_class(request.class_id) and prompt <= min(self.usable_tokens(), self.max_context)

    def can_finish(self, request: Request) -> bool:
        """Whether all of it that is computed here fits, and its context."""
        total = request.input + request.output
        here = request.input + request.kept if self.role == PREFILL else total - 1
        return here <= self.usable_tokens() and total <= self.max_context

    def autoscales(self) -> bool:
        return math.isfinite(self.target_inflight) and math.isfinite(self.scale_every_s)

    def check(self) -> None:
        assert 1 <= self.max_num_seqs <= self.max_batched_tokens
        assert len(self.decode_s) == len(self.mixed_s) == self.max_batched_tokens + 1
        assert self.accepted_per_step >= 1.0
        assert self.accepted_most >= 1
        assert self.ranks >= 1
        assert not (self.prefix_cache and self.role == DECODE), "a decode pool has no prefix cache"


@dataclass
class Request:
    """What arrives, and what became of it."""

    row: int
    class_id: int
    arrival_s: float
    input: int
    cached: int
    output: int
    parent: int = -1
    think_s: float = 0.0
    priority: int = 0
    z: float = 0.0
    """Its normal number."""
    path: Path | None = None
    """Known where there is a prefix cache."""
    admit_s: float = math.nan
    first_s: float = math.nan
    last_s: float = math.nan
    token_s: float = math.nan
    """When its latest token came."""
    kept: int = 0
    """Tokens with which it arrives (again)."""
    instance: int = -1
    prefill_instance: int = -1
    hit_tokens: int = 0
    loaded_tokens: int = 0
    restarts: int = 0
    status: str = UNFINISHED

    def begin_again(self, generated: int, resume: bool) -> None:
        """A failure sends it back."""
        self.restarts += 1
        self.instance = self.prefill_instance = -1
        self.kept = generated if resume else 0
        if not resume:
            self.admit_s = self.first_s = self.token_s = math.nan


@dataclass
class Stretch:
    """The decoding of a sequence, from a prompt's end to its own end or a preemption: ``steps`` even steps."""

    to_come: int
    context: int
    blocks: int
    """Held when it begins."""
    steps: int
    per_step: float
    """Tokens gained in every step."""
    first_block: int
    """Steps before it takes its next block."""
    every: int
    """Steps from one block to the next after that."""
    done: int = 0

    @classmethod
    def begin(cls, pool: NaivePool, request: Request, generated: int) -> Stretch:
        a, v = pool.accepted_per_step, pool.accepted_variance
        n, context = request.output - generated, request.input + generated
        drawn = math.floor(n / a + request.z * math.sqrt(n * v / a**3) + 0.5)
        steps = min(max(drawn, math.ceil(n / pool.accepted_most)), n)
        blocks = pool.blocks_for(context - 1)
        slack = blocks * pool.block_tokens - (context - 1)
        every = math.ceil(pool.block_tokens / a)
        return cls(
            to_come=n,
            context=context,
            blocks=blocks,
            steps=steps,
            per_step=math.floor(1024 * n / steps + 0.5) / 1024,
            first_block=min(math.ceil(slack / a), every - 1),
            every=every,
        )

    def gained(self) -> int:
        """Tokens after the steps done."""
        if self.done == self.steps:
            return self.to_come
        return min(self.to_come - 1, math.floor(self.per_step * self.done))

    def reads(self) -> float:
        """KV tokens read in the next step."""
        return self.context + self.per_step * self.done

    def blocks_needed(self) -> int:
        """In the next step."""
        late = self.done - self.first_block
        return self.blocks + (1 + late // self.every if late >= 0 else 0)


@dataclass(eq=False)
class Sequence:
    """A request that an instance has accepted."""

    request: Request
    cached: int
    """Tokens of the prompt that need not be read (what the gateway believes, where there is a prefix cache)."""
    generated: int = 0
    keys: list[Key] = field(default_factory=list)
    """Of the shared blocks of its path, from the first."""
    ready: bool = False
    """Its KV comes with it: it decodes as soon as it is admitted."""
    queued: int = 0
    """What it adds to the queued tokens."""
    own: int = 0
    """Blocks that it has taken for itself."""
    matched: int = 0
    """Leading blocks of its path that are cached blocks which it protects."""
    prompt: int = 0
    """Tokens to read before it can decode: the input, and after a preemption what it generated."""
    position: int = 0
    """How many tokens of the prompt are in the KV cache."""
    was_admitted: bool = False
    began_with: int = 0
    """Tokens in the KV cache at its admission."""
    group: int = 0
    stretch: Stretch | None = None
    """While it decodes."""

    def context(self) -> int:
        return self.request.input + self.generated

    def rest(self) -> int:
        return self.prompt - self.position

    def reading(self) -> bool:
        return self.stretch is None

    def held(self) -> int:
        return self.matched + self.own

    def in_cache(self) -> int:
        """Tokens whose KV has been computed."""
        return self.position if self.reading() else self.context() - 1

    def prompt_keys(self, pool: NaivePool) -> list[Key]:
        """Of the shared blocks that the prompt to be read now fills."""
        return self.keys[: self.context() // pool.block_tokens]


@dataclass
class Step:
    """What is computed together."""

    start_s: float
    decoding: list[Sequence] = field(default_factory=list)
    chunks: list[tuple[Sequence, int]] = field(default_factory=list)
    brought_in: list[tuple[Sequence, int]] = field(default_factory=list)
    """Cached tokens that are brought in, by sequence."""
    loading_s: float = 0.0
    """From lower tiers."""

    def tokens(self) -> int:
        return len(self.decoding) + sum(m for _, m in self.chunks)

    def without(self, gone: Sequence) -> int:
        """Take a sequence out; the tokens that it had of the budget."""
        before = self.tokens()
        self.decoding = [seq for seq in self.decoding if seq is not gone]
        self.chunks = [(seq, m) for seq, m in self.chunks if seq is not gone]
        return before - self.tokens()

    def attention_s(self, pool: NaivePool, group: int) -> float:
        """What one group reads and brings in."""
        kv = sum(seq.stretch.reads() for seq in self.decoding if seq.stretch is not None and seq.group == group)
        kv += sum(seq.position + m for seq, m in self.chunks if seq.group == group)
        pairs = sum(m * seq.position + m * (m + 1) // 2 for seq, m in self.chunks if seq.group == group)
        brought_in = sum(tokens for seq, tokens in self.brought_in if seq.group == group)
        return pool.kv_s * kv + pool.pair_s * pairs + pool.load_s * brought_in

    def seconds(self, pool: NaivePool) -> float:
        base = pool.mixed_s[self.tokens()] if self.chunks else pool.decode_s[self.tokens()]
        sequences = len(self.decoding) + len(self.chunks)
        slowest = max(self.attention_s(pool, group) for group in range(pool.ranks))
        return base + pool.per_seq_s * sequences + pool.ranks * slowest + self.loading_s

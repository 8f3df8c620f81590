"""What one emulated instance holds while it runs: a queue, a batch, KV blocks, and what it has done."""

from __future__ import annotations

import math
from collections.abc import Sequence as Row
from dataclasses import dataclass, field

from infermix.serve.emulator.memory import Key, Memory, Tier
from infermix.sim.state import PoolSpec


@dataclass(eq=False, slots=True)
class Sequence:
    """A request inside an engine.

    Attributes
    ----------
    cached
        Tokens of the prompt that need not be read; without a prefix cache only, which finds out itself.
    keys
        Of the blocks of its path (prompt and answer without the last token) that others may ask for, from the first.
    z
        Its normal number: how lucky its drafts are.
    """

    input: int
    output: int
    cached: int = 0
    keys: Row[Key] = ()
    priority: int = 0
    z: float = 0.0
    generated: int = 0
    # while it is in the batch
    own: int = 0
    matched: int = 0
    """Leading blocks of its path that are cached blocks which it claims."""
    prompt: int = 0
    position: int = 0
    chunk: int = 0
    group: int = 0
    decoding: bool = False
    had: int = 0
    """Tokens it had when it began to decode; what follows counts from there."""
    steps: int = 0
    rate: float = 1.0
    done: int = 0
    next_block: int = 0
    """Step in which it takes its next block."""
    # what became of it
    arrival_s: float = math.nan
    admit_s: float = math.nan
    first_s: float = math.nan
    last_s: float = math.nan
    hit_tokens: int = 0
    loaded_tokens: int = 0
    ended: bool = False

    @property
    def context(self) -> int:
        """Tokens of prompt and answer so far."""
        return self.input + self.generated

    @property
    def in_cache(self) -> int:
        """Tokens whose KV has been computed."""
        return self.context - 1 if self.decoding else self.position


@dataclass
class Totals:
    """What an instance has done since it began."""

    busy_s: float = 0.0
    steps: int = 0
    prompt_tokens: int = 0
    decode_tokens: int = 0
    generated_tokens: int = 0
    """Those of decode steps, and those that complete prompts yielded."""
    preemptions: int = 0
    queried_tokens: int = 0
    """Prompt tokens looked up in the prefix cache."""
    hit_tokens: int = 0
    """Of these, found."""


@dataclass
class Engine:
    """One instance."""

    spec: PoolSpec
    decode_s: list[float]
    mixed_s: list[float]
    memory: Memory
    host: Tier
    remote: Tier
    """One for all instances of a pool."""
    waiting: list[Sequence] = field(default_factory=list)
    """By priority, then first in first out."""
    running: list[Sequence] = field(default_factory=list)
    step_s: float = math.nan
    """Of the step in progress; NaN: none is."""
    step_from_s: float = 0.0
    ending: list[Sequence] = field(default_factory=list)
    """Given up while a step computes them."""
    totals: Totals = field(default_factory=Totals)

    @property
    def in_step(self) -> bool:
        """Whether a step is in progress."""
        return not math.isnan(self.step_s)

    @property
    def kv_usage(self) -> float:
        """Share of the KV blocks that sequences use."""
        return 1.0 - self.memory.free / self.memory.blocks


def make_engines(spec: PoolSpec) -> list[Engine]:
    """The instances of a pool, empty."""
    remote = Tier(spec.remote_blocks, spec.remote_load_s, spec.remote_latency_s, spec.retention_s)
    decode_s, mixed_s = spec.decode_s.tolist(), spec.mixed_s.tolist()
    return [
        Engine(
            spec=spec,
            decode_s=decode_s,
            mixed_s=mixed_s,
            memory=Memory(spec.blocks, spec.retention_s),
            host=Tier(spec.host_blocks, spec.host_load_s, spec.host_latency_s, spec.retention_s),
            remote=remote,
        )
        for _ in range(spec.instances)
    ]

"""The length of a step of a deployment, from few numbers: measured ones of its own, or factors on the catalogue's.

    t = base(T) + seq_s (D + P) + kv_s K + pair_s Q

with T tokens in the step, D sequences that decode and P that read a prompt, K KV tokens read, and Q pairs of a prompt
token and a token of its context (``docs/design/step-time.md``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.measure.engine import Engine
from infermix.sim.state import PoolSpec


class Steps(Protocol):
    """What is fitted: numbers that are 0 or more, and the pool that follows from them."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers are called, with their unit."""

    def numbers(self) -> Floats:
        """The numbers."""

    def moved(self, numbers: Floats) -> Steps:
        """The same with other numbers."""

    @property
    def overhead_s(self) -> float:
        """Time of a request outside the engine [s]."""

    def doubt(self) -> float:
        """Loss that the numbers cost by themselves: how far they are from what was known before."""

    def small(self, context: float) -> Floats:
        """For each number a value to begin with where it joins a fit; 0: it never joins. ``context`` in tokens."""

    def spec(self, engine: Engine, classes: int) -> PoolSpec:
        """The deployment as the simulator reads it."""


PULL = 0.05
"""Loss for a factor that is off from 1 by e: too little to move what measurements show, enough for what they do not."""


class OwnSteps(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Step times of a deployment of which nothing but its answers is known."""

    step_s: float
    """Every step: reading the weights, launching, the host [s]."""
    token_s: float
    """Arithmetic of each token in a step [s]."""
    seq_s: float = 0.0
    """Each sequence in a step, beyond its tokens [s]."""
    kv_s: float = 0.0
    """Reading one KV token [s]."""
    pair_s: float = 0.0
    """Attention of one prompt token to one token of its context [s]."""
    overhead_s: float = 0.0
    """Between client and engine, once a request [s]."""
    overlap: bool = False
    """Whether weights are read while arithmetic goes on: base = max(step_s, token_s T), else their sum."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers are called, with their unit."""
        return ("step_s", "token_s", "seq_s", "kv_s", "pair_s", "overhead_s")

    def numbers(self) -> Floats:
        """The numbers."""
        return np.array([getattr(self, name) for name in self.names])

    def moved(self, numbers: Floats) -> OwnSteps:
        """The same with other numbers."""
        return msgspec.structs.replace(self, **dict(zip(self.names, numbers.tolist(), strict=True)))

    def doubt(self) -> float:
        """Nothing was known before."""
        return 0.0

    def small(self, context: float) -> Floats:
        """Each a tenth of what stands beside it."""
        step, token = self.step_s, self.token_s
        return 0.1 * np.array([step, token, step, step / context, token / context, step])

    def spec(self, engine: Engine, classes: int) -> PoolSpec:
        """The deployment as the simulator reads it."""
        tokens = np.arange(engine.max_batched_tokens + 1, dtype=np.float64)
        tokens[0] = 1.0
        arithmetic = self.token_s * tokens
        base = np.maximum(self.step_s, arithmetic) if self.overlap else self.step_s + arithmetic
        return engine.pool(base, self.seq_s, self.kv_s, self.pair_s, classes)


class ScaledSteps(msgspec.Struct, frozen=True, kw_only=True):
    """Factors on the step times that the catalogue gives a model on a chip.

    The smallest step is reading the weights and the host; what larger ones take beyond it is arithmetic, and so is
    the attention of prompts.
    """

    catalogue: PoolSpec
    step: float = 1.0
    """On the smallest step."""
    arithmetic: float = 1.0
    """On what larger steps take beyond it, and on attention of prompts."""
    kv: float = 1.0
    """On reading KV."""
    seq_s: float = 0.0
    """Each sequence in a step, beyond what the catalogue counts [s]."""
    overhead_s: float = 0.0
    """Between client and engine, once a request [s]."""

    @property
    def names(self) -> tuple[str, ...]:
        """What the numbers are called, with their unit."""
        return ("step", "arithmetic", "kv", "seq_s", "overhead_s")

    def numbers(self) -> Floats:
        """The numbers."""
        return np.array([getattr(self, name) for name in self.names])

    def moved(self, numbers: Floats) -> ScaledSteps:
        """The same with other numbers."""
        return msgspec.structs.replace(self, **dict(zip(self.names, numbers.tolist(), strict=True)))

    def doubt(self) -> float:
        """Factors are pulled towards 1, weakly, where several of them can say the same."""
        return PULL * float(np.sum(np.square(np.log([self.step, self.arithmetic, self.kv]))))

    def small(self, context: float) -> Floats:
        """Seconds that join: a hundredth of the smallest step for a sequence, a tenth of it for a request."""
        del context
        least = float(self.catalogue.decode_s[1])
        return np.array([0.0, 0.0, 0.0, 0.01 * least, 0.1 * least])

    def spec(self, engine: Engine, classes: int) -> PoolSpec:
        """The deployment as the simulator reads it; entries beyond the catalogue's table go on like its end."""
        known = self.catalogue.decode_s
        size = engine.max_batched_tokens + 1
        more = known[-1] + (known[-1] - known[-2]) * np.arange(1, max(size - len(known), 0) + 1)
        least = float(known[1])
        base = self.step * least + self.arithmetic * (np.concatenate([known, more])[:size] - least)
        made = engine.pool(
            base,
            self.catalogue.per_seq_s + self.seq_s,
            self.kv * self.catalogue.kv_s,
            self.arithmetic * self.catalogue.pair_s,
            classes,
        )
        return replace(made, max_context=self.catalogue.max_context)

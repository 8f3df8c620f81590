"""The roofline of a deployment: what each chip could do at an intensity, and what its steps do."""

from __future__ import annotations

import msgspec
import numpy as np

from infermix.catalog.records import Figure
from infermix.perf import model_cost, ops
from infermix.perf.breakdown import step_parts_s
from infermix.perf.deployment import Deployment
from infermix.perf.idle import cut, ttft_s
from infermix.perf.memory import kv_replication
from infermix.perf.operating import Load, for_groups

_DTYPES = {"bf16_flop_per_s": "bf16", "fp8_flop_per_s": "fp8", "int8_op_per_s": "int8", "fp4_flop_per_s": "fp4"}


class Ceiling(msgspec.Struct, frozen=True):
    """Arithmetic of one chip in one dtype [FLOP/s]."""

    dtype: str
    peak: float
    reached: float
    """What large products reach of it."""
    used: bool
    """Whether these weights are multiplied at this rate."""


class Spot(msgspec.Struct, frozen=True, kw_only=True):
    """Work of one chip in a decode step, or in reading a prompt."""

    name: str
    batch: int
    """0 for a prompt."""
    flop: float
    bytes: float
    """Weights, KV cache and states that are read."""
    seconds: float

    @property
    def intensity(self) -> float:
        """Arithmetic for each byte [FLOP/byte]."""
        return self.flop / self.bytes

    @property
    def flop_per_s(self) -> float:
        """Arithmetic done [FLOP/s]."""
        return self.flop / self.seconds


class Roofline(msgspec.Struct, frozen=True, kw_only=True):
    """Ceilings of one chip, and its work at several batches."""

    memory: str
    """``HBM`` or ``SRAM``."""
    bytes_per_s: float
    reached_bytes_per_s: float
    ceilings: list[Ceiling]
    spots: list[Spot]


def roofline(d: Deployment, load: Load, batches: list[int]) -> Roofline:
    """Ceilings of one chip of ``d``, and where its decode steps and a lone prompt lie under them."""
    f, grown = d.efficiency.figures, for_groups(d)
    figure = d.chip.sram_bytes_per_s if d.is_pipeline else d.chip.mem_bytes_per_s
    assert figure is not None  # deployments without it have no speed
    spots = [s for s in (*(_decode(grown, load, b) for b in batches), _prompt(d, load)) if s.bytes > 0]
    reached = 1.0 if d.is_pipeline else f["gemm_bytes"].value
    return Roofline(
        memory="SRAM" if d.is_pipeline else "memory",
        bytes_per_s=figure.value,
        reached_bytes_per_s=reached * figure.value,
        ceilings=_ceilings(d),
        spots=spots,
    )


def _ceilings(d: Deployment) -> list[Ceiling]:
    f, found = d.efficiency.figures, []
    used = ops.peak_flop_per_s(d.chip, "bf16" if d.is_pipeline else d.weights)[1]
    for name, dtype in _DTYPES.items():
        figure: Figure | None = getattr(d.chip, name)
        if figure is not None and figure.value:
            share = f["gemm_flop" if d.is_pipeline else ops.gemm_share(name)].value
            found.append(Ceiling(dtype, figure.value, share * figure.value, name == used))
    return sorted(found, key=lambda c: c.peak)


def _decode(d: Deployment, load: Load, batch: int) -> Spot:
    """One step of a batch, halfway through the answers."""
    model, width = d.model, d.spec.width if d.spec else 1
    tokens, reads = batch * width, batch * load.context
    flop = tokens * (model_cost.flop_per_token(model) + 2.0 * model.hidden * model.vocab)
    flop += tokens * (load.context * model_cost.context_flop_per_read(model) + model_cost.reach_flop_per_token(model))
    read = _weights(d, tokens) + reads * model_cost.context_bytes_per_token(model, d.kv) * kv_replication(d)
    read += batch * model_cost.reach_bytes_per_sequence(model, d.kv)
    seconds = sum(step_parts_s(d, batch, load.context).values())
    return Spot(name=f"batch {batch:,}", batch=batch, flop=flop / d.chips, bytes=read / d.chips, seconds=seconds)


def _prompt(d: Deployment, load: Load) -> Spot:
    """A lone prompt on an idle instance, in chunks that each read the weights."""
    model = d.model
    chunks = cut(load.input_tokens, load.cached_tokens, d.max_batched_tokens)
    fresh = float(chunks.sizes @ chunks.counts)
    flop = fresh * (model_cost.flop_per_token(model) + model_cost.reach_flop_per_token(model))
    flop += chunks.pairs * model_cost.context_flop_per_pair(model)
    read = sum(n * _weights(d, size) for size, n in zip(chunks.sizes, chunks.counts, strict=True))
    read += chunks.contexts * model_cost.context_bytes_per_token(model, d.kv) * kv_replication(d)
    seconds = ttft_s(d, load.input_tokens, load.cached_tokens)
    return Spot(name="prompt", batch=0, flop=flop / d.chips, bytes=float(read) / d.chips, seconds=seconds)


def _weights(d: Deployment, tokens: float) -> float:
    """Bytes of weights that all chips read for so many tokens, each group of chips its copy."""
    if d.chip.only_models:
        return 0.0
    copies = 1 if d.is_pipeline or d.ep > 1 else d.dp
    return copies * model_cost.bytes_read(d.model, d.weights, float(np.maximum(1.0, tokens / copies)))

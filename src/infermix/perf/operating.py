"""Operating points of a deployment: speed of a user against what a token costs in chip time."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.perf import dataflow, roofline
from infermix.perf.deployment import MAX_NUM_SEQS, Deployment
from infermix.perf.idle import beside_chunks_s, cut, ttft_s
from infermix.perf.memory import kv_tokens_left

BATCHES: Floats = np.array([2.0**i for i in range(13)])
"""Batches that are looked at."""


@dataclass(frozen=True)
class Load:
    """What a request is: tokens of prompt, of it cached, and of answer."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int = 0

    @property
    def context(self) -> float:
        """Tokens of context halfway through the answer."""
        return self.input_tokens + self.output_tokens / 2


@dataclass(frozen=True)
class Points:
    """Operating points of one deployment, by batch.

    Attributes
    ----------
    batch, tpot_s
        Sequences that decode together, and the time of one's next token [s].
    tokens_per_s
        Output of the whole batch while it decodes [tokens/s].
    chip_s_per_mtok
        Chip-seconds for a million output tokens, the reading of their prompts included [s].
    ttft_s
        Time to first token when idle [s].
    """

    deployment: Deployment
    batch: Floats
    tpot_s: Floats
    tokens_per_s: Floats
    chip_s_per_mtok: Floats
    ttft_s: float


def points(d: Deployment, load: Load) -> Points | None:
    """Operating points at the batches whose contexts fit; None where not even one does.

    Every DP group of a deployment may hold ``MAX_NUM_SEQS`` sequences and a chunk of its own.
    """
    grown = msgspec.structs.replace(d, max_num_seqs=d.dp * MAX_NUM_SEQS, max_batched_tokens=d.dp * d.max_batched_tokens)
    most = min(kv_tokens_left(grown) // (load.input_tokens + load.output_tokens), grown.max_num_seqs)
    if most < 1:
        return None
    batch: Floats = BATCHES[: int(np.searchsorted(BATCHES, most, side="right"))]
    chunks = cut(load.input_tokens, load.cached_tokens, d.max_batched_tokens)
    decode, chunk, sizes = _bases_s(grown, batch, chunks.sizes)
    each = machine(d).kv_s(d) * load.context + (0.0 if d.is_pipeline else roofline.per_seq_s(d))
    kept = d.spec.accepted_per_step if d.spec else 1.0
    tpot: Floats = (decode + batch * each) / kept
    prompt = prompt_s(grown, load, chunk)
    if d.dp == 1:
        first = beside_chunks_s(d, chunks, load.cached_tokens) + float(sizes @ chunks.counts)
    else:
        first = ttft_s(d, load.input_tokens, load.cached_tokens)
    busy = prompt + load.output_tokens * tpot / batch
    return Points(grown, batch, tpot, batch / tpot, d.chips * busy / load.output_tokens * 1e6, first)


def machine(d: Deployment) -> ModuleType:
    """The module with the step times of this kind of machine."""
    return dataflow if d.is_pipeline else roofline


def _bases_s(d: Deployment, batch: Floats, sizes: Floats) -> tuple[Floats, float, Floats]:
    """(decode steps of these batches, a step with a full chunk, steps of a lone prompt's chunks) [s]."""
    full = np.array([float(d.max_batched_tokens)])
    if d.is_pipeline or d.pp > 1 or d.spec:
        mixed = machine(d).mixed_s(d, np.concatenate([full, sizes]))
        return machine(d).decode_s(d, batch), float(mixed[0]), mixed[1:]
    every = roofline.base_s(d, np.concatenate([batch, full, sizes]))
    return every[: len(batch)], float(every[len(batch)]), every[len(batch) + 1 :]


def prompt_s(d: Deployment, load: Load, chunk_s: float) -> float:
    """Time of an instance that one prompt takes among many others: its share of full chunks of ``chunk_s`` [s]."""
    fresh = max(1, load.input_tokens - load.cached_tokens)
    chunks = fresh / d.max_batched_tokens
    pairs = fresh * load.cached_tokens + fresh * (fresh + 1) / 2
    reads: float = machine(d).kv_s(d) * max(1.0, chunks) * (load.cached_tokens + fresh / 2)
    brought = dataflow.load_s(d) * load.cached_tokens if d.is_pipeline else 0.0
    return chunks * chunk_s + float(machine(d).pair_s(d)) * pairs + reads + brought

"""Operating points of a deployment: speed of a user against what a token costs in chip time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.perf import dataflow, roofline
from infermix.perf.breakdown import bound_by, largest_part
from infermix.perf.deployment import MAX_NUM_SEQS, Deployment
from infermix.perf.idle import Chunks, cut, ttft_s
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
        Chip-seconds for a million output tokens, the reading of their prompts included, and the chips of whole
        systems that no instance fits on [s].
    ttft_s
        Time to first token when idle [s].
    kv_tokens_left
        KV tokens that fit beside weights and working memory.
    collectives_s
        What the chips of a group take to exchange activations in each decode step [s]; None where it was not told
        apart.
    """

    deployment: Deployment
    load: Load
    batch: Floats
    tpot_s: Floats
    tokens_per_s: Floats
    chip_s_per_mtok: Floats
    ttft_s: float
    kv_tokens_left: int
    collectives_s: Floats | None = None

    def bound(self, i: int) -> str:
        """What takes most of the decode step at the i-th batch, as ``breakdown.bound_by`` says."""
        d, batch = self.deployment, int(self.batch[i])
        if self.collectives_s is None:
            return bound_by(d, batch, self.load.context)
        kv, links = batch * roofline.kv_s(d) * self.load.context, float(self.collectives_s[i])
        return largest_part(d, batch, step=float(self.tpot_s[i]), kv=kv, links=links)


class _Terms(NamedTuple):
    """What stands beside the base of a step, by what it grows with [s]."""

    kv: float
    """For each token of context that is read."""
    pair: float
    """For each pair of a prompt token and a token of its context."""
    sequence: float
    brought: float
    """For each cached token that is brought in."""


class _Bases(NamedTuple):
    """Times of steps, attention over the context left out [s]."""

    decode: Floats
    """Decode steps of the batches."""
    chunk: float
    """A step with a full chunk."""
    lone: Floats
    """Steps of a lone prompt's chunks."""
    collectives: Floats | None
    """Of the decode steps."""


def points(d: Deployment, load: Load, batches: Floats = BATCHES) -> Points | None:
    """Operating points at the batches whose contexts fit; None where not even the first does.

    Every DP group of a deployment may hold ``MAX_NUM_SEQS`` sequences and a chunk of its own.
    """
    grown = for_groups(d)
    left = kv_tokens_left(grown)
    most = min(left // (load.input_tokens + load.output_tokens), grown.max_num_seqs)
    if most < batches[0]:
        return None
    batch: Floats = batches[: int(np.searchsorted(batches, most, side="right"))]
    chunks = cut(load.input_tokens, load.cached_tokens, d.max_batched_tokens)
    terms, bases = _terms(d), _bases_s(grown, batch, chunks.sizes)
    kept = d.spec.accepted_per_step if d.spec else 1.0
    tpot: Floats = (bases.decode + batch * (terms.kv * load.context + terms.sequence)) / kept
    busy = _prompt_s(grown, load, bases.chunk, terms) + load.output_tokens * tpot / batch
    if d.dp == 1 and d.spec is None:
        first = float(bases.lone @ chunks.counts) + _beside_s(terms, chunks, load.cached_tokens)
    else:
        first = ttft_s(d, load.input_tokens, load.cached_tokens)
    cost: Floats = bought_chips(d) * busy / load.output_tokens * 1e6
    return Points(grown, load, batch, tpot, batch / tpot, cost, first, left, bases.collectives)


def bought_chips(d: Deployment) -> float:
    """Chips that are paid for to run one instance: its own, and its share of those left over in whole systems.

    >>> from infermix.catalog.load import catalog
    >>> from infermix.fleet import PoolRow, make_deployment
    >>> row = PoolRow(system="gb200-nvl72", instances=1, tp=64)
    >>> bought_chips(make_deployment(catalog(), row, "llama-3.3-70b", "here"))
    72.0
    """
    return d.system.chips * d.systems_per_instance / d.instances_per_system


def for_groups(d: Deployment) -> Deployment:
    """``d`` with room for ``MAX_NUM_SEQS`` sequences, and a chunk, in each DP group."""
    seqs, tokens = max(d.dp * MAX_NUM_SEQS, d.max_num_seqs), d.dp * d.max_batched_tokens
    return msgspec.structs.replace(d, max_num_seqs=seqs, max_batched_tokens=tokens)


def _terms(d: Deployment) -> _Terms:
    if d.is_pipeline:
        return _Terms(dataflow.kv_s(d), dataflow.pair_s(d), 0.0, dataflow.load_s(d))
    return _Terms(roofline.kv_s(d), roofline.pair_s(d), roofline.per_seq_s(d), 0.0)


def _bases_s(d: Deployment, batch: Floats, sizes: Floats) -> _Bases:
    full, n = np.array([float(d.max_batched_tokens)]), len(batch)
    if d.is_pipeline or d.pp > 1 or d.spec:
        machine = dataflow if d.is_pipeline else roofline
        mixed = machine.mixed_s(d, np.concatenate([full, sizes]))
        return _Bases(machine.decode_s(d, batch), float(mixed[0]), mixed[1:], None)
    stack = roofline.stack_s(d, np.concatenate([batch, full, sizes]))
    every = roofline.launched_s(d, stack.total) + roofline.head_s(
        d
    )  # as roofline.base_s, which has stages and hops to add
    prompts = every[n:] + roofline.prompt_launches_s(d)
    return _Bases(every[:n], float(prompts[0]), prompts[1:], stack.collectives[:n])


def _prompt_s(d: Deployment, load: Load, chunk_s: float, terms: _Terms) -> float:
    """Time of an instance that one prompt takes among many others: its share of full chunks of ``chunk_s`` [s]."""
    fresh = max(1, load.input_tokens - load.cached_tokens)
    chunks = fresh / d.max_batched_tokens
    pairs = fresh * load.cached_tokens + fresh * (fresh + 1) / 2
    reads = terms.kv * max(1.0, chunks) * (load.cached_tokens + fresh / 2)
    return chunks * chunk_s + terms.pair * pairs + reads + terms.brought * load.cached_tokens


def _beside_s(terms: _Terms, chunks: Chunks, cached_tokens: int) -> float:
    """What a lone prompt takes beside the base times of its chunks, as ``idle.beside_chunks_s`` says [s]."""
    linear = terms.kv * chunks.contexts + terms.pair * chunks.pairs
    return linear + terms.sequence * float(chunks.counts.sum()) + terms.brought * cached_tokens

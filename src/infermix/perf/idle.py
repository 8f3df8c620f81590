"""Time to first token on an idle instance."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.perf import dataflow, roofline
from infermix.perf.deployment import Deployment, check_deployment
from infermix.perf.table import refuse_unfit


class Chunks(NamedTuple):
    """A prompt cut into chunks: their sizes, each once, and how many there are of each."""

    sizes: Floats
    counts: Floats
    contexts: float
    """Tokens of context at the ends of all chunks, added up."""
    pairs: float
    """Pairs of a prompt token and a token of its context."""


@lru_cache(maxsize=1024)
def cut(input_tokens: int, cached_tokens: int, chunk: int) -> Chunks:
    """Cut the uncached prompt into chunks; at least one token is computed.

    >>> cut(10_000, 0, 8192).sizes
    array([1808., 8192.])
    """
    first = min(cached_tokens, input_tokens - 1)
    ends = np.arange(first, input_tokens, chunk, dtype=np.float64) + chunk
    ends[-1] = input_tokens
    fresh = input_tokens - first
    sizes, counts = np.unique(np.diff(ends, prepend=first), return_counts=True)
    pairs = fresh * first + fresh * (fresh + 1) / 2
    return Chunks(sizes, counts.astype(np.float64), float(ends.sum()), pairs)


def ttft_s(deployment: Deployment, input_tokens: int, cached_tokens: int = 0) -> float:
    """Unloaded time to first token [s]: the uncached prompt in chunks on an idle instance.

    A lone prompt stays in one of ``dp`` groups, so the others do not help with it; nothing is drafted while it is read.

    Parameters
    ----------
    input_tokens, cached_tokens
        Length of the prompt, and how much of it is in the KV cache already [tokens].
    """
    d = check_deployment(deployment)
    refuse_unfit(d)
    d = msgspec.structs.replace(d, spec=None)
    chunks = cut(input_tokens, cached_tokens, d.max_batched_tokens)
    if d.is_pipeline:
        steps = dataflow.mixed_s(d, chunks.sizes)
    else:
        steps = roofline.mixed_s(d, chunks.sizes, spread=False)
    return beside_chunks_s(d, chunks, cached_tokens) + float(steps @ chunks.counts)


def beside_chunks_s(d: Deployment, chunks: Chunks, cached_tokens: int) -> float:
    """What a lone prompt takes beside the base times of its chunks [s]."""
    if d.is_pipeline:
        linear = dataflow.kv_s(d) * chunks.contexts + dataflow.pair_s(d) * chunks.pairs
        return linear + dataflow.load_s(d) * cached_tokens
    linear = roofline.kv_s(d) * chunks.contexts + roofline.pair_s(d) * chunks.pairs
    return d.dp * (linear + roofline.per_seq_s(d) * float(chunks.counts.sum()))

"""Time to first token on an idle instance."""

from __future__ import annotations

import numpy as np

from infermix.perf import dataflow, roofline
from infermix.perf.deployment import Deployment, check_deployment
from infermix.perf.table import refuse_unfit


def ttft_s(deployment: Deployment, input_tokens: int, cached_tokens: int = 0) -> float:
    """Unloaded time to first token [s]: the uncached prompt in chunks on an idle instance.

    A lone prompt stays in one of ``dp`` groups, so the others do not help with it.

    Parameters
    ----------
    input_tokens, cached_tokens
        Length of the prompt, and how much of it is in the KV cache already [tokens].
    """
    d = check_deployment(deployment)
    refuse_unfit(d)
    ends = _chunk_ends(input_tokens, cached_tokens, d.max_batched_tokens)
    starts = np.concatenate([[float(min(cached_tokens, input_tokens - 1))], ends[:-1]])
    sizes, at = np.unique(ends - starts, return_inverse=True)
    pairs = (ends - starts) * starts + (ends - starts) * (ends - starts + 1) / 2
    if d.is_pipeline:
        steps = dataflow.mixed_s(d, sizes)[at]
        linear = dataflow.kv_s(d) * ends.sum() + dataflow.pair_s(d) * pairs.sum()
        return float(dataflow.load_s(d) * cached_tokens + steps.sum() + linear)
    steps = roofline.mixed_s(d, sizes, spread=False)[at]
    linear = roofline.per_seq_s(d) * len(ends) + roofline.kv_s(d) * ends.sum() + roofline.pair_s(d) * pairs.sum()
    return float(steps.sum() + d.dp * linear)


def _chunk_ends(input_tokens: int, cached_tokens: int, chunk: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Context after each chunk of the prompt; at least one token is computed."""
    first = min(cached_tokens, input_tokens - 1)
    ends = np.arange(first, input_tokens, chunk, dtype=np.float64) + chunk
    ends[-1] = input_tokens
    return ends

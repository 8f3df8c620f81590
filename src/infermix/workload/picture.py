"""A picture of traffic: lengths, arrivals, reuse and sessions of a trace, a profile or ServeGen's clients."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints
from infermix.workload.laws import index_of_dispersion
from infermix.workload.rows import Int32s
from infermix.workload.traces import MOONCAKE_BLOCK_TOKENS, Trace, known_prefix_blocks
from infermix.workload.turns import turns_of

BINS = 32
"""Bars of a histogram; their edges are evenly spaced on a logarithm."""
SLOTS = 72
"""Windows over which the rate is told."""
WINDOWS_S = (1.0, 10.0, 60.0)
"""Windows for the index of dispersion [s]."""


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """Distribution of one quantity; bar i holds what lies in ``edges[i]`` to ``edges[i + 1]``."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: float
    edges: list[float]
    counts: list[int]


class Arriving(msgspec.Struct, frozen=True, kw_only=True):
    """Requests over time."""

    window_s: float
    per_s: list[float]
    """Mean rate of each window [1/s]."""
    peak_to_mean: float
    gap_cv: float
    """Coefficient of variation of the times between arrivals; 1 for Poisson arrivals."""
    dispersion: dict[str, float]
    """Window [s] → variance over mean of the counts in it; 1 for Poisson arrivals."""
    clock_step_s: float
    """Step of a coarse clock over which arrivals were spread by lot; 0 where the clock is fine."""


class Reuse(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the input was there before."""

    cached_share: float
    """Of all input tokens."""
    warm_share: float
    """Of all requests: those with something cached."""
    block_tokens: int
    """Tokens of a prefix block; 0 where the trace has no block ids, and then what follows is 0."""
    blocks: int
    distinct_blocks: int
    known_share: float
    """Of all blocks: those that an earlier request had, wherever in its prompt."""
    prefix_share: float
    """Of all blocks: those in a leading run of known ones, which a prefix cache can use."""


class Conversing(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions: how long they are and what they wait for."""

    sessions: int
    """In the trace; 0 for a profile."""
    turns: Column
    """Requests of a session."""
    think_s: Column | None
    """Pause after an answer: thinking and tools."""
    service_s: Column | None
    sub_agent_share: float
    """Of all requests."""


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """What traffic looks like."""

    name: str
    kind: str
    """trace, profile or clients."""
    format: str
    description: str = ""
    source: str = ""
    licence: str = ""
    requests: int
    """Of the trace, or drawn for this picture."""
    drawn: bool
    """Whether arrivals were drawn, not recorded."""
    span_s: float | None
    rate_per_s: float | None
    tokens_per_s: dict[str, float]
    """input, uncached and output; empty without a rate."""
    lengths: dict[str, Column]
    """input_tokens, uncached_tokens, output_tokens, context_tokens."""
    arrivals: Arriving | None
    reuse: Reuse
    sessions: Conversing | None
    models: dict[str, int] = {}
    repairs: dict[str, int] = {}
    notes: list[str] = []
    figures: list[str] = []
    """Catalogue figures used: none."""


def column(values: npt.NDArray[np.generic]) -> Column:
    """Mean, percentiles and a histogram; what is below the first edge lies in the first bar."""
    x = np.asarray(values, dtype=np.float64)
    p50, p90, p99 = np.quantile(x, (0.5, 0.9, 0.99))
    low, high = max(float(x.min()), _floor(x)), max(float(x.max()), _floor(x))
    edges = np.geomspace(low, high * (1 + 1e-9), BINS + 1) if high > 1.001 * low else np.array([low, 1.001 * high])
    at = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(edges) - 2)
    return Column(
        mean=float(x.mean()),
        p50=float(p50),
        p90=float(p90),
        p99=float(p99),
        max=float(x.max()),
        edges=[float(e) for e in edges],
        counts=np.bincount(at, minlength=len(edges) - 1).tolist(),
    )


def _floor(x: Floats) -> float:
    """Where a logarithmic axis starts: at one token, or where all but a few of small numbers lie."""
    return 1.0 if float(np.quantile(x, 0.5)) >= 5.0 else max(float(np.quantile(x, 0.01)), 1e-3)


def lengths_of(inputs: Int32s, cached: Int32s, outputs: Int32s) -> dict[str, Column]:
    """The four columns of lengths [tokens]."""
    return {
        "input_tokens": column(inputs),
        "uncached_tokens": column(inputs - cached),
        "output_tokens": column(outputs),
        "context_tokens": column(inputs.astype(np.int64) + outputs),
    }


def arriving(t_s: Floats, span_s: float, clock_step_s: float = 0.0) -> Arriving | None:
    """Arrivals in [0, span); None for fewer than three."""
    if len(t_s) < 3 or not span_s > 0:
        return None
    window = span_s / SLOTS
    counts = np.bincount(np.minimum((t_s / window).astype(np.int64), SLOTS - 1), minlength=SLOTS)
    gaps = np.diff(t_s)
    return Arriving(
        window_s=window,
        per_s=(counts / window).tolist(),
        peak_to_mean=float(counts.max() / counts.mean()),
        gap_cv=float(gaps.std() / gaps.mean()) if gaps.any() else float("nan"),
        dispersion={f"{w:g}": index_of_dispersion(t_s, w, span_s) for w in WINDOWS_S},
        clock_step_s=clock_step_s,
    )


def reuse_of(inputs: Int32s, cached: Int32s, trace: Trace | None = None) -> Reuse:
    """Cached tokens, and prefix blocks where a trace has their ids."""
    blocks = distinct = known = leading = 0
    if trace is not None and trace.block_ids:
        start, ids = trace.block_start[0], trace.block_ids[0]
        blocks, distinct = len(ids), len(np.unique(ids))
        leading = int(known_prefix_blocks(start, ids).sum())
        known = _seen_before(start, ids)
    return Reuse(
        cached_share=float(cached.sum() / inputs.sum()),
        warm_share=float((cached > 0).mean()),
        block_tokens=MOONCAKE_BLOCK_TOKENS if blocks else 0,
        blocks=blocks,
        distinct_blocks=distinct,
        known_share=known / blocks if blocks else 0.0,
        prefix_share=leading / blocks if blocks else 0.0,
    )


def _seen_before(start: Ints, ids: Ints) -> int:
    """Blocks that an earlier row had."""
    row = np.repeat(np.arange(len(start) - 1), np.diff(start))
    _, first, codes = np.unique(ids, return_index=True, return_inverse=True)
    return int(np.count_nonzero(row[first][codes] < row))


def conversing(trace: Trace) -> Conversing | None:
    """Sessions of a trace; pauses and service only where service times were recorded."""
    if not trace.has_sessions:
        return None
    think = service = None
    if trace.service_s is not None and np.isfinite(trace.service_s).any():
        turns = turns_of(trace)
        waited = turns.think_s[turns.parent >= 0]
        think = column(waited) if len(waited) else None
        service = column(turns.service_s)
    return Conversing(
        sessions=trace.sessions,
        turns=column(np.bincount(trace.session)),
        think_s=think,
        service_s=service,
        sub_agent_share=0.0 if trace.sub_agent is None else float(trace.sub_agent.mean()),
    )

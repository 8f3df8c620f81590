"""What a simulation holds while it runs: record arrays, one row per pool, instance or slot.

A *slot* is a place in an instance's batch. Only this module and ``serve.live`` hold mutable state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats
from infermix.errors import InputError

IDLE, MIXED, JUMP = 0, 1, 2
"""What an instance is doing: nothing, one step that carries a prompt chunk, or k decode steps."""

UNFINISHED, COMPLETED, REFUSED, STARTED = 0, 1, 2, 3
"""Status of a request; ``STARTED`` (admitted once) becomes ``UNFINISHED`` in results."""

NONE = -1
NO_CONTEXT_LIMIT = 2**62

GAP_PARTS, GAP_EXPONENT, GAP_BINS = 64, -23, 64 * 40
"""Bins of the times between tokens: parts of an octave, exponent of the first octave (2**-24 s), and their number."""

OPEN, WAITING = 0, 1
"""Places in ``State.counts``: the next row without a parent that has not arrived, and the size of the heap."""

REQUEST = np.dtype(
    [
        ("arrival_s", "f8"), ("first_s", "f8"), ("last_s", "f8"), ("u", "f8"),
        ("input", "i4"), ("cached", "i4"), ("output", "i4"),
        ("generated", "i4"),  # tokens out before the last preemption
        ("behind", "i4"),     # next request in the waiting queue
        ("instance", "i4"), ("class_id", "i2"), ("status", "i2"),
        ("session", "i4"), ("think_s", "f4"),
        ("parent", "i4"), ("child", "i4"), ("sibling", "i4"),  # rows; children arrive after the parent's last token
        ("prefix", "i4"), ("deadline_s", "f8"),
        ("admit_s", "f8"),    # start of the step that it was first part of
        ("stalled_s", "f8"),  # its last token before the last preemption
    ],
    align=True,
)  # fmt: skip

POOL = np.dtype(
    [
        ("per_seq_s", "f8"), ("kv_s", "f8"), ("pair_s", "f8"), ("load_s", "f8"),
        ("block_tokens", "i8"), ("blocks", "i8"), ("max_num_seqs", "i8"), ("max_batched_tokens", "i8"),
        ("max_context", "i8"),
        ("first", "i8"), ("instances", "i8"), ("allowed", "?"),
    ],
    align=True,
)  # fmt: skip

INSTANCE = np.dtype(
    [
        ("pool", "i8"), ("doing", "i8"),
        ("start_s", "f8"),     # start of what it is doing
        ("iteration", "i8"),   # steps finished so far
        ("planned", "i8"),     # steps in what it is doing
        ("decoding", "i8"),    # sequences that decode
        ("kv_tokens", "i8"),   # KV tokens those will read in the next step
        ("running", "i8"), ("free_blocks", "i8"),
        ("head", "i8"), ("tail", "i8"),            # running list, in order of admission
        ("wait_head", "i8"), ("wait_tail", "i8"),  # waiting queue of requests
        ("chunks", "i8"),      # slots that read a prompt chunk in this step
        ("free_slots", "i8"), ("heap_size", "i8"),
        ("busy_s", "f8"), ("steps", "i8"), ("decode_tokens", "i8"), ("prompt_tokens", "i8"),
        ("kv_peak_blocks", "i8"), ("preemptions", "i8"), ("seq_steps", "i8"),
        # of the chunks in the step: KV tokens read, token x context pairs, cached tokens brought in, prompt tokens
        ("chunk_kv", "i8"), ("chunk_pairs", "i8"), ("chunk_cached", "i8"), ("chunk_tokens", "i8"),
        # what policies see (columns of the FleetView)
        ("inflight", "i8"), ("waiting", "i8"), ("queued_tokens", "i8"), ("context_tokens", "i8"),
        ("max_num_seqs", "i8"), ("eligible", "?"),
        ("prefill_s_per_token", "f8"), ("step_s", "f8"), ("age_s", "f8"), ("role", "i8"),
        ("kv_capacity_tokens", "i8"), ("step_base_s", "f8"), ("step_per_seq_s", "f8"), ("step_per_kv_s", "f8"),
        ("usd_per_s", "f8"),
    ],
    align=True,
)  # fmt: skip

SLOT = np.dtype(
    [
        ("request", "i4"), ("position", "i4"),   # tokens of the prompt that are in the KV cache
        ("prompt", "i4"), ("chunk", "i4"),       # prompt length; tokens read in this step
        ("kv_base", "i8"),                       # KV tokens read in step j: kv_base + j
        ("end", "i8"),                           # iteration at which the last token is out
        ("phase", "i4"), ("decoding", "i4"),     # takes a new block in step j when j % block_tokens == phase
        ("previous", "i4"), ("next", "i4"), ("heap_place", "i4"),
        # three lists that share the rows, indexed by place: ends as a heap, slots that are free, slots with a chunk
        ("heap", "i4"), ("free", "i4"), ("chunked", "i4"),
    ],
    align=True,
)  # fmt: skip


class State(NamedTuple):
    """Everything the kernel reads and writes: few arrays, since every call hands all of them on."""

    requests: npt.NDArray[np.void]
    pools: npt.NDArray[np.void]
    tables: Floats
    """[0: decode_s, 1: mixed_s; pool; tokens in the step]"""
    instances: npt.NDArray[np.void]
    slots: npt.NDArray[np.void]
    """[instance, slot]"""
    next_s: Floats
    """[instance] end of what it is doing, or start of its next step; inf when there is nothing to do."""
    phases: npt.NDArray[np.int32]
    """[instance, phase] decoding sequences by the step in which they next take a block."""
    serves: Bools
    """[pool, class]"""
    typical_output: Floats
    heap: npt.NDArray[np.int32]
    """Rows whose parent has ended, as a heap by arrival."""
    counts: npt.NDArray[np.int64]
    decoding_of: npt.NDArray[np.int32]
    """[instance, class] sequences that decode"""
    gaps: npt.NDArray[np.int64]
    """[pool, class, bin] times between two tokens of a request"""


def gap_edges_s() -> Floats:
    """Edges of the bins of ``State.gaps`` [s]: 64 equal parts of every octave, 1.6 % wide at most.

    >>> edges = gap_edges_s()
    >>> len(edges) == GAP_BINS + 1, float(edges[64] / edges[0])
    (True, 2.0)
    """
    place = np.arange(GAP_BINS + 1)
    return np.asarray(np.ldexp(0.5 + place % GAP_PARTS / (2 * GAP_PARTS), place // GAP_PARTS + GAP_EXPONENT))


@dataclass(frozen=True)
class PoolSpec:
    """A pool as arrays and scalars. ``decode_s`` and ``mixed_s`` are over T = 0 .. max_batched_tokens."""

    instances: int
    decode_s: Floats
    mixed_s: Floats
    per_seq_s: float
    kv_s: float
    pair_s: float
    load_s: float
    block_tokens: int
    blocks: int
    max_num_seqs: int
    max_batched_tokens: int
    serves: Bools
    prefill_s_per_token: float
    step_s: float
    role: int = 0
    max_context: int = NO_CONTEXT_LIMIT
    """Longest input + output that the model takes [tokens]."""
    usd_per_s: float = np.nan
    """Price of an instance [USD/s]; NaN: unknown."""

    def __post_init__(self) -> None:
        if self.instances < 1:
            raise InputError("a pool needs at least one instance", value=self.instances)
        if not 1 <= self.max_num_seqs <= self.max_batched_tokens:
            raise InputError(
                "max_num_seqs out of range",
                value=self.max_num_seqs,
                allowed=f"1 to max_batched_tokens ({self.max_batched_tokens})",
            )
        for name in ("decode_s", "mixed_s"):
            if len(getattr(self, name)) != self.max_batched_tokens + 1:
                raise InputError(f"{name} must have max_batched_tokens + 1 entries", value=len(getattr(self, name)))

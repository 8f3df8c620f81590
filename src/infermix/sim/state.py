"""What a simulation holds while it runs: record arrays, one row per request, pool, instance or slot.

A *slot* is a place in an instance's batch. Only this module and ``serve.live`` hold mutable state.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats, Ints
from infermix.errors import InputError

IDLE, MIXED, JUMP = 0, 1, 2
"""What an instance is doing: nothing, one step that carries a prompt chunk, or k decode steps."""

UNFINISHED, COMPLETED, REFUSED, STARTED = 0, 1, 2, 3
"""Status of a request; ``STARTED`` (admitted once) becomes ``UNFINISHED`` in results."""

BOTH, PREFILL, DECODE = 0, 1, 2
"""Roles of a pool."""

UP, STARTING, DRAINING, DOWN = 0, 1, 2, 3
"""Status of an instance; only those that are up take new requests."""

ARRIVES, RETURNS, HANDS_OFF, DELIVERED = 0, 1, 2, 3
"""What happens to a request next: it comes, comes again after a failure, has its prompt read and moves, has moved."""

INFLIGHT, QUEUED, RUNNING, QUEUED_TOKENS, CONTEXT_TOKENS = 0, 1, 2, 3, 4
"""Rows of ``State.counters``."""

NONE = -1
NO_CONTEXT_LIMIT = 2**62

GAP_PARTS, GAP_EXPONENT, GAP_BINS = 64, -23, 64 * 40
"""Bins of the times between tokens: parts of an octave, exponent of the first octave (2**-24 s), and their number."""

REQUEST = np.dtype(
    [
        ("arrival_s", "f8"), ("first_s", "f8"), ("last_s", "f8"),
        ("admit_s", "f8"),    # start of the step that it was first part of
        ("stalled_s", "f8"),  # its last token before it was preempted or sent back
        ("u", "f8"),
        ("input", "i4"), ("cached", "i4"), ("output", "i4"),
        ("generated", "i4"),  # tokens out before it last lost its slot
        ("behind", "i4"),     # next request in the waiting queue
        ("instance", "i4"), ("class_id", "i2"), ("status", "i1"),
        ("level", "i1"),      # rank of its priority; 0 is the most urgent
    ],
    align=True,
)  # fmt: skip

EXTRA = np.dtype(
    [
        ("due_s", "f8"), ("deadline_s", "f8"), ("z", "f8"),
        ("think_s", "f4"), ("session", "i4"),
        ("parent", "i4"), ("child", "i4"), ("sibling", "i4"),  # rows; children arrive after the parent's last token
        ("prefix", "i4"), ("segment", "i4"), ("shared", "i4"),  # deepest segment of its path, tokens others have, too
        ("hit", "i4"), ("loaded", "i4"), ("restarts", "i4"),
        ("prefill_instance", "i4"),
        ("held", "i4"),        # own blocks on the prefill instance until it is delivered
        ("source_life", "i4"), ("target_life", "i4"),
        ("priority", "i2"), ("stage", "i2"),
    ],
    align=True,
)  # fmt: skip

POOL = np.dtype(
    [
        ("per_seq_s", "f8"), ("kv_s", "f8"), ("pair_s", "f8"), ("load_s", "f8"),
        ("block_tokens", "i8"), ("blocks", "i8"), ("watermark_blocks", "i8"),
        ("max_num_seqs", "i8"), ("max_batched_tokens", "i8"), ("max_context", "i8"),
        ("kv_tokens", "i8"),   # what the blocks above the watermark hold
        ("prefill_s_per_token", "f8"),
        ("role", "i8"), ("transfer_s_per_token", "f8"), ("transfer_latency_s", "f8"),
        ("stride", "i8"),      # steps from one block of a decoding sequence to its next
        ("accepted_per_step", "f8"), ("accepted_variance", "f8"), ("accepted_most", "i8"),
        ("ranks", "i8"),
        ("prefix_cache", "?"),
        ("host_blocks", "i8"), ("host_load_s", "f8"), ("host_latency_s", "f8"),
        ("remote_blocks", "i8"), ("remote_load_s", "f8"), ("remote_latency_s", "f8"),
        ("start_s", "f8"), ("least", "i8"), ("target_inflight", "f8"), ("scale_every_s", "f8"),
        ("scale_down_after", "i8"),
        ("tick_s", "f8"),      # next tick of autoscaling
        ("calm", "i8"),        # ticks in a row with more instances than wanted
        ("up", "i8"),          # instances that take requests
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
        ("kv_tokens", "f8"),   # KV tokens those will read in the next step
        ("growth", "f8"),      # how many more they read in each further step
        ("lead_kv", "f8"), ("lead_growth", "f8"),  # the same for the slowest group, times the number of groups
        ("running", "i8"), ("free_blocks", "i8"), ("admissions", "i8"),
        ("head", "i8"), ("tail", "i8"),            # running list, in order of admission
        ("waiting", "i8"),     # requests in the queues
        ("chunks", "i8"),      # slots that read a prompt chunk in this step, or join from another instance
        ("joiners", "i8"),     # those that join
        ("free_slot", "i8"),   # the first of the slots that were used and are free; ``next`` names the next one
        ("used_slots", "i8"),  # slots from this one on have never been used
        ("heap_size", "i8"),
        ("busy_s", "f8"), ("steps", "i8"), ("decode_tokens", "i8"), ("prompt_tokens", "i8"),
        ("kv_peak_blocks", "i8"), ("seq_steps", "i8"),
        # of the chunks in the step: KV tokens read, token x context pairs, cached tokens brought in, prompt tokens
        ("chunk_kv", "i8"), ("chunk_pairs", "i8"), ("chunk_cached", "i8"), ("chunk_tokens", "i8"),
        ("tier_s", "f8"),      # loading from lower tiers in this step
        ("link_s", "f8"),      # its link is busy until then
        ("sending", "i4"), ("preemptions", "i4"), ("sent_tokens", "i8"), ("link_busy_s", "f8"),
        ("status", "i4"), ("life", "i4"), ("ready_s", "f8"), ("on_since_s", "f8"), ("on_s", "f8"),
    ],
    align=True,
)  # fmt: skip

SLOT = np.dtype(
    [
        ("request", "i4"), ("position", "i4"),   # tokens of the prompt that are in the KV cache
        ("prompt", "i4"), ("chunk", "i4"),       # prompt length; tokens read in this step
        ("kv_start", "f8"), ("rate", "f8"),      # KV tokens read in step j: kv_start + rate j
        ("began", "i8"), ("end", "i8"),          # iterations at which it began to decode, and has its last token
        ("turn", "i8"),                          # its number among the admissions of the instance
        ("first_take", "i8"),                    # step of its first block after those of the prompt
        ("grown", "i8"),                         # step of its latest block taken while memory was scarce
        ("had", "i4"),                           # tokens out when it began to decode
        ("prompt_blocks", "i4"), ("cached_blocks", "i4"),  # blocks of the prompt; of these the cache's
        ("phase", "i4"), ("decoding", "i4"),     # takes a block in step j when j % stride == phase
        ("rank", "i4"), ("previous", "i4"), ("next", "i4"), ("heap_place", "i4"),
        # two lists that share the rows, indexed by place: ends as a heap, slots with a chunk
        ("heap", "i4"), ("chunked", "i4"),
        ("unused", "i8"),                        # a row is two cache lines
    ],
    align=True,
)  # fmt: skip

GROUP = np.dtype([("kv_tokens", "f8"), ("growth", "f8"), ("running", "i8"), ("chunk_s", "f8")], align=True)
"""One group of an instance that reads KV in several."""

EVENT = np.dtype([("time_s", "f8"), ("instance", "i8"), ("what", "i8")], align=True)
FAIL, START, DRAIN = 0, 1, 2

CLOCK = np.dtype(
    [
        ("arrivals", "i8"),    # rows without a parent that have arrived: the next one to come
        ("due", "i8"),         # size of the heap of rows that are due
        ("linked", "?"),       # what one instance does may bring requests to others
        ("resume", "?"),
        ("stale_s", "f8"), ("reading_s", "f8"), ("next_reading_s", "f8"),
        ("event", "i8"), ("starting", "i8"), ("scaled", "?"),
        ("control_s", "f8"),   # next reading, event, start or tick
        ("now_s", "f8"),       # the last thing that happened
        ("wide", "i8"),        # -1: every request has a row in extras; 0: one row stands for all
        ("first_number", "i8"),  # what policies see is the row and this: rows before the table began
    ],
    align=True,
)  # fmt: skip

GATE = np.dtype(
    [
        ("ration_per_s", "f8"), ("ration_burst", "f8"), ("shed_above", "f8"), ("max_wait_s", "f8"),
        ("left", "f8"), ("filled_s", "f8"),
    ],
    align=True,
)  # fmt: skip


class State(NamedTuple):
    """Everything the kernel reads and writes: few arrays, since every call hands all of them on."""

    requests: npt.NDArray[np.void]
    extras: npt.NDArray[np.void]
    """What only some workloads need; row ``i & clock.wide``."""
    pools: npt.NDArray[np.void]
    tables: Floats
    """[0: decode_s, 1: mixed_s; pool; tokens in the step]"""
    instances: npt.NDArray[np.void]
    slots: npt.NDArray[np.void]
    """[instance, slot]"""
    counters: Ints
    """[counter, instance] what policies see, now"""
    seen: Ints
    """[counter, instance] what policies see, as of the last reading; the same array when readings are never old"""
    age_s: Floats
    eligible: Bools
    next_s: Floats
    """[instance, then inf] end of what it is doing, or start of its next step; inf when there is nothing to do."""
    tree: npt.NDArray[np.int32]
    """Which instance is next: winners of pairs, of pairs of pairs, and so on up to place 1."""
    phases: npt.NDArray[np.int32]
    """[instance, phase] decoding sequences by the step in which they next take a block; zeros after the last phase."""
    groups: npt.NDArray[np.void]
    """[instance, group]"""
    queues: npt.NDArray[np.int32]
    """[instance, level, 0: head, 1: tail] waiting requests"""
    serves: Bools
    """[pool, class]"""
    typical_output: Floats
    due: npt.NDArray[np.int32]
    """Rows that are due at a time of their own, as a heap."""
    decoding_of: npt.NDArray[np.int32]
    """[instance, class] sequences that decode"""
    gaps: npt.NDArray[np.int64]
    """[pool, class, bin] times between two tokens of a request"""
    clock: npt.NDArray[np.void]
    """One row."""
    events: npt.NDArray[np.void]
    gates: npt.NDArray[np.void]
    """By class; empty where nothing is turned away at the gateway."""
    cache: Any
    """``sim.cache.Cache``"""


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
    """A pool as arrays and scalars. ``decode_s`` and ``mixed_s`` are over T = 0 .. max_batched_tokens.

    What the fields mean is written in ``docs/design/simulator.md``; all that have defaults are off by them.
    """

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
    role: int = BOTH
    max_context: int = NO_CONTEXT_LIMIT
    """Longest input + output that the model takes [tokens]."""
    usd_per_s: float = np.nan
    """Price of an instance [USD/s]; NaN: unknown."""
    watermark_blocks: int = 0
    prefix_cache: bool = False
    retention_s: float = np.inf
    host_blocks: int = 0
    host_load_s: float = 0.0
    """For each token loaded [s]."""
    host_latency_s: float = 0.0
    remote_blocks: int = 0
    remote_load_s: float = 0.0
    remote_latency_s: float = 0.0
    transfer_s_per_token: float = 0.0
    transfer_latency_s: float = 0.0
    accepted_per_step: float = 1.0
    """Mean tokens that a sequence gets from a step."""
    accepted_variance: float = 0.0
    accepted_most: int = 1
    ranks: int = 1
    """Groups that read KV side by side."""
    start_s: float = 0.0
    instances_up: int | None = None
    """Up at the beginning; None: all."""
    least: int = 0
    target_inflight: float = np.inf
    """Requests in flight for each instance that autoscaling aims at; inf: no autoscaling."""
    scale_every_s: float = np.inf
    scale_down_after: int = 1

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
        self._check_features()

    def _check_features(self) -> None:
        if self.role == DECODE and self.prefix_cache:
            raise InputError("a decode pool keeps no prefix cache", mend="set it on the prefill pool")
        if (self.host_blocks or self.remote_blocks) and not self.prefix_cache:
            raise InputError("lower tiers belong to a prefix cache", mend="set prefix_cache")
        if self.accepted_per_step > self.accepted_most or self.accepted_per_step < 1.0:
            raise InputError(
                "accepted_per_step out of range", value=self.accepted_per_step, allowed=f"1 to {self.accepted_most}"
            )
        if not self.ranks >= 1:
            raise InputError("ranks must be 1 or more", value=self.ranks)
        if not 0 <= self.watermark_blocks < max(self.blocks, 1):
            raise InputError("watermark_blocks out of range", value=self.watermark_blocks, allowed="0 to blocks - 1")
        if self.target_inflight < np.inf and not 0.0 < self.scale_every_s < np.inf:
            raise InputError("autoscaling needs a period", value=self.scale_every_s, allowed="scale_every_s > 0")

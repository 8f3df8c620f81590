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
from infermix.route.view import FleetView
from infermix.workload.requests import Requests

IDLE, MIXED, JUMP = 0, 1, 2
"""What an instance is doing: nothing, one step that carries a prompt chunk, or k decode steps."""

UNFINISHED, COMPLETED, REFUSED, STARTED = 0, 1, 2, 3
"""Status of a request; ``STARTED`` (admitted once) becomes ``UNFINISHED`` in results."""

NONE = -1

REQUEST = np.dtype(
    [
        ("arrival_s", "f8"), ("first_s", "f8"), ("last_s", "f8"), ("u", "f8"),
        ("input", "i4"), ("cached", "i4"), ("output", "i4"),
        ("generated", "i4"),  # tokens out before the last preemption
        ("behind", "i4"),     # next request in the waiting queue
        ("instance", "i4"), ("class_id", "i2"), ("status", "i2"),
    ],
    align=True,
)  # fmt: skip

POOL = np.dtype(
    [
        ("per_seq_s", "f8"), ("kv_s", "f8"), ("pair_s", "f8"), ("load_s", "f8"),
        ("block_tokens", "i8"), ("blocks", "i8"), ("max_num_seqs", "i8"), ("max_batched_tokens", "i8"),
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
    ],
    align=True,
)  # fmt: skip

SLOT = np.dtype(
    [
        ("request", "i4"), ("position", "i4"),   # tokens of the prompt that are in the KV cache
        ("prompt", "i4"), ("chunk", "i4"),       # prompt length; tokens read in this step
        ("base", "i8"),                          # KV tokens read in step j: base + j
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

    def __post_init__(self) -> None:
        if self.instances < 1:
            raise InputError("a pool needs at least one instance", value=self.instances)
        if not 1 <= self.max_num_seqs <= self.max_batched_tokens:
            raise InputError("max_num_seqs out of range", value=self.max_num_seqs, allowed=f"1 to max_batched_tokens ({self.max_batched_tokens})")
        for name in ("decode_s", "mixed_s"):
            if len(getattr(self, name)) != self.max_batched_tokens + 1:
                raise InputError(f"{name} must have max_batched_tokens + 1 entries", value=len(getattr(self, name)))


def make_state(requests: Requests, specs: list[PoolSpec], typical_output: Floats, u: Floats) -> State:
    """Allocate the state of a run before its first arrival."""
    instances = _instance_rows(specs)
    slots = np.zeros((len(instances), max(s.max_num_seqs for s in specs)), dtype=SLOT)
    slots["free"] = np.arange(slots.shape[1])
    return State(
        requests=_request_rows(requests, u),
        pools=_pool_rows(specs),
        tables=np.stack([_tables([s.decode_s for s in specs]), _tables([s.mixed_s for s in specs])]),
        instances=instances,
        slots=slots,
        next_s=np.full(len(instances), np.inf),
        phases=np.zeros((len(instances), max(s.block_tokens for s in specs)), dtype=np.int32),
        serves=np.ascontiguousarray([s.serves for s in specs], dtype=np.bool_),
        typical_output=typical_output,
    )


def make_view(state: State, share: Floats) -> FleetView:
    """The counters that policies read: columns of the instance rows, not copies of them."""
    rows = state.instances
    return FleetView(
        **{name: rows[name] for name in FleetView._fields if name in (INSTANCE.names or ())},
        share=np.ascontiguousarray(share, dtype=np.float64),
        sent=np.zeros(share.shape, dtype=np.int64),
    )


def _request_rows(requests: Requests, u: Floats) -> npt.NDArray[np.void]:
    rows = np.zeros(len(requests), dtype=REQUEST)
    rows["arrival_s"], rows["u"] = requests.arrival_s, u
    rows["input"], rows["cached"], rows["output"] = requests.input_tokens, requests.cached_tokens, requests.output_tokens
    rows["class_id"] = requests.class_id
    rows["first_s"] = rows["last_s"] = np.nan
    rows["instance"] = rows["behind"] = NONE
    return rows


def _instance_rows(specs: list[PoolSpec]) -> npt.NDArray[np.void]:
    sizes = [s.instances for s in specs]
    rows = np.zeros(sum(sizes), dtype=INSTANCE)
    rows["pool"] = np.repeat(np.arange(len(specs)), sizes)
    for name in ("head", "tail", "wait_head", "wait_tail"):
        rows[name] = NONE
    for name in ("max_num_seqs", "prefill_s_per_token", "step_s", "role"):
        rows[name] = np.array([getattr(s, name) for s in specs])[rows["pool"]]
    rows["free_slots"] = rows["max_num_seqs"]
    rows["free_blocks"] = np.array([s.blocks for s in specs])[rows["pool"]]
    return rows


def _pool_rows(specs: list[PoolSpec]) -> npt.NDArray[np.void]:
    rows = np.zeros(len(specs), dtype=POOL)
    for name in POOL.names or ():
        if name not in ("first", "allowed"):
            rows[name] = [getattr(s, name) for s in specs]
    rows["first"] = np.concatenate([[0], np.cumsum([s.instances for s in specs])[:-1]])
    return rows


def _tables(tables: list[Floats]) -> Floats:
    width = max(len(t) for t in tables)
    out = np.full((len(tables), width), np.nan)
    for row, table in zip(out, tables, strict=True):
        row[: len(table)] = table
    return out

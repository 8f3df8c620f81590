"""Allocate a simulation: requests and pools become the record arrays of ``sim.state``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from infermix import jit
from infermix.arrays import Floats
from infermix.route.view import FleetView, Promises
from infermix.sim.state import GAP_BINS, INSTANCE, NONE, POOL, REQUEST, SLOT, PoolSpec, State
from infermix.units import SECONDS_PER_HOUR
from infermix.workload.classes import TrafficClass
from infermix.workload.requests import Requests

PREFIX_BLOCKS = 2
"""Blocks whose ids make the prefix key: one alone is often a greeting that all prompts share."""


def make_state(requests: Requests, specs: list[PoolSpec], typical_output: Floats, u: Floats) -> State:
    """Allocate the state of a run before its first arrival."""
    instances = _instance_rows(specs)
    slots = np.zeros((len(instances), max(s.max_num_seqs for s in specs)), dtype=SLOT)
    slots["free"] = np.arange(slots.shape[1])
    return State(
        requests=_for_kernel(_request_rows(requests, u)),
        pools=_for_kernel(_pool_rows(specs)),
        tables=np.stack([_tables([s.decode_s for s in specs]), _tables([s.mixed_s for s in specs])]),
        instances=_for_kernel(instances),
        slots=_for_kernel(slots),
        next_s=np.full(len(instances), np.inf),
        phases=np.zeros((len(instances), max(s.block_tokens for s in specs)), dtype=np.int32),
        serves=np.ascontiguousarray([s.serves for s in specs], dtype=np.bool_),
        typical_output=typical_output,
        heap=np.zeros(int((requests.parent != NONE).sum()), dtype=np.int32),
        counts=np.zeros(2, dtype=np.int64),
        decoding_of=np.zeros((len(instances), len(requests.class_names)), dtype=np.int32),
        gaps=np.zeros((len(specs), len(requests.class_names), GAP_BINS), dtype=np.int64),
    )


def _for_kernel(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Rows whose fields are attributes: Numba gives that to any record array, plain Python needs a view."""
    return rows if jit.ENABLED else rows.view(np.recarray)


def make_view(state: State, share: Floats, promises: Promises) -> FleetView:
    """The counters that policies read: columns of the instance rows, not copies of them."""
    rows = state.instances
    return FleetView(
        **{name: rows[name] for name in FleetView._fields if name in (INSTANCE.names or ())},
        share=np.ascontiguousarray(share, dtype=np.float64),
        sent=np.zeros(share.shape, dtype=np.int64),
        **promises._asdict(),
    )


def make_promises(class_names: Sequence[str], classes: Mapping[str, TrafficClass]) -> Promises:
    """What classes were promised, as arrays; a class that is not listed was promised nothing."""
    listed = [classes.get(name) for name in class_names]

    def column(value: Callable[[TrafficClass], float | None], otherwise: float) -> Floats:
        found = [None if cls is None else value(cls) for cls in listed]
        return np.array([otherwise if x is None else x for x in found], dtype=np.float64)

    return Promises(
        slo_ttft_s=column(lambda cls: cls.slo.ttft_s, np.inf),
        slo_ttft_s_per_token=column(lambda cls: cls.slo.ttft_s_per_1k_uncached / 1000.0, 0.0),
        slo_tpot_s=column(lambda cls: cls.slo.tpot_s, np.inf),
        slo_e2e_s=column(lambda cls: cls.slo.e2e_s, np.inf),
        delay_usd_per_s=column(lambda cls: cls.value_of_time_usd_per_hour, 0.0) / SECONDS_PER_HOUR,
        refuse_late=np.array([cls is not None and cls.refuse_late for cls in listed], dtype=np.bool_),
    )


def _request_rows(requests: Requests, u: Floats) -> npt.NDArray[np.void]:
    rows = np.zeros(len(requests), dtype=REQUEST)
    rows["arrival_s"], rows["u"] = requests.arrival_s, u
    rows["input"], rows["cached"], rows["output"] = (
        requests.input_tokens,
        requests.cached_tokens,
        requests.output_tokens,
    )
    rows["class_id"] = requests.class_id
    rows["first_s"] = rows["last_s"] = rows["admit_s"] = np.nan
    rows["instance"] = rows["behind"] = rows["child"] = rows["sibling"] = NONE
    rows["session"], rows["think_s"], rows["parent"] = requests.session, requests.think_s, requests.parent
    rows["prefix"], rows["deadline_s"] = prefix_keys(requests), requests.deadline_s
    _link_children(rows)
    return rows


def prefix_keys(requests: Requests) -> npt.NDArray[np.int32]:
    """A hash of the first ``PREFIX_BLOCKS`` blocks of each prompt; -1 where blocks are not known."""
    keys = np.full(len(requests), NONE, dtype=np.int32)
    if not requests.block_ids:
        return keys
    start, ids = requests.block_start[0], requests.block_ids[0].astype(np.uint64)
    counts = np.diff(start)
    mixed = np.zeros(len(requests), dtype=np.uint64)
    for k in range(PREFIX_BLOCKS):
        has = counts > k
        mixed[has] = (mixed[has] ^ (ids[start[:-1][has] + k] + np.uint64(k + 1))) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    known = counts > 0
    keys[known] = (mixed[known] >> np.uint64(33)).astype(np.int32)
    return keys


def _link_children(rows: npt.NDArray[np.void]) -> None:
    """Parents name their first child, children the next one, in row order; nobody knows yet when they arrive."""
    children = np.flatnonzero(rows["parent"] != NONE)
    rows["arrival_s"][children] = np.inf
    by_parent = children[np.argsort(rows["parent"][children], kind="stable")]
    parents = rows["parent"][by_parent]
    first = np.diff(parents, prepend=NONE) != 0
    rows["child"][parents[first]] = by_parent[first]
    rows["sibling"][by_parent[:-1][~first[1:]]] = by_parent[1:][~first[1:]]


def _instance_rows(specs: list[PoolSpec]) -> npt.NDArray[np.void]:
    sizes = [s.instances for s in specs]
    rows = np.zeros(sum(sizes), dtype=INSTANCE)
    rows["pool"] = np.repeat(np.arange(len(specs)), sizes)
    for name in ("head", "tail", "wait_head", "wait_tail"):
        rows[name] = NONE
    for name in ("max_num_seqs", "prefill_s_per_token", "step_s", "role", "usd_per_s"):
        rows[name] = np.array([getattr(s, name) for s in specs])[rows["pool"]]
    line = np.array([_step_line(s) for s in specs])[rows["pool"]]
    rows["step_base_s"], rows["step_per_seq_s"] = line[:, 0], line[:, 1]
    rows["step_per_kv_s"] = np.array([s.kv_s for s in specs])[rows["pool"]]
    rows["kv_capacity_tokens"] = np.array([s.blocks * s.block_tokens for s in specs])[rows["pool"]]
    rows["free_slots"] = rows["max_num_seqs"]
    rows["free_blocks"] = np.array([s.blocks for s in specs])[rows["pool"]]
    return rows


def _step_line(spec: PoolSpec) -> tuple[float, float]:
    """(seconds, seconds for each sequence) of a decode step that reads no KV: the line with the least relative errors.

    Fitted by least squares to the table at batches of 1, 2, 4, .. and ``max_num_seqs``.
    """
    most = spec.max_num_seqs
    batch = np.unique([*(2**k for k in range(most.bit_length())), most])
    seconds = spec.decode_s[batch] + spec.per_seq_s * batch
    if most == 1 or not seconds.all():
        return float(seconds[0]), 0.0
    terms = np.stack([1.0 / seconds, batch / seconds], axis=1)
    base, each = np.linalg.lstsq(terms, np.ones(len(batch)), rcond=None)[0]
    return float(base), float(each)


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

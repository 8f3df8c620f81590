"""Allocate a simulation: requests and pools become the record arrays of ``sim.state``."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from infermix import jit
from infermix.arrays import Floats
from infermix.route.view import FleetView
from infermix.sim.state import INSTANCE, NONE, POOL, REQUEST, SLOT, PoolSpec, State
from infermix.workload.requests import Requests


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
    )


def _for_kernel(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Rows whose fields are attributes: Numba gives that to any record array, plain Python needs a view."""
    return rows if jit.ENABLED else rows.view(np.recarray)


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
    rows["input"], rows["cached"], rows["output"] = (
        requests.input_tokens,
        requests.cached_tokens,
        requests.output_tokens,
    )
    rows["class_id"] = requests.class_id
    rows["first_s"] = rows["last_s"] = np.nan
    rows["instance"] = rows["behind"] = rows["child"] = rows["sibling"] = NONE
    rows["session"], rows["think_s"], rows["parent"] = requests.session, requests.think_s, requests.parent
    _link_children(rows)
    return rows


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

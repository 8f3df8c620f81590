"""Allocate a simulation: requests and pools become the record arrays of ``sim.state``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from infermix import jit, rng
from infermix.arrays import Floats
from infermix.route.view import FleetView, Promises
from infermix.sim.paths import Paths
from infermix.sim.rules import FleetRules
from infermix.sim.state import (
    CLOCK,
    CONTEXT_TOKENS,
    DECODE,
    DOWN,
    EXTRA,
    GAP_BINS,
    GROUP,
    INFLIGHT,
    INSTANCE,
    NONE,
    POOL,
    QUEUED,
    QUEUED_TOKENS,
    REQUEST,
    RUNNING,
    SLOT,
    PoolSpec,
    State,
)
from infermix.sim.stores import make_stores, paths_for
from infermix.sim.tree import first_tree
from infermix.units import SECONDS_PER_HOUR
from infermix.workload.classes import TrafficClass
from infermix.workload.requests import NO_DEADLINE, Requests

CACHE_LINE_BYTES = 64
PREFIX_BLOCKS = 2
"""Blocks whose ids make the prefix key: one alone is often a greeting that all prompts share."""


def make_state(
    requests: Requests, specs: list[PoolSpec], typical_output: Floats, seed: int, rules: FleetRules
) -> State:
    """Allocate the state of a run before its first arrival."""
    instances = _instance_rows(specs)
    n, classes = len(instances), len(requests.class_names)
    slots = aligned_zeros((n, max(s.max_num_seqs for s in specs)), SLOT)
    priorities = np.unique(requests.priority)[::-1] if len(requests) else np.zeros(1, dtype=np.int8)
    leaves = 1 << max(1, (n - 1).bit_length())
    wide = needs_extras(requests, specs, rules)
    paths = paths_for(requests, specs)
    pools = _pool_rows(specs)
    counters = np.zeros((5, n), dtype=np.int64)
    queues = np.full((n, len(priorities), 2), NONE, dtype=np.int32)
    return State(
        requests=for_kernel(request_rows(requests, rng.uniforms(seed, 0, len(requests)), priorities)),
        extras=for_kernel(_extra_rows(requests, specs, paths, seed) if wide else _no_extras()),
        pools=for_kernel(pools),
        tables=np.stack([_tables([s.decode_s for s in specs]), _tables([s.mixed_s for s in specs])]),
        instances=for_kernel(instances),
        slots=for_kernel(slots),
        counters=counters,
        seen=counters.copy() if rules.stale_s > 0.0 else counters,
        age_s=np.zeros(n),
        eligible=np.zeros(n, dtype=np.bool_),
        next_s=np.full(leaves, np.inf),
        tree=first_tree(leaves),
        phases=np.zeros((n, _whole_lines(int(pools["stride"].max()))), dtype=np.int32),
        groups=for_kernel(np.zeros((n, max(s.ranks for s in specs)), dtype=GROUP)),
        queues=queues,
        serves=np.ascontiguousarray([s.serves for s in specs], dtype=np.bool_),
        typical_output=typical_output,
        due=np.zeros(len(requests) if wide else 1, dtype=np.int32),
        decoding_of=np.zeros((n, classes), dtype=np.int32),
        gaps=np.zeros((len(specs), classes, GAP_BINS), dtype=np.int64),
        clock=for_kernel(_clock_row(requests, specs, rules, pools, wide)),
        events=for_kernel(rules.event_rows(n)),
        gates=for_kernel(rules.gate_rows(classes)),
        cache=make_stores(paths, specs),
    )


def aligned_zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Zeros that begin with a cache line; memory that is never touched is never taken."""
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = np.zeros(size + CACHE_LINE_BYTES, dtype=np.uint8)
    start = -memory.ctypes.data % CACHE_LINE_BYTES
    return memory[start : start + size].view(dtype).reshape(shape)


def _whole_lines(count: int) -> int:
    """At least so many numbers of 4 bytes, in whole cache lines: sums over them need no rest."""
    return -(-count // 16) * 16


def for_kernel(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Rows whose fields are attributes: Numba gives that to any record array, plain Python needs a view."""
    return rows if jit.ENABLED else rows.view(np.recarray)


def make_view(state: State, specs: list[PoolSpec], share: Floats, promises: Promises) -> FleetView:
    """What policies read: the counters themselves, or those of the last reading, and what never changes."""
    return FleetView(
        eligible=state.eligible,
        inflight=state.seen[INFLIGHT],
        waiting=state.seen[QUEUED],
        running=state.seen[RUNNING],
        queued_tokens=state.seen[QUEUED_TOKENS],
        context_tokens=state.seen[CONTEXT_TOKENS],
        age_s=state.age_s,
        **known_columns(specs, share, promises),
    )


def known_columns(specs: list[PoolSpec], share: Floats, promises: Promises) -> dict[str, Any]:
    """The columns of a view that are known before the first request; ``sent`` begins at zero."""
    pool = np.repeat(np.arange(len(specs)), [s.instances for s in specs])

    def column(values: Sequence[float]) -> Floats:
        return np.array(values, dtype=np.float64)[pool]

    line = np.array([_step_line(s) for s in specs])[pool]
    return {
        "pool": pool,
        "max_num_seqs": np.array([s.max_num_seqs for s in specs])[pool],
        "role": np.array([s.role for s in specs])[pool],
        "prefill_s_per_token": column([s.prefill_s_per_token for s in specs]),
        "step_s": column([s.step_s for s in specs]),
        "share": np.ascontiguousarray(share, dtype=np.float64),
        "sent": np.zeros(share.shape, dtype=np.int64),
        "kv_capacity_tokens": np.array([s.blocks * s.block_tokens for s in specs])[pool],
        "step_base_s": np.ascontiguousarray(line[:, 0]),
        "step_per_seq_s": np.ascontiguousarray(line[:, 1]),
        "step_per_kv_s": column([s.kv_s for s in specs]),
        "usd_per_s": column([s.usd_per_s for s in specs]),
        **promises._asdict(),
    }


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


def needs_extras(requests: Requests, specs: list[PoolSpec], rules: FleetRules) -> bool:
    """Whether requests need rows of their own for what only some workloads have."""
    of_pools = any(s.prefix_cache or s.role == DECODE or s.accepted_most > 1 for s in specs)
    return bool(
        of_pools
        or rules.events
        or requests.block_ids
        or (requests.parent != NONE).any()
        or (requests.session != NONE).any()
        or (requests.deadline_s < NO_DEADLINE).any()
        or (requests.priority != 0).any()
    )


def request_rows(requests: Requests, u: Floats, priorities: npt.NDArray[np.integer]) -> npt.NDArray[np.void]:
    """Requests before they arrive; ``priorities`` are all that there are, the most urgent first."""
    rows = np.zeros(len(requests), dtype=REQUEST)
    rows["arrival_s"], rows["u"] = requests.arrival_s, u
    rows["arrival_s"][requests.parent != NONE] = np.inf
    rows["input"], rows["cached"], rows["output"] = (
        requests.input_tokens,
        requests.cached_tokens,
        requests.output_tokens,
    )
    rows["class_id"] = requests.class_id
    rows["first_s"] = rows["last_s"] = rows["admit_s"] = np.nan
    rows["instance"] = rows["behind"] = NONE
    rows["level"] = np.searchsorted(-priorities.astype(np.int64), -requests.priority.astype(np.int64))
    return rows


def _no_extras() -> npt.NDArray[np.void]:
    """One row that stands for all requests."""
    row = np.zeros(1, dtype=EXTRA)
    row["deadline_s"] = np.inf
    for name in ("session", "parent", "child", "sibling", "prefix", "segment", "prefill_instance"):
        row[name] = NONE
    return row


def _extra_rows(requests: Requests, specs: list[PoolSpec], paths: Paths, seed: int) -> npt.NDArray[np.void]:
    n = len(requests)
    rows = np.repeat(_no_extras(), n)
    rows["session"], rows["think_s"], rows["parent"] = requests.session, requests.think_s, requests.parent
    rows["prefix"], rows["deadline_s"], rows["priority"] = prefix_keys(requests), requests.deadline_s, requests.priority
    rows["segment"], rows["shared"] = paths.segment, paths.shared
    if any(s.accepted_most > 1 for s in specs):
        rows["z"] = np.sqrt(-2.0 * np.log(rng.uniforms(seed, 1, n))) * np.cos(2.0 * np.pi * rng.uniforms(seed, 2, n))
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
    """Parents name their first child, children the next one, in row order."""
    children = np.flatnonzero(rows["parent"] != NONE)
    by_parent = children[np.argsort(rows["parent"][children], kind="stable")]
    parents = rows["parent"][by_parent]
    first = np.diff(parents, prepend=NONE) != 0
    rows["child"][parents[first]] = by_parent[first]
    rows["sibling"][by_parent[:-1][~first[1:]]] = by_parent[1:][~first[1:]]


def _clock_row(
    requests: Requests, specs: list[PoolSpec], rules: FleetRules, pools: npt.NDArray[np.void], wide: bool
) -> npt.NDArray[np.void]:
    row = np.zeros(1, dtype=CLOCK)
    shares = any(s.role == DECODE or s.remote_blocks > 0 for s in specs)
    row["linked"] = shares or bool((requests.parent != NONE).any())
    row["resume"], row["stale_s"] = rules.resume, rules.stale_s
    row["next_reading_s"] = rules.stale_s if rules.stale_s > 0.0 else np.inf
    row["scaled"] = bool(np.isfinite(pools["tick_s"]).any())
    first_event_s = rules.events[0][0] if rules.events else np.inf
    row["control_s"] = min(float(row["next_reading_s"][0]), first_event_s, float(pools["tick_s"].min()))
    row["wide"] = -1 if wide else 0
    return row


def _instance_rows(specs: list[PoolSpec]) -> npt.NDArray[np.void]:
    sizes = [s.instances for s in specs]
    rows = aligned_zeros((sum(sizes),), INSTANCE)
    rows["pool"] = np.repeat(np.arange(len(specs)), sizes)
    rows["head"] = rows["tail"] = rows["free_slot"] = NONE
    rows["free_blocks"] = np.array([s.blocks for s in specs])[rows["pool"]]
    number = np.concatenate([np.arange(size) for size in sizes])
    rows["status"][number >= np.array([_up(s) for s in specs])[rows["pool"]]] = DOWN
    return rows


def _up(spec: PoolSpec) -> int:
    return spec.instances if spec.instances_up is None else spec.instances_up


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
    own = {"first", "allowed", "stride", "tick_s", "calm", "up", "kv_tokens"}
    for name in POOL.names or ():
        if name not in own:
            rows[name] = [getattr(s, name) for s in specs]
    rows["first"] = np.concatenate([[0], np.cumsum([s.instances for s in specs])[:-1]])
    rows["stride"] = [ceil(s.block_tokens / s.accepted_per_step) for s in specs]
    rows["tick_s"] = [s.scale_every_s if s.target_inflight < np.inf else np.inf for s in specs]
    rows["up"] = [_up(s) for s in specs]
    rows["kv_tokens"] = (rows["blocks"] - rows["watermark_blocks"]) * rows["block_tokens"]
    return rows


def _tables(tables: list[Floats]) -> Floats:
    width = max(len(t) for t in tables)
    out = np.full((len(tables), width), np.nan)
    for row, table in zip(out, tables, strict=True):
        row[: len(table)] = table
    return out

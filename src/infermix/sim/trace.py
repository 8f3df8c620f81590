"""A stretch of a run in the Trace Event Format, which Perfetto and chrome://tracing read.

Every instance is a process. Requests lie on tracks of it, as many as there were requests at once, each a span from
arrival to last token with its parts inside: queue, prefill, decode. A counter beside them tells how many were in
flight. Times are in microseconds, as the format wants (Trace Event Format, Google, 2016, "Complete Events",
"Metadata Events" and "Counter Events").
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from infermix.arrays import Floats, Ints
from infermix.sim.result import Run

US_PER_S = 1e6


def trace_rows(run: Run, from_s: float, to_s: float) -> Ints:
    """Requests that were with an instance at some time between ``from_s`` and ``to_s``, in order of arrival."""
    ends = _ends(run)
    mine = (run.instance >= 0) & (run.requests.arrival_s < to_s) & (ends > from_s)
    rows = np.flatnonzero(mine)
    return np.asarray(rows[np.argsort(run.requests.arrival_s[rows], kind="stable")])


def _ends(run: Run) -> Floats:
    """Last token of each request, or the end of the run where it was cut off [s]."""
    until = max(run.simulated_s, float(np.nanmax(run.first_s, initial=0.0)))
    return np.where(np.isfinite(run.last_s), run.last_s, np.maximum(until, run.requests.arrival_s))


def trace_events(run: Run, pool_names: Sequence[str], from_s: float, to_s: float) -> list[dict[str, Any]]:
    """Events of a stretch; whole spans of every request that reaches into it."""
    rows, ends = trace_rows(run, from_s, to_s), _ends(run)
    events: list[dict[str, Any]] = []
    for j in np.unique(run.instance[rows]):
        mine = rows[run.instance[rows] == j]
        first = int(np.searchsorted(run.pool, run.pool[j]))
        name = f"{pool_names[run.pool[j]]} {j - first}"
        pid = int(j) + 1
        events.append(_named("process_name", pid, 0, {"name": name}))
        events.append(_named("process_sort_index", pid, 0, {"sort_index": pid}))
        tracks = _tracks(run.requests.arrival_s[mine], ends[mine])
        events += [_named("thread_name", pid, t + 1, {"name": f"track {t + 1}"}) for t in range(max(tracks) + 1)]
        for i, track in zip(mine.tolist(), tracks, strict=True):
            events += _spans(run, i, float(ends[i]), pid, track + 1)
        events += _in_flight(run.requests.arrival_s[mine], ends[mine], pid)
    return events


def _named(what: str, pid: int, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "ts": 0, "args": args}


def _tracks(starts_s: Floats, ends_s: Floats) -> list[int]:
    """The lowest free track for each request, in order of arrival: those of one track never overlap."""
    free: list[int] = []
    busy: list[tuple[float, int]] = []
    found = []
    for start, end in zip(starts_s.tolist(), ends_s.tolist(), strict=True):
        while busy and busy[0][0] <= start:
            heapq.heappush(free, heapq.heappop(busy)[1])
        track = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (end, track))
        found.append(track)
    return found


def _spans(run: Run, i: int, end_s: float, pid: int, tid: int) -> Iterator[dict[str, Any]]:
    """The request, and its parts as far as it came."""
    r = run.requests
    arrival = float(r.arrival_s[i])
    args = {
        "row": i,
        "input_tokens": int(r.input_tokens[i]),
        "cached_tokens": int(r.cached_tokens[i]),
        "output_tokens": int(r.output_tokens[i]),
        "finished": bool(np.isfinite(run.last_s[i])),
    }
    if r.session[i] >= 0:
        args["session"] = int(r.session[i])
    yield _span(r.class_names[r.class_id[i]], arrival, end_s, pid, tid, args)
    admit, first = float(run.admit_s[i]), float(run.first_s[i])
    for name, start, stop in (("queue", arrival, admit), ("prefill", admit, first), ("decode", first, end_s)):
        if np.isnan(start):
            break
        until = end_s if np.isnan(stop) else stop
        if until > start:
            yield _span(name, start, until, pid, tid, {})


def _span(name: str, start_s: float, end_s: float, pid: int, tid: int, args: dict[str, Any]) -> dict[str, Any]:
    event = {"ph": "X", "name": name, "cat": "request" if args else "part", "pid": pid, "tid": tid}
    start, end = round(start_s * US_PER_S, 3), round(end_s * US_PER_S, 3)
    return {**event, "ts": start, "dur": round(end - start, 3), "args": args}


def _in_flight(starts_s: Floats, ends_s: Floats, pid: int) -> list[dict[str, Any]]:
    """How many of these requests were with the instance, after each change."""
    times = np.concatenate([starts_s, ends_s])
    steps = np.concatenate([np.ones(len(starts_s), dtype=np.int64), -np.ones(len(ends_s), dtype=np.int64)])
    at, place = np.unique(times, return_inverse=True)
    counts = np.cumsum(np.bincount(place, weights=steps)).astype(np.int64)
    return [
        {"ph": "C", "name": "in flight", "pid": pid, "tid": 0, "ts": round(t * US_PER_S, 3), "args": {"requests": n}}
        for t, n in zip(at.tolist(), counts.tolist(), strict=True)
    ]

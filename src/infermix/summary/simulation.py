"""What one call of the simulator answered: runs of a study on a fleet, at one or two speeds, under one or more seeds.

The first seed is kept whole, unless it is too long. Of the others only what the summary needs is kept, so that memory
does not grow with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from infermix.arrays import Bools, Floats
from infermix.fleet import Fleet
from infermix.metrics.binned import binned_percentiles
from infermix.metrics.goodput import meets
from infermix.metrics.latency import percentiles
from infermix.metrics.sessions import session_times
from infermix.plan.problem import Study
from infermix.sim.result import COMPLETED, REFUSED, UNFINISHED, Run
from infermix.sim.state import gap_edges_s
from infermix.summary.served import Served
from infermix.workload.arrivals import Drawn

TIMES = ("queue_s", "ttft_s", "tpot_s", "itl_s", "e2e_s", "turn_s", "session_s")
"""Times that are told by class; the last two only of classes with sessions."""


@dataclass(frozen=True)
class ClassPart:
    """One class under one seed."""

    requests: int
    """That arrived."""
    completed: int
    refused: int
    unfinished: int
    good: int
    sessions: int
    whole_sessions: int
    percentiles: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Part:
    """One run in numbers."""

    requests: int
    arrived: int
    completed: int
    refused: int
    unfinished: int
    simulated_s: float
    kernel_s: float
    interrupted: bool
    classes: dict[str, ClassPart]


@dataclass(frozen=True)
class Simulation:
    """Runs by speed: the first seed's whole, and every seed's numbers."""

    study: Study
    fleet: Fleet
    drawn: Drawn
    """Traffic of the first seed."""
    policy: str
    seeds: tuple[int, ...]
    """Those that were simulated; fewer than asked for after an interrupt."""
    runs: dict[str, Run]
    """Of the first seed; of a run too long to keep, one request in ``every``."""
    parts: dict[str, tuple[Part, ...]]
    served: Served
    """Of the first seed at the first speed, all requests; so is ``refused_by``: class → reason → requests."""
    refused_by: dict[str, dict[str, int]]
    every: int = 1
    interrupted: bool = False


def make_part(study: Study, run: Run) -> Part:
    """The numbers of one run that the summary needs."""
    good, came = good_requests(study, run), run.came
    return Part(
        requests=len(run.requests),
        arrived=run.arrived,
        completed=int((run.status == COMPLETED).sum()),
        refused=int((run.status == REFUSED).sum()),
        unfinished=int((run.status == UNFINISHED).sum()),
        simulated_s=run.simulated_s,
        kernel_s=run.kernel_s,
        interrupted=run.interrupted,
        classes={name: _class_part(run, c, came, good) for c, name in enumerate(run.requests.class_names)},
    )


def good_requests(study: Study, run: Run) -> Bools:
    """Requests that met every target of their class."""
    ttft, tpot, e2e = run.ttft_s, run.tpot_s, run.e2e_s
    uncached = run.requests.input_tokens - run.requests.cached_tokens
    good = np.zeros(len(run.requests), dtype=np.bool_)
    for c, name in enumerate(run.requests.class_names):
        mine = run.requests.class_id == c
        good[mine] = meets(study.traffic[name].slo, ttft[mine], tpot[mine], e2e[mine], uncached[mine])
    return good


def _class_part(run: Run, c: int, came: Bools, good: Bools) -> ClassPart:
    """Of an interrupted run only what had arrived is judged."""
    mine = (run.requests.class_id == c) & came
    status = run.status[mine]
    session = run.requests.session[mine]
    _, whole = session_times(session, run.requests.arrival_s[mine], run.last_s[mine])
    return ClassPart(
        requests=int(mine.sum()),
        completed=int((status == COMPLETED).sum()),
        refused=int((status == REFUSED).sum()),
        unfinished=int((status == UNFINISHED).sum()),
        good=int(good[mine].sum()),
        sessions=len(np.unique(session[session >= 0])),
        whole_sessions=int(whole.sum()),
        percentiles=class_percentiles(run, c),
    )


def class_percentiles(run: Run, c: int) -> dict[str, dict[str, float]]:
    """Percentiles of the times of a class; of an interrupted run of what had arrived."""
    mine = (run.requests.class_id == c) & run.came
    found = {name: percentiles(values) for name, values in class_times(run, mine)}
    found["itl_s"] = binned_percentiles(run.gaps[:, c].sum(axis=0), gap_edges_s())
    return {name: found[name] for name in TIMES if name in found}


def class_times(run: Run, mine: Bools) -> Iterator[tuple[str, Floats]]:
    """Times of some requests, and of their sessions where they have any [s], one after the other to save memory.

    NaN where one does not exist.
    """
    for name in ("queue_s", "ttft_s", "tpot_s", "e2e_s"):
        yield name, np.asarray(getattr(run, name)[mine])
    session = run.requests.session[mine]
    if (session >= 0).any():
        yield "turn_s", run.e2e_s[mine][session >= 0]
        yield "session_s", session_times(session, run.requests.arrival_s[mine], run.last_s[mine])[0]

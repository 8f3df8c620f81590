"""Runs too long to keep: traffic drawn piece after piece, results added up, one request in many kept for the curves.

Only plain requests can come so (``sim.stream``). A piece is a draw of its own, with the rates that its hours have: of
the law of the traffic nothing changes but that bursts do not reach over the end of a piece, once in 250,000 requests.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil, inf
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from infermix.catalog.records import Model
from infermix.fleet import Fleet
from infermix.plan.problem import Study
from infermix.plan.question import contexts, planned_hour
from infermix.plan.routing import usd_per_s_of
from infermix.rng import u01
from infermix.sim.prepare import make_promises, needs_extras
from infermix.sim.result import COMPLETED, REFUSED, UNFINISHED, Run
from infermix.sim.run import mean_outputs, priced_specs
from infermix.sim.state import NONE
from infermix.sim.stream import Ended, Streamed, simulate_stream
from infermix.summary.refusals import refusals
from infermix.summary.rules import fleet_rules
from infermix.summary.served import Served, served_by
from infermix.summary.simulation import ClassPart, Part, class_percentiles
from infermix.units import SECONDS_PER_HOUR
from infermix.workload.arrivals import Drawn, draw
from infermix.workload.requests import Requests, make_requests, take

KEPT_WHOLE = 5_000_000
"""Runs of more requests are not kept: each takes 160 bytes."""
PIECE = 250_000
SAMPLE = 1_000_000
"""At most about so many requests of a longer run are kept."""
_SEEDS_APART = 1 << 40
_KEY = zlib.crc32(b"kept requests")
"""Which are kept is drawn: every third would be those of one instance where three take turns."""
_OFFERED = ("arrival_s", "input_tokens", "cached_tokens", "output_tokens", "class_id")
_GOT = ("admit_s", "first_s", "last_s", "instance", "status")

Progress = Callable[[int, int], None]
"""Called with (arrivals simulated, all arrivals)."""


class Long(NamedTuple):
    """What a run leaves that was not kept."""

    drawn: Drawn
    """Of the whole run, but the requests, which are those kept."""
    part: Part
    run: Run
    """The requests kept; columns over instances are those of the whole run."""
    served: Served
    refused_by: dict[str, dict[str, int]]
    every: int


def pieces(study: Study, model: Model, seed: int, requests: int) -> Iterator[Drawn]:
    """The study's traffic, a piece of time after the other, until there are so many requests."""
    hour, most = planned_hour(study, model) or 0, contexts(study, model)

    def piece(number: int, horizon_s: float) -> Drawn:
        return draw(
            study.traffic,
            seed=seed + number * _SEEDS_APART,
            horizon_s=horizon_s,
            max_context=most,
            base_dir=study.base_dir,
            start_hour=(hour + number * horizon_s / SECONDS_PER_HOUR) % 24,
        )

    horizon_s, left, number = PIECE / sum(piece(0, 1.0).rates_per_s.values()), requests, 0
    while left > 0:
        found = piece(number, horizon_s)
        table = take(found.requests, slice(left))
        yield replace(found, requests=replace(table, arrival_s=table.arrival_s + number * horizon_s))
        left -= len(table)
        number += 1


def is_long(study: Study, fleet: Fleet, model: Model, seed: int, requests: int | None) -> bool:
    """Whether a run is too long to keep, and its requests are plain enough to come piece after piece."""
    drawn_anew = all(cls.profile is not None and cls.sessions is None for cls in study.traffic.values())
    if requests is None or requests <= KEPT_WHOLE or not drawn_anew or study.simulate.failures is not None:
        return False
    table = next(pieces(study, model, seed, PIECE)).requests
    rules = fleet_rules(study, fleet, table.class_names, inf, seed)
    return not needs_extras(table, priced_specs(fleet, table, "nominal"), rules)


def simulate_long(
    study: Study,
    fleet: Fleet,
    model: Model,
    policy: Any,
    *,
    seed: int,
    speed: str,
    requests: int,
    progress: Progress,
) -> Long:
    """Simulate so many requests of a study's traffic on a fleet, in memory that does not grow with them."""
    counted = _Counted(pieces(study, model, seed, requests))
    first = next(counted)
    names = first.class_names
    kept = _Kept(study, fleet, ceil(requests / SAMPLE))
    found = simulate_stream(
        chain([first], counted),
        priced_specs(fleet, first, speed, usd_per_s_of(study, fleet)),
        policy,
        typical_output_tokens=mean_outputs(first),
        share=fleet.shares(names),
        promises=make_promises(names, study.traffic),
        rules=fleet_rules(study, fleet, names, inf, seed),
        seed=seed,
        consume=kept.add,
        progress=lambda done: progress(done, requests),
    )
    run = kept.run(found.end, found.simulated_s)
    assert counted.drawn is not None and kept.served is not None
    return Long(
        replace(counted.drawn, requests=run.requests), _part(found, run), run, kept.served, kept.refused_by, kept.every
    )


class _Counted:
    """Tables of pieces, while what happened to their requests is added up."""

    def __init__(self, found: Iterator[Drawn]) -> None:
        self._found = found
        self.drawn: Drawn | None = None

    def __iter__(self) -> Iterator[Requests]:
        return self

    def __next__(self) -> Requests:
        piece, before = next(self._found), self.drawn
        self.drawn = piece if before is None else replace(
            piece,
            horizon_s=before.horizon_s + piece.horizon_s,
            clipped=_sums(before.clipped, piece.clipped),
            over_context=_sums(before.over_context, piece.over_context),
        )  # fmt: skip
        return piece.requests


def _sums(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in {**one, **other}}


@dataclass
class _Kept:
    """What is added up, and kept, as requests end."""

    study: Study
    fleet: Fleet
    every: int
    columns: list[dict[str, npt.NDArray[Any]]] = field(default_factory=list)
    served: Served | None = None
    refused_by: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, ended: Ended) -> None:
        run = ended.run
        found = served_by(run)
        self.served = found if self.served is None else self.served + found
        for name, reasons in refusals(self.study, self.fleet, run).items():
            self.refused_by[name] = _sums(self.refused_by.get(name, {}), reasons)
        mine = np.flatnonzero(u01(0, _KEY, ended.number) * self.every <= 1.0)
        offered = {name: getattr(run.requests, name)[mine] for name in _OFFERED}
        self.columns.append(
            {"number": ended.number[mine], **offered, **{name: getattr(run, name)[mine] for name in _GOT}}
        )

    def run(self, end: Run, simulated_s: float) -> Run:
        """The requests kept, in order of arrival, and the instances as they were at the end."""
        order = np.argsort(np.concatenate([part["number"] for part in self.columns]), kind="stable")

        def column(name: str) -> Any:
            return np.concatenate([part[name] for part in self.columns])[order]

        arrival, inputs, cached, outputs, class_id = (column(name) for name in _OFFERED)
        table = make_requests(
            end.requests.class_names, arrival, inputs, outputs, class_id=class_id, cached_tokens=cached
        )
        nothing, nowhere = (np.broadcast_to(np.int32(value), len(order)) for value in (0, NONE))
        return replace(
            end,
            requests=table,
            admit_s=column("admit_s"),
            first_s=column("first_s"),
            last_s=column("last_s"),
            instance=column("instance"),
            status=column("status"),
            prefill_instance=nowhere,
            hit_tokens=nothing,
            loaded_tokens=nothing,
            restarts=nothing,
            simulated_s=simulated_s,
        )


def _part(found: Streamed, kept: Run) -> Part:
    """Counts of all requests; percentiles of those kept, but of the times between tokens, which are all counted."""
    totals = found.totals
    classes = {
        name: ClassPart(
            requests=int(totals.counts[c].sum()),
            completed=int(totals.counts[c, COMPLETED]),
            refused=int(totals.counts[c, REFUSED]),
            unfinished=int(totals.counts[c, UNFINISHED]),
            good=int(totals.good[c]),
            sessions=0,
            whole_sessions=0,
            percentiles=class_percentiles(kept, c),
        )
        for c, name in enumerate(totals.class_names)
    }
    return Part(
        requests=totals.requests,
        arrived=found.arrived,
        completed=totals.completed,
        refused=totals.refused,
        unfinished=totals.unfinished,
        simulated_s=found.simulated_s,
        kernel_s=found.kernel_s,
        interrupted=found.interrupted,
        classes=classes,
    )

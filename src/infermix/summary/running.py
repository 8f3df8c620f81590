"""Run a study's traffic under several seeds at once, each in a thread of its own (compiled code lets the others run).

Ctrl-C reaches the main thread, which only waits. It asks the runs to stop; each ends after the batch of arrivals
that it is at, and what was simulated until then is the answer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any

from infermix.catalog.records import Model
from infermix.fleet import Fleet
from infermix.plan.problem import Study
from infermix.plan.question import offered
from infermix.sim.result import Run
from infermix.summary.rules import fleet_rules
from infermix.summary.simulation import Part, Simulation, make_part
from infermix.workload.arrivals import Drawn

Progress = Callable[[int, int], None]
"""Called with (arrivals simulated, all arrivals)."""


@dataclass
class _Counted:
    """Arrivals of all runs, added up; raises KeyboardInterrupt inside a run that shall stop."""

    progress: Progress | None
    runs: int
    stop: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    done: dict[tuple[int, str], int] = field(default_factory=dict)

    def __call__(self, key: tuple[int, str], done: int, total: int) -> None:
        with self.lock:
            self.done[key] = done
            if self.progress is not None:
                self.progress(sum(self.done.values()), total * self.runs)
        if self.stop.is_set():
            raise KeyboardInterrupt


@dataclass(frozen=True)
class _Seed:
    drawn: Drawn
    parts: dict[str, Part]
    runs: dict[str, Run]
    """Of the first seed alone."""


def run_seeds(
    study: Study,
    fleet: Fleet,
    model: Model,
    *,
    seeds: Sequence[int],
    speeds: Sequence[str],
    policy: Any,
    policy_name: str,
    requests: int | None = None,
    progress: Progress | None = None,
) -> Simulation:
    """Simulate a fleet under every seed at every speed.

    Raises
    ------
    KeyboardInterrupt
        Stopped before the first run had begun.
    """
    minimum = 0 if requests is not None else study.prove.requests_per_class
    counted = _Counted(progress, len(seeds) * len(speeds))

    def one(seed: int) -> _Seed | None:
        if counted.stop.is_set():
            return None
        drawn = offered(study, model, seed=seed, requests=requests, min_per_class=minimum)
        parts, runs = {}, {}
        for speed in speeds:
            if counted.stop.is_set():
                break
            run = _simulate(study, fleet, drawn, policy, seed, speed, counted)
            parts[speed] = make_part(study, run)
            if seed == seeds[0]:
                runs[speed] = run
        return _Seed(drawn, parts, runs)

    found = {seed: done for seed, done in zip(seeds, _in_threads(one, seeds, counted), strict=True) if done}
    if seeds[0] not in found or not found[seeds[0]].runs:
        raise KeyboardInterrupt
    return _gathered(study, fleet, policy_name, found, seeds[0], counted.stop.is_set())


def _simulate(
    study: Study, fleet: Fleet, drawn: Drawn, policy: Any, seed: int, speed: str, counted: _Counted
) -> Run:  # fmt: skip
    from infermix.plan.routing import usd_per_s_of
    from infermix.sim.run import simulate_fleet

    rules = fleet_rules(study, fleet, drawn.requests.class_names, drawn.horizon_s, seed)
    return simulate_fleet(
        fleet,
        drawn.requests,
        policy,
        speed=speed,
        seed=seed,
        progress=lambda done, total: counted((seed, speed), done, total),
        classes=study.traffic,
        usd_per_s=usd_per_s_of(study, fleet),
        rules=rules,
    )


def _in_threads(
    one: Callable[[int], _Seed | None], seeds: Sequence[int], counted: _Counted
) -> list[_Seed | None]:  # fmt: skip
    with ThreadPoolExecutor(min(len(seeds), os.cpu_count() or 1)) as threads:
        futures: list[Future[_Seed | None]] = [threads.submit(one, seed) for seed in seeds]
        try:
            wait(futures)
        except KeyboardInterrupt:
            counted.stop.set()
            wait(futures)
        return [future.result() for future in futures]


def _gathered(
    study: Study, fleet: Fleet, policy_name: str, found: dict[int, _Seed], first: int, stopped: bool
) -> Simulation:
    """What there is: seeds that did not get to a speed are missing from it."""
    whole = found[first]
    begun = next(iter(whole.runs))
    seeds = tuple(seed for seed, one in found.items() if begun in one.parts)
    parts = {
        speed: tuple(found[seed].parts[speed] for seed in seeds if speed in found[seed].parts) for speed in whole.runs
    }
    return Simulation(
        study=study,
        fleet=fleet,
        drawn=whole.drawn,
        policy=policy_name,
        seeds=seeds,
        runs=whole.runs,
        parts=parts,
        interrupted=stopped or any(part.interrupted for rows in parts.values() for part in rows),
    )

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
from typing import TYPE_CHECKING, Any

from infermix.catalog.records import Model
from infermix.fleet import Fleet
from infermix.plan.problem import Study
from infermix.plan.question import offered
from infermix.sim.result import Run
from infermix.summary.refusals import refusals
from infermix.summary.rules import fleet_rules
from infermix.summary.served import served_by
from infermix.summary.simulation import Part, Simulation, make_part
from infermix.workload.arrivals import Drawn

if TYPE_CHECKING:
    from infermix.summary.streaming import Long

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


@dataclass
class _Seed:
    drawn: Drawn
    parts: dict[str, Part] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    """Of the first seed alone."""
    told: Long | None = None
    """Of a run that was too long to keep, at the first speed."""


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
    whole: bool = False,
    progress: Progress | None = None,
) -> Simulation:
    """Simulate a fleet under every seed at every speed; with ``whole``, long runs are kept whole, too.

    Raises
    ------
    KeyboardInterrupt
        Stopped before the first run had begun.
    """
    from infermix.summary.streaming import is_long

    minimum = 0 if requests is not None else study.prove.requests_per_class
    counted = _Counted(progress, len(seeds) * len(speeds))

    def one(seed: int) -> _Seed | None:
        if counted.stop.is_set():
            return None
        if not whole and is_long(study, fleet, model, seed, requests):
            return _long_seed(study, fleet, model, policy, seed, speeds, requests or 0, counted)
        drawn = offered(study, model, seed=seed, requests=requests, min_per_class=minimum)
        done = _Seed(drawn)
        for speed in speeds:
            if counted.stop.is_set():
                break
            run = _simulate(study, fleet, drawn, policy, seed, speed, counted)
            done.parts[speed] = make_part(study, run)
            if seed == seeds[0]:
                done.runs[speed] = run
        return done

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


def _long_seed(
    study: Study, fleet: Fleet, model: Model, policy: Any, seed: int, speeds: Sequence[str], requests: int,
    counted: _Counted,
) -> _Seed:  # fmt: skip
    from infermix.summary.streaming import simulate_long

    done: _Seed | None = None
    for speed in speeds:
        if done is not None and counted.stop.is_set():
            break
        told = simulate_long(
            study, fleet, model, policy, seed=seed, speed=speed, requests=requests,
            progress=lambda n, total, speed=speed: counted((seed, speed), n, total),  # type: ignore[misc]
        )  # fmt: skip
        done = done or _Seed(told.drawn, told=told)
        done.parts[speed], done.runs[speed] = told.part, told.run
    assert done is not None
    return done


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
    run, told = whole.runs[begun], whole.told
    return Simulation(
        study=study,
        fleet=fleet,
        drawn=whole.drawn,
        policy=policy_name,
        seeds=seeds,
        runs=whole.runs,
        parts=parts,
        served=told.served if told else served_by(run),
        refused_by=told.refused_by if told else refusals(study, fleet, run),
        every=told.every if told else 1,
        interrupted=stopped or any(part.interrupted for rows in parts.values() for part in rows),
    )

"""What simulations of a whole fleet show, added up over seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats
from infermix.fleet import Fleet
from infermix.metrics.confidence import wilson
from infermix.metrics.goodput import meets
from infermix.metrics.latency import percentiles
from infermix.perf.memory import kv_blocks
from infermix.plan.question import Question, offered
from infermix.plan.routing import policy_of, usd_per_s_of
from infermix.sim.result import Run
from infermix.sim.run import simulate_fleet
from infermix.workload.arrivals import Drawn

THREADS = 2
CDF_POINTS = 101


class Traffic:
    """The study's traffic by seed, drawn once."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._drawn: dict[int, Drawn] = {}

    def of(self, seed: int) -> Drawn:
        """Requests of a seed: at least as many of each class as a proof takes, traces whole."""
        if seed not in self._drawn:
            study = self._question.study
            self._drawn[seed] = offered(
                study,
                self._question.model,
                seed=seed,
                min_per_class=study.prove.requests_per_class,
                hold_hour=True,
            )
        return self._drawn[seed]


@dataclass
class Evidence:
    """Counts over seeds at one speed; arrays are [class, pool]."""

    speed: str
    class_names: tuple[str, ...]
    offered: Floats
    met: Floats
    """By class, refused ones included in ``offered``."""
    pool_offered: Floats
    """A request that is handed over counts in both pools."""
    pool_met: Floats
    input_tokens: Floats
    output_tokens: Floats
    busy: Floats
    """By pool: share of time inside steps."""
    kv_peak: Floats
    """By pool: highest share of KV blocks in use."""
    preemptions: int = 0
    refused: int = 0
    unfinished: int = 0
    seeds: tuple[int, ...] = ()
    latency: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)
    """Class → ttft_s, tpot_s, e2e_s → percentiles, of the first seed."""
    cdf: dict[str, dict[str, Floats]] = field(default_factory=dict)
    """Class → ttft_s, tpot_s → quantiles at 0, 1, .. 100 %, of the first seed."""

    def attainment(self, c: int) -> float:
        """Share of offered requests of a class that met its promise."""
        return float(self.met[c] / self.offered[c]) if self.offered[c] else 0.0

    def interval(self, c: int) -> tuple[float, float]:
        """Wilson 95 % interval of it."""
        return wilson(int(self.met[c]), int(self.offered[c]))


def gather(question: Question, traffic: Traffic, fleet: Fleet, seeds: Sequence[int], speed: str) -> Evidence:
    """Simulate a fleet on several seeds, two at a time, and add up."""
    for seed in seeds:
        traffic.of(seed)
    with ThreadPoolExecutor(THREADS) as pool:
        parts = list(pool.map(lambda seed: one_seed(question, traffic, fleet, seed, speed), seeds))
    return added(parts, tuple(seeds))


def holds(question: Question, evidence: Evidence) -> dict[str, bool]:
    """Class → its promise is kept: the Wilson 95 % lower bound of attainment meets it."""
    return {d.name: evidence.interval(c)[0] >= d.cls.slo.attainment for c, d in enumerate(question.demands)}


def one_seed(question: Question, traffic: Traffic, fleet: Fleet, seed: int, speed: str) -> Evidence:
    """Simulate a fleet on one seed."""
    drawn = traffic.of(seed)
    study = question.study
    run = simulate_fleet(
        fleet,
        drawn.requests,
        policy_of(study),
        speed=speed,
        seed=seed,
        classes=study.traffic,
        usd_per_s=usd_per_s_of(study, fleet),
    )
    return summarise(question, fleet, run, speed)


def summarise(question: Question, fleet: Fleet, run: Run, speed: str) -> Evidence:
    """Counts of one run, with percentiles of its times."""
    times = {"ttft_s": run.ttft_s, "tpot_s": run.tpot_s, "e2e_s": run.e2e_s}
    members = {name: run.requests.class_id == c for c, name in enumerate(run.requests.class_names)}
    return replace(
        counted(question, fleet, run, speed),
        latency={name: {k: percentiles(v[mine]) for k, v in times.items()} for name, mine in members.items()},
        cdf={name: {k: _quantiles(times[k][mine]) for k in ("ttft_s", "tpot_s")} for name, mine in members.items()},
    )


def counted(question: Question, fleet: Fleet, run: Run, speed: str) -> Evidence:
    """Counts of one run."""
    requests, classes, pools = run.requests, len(question.demands), len(fleet.pools)
    ttft, tpot, e2e = run.ttft_s, run.tpot_s, run.e2e_s
    uncached = requests.input_tokens - requests.cached_tokens
    good = np.zeros(len(requests), dtype=bool)
    for c, demand in enumerate(question.demands):
        mine = requests.class_id == c
        good[mine] = meets(demand.cls.slo, ttft[mine], tpot[mine], e2e[mine], uncached[mine])
    taken, done, moved = run.instance >= 0, run.status == 1, run.prefill_instance >= 0
    ended = requests.class_id.astype(np.int64) * pools + run.request_pool
    read = requests.class_id.astype(np.int64) * pools + np.where(
        moved, run.pool[run.prefill_instance], run.request_pool
    )

    def table(mask: Bools, cell: npt.NDArray[Any], weights: npt.NDArray[Any] | None = None) -> Floats:
        counts = np.bincount(cell[mask], weights=None if weights is None else weights[mask], minlength=classes * pools)
        return counts.astype(float).reshape(classes, pools)

    names = requests.class_names
    blocks = [kv_blocks(p.deployment) for p in fleet.pools]
    span = max(run.simulated_s, 1e-12)
    return Evidence(
        speed=speed,
        class_names=names,
        offered=np.bincount(requests.class_id, minlength=classes).astype(float),
        met=np.bincount(requests.class_id[good], minlength=classes).astype(float),
        pool_offered=table(taken, ended) + table(moved, read),
        pool_met=table(taken & good, ended) + table(moved & good, read),
        input_tokens=table(done, read, requests.input_tokens),
        output_tokens=table(done, ended, requests.output_tokens),
        busy=np.array([run.busy_s[run.pool == p].mean() / span for p in range(pools)]),
        kv_peak=np.array([run.kv_peak_blocks[run.pool == p].max() / blocks[p] for p in range(pools)]),
        preemptions=int(run.preemptions.sum()),
        refused=int((run.status == 2).sum()),
        unfinished=int((run.status == 0).sum()),
    )


def _quantiles(values: Floats) -> Floats:
    finite = values[np.isfinite(values)]
    return np.quantile(finite, np.linspace(0, 1, CDF_POINTS)) if len(finite) else np.full(CDF_POINTS, np.nan)


def added(parts: Iterable[Evidence], seeds: tuple[int, ...]) -> Evidence:
    """The evidence of several seeds, in the order of seeds."""
    rows = list(parts)
    first = rows[0]
    for name in ("offered", "met", "pool_offered", "pool_met", "input_tokens", "output_tokens"):
        setattr(first, name, sum(getattr(r, name) for r in rows))
    first.busy = np.mean([r.busy for r in rows], axis=0)
    first.kv_peak = np.max([r.kv_peak for r in rows], axis=0)
    for name in ("preemptions", "refused", "unfinished"):
        setattr(first, name, sum(getattr(r, name) for r in rows))
    first.seeds = seeds
    return first

"""Capacity by simulation: the highest rate of a class that n instances serve within its promise.

Pooling makes the capacity of n instances more than n times that of one, so it is simulated at several
pool sizes. The sample of a class is offered faster or slower, on the same luck, until its attainment
just holds.
"""

from __future__ import annotations

import threading

import numpy as np

from infermix.fleet import Pool
from infermix.metrics.goodput import meets
from infermix.plan.options import Option, queue_free_capacity, work_of
from infermix.plan.question import Demand, scaled
from infermix.sim.result import Run
from infermix.sim.run import fleet_pool_spec, simulate_pools
from infermix.workload.requests import Requests

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Pool sizes at which capacities are simulated; between them the smaller one counts."""
BISECTIONS = 7
WARM_UP = 0.15
"""Share of requests at the start that are not counted: the instances fill up."""
MARGIN = 0.2
"""Share of the allowed misses that capacities leave free."""


class Capacities:
    """Simulated capacities of one question, remembered."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, int], float] = {}
        self._lock = threading.Lock()

    def known(self, option: Option, demand: Demand, size: int) -> bool:
        """Whether this capacity was simulated."""
        return (option.name, demand.name, size) in self._known

    def per_instance(self, option: Option, demand: Demand, size: int) -> float:
        """Requests a second and instance that a pool of ``size`` holds; optimistic until simulated."""
        key = (option.name, demand.name, size)
        return self._known.get(key) or queue_free_capacity(option.table, option.deployment.max_num_seqs, work_of(demand))

    def best_known(self, option: Option, demand: Demand) -> float:
        """The highest simulated capacity per instance over pool sizes; optimistic if none was simulated."""
        known = [rate for (name, cls, _), rate in self._known.items() if (name, cls) == (option.name, demand.name)]
        return max(known) if known else self.per_instance(option, demand, SIZES[0])

    def copy_of_classes(self, keep: list[str]) -> Capacities:
        """What is known of some classes, for a question that changes the others."""
        other = Capacities()
        other._known = {key: rate for key, rate in self._known.items() if key[1] in keep}
        return other

    def simulate(self, option: Option, demand: Demand, size: int) -> float:
        """Find the capacity by bisection between nothing and the optimistic bound."""
        bound = queue_free_capacity(option.table, option.deployment.max_num_seqs, work_of(demand))
        found = max(_bisect(option, demand, size, bound * size) / size, 1e-9 * bound)
        with self._lock:
            self._known[(option.name, demand.name, size)] = found
        return found


def _bisect(option: Option, demand: Demand, size: int, bound: float) -> float:
    sample = _head(demand.sample, min(len(demand.sample), 2000 + 150 * size))
    own_rate = len(sample) / float(sample.arrival_s[-1] or 1.0)
    wanted = 1.0 - (1.0 - MARGIN) * (1.0 - demand.cls.slo.attainment)
    low, high = 0.0, bound
    for step in range(BISECTIONS):
        rate = 0.7 * high if step == 0 else 0.5 * (low + high)
        if _attainment(option, demand, size, scaled(sample, rate / own_rate)) >= wanted:
            low = rate
        else:
            high = rate
    return low


def _attainment(option: Option, demand: Demand, size: int, requests: Requests) -> float:
    pool = Pool(name="pool", deployment=option.deployment, instances=size)
    run = simulate_pools(requests, [fleet_pool_spec(pool, requests, option.table)], "least_wait")
    return float(good_requests(run, demand)[int(WARM_UP * len(requests)) :].mean())


def good_requests(run: Run, demand: Demand) -> np.ndarray:
    """Requests of a run that meet the promise of a class."""
    uncached = run.requests.input_tokens - run.requests.cached_tokens
    return meets(demand.cls.slo, run.ttft_s, run.tpot_s, run.e2e_s, uncached)


def _head(requests: Requests, n: int) -> Requests:
    from dataclasses import fields, replace

    columns = {f.name: getattr(requests, f.name)[:n] for f in fields(requests) if isinstance(getattr(requests, f.name), np.ndarray)}
    return replace(requests, **columns)

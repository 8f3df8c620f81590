"""Capacity by simulation: the highest rate of a class that n instances serve within its promise.

Pooling makes the capacity of n instances more than n times that of one, so it is simulated at several
pool sizes. The sample of a class is offered faster or slower, on the same luck, until its attainment
just holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from infermix.arrays import Bools
from infermix.fleet import Pool
from infermix.metrics.goodput import meets
from infermix.plan.options import Option, queue_free_capacity, work_of
from infermix.plan.question import Demand, merged, scaled, thinned
from infermix.sim.result import Run
from infermix.sim.run import simulate_pools
from infermix.sim.specs import fleet_pool_spec
from infermix.workload.requests import Requests

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Pool sizes at which capacities are simulated; between them the smaller one counts."""
BISECTIONS = 6
WARM_UP = 0.15
"""Share of requests at the start that are not counted: the instances fill up."""
LEAST = 5000
HORIZON_S = 120.0
"""A capacity is simulated for so many requests, and at least so long: a slight overload shows only after a while."""
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
        if key in self._known:
            return self._known[key]
        return queue_free_capacity(option.table, option.deployment.max_num_seqs, work_of(demand))

    def best_known(self, option: Option, demand: Demand) -> float:
        """The highest simulated capacity per instance over pool sizes; optimistic if none was simulated."""
        known = [rate for (name, cls, _), rate in self._known.items() if (name, cls) == (option.name, demand.name)]
        return max(known) if known else self.per_instance(option, demand, SIZES[0])

    def lowest_known(self, option: Option, demand: Demand) -> float:
        """The lowest simulated capacity per instance above nothing; optimistic if none was simulated."""
        known = [
            r for (name, cls, _), r in self._known.items() if (name, cls) == (option.name, demand.name) and r > 0.0
        ]
        return min(known) if known else self.per_instance(option, demand, -1)

    def copy_of_classes(self, keep: list[str]) -> Capacities:
        """What is known of some classes, for a question that changes the others."""
        other = Capacities()
        other._known = {key: rate for key, rate in self._known.items() if key[1] in keep}
        return other

    def simulate(self, option: Option, demand: Demand, size: int) -> float:
        """Find the capacity by bisection between nothing and the optimistic bound."""
        bound = queue_free_capacity(option.table, option.deployment.max_num_seqs, work_of(demand))
        found = _bisect(lambda rate: _holds_alone(option, demand, size, rate), bound * size) / size
        with self._lock:
            self._known[(option.name, demand.name, size)] = found
        return found


def mix_factor(option: Option, demands: list[Demand], rates: dict[str, float], size: int) -> float:
    """How much of a proposed mix of classes a pool holds: 1 when all of it, by simulation.

    Long prompts of one class share steps with another one's tight TPOT, so capacities of single classes do
    not simply add up.
    """
    if _holds_mix(option, demands, rates, size, 1.0):
        return 1.0
    return _bisect(lambda factor: _holds_mix(option, demands, rates, size, factor), 1.0)


def _bisect(holds: Callable[[float], bool], bound: float) -> float:
    """Largest load that holds, between nothing and the bound; 0 when none was found."""
    low, high = 0.0, bound
    for step in range(BISECTIONS):
        load = 0.7 * high if step == 0 else 0.5 * (low + high)
        if holds(load):
            low = load
        else:
            high = load
    return low


def _holds_alone(option: Option, demand: Demand, size: int, rate: float) -> bool:
    sample = thinned(demand.sample, max(LEAST, int(rate * HORIZON_S)))
    requests = scaled(sample, rate / _own_rate(sample))
    good = good_requests(_run(option, size, requests, [demand]), demand)
    return float(good[int(WARM_UP * len(requests)) :].mean()) >= _wanted(demand)


def _holds_mix(option: Option, demands: list[Demand], rates: dict[str, float], size: int, factor: float) -> bool:
    horizon = max(HORIZON_S, *(LEAST / (rates[d.name] * factor) for d in demands))
    horizon = min(horizon, *(len(d.sample) / (rates[d.name] * factor) for d in demands))
    parts = []
    for demand in demands:
        rate = rates[demand.name] * factor
        sample = thinned(demand.sample, max(1, int(rate * horizon)))
        parts.append(scaled(sample, rate / _own_rate(sample)))
    requests = merged(parts)
    run = _run(option, size, requests, demands)
    counted = requests.arrival_s >= WARM_UP * horizon
    for c, demand in enumerate(demands):
        mine = counted & (requests.class_id == c)
        if mine.any() and good_requests(run, demand)[mine].mean() < _wanted(demand):
            return False
    return True


def _run(option: Option, size: int, requests: Requests, demands: list[Demand]) -> Run:
    """Simulate until the last request could have kept its promise; a backlog beyond that is all misses."""
    pool = Pool(name="pool", deployment=option.deployment, instances=size)
    until_s = float(requests.arrival_s[-1]) + max(_promised_s(demand) for demand in demands)
    return simulate_pools(requests, [fleet_pool_spec(pool, requests, option.table)], "least_wait", until_s=until_s)


def _promised_s(demand: Demand) -> float:
    """Longest time in which a request of the class could end and still be good [s]; endless without a promise on it."""
    slo = demand.cls.slo
    if slo.e2e_s is not None:
        return slo.e2e_s
    if slo.ttft_s is None or slo.tpot_s is None:
        return np.inf
    inputs, cached, outputs = demand.lengths
    first = slo.ttft_s + slo.ttft_s_per_1k_uncached * float((inputs - cached).max()) / 1000
    return first + slo.tpot_s * float(outputs.max())


def _wanted(demand: Demand) -> float:
    return 1.0 - (1.0 - MARGIN) * (1.0 - demand.cls.slo.attainment)


def _own_rate(requests: Requests) -> float:
    return len(requests) / float(requests.arrival_s[-1] or 1.0)


def good_requests(run: Run, demand: Demand) -> Bools:
    """Requests of a run that meet the promise of a class."""
    uncached = run.requests.input_tokens - run.requests.cached_tokens
    return meets(demand.cls.slo, run.ttft_s, run.tpot_s, run.e2e_s, uncached)

"""Capacity by simulation: the highest rate of a class that n instances serve within its promise.

Pooling makes the capacity of n instances more than n times that of one, so it is simulated at several
pool sizes. The sample of a class is offered faster or slower, on the same luck, until its attainment
just holds. A class of sessions is a closed loop: more or fewer sessions are at work, and its rate is the one
at which they come when served as recorded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from infermix.arrays import Bools, Ints
from infermix.fleet import Pool
from infermix.metrics.goodput import meets
from infermix.plan.cache import Store, digest, engine_digest, requests_digest
from infermix.plan.loops import places_of, with_sessions
from infermix.plan.options import Option, queue_free_capacity
from infermix.plan.question import Demand, merged, scaled, thinned
from infermix.sim.result import Run
from infermix.sim.run import simulate_pools
from infermix.sim.specs import fleet_pool_spec
from infermix.workload.requests import Requests

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
"""Pool sizes at which capacities are simulated; between them the smaller one counts."""
BISECTIONS = 7
FIRST = (0.93, 0.65)
"""Shares of the bound that are tried first, until one holds."""
WARM_UP = 0.15
"""Share of requests at the start that are not counted: the instances fill up."""
LEAST = 5000
HORIZON_S = 120.0
"""A capacity is simulated for so many requests, and at least so long: a slight overload shows only after a while."""
AHEAD = 1.3
"""Sessions are drawn so much longer than they are looked at: served faster than recorded, they come sooner."""
SPARE = 6.0
"""Instances of a pair's other part, over those that its queue-free capacity takes."""
IDLE, IDLE_REQUESTS = 0.05, 2000
"""Load of its queue-free capacity at which a part of a pair is as good as idle, and requests to see that."""
MARGIN = 0.2
"""Share of the allowed misses that capacities leave free."""


class Capacities:
    """Simulated capacities of one question, remembered; those of earlier ones are read from a store."""

    def __init__(self, store: Store | None = None) -> None:
        self.store = store or Store(None)
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
        return queue_free_capacity(option, demand)

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
        other = Capacities(self.store)
        other._known = {key: rate for key, rate in self._known.items() if key[1] in keep}
        return other

    def simulate(self, option: Option, demand: Demand, size: int) -> float:
        """Find the capacity by bisection between nothing and the optimistic bound, or read it from the store."""
        key = _key(option, demand, size)
        found = self.store.read(key)
        if found is None:
            bound = queue_free_capacity(option, demand)
            found = _bisect(lambda rate: _holds_alone(option, demand, size, rate), bound * size) / size
            self.store.write(key, found)
        with self._lock:
            self._known[(option.name, demand.name, size)] = found
        return found

    def recall(self, option: Option, demand: Demand) -> None:
        """Read what the store knows of an option and a class at any pool size."""
        for size in SIZES:
            found = None if self.known(option, demand, size) else self.store.read(_key(option, demand, size))
            if found is not None:
                with self._lock:
                    self._known[(option.name, demand.name, size)] = found

    def mix_factor(self, option: Option, demands: list[Demand], rates: dict[str, float], size: int) -> float:
        """``mix_factor``, or what the store knows of it."""
        key = digest(*(_key(option, d, size) for d in demands), [rates[d.name] for d in demands])
        found = self.store.read(key)
        if found is None:
            found = mix_factor(option, demands, rates, size)
            self.store.write(key, found)
        return found


def _key(option: Option, demand: Demand, size: int) -> str:
    """Everything that a simulated capacity hangs on."""
    settings = (BISECTIONS, WARM_UP, LEAST, HORIZON_S, MARGIN, size)
    beside = () if option.partner is None else (engine_digest(option.partner.deployment, option.partner.table),)
    engine = engine_digest(option.deployment, option.table)
    return digest(engine, _sample_digest(demand), demand.cls.slo, settings, *beside)


@lru_cache(maxsize=256)
def _sample_digest(demand: Demand) -> str:
    """The requests of a class, and whether they are a closed loop."""
    return f"{requests_digest(demand.sample)} {demand.cls.sessions} {demand.rate_per_s if demand.cls.sessions else 0}"


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
        load = 0.5 * (low + high) if low > 0.0 or step >= len(FIRST) else FIRST[step] * bound
        if holds(load):
            low = load
        else:
            high = load
    return low


def _holds_alone(option: Option, demand: Demand, size: int, rate: float) -> bool:
    if rate <= 0.0:
        return True
    horizon = max(HORIZON_S, LEAST / rate)
    if demand.cls.sessions is not None:
        horizon = min(horizon, _longest_s(demand, rate))
    requests = offered_at(demand, rate, horizon)
    run = _run(option, size, requests, [demand], horizon)
    return _kept(run, demand, _counted(run, requests, horizon), option)


def _holds_mix(option: Option, demands: list[Demand], rates: dict[str, float], size: int, factor: float) -> bool:
    horizon = max(HORIZON_S, *(LEAST / (rates[d.name] * factor) for d in demands))
    horizon = min(horizon, *(_longest_s(d, rates[d.name] * factor) for d in demands))
    requests = merged([offered_at(d, rates[d.name] * factor, horizon) for d in demands])
    run = _run(option, size, requests, demands, horizon)
    counted = _counted(run, requests, horizon)
    return all(_kept(run, d, counted & (requests.class_id == c), option) for c, d in enumerate(demands))


def offered_at(demand: Demand, rate: float, horizon_s: float) -> Requests:
    """A class at another rate: its sample faster or slower, or more or fewer of its sessions at work."""
    if demand.cls.sessions is None:
        sample = thinned(demand.sample, max(1, int(rate * horizon_s)))
        return scaled(sample, rate / _own_rate(sample))
    wanted = max(1, round(rate / demand.rate_per_s * demand.cls.sessions))
    return with_sessions(demand.sample, _places(demand), wanted, AHEAD * horizon_s)


@lru_cache(maxsize=64)
def _places(demand: Demand) -> Ints:
    return places_of(demand.sample)


def _longest_s(demand: Demand, rate: float) -> float:
    """For how long a sample reaches at a rate; that of a closed loop does not hang on it [s]."""
    if demand.cls.sessions is not None:
        return float(demand.sample.arrival_s[-1])
    return len(demand.sample) / rate


def _counted(run: Run, requests: Requests, horizon_s: float) -> Bools:
    """Requests that came when the instances had filled up; those of a closed loop come when they may."""
    arrival = run.requests.arrival_s
    last = horizon_s if (requests.parent >= 0).any() else np.inf
    return (arrival >= WARM_UP * min(horizon_s, float(requests.arrival_s[-1]))) & (arrival < last)


def _kept(run: Run, demand: Demand, counted: Bools, option: Option) -> bool:
    """Whether the promise held for the requests that count, with the margin."""
    return not counted.any() or float(good_requests(run, demand)[counted].mean()) >= _wanted(option, demand)


def _run(option: Option, size: int, requests: Requests, demands: list[Demand], horizon_s: float) -> Run:
    """Simulate until the last request could have kept its promise; a backlog beyond that is all misses."""
    pools = [(Pool(name="pool", deployment=option.deployment, instances=size), option.table)]
    if option.partner is not None:
        beside = _beside(option.partner, requests, demands, last_s=horizon_s)
        pools.append((beside, option.partner.table))
    closed = any(demand.cls.sessions is not None for demand in demands)
    last_s = horizon_s if closed else float(requests.arrival_s[-1])
    until_s = last_s + max(_promised_s(demand) for demand in demands)
    specs = [fleet_pool_spec(pool, requests, table) for pool, table in pools]
    return simulate_pools(requests, specs, "least_wait", until_s=until_s)


def _beside(partner: Option, requests: Requests, demands: list[Demand], last_s: float) -> Pool:
    """The other part of a pair, with room to spare, so that what is missed is missed by the part that is looked at."""
    counts = np.bincount(requests.class_id, minlength=len(demands)) / last_s
    taken = sum(n / max(queue_free_capacity(partner, d), 1e-12) for n, d in zip(counts, demands, strict=True))
    return Pool(name="beside", deployment=partner.deployment, instances=int(SPARE * taken) + 2)


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


def _wanted(option: Option, demand: Demand) -> float:
    """Share of good requests that a pool is sized for.

    The two parts of a pair share out what may be missed beyond what they miss when there is next to nothing to do.
    """
    wanted = 1.0 - (1.0 - MARGIN) * (1.0 - demand.cls.slo.attainment)
    return wanted if option.partner is None else max(wanted, (wanted + _idle_share(option, demand)) / 2)


@lru_cache(maxsize=4096)
def _idle_share(option: Option, demand: Demand) -> float:
    """Share of good requests where one instance has next to nothing to do."""
    rate = IDLE * queue_free_capacity(option, demand)
    horizon = max(HORIZON_S, IDLE_REQUESTS / rate)
    requests = offered_at(demand, rate, horizon)
    return float(good_requests(_run(option, 1, requests, [demand], horizon), demand).mean())


def _own_rate(requests: Requests) -> float:
    return len(requests) / float(requests.arrival_s[-1] or 1.0)


def good_requests(run: Run, demand: Demand) -> Bools:
    """Requests of a run that meet the promise of a class."""
    uncached = run.requests.input_tokens - run.requests.cached_tokens
    return meets(demand.cls.slo, run.ttft_s, run.tpot_s, run.e2e_s, uncached)

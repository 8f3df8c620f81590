"""Prove many fleets of one question: pools that share nothing are simulated once each.

``pool_split`` sends a class to its pools by their shares alone, whatever the queues. So no pool feels another one: each
is simulated by itself, on the requests that it is sent, and fleets that have a pool in common, with as many instances
and the same shares, have its simulations in common. (Which of several idle instances takes a request hangs on how many
there are in the whole fleet; apart, ties between them fall differently, as with another seed. Fleets that are shown
are simulated whole, too.) Pools that hand over to each other, and all pools where sessions may wander between them, are
simulated as one.

Such a router does not look at promises either, so one simulation tells by which time between tokens a promise could
have been kept: the tightest TPOT of one class that a fleet holds, all other promises being the study's.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np

from infermix.arrays import Floats, Ints
from infermix.fleet import Fleet, Pool
from infermix.jit import kernel
from infermix.metrics.confidence import wilson
from infermix.metrics.goodput import meets
from infermix.plan.evidence import THREADS, Evidence, Traffic, added, counted
from infermix.plan.prove import seeds_of
from infermix.plan.question import Question
from infermix.plan.routing import usd_per_s_of
from infermix.route.names import BASE
from infermix.sim.result import Run
from infermix.sim.run import simulate_fleet
from infermix.workload.requests import take

SPEEDS = ("low", "nominal")


@dataclass(frozen=True)
class Outcome:
    """What simulations of a fleet, or of a part of it, show at one speed."""

    evidence: Evidence
    times: Floats
    """TPOT of every request of the class that is looked at; ``inf`` where it misses the rest of its promise."""


@dataclass
class Apart:
    """Simulations of the pools of fleets, each done once."""

    question: Question
    traffic: Traffic
    name: str
    """The class whose tightest TPOT is looked for."""
    simulated: int = 0
    """Simulations of pools that were run."""
    _known: dict[object, Outcome] = field(default_factory=dict)
    _placed: dict[object, Ints] = field(default_factory=dict)

    def outcome(self, fleet: Fleet, speed: str, *, whole: bool = False) -> Outcome:
        """A fleet on all seeds at a speed, pool by pool; ``whole``: all of its pools together, as in a plan's proof."""
        seeds = seeds_of(self.question)
        parts = [tuple(range(len(fleet.pools)))] if whole else self._parts(fleet)
        keys = {(part, seed): (_key(fleet, part), seed, speed) for part in parts for seed in seeds}
        new = [job for job, key in keys.items() if key not in self._known]
        for seed in seeds:
            self.traffic.of(seed)
        with ThreadPoolExecutor(THREADS) as pool:
            found = list(pool.map(lambda job: self._simulate(fleet, job[0], job[1], speed), new))
        self._known |= {keys[job]: outcome for job, outcome in zip(new, found, strict=True)}
        self.simulated += len(new)
        joined = [_joined(fleet, parts, [self._known[keys[part, seed]] for part in parts]) for seed in seeds]
        times = np.sort(np.concatenate([outcome.times for outcome in joined]))
        return Outcome(added([outcome.evidence for outcome in joined], seeds), times)

    def _parts(self, fleet: Fleet) -> list[tuple[int, ...]]:
        """Numbers of the pools that are simulated together."""
        everyone = tuple(range(len(fleet.pools)))
        requests = self.traffic.of(seeds_of(self.question)[0]).requests
        coupled = any(pool.deployment.role != "both" for pool in fleet.pools)
        coupled |= bool((requests.parent >= 0).any()) or bool(requests.block_start)
        return [everyone] if coupled else [(p,) for p in everyone]

    def _simulate(self, fleet: Fleet, part: tuple[int, ...], seed: int, speed: str) -> Outcome:
        question, requests = self.question, self.traffic.of(seed).requests
        mine = fleet
        if len(part) < len(fleet.pools):
            mine = Fleet(tuple(_alone(fleet.pools[p]) for p in part))
            requests = take(requests, np.flatnonzero(self._places(fleet, seed) == part[0]))
        run = simulate_fleet(
            mine,
            requests,
            BASE,
            speed=speed,
            seed=seed,
            classes=question.study.traffic,
            usd_per_s=usd_per_s_of(question.study, mine),
        )
        return Outcome(counted(question, mine, run, speed), self._times(run))

    def _places(self, fleet: Fleet, seed: int) -> Ints:
        """Pool of every request of a seed."""
        shares = fleet.shares(self.question.class_names)
        key = (shares.tobytes(), len(fleet.pools), seed)
        if key not in self._placed:
            self._placed[key] = places(np.asarray(self.traffic.of(seed).requests.class_id, np.int64), shares)
        return self._placed[key]

    def _times(self, run: Run) -> Floats:
        """TPOT of the class's requests that keep the rest of its promise."""
        demand = next(d for d in self.question.demands if d.name == self.name)
        mine = run.requests.class_id == self.question.class_names.index(self.name)
        uncached = run.requests.input_tokens[mine] - run.requests.cached_tokens[mine]
        rest, tpot = msgspec.structs.replace(demand.cls.slo, tpot_s=None), run.tpot_s[mine]
        good = meets(rest, run.ttft_s[mine], tpot, run.e2e_s[mine], uncached)
        return np.where(good, np.nan_to_num(tpot, nan=0.0), np.inf)


def tightest(times: Floats, attainment: float) -> float:
    """Least promised TPOT of which the Wilson 95 % lower bound of attainment holds [s]; ``inf`` where none does.

    ``times``: ascending, one for every request that was offered.
    """
    few, many = 0, len(times) + 1
    while many - few > 1:
        middle = (few + many) // 2
        few, many = (few, middle) if wilson(middle, len(times))[0] >= attainment else (middle, many)
    return float(times[many - 1]) if 1 <= many <= len(times) else float("inf")


def places(class_id: Ints, shares: Floats) -> Ints:
    """Pool of every request under ``pool_split``: the one furthest behind its share of the class (-1: none)."""
    found = np.full(len(class_id), -1, dtype=np.int64)
    _place(class_id, shares, np.zeros(shares.shape, dtype=np.int64), found)
    return found


@kernel
def _place(class_id: Ints, shares: Floats, sent: Ints, found: Ints) -> None:
    for i in range(len(class_id)):
        c, total, most = class_id[i], 0, -np.inf
        for p in range(shares.shape[1]):
            total += sent[c, p]
        for p in range(shares.shape[1]):
            lag = shares[c, p] * (1 + total) - sent[c, p]
            if shares[c, p] > 0.0 and lag > most:
                most, found[i] = lag, p
        if found[i] >= 0:
            sent[c, found[i]] += 1


def _alone(pool: Pool) -> Pool:
    """A pool that is sent all of its classes."""
    return msgspec.structs.replace(pool, serves=dict.fromkeys(pool.serves, 1.0))


def _key(fleet: Fleet, part: tuple[int, ...]) -> object:
    """All that the requests and the instances of a part hang on."""
    return tuple((name_of(fleet.pools[p]), fleet.pools[p].instances, _sent(fleet, p)) for p in part)


def name_of(pool: Pool) -> str:
    """A deployment with its operating point, unique within a study."""
    d = pool.deployment
    return f"{d.model.id} {d.name} chunk {d.max_batched_tokens} {d.role}"


def _sent(fleet: Fleet, p: int) -> tuple[object, ...]:
    """Which requests a pool is sent: of every class the shares of the pools that serve it, and its turn among them."""
    found = []
    for name in fleet.pools[p].serves:
        serving = [q for q, pool in enumerate(fleet.pools) if pool.serves.get(name, 0.0) > 0.0]
        found.append((name, tuple(fleet.pools[q].serves[name] for q in serving), serving.index(p)))
    return tuple(found)


def _joined(fleet: Fleet, parts: Sequence[tuple[int, ...]], outcomes: Sequence[Outcome]) -> Outcome:
    """The parts of a fleet as one."""
    by_pool = {
        p: (outcome.evidence, k) for part, outcome in zip(parts, outcomes, strict=True) for k, p in enumerate(part)
    }

    def column(name: str) -> Floats:
        return np.stack([getattr(e, name)[..., k] for e, k in (by_pool[p] for p in range(len(fleet.pools)))], axis=-1)

    whole = replace(
        outcomes[0].evidence,
        offered=np.sum([outcome.evidence.offered for outcome in outcomes], axis=0),
        met=np.sum([outcome.evidence.met for outcome in outcomes], axis=0),
        pool_offered=column("pool_offered"),
        pool_met=column("pool_met"),
        input_tokens=column("input_tokens"),
        output_tokens=column("output_tokens"),
        busy=column("busy"),
        kv_peak=column("kv_peak"),
        preemptions=sum(outcome.evidence.preemptions for outcome in outcomes),
        refused=sum(outcome.evidence.refused for outcome in outcomes),
        unfinished=sum(outcome.evidence.unfinished for outcome in outcomes),
    )
    return Outcome(whole, np.concatenate([outcome.times for outcome in outcomes]))

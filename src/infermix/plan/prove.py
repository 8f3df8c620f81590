"""Prove a plan by simulation, mend it until it holds, and make it minimal.

A promise is held when the Wilson 95 % lower bound of attainment meets it at the speeds that the study asks for
(``prove.speeds``; ``low`` by default, which includes nominal). Where a class misses, the capacities
of the pools that failed it are derated and the program is solved again. A proved fleet is then
thinned: an instance whose removal breaks neither a promise nor a limit goes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from infermix.fleet import Fleet, Pool
from infermix.plan.evidence import Evidence, Traffic, gather, holds
from infermix.plan.limits import broken_limits
from infermix.plan.model import Solution
from infermix.plan.options import Option
from infermix.plan.question import Question
from infermix.plan.solve import Planner, choose

MENDS = 25
SHARES = ("limits.min_share", "limits.max_vendor_share", "limits.shares")
DOUBT = 0.97
"""Below this share of the promised attainment the upper bound of one seed settles a miss: seeds differ by less."""
Progress = Callable[[str], None]


@dataclass
class Proved:
    """A fleet with its evidence; ``status`` is proved, proved_nominal or not_proved."""

    status: str
    solution: Solution
    fleet: Fleet
    options: tuple[Option, ...]
    nominal: Evidence
    low: Evidence
    rounds: int
    derate: tuple[float, ...]
    """By pool: the largest factor that proofs which failed took off its capacity."""
    removals: list[dict[str, object]] = field(default_factory=list)
    """For every pool: what taking one instance away breaks."""


def fleet_of(question: Question, solution: Solution, slot: int = 0) -> Fleet:
    """The columns chosen in a slot as pools, with the share of each class that the program sends to each."""
    choices, names = solution.at(slot), _pool_names(solution)
    totals = {d.name: sum(c.rates.get(d.name, 0.0) for c in choices) for d in question.demands}
    pools = []
    for choice in choices:
        shares = {name: rate / totals[name] for name, rate in choice.rates.items()}
        name, d = names[choice.column.pool], choice.column.option.deployment
        pools.append(Pool(name=name, deployment=d, instances=choice.instances, serves=shares))
    return Fleet(tuple(pools))


def _pool_names(solution: Solution) -> dict[str, str]:
    """Pool of the program → its name, which it has in every slot."""
    names: dict[str, str] = {}
    for choice in solution.choices:
        d = choice.column.option.deployment
        stem = f"{d.system.id}-{d.layout.replace(' ', '-')}" + (f"-{d.role}" if d.role != "both" else "")
        same = sum(name.split("/")[0] == stem for name in names.values())
        names.setdefault(choice.column.pool, f"{stem}/{same + 1}" if same else stem)
    return names


def prove(planner: Planner, traffic: Traffic, progress: Progress | None = None, *, thin: bool = True) -> Proved | None:
    """Choose, prove, mend, thin; None when the limits conflict."""
    question, say = planner.question, progress or (lambda _: None)
    rounds = 0
    while True:
        solution = choose(planner, progress)
        if solution is None:
            return None
        fleet, rounds = fleet_of(question, solution), rounds + 1
        missed, evidence = _missed(question, traffic, fleet, seeds_of(question))
        if not missed or rounds >= MENDS:
            break
        say(f"proof {rounds}: {', '.join(missed)} missed, capacities derated")
        derate(planner, question, evidence, fleet, solution, missed)
    removals: list[dict[str, object]] = []
    if thin and not missed:
        fleet, removals = _thin(question, traffic, fleet, say)
    nominal, low = (gather(question, traffic, fleet, seeds_of(question), speed) for speed in ("nominal", "low"))
    options = tuple(_option_of(solution, pool) for pool in fleet.pools)
    factors = tuple(
        min((planner.derate.get((o.name, d.name), 1.0) for d in question.demands), default=1.0) for o in options
    )
    status = status_of(question, fleet, nominal, low)
    return Proved(status, solution, fleet, options, nominal, low, rounds, factors, removals)


def status_of(question: Question, fleet: Fleet, nominal: Evidence, low: Evidence) -> str:
    """``proved`` at nominal and low speeds, ``proved_nominal`` at nominal ones, else ``not_proved``."""
    if not all(holds(question, nominal).values()) or broken_limits(question, fleet, nominal):
        return "not_proved"
    return "proved" if all(holds(question, low).values()) else "proved_nominal"


def seeds_of(question: Question) -> tuple[int, ...]:
    """Seeds of a proof: the study's seed and those that follow it."""
    first = question.study.simulate.seed
    return tuple(range(first, first + question.study.prove.seeds))


def _option_of(solution: Solution, pool: Pool) -> Option:
    return next(c.column.option for c in solution.choices if c.column.option.deployment is pool.deployment)


def breaks(question: Question, traffic: Traffic, fleet: Fleet) -> list[str]:
    """Classes and limits that a fleet misses; one seed is enough where it leaves no doubt."""
    seeds = seeds_of(question)
    look = gather(question, traffic, fleet, seeds[:1], question.speed)
    hopeless = [d.name for c, d in enumerate(question.demands) if look.interval(c)[1] < DOUBT * d.cls.slo.attainment]
    return hopeless or _missed(question, traffic, fleet, seeds)[0]


def _missed(question: Question, traffic: Traffic, fleet: Fleet, seeds: tuple[int, ...]) -> tuple[list[str], Evidence]:
    """(what is missed, the evidence): at the speeds that the study asks for, then at nominal ones."""
    missed: list[str] = []
    for speed in dict.fromkeys((question.speed, "nominal")):
        evidence = gather(question, traffic, fleet, seeds, speed)
        missed = [name for name, held in holds(question, evidence).items() if not held]
        if speed == "nominal":
            missed += broken_limits(question, fleet, evidence)
        if missed:
            break
    return missed, evidence


def derate(
    planner: Planner, question: Question, evidence: Evidence, fleet: Fleet, solution: Solution, missed: list[str]
) -> None:
    """Take capacity off pools in which a class missed, more the more it missed; make missed shares stricter.

    At least one pool loses capacity where a class missed.
    """
    over = [over_allowed(question, evidence, p, missed) for p in range(len(fleet.pools))]
    for pool, times in zip(fleet.pools, over, strict=True):
        if times > 0.9 or times == max(over) > 0.0:
            planner.take_off(_option_of(solution, pool), max(0.75, min(0.985, max(times, 1e-9) ** -0.2)))
    if any(name.startswith(SHARES) for name in missed):
        planner.share_margin += 0.005


def over_allowed(question: Question, evidence: Evidence, p: int, missed: list[str]) -> float:
    """How many times what it may a pool misses of a class that missed, at most; 0 where it has none of them.

    All may lie below 1 where a class missed by its confidence interval alone.
    """
    found = [0.0]
    for c, demand in enumerate(question.demands):
        offered, allowed = float(evidence.pool_offered[c, p]), 1.0 - demand.cls.slo.attainment
        if demand.name in missed and offered:
            found.append((1.0 - float(evidence.pool_met[c, p]) / offered) / max(allowed, 1e-9))
    return max(found)


def _thin(question: Question, traffic: Traffic, fleet: Fleet, say: Progress) -> tuple[Fleet, list[dict[str, object]]]:
    """Take instances away while nothing breaks: whole systems first, then single ones; dearest pools first."""
    while True:
        removals: list[dict[str, object]] = []
        for p in sorted(range(len(fleet.pools)), key=lambda i: -_instance_cost(question, fleet.pools[i])):
            smaller, broken = _smaller(question, traffic, fleet, p)
            if smaller is not None:
                name, before = fleet.pools[p].name, fleet.pools[p].instances
                say(f"thinned: {name}, {before} to {_taken(smaller, name)}")
                fleet = smaller
                break
            removals.append({"pool": fleet.pools[p].name, "breaks": broken})
        else:
            return fleet, removals


def _taken(fleet: Fleet, name: str) -> int:
    return next((pool.instances for pool in fleet.pools if pool.name == name), 0)


def _smaller(question: Question, traffic: Traffic, fleet: Fleet, p: int) -> tuple[Fleet | None, list[str]]:
    """The fleet with fewer instances in pool p, if that breaks nothing; else what one fewer breaks."""
    pool = fleet.pools[p]
    per_system = pool.deployment.instances_per_system
    spare = (pool.instances - 1) % per_system + 1
    broken: list[str] = []
    for fewer in dict.fromkeys((spare, 1)):
        if fewer == pool.instances and alone(fleet, p):
            broken = alone(fleet, p)
            continue
        candidate = without(fleet, p, fewer)
        broken = breaks(question, traffic, candidate)
        if not broken:
            return candidate, []
    return None, broken


def alone(fleet: Fleet, p: int) -> list[str]:
    """Classes that only pool p serves, among the pools that do the same part of the work."""
    mine = fleet.pools[p]
    others = [q for i, q in enumerate(fleet.pools) if i != p and q.deployment.role == mine.deployment.role]
    return [name for name in mine.serves if all(name not in q.serves for q in others)]


def without(fleet: Fleet, p: int, fewer: int) -> Fleet:
    """The fleet less some instances of a pool; where the pool vanishes, the others take its share."""
    smaller = fleet.resized(p, fleet.pools[p].instances - fewer)
    if len(smaller.pools) == len(fleet.pools):
        return smaller
    totals: dict[str, float] = {}
    for pool in smaller.pools:
        for name, share in pool.serves.items():
            totals[name] = totals.get(name, 0.0) + share
    rescaled = [
        Pool(
            name=q.name,
            deployment=q.deployment,
            instances=q.instances,
            serves={k: v / totals[k] for k, v in q.serves.items()},
        )
        for q in smaller.pools
    ]
    return Fleet(tuple(rescaled))


def _instance_cost(question: Question, pool: Pool) -> float:
    price = next(o.price.usd_per_hour for o in question.offers if o.system.id == pool.deployment.system.id)
    return price * pool.deployment.systems_per_instance / pool.deployment.instances_per_system

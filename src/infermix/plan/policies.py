"""Which policy routes: with ``policy = "auto"`` those of ``route/`` are tried by simulation, and one is kept.

Every policy routes the same requests, on the same luck, over the same fleet: one seed, at the speeds where promises
must hold. The one kept is the one under which the class with least room has most: room is by how much the Wilson 95 %
lower bound of attainment is above the promise, over what the promise allows to miss. It then proves the fleet like any
other.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec

from infermix.fleet import Fleet
from infermix.plan.day import DayProof, prove_day
from infermix.plan.evidence import THREADS, Evidence, Traffic, one_seed
from infermix.plan.limits import broken_limits
from infermix.plan.prove import Progress, Proved, fleet_of, prove, seeds_of
from infermix.plan.question import Question
from infermix.plan.result import PolicyTrial
from infermix.plan.solve import Planner, choose
from infermix.route.names import AUTO, BASE

ALWAYS = (
    BASE, "pool_split_spill", "least_wait", "least_inflight", "cheapest_meeting_slo", "slo_headroom", "deadline",
)  # fmt: skip
OF_SESSIONS = ("session_affinity", "prefix_affinity")
"""Without sessions these are ``least_wait``."""
OF_WORTH = ("price_of_delay",)
"""A class without a value of time goes to the cheapest instance, however long its queue."""
LEVEL = 0.02
"""Room that differs by less is alike; then the policy that is named first is kept."""
ORDER = ("not_proved", "proved_nominal", "proved")


def asked(question: Question) -> bool:
    """Whether the policy is to be chosen."""
    return question.study.simulate.policy == AUTO


def with_policy(question: Question, name: str) -> Question:
    """The same question, routed by another policy."""
    simulate = msgspec.structs.replace(question.study.simulate, policy=name)
    return replace(question, study=msgspec.structs.replace(question.study, simulate=simulate))


def candidates(question: Question) -> tuple[str, ...]:
    """Policies worth trying: affinity where there are sessions, prices of delay where every class states one."""
    classes = [demand.cls for demand in question.demands]
    sessions = any(len(d.sample) and int(d.sample.session.max()) >= 0 for d in question.demands)
    worth = all(cls.value_of_time_usd_per_hour is not None for cls in classes)
    return (*ALWAYS, *(OF_SESSIONS if sessions else ()), *(OF_WORTH if worth else ()))


def try_policies(question: Question, traffic: Traffic, fleet: Fleet) -> list[PolicyTrial]:
    """Every candidate on one seed."""
    seed = seeds_of(question)[0]
    traffic.of(seed)

    def tried(name: str) -> PolicyTrial:
        mine = with_policy(question, name)
        return _trial(mine, fleet, name, one_seed(mine, traffic, fleet, seed, question.speed))

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(tried, candidates(question)))


def _trial(question: Question, fleet: Fleet, name: str, evidence: Evidence) -> PolicyTrial:
    return PolicyTrial(
        policy=name,
        attainment={d.name: evidence.attainment(c) for c, d in enumerate(question.demands)},
        room=room(question, evidence),
        breaks=broken_limits(question, fleet, evidence),
    )


def room(question: Question, evidence: Evidence) -> float:
    """Least room of any class: 1 where nothing is missed, below 0 where a promise is."""
    rooms = []
    for c, demand in enumerate(question.demands):
        promised = demand.cls.slo.attainment
        rooms.append((evidence.interval(c)[0] - promised) / max(1.0 - promised, 1e-9))
    return min(rooms)


def best(trials: Sequence[PolicyTrial]) -> PolicyTrial:
    """The one that breaks no limit and leaves most room; of those alike, the first."""
    allowed = [trial for trial in trials if not trial.breaks] or list(trials)
    most = max(trial.room for trial in allowed)
    return next(trial for trial in allowed if trial.room >= most - LEVEL)


def prove_routed(planner: Planner, traffic: Traffic, say: Progress) -> tuple[Proved | None, list[PolicyTrial]]:
    """Prove, with the policy that leaves most room to the fleet that the program chooses first.

    Others are tried again on the fleet that was proved, so that the reader sees what they would make of it.
    """
    if not asked(planner.question):
        return prove(planner, traffic, say), []
    planner.question = with_policy(planner.question, BASE)
    first = choose(planner, say)
    if first is None:
        return None, []
    say("which policy")
    planner.question = with_policy(
        planner.question, best(try_policies(planner.question, traffic, fleet_of(planner.question, first))).policy
    )
    proved = prove(planner, traffic, say)
    return proved, [] if proved is None else _marked(try_policies(planner.question, traffic, proved.fleet), planner)


def prove_day_routed(planner: Planner, say: Progress) -> tuple[DayProof | None, list[PolicyTrial]]:
    """Prove a day by the plan's shares; where that took mending, by the policy best in its hardest slot as well.

    The better proof is kept, of equals the cheaper.
    """
    if not asked(planner.question):
        return prove_day(planner, say), []
    planner.question = with_policy(planner.question, BASE)
    day = prove_day(planner, say)
    if day is None or not day.slots:
        return day, []
    say("which policy")
    hardest = min(day.slots, key=lambda s: room(s.question, s.low if s.question.speed == "low" else s.nominal))
    trials = try_policies(hardest.question, Traffic(hardest.question), hardest.fleet)
    found = best(trials).policy
    if found != BASE and (day.rounds > 1 or day.status != "proved"):
        other = replace(planner, question=with_policy(planner.question, found), derate={})
        second = prove_day(other, say)
        if second is not None and second.slots and _rank(second) > _rank(day):
            day, planner.question = second, other.question
    return day, _marked(trials, planner)


def _rank(day: DayProof) -> tuple[int, float]:
    return ORDER.index(day.status), -day.solution.loss_usd_per_hour


def _marked(trials: list[PolicyTrial], planner: Planner) -> list[PolicyTrial]:
    kept = planner.question.study.simulate.policy
    return [msgspec.structs.replace(trial, chosen=trial.policy == kept) for trial in trials]

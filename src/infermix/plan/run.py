"""From a study to a plan: resolve, choose, prove, explain."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec
import numpy as np

from infermix import __version__
from infermix.errors import NoAnswer
from infermix.plan import compare, explain, frontier, provenance
from infermix.plan.answer import is_plain
from infermix.plan.cache import Store
from infermix.plan.capacity import Capacities
from infermix.plan.conflict import name_conflict
from infermix.plan.day_plan import day_plan
from infermix.plan.evidence import Traffic
from infermix.plan.limits import fleet_cost, limit_uses
from infermix.plan.options import find_options
from infermix.plan.pairs import stage_shares
from infermix.plan.parts import (
    assumptions,
    class_plan,
    hour_words,
    pair_plans,
    pair_words,
    pool_plan,
    study_hash,
    training_plan,
    training_words,
    usd_per_mtok,
)  # fmt: skip
from infermix.plan.policies import prove_routed
from infermix.plan.problem import Study
from infermix.plan.prove import Proved
from infermix.plan.question import ask
from infermix.plan.result import Plan
from infermix.plan.routing import policy_of
from infermix.plan.shortlist import shortlist
from infermix.plan.solve import Planner, lower_bound

Progress = Callable[[str], None]


def make_plan(study: Study, progress: Progress | None = None, store: Store | None = None, fleets: int = 0) -> Plan:
    """Plan a study; capacities that were simulated before are read from ``store``, and new ones written there.

    ``fleets``: how many are proved for the frontier at least, if there are so many beside it.

    Raises
    ------
    InputError
        The study is malformed.
    NoAnswer
        A promise that no system can hold, a model that fits nowhere, limits that conflict: the message names them.
    """
    say, clock = progress or (lambda _: None), time.perf_counter()
    say("options")
    policy_of(study)
    question = ask(study)
    found = find_options(question)
    with ThreadPoolExecutor(1) as beside:
        served = question.profits or not question.limits.rationing
        bound = beside.submit(lower_bound, Planner(question, found, [])) if served else None
        planner = Planner(question, found, shortlist(question, found), Capacities(store))
        if bound is not None and is_plain(question):
            made = _plain_plan(planner, bound, say, fleets)
        else:
            made = day_plan(planner, bound, say)
    plan_s = time.perf_counter() - clock - made.prove_s
    return msgspec.structs.replace(made, study_hash=study_hash(study), plan_s=plan_s)


def _plain_plan(planner: Planner, early: Future[float], say: Progress, fleets: int) -> Plan:
    """One fleet that serves everything all day: proved and thinned as one."""
    traffic, bound = Traffic(planner.question), early.result()
    planned = time.perf_counter()
    proved, trials = prove_routed(planner, traffic, say) if np.isfinite(bound) else (None, [])
    if proved is None:
        raise conflict(planner)
    prove_s = time.perf_counter() - planned
    made = _answer(planner, traffic, proved, bound, say, fleets)
    return msgspec.structs.replace(made, policies=trials, prove_s=prove_s)


def conflict(planner: Planner) -> NoAnswer:
    """The limits that conflict, and the training beside them."""
    return NoAnswer("; ".join([name_conflict(planner), *(f"beside {s}" for s in training_words(planner.question))]))


def _answer(planner: Planner, traffic: Traffic, proved: Proved, bound: float, say: Progress, fleets: int) -> Plan:
    """The proved fleet with everything that explains it."""
    question, study, fleet = planner.question, planner.question.study, proved.fleet
    cost, figures = fleet_cost(question, fleet), provenance.figures_used(question, fleet)
    return Plan(
        tool_version=__version__,
        study=study.name or study.path,
        study_hash=study_hash(study),
        model=question.model.id,
        cost_basis=study.cost_basis,
        policy=study.simulate.policy,
        seeds=proved.nominal.seeds,
        speeds=question.speed,
        status=proved.status,
        usd_per_hour=cost,
        lower_bound_usd_per_hour=bound,
        gap=cost / bound - 1.0,
        fleet=[pool_plan(question, proved, p) for p in range(len(fleet.pools))],
        serves=stage_shares(fleet, question.class_names),
        pairs=pair_plans(question, fleet),
        classes={d.name: class_plan(question, proved, traffic, c) for c, d in enumerate(question.demands)},
        unmet=dict.fromkeys(question.class_names, 0.0),
        minimal=proved.removals,
        single_chip=compare.single_chip_fleets(planner, traffic, say),
        without_share_limits=compare.without_share_limits(planner, proved, traffic, say),
        limits=explain.price_limits(planner, proved, limit_uses(question, fleet, proved.nominal), say),
        why=explain.why(planner, proved, say),
        figures=figures,
        unverified=provenance.unverified(question, figures),
        frontier=(speeds := frontier.frontier(planner, proved, say, traffic, fleets)).points,
        proved_fleets=speeds.fleets,
        entries=explain.entries(planner, proved, say),
        next_best=explain.alternatives(planner, proved, say),
        swings=(swings := explain.swings(planner, proved, say)),
        survives=all(swing.survives_low and swing.survives_high for swing in swings),
        vendor_frontier=frontier.vendor_frontier(planner, say),
        power_frontier=frontier.power_frontier(planner, proved.solution, say),
        usd_per_mtok=usd_per_mtok(question, cost),
        assumptions=assumptions(proved)
        + hour_words(question)
        + training_words(question)
        + pair_words(planner.found.bases.unpaired),
        rounds=proved.rounds,
        candidates=planner.found.candidates,
        kept=len(planner.found.kept),
        training=[training_plan(held) for held in question.reserved],
        planned_hour=question.hour,
    )

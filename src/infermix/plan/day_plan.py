"""From a question that is more than one fleet all day to a plan: several slots, contracts, APIs, who goes without."""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import Any

import numpy as np

from infermix import __version__
from infermix.errors import NoAnswer
from infermix.plan import answer, explain, frontier, provenance
from infermix.plan.conflict import name_conflict
from infermix.plan.day import DayProof
from infermix.plan.offered import sent_per_s
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
from infermix.plan.policies import prove_day_routed
from infermix.plan.prove import Progress, Proved
from infermix.plan.question import Question
from infermix.plan.result import ClassPlan, Plan, PoolPlan
from infermix.plan.solve import Planner, current_table
from infermix.plan.usage import uses_of

FEW_SLOTS = 4
"""Slots for which the program is solved again for every system that was not chosen."""


def day_plan(planner: Planner, early: Future[float] | None, say: Progress) -> Plan:
    """Prove every slot, and explain; NoAnswer where limits conflict.

    ``early``: the lower bound, where it does not hang on who is served.
    """
    question, started = planner.question, time.perf_counter()
    day, trials = prove_day_routed(planner, say)
    question = planner.question
    if day is None:
        raise NoAnswer("; ".join([name_conflict(planner), *(f"beside {said}" for said in training_words(question))]))
    if not day.slots:
        raise NoAnswer("no fleet serves anything: nothing is worth what it costs, or all is served by APIs")
    prove_s = time.perf_counter() - started
    bound = early.result() if early else answer.served_bound(planner, day.solution)
    study, fleet = question.study, answer.whole_fleet(day)
    weakest = answer.as_proved(min(day.slots, key=lambda proof: proof.status == "proved"), day)
    figures = provenance.figures_used(question, fleet)
    return Plan(
        tool_version=__version__,
        study=study.name or study.path,
        study_hash=study_hash(study),
        model=question.model.id,
        cost_basis=study.cost_basis,
        policy=study.simulate.policy,
        seeds=weakest.nominal.seeds,
        speeds=question.speed,
        status=day.status,
        **_money(question, day, bound),
        fleet=_pools(question, day),
        serves=_serves(question, day),
        classes=_classes(question, day),
        unmet=answer.unmet_shares(question, day.solution),
        minimal=[],
        single_chip=[],
        without_share_limits={},
        **_explained(planner, day.ruling, weakest, say),
        figures=figures,
        unverified=provenance.unverified(question, figures),
        usd_per_mtok=usd_per_mtok(question, day.solution.usd_per_hour),
        pairs=pair_plans(question, fleet),
        assumptions=[
            *pair_words(planner.found.bases.unpaired),
            *assumptions(weakest),
            *hour_words(question),
            *_words(question),
            *training_words(question),
        ],
        rounds=day.rounds,
        candidates=planner.found.candidates,
        kept=len(planner.found.kept),
        training=[training_plan(held) for held in question.reserved],
        planned_hour=question.hour,
        contracts=answer.contract_plans(question, day.solution),
        api=answer.api_plans(question, day.solution),
        slots=answer.slot_plans(question, day),
        policies=trials,
        prove_s=prove_s,
    )


def _money(question: Question, day: DayProof, bound: float) -> dict[str, Any]:
    """Cost, or profit, and how far it is from its bound."""
    cost, revenue = day.solution.usd_per_hour, day.solution.revenue_usd_per_hour
    if not question.profits:
        gap = cost / bound - 1.0 if bound > 0 else 0.0
        return {"usd_per_hour": cost, "lower_bound_usd_per_hour": bound, "gap": gap}
    return {
        "usd_per_hour": cost,
        "lower_bound_usd_per_hour": 0.0,
        "gap": (revenue - cost + bound) / (abs(bound) or 1.0) * -1.0,
        "objective": "profit_usd_per_hour",
        "revenue_usd_per_hour": revenue,
        "profit_usd_per_hour": revenue - cost,
        "profit_bound_usd_per_hour": -bound,
    }


def _explained(planner: Planner, ruling: Planner, weakest: Proved, say: Progress) -> dict[str, Any]:
    """Limits and reasons; for one slot that is not rationed also what is near the answer, and the frontiers.

    The program of several slots takes too long to be solved a hundred times.
    """
    question, solution = planner.question, weakest.solution
    uses = uses_of(question, current_table(planner), solution)
    found: dict[str, Any] = {
        "limits": explain.price_limits(ruling, weakest, uses, say),
        "why": explain.why(planner, weakest, say) if len(question.slots) <= FEW_SLOTS else [],
        "frontier": [],
    }
    if len(question.slots) > 1 or question.limits.rationing:
        return found  # fleets that leave out other requests do not compare by cost
    swings = explain.swings(planner, weakest, say)
    return found | {
        "frontier": [] if question.profits else frontier.frontier(planner, weakest, say).points,
        "entries": explain.entries(planner, weakest, say),
        "next_best": explain.alternatives(planner, weakest, say),
        "swings": swings,
        "survives": all(swing.survives_low and swing.survives_high for swing in swings),
        "vendor_frontier": frontier.vendor_frontier(planner, say),
        "power_frontier": frontier.power_frontier(planner, solution, say),
    }


def _pools(question: Question, day: DayProof) -> list[PoolPlan]:
    """Every pool at its largest, with its part of what the contracts cost and its tokens over the day."""
    fleet, found = answer.whole_fleet(day), []
    inputs, outputs = _tokens(question, day)
    for k, (proof, p) in enumerate(answer.largest(day)):
        row = pool_plan(proof.question, answer.as_proved(proof, day), p)
        row.usd_per_hour = answer.pool_usd(question, day.solution, fleet, k)
        row.basis = answer.basis_of(question, fleet, k)
        row.share_output_tokens = outputs.get(row.name, 0.0) / (sum(outputs.values()) or 1.0)
        both = sum(inputs.values()) + sum(outputs.values())
        row.share_tokens = (inputs.get(row.name, 0.0) + outputs.get(row.name, 0.0)) / (both or 1.0)
        found.append(row)
    return found


def _tokens(question: Question, day: DayProof) -> tuple[dict[str, float], dict[str, float]]:
    """Input and output tokens a second of every pool, added over the slots by their share of time."""
    inputs: dict[str, float] = {}
    outputs: dict[str, float] = {}
    for proof in day.slots:
        rates = np.array([d.rate_per_s for d in proof.question.demands])
        each = rates / np.maximum(proof.nominal.offered, 1.0) * question.slots[proof.slot].weight
        for p, pool in enumerate(proof.fleet.pools):
            inputs[pool.name] = inputs.get(pool.name, 0.0) + float(each @ proof.nominal.input_tokens[:, p])
            outputs[pool.name] = outputs.get(pool.name, 0.0) + float(each @ proof.nominal.output_tokens[:, p])
    return inputs, outputs


def _serves(question: Question, day: DayProof) -> dict[str, dict[str, float]]:
    """Class → pool or API → share of its requests over the day."""
    found: dict[str, dict[str, float]] = {}
    for c, demand in enumerate(question.demands):
        total = sum(demand.rate_at(s) * slot.weight for s, slot in enumerate(question.slots)) or 1.0
        mine: dict[str, float] = {}
        for proof in day.slots:
            weight = question.slots[proof.slot].weight
            sent = sent_per_s(day.solution, proof.slot).get(demand.name, 0.0)
            shares = stage_shares(proof.fleet, [demand.name])[demand.name]
            for pool, share in shares.items():
                if share and sent:
                    mine[pool] = mine.get(pool, 0.0) + share * sent * weight / total
        for api in answer.api_plans(question, day.solution):
            if api.serves.get(demand.name):
                mine[api.name] = api.serves[demand.name]
        found[question.class_names[c]] = mine
    return found


def _classes(question: Question, day: DayProof) -> dict[str, ClassPlan]:
    """Every class in the slot in which its proof is weakest; classes that only APIs serve are left out."""
    found: dict[str, ClassPlan] = {}
    for name in question.class_names:
        mine = [proof for proof in day.slots if name in proof.question.class_names]
        if not mine:
            continue
        weakest = min(mine, key=lambda proof: proof.low.attainment(proof.question.class_names.index(name)))
        c = weakest.question.class_names.index(name)
        found[name] = class_plan(weakest.question, answer.as_proved(weakest, day), weakest.traffic, c)
    return found


def _words(question: Question) -> list[str]:
    """What the reader must know of days, APIs and losses."""
    said = []
    if len(question.slots) > 1:
        said.append("Every slot is proved by itself, at the rates of its busiest hour; changes are not simulated.")
    if question.apis:
        said.append("APIs are taken at their list price and speed; nothing of them is simulated.")
    if question.limits.redundancy:
        said.append("Redundancy is kept by the capacities of the program; losses are not simulated.")
    return said

"""Demand: who is served, by pools of ours or by an API, and who goes without."""

from __future__ import annotations

from infermix.plan.model.lp import Terms, joined, scaled
from infermix.plan.model.program import Program
from infermix.plan.offers import Api
from infermix.plan.question import Demand
from infermix.plan.worth import response, speed_of_api


def define_api(program: Program) -> None:
    """Requests a second of each class to each API that keeps its promise, up to what the API sells."""
    question = program.question
    for a, api in enumerate(question.apis):
        for s in program.slots:
            tokens: Terms = []
            for c, demand in enumerate(question.demands):
                if sells(api, demand, question.model_of(demand).id):
                    v = program.lp.variable(program.at(f"api_{api.name}_{demand.name}", s))
                    program.bought[a, c, s] = v
                    tokens.append((v, demand.mean_output))
            if tokens and api.most_tokens_per_s is not None:
                program.lp.row(program.at(f"api_{api.name}", s), tokens, most=api.most_tokens_per_s)


def sells(api: Api, demand: Demand, model: str) -> bool:
    """Whether an API has a class's model, in a region where its data may go, at the promised speed."""
    where = not demand.cls.regions or api.region in demand.cls.regions
    return where and api.model.id == model and not api.misses(demand.cls.slo)


def define_unmet(program: Program) -> None:
    """Requests a second that are not served, where the study allows it."""
    for c, demand in enumerate(program.question.demands):
        spared = 1.0 - program.question.least_served(demand)
        if spared > 0.0:
            for s in program.slots:
                most = spared * demand.rate_at(s)
                program.unmet[c, s] = program.lp.variable(program.at(f"unmet_{demand.name}", s), most)


def served(program: Program, c: int, s: int) -> Terms:
    """Requests a second of a class served in a slot, in those that the study states.

    A request that is handed over counts where it ends. Users who send more requests because they are served faster
    count as the users that they are.
    """
    columns, demand = program.table.columns, program.question.demands[c]
    sent = program.sent.get((c, s), [])
    found = [(v, 1.0 / program.table.response[i, c]) for i, v in sent if columns[i].option.deployment.role != "prefill"]
    profits = program.question.profits
    for (a, k, t), v in program.bought.items():
        if (k, t) == (c, s):
            more = response(demand, speed_of_api(program.question.apis[a])) if profits else 1.0
            found.append((v, 1.0 / more))
    return found


def define_demand(program: Program) -> None:
    """Every request of every class is served, or counted as unmet, in every slot; what may wait, within the day."""
    for c, demand in enumerate(program.question.demands):
        if _may_wait(program, demand):
            continue
        for s in program.slots:
            sent = served(program, c, s)
            unmet = [(program.unmet[c, s], 1.0)] if (c, s) in program.unmet else []
            if sent or unmet:
                program.lp.equal(program.at(f"demand_{demand.name}", s), sent + unmet, demand.rate_at(s))
            elif demand.rate_at(s) > 0.0:
                program.unserved.append(demand.name)


def define_deferrable(program: Program) -> None:
    """Classes that may wait are served some time in the day, under every scenario."""
    slots = program.question.slots
    for c, demand in enumerate(program.question.demands):
        if not _may_wait(program, demand):
            continue
        for scenario in dict.fromkeys(slot.scenario for slot in slots):
            mine = [s for s in program.slots if slots[s].scenario == scenario]
            sent = joined(scaled(served(program, c, s), slots[s].hours) for s in mine)
            sent += [(program.unmet[c, s], slots[s].hours) for s in mine if (c, s) in program.unmet]
            day = sum(slots[s].hours * demand.rate_at(s) for s in mine)
            if not sent:
                program.unserved.append(demand.name)
                continue
            suffix = "" if len(slots) == len(mine) else f"_{scenario}"
            program.lp.equal(f"deferrable_{demand.name}{suffix}", sent, day)


def _may_wait(program: Program, demand: Demand) -> bool:
    return demand.cls.deferrable and len(program.slots) > 1

"""What is minimised: cost; cost less what requests are worth; or, where supply is short, who goes without first."""

from __future__ import annotations

from infermix.plan.model.change import start_usd_per_hour
from infermix.plan.model.lp import Terms, joined, scaled
from infermix.plan.model.program import Program
from infermix.plan.worth import speed_of_api, usd_per_request
from infermix.units import SECONDS_PER_HOUR


def cost(program: Program) -> Terms:
    """USD an hour for contracts, APIs and starts, mean over the slots."""
    slots = enumerate(program.question.slots)
    spent = joined(scaled(terms, slot.weight) for s, slot in slots for *_, terms in program.spend(s))
    return spent + start_usd_per_hour(program)


def revenue(program: Program) -> Terms:
    """USD an hour that served requests are worth, mean over the slots; a request that is handed over counts once."""
    if not program.question.profits:
        return []
    slots, found = program.question.slots, []
    for (i, c, s), v in program.rate.items():
        if program.table.columns[i].option.deployment.role != "prefill":
            usd = program.table.usd_per_request[i, c] * SECONDS_PER_HOUR
            found.append((v, float(usd) * slots[s].weight))
    for (a, c, s), v in program.bought.items():
        usd = usd_per_request(program.question.demands[c], speed_of_api(program.question.apis[a]))
        found.append((v, usd * SECONDS_PER_HOUR * slots[s].weight))
    return found


def unmet_tokens(program: Program, tier: int) -> Terms:
    """Output tokens a second of a tier that are not served, mean over the slots."""
    demands, slots = program.question.demands, program.question.slots
    return [
        (v, demands[c].mean_output * slots[s].weight)
        for (c, s), v in program.unmet.items()
        if demands[c].cls.tier == tier
    ]

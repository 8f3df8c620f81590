"""Demand: every request is served somewhere."""

from __future__ import annotations

from infermix.plan.model.lp import Terms
from infermix.plan.model.program import Program


def served(program: Program, c: int, s: int) -> Terms:
    """Requests a second of a class served in a slot; a request that is handed over counts where it ends."""
    columns = program.table.columns
    sent = program.sent.get((c, s), [])
    return [(v, 1.0) for i, v in sent if columns[i].option.deployment.role != "prefill"]


def define_demand(program: Program) -> None:
    """Every request of every class is served, in every slot."""
    for c, demand in enumerate(program.question.demands):
        for s in program.slots:
            sent = served(program, c, s)
            if sent:
                program.lp.equal(program.at(f"demand_{demand.name}", s), sent, demand.rate_at(s))
            elif demand.rate_at(s) > 0.0:
                program.unserved.append(demand.name)

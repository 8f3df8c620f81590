"""Solve the program and read what it chose."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import highspy
import numpy as np

from infermix.arrays import Floats
from infermix.plan.model.lp import Terms, as_highs, joined, scaled
from infermix.plan.model.program import Program
from infermix.plan.table import Column

TIE_BREAK_USD = 1e-6
"""Added to the objective for every instance, so that equal costs give the plan with fewer."""


@dataclass(frozen=True)
class Choice:
    """A pool of the solution in a slot: a column, its instances and systems, and the traffic [1/s] that it is sent."""

    column: Column
    instances: int
    systems: int
    rates: dict[str, float]
    slot: int = 0


@dataclass(frozen=True)
class Solution:
    """What the program chose; ``bound`` is the solver's bound on its cost."""

    choices: tuple[Choice, ...]
    usd_per_hour: float
    bound_usd_per_hour: float
    had: dict[str, tuple[int, ...]]
    """Contract → systems had under it in each slot."""

    def at(self, slot: int) -> tuple[Choice, ...]:
        """The pools of a slot."""
        return tuple(choice for choice in self.choices if choice.slot == slot)


def solve(program: Program, gap: float = 1e-3, tie_break: float = TIE_BREAK_USD) -> Solution | None:
    """Least cost to a relative gap; None when the program is infeasible."""
    if program.unserved:
        return None
    h = as_highs(program.lp, [*cost(program), *((n, tie_break) for n in program.instances.values())])
    h.setOptionValue("mip_rel_gap", gap)
    h.run()
    if h.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    values = np.asarray(h.getSolution().col_value)
    values[program.lp.whole] = np.rint(values[program.lp.whole])
    return Solution(
        choices=tuple(_choices(program, values)),
        usd_per_hour=program.lp.value(cost(program), values),
        bound_usd_per_hour=h.getInfo().mip_dual_bound,
        had={
            contract.name: tuple(round(values[program.had[f, s]]) for s in program.slots)
            for f, (_, contract) in enumerate(program.contracts)
        },
    )


def cost(program: Program) -> Terms:
    """USD an hour, mean over the slots."""
    slots = enumerate(program.question.slots)
    return joined(scaled(terms, slot.weight) for s, slot in slots for _, terms in program.spend(s))


def _choices(program: Program, values: Floats) -> list[Choice]:
    rates: dict[tuple[int, int], dict[str, float]] = {}
    for (i, c, s), v in program.rate.items():
        if values[v] > 1e-9:
            rates.setdefault((i, s), {})[program.question.class_names[c]] = float(values[v])
    found = []
    for (i, s), sent in rates.items():
        n = ceil(values[program.instances[i, s]] - 1e-6)
        systems = round(program.lp.value(program.systems[i, s], values))
        found.append(Choice(program.table.columns[i], n, systems, sent, s))
    return sorted(found, key=lambda choice: choice.slot)

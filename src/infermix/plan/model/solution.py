"""Solve the program and read what it chose."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

import highspy
import numpy as np

from infermix.arrays import Floats
from infermix.plan.model.lp import Terms, as_highs, scaled
from infermix.plan.model.objective import cost, revenue, unmet_tokens
from infermix.plan.model.program import Program
from infermix.plan.table import Column

TIE_BREAK_USD = 1e-6
"""Added to the objective for every instance, so that equal costs give the plan with fewer."""


TRACE = 2e-5
"""Of a class's rate: less than this share is the solver's tolerance, not traffic."""


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
    """What the program chose; ``bound`` is the solver's bound on its cost, or on its cost less revenue."""

    choices: tuple[Choice, ...]
    usd_per_hour: float
    bound_usd_per_hour: float
    had: dict[str, tuple[int, ...]]
    """Contract → systems had under it in each slot."""
    revenue_usd_per_hour: float = 0.0
    """What served requests are worth, where profit is maximised."""
    unmet: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Class → requests a second in each slot that are not served; classes of which all are served are left out."""
    bought: dict[str, dict[str, tuple[float, ...]]] = field(default_factory=dict)
    """API → class → requests a second in each slot."""

    @property
    def loss_usd_per_hour(self) -> float:
        """What is minimised: cost less revenue."""
        return self.usd_per_hour - self.revenue_usd_per_hour

    def at(self, slot: int) -> tuple[Choice, ...]:
        """The pools of a slot."""
        return tuple(choice for choice in self.choices if choice.slot == slot)


def solve(program: Program, gap: float = 1e-3, tie_break: float = TIE_BREAK_USD) -> Solution | None:
    """Least cost, or most profit, to a relative gap; None when the program is infeasible.

    Where demand may be rationed, first as little as possible of the lowest tier goes without, then of the next, and
    only then is the cost of serving the rest minimised.
    """
    if program.unserved:
        return None
    if program.question.limits.rationing and not _ration(program):
        return None
    ties = [(n, tie_break) for n in program.instances.values()]
    h = _optimum(program, [*cost(program), *scaled(revenue(program), -1.0), *ties], gap)
    return None if h is None else _read(program, _values(program, h), h.getInfo().mip_dual_bound)


def _optimum(program: Program, objective: Terms, gap: float) -> Any:
    """The solver at its optimum; None when there is none."""
    h = as_highs(program.lp, objective)
    h.setOptionValue("mip_rel_gap", gap)
    h.run()
    return h if h.getModelStatus() == highspy.HighsModelStatus.kOptimal else None


def _ration(program: Program) -> bool:
    """Fix the least that each tier goes without, tier by tier; False when the program is infeasible."""
    for tier in sorted({demand.cls.tier for demand in program.question.demands}):
        tokens = unmet_tokens(program, tier)
        h = _optimum(program, tokens, 0.0)
        if h is None:
            return False
        least = program.lp.value(tokens, _values(program, h))
        program.lp.row(f"tier_{tier}", tokens, most=least + 1e-7 * max(1.0, least))
    return True


def _values(program: Program, h: Any) -> Floats:
    values = np.asarray(h.getSolution().col_value, dtype=np.float64)
    whole = np.asarray(program.lp.whole, dtype=bool)
    values[whole] = np.rint(values[whole])
    return values


def _read(program: Program, values: Floats, bound: float) -> Solution:
    names, slots = program.question.class_names, program.slots
    unmet: dict[str, tuple[float, ...]] = {}
    for c, name in enumerate(names):
        rates = tuple(float(values[program.unmet[c, s]]) if (c, s) in program.unmet else 0.0 for s in slots)
        if max(rates) > 1e-7:
            unmet[name] = rates
    bought: dict[str, dict[str, tuple[float, ...]]] = {}
    for a, api in enumerate(program.question.apis):
        for c, name in enumerate(names):
            rates = tuple(float(values[program.bought[a, c, s]]) if (a, c, s) in program.bought else 0.0 for s in slots)
            if max(rates) > 1e-9:
                bought.setdefault(api.name, {})[name] = rates
    return Solution(
        choices=tuple(_choices(program, values)),
        usd_per_hour=program.lp.value(cost(program), values),
        bound_usd_per_hour=bound,
        had={
            contract.name: tuple(round(values[program.had[f, s]]) for s in slots)
            for f, (_, contract) in enumerate(program.contracts)
        },
        revenue_usd_per_hour=program.lp.value(revenue(program), values),
        unmet=unmet,
        bought=bought,
    )


def _choices(program: Program, values: Floats) -> list[Choice]:
    rates: dict[tuple[int, int], dict[str, float]] = {}
    for (i, c, s), v in program.rate.items():
        if values[v] > max(1e-9, TRACE * program.question.demands[c].rate_at(s)):
            rates.setdefault((i, s), {})[program.question.class_names[c]] = float(values[v])
    found = []
    for (i, s), sent in rates.items():
        n = ceil(values[program.instances[i, s]] - 1e-6)
        systems = round(program.lp.value(program.systems[program.table.columns[i].pool, s], values))
        found.append(Choice(program.table.columns[i], n, systems, sent, s))
    return sorted(found, key=lambda choice: choice.slot)

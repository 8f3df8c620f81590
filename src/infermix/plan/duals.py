"""Shadow prices: what one more unit of a limit is worth to the relaxation in which nothing need be whole."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import highspy

from infermix.plan.model import Program, cost, revenue
from infermix.plan.model.lp import as_highs, scaled
from infermix.plan.table import Column

USED = 1e-6
"""A rate above this is traffic, not the solver's tolerance [1/s]."""
ROWS = ("supply_", "power", "budget", "capital")
"""Rows whose right side has the unit of a limit, by how their names begin."""


def shadow_prices(program: Program) -> dict[str, float]:
    """Row → USD an hour that one more unit on its right side saves; rows whose unit is no unit of a limit are left out.

    Supply rows are in systems, power in MW, budget and capital in USD. Nothing where the relaxation has no answer.
    """
    h = _relaxed(program)
    if h is None:
        return {}
    duals = h.getSolution().row_dual
    found = {}
    for name, dual in zip(program.lp.row_names, duals, strict=True):
        if name.startswith(ROWS):
            found[name] = max(0.0, -dual)
    return found


def fractional_cost(program: Program) -> float:
    """Least cost where nothing need be whole, in USD an hour; ``inf`` where even so there is no answer."""
    h = None if program.unserved else _relaxed(program)
    return float("inf") if h is None else float(h.getInfo().objective_function_value)


def fractional_use(program: Program) -> list[Column] | None:
    """Columns that serve something where nothing need be whole; None where even so there is no answer."""
    h = None if program.unserved else _relaxed(program)
    if h is None:
        return None
    values = h.getSolution().col_value
    used = dict.fromkeys(i for (i, _, _), rate in program.rate.items() if values[rate] > USED)
    return [program.table.columns[i] for i in used]


def _relaxed(program: Program) -> Any:
    """The solver at the optimum of the program in which nothing need be whole; None when there is none."""
    relaxed = replace(program.lp, whole=[False] * len(program.lp.whole))
    h = as_highs(relaxed, [*cost(program), *scaled(revenue(program), -1.0)])
    h.run()
    return h if h.getModelStatus() == highspy.HighsModelStatus.kOptimal else None

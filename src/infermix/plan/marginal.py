"""What a chip is worth to a fleet: the least cost of the fleet without it, less that with it on the market."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.errors import InputError
from infermix.plan.market import Market
from infermix.plan.problem import Study
from infermix.plan.question import Question, ask
from infermix.plan.solve import Planner, choose, fractional_bound, make_planner

MARGINAL_GAP = 0.01
"""Relative gap of the programs that are compared."""
ROUNDS = 8
"""Times that capacities are asked for; then the best fleet among those simulated so far counts."""


class Marginal(NamedTuple):
    """Cost of a fleet that may buy one more system, USD an hour."""

    system: str
    usd_per_hour: float
    bound_usd_per_hour: float
    """Queue-free, with fractions of systems."""
    taken: float
    """Systems of it in the fleet."""


def marginal_costs(
    study: Study, own_chips: Sequence[Path], systems: Sequence[str], simulated: int
) -> tuple[float, float, list[Marginal]]:
    """Cost and queue-free bound of the bought fleet, and of each that may buy one of ``systems`` too.

    Capacities of the first ``simulated`` by the bound are simulated, as a plan's are before its proof; of the others
    only the bound is told, and their cost is not a number.
    """
    if study.market is None:
        raise InputError("no market", where=study.path, mend="add [market] systems = [...]")
    market = msgspec.structs.replace(
        study.market,
        systems=[*study.market.systems, *systems],
        own_chips=[*study.market.own_chips, *(str(path) for path in own_chips)],
    )
    planner = make_planner(ask(_with(study, market)))
    planner.gap = MARGINAL_GAP
    bought = set(study.market.systems)
    base = _offered(planner, bought)
    bound = fractional_bound(base)
    offered = {system: _offered(planner, bought | {system}) for system in systems}
    bounds = {system: fractional_bound(each) for system, each in offered.items()}
    first = sorted(systems, key=lambda system: bounds[system])[:simulated]
    cost = _cost(base, "")[0]
    found = []
    for system in systems:
        told = _cost(offered[system], system) if system in first else (np.nan, np.nan)
        told = (cost, 0.0) if told[0] > cost else told  # the bought fleet can still be bought
        found.append(Marginal(system, told[0], bounds[system], told[1]))
    return cost, bound, found


def _with(study: Study, market: Market) -> Study:
    return msgspec.structs.replace(study, market=market)


def _offered(planner: Planner, names: set[str]) -> Planner:
    """The planner with only these systems on the market."""
    question: Question = replace(
        planner.question, offers=tuple(o for o in planner.question.offers if o.system.id in names)
    )
    return planner.narrowed(question)


def _cost(planner: Planner, system: str) -> tuple[float, float]:
    """Cost of the fleet with simulated capacities, and how many systems of one kind it holds."""
    solution = choose(planner, rounds=ROUNDS)
    if solution is None:
        return float("inf"), 0.0
    taken = sum(choice.systems for choice in solution.choices if choice.column.option.offer.system.id == system)
    return solution.usd_per_hour, float(taken)

"""The planning problem as a mixed-integer program: one ``define_*`` for each group of equations.

Columns stand for an option at a *bracket* of pool sizes: capacities grow with the pool, so an option
appears once for every bracket, with the capacity of the bracket's smallest pool. The axes slot, model
and role of the design have length one here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any

import highspy

from infermix.errors import NoAnswer
from infermix.plan.options import Option
from infermix.plan.question import Question

TIE_BREAK_USD = 1e-6
"""Added to the objective for every instance, so that equal costs give the plan with fewer."""


@dataclass(frozen=True)
class Column:
    """An option in a bracket of pool sizes (``least`` 0: any size); ``capacity``: what an instance serves [1/s]."""

    option: Option
    least: int
    most: int
    capacity: dict[str, float]


@dataclass
class Program:
    """The program and handles on its variables, by column index."""

    solver: highspy.Highs
    question: Question
    columns: list[Column]
    instances: list[Any] = field(default_factory=list)
    systems: list[Any] = field(default_factory=list)
    opened: list[Any] = field(default_factory=list)
    rate: dict[tuple[str, int], Any] = field(default_factory=dict)
    """(class, column) → requests a second sent there."""
    unserved: list[str] = field(default_factory=list)
    """Classes that no column can serve: the program is infeasible."""


@dataclass(frozen=True)
class Choice:
    """A column of the solution."""

    column: Column
    instances: int
    systems: int
    rates: dict[str, float]


@dataclass(frozen=True)
class Solution:
    """What the program chose; ``bound`` is the solver's bound on its cost."""

    choices: tuple[Choice, ...]
    usd_per_hour: float
    bound_usd_per_hour: float


def build(question: Question, columns: list[Column]) -> Program:
    """The whole program."""
    program = Program(_solver(), question, columns)
    define_pools(program)
    define_rates(program)
    define_capacity(program)
    define_demand(program)
    define_one_bracket(program)
    define_supply(program)
    define_power(program)
    define_budget(program)
    define_vendor_share(program)
    define_least_share_of_tokens(program)
    define_forced_system(program)
    return program


def define_pools(program: Program) -> None:
    """Instances n of each column within its bracket if opened, and the whole systems N that host them.

    Where a system hosts several instances, N is the integer and n is rounded up afterwards.
    """
    h = program.solver
    for i, column in enumerate(program.columns):
        d = column.option.deployment
        shared = d.instances_per_system > 1
        n = h.addVariable(0, column.most, name=f"n_{i}") if shared else h.addIntegral(0, column.most, name=f"n_{i}")
        program.instances.append(n)
        if column.least > 0:
            z = h.addBinary(name=f"open_{i}")
            h.addConstr(n <= column.most * z, name=f"most_{i}")
            h.addConstr(n >= column.least * z, name=f"least_{i}")
            program.opened.append(z)
        else:
            program.opened.append(None)
        if not shared:
            program.systems.append(d.systems_per_instance * n)
        else:
            whole = h.addIntegral(0, column.most, name=f"systems_{i}")
            h.addConstr(d.instances_per_system * whole >= n, name=f"host_{i}")
            h.addConstr(d.instances_per_system * whole <= n + (d.instances_per_system - 1e-3), name=f"full_{i}")
            program.systems.append(1 * whole)


def define_rates(program: Program) -> None:
    """Requests a second of each class to each column that can serve it."""
    for i, column in enumerate(program.columns):
        for name in column.capacity:
            program.rate[name, i] = program.solver.addVariable(0, name=f"rate_{name}_{i}")


def define_capacity(program: Program) -> None:
    """The classes of a pool share its instances: sum of rate / capacity <= n.

    Where vendors are limited by spend, a pool must be used, a large one by half: idle systems of a cheap vendor
    would otherwise be bought to dilute the share of a dear one. The relaxation leaves this out, as a bound may.
    """
    limits = program.question.limits
    diluting = limits.max_vendor_share is not None and limits.vendor_share_of == "spend"
    for i, column in enumerate(program.columns):
        used = sum(program.rate[name, i] * (1.0 / rate) for name, rate in column.capacity.items())
        program.solver.addConstr(used <= program.instances[i], name=f"capacity_{i}")
        opened = program.opened[i]
        if diluting and opened is not None:
            program.solver.addConstr(used >= 0.5 * program.instances[i] - 0.45 * opened, name=f"used_{i}")


def define_demand(program: Program) -> None:
    """Every request of every class is served."""
    for demand in program.question.demands:
        sent = [v for (name, _), v in program.rate.items() if name == demand.name]
        if sent:
            program.solver.addConstr(_sum(sent) == demand.rate_per_s, name=f"demand_{demand.name}")
        else:
            program.unserved.append(demand.name)


def define_one_bracket(program: Program) -> None:
    """An option has one pool, in one bracket of sizes."""
    for name in dict.fromkeys(c.option.name for c in program.columns):
        mine = [
            z for z, c in zip(program.opened, program.columns, strict=True) if c.option.name == name and z is not None
        ]
        if len(mine) > 1:
            program.solver.addConstr(_sum(mine) <= 1, name=f"bracket_{name}".replace(" ", "_"))


def define_supply(program: Program) -> None:
    """No more systems than the market has left beside training."""
    for offer in program.question.offers:
        if offer.supply is None:
            continue
        mine = [
            n
            for n, c in zip(program.systems, program.columns, strict=True)
            if c.option.offer.system.id == offer.system.id
        ]
        if mine:
            program.solver.addConstr(_sum(mine) <= offer.supply, name=f"supply_{offer.system.id}")


def define_power(program: Program) -> None:
    """Power at the wall, of which training takes its part."""
    limit = program.question.limits.power_mw
    if limit is None:
        return
    limit -= program.question.reserved_w / 1e6
    megawatts = [n * (power_w(c) / 1e6) for n, c in zip(program.systems, program.columns, strict=True)]
    program.solver.addConstr(_sum(megawatts) <= limit, name="power")


def define_budget(program: Program) -> None:
    """Spend by the hour, of which training takes its part."""
    limit = program.question.limits.usd_per_hour
    if limit is not None:
        left = limit - program.question.reserved_usd_per_hour
        program.solver.addConstr(_sum(_costs(program)) <= left, name="budget")


def define_vendor_share(program: Program) -> None:
    """No vendor gets more than its share of the spend, or of the output tokens."""
    limits = program.question.limits
    if limits.max_vendor_share is None:
        return
    vendors = [c.option.offer.system.vendor for c in program.columns]
    if limits.vendor_share_of == "spend":
        amounts = list(zip(_costs(program), vendors, strict=True))
    else:
        outputs = {d.name: d.mean_output for d in program.question.demands}
        amounts = [(v * outputs[name], vendors[i]) for (name, i), v in program.rate.items()]
    for vendor in dict.fromkeys(vendors):
        excess = [amount * (float(mine == vendor) - limits.max_vendor_share) for amount, mine in amounts]
        program.solver.addConstr(_sum(excess) <= 0, name=f"vendor_{vendor}".replace(" ", "_"))


def define_least_share_of_tokens(program: Program) -> None:
    """A kind of chip yields at least its share of all output tokens."""
    outputs = {d.name: d.mean_output for d in program.question.demands}
    total = sum(d.rate_per_s * d.mean_output for d in program.question.demands)
    for kind, share in program.question.limits.min_share_output_tokens.items():
        mine = [v * outputs[name] for (name, i), v in program.rate.items() if program.columns[i].option.kind == kind]
        if not mine:
            if share > 0:
                raise NoAnswer(f"limits.min_share_output_tokens: no {kind} system on the market can serve any class")
            continue
        program.solver.addConstr(_sum(mine) >= share * total, name=f"least_share_{kind}")


def define_forced_system(program: Program) -> None:
    """At least one of a system, to learn what that costs."""
    forced = program.question.forced
    mine = [n for n, c in zip(program.systems, program.columns, strict=True) if c.option.offer.system.id == forced]
    if mine:
        program.solver.addConstr(_sum(mine) >= 1, name=f"forced_{forced}")


def power_w(column: Column) -> float:
    """Power at the wall of one system of a column [W]."""
    watts = column.option.offer.facility_w
    if watts is None:
        raise NoAnswer(f"{column.option.offer.system.id}: no power figure, so limits.power_mw cannot be checked")
    return watts


def solve(program: Program, gap: float = 1e-3, tie_break: float = TIE_BREAK_USD) -> Solution | None:
    """Least cost to a relative gap; None when the program is infeasible."""
    h = program.solver
    if program.unserved:
        return None
    h.setOptionValue("mip_rel_gap", gap)
    h.minimize(_sum(_costs(program)) + tie_break * _sum(program.instances))
    if h.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        return None
    values = h.getSolution().col_value
    choices, cost = [], 0.0
    for i, column in enumerate(program.columns):
        n = ceil(values[program.instances[i].index] - 1e-6)
        if n == 0:
            continue
        d = column.option.deployment
        rates = {name: max(0.0, values[program.rate[name, i].index]) for name in column.capacity}
        systems = n * d.systems_per_instance if d.instances_per_system == 1 else -(-n // d.instances_per_system)
        cost += systems * column.option.offer.price.usd_per_hour
        if sum(rates.values()) > 1e-9:
            choices.append(Choice(column, n, systems, {k: v for k, v in rates.items() if v > 1e-9}))
    return Solution(tuple(choices), cost, h.getInfo().mip_dual_bound)


def _costs(program: Program) -> list[Any]:
    return [n * c.option.offer.price.usd_per_hour for n, c in zip(program.systems, program.columns, strict=True)]


def _sum(terms: list[Any]) -> Any:
    return highspy.Highs.qsum(terms) if terms else 0


def _solver() -> highspy.Highs:
    h = highspy.Highs()
    h.silent()
    for option, value in (("threads", 1), ("random_seed", 0)):
        h.setOptionValue(option, value)
    return h

"""What a solution uses of every limit, by the program's own account: over the slots the most, over the day the mean."""

from __future__ import annotations

import re
from collections.abc import Callable

from infermix.plan.frontier import megawatts
from infermix.plan.keys import Key, keys_of
from infermix.plan.limits import LimitUse
from infermix.plan.model import Program, Solution, build
from infermix.plan.model.lp import Terms
from infermix.plan.model.shares import Amount, amounts_of
from infermix.plan.question import Question
from infermix.plan.table import Column, Table


def uses_of(question: Question, table: Table, solution: Solution) -> list[LimitUse]:
    """Every limit that is a number, with what the solution and the training beside it use of it."""
    program = build(question, table)
    values = _values(program, solution)
    found = []
    for key in keys_of(question):
        used = _used(program, values, solution, key) if key.value is not None else None
        if used is not None and key.value is not None:
            found.append(LimitUse(key.name, used, key.value, at_least=key.step < 0))
    return found


def _used(program: Program, values: dict[int, float], solution: Solution, key: Key) -> float | None:
    question, slots = program.question, range(len(program.question.slots))
    what = key.name
    if what.startswith("market.supply."):
        system = what.removeprefix("market.supply.")
        mine = [k.name for o, k in question.contracts if o.system.id == system]
        return max(sum(solution.had[n][s] for n in mine) + question.reserved_systems(system, s) for s in slots)
    if what.startswith("market.contracts."):
        return max(solution.had[what.split(".", 2)[2].rpartition(".")[0]])
    if what == "limits.power_mw":
        return megawatts(question, solution) + max(question.reserved_w(s) for s in slots) / 1e6
    if what == "limits.usd_per_hour":
        spent = [sum(_at(terms, values) for *_, terms in program.spend(s)) for s in slots]
        return max(usd + question.reserved_usd_per_hour(s) for s, usd in enumerate(spent))
    if what == "limits.capital_usd":
        return sum(solution.had[k.name][0] * k.capital_usd for _, k in question.contracts)
    if what.startswith("traffic."):
        return _served_share(question, solution, what.split(".")[1])
    return _share(program, values, what) if "share" in what else key.value


def _served_share(question: Question, solution: Solution, name: str) -> float:
    demand = next(d for d in question.demands if d.name == name)
    unmet = solution.unmet.get(name) or [0.0] * len(question.slots)
    rates = [demand.rate_at(s) for s in range(len(question.slots))]
    return min((1.0 - u / r for u, r in zip(unmet, rates, strict=True) if r), default=1.0)


def _share(program: Program, values: dict[int, float], what: str) -> float:
    limits = program.question.limits
    if what == "limits.max_vendor_share":
        amounts = amounts_of(program, limits.vendor_share_of)
        return max(_part(amounts, values, lambda a, v=v: a.vendor == v) for v in {a.vendor for a in amounts})  # type: ignore[misc]
    if what.startswith("limits.min_share"):
        kind = what.rpartition(".")[2]
        return _part(amounts_of(program, "output_tokens"), values, lambda a: a.kind == kind)
    found = re.search(r"shares\[(\d+)\]", what)
    assert found is not None
    rule = limits.shares[int(found[1])]
    return _part(amounts_of(program, rule.of), values, lambda a: a.belongs(rule))


def _part(amounts: list[Amount], values: dict[int, float], belongs: Callable[[Amount], bool]) -> float:
    total = sum(_at(a.terms, values) for a in amounts)
    return sum(_at(a.terms, values) for a in amounts if belongs(a)) / (total or 1.0)


def _at(terms: Terms, values: dict[int, float]) -> float:
    return sum(weight * values.get(i, 0.0) for i, weight in terms)


def _key(column: Column) -> tuple[str, int, tuple[str, ...]]:
    return column.option.name, column.least, tuple(sorted(column.capacity))


def _values(program: Program, solution: Solution) -> dict[int, float]:
    """The solution's numbers on the variables of a program of the same table."""
    found: dict[int, float] = {}
    classes = {name: c for c, name in enumerate(program.question.class_names)}
    columns = {_key(c): i for i, c in program.columns()}
    for choice in solution.choices:
        i = columns.get(_key(choice.column))
        if i is None:
            continue
        found[program.instances[i, choice.slot]] = float(choice.instances)
        for name, rate in choice.rates.items():
            if (i, classes[name], choice.slot) in program.rate:
                found[program.rate[i, classes[name], choice.slot]] = rate
    for f, (_, contract) in enumerate(program.contracts):
        for s in program.slots:
            had = float(solution.had[contract.name][s])
            found[program.had[f, s]] = had
            if (f, s) in program.paid:
                signed = contract.signed or any(solution.had[contract.name])
                found[program.paid[f, s]] = max(had, float(contract.least_paid) if signed else 0.0)
    for a, api in enumerate(program.question.apis):
        for name, rates in solution.bought.get(api.name, {}).items():
            for s, rate in enumerate(rates):
                found[program.bought[a, classes[name], s]] = rate
    return found

"""Redundancy: after a loss, what is left still serves a share of every class that cannot wait."""

from __future__ import annotations

from collections.abc import Callable

from infermix.plan.model.lp import Terms, scaled
from infermix.plan.model.program import Program
from infermix.plan.table import Column


def define_system_loss(program: Program) -> None:
    """Any one system of any option may be lost, in every slot."""
    kept = program.question.limits.redundancy
    if kept is None or not kept.system:
        return
    for k, name in enumerate(dict.fromkeys(column.option.name for _, column in program.columns())):
        for s in program.slots:
            lost = _one_system(program, lambda column, name=name: column.option.name == name, s, f"x{k}")  # type: ignore[misc]
            _still_served(program, s, kept.system, f"x{k}", lost, "")


def define_vendor_loss(program: Program) -> None:
    """Any one vendor may be lost, the largest included, in every slot."""
    kept = program.question.limits.redundancy
    if kept is None or not kept.vendor:
        return
    vendors = [column.option.offer.system.vendor for _, column in program.columns()]
    vendors += [api.vendor for api in program.question.apis]
    for vendor in dict.fromkeys(vendors):
        for s in program.slots:
            gone: dict[int, Terms] = {
                i: [(program.instances[i, s], 1.0)]
                for i, column in program.columns()
                if column.option.offer.system.vendor == vendor
            }
            _still_served(program, s, kept.vendor, f"without_{vendor}", gone, vendor)


def _one_system(program: Program, belongs: Callable[[Column], bool], s: int, tag: str) -> dict[int, Terms]:
    """Instances that one lost system takes along: all that it hosts, or the one that spans it, or all there are."""
    lost: dict[int, Terms] = {}
    for i, column in program.columns():
        if not belongs(column):
            continue
        n, each = program.instances[i, s], column.option.deployment.instances_per_system
        d = program.lp.variable(program.at(f"lost_{tag}_{i}", s), column.most)
        many = program.lp.variable(program.at(f"many_{tag}_{i}", s), 1.0, whole=True)
        program.lp.row(program.at(f"one_{tag}_{i}", s), [(d, 1.0), (many, -float(each))], least=0.0)
        program.lp.row(program.at(f"few_{tag}_{i}", s), [(d, 1.0), (n, -1.0), (many, float(column.most))], least=0.0)
        program.lp.row(program.at(f"had_{tag}_{i}", s), [(d, 1.0), (n, -1.0)], most=0.0)
        lost[i] = [(d, 1.0)]
    return lost


def _still_served(program: Program, s: int, share: float, tag: str, lost: dict[int, Terms], vendor: str) -> None:
    """Traffic can be laid anew on what is left, at the capacities of the whole pools."""
    used: dict[int, Terms] = {}
    for c, demand in enumerate(program.question.demands):
        if demand.cls.deferrable:
            continue
        terms: Terms = []
        for i, _ in program.sent.get((c, s), []):
            v = program.lp.variable(program.at(f"rate_{tag}_{demand.name}_{i}", s))
            used.setdefault(i, []).append((v, 1.0 / program.table.capacity[i, c, s]))
            if program.table.columns[i].option.deployment.role != "prefill":
                terms.append((v, 1.0 / program.table.response[i, c]))
        for (a, k, t), v in program.bought.items():
            if (k, t) == (c, s) and program.question.apis[a].vendor != vendor:
                terms.append((v, 1.0))
        unmet = [(program.unmet[c, s], share)] if (c, s) in program.unmet else []
        program.lp.row(program.at(f"{tag}_{demand.name}", s), terms + unmet, least=share * demand.rate_at(s))
    for i, terms in used.items():
        left = [(program.instances[i, s], -1.0), *scaled(lost.get(i, []), 1.0)]
        program.lp.row(program.at(f"{tag}_{i}", s), terms + left, most=0.0)

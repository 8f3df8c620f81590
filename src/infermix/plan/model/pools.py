"""Pools: instances by bracket, the systems that host them, and how much traffic they carry."""

from __future__ import annotations

from math import inf

import numpy as np

from infermix.plan.model.change import loading_share
from infermix.plan.model.lp import Terms
from infermix.plan.model.program import Program, by_pool


def define_pools(program: Program) -> None:
    """Instances n of each column within its bracket if opened, and the whole systems that host an option.

    An option has one pool in a slot, in one bracket of sizes, so what is whole is whole for the option: its systems,
    or its instances where one takes whole systems. Where a system hosts several, n is rounded up afterwards.
    """
    for name, columns in by_pool(program).items():
        deployment = program.table.columns[columns[0]].option.deployment
        each, spans = deployment.instances_per_system, deployment.systems_per_instance
        most = max(program.table.columns[i].most for i in columns)
        for s in program.slots:
            for i in columns:
                program.instances[i, s] = program.lp.variable(program.at(f"n_{i}", s), program.table.columns[i].most)
                if program.table.columns[i].least > 0:
                    _open(program, i, s)
            whole = program.lp.variable(program.at(f"whole_{name}", s), most, whole=True)
            hosted = [(whole, float(each)), *((program.instances[i, s], -1.0) for i in columns)]
            program.lp.row(program.at(f"host_{name}", s), hosted, least=0.0, most=0.0 if each == 1 else inf)
            if each > 1:
                program.lp.row(program.at(f"full_{name}", s), hosted, most=each - 1e-3)
            program.systems[name, s] = [(whole, float(spans))]


def _open(program: Program, i: int, s: int) -> None:
    """A pool within the bracket, or none."""
    column, n = program.table.columns[i], program.instances[i, s]
    z = program.lp.variable(program.at(f"open_{i}", s), 1.0, whole=True)
    program.lp.row(program.at(f"most_{i}", s), [(n, 1.0), (z, -column.most)], most=0.0)
    program.lp.row(program.at(f"least_{i}", s), [(n, 1.0), (z, -column.least)], least=0.0)
    program.opened[i, s] = z


def define_one_bracket(program: Program) -> None:
    """An option has one pool for the same classes in a slot, in one bracket of sizes."""
    for name, columns in by_pool(program).items():
        for s in program.slots:
            opened = [(program.opened[i, s], 1.0) for i in columns if (i, s) in program.opened]
            if len(opened) > 1:
                program.lp.row(program.at(f"bracket_{name}", s), opened, most=1.0)


def define_rates(program: Program) -> None:
    """Requests a second of each class to each column that can serve it."""
    names = program.question.class_names
    for i, c, s in np.argwhere(program.table.capacity > 0.0).tolist():
        program.rate[i, c, s] = program.lp.variable(program.at(f"rate_{names[c]}_{i}", s))
        program.sent.setdefault((c, s), []).append((i, program.rate[i, c, s]))


def define_capacity(program: Program) -> None:
    """The classes of a pool share its instances: sum of rate / capacity <= n, less those that load their weights.

    In the relaxation several rows hold, and nothing loads.
    """
    used = used_instances(program)
    for (i, s), n in program.instances.items():
        terms = [*used[i, s], (n, -1.0)]
        if (i, s) in program.started:
            terms.append((program.started[i, s], loading_share(program, program.table.columns[i].option, s)))
        rows = program.table.columns[i].rows
        if not rows:
            program.lp.row(program.at(f"capacity_{i}", s), terms, most=0.0)
        for k, row in enumerate(rows):
            program.lp.row(program.at(f"capacity_{i}_{k}", s), [*_seconds(program, row, i, s), (n, -1.0)], most=0.0)


def _seconds(program: Program, row: dict[str, float], i: int, s: int) -> Terms:
    """Seconds of instances a second that the traffic of a column takes by one row."""
    classes = enumerate(program.question.class_names)
    return [(program.rate[i, c, s], row[name]) for c, name in classes if (i, c, s) in program.rate and name in row]


def define_used_pools(program: Program) -> None:
    """Where vendors are limited by spend or capacity, a pool must be used, a large one by half.

    Idle systems of a cheap vendor would otherwise be bought to dilute the share of a dear one. The relaxation leaves
    this out, as a bound may.
    """
    if not program.question.limits.dilutes:
        return
    used = used_instances(program)
    for (i, s), z in program.opened.items():
        terms = [*used[i, s], (program.instances[i, s], -0.5), (z, 0.45)]
        program.lp.row(program.at(f"used_{i}", s), terms, least=0.0)


def used_instances(program: Program) -> dict[tuple[int, int], Terms]:
    """(column, slot) → instances that its traffic keeps busy."""
    used: dict[tuple[int, int], Terms] = {key: [] for key in program.instances}
    for (i, c, s), rate in program.rate.items():
        used[i, s].append((rate, 1.0 / program.table.capacity[i, c, s]))
    return used


def define_handover(program: Program) -> None:
    """What prefill pools of a pair take of a class they hand over to its decode pools."""
    sign = {"prefill": 1.0, "decode": -1.0}
    for (c, s), sent in program.sent.items():
        for k, mine in enumerate(_by_pair(program, sent).values()):
            terms = [(v, sign[program.table.columns[i].option.deployment.role]) for i, v in mine]
            name = f"handover_{program.question.class_names[c]}"
            program.lp.equal(program.at(name if k == 0 else f"{name}_{k}", s), terms)


def define_one_pair(program: Program) -> None:
    """A class is served by one pair at most in a slot: its prefill pools would else hand over to those of another.

    The relaxation leaves this out, as a bound may.
    """
    for (c, s), sent in program.sent.items():
        pairs = _by_pair(program, sent)
        if len(pairs) < 2 or any(program.table.columns[i].rows for mine in pairs.values() for i, _ in mine):
            continue
        name, chosen = program.question.class_names[c], []
        most = 2.0 * program.question.demands[c].rate_at(s)
        for k, mine in enumerate(pairs.values()):
            z = program.lp.variable(program.at(f"pair_{name}_{k}", s), 1.0, whole=True)
            terms = [(v, 1.0) for i, v in mine]
            program.lp.row(program.at(f"pair_{name}_{k}", s), [*terms, (z, -most)], most=0.0)
            chosen.append((z, 1.0))
        program.lp.row(program.at(f"one_pair_{name}", s), chosen, most=1.0)


def _by_pair(program: Program, sent: list[tuple[int, int]]) -> dict[str, list[tuple[int, int]]]:
    """Pair → (column, variable) of its rates; pools that do both are left out."""
    found: dict[str, list[tuple[int, int]]] = {}
    for i, v in sent:
        option = program.table.columns[i].option
        if option.deployment.role != "both":
            found.setdefault(option.pair, []).append((i, v))
    return found

"""What changes from slot to slot: instances that start, and load their weights before they serve."""

from __future__ import annotations

from infermix.perf.memory import weights_bytes
from infermix.plan.model.lp import Terms
from infermix.plan.model.program import Program, by_pool
from infermix.plan.options import Option
from infermix.plan.slots import before
from infermix.units import SECONDS_PER_HOUR, to_si


def define_starts(program: Program) -> None:
    """Instances of an option that did not run in the slot before; the last slot of the day precedes the first."""
    study = program.question.study.slots
    if len(program.slots) == 1 or (not study.usd_per_start and study.load_gb_per_s is None):
        return
    for name, columns in by_pool(program).items():
        for s in program.slots:
            earlier = before(program.question.slots, s)
            if earlier == s:
                continue
            more: Terms = []
            for i in columns:
                program.started[i, s] = program.lp.variable(program.at(f"start_{i}", s))
                more += [(program.started[i, s], 1.0), (program.instances[i, s], -1.0)]
                more.append((program.instances[i, earlier], 1.0))
            program.lp.row(program.at(f"start_{name}", s), more, least=0.0)


def loading_share(program: Program, option: Option, s: int) -> float:
    """Share of a slot that an instance spends loading its weights when it starts."""
    rate = program.question.study.slots.load_gb_per_s
    if rate is None:
        return 0.0
    seconds = weights_bytes(option.deployment) / to_si(rate, "GB/s")
    return min(1.0, seconds / (program.question.slots[s].hours * SECONDS_PER_HOUR))


def start_usd_per_hour(program: Program) -> Terms:
    """What starting instances costs by the hour, mean over the day and the scenarios."""
    usd, slots = program.question.study.slots.usd_per_start, program.question.slots
    return [(v, usd * slots[s].weight / slots[s].hours) for (_, s), v in program.started.items()] if usd else []

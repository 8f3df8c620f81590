"""Slots that rule: where every contract lasts all day, a slot with less of everything than another asks for no more.

Slot s is ruled by slot r when every class has at most the rate in s that it has in r, and training holds at most as
much. A fleet of r, on systems that are had all day, then serves s as well, with the same shares; so
the program over the ruling slots alone has the same optimum, and s takes over the pools of r. Where systems are had by
the hour, where instances that start cost something, where demands may wait or differ by scenario, or where a limit is a
mean over the day, every slot rules.
"""

from __future__ import annotations

from dataclasses import replace

from infermix.plan.model import Solution
from infermix.plan.question import Question


def ruled_by(question: Question) -> tuple[int, ...]:
    """For every slot the slot that rules it: itself where none does."""
    slots = range(len(question.slots))
    if len(slots) == 1 or not _may_rule(question):
        return tuple(slots)
    loads = [_load(question, s) for s in slots]
    found = []
    for s in slots:
        over = [r for r in slots if all(a >= b for a, b in zip(loads[r], loads[s], strict=True))]
        found.append(max(over, key=lambda r: (sum(loads[r]), -r)))
    return tuple(found)


def with_slots(question: Question, kept: list[int]) -> Question:
    """The question of some of its slots."""
    if len(kept) == len(question.slots):
        return question
    demands = tuple(replace(d, rates_per_s=tuple(d.rate_at(s) for s in kept)) for d in question.demands)
    held = tuple(replace(r, slots=tuple(r.slots[s] for s in kept)) for r in question.reserved)
    hours = question.slots[0].hours * len(question.slots) / len(kept)
    slots = tuple(replace(question.slots[s], hours=hours) for s in kept)
    return replace(question, demands=demands, reserved=held, slots=slots)


def _load(question: Question, s: int) -> list[float]:
    """Everything that a slot asks for; its sum says how busy it is, roughly."""
    rates = [d.rate_at(s) / max(d.rate_per_s, 1e-300) for d in question.demands]
    return rates + [float(held.slots[s]) for held in question.reserved]


def _may_rule(question: Question) -> bool:
    study, limits = question.study, question.limits
    apart = any(contract.hourly for _, contract in question.contracts) or bool(study.scenarios)
    apart |= study.slots.usd_per_start > 0 or study.slots.load_gb_per_s is not None
    apart |= any(d.cls.deferrable for d in question.demands) or question.profits
    apart |= bool(question.apis) or limits.rationing or bool(limits.min_share_output_tokens) or bool(limits.shares)
    return not apart and (limits.max_vendor_share is None or limits.vendor_share_of == "spend")


def expanded(question: Question, solution: Solution, ruled: tuple[int, ...], kept: list[int]) -> Solution:
    """A solution over the kept slots for all of them: a slot takes over the pools of the one that rules it.

    Rates are the slot's own, shared out alike.
    """
    choices = []
    for s, r in enumerate(ruled):
        for choice in solution.at(kept.index(r)):
            rates = {name: rate * _ratio(question, name, s, r) for name, rate in choice.rates.items()}
            choices.append(replace(choice, rates=rates, slot=s))
    had = {name: tuple(counts[kept.index(r)] for r in ruled) for name, counts in solution.had.items()}
    return replace(solution, choices=tuple(choices), had=had)


def _ratio(question: Question, name: str, s: int, r: int) -> float:
    demand = next(d for d in question.demands if d.name == name)
    return demand.rate_at(s) / max(demand.rate_at(r), 1e-300)

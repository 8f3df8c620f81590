"""What a slot's fleet is offered: the study's traffic less what an API serves and what goes unserved.

A proof simulates a slot as a question of its own: its pools, and only the requests that the plan sends to them. Where
the plan sends everything, and there is one slot, that is the question itself.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from infermix.plan.model import Solution
from infermix.plan.problem import Slots, Study
from infermix.plan.question import Demand, Question
from infermix.workload.classes import TrafficClass

ALL = 1e-6
"""Relative difference of rates that counts as none."""


def sent_per_s(solution: Solution, slot: int) -> dict[str, float]:
    """Class → requests a second that the pools of a slot are sent, counted where they end."""
    found: dict[str, float] = {}
    for choice in solution.at(slot):
        if choice.column.option.deployment.role != "prefill":
            for name, rate in choice.rates.items():
                found[name] = found.get(name, 0.0) + rate
    return found


def slot_question(question: Question, solution: Solution, slot: int = 0) -> Question:
    """The question that a slot's fleet answers; classes that it is not sent are left out.

    Rates are held as they are in the slot: shapes are gone.
    """
    sent = sent_per_s(solution, slot)
    whole = all(abs(sent.get(d.name, 0.0) - d.rate_at(slot)) <= ALL * d.rate_at(slot) for d in question.demands)
    if whole and len(question.slots) == 1:
        return question
    demands = tuple(_at(d, sent[d.name]) for d in question.demands if sent.get(d.name, 0.0) > 0.0)
    study = _at_slot(question.study, {d.name: d.cls for d in demands})
    held = tuple(replace(r, slots=(r.slots[slot],)) for r in question.reserved)
    mine = replace(question.slots[slot], hours=24.0, probability=1.0)
    return replace(question, study=study, demands=demands, reserved=held, slots=(mine,))


def _at(demand: Demand, rate_per_s: float) -> Demand:
    """A class at the rate that a fleet is sent; a closed loop with its share of the sessions."""
    cls = demand.cls
    if cls.sessions is not None:
        sessions = max(1, round(cls.sessions * rate_per_s / demand.rate_per_s))
        cls = msgspec.structs.replace(cls, sessions=sessions)
    elif abs(rate_per_s - demand.rate_per_s) > ALL * rate_per_s or cls.shape is not None:
        cls = msgspec.structs.replace(cls, rate_per_s=rate_per_s, shape=None)
    return replace(demand, cls=cls, rate_per_s=rate_per_s, rates_per_s=())


def _at_slot(study: Study, traffic: dict[str, TrafficClass]) -> Study:
    return msgspec.structs.replace(study, traffic=traffic, slots=Slots(), scenarios={})

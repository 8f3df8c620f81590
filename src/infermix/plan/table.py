"""What the program reads: an option at a *bracket* of pool sizes (column) x class x slot, each with a capacity.

The axes of the planner, in this order everywhere: **column** (capacities grow with the pool, so an option is one
column for every bracket of pool sizes, with the capacity of the bracket's smallest pool), **class** of traffic (which
names its model), **slot** of time (``question.slots``: parts of the day, under every scenario). An axis that a study
does not use has length one.

``Table.capacity[column, class, slot]`` is what *one* instance of a pool of that size serves [requests/s] within the
promise of the class; 0 says that it cannot, that the option's model is not the class's, or that a rule forbids it. A
capacity is the same in every slot until a proof that failed in one of them takes something off it there.

``Table.usd_per_request`` and ``Table.response`` say what a request served there is worth and how many requests a user
then sends: 0 and 1 where only cost is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infermix.arrays import Floats
from infermix.plan.options import Option
from infermix.plan.question import Demand, Question
from infermix.plan.worth import response, speed_of, usd_per_request


@dataclass(frozen=True)
class Column:
    """An option in a bracket of pool sizes (``least`` 0: any size); ``capacity``: what an instance serves [1/s]."""

    option: Option
    least: int
    most: int
    capacity: dict[str, float]
    rows: tuple[dict[str, float], ...] = ()
    """Of the relaxation: class → seconds of an instance a request, by rows that hold for mixes each; else the inverse
    of ``capacity`` is the only one."""
    alone: str = ""
    """The class that its pool is kept for; empty: it takes every class that it can serve."""

    @property
    def pool(self) -> str:
        """Which pool it is a bracket of: an option's pool for one class is another one than its pool for all."""
        return f"{self.option.name} for {self.alone}" if self.alone else self.option.name


@dataclass(frozen=True)
class Table:
    """Columns with their capacities; see the head of this file."""

    columns: tuple[Column, ...]
    capacity: Floats
    """[column, class, slot] requests a second and instance."""
    usd_per_request: Floats
    """[column, class] worth of a request served there, beside its cost."""
    response: Floats
    """[column, class] requests that a user sends when served there, over those that the study states."""


def make_table(question: Question, columns: Sequence[Column]) -> Table:
    """The table of columns whose capacities are the same in every slot."""
    classes, slots = question.demands, len(question.slots)
    capacity = np.zeros((len(columns), len(classes), slots))
    faster = dict(question.faster)
    for i, column in enumerate(columns):
        factor = faster.get(column.option.offer.system.id, 1.0)
        for c, demand in enumerate(classes):
            if allowed(column.option, demand):
                capacity[i, c] = column.capacity.get(demand.name, 0.0) * factor
    usd, sent = np.zeros((2, len(columns), len(classes)))
    sent += 1.0
    if question.profits:
        for i, c in np.argwhere(capacity.any(axis=2)).tolist():
            speed = speed_of(columns[i].option, classes[c])
            usd[i, c], sent[i, c] = usd_per_request(classes[c], speed), response(classes[c], speed)
    return Table(tuple(columns), capacity, usd, sent)


def allowed(option: Option, demand: Demand) -> bool:
    """Whether rules let an option serve a class: its model, where its data may go, what a system may run."""
    model, offer = option.deployment.model.id, option.offer
    if demand.model is not None and demand.model.id != model:
        return False
    if offer.models and model not in offer.models:
        return False
    return not demand.cls.regions or offer.region in demand.cls.regions

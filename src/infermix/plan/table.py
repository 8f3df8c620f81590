"""What the program reads: an option at a *bracket* of pool sizes (column) x class x slot, each with a capacity.

The axes of the planner, in this order everywhere: **column** (capacities grow with the pool, so an option is one
column for every bracket of pool sizes, with the capacity of the bracket's smallest pool), **class** of traffic (which
names its model), **slot** of time (``question.slots``). An axis that a study does not use has length one.

``Table.capacity[column, class, slot]`` is what *one* instance of a pool of that size serves [requests/s] within the
promise of the class; 0 says that it cannot, or that the option's model is not the class's. A capacity is the same in
every slot until a proof that failed in one of them takes something off it there.

``Table.usd_per_request`` and ``Table.response`` say what a request served there is worth and how many requests a user
then sends: 0 and 1 where only cost is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from infermix.arrays import Floats
from infermix.plan.options import Option
from infermix.plan.question import Question


@dataclass(frozen=True)
class Column:
    """An option in a bracket of pool sizes (``least`` 0: any size); ``capacity``: what an instance serves [1/s]."""

    option: Option
    least: int
    most: int
    capacity: dict[str, float]


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
    """The table of columns whose capacities are the same in every slot.

    Classes of a column that are not of its option's model, or that rules keep off it, get none.
    """
    classes, slots = question.demands, len(question.slots)
    capacity = np.zeros((len(columns), len(classes), slots))
    for i, column in enumerate(columns):
        for c, demand in enumerate(classes):
            capacity[i, c] = column.capacity.get(demand.name, 0.0)
    shape = (len(columns), len(classes))
    return Table(tuple(columns), capacity, np.zeros(shape), np.ones(shape))

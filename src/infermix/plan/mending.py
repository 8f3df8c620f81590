"""Mend a day that its proof found short, instance by instance.

The pools that the program chose are kept, and so are its limits; what changes is how much an instance of a pool counts
for in a slot. It begins a little above what was simulated, for capacities are found with a margin and at the smallest
pool of a bracket, and never above the queue-free bound. Where a slot misses, the pools that missed count so much less
there that their traffic takes at least one more instance; the program, small now, is solved again and puts that
instance, or the traffic, where it costs least. So the fleet that is proved was approached from below.

What the pools counted for in the end is kept beside the capacities, and the next plan of the same study begins
with it. That only saves rounds: every fleet is proved anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from infermix.plan import model
from infermix.plan.cache import Store, digest
from infermix.plan.evidence import Evidence
from infermix.plan.model import Choice, Column, Solution, make_table
from infermix.plan.options import queue_free_capacity
from infermix.plan.parts import study_hash
from infermix.plan.prove import over_allowed
from infermix.plan.question import Demand, Question

START = 1.03
"""What a pool counts for over its simulated capacity before the first proof."""
MORE = 0.02
"""By how much of an instance the traffic of a pool that missed is made too large for it."""
NEAR = 0.02
"""Pools of an earlier proof are kept unless others are cheaper by more than this, relatively, before their proof."""
STEEP = 0.015
"""A pool that misses so many times what it may counts less by this power of it: 3 % where it misses ten times that."""
GAP = 1e-3
"""Relative gap to which the program over the chosen pools is solved."""


@dataclass
class Mends:
    """What the pools that were chosen for a question count for, by slot."""

    question: Question
    columns: list[Column]
    """Brackets of the pools that were chosen, with simulated capacities."""
    factors: dict[tuple[str, int], float] = field(default_factory=dict)
    """(pool, slot) → factor on its capacities."""

    def factor(self, pool: str, slot: int) -> float:
        """What a pool counts for over its simulated capacities."""
        return self.factors.get((pool, slot), START)

    def solve(self) -> Solution | None:
        """The cheapest fleets of these pools; None where limits leave none."""
        table = make_table(self.question, self.columns)
        capacity = table.capacity.copy()
        for i, column in enumerate(self.columns):
            factors = [self.factor(column.pool, s) for s in range(len(self.question.slots))]
            for c, demand in enumerate(self.question.demands):
                if demand.name in column.capacity:
                    bound = queue_free_capacity(column.option, demand)
                    capacity[i, c] = np.minimum(capacity[i, c] * factors, bound)
        return model.solve(model.build(self.question, replace(table, capacity=capacity)), GAP)

    def take_off(
        self, slot: int, choices: tuple[Choice, ...], asked: Question, evidence: Evidence, missed: list[str]
    ) -> None:
        """Let every pool in which a class missed too much count less, by an instance at least, the more it missed."""
        by_name = {d.name: d for d in self.question.demands}
        over = [over_allowed(asked, evidence, p, missed) for p in range(len(choices))]
        for choice, times in zip(choices, over, strict=True):
            if times > 1.0 or times == max(over):
                factor = self.factor(choice.column.pool, slot)
                one_more = self._used(choice, factor, by_name) / (choice.instances + MORE)
                self.factors[choice.column.pool, slot] = factor * min(0.995, one_more, max(times, 1e-9) ** -STEEP)

    def _used(self, choice: Choice, factor: float, by_name: dict[str, Demand]) -> float:
        """Instances that a pool's traffic keeps busy at what they count for."""
        used = 0.0
        for name, rate in choice.rates.items():
            bound = queue_free_capacity(choice.column.option, by_name[name])
            used += rate / min(choice.column.capacity[name] * factor, bound)
        return used


def mends_of(question: Question, columns: list[Column], chosen: Solution, store: Store) -> tuple[Mends, Solution]:
    """The pools to be proved first, and their fleets.

    Those of an earlier proof of the same study with what they counted for, unless the program now finds some that are
    cheaper by more than ``NEAR``; else those that it chose.
    """
    known = recalled(question, columns, store)
    again = known.solve() if known.columns else None
    if again is not None and again.loss_usd_per_hour <= chosen.loss_usd_per_hour + NEAR * chosen.usd_per_hour:
        return known, again
    pools = {choice.column.pool for choice in chosen.choices}
    fresh = Mends(question, [column for column in columns if column.pool in pools])
    return fresh, fresh.solve() or chosen


def recalled(question: Question, columns: list[Column], store: Store) -> Mends:
    """The pools of an earlier proof of the same study, with what they counted for; none where there was none."""
    factors = {}
    for key, name in _keys(question, columns).items():
        factor = store.read(name)
        if factor is not None:
            factors[key] = factor
    pools = {pool for pool, _ in factors}
    return Mends(question, [column for column in columns if column.pool in pools], factors)


def kept_for_later(mends: Mends, store: Store) -> None:
    """Remember what the pools counted for."""
    for key, name in _keys(mends.question, mends.columns).items():
        store.write(name, mends.factor(*key))


def _keys(question: Question, columns: list[Column]) -> dict[tuple[str, int], str]:
    study = study_hash(question.study)
    pools = dict.fromkeys(column.pool for column in columns)
    slots = enumerate(slot.name for slot in question.slots)
    return {(pool, s): digest("mends", study, name, pool) for s, name in slots for pool in pools}

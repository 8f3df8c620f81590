"""Slots: the stretches of the day that are planned apart, and the hour of the day that stands for each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from infermix.plan.problem import Study
from infermix.workload.shape import HOURS, by_hour, hours_of, peak_hours


@dataclass(frozen=True)
class Slot:
    """A stretch of time, under one scenario, with its own rates and its own pools.

    Its rates, and what training holds, are those of its busiest hour.
    """

    name: str = ""
    hour: int | None = None
    """Hour of the day that stands for it; None where every hour is alike."""
    hours: float = float(HOURS)
    """How long it lasts [h]."""
    scenario: str = ""
    probability: float = 1.0
    """Of its scenario."""
    factors: tuple[tuple[str, float], ...] = ()
    """Class → its rates over those of the study, under the scenario."""
    missing: frozenset[str] = frozenset()
    """Contracts that are not delivered under the scenario."""

    @property
    def weight(self) -> float:
        """Share of all time, over all scenarios."""
        return self.hours / HOURS * self.probability

    def factor(self, name: str) -> float:
        """Rates of a class over those of the study."""
        return dict(self.factors).get(name, 1.0)


def slots_of(study: Study, weights: dict[str, float]) -> tuple[Slot, ...]:
    """The slots of a study: every part of the day under every scenario, scenario by scenario.

    One part is planned for the busiest hour of the day. ``weights``: what a mean second of each class weighs, in
    tokens.
    """
    parts = _parts(study, weights)
    return tuple(_under(part, made) for made in _scenarios(study) for part in parts)


def before(slots: tuple[Slot, ...], s: int) -> int:
    """The slot that precedes a slot in its scenario; the last of the day precedes the first."""
    mine = [i for i, slot in enumerate(slots) if slot.scenario == slots[s].scenario]
    return mine[mine.index(s) - 1]


def _under(part: Slot, scenario: Slot) -> Slot:
    name = " ".join(word for word in (scenario.scenario, part.name) if word)
    return replace(scenario, name=name, hour=part.hour, hours=part.hours)


def _scenarios(study: Study) -> list[Slot]:
    """Every demand with every outcome of the orders that may not be delivered, as slots of a whole day."""
    left = 1.0 - sum(scenario.probability for scenario in study.scenarios.values())
    found = [Slot(probability=left, scenario="as stated" if study.scenarios else "")] if left > 1e-9 else []
    for name, row in study.scenarios.items():
        found.append(Slot(probability=row.probability, scenario=name, factors=tuple(row.factors.items())))
    for name, contract in (study.market.contracts if study.market else {}).items():
        if contract.delivered < 1:
            found = [made for slot in found for made in _delivered_or_not(slot, name, contract.delivered)]
    return found


def _delivered_or_not(slot: Slot, name: str, delivered: float) -> list[Slot]:
    without = " ".join(word for word in (slot.scenario, f"without {name}") if word)
    missing = slot.missing | {name}
    late = replace(slot, probability=slot.probability * (1 - delivered), scenario=without, missing=missing)
    return [replace(slot, probability=slot.probability * delivered), late]


def _parts(study: Study, weights: dict[str, float]) -> list[Slot]:
    """The parts of the day."""
    runs = study.training.values()
    shapes = {name: cls.shape for name, cls in study.traffic.items()}
    if study.slots.count == 1:
        return [Slot(hour=_planned(study, weights))]
    length = HOURS // study.slots.count
    load = np.sum([weights[name] * by_hour(shape) for name, shape in shapes.items()], axis=0)
    found = []
    for start in range(0, HOURS, length):
        hours = range(start, start + length)
        held = {h: sum(run.systems for run in runs if h in hours_of(run.hours)) for h in hours}
        busiest = max(hours, key=lambda h: (round(float(load[h]), 9), held[h], -h))
        found.append(Slot(f"{start:02d}:00", busiest, float(length)))
    return found


def is_even(study: Study) -> bool:
    """Whether every hour of the day is alike: no class has a shape and no training run has hours."""
    shaped = any(cls.shape is not None for cls in study.traffic.values())
    return not shaped and all(run.hours is None for run in study.training.values())


def _planned(study: Study, weights: dict[str, float]) -> int | None:
    """The busiest hour of the day, and of equals the one in which training holds most; None if all are alike."""
    if is_even(study):
        return None
    hours = peak_hours({name: cls.shape for name, cls in study.traffic.items()}, weights)
    runs = study.training.values()
    return max(hours, key=lambda h: (sum(run.systems for run in runs if h in hours_of(run.hours)), -h))

"""Slots: the stretches of the day that are planned apart, and the hour of the day that stands for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infermix.plan.problem import Study
from infermix.workload.shape import HOURS, by_hour, hours_of, peak_hours


@dataclass(frozen=True)
class Slot:
    """A stretch of time with its own rates and its own pools.

    Its rates, and what training holds, are those of its busiest hour.
    """

    name: str = ""
    hour: int | None = None
    """Hour of the day that stands for it; None where every hour is alike."""
    hours: float = float(HOURS)
    """How long it lasts [h]."""

    @property
    def weight(self) -> float:
        """Share of all time."""
        return self.hours / HOURS


def slots_of(study: Study, weights: dict[str, float]) -> tuple[Slot, ...]:
    """The slots of a study; one slot is planned for the busiest hour of the day.

    ``weights``: what a mean second of each class weighs, in tokens.
    """
    runs = study.training.values()
    shapes = {name: cls.shape for name, cls in study.traffic.items()}
    if study.slots.count == 1:
        return (Slot(hour=_planned(study, weights)),)
    length = HOURS // study.slots.count
    load = np.sum([weights[name] * by_hour(shape) for name, shape in shapes.items()], axis=0)
    found = []
    for start in range(0, HOURS, length):
        hours = range(start, start + length)
        held = {h: sum(run.systems for run in runs if h in hours_of(run.hours)) for h in hours}
        busiest = max(hours, key=lambda h: (round(float(load[h]), 9), held[h], -h))
        found.append(Slot(f"{start:02d}:00", busiest, float(length)))
    return tuple(found)


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

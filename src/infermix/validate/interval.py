"""The interval of a prediction as factors on speed: the stack's or the family's, wider for what was assumed."""

from __future__ import annotations

from infermix.catalog.records import Stack
from infermix.perf.stack import BY_LOAD, with_stack
from infermix.validate.meaning import Case

FEW_CLIENTS = 64
"""On one instance; with more an interval has ends of its own."""
WIDER = 1.15
"""For each thing that a row leaves open, the interval grows so much on either side."""
NEW_CHIP = {"speed": 1.1, "speed_prompt": 1.15}
"""For a chip without rows of its own it grows so much: nine in ten rows of held-out chips are inside then."""


def interval_of(
    case: Case, metric: str, stack: Stack | None = None, *, new_chip: bool | None = None
) -> tuple[float, float]:
    """(slow end, fast end) of a 90 % interval as factors on speed; prompts have their own.

    ``new_chip``: whether it is taken to have no rows of its own; None: as the family knows.

    Unlike that of a step table it is not cut at the datasheet, for what a row says of its load may be wrong as well.
    """
    d = with_stack(case.deployment, stack)
    figures = d.efficiency.figures
    figure = figures.get("speed_moe", figures["speed"]) if d.model.experts else figures["speed"]
    whole = "speed_prompt" if metric == "ttft_ms" and "speed_prompt" in figures else "speed"
    figure = figures.get(by_load(case, whole), figure if whole == "speed" else figures[whole])
    low, high = figure.low or 1.0, figure.high or 1.0
    if new_chip is None:
        new_chip = bool(d.efficiency.chips) and d.chip.id not in d.efficiency.chips
    wider = WIDER ** len(case.assumed) * (NEW_CHIP[whole] if new_chip else 1.0)
    return low / wider, high * wider


def by_load(case: Case, whole: str) -> str:
    """Name of the interval of speed for so many clients."""
    return BY_LOAD[whole][0 if case.clients <= FEW_CLIENTS else 1]


def spread_around(value: float, metric: str, factors: tuple[float, float]) -> tuple[float, float]:
    """(low, high) of a figure whose speed lies between these factors: times are longer when speed is lower."""
    slow, fast = factors
    return (value / fast, value / slow) if metric.endswith("_ms") else (value * slow, value * fast)

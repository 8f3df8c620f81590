"""The interval of a prediction as factors on speed: the stack's or the family's, wider for what was assumed."""

from __future__ import annotations

from infermix.catalog.records import Stack
from infermix.perf.stack import with_stack
from infermix.validate.meaning import Case

FEW_CLIENTS = 64
"""On one instance; with more an interval has ends of its own."""
WIDER = 1.15
"""For each thing that a row leaves open, the interval grows so much on either side."""


def interval_of(case: Case, metric: str, stack: Stack | None = None) -> tuple[float, float]:
    """(slow end, fast end) of a 90 % interval as factors on speed; prompts have their own.

    Unlike that of a step table it is not cut at the datasheet, for what a row says of its load may be wrong as well.
    """
    d = with_stack(case.deployment, stack)
    figures = d.efficiency.figures
    figure = figures.get("speed_moe", figures["speed"]) if d.model.experts else figures["speed"]
    figure = figures.get(by_load(case), figure)
    if metric == "ttft_ms":
        figure = figures.get("speed_prompt", figure)
    low, high = figure.low or 1.0, figure.high or 1.0
    wider = WIDER ** len(case.assumed)
    return low / wider, high * wider


def by_load(case: Case) -> str:
    """Name of the interval of speed for so many clients."""
    return "speed_few" if case.clients <= FEW_CLIENTS else "speed_many"


def spread_around(value: float, metric: str, factors: tuple[float, float]) -> tuple[float, float]:
    """(low, high) of a figure whose speed lies between these factors: times are longer when speed is lower."""
    slow, fast = factors
    return (value / fast, value / slow) if metric.endswith("_ms") else (value * slow, value * fast)

"""Decision regret: how often predictions choose the wrong one of two measured configurations, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import msgspec
import numpy as np

from infermix.catalog.load import catalog
from infermix.catalog.query import find_chip
from infermix.validate.predict import Predicted
from infermix.validate.rows import Row
from infermix.validate.score import kind_of

APART = 1.1
"""Pairs nearer to each other than this factor are no decision."""


class Regret(msgspec.Struct, frozen=True, kw_only=True):
    """Decisions between pairs of chips or layouts."""

    pairs: int
    """At least 10 % apart in what was measured."""
    right: float | None
    """Share of them in which the faster one is predicted to be the faster one."""
    pairs_of_chips: int
    right_of_chips: float | None
    """The same among pairs of unlike chips."""
    median_cost_regret: float | None
    """Measured cost of a token on what is predicted to be cheaper, over that on what is cheaper, less 1."""
    mean_cost_regret: float | None


class _Choice(msgspec.Struct, frozen=True):
    """One configuration: time of work measured and predicted, and what its chips cost."""

    chip: str
    measured: float
    predicted: float
    usd: float


def regret(found: Sequence[Predicted]) -> Regret:
    """Compare all pairs of configurations that were measured under the same workload by the same people."""
    right, chips, costs = [], [], []
    for choices in _workloads(found).values():
        for a, b in combinations(choices, 2):
            if max(a.measured, b.measured) >= APART * min(a.measured, b.measured):
                right.append((a.measured < b.measured) == (a.predicted < b.predicted))
                if a.chip != b.chip:
                    chips.append(right[-1])
            costs.append(_cost_regret(a, b))
    return Regret(
        pairs=len(right),
        right=float(np.mean(right)) if right else None,
        pairs_of_chips=len(chips),
        right_of_chips=float(np.mean(chips)) if chips else None,
        median_cost_regret=float(np.median(costs)) if costs else None,
        mean_cost_regret=float(np.mean(costs)) if costs else None,
    )


def _cost_regret(a: _Choice, b: _Choice) -> float:
    cost_a, cost_b = a.usd * a.measured, b.usd * b.measured
    chosen = cost_a if a.usd * a.predicted <= b.usd * b.predicted else cost_b
    return chosen / min(cost_a, cost_b) - 1.0


def _workloads(found: Sequence[Predicted]) -> dict[tuple[object, ...], list[_Choice]]:
    """Configurations by workload; rows of one configuration count once, by their medians."""
    rows: dict[tuple[object, ...], dict[tuple[object, ...], list[Predicted]]] = {}
    for p in found:
        if p.covered and p.row.quality in "AB" and kind_of(p.row.metric) != "ttft":
            r = p.row
            work = (r.source, r.model, r.scenario, r.batch_or_concurrency, r.input_len, r.output_len, r.metric)
            layout = (r.chip, r.num_chips, r.tp, r.pp, r.ep, r.dp, r.weight_dtype, r.framework)
            rows.setdefault(work, {}).setdefault(layout, []).append(p)
    return {work: [_choice(same) for same in layouts.values()] for work, layouts in rows.items()}


def _choice(same: Sequence[Predicted]) -> _Choice:
    row, sign = same[0].row, 1.0 if same[0].row.metric.endswith("_ms") else -1.0
    measured = math.exp(sign * float(np.median([math.log(p.row.value) for p in same])))
    predicted = math.exp(sign * float(np.median([math.log(p.value) for p in same])))
    return _Choice(row.chip, measured, predicted, _chips(row) * _usd_per_chip_hour(row.chip))


def _chips(row: Row) -> int:
    return row.num_chips or (row.tp or 1) * (row.dp or 1) * (row.pp or 1)


@lru_cache(maxsize=256)
def _usd_per_chip_hour(name: str) -> float:
    """Rent of a chip, its operator's cost where there is none, 1 where neither is known."""
    chip = find_chip(name)
    systems = [s for s in catalog().systems.values() if s.chip == chip.id]
    for field in ("rent_usd_per_hour", "operator_cost_usd_per_hour"):
        for system in systems:
            figure = getattr(system, field)
            if figure is not None:
                return float(figure.value) / system.chips
        figure = getattr(chip, field)
        if figure is not None:
            return float(figure.value)
    return 1.0

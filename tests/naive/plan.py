"""The slow, obvious twin of the planning program: try every fleet, cheapest first.

Shares nothing with ``infermix.plan.model`` but its records. How many instances of which column are counted up; whether
traffic can be laid on a fleet is a question about a polytope of few dimensions: one that is bounded and not empty has
a corner, so all corners are tried.
"""

from __future__ import annotations

from itertools import combinations, product

import numpy as np
import numpy.typing as npt

from infermix.plan.model import Column
from infermix.plan.question import Question

EPS = 1e-7
Rows = list[tuple[list[float], float]]
"""Coefficients of the rates, and a bound: ``a x <= b``."""


def cheapest(question: Question, columns: list[Column]) -> float | None:
    """Least cost by the hour of a fleet that keeps every limit; None when there is none."""
    counts = product(*[[0, *range(max(1, c.least), c.most + 1)] for c in columns])
    fleets = sorted((_cost(columns, n), n) for n in counts if _keeps_limits(question, columns, n))
    return next((cost for cost, n in fleets if _carries(question, columns, n)), None)


def _systems(column: Column, n: int) -> int:
    d = column.option.deployment
    return n * d.systems_per_instance if d.instances_per_system == 1 else -(-n // d.instances_per_system)


def _cost(columns: list[Column], counts: tuple[int, ...]) -> float:
    return sum(_systems(c, n) * c.option.offer.price.usd_per_hour for c, n in zip(columns, counts, strict=True))


def _keeps_limits(question: Question, columns: list[Column], counts: tuple[int, ...]) -> bool:
    """Limits that depend on what is bought alone."""
    limits, bought = question.limits, [_systems(c, n) for c, n in zip(columns, counts, strict=True)]
    names = [c.option.name for c, n in zip(columns, counts, strict=True) if n]
    if len(set(names)) < len(names):
        return False  # an option in two brackets of sizes
    systems = [c.option.offer.system.id for c in columns]
    for offer in question.offers:
        mine = sum(b for b, s in zip(bought, systems, strict=True) if s == offer.system.id)
        if offer.supply is not None and mine > offer.supply:
            return False
        if offer.system.id == question.forced and mine < 1:
            return False
    watts = sum(b * (c.option.offer.facility_w or 0.0) for b, c in zip(bought, columns, strict=True))
    if limits.power_mw is not None and watts > limits.power_mw * 1e6 + EPS:
        return False
    spend = [b * c.option.offer.price.usd_per_hour for b, c in zip(bought, columns, strict=True)]
    if limits.usd_per_hour is not None and sum(spend) > limits.usd_per_hour + EPS:
        return False
    if limits.max_vendor_share is not None and limits.vendor_share_of == "spend":
        for vendor in {c.option.offer.system.vendor for c in columns}:
            mine_usd = sum(x for x, c in zip(spend, columns, strict=True) if c.option.offer.system.vendor == vendor)
            if mine_usd > limits.max_vendor_share * sum(spend) + EPS:
                return False
    return True


def _carries(question: Question, columns: list[Column], counts: tuple[int, ...]) -> bool:
    """Whether the traffic can be laid on this fleet."""
    cells = [(d, i) for d in question.demands for i, n in enumerate(counts) if n and d.name in columns[i].capacity]
    upper: Rows = []
    for k in range(len(cells)):
        upper.append(([-float(j == k) for j in range(len(cells))], 0.0))
    for i, n in enumerate(counts):
        used = [1.0 / columns[i].capacity[d.name] if j == i else 0.0 for d, j in cells]
        upper.append((used, float(n)))
        if _must_be_used(question) and n:
            upper.append(([-x for x in used], 0.45 - 0.5 * n))
    upper += _shares(question, columns, cells)
    exact: Rows = [([float(d.name == e.name) for d, _ in cells], e.rate_per_s) for e in question.demands]
    return _not_empty(upper, exact, len(cells))


def _must_be_used(question: Question) -> bool:
    """A pool must be used, by half less 0.45 instances, where idle systems would dilute a vendor's share."""
    return question.limits.max_vendor_share is not None and question.limits.vendor_share_of == "spend"


def _shares(question: Question, columns: list[Column], cells: list[tuple[object, int]]) -> Rows:
    """Limits on shares of the output tokens."""
    limits, rows = question.limits, []
    total = sum(d.rate_per_s * d.mean_output for d in question.demands)
    outputs = [d.mean_output for d, _ in cells]  # type: ignore[attr-defined]
    for kind, share in limits.min_share_output_tokens.items():
        mine = [float(columns[i].option.offer.chip.kind == kind) for _, i in cells]
        rows.append(([-o * m for o, m in zip(outputs, mine, strict=True)], -share * total))
    if limits.max_vendor_share is not None and limits.vendor_share_of == "output_tokens":
        for vendor in {c.option.offer.system.vendor for c in columns}:
            mine = [float(columns[i].option.offer.system.vendor == vendor) for _, i in cells]
            rows.append(([o * m for o, m in zip(outputs, mine, strict=True)], limits.max_vendor_share * total))
    return rows


def _not_empty(upper: Rows, exact: Rows, n: int) -> bool:
    """Whether some x has ``upper`` and ``exact``; x is bounded, since it is not negative and its sums are fixed."""
    if not n:
        return False
    a, b = _scaled(upper, n)
    a_eq, b_eq = _scaled(exact, n)
    if np.any(np.all(a_eq == 0, axis=1)):
        return False  # a class that nothing serves
    free = n - len(exact)
    chosen = np.array(list(combinations(range(len(a)), free)), dtype=int)
    matrix = np.concatenate([np.broadcast_to(a_eq, (len(chosen), *a_eq.shape)), a[chosen]], axis=1)
    right = np.concatenate([np.broadcast_to(b_eq, (len(chosen), len(b_eq))), b[chosen]], axis=1)
    regular = np.abs(np.linalg.det(matrix)) > 1e-9
    corners = np.linalg.solve(matrix[regular], right[regular][..., None])[..., 0]
    return bool(np.any(np.all(corners @ a.T <= b + EPS, axis=1)))


def _scaled(rows: Rows, n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Each row over its largest coefficient, so that one tolerance suits all."""
    a = np.array([row for row, _ in rows], dtype=float).reshape(-1, n)
    b = np.array([bound for _, bound in rows], dtype=float)
    size = np.abs(a).max(axis=1, initial=0.0)
    size[size == 0] = 1.0
    return a / size[:, None], b / size

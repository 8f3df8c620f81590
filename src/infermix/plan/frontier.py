"""Frontiers: cost against speed, cost against dependence on one vendor, profit against power."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec

from infermix.errors import NoAnswer
from infermix.plan.model import Solution
from infermix.plan.prove import Progress, Proved
from infermix.plan.question import Demand, Question
from infermix.plan.result import FrontierPoint, PowerPoint, VendorPoint
from infermix.plan.solve import THREADS, Planner, choose, fractional_bound, replanned
from infermix.plan.whatif import paid_for, systems_in

FRONTIER = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Promised TPOT of the strictest class, as multiples of the study's."""
FRONTIER_ROUNDS = 4


def frontier(planner: Planner, proved: Proved, progress: Progress) -> list[FrontierPoint]:
    """Cost against the speed promised to the strictest class, at simulated capacities.

    A fleet that keeps a promise keeps every looser one, so costs never rise with looser promises.
    """
    timed = [d for d in planner.question.demands if d.cls.slo.tpot_s is not None]
    if not timed:
        return []
    strict = min(timed, key=lambda d: d.cls.slo.tpot_s or 0.0)
    promised = [multiple * (strict.cls.slo.tpot_s or 0.0) for multiple in FRONTIER]
    progress(f"frontier: {strict.name} at {promised[0] * 1e3:g} to {promised[-1] * 1e3:g} ms")
    with ThreadPoolExecutor(THREADS) as pool:
        solved = list(pool.map(lambda tpot_s: _frontier_point(planner, proved, strict, tpot_s), promised))
    points: list[FrontierPoint] = []
    for point in solved:
        points.append(_no_dearer(point, points[-1]) if points else point)
    return points


def _no_dearer(point: FrontierPoint, tighter: FrontierPoint) -> FrontierPoint:
    """The point, or the tighter promise's fleet where that is cheaper."""
    if tighter.usd_per_hour is None or (point.usd_per_hour or float("inf")) <= tighter.usd_per_hour:
        return point
    return msgspec.structs.replace(point, usd_per_hour=tighter.usd_per_hour, systems=tighter.systems)


def _frontier_point(planner: Planner, proved: Proved, strict: Demand, tpot_s: float) -> FrontierPoint:
    solution: Solution | None = proved.solution
    bound: float | None = None
    try:
        other = planner
        if tpot_s != strict.cls.slo.tpot_s:
            other = replanned(planner, planner.question.with_demands(_promised(planner, strict, tpot_s)), strict.name)
        bound = fractional_bound(other)
        if other is not planner:
            solution = choose(other, rounds=FRONTIER_ROUNDS)
    except NoAnswer:
        solution = None
    return FrontierPoint(
        class_name=strict.name,
        tpot_s=tpot_s,
        usd_per_hour=None if solution is None else solution.usd_per_hour,
        lower_bound_usd_per_hour=bound,
        systems={} if solution is None else systems_in(planner.question, solution),
    )


def _promised(planner: Planner, strict: Demand, tpot_s: float) -> tuple[Demand, ...]:
    """The classes with another TPOT promised to one of them."""
    cls = msgspec.structs.replace(strict.cls, slo=msgspec.structs.replace(strict.cls.slo, tpot_s=tpot_s))
    return tuple(replace(d, cls=cls) if d.name == strict.name else d for d in planner.question.demands)


SHARES = (0.9, 0.7, 0.5)
"""Largest shares of a vendor in what is spent that are tried."""
POWERS = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Powers that are tried, over what the plan draws."""


def vendor_frontier(planner: Planner, progress: Progress) -> list[VendorPoint]:
    """Cost against the largest share of the spend that one vendor may have (simulated capacities, not proved)."""
    progress("frontier: cost against dependence on one vendor")
    found = []
    for most in SHARES:
        limits = msgspec.structs.replace(planner.question.limits, max_vendor_share=most, vendor_share_of="spend")
        solution = _chosen(planner, planner.question.with_limits(limits))
        vendor, share = largest_vendor(planner.question, solution) if solution else ("", None)
        found.append(
            VendorPoint(
                max_vendor_share=most,
                usd_per_hour=solution.usd_per_hour if solution else None,
                vendor=vendor,
                share=share,
                systems=systems_in(planner.question, solution) if solution else {},
            )
        )
    return found


def largest_vendor(question: Question, solution: Solution) -> tuple[str, float]:
    """The vendor that gets most of what is spent on systems, and its share."""
    spent: dict[str, float] = {}
    for offer in {o.system.id: o for o in question.offers}.values():
        vendor = offer.system.vendor
        spent[vendor] = spent.get(vendor, 0.0) + paid_for(question, solution, offer.system.id)
    best = max(spent, key=lambda vendor: spent[vendor])
    return best, spent[best] / (sum(spent.values()) or 1.0)


def power_frontier(planner: Planner, base: Solution, progress: Progress) -> list[PowerPoint]:
    """Profit against the power at the wall (simulated capacities, not proved); nothing where profit is not asked."""
    question = planner.question
    if not question.profits or any(offer.facility_w is None for offer in question.offers):
        return []
    progress("frontier: profit against power")
    drawn = megawatts(question, base)
    found = []
    for factor in POWERS if drawn else ():
        limits = msgspec.structs.replace(question.limits, power_mw=factor * drawn + question.reserved_w() / 1e6)
        solution = _chosen(planner, question.with_limits(limits))
        profit = None if solution is None else -solution.loss_usd_per_hour
        used = 0.0 if solution is None else megawatts(question, solution)
        found.append(
            PowerPoint(
                power_mw=factor * drawn,
                used_mw=used,
                profit_usd_per_hour=profit,
                profit_usd_per_mw_hour=profit / used if profit is not None and used else None,
                systems=systems_in(question, solution) if solution else {},
            )
        )
    return found


def megawatts(question: Question, solution: Solution) -> float:
    """Power at the wall of all systems that are had, in the slot that takes most [MW]."""
    return max(
        sum(solution.had[k.name][s] * (offer.facility_w or 0.0) for offer, k in question.contracts) / 1e6
        for s in range(len(question.slots))
    )


def _chosen(planner: Planner, question: Question) -> Solution | None:
    try:
        return choose(planner.narrowed(question), rounds=FRONTIER_ROUNDS)
    except NoAnswer:
        return None

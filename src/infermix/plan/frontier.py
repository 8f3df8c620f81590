"""Frontiers: cost against speed, cost against dependence on one vendor, profit against power."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import NamedTuple

import msgspec

from infermix.errors import NoAnswer
from infermix.fleet import Fleet
from infermix.plan.curve import Curve, Held, open_curve
from infermix.plan.evidence import Traffic
from infermix.plan.model import Solution
from infermix.plan.prove import Progress, Proved, fleet_of
from infermix.plan.question import Demand, Question
from infermix.plan.result import FrontierPoint, PowerPoint, ProvedFleet, VendorPoint
from infermix.plan.solve import THREADS, Planner, choose, fractional_bound, replanned
from infermix.plan.whatif import paid_for, systems_in

FRONTIER = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Promised TPOT of the strictest class, as multiples of the study's."""
FRONTIER_ROUNDS = 4
MARGIN = 0.01
"""By how much shares are stricter in the program, relatively: simulated tokens fall not quite where it puts them."""


class Frontier(NamedTuple):
    """Cost against speed: at a few promises, and every fleet that was proved on the way."""

    points: list[FrontierPoint]
    fleets: list[ProvedFleet]


class _Point(NamedTuple):
    """A promise, its bound, and what the program has for it."""

    tpot_s: float
    bound: float | None
    solution: Solution | None


def frontier(
    planner: Planner, proved: Proved, progress: Progress, traffic: Traffic | None = None, fleets: int = 0
) -> Frontier:
    """Cost against the speed promised to the strictest class.

    With ``traffic`` fleets are proved on it, routed by the plan's shares, until there are ``fleets`` of them; else
    capacities are simulated ones. A fleet that keeps a promise keeps every looser one, so costs never rise with looser
    promises.
    """
    timed = [d for d in planner.question.demands if d.cls.slo.tpot_s is not None]
    if not timed:
        return Frontier([], [])
    strict = min(timed, key=lambda d: d.cls.slo.tpot_s or 0.0)
    promised = [multiple * (strict.cls.slo.tpot_s or 0.0) for multiple in FRONTIER]
    progress(f"frontier: {strict.name} at {promised[0] * 1e3:g} to {promised[-1] * 1e3:g} ms")
    with ThreadPoolExecutor(THREADS) as pool:
        solved = list(pool.map(lambda tpot_s: _solved(planner, proved, strict, tpot_s), promised))
    curve = (
        None if traffic is None else _proved_curve(planner.question, proved, traffic, strict, solved, fleets, progress)
    )
    points: list[FrontierPoint] = []
    for point in solved:
        made = _frontier_point(planner.question, strict.name, point, curve)
        points.append(_no_dearer(made, points[-1]) if points else made)
    return Frontier(points, [] if curve is None else _fleets(curve))


def _proved_curve(
    question: Question,
    proved: Proved,
    traffic: Traffic,
    strict: Demand,
    solved: list[_Point],
    fleets: int,
    progress: Progress,
) -> Curve:
    """The program's fleets with as many instances as their promises take, the plan's own, and what is near to them."""
    curve = open_curve(question, traffic, strict.name)
    curve.prove(proved.fleet)
    for point in solved:
        if point.solution is not None and point.solution is not proved.solution:
            progress(f"frontier: a fleet for {point.tpot_s * 1e3:g} ms")
            curve.settle(fleet_of(question, point.solution), point.tpot_s)
    curve.explore(fleets, progress)
    curve.confirm()
    return curve


def _fleets(curve: Curve) -> list[ProvedFleet]:
    best = curve.best
    return [
        ProvedFleet(
            usd_per_hour=held.usd_per_hour,
            tpot_s=held.tpot_s,
            pools={pool.name: pool.instances for pool in held.fleet.pools},
            systems=_systems(held.fleet),
            status=_status(held),
            best=held in best,
        )
        for held in curve.held
    ]


def _status(held: Held) -> str:
    return "proved" if held.low else "proved_nominal"


def _systems(fleet: Fleet) -> dict[str, int]:
    found: dict[str, int] = {}
    for pool in fleet.pools:
        system = pool.deployment.system.id
        found[system] = found.get(system, 0) + pool.systems
    return found


def _no_dearer(point: FrontierPoint, tighter: FrontierPoint) -> FrontierPoint:
    """The point, or the tighter promise's fleet where that is cheaper."""
    if tighter.usd_per_hour is None or (point.usd_per_hour or float("inf")) <= tighter.usd_per_hour:
        return point
    names = ("usd_per_hour", "systems", "status", "held_tpot_s")
    return msgspec.structs.replace(point, **{name: getattr(tighter, name) for name in names})


def _solved(planner: Planner, proved: Proved, strict: Demand, tpot_s: float) -> _Point:
    solution: Solution | None = proved.solution
    bound: float | None = None
    try:
        other = planner
        if tpot_s != strict.cls.slo.tpot_s:
            other = replanned(planner, planner.question.with_demands(_promised(planner, strict, tpot_s)), strict.name)
        bound = fractional_bound(other)
        if other is not planner:
            other.share_margin = max(planner.share_margin, MARGIN)
            solution = choose(other, rounds=FRONTIER_ROUNDS)
    except NoAnswer:
        solution = None
    return _Point(tpot_s, bound, solution)


def _frontier_point(question: Question, name: str, point: _Point, curve: Curve | None) -> FrontierPoint:
    """The cheapest fleet that was proved for a promise; where none was, the program's."""
    held, solution = (None if curve is None else curve.cheapest(point.tpot_s)), point.solution
    found = FrontierPoint(
        class_name=name,
        tpot_s=point.tpot_s,
        usd_per_hour=None if solution is None else solution.usd_per_hour,
        lower_bound_usd_per_hour=point.bound,
        systems={} if solution is None else systems_in(question, solution),
    )
    if held is None:
        return found
    return msgspec.structs.replace(
        found,
        usd_per_hour=held.usd_per_hour,
        systems=_systems(held.fleet),
        status=_status(held),
        held_tpot_s=held.tpot_s,
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

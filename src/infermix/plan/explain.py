"""Why the plan is what it is: single-chip fleets, limits, rejected systems, the frontier, figures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec

from infermix.catalog.query import figure
from infermix.errors import NoAnswer
from infermix.fleet import Fleet
from infermix.perf.figures import of_deployment, with_roots
from infermix.plan.evidence import Traffic
from infermix.plan.limits import LimitUse, fleet_cost
from infermix.plan.model import Solution
from infermix.plan.prove import Progress, Proved, fleet_of, prove
from infermix.plan.question import Demand, Question
from infermix.plan.result import FigureUse, FrontierPoint, Limit, SingleChip, Why
from infermix.plan.rules import Limits
from infermix.plan.solve import THREADS, Planner, choose, lower_bound, replanned

FRONTIER = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Promised TPOT of the strictest class, as multiples of the study's."""
FRONTIER_ROUNDS = 6


def single_chip_fleets(planner: Planner, traffic: Traffic, progress: Progress) -> list[SingleChip]:
    """For every system on the market the fleet it would make alone, cheapest first."""
    free = planner.question.with_limits(_without_shares(planner.question.limits))
    rows = [_single_chip(planner, free, offer.system.id, traffic, progress) for offer in planner.question.offers]
    return sorted(rows, key=lambda row: (row.usd_per_hour is None, row.usd_per_hour or 0.0, row.system))


def _single_chip(planner: Planner, free: Question, system: str, traffic: Traffic, progress: Progress) -> SingleChip:
    question = free.with_offers([system])
    narrow = planner.narrowed(question)
    classes: dict[str, dict[str, float | str | None]] = {}
    for demand in question.demands:
        reason = planner.misfits.get(system) or planner.reasons[demand.name].get(system)
        if reason:
            classes[demand.name] = {"usd_per_hour": None, "reason": reason}
            continue
        alone = choose(narrow.narrowed(question.with_demands((demand,))))
        cost = fleet_cost(question, fleet_of(question.with_demands((demand,)), alone)) if alone else None
        classes[demand.name] = {"usd_per_hour": cost, "reason": "" if alone else "supply or power run out"}
    row = SingleChip(system=system, status="cannot", usd_per_hour=None, lower_bound_usd_per_hour=None, classes=classes)
    if any(c["usd_per_hour"] is None for c in classes.values()):
        return row
    progress(f"single-chip fleet of {system}")
    found = prove(narrow, traffic, thin=False)
    if found is None:
        return row
    cost = fleet_cost(question, found.fleet)
    return msgspec.structs.replace(
        row, status=found.status, usd_per_hour=cost, lower_bound_usd_per_hour=lower_bound(narrow)
    )


def _without_shares(limits: Limits) -> Limits:
    return msgspec.structs.replace(limits, max_vendor_share=None, min_share_output_tokens={})


def without_share_limits(
    planner: Planner, proved: Proved, traffic: Traffic, progress: Progress
) -> dict[str, float | str | None]:
    """The same study without its least shares by kind of chip: cost and status."""
    limits = planner.question.limits
    if not limits.min_share_output_tokens:
        return {}
    question = planner.question.with_limits(msgspec.structs.replace(limits, min_share_output_tokens={}))
    relaxed = planner.narrowed(question)
    solution = choose(relaxed)
    if solution is not None and solution.usd_per_hour >= proved.solution.usd_per_hour - 1e-6:
        return {
            "usd_per_hour": fleet_cost(question, proved.fleet),
            "status": proved.status,
            "lower_bound_usd_per_hour": lower_bound(relaxed),
        }
    progress("the same study without its least shares")
    found = prove(relaxed, traffic)
    cost = fleet_cost(question, found.fleet) if found else None
    return {
        "usd_per_hour": cost,
        "status": found.status if found else "infeasible",
        "lower_bound_usd_per_hour": lower_bound(relaxed),
    }


def price_limits(planner: Planner, proved: Proved, uses: list[LimitUse], progress: Progress) -> list[Limit]:
    """Each limit with the worth of one more unit, found by solving again with that unit more."""
    progress("what one more of each limit is worth")
    base = proved.solution.usd_per_hour
    rows = []
    for use in uses:
        relaxed, unit, step = _relaxed(planner.question, use)
        near = abs(use.used - use.allowed) <= 0.02 * max(abs(use.allowed), 1e-12) + (step if unit == "system" else 0.0)
        saved = 0.0
        if near and relaxed is not None:
            cheaper = choose(planner.narrowed(relaxed))
            saved = max(0.0, base - cheaper.usd_per_hour) if cheaper else 0.0
        rows.append(
            Limit(name=use.name, used=use.used, allowed=use.allowed, binding=near, shadow_price=saved, unit=unit)
        )
    return rows


def _relaxed(question: Question, use: LimitUse) -> tuple[Question | None, str, float]:
    """(the question with one unit more, the unit, its size)."""
    limits, key = question.limits, use.name.split(" ")[0].split(".", 1)[1]
    if key.startswith("supply."):
        system = key.split(".", 1)[1]
        offers = tuple(
            replace(o, supply=o.supply + 1) if o.system.id == system and o.supply is not None else o
            for o in question.offers
        )
        return replace(question, offers=offers), "system", 1.0
    if key == "power_mw":
        return question.with_limits(msgspec.structs.replace(limits, power_mw=use.allowed + 0.1)), "0.1 MW", 0.1
    if key == "usd_per_hour":
        return question.with_limits(msgspec.structs.replace(limits, usd_per_hour=use.allowed * 1.01)), "1 %", 0.0
    if key == "max_vendor_share":
        return (
            question.with_limits(msgspec.structs.replace(limits, max_vendor_share=min(1.0, use.allowed + 0.01))),
            "1 % point",
            0.01,
        )
    kind = key.split(".", 1)[1]
    shares = {**limits.min_share_output_tokens, kind: max(0.0, use.allowed - 0.01)}
    return question.with_limits(msgspec.structs.replace(limits, min_share_output_tokens=shares)), "1 % point", 0.01


def why(planner: Planner, proved: Proved, progress: Progress) -> list[Why]:
    """A sentence for every system on the market."""
    progress("why each system is in or out")
    chosen = {p.deployment.system.id for p in proved.fleet.pools}
    best = {d.name: _least_cost_per_request(planner, d.name, None) for d in planner.question.demands}
    rows = []
    for offer in planner.question.offers:
        system = offer.system.id
        parts = [_about(planner, system, name, best[name]) for name in planner.question.class_names]
        reason = planner.misfits.get(system) or "; ".join(parts)
        if system in chosen:
            serves = {n: s for p in proved.fleet.pools if p.deployment.system.id == system for n, s in p.serves.items()}
            reason = "serves " + " and ".join(f"{s:.0%} of {n}" for n, s in serves.items()) + "; " + reason
        else:
            dearer = _cost_if_forced(planner, system, proved.solution.usd_per_hour)
            reason += f"; buying one all the same makes the fleet {dearer}" if dearer else ""
        rows.append(Why(system=system, chosen=system in chosen, reason=reason))
    return rows


def _least_cost_per_request(planner: Planner, name: str, system: str | None) -> float | None:
    """USD per request of a class at the best capacity known (simulated where it was, optimistic elsewhere)."""
    demand = next(d for d in planner.question.demands if d.name == name)
    costs = []
    for option in planner.short:
        if (system is None or option.offer.system.id == system) and planner.may_serve(option, demand):
            rate = planner.capacities.best_known(option, demand)
            costs.append(option.usd_per_hour / rate / 3600.0)
    return min(costs) if costs else None


def _about(planner: Planner, system: str, name: str, best: float | None) -> str:
    reason = planner.reasons[name].get(system)
    if reason:
        return f"{name}: cannot, {reason}"
    mine = _least_cost_per_request(planner, name, system)
    if mine is None or best is None:
        return f"{name}: not tried"
    rank = "the cheapest" if mine <= best * 1.0001 else f"{_times(mine / best)} times the cheapest"
    return f"{name}: {mine * 1e6:,.0f} USD per million requests, {rank}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def _cost_if_forced(planner: Planner, system: str, base: float) -> str:
    if all(system in refused for refused in planner.reasons.values()) or system in planner.misfits:
        return ""
    forced = choose(planner.narrowed(replace(planner.question, forced=system)))
    if forced is None:
        return ""
    return f"{forced.usd_per_hour / base - 1:.1%} dearer" if forced.usd_per_hour > base * 1.001 else "no dearer"


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
    point = FrontierPoint(
        class_name=strict.name, tpot_s=tpot_s, usd_per_hour=None, lower_bound_usd_per_hour=None, systems={}
    )
    solution: Solution | None = proved.solution
    other = planner
    try:
        if tpot_s != strict.cls.slo.tpot_s:
            other = replanned(planner, planner.question.with_demands(_promised(planner, strict, tpot_s)), strict.name)
            point = msgspec.structs.replace(point, lower_bound_usd_per_hour=lower_bound(other))
            solution = choose(other, rounds=FRONTIER_ROUNDS)
    except NoAnswer:
        return point
    if solution is None:
        return point
    systems: dict[str, int] = {}
    for choice in solution.choices:
        system = choice.column.option.offer.system.id
        systems[system] = systems.get(system, 0) + choice.systems
    return msgspec.structs.replace(
        point,
        usd_per_hour=solution.usd_per_hour,
        lower_bound_usd_per_hour=lower_bound(other),
        systems=dict(sorted(systems.items())),
    )


def _promised(planner: Planner, strict: Demand, tpot_s: float) -> tuple[Demand, ...]:
    """The classes with another TPOT promised to one of them."""
    cls = msgspec.structs.replace(strict.cls, slo=msgspec.structs.replace(strict.cls.slo, tpot_s=tpot_s))
    return tuple(replace(d, cls=cls) if d.name == strict.name else d for d in planner.question.demands)


def figures_used(question: Question, fleet: Fleet) -> list[str]:
    """Ids of every catalogue figure that speed, size, power or price of fleet and training came from."""
    found: list[str] = []
    for pool in fleet.pools:
        d = pool.deployment
        offer = next(o for o in question.offers if o.system.id == d.system.id)
        found += of_deployment(d)
        found += list(offer.price.figures)
        found += [f"systems/{d.system.id}/power_w"] if d.system.power_w is not None else []
    for held in (r for r in question.reserved if r.counted):
        found += list(held.price.figures)
        found += [f"systems/{held.system.id}/power_w"] if held.system.power_w is not None else []
    return with_roots(question.catalog, found)


def unverified(question: Question, ids: list[str]) -> list[FigureUse]:
    """Of these figures the ones that nobody looked up."""
    rows = []
    for id_ in ids:
        f = figure(question.catalog, id_)
        if f.kind == "unverified":
            rows.append(FigureUse(id=id_, value=f.value, unit=f.unit, kind=f.kind, low=f.low, high=f.high, note=f.note))
    return rows

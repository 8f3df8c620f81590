"""Beside the plan: fleets of one system alone, and the same study without its shares."""

from __future__ import annotations

import msgspec

from infermix.plan.evidence import Traffic
from infermix.plan.limits import fleet_cost
from infermix.plan.prove import Progress, Proved, fleet_of, prove
from infermix.plan.question import Question
from infermix.plan.result import SingleChip
from infermix.plan.rules import Limits
from infermix.plan.solve import Planner, choose, lower_bound


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
    return msgspec.structs.replace(limits, max_vendor_share=None, min_share_output_tokens={}, shares=[])


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

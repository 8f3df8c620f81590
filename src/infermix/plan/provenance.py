"""Catalogue figures that a plan hangs on."""

from __future__ import annotations

from infermix.catalog.query import figure
from infermix.fleet import Fleet
from infermix.perf.figures import of_deployment, with_roots
from infermix.plan.question import Question
from infermix.plan.result import FigureUse


def figures_used(question: Question, fleet: Fleet) -> list[str]:
    """Ids of every catalogue figure that speed, size, power or price of fleet and training came from."""
    found: list[str] = []
    for pool in fleet.pools:
        d = pool.deployment
        offer = next(o for o in question.offers if o.system.id == d.system.id)
        found += of_deployment(d)
        if d.role != "both" and d.chip.scaleout_bytes_per_s is not None:
            found.append(f"chips/{d.chip.id}/scaleout_bytes_per_s")
        found += list(offer.price.figures) + [id_ for contract in offer.contracts for id_ in contract.figures]
        found += [f"systems/{d.system.id}/power_w"] if d.system.power_w is not None else []
    for held in (r for r in question.reserved if r.counted):
        found += list(held.price.figures)
        found += [f"systems/{held.system.id}/power_w"] if held.system.power_w is not None else []
    found += [id_ for api in question.apis for id_ in api.figures]
    return with_roots(question.catalog, found)


def unverified(question: Question, ids: list[str]) -> list[FigureUse]:
    """Of these figures the ones that nobody looked up."""
    rows = []
    for id_ in ids:
        f = figure(question.catalog, id_)
        if f.kind == "unverified":
            rows.append(FigureUse(id=id_, value=f.value, unit=f.unit, kind=f.kind, low=f.low, high=f.high, note=f.note))
    return rows

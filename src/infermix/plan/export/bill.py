"""The bill of materials: what is bought or rented, from whom, at which price, on whose word."""

from __future__ import annotations

import csv
import io

from infermix.catalog.load import Catalog
from infermix.catalog.query import figure, roots
from infermix.catalog.records import System
from infermix.cost.rent import hourly_price
from infermix.errors import InputError
from infermix.plan.problem import Study
from infermix.plan.result import Plan

COLUMNS = (
    "use", "system", "vendor", "chip", "systems", "chips", "usd_per_hour_each", "usd_per_hour", "basis",
    "capital_usd_each", "capital_usd", "power_kw", "price_kind", "price_source", "capital_kind", "capital_source",
)  # fmt: skip


def bill_of_materials(plan: Plan, study: Study, facts: Catalog) -> str:
    """CSV with a row for each system and use; money in USD, power in kW at the wall; empty where nothing is known."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for use, system, count, cost, basis, power_kw in _lines(plan):
        writer.writerow(_row(study, facts, facts.systems[system], use, count, cost, basis, power_kw))
    for bought in plan.api:
        row = dict.fromkeys(COLUMNS, "") | {"use": f"API {bought.name}", "vendor": bought.vendor, "basis": "tokens"}
        writer.writerow(row | {"usd_per_hour": f"{bought.usd_per_hour:.4f}", "price_kind": "study"})
    return out.getvalue()


Line = tuple[str, str, int, float, str, float | None]
"""Use, system, how many, USD an hour of all, basis, kW of all."""


def _lines(plan: Plan) -> list[Line]:
    """Pools of one system and basis are one line, for they are bought together; training stands apart."""
    runs = [
        (f"training {run.name}", run.system, run.systems, run.usd_per_hour, run.basis, run.facility_kw)
        for run in plan.training
    ]
    if plan.contracts:
        had = [(contract, max(contract.systems)) for contract in plan.contracts]
        signed = [
            (f"serving, {c.name}", c.system, n, n * c.usd_per_hour, c.basis or "contract", None) for c, n in had if n
        ]  # fmt: skip
        return [*signed, *runs]
    found: dict[tuple[str, str], Line] = {}
    for pool in plan.fleet:
        key = (pool.system, pool.basis)
        _, _, count, cost, _, power = found.get(key, ("", "", 0, 0.0, "", 0.0))
        power_kw = None if power is None or pool.facility_kw is None else power + pool.facility_kw
        found[key] = ("serving", pool.system, count + pool.systems, cost + pool.usd_per_hour, pool.basis, power_kw)
    return [*found.values(), *runs]


def _row(
    study: Study, facts: Catalog, system: System, use: str, count: int, cost: float, basis: str, power_kw: float | None
) -> dict[str, object]:
    capital = system.capital_usd
    price_kind, price_source = _price_words(study, facts, system)
    if capital is not None and basis.startswith("capital"):
        price_kind, price_source = capital.kind, source_words(facts, f"systems/{system.id}/capital_usd")
    return {
        "use": use,
        "system": system.id,
        "vendor": system.vendor,
        "chip": system.chip,
        "systems": count,
        "chips": count * (system.chips + system.spare_chips),
        "usd_per_hour_each": f"{cost / count:.4f}",
        "usd_per_hour": f"{cost:.4f}",
        "basis": basis,
        "capital_usd_each": f"{capital.value:.0f}" if capital else "",
        "capital_usd": f"{capital.value * count:.0f}" if capital else "",
        "power_kw": "" if power_kw is None else f"{power_kw:.3f}",
        "price_kind": price_kind,
        "price_source": price_source,
        "capital_kind": capital.kind if capital else "",
        "capital_source": source_words(facts, f"systems/{system.id}/capital_usd") if capital else "",
    }


def _price_words(study: Study, facts: Catalog, system: System) -> tuple[str, str]:
    """Kind and source of the price by the hour."""
    stated = study.market.prices.get(system.id) if study.market else None
    try:
        price = hourly_price(system, study.cost_basis, study.cost, stated)
    except InputError:  # a price that a contract states
        return "study", f"{study.name or study.path}: market.contracts"
    if not price.figures:
        return "study", f"{study.name or study.path}: market.prices"
    first = price.figures[0]
    return figure(facts, first).kind, source_words(facts, first)


def source_words(facts: Catalog, figure_id: str) -> str:
    """Sources that a figure hangs on in the end, each in words with its address."""
    ids = dict.fromkeys(source for root in roots(facts, figure_id) for source in figure(facts, root).source)
    found = (facts.sources[id_] for id_ in ids)
    return "; ".join(f"{source.text} <{source.url}>" if source.url else source.text for source in found)

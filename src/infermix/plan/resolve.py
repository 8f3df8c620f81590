"""A study's market resolved: offers with their contracts, APIs, and what training holds."""

from __future__ import annotations

from collections.abc import Mapping

from infermix.catalog.load import Catalog
from infermix.catalog.query import find_model, find_system
from infermix.catalog.records import Model, Price, System
from infermix.cost.energy import facility_w
from infermix.cost.rent import HourlyPrice, capital_of, contract_price, hourly_price
from infermix.errors import InputError, located, near_miss
from infermix.plan.market import ApiRow, ContractRow, Market
from infermix.plan.offers import Api, Contract, Offer, Reservation
from infermix.plan.problem import Study
from infermix.plan.slots import Slot
from infermix.workload.shape import HOURS, hours_of


def offers_of(study: Study, facts: Catalog, market: Market) -> tuple[Offer, ...]:
    """Every system of the market, once for each region in which contracts put it."""
    found = []
    for name in market.systems:
        rows = {key: row for key, row in market.contracts.items() if row.system == name}
        if not rows:
            found.append(_plain(study, facts, market, name))
            continue
        regions = dict.fromkeys(row.region for row in rows.values())
        parts = [{key: row for key, row in rows.items() if row.region == region} for region in regions]
        found += [_under_contracts(study, facts, market, part) for part in parts]
    return tuple(found)


def _plain(study: Study, facts: Catalog, market: Market, name: str) -> Offer:
    """A system at its price on the study's basis, had all day."""
    with located(f"{study.path}: market.systems"):
        system = find_system(name, facts)
        price = hourly_price(system, study.cost_basis, study.cost, market.prices.get(name))
    return _offer(study, facts, market, system, price, ())


def _under_contracts(study: Study, facts: Catalog, market: Market, rows: Mapping[str, ContractRow]) -> Offer:
    """A system as the contracts of one region have it."""
    made, prices = [], []
    for name, row in rows.items():
        where = f"{study.path}: market.contracts.{name}"
        with located(where):
            system = find_system(row.system, facts)
            price = contract_price(system, row.terms, study.cost, row.usd_per_hour, row.capital_usd)
        _check_basis(study, row, where)
        made.append(_contract(name, row, system, price, market))
        prices.append(price)
    best = min(prices, key=lambda price: price.usd_per_hour)
    return _offer(study, facts, market, system, best, tuple(made), next(iter(rows.values())).region)


def _check_basis(study: Study, row: ContractRow, where: str) -> None:
    wanted = "own" if row.terms == "own" else "rent"
    if study.cost_basis not in (wanted, "paid"):
        raise InputError(
            f"{row.terms} is not on the study's cost_basis, which is {study.cost_basis}",
            where=f"{where}.terms",
            value=row.terms,
            mend='cost_basis = "paid" sets what is rented beside what is bought',
        )


def _contract(name: str, row: ContractRow, system: System, price: HourlyPrice, market: Market) -> Contract:
    late = None not in (row.delivery, market.needed_by) and row.delivery > market.needed_by  # type: ignore[operator]
    own = row.terms == "own" and row.usd_per_hour is None
    return Contract(
        name=name,
        usd_per_hour=price.usd_per_hour,
        supply=row.supply,
        hourly=row.terms in ("on_demand", "spot"),
        basis=price.basis,
        figures=price.figures,
        capital_usd=capital_of(system, row.capital_usd) if own else 0.0,
        least_paid=row.least_systems,
        signed=row.signed,
        delivered=row.delivered,
        deposit=row.deposit,
        up=1.0 - row.down,
        late=late,
    )


def _offer(
    study: Study,
    facts: Catalog,
    market: Market,
    system: System,
    price: HourlyPrice,
    contracts: tuple[Contract, ...],
    region: str = "",
) -> Offer:
    return Offer(
        system=system,
        chip=facts.chips[system.chip],
        price=price,
        supply=market.supply.get(system.id),
        facility_w=facility_w(system, study.cost.pue) if system.power_w is not None else None,
        contracts=contracts,
        region=region,
        models=tuple(market.supports.get(system.id, ())),
    )


def apis_of(study: Study, facts: Catalog, market: Market, model: Model) -> tuple[Api, ...]:
    """The endpoints of the market at list price and speed."""
    return tuple(_api(study, facts, name, row, model) for name, row in market.api.items())


def _api(study: Study, facts: Catalog, name: str, row: ApiRow, default: Model) -> Api:
    where = f"{study.path}: market.api.{name}"
    with located(f"{where}.model"):
        model = default if row.model is None else find_model(row.model, facts)
    price = None if row.price is None else _price(facts, row.price, where)
    figures: list[str] = []

    def told(stated: float | None, figure_key: str) -> float | None:
        figure = None if price is None else getattr(price, figure_key)
        if stated is None and price is not None and figure is not None:
            figures.append(f"prices/{price.id}/{figure_key}")
            return float(figure.value)
        return stated

    inputs = told(row.input_usd_per_mtok, "input_usd_per_mtok")
    outputs = told(row.output_usd_per_mtok, "output_usd_per_mtok")
    speed = told(row.tokens_per_s, "speed_tokens_per_s")
    if inputs is None or outputs is None or speed is None:
        missing = {"input_usd_per_mtok": inputs, "output_usd_per_mtok": outputs, "tokens_per_s": speed}
        names = ", ".join(key for key, value in missing.items() if value is None)
        raise InputError(f"the price does not say {names}", where=where, value=row.price, mend=f"state {names}")
    return Api(
        name=name,
        vendor=row.vendor,
        model=model,
        input_usd_per_mtok=inputs,
        cached_usd_per_mtok=inputs if row.cached_usd_per_mtok is None else row.cached_usd_per_mtok,
        output_usd_per_mtok=outputs,
        tokens_per_s=speed,
        ttft_s=row.ttft_s,
        most_tokens_per_s=row.most_tokens_per_s,
        region=row.region,
        figures=tuple(figures),
    )


def _price(facts: Catalog, name: str, where: str) -> Price:
    prices = {key: price for key, price in facts.prices.items() if price.basis == "api"}
    if name not in prices:
        raise InputError("unknown price of an API", where=f"{where}.price", value=name, mend=near_miss(name, prices))
    return prices[name]


def reservations(study: Study, facts: Catalog, slots: tuple[Slot, ...]) -> tuple[Reservation, ...]:
    """The study's training runs with price and power; InputError where they need more than there is."""
    found = []
    for name, run in study.training.items():
        with located(f"{study.path}: training.{name}.system"):
            system = find_system(run.system, facts)
            own = study.market.prices.get(run.system) if study.market else None
            price = hourly_price(system, study.cost_basis, study.cost, own)
        found.append(
            Reservation(
                name=name,
                system=system,
                chip=facts.chips[system.chip],
                systems=run.systems,
                hours=run.hours,
                price=price,
                facility_w=facility_w(system, study.cost.pue) if system.power_w is not None else None,
                slots=tuple(slot.hour is None or slot.hour in hours_of(run.hours) for slot in slots),
            )
        )
    _check_held(study, tuple(found))
    return tuple(found)


def _check_held(study: Study, found: tuple[Reservation, ...]) -> None:
    """No hour in which training holds more than there is."""
    supply = study.market.supply if study.market else {}
    for system_id, have in supply.items():
        mine = [r for r in found if r.system.id == system_id]
        held = max(sum(r.systems for r in mine if h in hours_of(r.hours)) for h in range(HOURS))
        if held > have:
            raise InputError(
                f"training holds more {system_id} than there are",
                where=f"{study.path}: training ({', '.join(r.name for r in mine)})",
                value=held,
                allowed=f"at most market.supply.{system_id} = {have}",
                mend="lower systems, or let the hours part",
            )

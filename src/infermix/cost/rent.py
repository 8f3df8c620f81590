"""One basis for all prices: what a system costs by the hour, rented or owned.

A price on another basis is converted only with terms that the study states; otherwise the system
is refused by name, for a rent and an operator's cost are not to be compared.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from infermix.catalog.records import System
from infermix.cost.energy import facility_w
from infermix.cost.tco import annuity_usd_per_hour, energy_usd_per_hour
from infermix.errors import InputError

CostBasis = Literal["rent", "own", "paid"]
"""``paid``: what the asker pays by the hour, rents where it rents and capital over its life where it buys."""
ContractKind = Literal["own", "reserved", "on_demand", "spot"]


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How prices are converted; every field a statement of the study."""

    gross_margin: float | None = None
    """Share of a rent that is not its operator's cost: rent = cost / (1 - margin)."""
    life_years: float | None = None
    finance_rate: float = 0.0
    hosting: float = 0.0
    """Staff, space and network by the hour, as a share of the capital cost by the hour."""
    utilisation: float = 1.0
    """Share of hours in which an owned system is let or used."""
    usd_per_kwh: float | None = None
    pue: float = 1.2


class HourlyPrice(msgspec.Struct, frozen=True):
    """Price of a system by the hour, how it came about, and the figure it hangs on."""

    usd_per_hour: float
    basis: str
    figures: tuple[str, ...]


def hourly_price(system: System, basis: CostBasis, terms: Terms, supplied: float | None = None) -> HourlyPrice:
    """Price of a system on the study's basis.

    Raises
    ------
    InputError
        The catalogue has no price on this basis and the study states neither the terms to convert one nor the price.
    """
    if supplied is not None:
        return HourlyPrice(supplied, f"{basis} (stated by the study)", ())
    convert = {"rent": _to_rent, "own": _to_own, "paid": _to_paid}[basis]
    return convert(system, terms)


def contract_price(
    system: System, kind: ContractKind, terms: Terms, usd_per_hour: float | None, capital_usd: float | None
) -> HourlyPrice:
    """What a system costs the asker by the hour under a contract: its rent, or what owning it costs.

    Raises
    ------
    InputError
        The catalogue has no such price and the contract states none, or terms of owning are missing.
    """
    if usd_per_hour is not None:
        return HourlyPrice(usd_per_hour, f"{kind} (stated by the study)", ())
    if kind != "own":
        if system.rent_usd_per_hour is None:
            raise _refusal(system, "rent", "the contract's usd_per_hour")
        figure = f"systems/{system.id}/rent_usd_per_hour"
        return HourlyPrice(system.rent_usd_per_hour.value, kind, (figure,))
    capital = capital_of(system, capital_usd)
    if terms.life_years is None or terms.usd_per_kwh is None:
        raise _refusal(system, "own", "cost.life_years and cost.usd_per_kwh")
    made = _from_capital(system, capital, terms, terms.life_years, terms.usd_per_kwh)
    return made if capital_usd is None else HourlyPrice(made.usd_per_hour, made.basis, made.figures[1:])


def capital_of(system: System, stated_usd: float | None = None) -> float:
    """Price of one system that is bought [USD]: as stated, else the catalogue's; InputError where there is none."""
    if stated_usd is None and system.capital_usd is None:
        raise _refusal(system, "capital", "the contract's capital_usd")
    return stated_usd if stated_usd is not None else system.capital_usd.value  # type: ignore[union-attr]


def _to_paid(system: System, terms: Terms) -> HourlyPrice:
    """The rent where there is one, else what owning costs."""
    if system.rent_usd_per_hour is not None:
        return _to_rent(system, terms)
    return _own_cost(system, terms, "paid")


def _to_rent(system: System, terms: Terms) -> HourlyPrice:
    if system.rent_usd_per_hour is not None:
        return HourlyPrice(system.rent_usd_per_hour.value, "rent", (f"systems/{system.id}/rent_usd_per_hour",))
    cost = _own_cost(system, terms, "rent")
    if terms.gross_margin is None:
        raise _refusal(system, "rent", "cost.gross_margin")
    rent = cost.usd_per_hour / (1.0 - terms.gross_margin)
    return HourlyPrice(rent, f"rent (from {cost.basis} at {terms.gross_margin:.0%} gross margin)", cost.figures)


def _to_own(system: System, terms: Terms) -> HourlyPrice:
    if (
        system.capital_usd is None
        and system.operator_cost_usd_per_hour is None
        and system.rent_usd_per_hour is not None
    ):
        if terms.gross_margin is None:
            raise _refusal(system, "own", "cost.gross_margin")
        cost = system.rent_usd_per_hour.value * (1.0 - terms.gross_margin)
        return HourlyPrice(
            cost, f"own (from rent less {terms.gross_margin:.0%})", (f"systems/{system.id}/rent_usd_per_hour",)
        )
    return _own_cost(system, terms, "own")


def _own_cost(system: System, terms: Terms, basis: CostBasis) -> HourlyPrice:
    if system.operator_cost_usd_per_hour is not None:
        figure = f"systems/{system.id}/operator_cost_usd_per_hour"
        return HourlyPrice(system.operator_cost_usd_per_hour.value, "operator's cost", (figure,))
    if system.capital_usd is None:
        raise InputError(
            "no price in the catalogue",
            where=system.id,
            mend=f"state one: [market.prices] {system.id} = USD per hour",
        )
    if terms.life_years is None or terms.usd_per_kwh is None:
        raise _refusal(system, basis, "cost.life_years and cost.usd_per_kwh")
    return _from_capital(system, system.capital_usd.value, terms, terms.life_years, terms.usd_per_kwh)


def _from_capital(
    system: System, capital_usd: float, terms: Terms, life_years: float, usd_per_kwh: float
) -> HourlyPrice:
    paid_back = annuity_usd_per_hour(capital_usd, life_years, terms.finance_rate)
    power = energy_usd_per_hour(facility_w(system, terms.pue), usd_per_kwh)
    cost = (paid_back * (1 + terms.hosting) + power) / terms.utilisation
    return HourlyPrice(
        cost, f"capital over {life_years:g} years", (f"systems/{system.id}/capital_usd", f"systems/{system.id}/power_w")
    )


def _refusal(system: System, basis: str, terms: str) -> InputError:
    has = [name for name in ("rent_usd_per_hour", "capital_usd", "operator_cost_usd_per_hour") if getattr(system, name)]
    return InputError(
        f"no {basis} price in the catalogue, which has {', '.join(has)}",
        where=system.id,
        mend=f"state {terms} to convert it, or the price: [market.prices] {system.id} = USD per hour",
    )

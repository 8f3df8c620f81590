"""What an instance costs: whole systems, on one basis, or why that cannot be said."""

from __future__ import annotations

import math

import msgspec

from infermix.catalog.load import Catalog
from infermix.catalog.query import figure
from infermix.catalog.records import System
from infermix.cost.rent import CostBasis, Terms, hourly_price
from infermix.errors import InfermixError
from infermix.units import SECONDS_PER_HOUR

NO_TERMS = Terms()


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Price of a system by the hour."""

    system: str
    usd_per_hour: float
    """Of the whole system."""
    basis: str
    """``rent`` or ``own``, and how it was converted where it was."""
    read: str
    """Date on which the figure was read."""
    figures: tuple[str, ...]
    """Ids of the figures that it hangs on."""

    chips: int
    """Of the whole system."""

    @property
    def usd_per_chip_s(self) -> float:
        """Price of one of its chips for a second [USD]."""
        return self.usd_per_hour / self.chips / SECONDS_PER_HOUR

    def of_instance(self, chips: int) -> float:
        """Price of an instance of so many chips: its share of a system, or the systems it spans [USD/h]."""
        if chips >= self.chips:
            return self.usd_per_hour * math.ceil(chips / self.chips)
        return self.usd_per_hour / (self.chips // chips)


class NoPrice(msgspec.Struct, frozen=True):
    """Why a system has no price on the basis asked for: the same words for the same reason, and a way to mend it."""

    reason: str
    mend: str


UNKNOWN = NoPrice("no price is known", "")


def price_of(catalog: Catalog, system: System, basis: CostBasis, terms: Terms = NO_TERMS) -> Price | NoPrice:
    """Price of a system on one basis; other prices are converted with the terms given and never without."""
    try:
        found = hourly_price(system, basis, terms)
    except InfermixError:
        return _no_price(system, basis)
    read = max(figure(catalog, id_).read for id_ in found.figures)
    return Price(
        system=system.id,
        usd_per_hour=found.usd_per_hour,
        basis=found.basis,
        read=read,
        figures=found.figures,
        chips=system.chips,
    )


def _no_price(system: System, basis: CostBasis) -> NoPrice:
    if system.operator_cost_usd_per_hour is not None:
        return NoPrice("only what it costs its operator is known", "--gross-margin")
    if system.capital_usd is not None and system.power_w is None:
        return NoPrice("only a purchase price is known, and no power", "")
    if system.capital_usd is not None:
        margin = " --gross-margin" if basis == "rent" else ""
        return NoPrice("only a purchase price is known", f"--life-years --usd-per-kwh{margin}")
    if system.rent_usd_per_hour is not None:
        return NoPrice("only a rent is known", "--gross-margin")
    return UNKNOWN

"""Prices: on one basis each, and such that a machine pays for itself in months or years, not days."""

from __future__ import annotations

import math
from collections.abc import Iterator

from infermix.catalog.check.facts import Facts
from infermix.catalog.check.fault import Fault, said
from infermix.catalog.records import Figure

PAYBACK_H = (1_000, 60_000)
"""Rented without pause, machines repay their price in six weeks (hyperscalers' list prices) to seven years (spot)."""
SYSTEM_OVER_CHIPS = (0.9, 3.5)
"""A vendor's system over its chips bought singly: 1.0 (Gaudi) to 2.8 (DGX A100)."""
FEW_OFFERS = 3
"""With fewer there is no usual price."""
PER_HOUR, CAPITAL = "usd_per_hour", "capital_usd"
TOKENS = ("input_usd_per_mtok", "output_usd_per_mtok", "standard_input_usd_per_mtok", "standard_output_usd_per_mtok")
OF_BASIS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "rent": ((PER_HOUR,), ()),
    "operator_cost": ((PER_HOUR,), ()),
    "capital": ((CAPITAL,), ()),
    "api": ((), (*TOKENS, "price_multiple", "speed_tokens_per_s")),
}
"""Basis of an offer → figures it must have, and figures it may have."""


def offers_have_the_figures_of_their_basis(facts: Facts) -> Iterator[Fault]:
    """Rent, capital, cost to an operator and price of tokens are never mixed in one offer."""
    for id_, price in facts.prices.items():
        needed, more = OF_BASIS[price.basis]
        has = [name for name in (PER_HOUR, CAPITAL, *OF_BASIS["api"][1]) if getattr(price, name) is not None]
        wrong = [name for name in needed if name not in has] + [n for n in has if n not in (*needed, *more)]
        for name in wrong or ([] if has else ["basis"]):
            yield facts.fault(
                "offers_have_the_figures_of_their_basis",
                f"prices/{id_}",
                name,
                f"{'does not belong to' if name in has else 'is missing on'} the basis {price.basis}",
                value=", ".join(has) or "no figure",
                allowed=", ".join(needed) or f"some of {', '.join(more)}",
                mend="mend the basis or the figure",
            )


def power_says_what_it_includes(facts: Facts) -> Iterator[Fault]:
    """A chip's TDP leaves out hosts and network: a power computed from it is on the basis ``chip``, others are not.

    Where the module's TDP includes its host, the system's note says what it contains.
    """
    for id_, system in facts.systems.items():
        power = system.power_w
        if power is None or not power.of:
            continue
        alone = all(base.endswith("/tdp_w") for base in power.of)
        if alone and system.power_basis == "it" and "contains" in system.note:
            continue
        if alone != (system.power_basis == "chip"):
            yield facts.fault(
                "power_says_what_it_includes",
                f"systems/{id_}",
                "power_basis",
                f"the power is computed from {power.of[0].rpartition('/')[2]}",
                value=system.power_basis,
                allowed="chip" if alone else "it or facility",
                others=(f"systems/{id_}/power_w",),
            )


def power_states_its_basis(facts: Facts) -> Iterator[Fault]:
    """Chip, IT and facility power differ by half: a power without its basis cannot be added to another."""
    for id_, system in facts.systems.items():
        if system.power_w and "power_basis" not in facts.stated.get(f"systems/{id_}", ("power_basis",)):
            yield facts.fault(
                "power_states_its_basis",
                f"systems/{id_}",
                "power_basis",
                "is not stated beside the power",
                value=system.power_w,
                allowed="chip, it or facility",
                mend="state it",
                others=(f"systems/{id_}/power_w",),
            )


def output_costs_no_less_than_input(facts: Facts) -> Iterator[Fault]:
    """An output token takes a pass of its own, input tokens share one: no vendor sells output for less."""
    for id_, price in facts.prices.items():
        for prefix in ("", "standard_"):
            read, written = (getattr(price, f"{prefix}{way}_usd_per_mtok") for way in ("input", "output"))
            if read and written and written.value < read.value:
                yield facts.fault(
                    "output_costs_no_less_than_input",
                    f"prices/{id_}",
                    f"{prefix}output_usd_per_mtok",
                    "output costs less than input",
                    value=written,
                    allowed=f"{said(read)} or more",
                    mend="are the columns swapped?",
                    others=(f"prices/{id_}/{prefix}input_usd_per_mtok",),
                )


def token_prices_keep_their_multiple(facts: Facts) -> Iterator[Fault]:
    """A tier multiplies its vendor's prices of input and output alike; list prices stand beside another vendor's."""
    for id_, price in facts.prices.items():
        if price.tier == "list":
            continue
        pairs = [(getattr(price, name), getattr(price, f"standard_{name}")) for name in TOKENS[:2]]
        ratios = [paid.value / standard.value for paid, standard in pairs if paid and standard and standard.value]
        if len(ratios) == 2 and not math.isclose(*ratios, rel_tol=0.35):
            yield facts.fault(
                "token_prices_keep_their_multiple",
                f"prices/{id_}",
                "input_usd_per_mtok",
                f"input costs {ratios[0]:.3g} times its standard price and output {ratios[1]:.3g} times",
                value=pairs[0][0],
                allowed="about the same multiple",
                mend="check the four prices",
                others=(f"prices/{id_}/output_usd_per_mtok",),
            )


def rents_repay_the_price(facts: Facts) -> Iterator[Fault]:
    """Rent times hours meets the price after months: a rent for eight chips on one, or a monthly one, does not."""
    for key, rents, price, name in _rented(facts):
        for rent_name, rent in rents:
            if rent is None or price is None:
                continue
            hours = price.value / rent.value
            if not PAYBACK_H[0] <= hours <= PAYBACK_H[1]:
                yield facts.fault(
                    "rents_repay_the_price",
                    key,
                    rent_name,
                    f"repays {said(price)} in {hours:,.0f} hours",
                    value=rent,
                    allowed=f"{PAYBACK_H[0]:,} to {PAYBACK_H[1]:,} hours",
                    mend="is the rent that of one hour and as many chips?",
                    others=(f"{key}/{name}",),
                )


def _rented(facts: Facts) -> Iterator[tuple[str, list[tuple[str, Figure | None]], Figure | None, str]]:
    for id_, chip in facts.chips.items():
        rents = [(name, getattr(chip, name)) for name in ("rent_low_usd_per_hour", "rent_usd_per_hour")]
        yield f"chips/{id_}", rents, chip.chip_price_usd, "chip_price_usd"
    for id_, system in facts.systems.items():
        rents = [("rent_usd_per_hour", system.rent_usd_per_hour)]
        yield f"systems/{id_}", rents, system.capital_usd, "capital_usd"


def low_rents_are_low(facts: Facts) -> Iterator[Fault]:
    """The lowest rent seen is no higher than the usual one."""
    for id_, chip in facts.chips.items():
        low, usual = chip.rent_low_usd_per_hour, chip.rent_usd_per_hour
        if low and usual and low.value > usual.value:
            yield facts.fault(
                "low_rents_are_low",
                f"chips/{id_}",
                "rent_low_usd_per_hour",
                "is above the usual rent",
                value=low,
                allowed=f"at most {said(usual)}",
                others=(f"chips/{id_}/rent_usd_per_hour",),
            )


def systems_cost_more_than_their_chips(facts: Facts) -> Iterator[Fault]:
    """A vendor's system is its chips with hosts, network and margin."""
    for id_, chip in facts.chips.items():
        whole, count, one = chip.vendor_system_price_usd, chip.vendor_system_chips, chip.chip_price_usd
        if not whole or not count or not one:
            continue
        ratio = whole.value / (count.value * one.value)
        if not SYSTEM_OVER_CHIPS[0] <= ratio <= SYSTEM_OVER_CHIPS[1]:
            yield facts.fault(
                "systems_cost_more_than_their_chips",
                f"chips/{id_}",
                "vendor_system_price_usd",
                f"is {ratio:.3g} times {count.value:g} x {said(one)}",
                value=whole,
                allowed=f"{SYSTEM_OVER_CHIPS[0]} to {SYSTEM_OVER_CHIPS[1]} times",
                mend="check both prices and the number of chips",
                others=(f"chips/{id_}/chip_price_usd", f"chips/{id_}/vendor_system_chips"),
            )


def offers_of_a_chip_are_of_one_order(facts: Facts) -> Iterator[Fault]:
    """Offers for one chip differ by spot, term and vendor, but hardly sixfold from their median."""
    for id_, price in facts.prices.items():
        if price.usd_per_hour is None or not price.chip:
            continue
        others = sorted(
            other.usd_per_hour.value / other.chips
            for other in facts.prices.values()
            if other.chip == price.chip and other.basis == price.basis and other.usd_per_hour and other.id != id_
        )
        each = price.usd_per_hour.value / price.chips
        if len(others) >= FEW_OFFERS and not others[len(others) // 2] / 6 <= each <= 6 * others[len(others) // 2]:
            yield facts.fault(
                "offers_of_a_chip_are_of_one_order",
                f"prices/{id_}",
                "usd_per_hour",
                f"is {each:.3g} USD/h for a chip, others of {price.chip} about {others[len(others) // 2]:.3g}",
                value=price.usd_per_hour,
                allowed="a sixth to six times the others' median",
                mend="check the price and for how many chips it is",
            )

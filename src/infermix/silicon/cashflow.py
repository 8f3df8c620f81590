"""Years of a programme against years of buying: gains, costs and delays; samples on the first axis, years the last."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats
from infermix.silicon import build, economics, package, program
from infermix.silicon.chip import Chip
from infermix.silicon.draw import Draw, exact
from infermix.silicon.tco import Site, tco
from infermix.silicon.venture import PARTS, Venture
from infermix.units import WEEKS_PER_YEAR

HALF = 2
"""Gains of a year fall in its middle."""


class Unit(NamedTuple):
    """Costs of one own chip and of the vendor's, over their lives [USD], and the vendor's speed over today's."""

    own: Floats
    today: Floats
    next: Floats
    next_speed: Floats
    next_years: Floats


class Flow(NamedTuple):
    """One programme in every sample."""

    npv: Floats
    yearly: Floats
    """Worth today of each year's gains less software and take-or-pay; samples, years."""
    before: Floats
    """Spent until tape-out, worth today."""
    masks: Floats
    delivery_years: Floats
    built: Floats
    """Own chips over all years."""


def lifetime_usd_per_w(draw: Draw) -> Floats:
    """What a watt of IT power costs over the life of a server: centre, its operation, power (E18)."""
    site = Site(
        draw("site/centre/usd_per_w"), draw("site/centre/life_years"), draw("site/centre/opex_usd_per_w_month"),
        draw("site/centre/pue"), draw("site/centre/usd_per_kwh"), draw("site/centre/finance_rate"),
        draw("site/centre/server_opex_share"),
    )  # fmt: skip
    return np.asarray(tco(exact(1), exact(0), draw("site/centre/server_life_years"), site).total())


def parts_of(chip: Chip, draw: Draw) -> build.Parts:
    """The bill of materials of a unit, computed once for each draw."""
    if "parts" not in draw.kept:
        draw.kept["parts"] = build.parts(chip, draw)
    return build.Parts(*draw.kept["parts"])


def own_price_usd(venture: Venture, draw: Draw) -> Floats:
    """What an own chip costs: as stated, or its parts with the partner's margin (E12)."""
    if venture.own.unit_usd is not None or venture.chip is None:
        return draw("file/own/unit_usd")
    parts = parts_of(venture.chip, draw).total()
    margin = venture.chip.gross_margin
    return package.price_usd(parts, draw("decision/partner_margin") if margin is None else exact(margin))


def own_w(venture: Venture, draw: Draw) -> Floats:
    """Power of an own chip: as stated, or modelled."""
    if venture.own.power_w is not None:
        return exact(venture.own.power_w)
    chip = venture.chip
    modelled = None if chip is None else build.speeds(chip, draw).power_w
    if chip is not None and chip.tdp_w is not None:
        return exact(chip.tdp_w)
    return draw("file/own/power_w") if modelled is None else modelled


def unit_of(venture: Venture, draw: Draw) -> Unit:
    """Costs of chips in use: price, share of the server, power over their lives."""
    watt = lifetime_usd_per_w(draw) * draw("site/centre/it_over_chip_w")
    vendor = venture.vendor
    system = draw("file/vendor/system_usd")
    today = draw("file/vendor/price_usd") + system + exact(vendor.power_w) * watt
    after, speed, years = today, exact(1), exact(np.inf)
    if vendor.next_years is not None:
        power = exact(vendor.power_w if vendor.next_power_w is None else vendor.next_power_w)
        after = draw("file/vendor/next_price_usd") + system + power * watt
        speed, years = draw("file/vendor/next_speed"), draw("file/vendor/next_years")
    own = own_price_usd(venture, draw) + draw("file/own/system_usd") + own_w(venture, draw) * watt
    return Unit(own, today, after, speed, years)


def delivery_years(venture: Venture, draw: Draw, respin: Floats, wait_years: int = 0) -> Floats:
    """Years until chips are in hand (E21)."""
    node = f"nodes/{venture.chip.node}/fab_weeks" if venture.chip else "nodes/n5/fab_weeks"
    names = ("program/tapeout_weeks", "program/queue_weeks", node, "program/osat_weeks", "program/bringup_weeks")
    steps = (*(draw(name) for name in names), draw("file/own/slip_weeks"))
    weeks = program.delivery_weeks(steps, respin, draw("program/respin_weeks"))
    return weeks / WEEKS_PER_YEAR + wait_years


def flow(venture: Venture, draw: Draw, respin: Floats, wait_years: int = 0) -> Flow:
    """Worth of building over buying (E23).

    Parameters
    ----------
    venture, draw
        What is decided, and values of every constant.
    respin
        1 where the first silicon fails, 0 where it does not.
    wait_years
        Years that the start is put off; the end stays where it is.
    """
    unit, need = unit_of(venture, draw), venture.need
    years = np.arange(need.years, dtype=np.float64)
    ready_at = delivery_years(venture, draw, respin, wait_years)[..., None]
    served = np.clip(years + 1 - ready_at, 0, 1)
    count = need.units_per_year * draw("file/need/demand")[..., None] * served
    kappa = draw("file/own/kappa")[..., None] * _ready(draw, years + 1 - ready_at)
    gains = count * economics.gain_per_unit(kappa, _buying_usd(unit, years), unit.own[..., None])
    idle = _take_or_pay_usd(venture, draw, served)
    software: Floats = _software_usd(draw) * np.where(years + 1 > wait_years, 1, 0)
    factors = economics.discount(draw("file/terms/discount_rate")[..., None], years + exact(1) / HALF)
    yearly = (gains - idle - software) * factors
    start = economics.discount(draw("file/terms/discount_rate"), exact(wait_years))
    masks, nre = _once(venture, draw)
    once = program.expected_nre_usd(nre, respin, masks, exact(0)) * start
    return Flow(
        npv=np.asarray(yearly.sum(axis=-1) - once),
        yearly=np.asarray(yearly),
        before=(nre - masks) * start,
        masks=(once - (nre - masks) * start),
        delivery_years=ready_at[..., 0],
        built=np.asarray(count.sum(axis=-1)),
    )


def _once(venture: Venture, draw: Draw) -> tuple[Floats, Floats]:
    """Masks, and all that is spent once, masks included."""
    masks = draw(f"nodes/{venture.chip.node}/masks_usd") if venture.chip else draw("nodes/n5/masks_usd")
    return masks, draw("program/custom_nre_usd" if venture.own.nre_usd is None else "file/own/nre_usd")


def _ready(draw: Draw, since: Floats) -> Floats:
    """Share of its speed that software reaches so many years after delivery."""
    first, years = draw("file/own/ready_at_delivery")[..., None], draw("file/own/software_years")[..., None]
    ramp = np.clip(since / np.where(years > 0, years, 1), 0, 1)
    return np.where(years > 0, first + (1 - first) * ramp, 1)


def _buying_usd(unit: Unit, years: Floats) -> Floats:
    """Cost of what one chip of today gives, bought in each year: the next chip takes over when it can be had."""
    share = np.clip(years + 1 - unit.next_years[..., None], 0, 1)
    later = unit.next / unit.next_speed
    return (1 - share) * unit.today[..., None] + share * np.minimum(later, unit.today)[..., None]


def _take_or_pay_usd(venture: Venture, draw: Draw, served: Floats) -> Floats:
    """Parts that are paid for in a year and not needed."""
    shares = venture.terms.take_or_pay
    if not shares or venture.chip is None:
        return 0 * served
    parts = parts_of(venture.chip, draw)
    taken = draw("file/need/demand")[..., None] * served
    idle = 0 * served
    for name in PARTS:
        planned = venture.need.units_per_year * getattr(parts, name)[..., None] * (served > 0)
        idle = idle + planned * np.maximum(shares.get(name, 0) - taken, 0)
    return idle


def _software_usd(draw: Draw) -> Floats:
    """Software in every year [USD]; samples, one year."""
    stated = "file/own/software_usd_per_year" in draw.table
    return draw("file/own/software_usd_per_year" if stated else "decision/software_usd_per_year")[..., None]

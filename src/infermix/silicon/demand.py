"""From chips to wafers, machines and fabs, and back (E24, E25)."""

from __future__ import annotations

from infermix.arrays import Floats
from infermix.units import HOURS_PER_FISCAL_YEAR, MONTHS_PER_YEAR


def wafers(chips: Floats, dies_per_wafer: Floats, yielded: Floats) -> Floats:
    """Wafers that so many good chips of one die each take (E24)."""
    return chips / (dies_per_wafer * yielded)


def passes_per_tool_year(passes_per_hour: Floats, uptime: Floats) -> Floats:
    """Exposures of one EUV tool in a year (E24)."""
    return passes_per_hour * uptime * HOURS_PER_FISCAL_YEAR


def wafers_per_month(wafers_per_year: Floats, utilisation: Floats) -> Floats:
    """Capacity of a fab that makes so many wafers a year (E24)."""
    return wafers_per_year / MONTHS_PER_YEAR / utilisation


def own_wafer_usd(capital_usd: Floats, per_month: Floats, life_years: Floats, utilisation: Floats) -> Floats:
    """Capital that a wafer of one's own fab carries, written off in a straight line; running costs apart (E24)."""
    return capital_usd / (life_years * MONTHS_PER_YEAR * per_month * utilisation)


def cset_consumed_usd(capital_usd_per_wafer_year: Floats, age_years: Floats, decay: Floats) -> Floats:
    """Capital that a wafer uses up in a year of its node's life (E25; CSET)."""
    return capital_usd_per_wafer_year * decay * (1 - decay) ** age_years


def cset_wafer_usd(consumed_usd: Floats, share: Floats) -> Floats:
    """Price of a wafer by the capital that it uses up (E25; CSET)."""
    return consumed_usd / share

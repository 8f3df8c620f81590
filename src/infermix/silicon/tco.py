"""What owning a server costs over its life, in the form of ASIC Clouds and Barroso (as reallm computes it)."""

from __future__ import annotations

from typing import NamedTuple

from infermix.arrays import Floats
from infermix.units import MONTHS_PER_YEAR, TOKENS_PER_MTOK

HOURS_PER_MONTH = 24 * 30
"""reallm's months."""
WATTS_PER_KW = 1000
SECONDS_PER_HOUR = 3600


class Site(NamedTuple):
    """Terms of a data centre: capital and operation by the watt, power, finance."""

    usd_per_w: Floats
    life_years: Floats
    opex_usd_per_w_month: Floats
    pue: Floats
    usd_per_kwh: Floats
    finance_rate: Floats
    server_opex_share: Floats


class Tco(NamedTuple):
    """Parts of the cost of a server over its life [USD]."""

    centre: Floats
    centre_interest: Floats
    centre_opex: Floats
    power: Floats
    pue: Floats
    server: Floats
    server_interest: Floats
    server_opex: Floats

    def total(self) -> Floats:
        """All of them [USD]."""
        return self.centre + self.centre_interest + self.centre_opex + self.power + self.pue + self.owned()

    def owned(self) -> Floats:
        """The server itself with its interest and upkeep [USD]."""
        return self.server + self.server_interest + self.server_opex


def interest_usd(loan_usd: Floats, yearly_rate: Floats, years: Floats) -> Floats:
    """Interest paid on a loan that level monthly payments pay back (E17)."""
    rate, payments = yearly_rate / MONTHS_PER_YEAR, years * MONTHS_PER_YEAR
    growth = (1 + rate) ** payments
    return payments * rate * loan_usd * growth / (growth - 1) - loan_usd


def tco(server_w: Floats, server_usd: Floats, life_years: Floats, site: Site) -> Tco:
    """Cost of a server over its life (E18).

    Parameters
    ----------
    server_w
        Power at the plug [W].
    server_usd
        Price [USD].
    life_years
        Years that it is kept.
    """
    share = server_w * life_years / site.life_years
    months = life_years * MONTHS_PER_YEAR
    power = site.usd_per_kwh / WATTS_PER_KW * HOURS_PER_MONTH * server_w * months
    return Tco(
        centre=site.usd_per_w * share,
        centre_interest=interest_usd(site.usd_per_w, site.finance_rate, site.life_years) * share,
        centre_opex=site.opex_usd_per_w_month * server_w * months,
        power=power,
        pue=power * (site.pue - 1),
        server=server_usd,
        server_interest=interest_usd(server_usd, site.finance_rate, life_years),
        server_opex=server_usd * site.server_opex_share,
    )


def usd_per_mtok(tco_usd_per_hour: Floats, tokens_per_s: Floats, load: Floats) -> Floats:
    """Dollars for a million tokens at a mean over peak ``load`` (E19)."""
    return tco_usd_per_hour * TOKENS_PER_MTOK / (SECONDS_PER_HOUR * tokens_per_s * load)

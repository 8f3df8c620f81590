"""What owning costs by the hour."""

from __future__ import annotations

HOURS_PER_YEAR = 8766.0


def annuity_usd_per_hour(capital_usd: float, life_years: float, finance_rate: float) -> float:
    """Level payment that pays a capital back over its life.

    Parameters
    ----------
    capital_usd
        Price paid at the start [USD].
    life_years
        Life [years], above 0.
    finance_rate
        Interest a year (0.08 is 8 %); 0 gives straight-line depreciation.

    >>> round(annuity_usd_per_hour(876600, 5, 0.0), 6)
    20.0
    """
    if finance_rate == 0:
        yearly = capital_usd / life_years
    else:
        yearly = capital_usd * finance_rate / (1 - (1 + finance_rate) ** -life_years)
    return yearly / HOURS_PER_YEAR


def energy_usd_per_hour(facility_w: float, usd_per_kwh: float) -> float:
    """Electricity by the hour.

    >>> energy_usd_per_hour(10_000, 0.08)
    0.8
    """
    return facility_w / 1000.0 * usd_per_kwh

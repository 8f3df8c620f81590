"""An offer's worth the slow way: day by day, draw by draw, in plain Python."""

from __future__ import annotations

HOURS_PER_YEAR = 8766.0
STEPS_PER_YEAR = 3650


def gain_usd(
    *,
    saving_usd_per_hour: float,
    usd_per_hour: float,
    start_years: float,
    years: float,
    discount_rate: float,
    falls_per_year: float,
    delivered: bool,
    equity_usd: float,
    deposit_usd: float,
    refundable: bool,
    refund: float,
) -> float:
    """Money of today, step by step through the term."""
    then = (1.0 + discount_rate) ** -start_years
    if not delivered:
        return -deposit_usd * (1.0 - (then if refundable else 0.0))
    gain = equity_usd * then - deposit_usd * (1.0 - then)
    steps = round(years * STEPS_PER_YEAR)
    hours = HOURS_PER_YEAR * years / steps
    for step in range(steps):
        at = start_years + (step + 0.5) * years / steps
        worth = (1.0 + discount_rate) ** -at
        gain += hours * worth * (saving_usd_per_hour * (1.0 - falls_per_year) ** at - usd_per_hour * (1.0 - refund))
    return gain


def best_gain_usd(
    savings: list[float], used: list[float], price: float, paid_for: float, hours: float, fixed_usd: float
) -> float:
    """Of the numbers that may be used, the one that gains most; savings and prices that last so many hours."""
    return max(s - price * max(u, paid_for) for s, u in zip(savings, used, strict=True)) * hours + fixed_usd

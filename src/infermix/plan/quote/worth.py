"""What taking an offer gains over the years, in dollars of today: closed forms over arrays of draws.

The gain of a draw is the saving on the rest of the fleet while the systems serve, plus shares that come with them,
less what is paid for them, less what a deposit costs:

    gain = delivered x (saving A(r + f, D, T) - price A(r, D, T) + equity e^(-r D)) - deposit cost
    A(k, D, T) = hours x integral from D to D + T of e^(-k t) dt

with D the months until delivery (late or not), T the term, r the discount rate, f the rate at which the market's prices
fall: a saving is money that need not be spent on the market, so it falls with it, while the price stays.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infermix.arrays import Bools, Floats
from infermix.cost.tco import HOURS_PER_YEAR

MONTHS = 12.0


@dataclass(frozen=True)
class Worlds:
    """How things turn out, one entry a draw; the first entry is the nominal world."""

    delivery_years: Floats
    delivered: Bools
    falls: Floats
    """Share by which the market's prices fall in a year."""
    equity_usd: Floats
    kept: Bools
    """Whether the vendor's promise is kept."""


@dataclass(frozen=True)
class Terms:
    """What is the same in every world."""

    years: float
    discount_rate: float
    refund: float
    deposit_usd: float
    refundable: bool


NO_RATE = 1e-12
"""A rate [1/year] under which a dollar loses no worth that a sum of dollars would show."""


def served_hours(rate: Floats, start_years: Floats, years: float) -> Floats:
    """Hours from a start on, each weighed by what a dollar then is worth today.

    Parameters
    ----------
    rate
        Continuous rate at which dollars lose worth [1/year]; 0, or as good as that, counts hours.

    >>> float(served_hours(np.zeros(1), np.array([3.0]), 2.0)[0]) == 2 * HOURS_PER_YEAR
    True
    """
    nothing = np.abs(rate) < NO_RATE
    safe = np.where(nothing, 1.0, rate)
    years_worth = np.where(nothing, years, np.exp(-safe * start_years) * -np.expm1(-safe * years) / safe)
    return np.asarray(years_worth * HOURS_PER_YEAR)


def gains_usd(saving: Floats, price: Floats, worlds: Worlds, terms: Terms) -> Floats:
    """Gain of each draw [USD of today]; ``saving`` and ``price`` in USD an hour."""
    worth, paid, fixed = parts(worlds, terms)
    return saving * worth - price * paid + fixed


def break_even(saving: Floats, worlds: Worlds, terms: Terms) -> Floats:
    """Price at which each draw gains nothing [USD/h]; minus infinity where nothing is delivered, or paid."""
    worth, paid, fixed = parts(worlds, terms)
    price = (saving * worth + fixed) / np.where(paid > 0.0, paid, 1.0)
    return np.where(paid > 0.0, price, -np.inf)


def parts(worlds: Worlds, terms: Terms) -> tuple[Floats, Floats, Floats]:
    """(hours of saving, hours of paying, what comes and goes beside them [USD]), all in dollars of today."""
    rate = np.log1p(np.full(len(worlds.falls), terms.discount_rate))
    start, delivered = worlds.delivery_years, worlds.delivered
    worth = np.where(delivered, served_hours(rate - np.log1p(-worlds.falls), start, terms.years), 0.0)
    paid = np.where(delivered, served_hours(rate, start, terms.years), 0.0)
    paid = paid * np.where(worlds.kept, 1.0, 1.0 - terms.refund)
    then = np.exp(-rate * start)
    back = np.where(delivered, then, then if terms.refundable else 0.0)
    fixed = np.where(delivered, worlds.equity_usd * then, 0.0) - terms.deposit_usd * (1.0 - back)
    return worth, paid, fixed

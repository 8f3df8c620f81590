"""Build or buy: units to break even, value over the years, and what waiting until tape-out is worth (E22, E23)."""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats


def gain_per_unit(kappa: Floats, buy_usd: Floats, own_usd: Floats) -> Floats:
    """What one own unit saves: the bought chips that it stands for, less its cost, each with power and system share.

    Parameters
    ----------
    kappa
        Useful tokens a second of an own chip over those of a bought one, at the promised latency.
    buy_usd, own_usd
        Cost of a bought and of an own chip [USD].
    """
    return kappa * buy_usd - own_usd


def break_even_units(nre_usd: Floats, kappa: Floats, buy_usd: Floats, own_usd: Floats) -> Floats:
    """Own units that pay back what a chip costs once; infinite where none would (E22).

    >>> round(float(break_even_units(np.float64(300e6), np.float64(1), np.float64(40e3), np.float64(12.8e3))), -2)
    11000.0
    """
    gain = gain_per_unit(kappa, buy_usd, own_usd)
    return np.where(gain > 0, nre_usd / np.where(gain > 0, gain, 1), np.inf)


def losing_price_usd(nre_usd: Floats, kappa: Floats, own_usd: Floats, units: Floats) -> Floats:
    """Price of a bought chip below which building so many units loses (E22, solved for the price)."""
    return (own_usd + nre_usd / units) / kappa


def discount(rate: Floats, years: Floats) -> Floats:
    """Worth today of a dollar in some years."""
    return (1 + rate) ** -years


def npv_usd(gains_usd: Floats, software_usd: Floats, factors: Floats) -> Floats:
    """Worth today of yearly gains less yearly software; years along the last axis (E23)."""
    worth: Floats = ((gains_usd - software_usd) * factors).sum(axis=-1)
    return worth


def option_usd(before_usd: Floats, after_usd: Floats) -> Floats:
    """Worth of a project that may be given up at tape-out: what is spent before, then the rest where it is worth it.

    ``after_usd`` is the worth today of going on, as it is known at tape-out.
    """
    return np.maximum(after_usd, 0) - before_usd


def usd_per_year(events_per_day: Floats, usd_each: Floats, days: int) -> Floats:
    """What so many events a day cost in a year of ``days``."""
    return events_per_day * usd_each * days


def refreshed_usd_per_year(capital_usd: Floats, years: Floats) -> Floats:
    """A capital that is bought again every so many years."""
    return capital_usd / years


def usd_per_w(usd: Floats, watts: Floats) -> Floats:
    """A deal by its power."""
    return usd / watts

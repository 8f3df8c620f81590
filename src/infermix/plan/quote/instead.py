"""What to ask for instead: one thing changed at a time, until taking is as surely right as one wants."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from infermix.plan.quote.result import Instead
from infermix.plan.quote.stand import Stand
from infermix.plan.quote.worth import MONTHS

SHORTER = (0.75, 0.5, 0.25, 1 / 12)
"""Shares of the term that are tried."""
LESS_PAID = tuple(round(0.9 - 0.1 * i, 1) for i in range(10))
DOUBLINGS = 40


def what_to_ask_for(stand: Stand, price: float, sure: float, *, shares: bool = True) -> list[Instead]:
    """Changes that each make taking right with the probability asked for; the mildest of each kind."""
    found: list[Instead] = []
    for what, offered, ask, changed, at in _candidates(stand, price, sure, shares):
        odds = changed.probability(at)
        if odds < sure or any(instead.what == what for instead in found):
            continue
        gains = changed.gains_usd(at)[1:]
        finite = gains[np.isfinite(gains)]
        mean = float(finite.mean()) if len(finite) else float("inf")
        found.append(Instead(what=what, offered=offered, ask=ask, probability=odds, gain_usd=mean))
    return found


Candidate = tuple[str, float, float, Stand, float]
"""What is changed, its value in the offer, the value to ask for, where that stands, at which price."""


def _candidates(stand: Stand, price: float, sure: float, shares: bool) -> Iterator[Candidate]:
    """Everything that may be asked for, milder changes first."""
    ask = price_for(stand, sure)
    if 0.0 < ask < price:
        yield "price", price, ask, stand, ask
    for most in sorted(stand.most[(stand.most > 0) & (stand.most < stand.count)], reverse=True):
        yield "systems", stand.count, float(most), replace(stand, count=float(most)), price
    for share in LESS_PAID:
        if share < stand.take_or_pay:
            yield "take_or_pay", stand.take_or_pay, share, replace(stand, take_or_pay=share), price
    years = stand.terms.years
    for share in SHORTER:
        yield "months", years * MONTHS, years * share * MONTHS, stand.with_terms(years=years * share), price
    yield from _guaranteed(stand, price)
    if shares:
        yield from _equity(stand, price, sure)


def _guaranteed(stand: Stand, price: float) -> Iterator[Candidate]:
    """Delivery on the day, or the money back."""
    worlds = stand.worlds
    if worlds.delivered.all() and np.ptp(worlds.delivery_years) == 0.0:
        return
    day = float(worlds.delivery_years.min())
    sure = stand.with_worlds(delivered=np.ones_like(worlds.delivered), delivery_years=np.full_like(worlds.falls, day))
    yield "delivery", float(worlds.delivered[1:].mean()), 1.0, sure, price


def _equity(stand: Stand, price: float, sure: float) -> Iterator[Candidate]:
    """The least worth of shares beside the systems that does."""
    if stand.probability(price) >= sure:
        return
    high = max(1.0, price * stand.count)
    for _ in range(DOUBLINGS):
        if _with_equity(stand, high).probability(price) >= sure:
            break
        high *= 2.0
    else:
        return
    low = 0.0
    for _ in range(DOUBLINGS):
        middle = 0.5 * (low + high)
        if _with_equity(stand, middle).probability(price) >= sure:
            high = middle
        else:
            low = middle
    offered = float(stand.worlds.equity_usd[0])
    yield "equity_usd", offered, offered + high, _with_equity(stand, high), price


def _with_equity(stand: Stand, more_usd: float) -> Stand:
    return stand.with_worlds(equity_usd=stand.worlds.equity_usd + more_usd)


def price_for(stand: Stand, sure: float) -> float:
    """The highest price at which taking is right in at least that share of the draws."""
    at = np.sort(stand.break_even()[1:])[::-1]
    needed = int(np.ceil(sure * len(at) - 1e-9))
    return float(at[needed - 1])

"""What a quote says. Imports neither kernel nor solver."""

from __future__ import annotations

import msgspec


class Spread(msgspec.Struct, kw_only=True):
    """A number over the draws: nominal, mean, and the shares of draws that lie below."""

    nominal: float
    mean: float
    p10: float
    p50: float
    p90: float


class Instead(msgspec.Struct, kw_only=True):
    """One thing to ask for, everything else as it is offered."""

    what: str
    """``price``, ``systems``, ``months``, ``take_or_pay``, ``delivery``, ``equity_usd``."""
    offered: float
    ask: float
    probability: float
    """Of being right, with that."""
    gain_usd: float
    """Mean gain, with that."""


class Turn(msgspec.Struct, kw_only=True):
    """An unknown: how often taking is right in the lower and in the upper half of what it may be."""

    unknown: str
    right_low: float
    right_high: float


class Quote(msgspec.Struct, kw_only=True):
    """An offer against a study's traffic."""

    offer: str
    study: str
    kind: str
    """``systems`` by the hour, or ``tokens``."""
    answer: str
    """``take``, ``ask`` or ``leave``."""
    unit: str
    """Of prices: USD/h of a system, or USD/Mtok of output (other tokens in proportion)."""
    price: float
    """As stated; capital by the hour on the study's terms."""
    effective_price: float
    """With shares, deposit, delay and refunds counted in, nominal."""
    break_even: Spread
    """Price at which taking gains nothing."""
    probability: float
    """That taking is right: the share of draws that gain."""
    sure: float
    """Probability asked for."""
    gain_usd: Spread
    """Worth of taking it, today [USD]."""
    loss_if_wrong_usd: float | None
    """Mean loss where it loses; None where it never does."""
    saving_usd_per_hour: Spread
    """What the rest of the fleet costs less while the offer serves."""
    without_usd_per_hour: float
    """The fleet without it, nominal."""
    with_usd_per_hour: float
    """The rest of the fleet with it, nominal."""
    used: float
    """Offered systems that serve, nominal; with tokens, the share of these classes."""
    systems: int
    months: float
    draws: int
    only_with_it: float
    """Share of draws in which no fleet can serve without it."""
    instead: list[Instead]
    turns: list[Turn]
    """Largest difference first."""
    assumptions: list[str]

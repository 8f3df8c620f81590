"""The offer file: what a vendor offers, and how wide one takes what nobody knows."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import msgspec

from infermix.catalog.parse import check_keys, convert, toml
from infermix.errors import InputError


class Range(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A number with its ends; drawn from the triangle over them."""

    value: float
    low: float
    high: float


Said = float | Range
"""A number that is certain, or one with its ends."""


class Equity(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Shares or warrants that come with the systems."""

    usd: Said
    """What they are worth on the day of delivery."""


class Late(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What may happen to the date."""

    probability: float = 0.0
    """That delivery is late."""
    months: float = 0.0
    """By how much, where it is."""
    never: float = 0.0
    """Probability that it never comes."""


class Promise(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the vendor promises, and what is paid back where that is not kept."""

    tpot_s: float | None = None
    """Of one user alone on a system; of everybody, where tokens are sold."""
    ttft_s: float | None = None
    refund: float = 0.0
    """Share of the price that is paid back where the promise is not kept."""


class Deposit(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Paid when the offer is taken, and counted against the price after delivery."""

    usd: float
    refundable: bool = False
    """Whether it comes back if nothing is delivered."""


class Ranges(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How wide one takes what the catalogue does not tell."""

    demand: Said = 1.0
    """Traffic over the study's."""
    market_falls_per_year: Said = 0.0
    """Share by which the market's prices fall in a year."""


class VendorOffer(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Systems by the hour or for a price, or tokens: exactly one of the three prices."""

    name: str = ""
    system: str | None = None
    systems: int = 1
    usd_per_hour: float | None = None
    """Of each system."""
    capital_usd: float | None = None
    """Of each system, bought; by the hour on the terms of the study's ``[cost]``."""
    classes: list[str] = []
    """Classes that an offer of tokens is for."""
    share: float = 1.0
    """Share of these classes that goes there."""
    usd_per_mtok_input: float | None = None
    usd_per_mtok_cached: float | None = None
    """Cached input; as other input where it is not said."""
    usd_per_mtok_output: float | None = None
    months: float | None = None
    """From delivery on; 12 where it is not said, of a purchase the study's ``cost.life_years``."""
    take_or_pay: float = 1.0
    """Share of the systems (of the tokens expected) that is paid for in any case; the others as they are used."""
    delivery_months: float = 0.0
    discount_rate: float | None = None
    """A year; the study's ``cost.finance_rate`` where it is not said."""
    sure: float = 0.8
    """Probability of being right at which one takes an offer."""
    deposit: Deposit | None = None
    late: Late = Late()
    promise: Promise = Promise()
    equity: Equity | None = None
    ranges: Ranges = Ranges()
    seed: int = 1
    draws: int = 64

    @property
    def sells_tokens(self) -> bool:
        """Whether tokens are sold, not systems."""
        return self.usd_per_mtok_output is not None


_TABLES: dict[str, type[msgspec.Struct]] = {
    "deposit": Deposit, "late": Late, "promise": Promise, "equity": Equity, "ranges": Ranges,
}  # fmt: skip
MIN_DRAWS, MAX_DRAWS = 16, 4096


def load_offer(path: str | Path) -> VendorOffer:
    """Read and check an offer file.

    Raises
    ------
    InputError
        One line: the file, the key, the value, what is allowed, how to mend it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "not UTF-8 text"
        raise InputError(f"cannot be read: {reason}", where=str(path), mend="name an offer file (TOML)") from None
    return parse_offer(toml(text, str(path)), str(path))


def parse_offer(raw: dict[str, Any], where: str) -> VendorOffer:
    """An offer from parsed TOML."""
    check_keys(raw, VendorOffer.__struct_fields__, where)
    for name, table in _TABLES.items():
        if isinstance(raw.get(name), dict):
            check_keys(raw[name], table.__struct_fields__, f"{where}: {name}")
    offer = convert(VendorOffer, raw, where)
    _check_price(offer, where)
    _check_counts(offer, where)
    for key, said, top in _said(offer):
        _check_range(said, f"{where}: {key}", top)
    return offer


def _check_price(offer: VendorOffer, where: str) -> None:
    """Exactly one price, with what belongs to it."""
    prices = {"usd_per_hour": offer.usd_per_hour, "capital_usd": offer.capital_usd}
    prices |= {"usd_per_mtok_output": offer.usd_per_mtok_output}
    stated = [key for key, value in prices.items() if value is not None]
    if len(stated) != 1:
        raise InputError(
            "an offer has one price",
            where=where,
            value=", ".join(stated) or None,
            allowed=f"one of {', '.join(prices)}",
        )
    for key in ("usd_per_hour", "capital_usd", "usd_per_mtok_input", "usd_per_mtok_cached", "usd_per_mtok_output"):
        value = getattr(offer, key)
        if value is not None and not (0 < value < math.inf or (value == 0 and key.startswith("usd_per_mtok_c"))):
            raise InputError("a price is above 0", where=f"{where}: {key}", value=value)
    if offer.sells_tokens:
        if not offer.classes or offer.usd_per_mtok_input is None:
            missing = "classes" if not offer.classes else "usd_per_mtok_input"
            raise InputError(f"tokens are offered without {missing}", where=where, mend=f"say {missing}")
        if offer.system is not None:
            raise InputError("tokens are offered, so no system is", where=f"{where}: system", value=offer.system)
    elif offer.system is None:
        raise InputError("no system", where=where, mend="say system, or usd_per_mtok_input and usd_per_mtok_output")
    elif offer.classes:
        raise InputError("classes belong to an offer of tokens", where=f"{where}: classes", value=offer.classes)


def _check_counts(offer: VendorOffer, where: str) -> None:
    """Numbers that cannot be."""
    rules: tuple[tuple[str, float, bool, str], ...] = (
        ("systems", offer.systems, offer.systems >= 1, "1 or more"),
        ("months", offer.months or 1.0, offer.months is None or 0 < offer.months < 1200, "above 0"),
        ("share", offer.share, 0 < offer.share <= 1, "above 0, at most 1"),
        ("take_or_pay", offer.take_or_pay, 0 <= offer.take_or_pay <= 1, "0 to 1"),
        ("delivery_months", offer.delivery_months, 0 <= offer.delivery_months < 1200, "0 or more"),
        ("sure", offer.sure, 0 < offer.sure < 1, "between 0 and 1"),
        ("late.probability", offer.late.probability, 0 <= offer.late.probability <= 1, "0 to 1"),
        ("late.never", offer.late.never, 0 <= offer.late.never <= 1, "0 to 1"),
        ("late.months", offer.late.months, 0 <= offer.late.months < 1200, "0 or more"),
        ("promise.refund", offer.promise.refund, 0 <= offer.promise.refund <= 1, "0 to 1"),
        ("draws", offer.draws, MIN_DRAWS <= offer.draws <= MAX_DRAWS, f"{MIN_DRAWS} to {MAX_DRAWS}"),
        ("deposit.usd", offer.deposit.usd if offer.deposit else 0.0, not offer.deposit or offer.deposit.usd > 0, "> 0"),
    )
    for key, value, fine, allowed in rules:
        if not fine:
            raise InputError("out of range", where=f"{where}: {key}", value=value, allowed=allowed)
    rate = offer.discount_rate
    if rate is not None and not 0 <= rate < 10:
        raise InputError("out of range", where=f"{where}: discount_rate", value=rate, allowed="a share a year")
    for key in ("tpot_s", "ttft_s"):
        value = getattr(offer.promise, key)
        if value is not None and not 0 < value < math.inf:
            raise InputError("must be positive", where=f"{where}: promise.{key}", value=value, allowed="seconds > 0")
    if offer.promise.refund and (offer.promise.tpot_s is None or offer.sells_tokens):
        what = "a refund is judged by the step times of a system and by promise.tpot_s"
        mend = "leave it out" if offer.sells_tokens else "say promise.tpot_s"
        raise InputError(what, where=f"{where}: promise.refund", value=offer.promise.refund, mend=mend)


def _said(offer: VendorOffer) -> list[tuple[str, Said, float]]:
    """Every number that may have ends, with the highest that it may be."""
    found: list[tuple[str, Said, float]] = [
        ("ranges.demand", offer.ranges.demand, 1000.0),
        ("ranges.market_falls_per_year", offer.ranges.market_falls_per_year, 0.99),
    ]
    return found + ([("equity.usd", offer.equity.usd, math.inf)] if offer.equity else [])


def _check_range(said: Said, where: str, top: float) -> None:
    low, value, high = ends(said)
    if not 0 <= low <= value <= high or high > top or math.isinf(high):
        allowed = f"0 <= low <= value <= high{'' if math.isinf(top) else f' <= {top:g}'}"
        raise InputError("ends out of order or out of range", where=where, value=(low, value, high), allowed=allowed)


def ends(said: Said) -> tuple[float, float, float]:
    """(low, value, high) of a number."""
    return (said.low, said.value, said.high) if isinstance(said, Range) else (said, said, said)

"""Ages: when every figure was read, and which prices have grown old."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator

from infermix.catalog.check.facts import Facts, Place
from infermix.catalog.check.fault import Fault

STALE_MONTHS = 12
"""Rents halved in about a year and a half (H100, 2024 to 2026): an older price is shown as old."""
BUCKETS = ("under 3 months", "3 to 12 months", "over 12 months", "undated")
_MONEY = ("usd_per_hour", "capital_usd", "output_usd_per_mtok", "input_usd_per_mtok")
_SHIPPED = ("shipping", "cloud", "production", "volume", "legacy")


def read_dates_are_past(facts: Facts, today: datetime.date) -> Iterator[Fault]:
    """The day on which somebody read a figure is a day, and it has been."""
    reads = [(place.record, place.field, place.figure.read) for place in facts.figures.values()]
    reads += [(f"models/{id_}", "read", model.read) for id_, model in facts.models.items()]
    for key, name, read in reads:
        day = _day(read)
        if day is None or day > today:
            yield facts.fault(
                "read_dates_are_past",
                key,
                name,
                "was read on no day" if day is None else "was read in the future",
                value=read or "nothing",
                allowed=f"an ISO date up to {today.isoformat()}",
                mend="write the day on which the source was read, as 2026-11-22",
            )


def years_are_plausible(facts: Facts, today: datetime.date) -> Iterator[Fault]:
    """A chip's year is one of accelerators, and what ships has had its year."""
    for id_, chip in facts.chips.items():
        found = re.search(r"\b(19|20)\d\d\b", chip.year)
        year = int(found[0]) if found else None
        what = ""
        if year is None or not 2010 <= year <= today.year + 4:
            what = "is no year of an accelerator"
        elif year > today.year and chip.status.startswith(_SHIPPED):
            what = f"lies ahead, but the status is {chip.status!r}"
        if what:
            allowed = f"2010 to {today.year + 4}, of what ships at most {today.year}"
            yield facts.fault(
                "years_are_plausible", f"chips/{id_}", "year", what, value=chip.year or "nothing", allowed=allowed
            )
        if not chip.status:
            yield facts.fault(
                "years_are_plausible", f"chips/{id_}", "status", "is missing", allowed="shipping, planned, legacy ..."
            )


def offers_say_when_they_were_seen(facts: Facts, today: datetime.date) -> Iterator[Fault]:
    """An offer's date is a year, a month, a day or a span such as 2025-26 or 2026-02..04, and it has begun."""
    for id_, price in facts.prices.items():
        days = seen(price.date)
        if price.date and (days is None or days[0] > today):
            yield facts.fault(
                "offers_say_when_they_were_seen",
                f"prices/{id_}",
                "date",
                "is no date" if days is None else "lies ahead",
                value=price.date,
                allowed="2026, 2026-05, 2026-05-18, 2025-26 or 2026-02..04",
            )


def old_prices(facts: Facts, today: datetime.date) -> Iterator[Fault]:
    """Warnings: offers seen longer ago than prices hold."""
    for id_, price in facts.prices.items():
        money = next((name for name in _MONEY if getattr(price, name)), None)
        days = seen(price.date) or seen(getattr(price, money).read if money else "")
        if money is None or days is None or days[1] >= today - datetime.timedelta(days=30.44 * STALE_MONTHS):
            continue
        yield facts.fault(
            "old_prices",
            f"prices/{id_}",
            money,
            f"was last seen {(today - days[1]).days / 30.44:.0f} months ago",
            value=price.date,
            allowed=f"{STALE_MONTHS} months",
            mend="look the price up again",
        )


def seen(text: str) -> tuple[datetime.date, datetime.date] | None:
    """First and last day of a date of any precision; nothing where it is none.

    >>> seen("2025-26")
    (datetime.date(2025, 1, 1), datetime.date(2026, 12, 31))
    """
    if months := re.fullmatch(r"(\d{4}-\d{2})\.\.(\d{2})", text):
        ends = seen(months[1]), seen(f"{months[1][:5]}{months[2]}")
        return (ends[0][0], ends[1][1]) if ends[0] and ends[1] else None
    found = re.fullmatch(r"(\d{4})(?:-(\d{2}))?(?:-(\d{2}))?", text)
    if not found:
        return None
    year, second = int(found[1]), int(found[2] or 0)
    if not found[2] or (second == (year + 1) % 100 and not found[3]):
        return datetime.date(year, 1, 1), datetime.date(year + bool(found[2]), 12, 31)
    try:
        first = datetime.date(year, second, int(found[3] or 1))
    except ValueError:
        return None
    return first, first if found[3] else first + datetime.timedelta(days=27)


def bucket(place: Place, today: datetime.date) -> str:
    """Age of a figure, by the day it was read."""
    day = _day(place.figure.read)
    if day is None:
        return BUCKETS[3]
    days = (today - day).days
    return BUCKETS[0] if days < 92 else BUCKETS[1] if days < 366 else BUCKETS[2]


def _day(text: str) -> datetime.date | None:
    if not re.fullmatch(r"\d{4}-\d{2}-\d{2}", text):
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None

"""What a decision to build is asked with: need, vendor, programme and terms, each number a range of its own."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from infermix.catalog.parse import Raw, check_keys, convert
from infermix.errors import InputError
from infermix.silicon.chip import Chip
from infermix.silicon.constants import OWN, Constant, Constants

Said = float | dict[str, float]
"""A number, or a table with value, low and high."""


class Need(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How many own chips are wanted."""

    units_per_year: float
    years: int
    """From the start of the programme to the end of the chip's use; a late chip loses of them."""
    demand: Said = 1
    """Units that turn out to be needed over those planned."""


class Vendor(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What would be bought instead: today's chip, and the next one at its negotiated price."""

    name: str = ""
    price_usd: Said
    """Of today's chip, as negotiated."""
    power_w: float
    system_usd: Said = 0
    """Its share of the server."""
    next_years: Said | None = None
    """Years from now until the next chip can be had."""
    next_price_usd: Said | None = None
    next_speed: Said | None = None
    """Over today's chip."""
    next_power_w: float | None = None


class Programme(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The own chip: speed, cost once, delays, software."""

    kappa: Said
    """Useful tokens a second over today's chip of the vendor, at the promised latency."""
    nre_usd: Said | None = None
    """All in, masks included; else ``program/custom_nre_usd``."""
    unit_usd: Said | None = None
    """Bought from a partner; else the parts of ``[chip]`` and ``decision/partner_margin``."""
    power_w: float | None = None
    system_usd: Said = 0
    slip_weeks: Said = 0
    """Delay beside a respin."""
    ready_at_delivery: Said = 1
    """Share of its speed that software reaches on the first day."""
    software_years: Said = 0
    """Until it reaches all of it."""
    software_usd_per_year: Said | None = None


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Money over time, and what is paid for whether it is taken or not."""

    discount_rate: Said
    take_or_pay: dict[str, float] = {}
    """Share of the planned ``logic``, ``hbm`` and ``package`` that is paid for in any case."""


class Fab(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A fab of one's own, for the wafers of this chip."""

    wafers_per_month: float
    running_usd_per_wafer: Said
    resale_usd_per_wafer: Said = 0
    """What a wafer that others take pays above its running cost."""


class Deal(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An offer whose price is not what it says: a pre-order, a licence that removes a supplier, equity."""

    kind: str
    usd: float
    units: float
    delivery: float = 1
    """Probability that the chips of a pre-order come."""
    equity_usd: float = 0
    """Worth of the shares that come with the chips."""
    price_rise: float = 0
    """Of the remaining supplier's price, once the other is gone."""
    probability: float = 1
    """That it goes so."""


class Venture(msgspec.Struct, frozen=True, kw_only=True):
    """A decision to take."""

    name: str
    chip: Chip | None
    need: Need
    vendor: Vendor
    own: Programme
    terms: Terms
    fab: Fab | None
    deals: dict[str, Deal]


_TABLES: dict[str, Any] = {"need": Need, "vendor": Vendor, "own": Programme, "terms": Terms}
_UNITS = {
    "demand": "1", "price_usd": "USD", "system_usd": "USD", "next_years": "years", "next_price_usd": "USD",
    "next_speed": "1", "kappa": "1", "nre_usd": "USD", "unit_usd": "USD", "slip_weeks": "weeks",
    "ready_at_delivery": "1", "software_years": "years", "software_usd_per_year": "USD/year", "discount_rate": "1",
    "running_usd_per_wafer": "USD", "resale_usd_per_wafer": "USD",
}  # fmt: skip
_SHARES = ("ready_at_delivery", "discount_rate", "delivery", "probability")
PARTS = ("logic", "hbm", "package")
KINDS = ("preorder", "licence", "equity")


def read_venture(raw: Raw, where: str, chip: Chip | None, table: Constants) -> tuple[Venture, Constants]:
    """The decision of a file, and the constants with the ranges that it states as ``file/TABLE/NAME``."""
    made = {}
    for key, type_ in _TABLES.items():
        if not isinstance(raw.get(key), dict):
            raise InputError(f"the [{key}] table is missing", where=where, allowed=", ".join(_TABLES))
        made[key] = _struct(type_, raw[key], f"{where}: {key}")
    fab = _struct(Fab, raw["fab"], f"{where}: fab") if "fab" in raw else None
    deals = {name: _deal(said, f"{where}: deal.{name}") for name, said in raw.get("deal", {}).items()}
    venture = Venture(name=str(raw.get("name", "")), chip=chip, fab=fab, deals=deals, **made)
    _check(venture, where)
    own = {item.id: item for key, part in (*made.items(), ("fab", fab)) for item in _ranges(key, part, where)}
    return venture, Constants({**table, **own})


def _struct(type_: Any, said: Any, where: str) -> Any:
    if not isinstance(said, dict):
        raise InputError("not a table", where=where, value=said)
    check_keys(said, type_.__struct_fields__, where)
    for name, value in said.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool) and not value >= 0:
            raise InputError(f"{name} must not be negative", where=f"{where}.{name}", value=value)
    return convert(type_, said, where)


def _deal(said: Any, where: str) -> Deal:
    deal: Deal = _struct(Deal, said, where)
    if deal.kind not in KINDS:
        raise InputError("unknown kind of deal", where=f"{where}.kind", value=deal.kind, allowed=", ".join(KINDS))
    for name in ("delivery", "probability"):
        if not 0 < getattr(deal, name) <= 1:
            raise InputError("not a probability", where=f"{where}.{name}", value=getattr(deal, name), allowed="0 to 1")
    if not deal.units > 0:
        raise InputError("units must be above 0", where=f"{where}.units", value=deal.units)
    return deal


def _check(venture: Venture, where: str) -> None:
    for name in ("units_per_year", "years"):
        if not getattr(venture.need, name) > 0:
            raise InputError(
                f"{name} must be above 0", where=f"{where}: need.{name}", value=getattr(venture.need, name)
            )
    if venture.chip is None and venture.own.unit_usd is None:
        raise InputError("what does a unit cost?", where=f"{where}: own.unit_usd", mend="state it, or describe [chip]")
    if venture.chip is None and venture.own.power_w is None:
        raise InputError("what power does it take?", where=f"{where}: own.power_w", mend="state it, or describe [chip]")
    after = (venture.vendor.next_years, venture.vendor.next_price_usd, venture.vendor.next_speed)
    if any(said is None for said in after) and any(said is not None for said in after):
        raise InputError("the next chip needs a date, a price and a speed", where=f"{where}: vendor",
                         mend="state next_years, next_price_usd and next_speed")  # fmt: skip
    for part, share in venture.terms.take_or_pay.items():
        if part not in PARTS or not 0 <= share <= 1:
            raise InputError("not a share of a part", where=f"{where}: terms.take_or_pay.{part}", value=share,
                             allowed=f"0 to 1 of {', '.join(PARTS)}")  # fmt: skip
    if venture.terms.take_or_pay and venture.chip is None:
        raise InputError("of which parts?", where=f"{where}: terms.take_or_pay", mend="describe [chip]")


def _ranges(key: str, part: Any, where: str) -> list[Constant]:
    if part is None:
        return []
    made = []
    for name, unit in _UNITS.items():
        said = getattr(part, name, None)
        if said is not None:
            made.append(_range(f"file/{key}/{name}", said, unit, f"{where}: {key}.{name}"))
    return made


def _range(id_: str, said: Said, unit: str, where: str) -> Constant:
    table = said if isinstance(said, dict) else {"value": said}
    check_keys(dict(table), ("value", "low", "high"), where)
    if "value" not in table:
        raise InputError("the range has no value", where=where, mend="write it as { value = 1, low = 0.8, high = 1.2 }")
    value = table["value"]
    low, high = table.get("low", value), table.get("high", value)
    if not (0 <= low <= value <= high and math.isfinite(high)):
        raise InputError("not a range", where=where, value=[low, value, high], allowed="0 <= low <= value <= high")
    if id_.rpartition("/")[2] in _SHARES and high > 1:
        raise InputError("not a share", where=where, value=high, allowed="0 to 1")
    note = "stated by the file"
    return Constant(
        id=id_, value=value, low=low, high=high, unit=unit, source=(OWN,), date="", confidence="C", note=note
    )  # fmt: skip

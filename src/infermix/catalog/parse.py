"""From parsed TOML or CSV to validated records: units become SI here, and every fault is told in one line."""

from __future__ import annotations

import math
import tomllib
from typing import Any, TypeVar

import msgspec

from infermix.catalog.records import SI_UNITS, Figure
from infermix.errors import InputError, near_miss
from infermix.units import si_unit, to_si

R = TypeVar("R", bound=msgspec.Struct)
Raw = dict[str, Any]

_FIGURE_SHAPE = 'write it as { value = 4.8, unit = "TB/s" }'


def toml(text: str, where: str) -> Raw:
    """Parse TOML text; ``where`` names the file in errors."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise InputError(f"not valid TOML: {fault}", where=where) from None


def record(type_: type[R], raw: Raw, where: str) -> R:
    """Build one record from raw values in catalogue units.

    Raises ``InputError`` naming file and key for unknown keys, wrong types, units or ranges.
    """
    check_keys(raw, type_.__struct_fields__, where)
    cooked = {key: _field(key, item, where) for key, item in raw.items()}
    if isinstance(figures := cooked.get("figures"), dict):
        cooked["figures"] = {key: _figure(item, f"{where}: figures.{key}") for key, item in figures.items()}
    return convert(type_, cooked, where)


def convert(type_: type[R], cooked: Raw, where: str) -> R:
    """``msgspec.convert`` with infermix's one-line errors."""
    try:
        return msgspec.convert(cooked, type_)
    except msgspec.ValidationError as fault:
        what, _, path = str(fault).partition(" - at `$")
        path = path.rstrip("`").lstrip(".")
        raise InputError(what, where=f"{where}: {path}" if path else where, value=_at(cooked, path)) from None


def check_keys(raw: Raw, known: tuple[str, ...], where: str) -> None:
    """Refuse the first key that no field answers to."""
    for key, item in raw.items():
        if key not in known:
            shown = item.get("value") if isinstance(item, dict) else item
            mend = near_miss(key, known) or f"known keys: {', '.join(known)}"
            raise InputError("unknown key", where=f"{where}: {key}", value=shown, mend=mend)


def _field(key: str, item: Any, where: str) -> Any:
    if key not in SI_UNITS:
        return item
    figure = _figure(item, f"{where}: {key}")
    if figure["unit"] != SI_UNITS[key]:
        raise InputError(
            "unit of the wrong kind",
            where=f"{where}: {key}.unit",
            value=item["unit"],
            allowed=_units_like(SI_UNITS[key]),
        )
    return figure


def _figure(item: Any, where: str) -> Raw:
    """A figure table in SI; shape, source and range are checked, the rest is left to msgspec."""
    if not isinstance(item, dict):
        raise InputError("a figure must be a table", where=where, value=item, mend=_FIGURE_SHAPE)
    check_keys(item, Figure.__struct_fields__, where)
    for need in ("value", "unit"):
        if need not in item:
            raise InputError(f"the figure has no {need}", where=where, mend=_FIGURE_SHAPE)
    if not item.get("source"):
        raise InputError("the figure has no source", where=where, allowed="ids of sources.toml")
    cooked = {**item, "unit": si_unit(item["unit"], where=f"{where}.unit")}
    for part in ("value", "low", "high", "believed"):
        if part in item:
            cooked[part] = to_si(_number(item[part], f"{where}.{part}"), item["unit"], where=where)
    low, high = cooked.get("low", cooked["value"]), cooked.get("high", cooked["value"])
    if not low <= cooked["value"] <= high:
        raise InputError(
            "value outside its own range", where=where, value=item["value"], allowed="low <= value <= high"
        )
    return cooked


def _number(item: Any, where: str) -> float:
    if isinstance(item, bool) or not isinstance(item, (int, float)) or not math.isfinite(item) or item < 0:
        raise InputError("not a number", where=where, value=item, allowed="a finite number >= 0")
    return float(item)


def _units_like(si: str) -> str:
    return {"byte": "GB, GiB, MB", "byte/s": "GB/s, TB/s, Gbit/s", "s": "s, ms, us, ns", "W": "W, kW, MW"}.get(si, si)


def _at(raw: Any, path: str) -> Any:
    """The value that a msgspec path such as ``tdp_w.kind`` points to, where it can be shown."""
    for step in filter(None, path.split(".")):
        if not isinstance(raw, dict) or step not in raw:
            return None
        raw = raw[step]
    return None if isinstance(raw, dict) else raw

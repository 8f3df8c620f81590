"""Constants of chip economics: each a range with source, date and confidence, kept in ``silicon/data``.

An id is the path of a constant, such as ``nodes/n5/wafer_usd``. Constants of the same last name move together
when they are drawn: where one wafer is dearer than thought, all are.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any, Literal

import msgspec

from infermix.catalog.parse import check_keys, convert, toml
from infermix.catalog.records import Source
from infermix.errors import InputError, near_miss
from infermix.units import MM2_PER_CM2, to_chip_unit

Confidence = Literal["A", "B", "C"]
CONFIDENCES: dict[str, str] = {
    "A": "primary or measured",
    "B": "two or more independent, or an expert",
    "C": "one source, press or memory",
}
SHELVES = ("process", "nodes", "memory", "packages", "program", "site", "decision", "deals")
OWN = "own"
NEVER_ZERO = ("_yield", "clustering", "utilisation", "years", "per_hour", "uptime", "_mm", "area_mm2", "bandwidth")
"""Ends of names of constants that something is divided by."""
MOST_DEFECTS = 50
"""Times the packaged density: a figure for a square centimetre is a hundred times too large."""


class Constant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One constant with its range, in the units of the chip trade (mm2, USD, weeks)."""

    id: str
    value: float
    low: float
    high: float
    unit: str
    source: tuple[str, ...]
    date: str
    confidence: Confidence
    note: str = ""

    @property
    def group(self) -> str:
        """Constants of one group are drawn together."""
        return self.id.rpartition("/")[2]


class Constants(Mapping[str, Constant]):
    """Every constant by id; a missing one is told with the nearest name."""

    def __init__(self, found: Mapping[str, Constant]) -> None:
        self._found = dict(found)

    def __getitem__(self, key: str) -> Constant:
        if key in self._found:
            return self._found[key]
        shelf = key.rpartition("/")[0]
        if any(id_.startswith(f"{shelf}/") for id_ in self._found):
            raise InputError(
                f"{shelf} has no {key.rpartition('/')[2]}",
                value=key,
                mend="no source states it: take another, of which more is known",
            )
        raise InputError("no constants", value=shelf, allowed=", ".join(self.shelves(key.partition("/")[0])))

    def __contains__(self, key: object) -> bool:
        return key in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)

    def shelves(self, top: str) -> list[str]:
        """Names below ``nodes``, ``memory`` ... that have constants."""
        return sorted({id_.split("/")[1] for id_ in self._found if id_.startswith(f"{top}/") and id_.count("/") > 1})

    def known(self, top: str, name: str, where: str) -> str:
        """``name`` if it has constants; else an InputError with the nearest name."""
        names = self.shelves(top)
        if name not in names:
            what = f"no constants for this {'node' if top == 'nodes' else top}"
            raise InputError(what, where=where, value=name, allowed=", ".join(names), mend=near_miss(name, names))
        return name

    def with_own(self, own: Mapping[str, Any], where: str) -> Constants:
        """These constants with those that a user states, in the units that answers print."""
        changed = dict(self._found)
        for id_, said in own.items():
            if id_ not in changed:
                raise InputError(
                    "unknown constant",
                    where=f"{where}: {id_}",
                    value=said,
                    mend=near_miss(id_, changed) or "see --json",
                )
            changed[id_] = _own(changed[id_], said, f"{where}: {id_}")
        return Constants(changed)


@functools.cache
def constants() -> Constants:
    """The packaged constants.

    >>> constants()["nodes/n7/wafer_usd"].value, constants()["nodes/n7/defects_per_mm2"].unit
    (9346.0, 'defects/mm2')
    """
    root = files("infermix.silicon") / "data"
    return Constants({item.id: item for name in SHELVES for item in _shelf(root / f"{name}.toml", name)})


@functools.cache
def sources() -> dict[str, Source]:
    """Where constants were read, by id."""
    file = files("infermix.silicon") / "data" / "sources.toml"
    raw = toml(file.read_text(encoding="utf-8"), str(file))
    return {id_: convert(Source, {"id": id_, **table}, f"{file}: {id_}") for id_, table in raw.items()}


def _shelf(file: Traversable, name: str) -> Iterator[Constant]:
    raw = toml(file.read_text(encoding="utf-8"), str(file))
    for key, item in raw.items():
        if "value" in item:
            yield constant(f"{name}/{key}", item, str(file))
            continue
        yield from (constant(f"{name}/{key}/{field}", inner, str(file)) for field, inner in item.items())


def constant(id_: str, raw: Mapping[str, Any], where: str) -> Constant:
    """One constant from its table; value, low and high become units of the chip trade here."""
    check_keys(dict(raw), Constant.__struct_fields__, f"{where}: {id_}")
    low, high = raw.get("low", raw["value"]), raw.get("high", raw["value"])
    if not low <= raw["value"] <= high:
        raise InputError("value outside its own range", where=f"{where}: {id_}", value=raw["value"])
    unit, factor = to_chip_unit(raw["unit"], where=f"{where}: {id_}")
    scaled = {name: value * factor for name, value in (("value", raw["value"]), ("low", low), ("high", high))}
    return convert(Constant, {**raw, **scaled, "id": id_, "unit": unit}, f"{where}: {id_}")


def _own(packaged: Constant, said: Any, where: str) -> Constant:
    """A user's word for a constant: a number, or a table with value, low and high."""
    table = said if isinstance(said, dict) else {"value": said}
    check_keys(table, ("value", "low", "high", "source", "date"), where)
    for name in ("value", "low", "high"):
        number = table.get(name, table.get("value"))
        if isinstance(number, bool) or not isinstance(number, (int, float)) or not number >= 0:
            raise InputError("not a number", where=where, value=number, allowed=f"a number >= 0 in {packaged.unit}")
    value = float(table["value"])
    low, high = float(table.get("low", value)), float(table.get("high", value))
    if not low and packaged.id.endswith(NEVER_ZERO):
        raise InputError("must be above 0", where=where, value=value)
    if packaged.unit == "1" and 0 < packaged.high <= 1 and high > 1:
        raise InputError("not a share", where=where, value=value, allowed="0 to 1")
    if packaged.unit == "defects/mm2" and high > MOST_DEFECTS * max(packaged.high, packaged.value):
        mend = f"was it meant for a cm2? then it is {value / MM2_PER_CM2:g} per mm2"
        raise InputError("more defects than any line has", where=where, value=value, allowed="per mm2", mend=mend)
    if not low <= value <= high:
        raise InputError("value outside its own range", where=where, value=value, allowed="low <= value <= high")
    return msgspec.structs.replace(
        packaged, value=value, low=low, high=high, source=(OWN,), date=str(table.get("date", "")), confidence="C",
        note="stated by the file",
    )  # fmt: skip

"""Facts side by side: figures of chips, systems or models, their ratios, and what people derive from them."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from infermix.catalog.load import Catalog, UnknownName, figures_of
from infermix.catalog.load import catalog as packaged
from infermix.catalog.records import SI_UNITS, Chip, Figure, Model, System
from infermix.errors import InputError

PARTS = ("chips", "systems", "models")
BYTES_OF_16_BIT = 2
LONG_CONTEXT_TOKENS = 100_000
"""Median context of a coding agent."""
_TEXTS = {
    "chips": ("vendor", "cls", "year", "status", "process_node", "mem_type", "link", "efficiency", "no_speed"),
    "systems": ("vendor", "chip", "chips", "spare_chips", "power_basis"),
    "models": ("year", "closed", "layers", "hidden", "heads", "kv_heads", "experts", "active_experts", "native_weights",
               "max_context"),
}  # fmt: skip


class Value(NamedTuple):
    """A value, the kind of the least certain figure in it, and the figures it comes from."""

    value: float
    kind: str
    figures: tuple[str, ...]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of every record; ``ratios`` are to the first record. ``null`` where a record has none."""

    name: str
    unit: str
    values: tuple[float | None, ...]
    kinds: tuple[str, ...]
    ratios: tuple[float | None, ...]
    derived: bool
    """Computed here from the figures of the record."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Records of one part of the catalogue, side by side."""

    part: str
    ids: tuple[str, ...]
    texts: dict[str, tuple[str, ...]]
    rows: tuple[Row, ...]
    figures: tuple[str, ...]
    """Ids of every figure that stands in a row or was computed with."""


def compare(names: Sequence[str], catalog: Catalog | None = None) -> Comparison:
    """Put two or more chips, systems or models side by side (packaged catalogue unless given).

    Names are ids, names or aliases, or ``PART/NAME``. Raises ``InputError`` where they are not of one part.

    >>> found = compare(["h100-sxm", "h200-sxm"])
    >>> next(row.ratios for row in found.rows if row.name == "mem_bytes")
    (1.0, 1.7625)
    """
    facts = catalog or packaged()
    if len(names) < 2:
        raise InputError("nothing to compare with", value=" ".join(names), mend="name two or more")
    part, records = _records(facts, names)
    columns = [_column(facts, part, record) for record in records]
    order = sorted({name for column in columns for name in column}, key=_ORDER.index)
    bases = [getattr(record, "power_basis", "") for record in records]
    rows = tuple(_row(name, [column.get(name) for column in columns], bases) for name in order)
    return Comparison(
        part=part,
        ids=tuple(record.id for record in records),
        texts={name: texts for name in _TEXTS[part] if any(texts := tuple(_text(r, name) for r in records))},
        rows=rows,
        figures=tuple(dict.fromkeys(id_ for column in columns for v in column.values() for id_ in v[0].figures)),
    )


def _records(facts: Catalog, names: Sequence[str]) -> tuple[str, list[Chip | System | Model]]:
    """The first part of the catalogue in which all names are found: by id where it is one, else by spelling."""
    called: dict[str, Callable[[str], Chip | System | Model]] = {
        "chips": facts.chips.called,
        "systems": facts.systems.called,
        "models": facts.models.called,
    }
    known: dict[str, Container[str]] = {"chips": facts.chips, "systems": facts.systems, "models": facts.models}
    asked = {name.partition("/")[0] for name in names} & set(PARTS)
    plain = [name.partition("/")[2] if name.partition("/")[0] in PARTS else name for name in names]
    parts = [part for part in PARTS if not asked or asked == {part}]
    missed: list[tuple[bool, UnknownName]] = []
    for part in sorted(parts, key=lambda part: not all(name in known[part] for name in plain)):
        try:
            return part, [called[part](name) for name in plain]
        except UnknownName as error:
            missed.append((any(name in known[part] for name in plain), error))
    if not missed or all(any(name in ids for ids in known.values()) for name in plain):
        raise InputError("not of one kind", value=" ".join(names), allowed="all chips, all systems or all models")
    raise next((error for near, error in missed if near), missed[0][1])


def _text(record: Chip | System | Model, name: str) -> str:
    value = getattr(record, name)
    if value in ("", None, 0):
        return ""
    if value is True:
        return "yes"
    return f"{value:,}" if isinstance(value, int) and name != "year" else str(value)


_Column = dict[str, tuple[Value, str]]


def _column(facts: Catalog, part: str, record: Chip | System | Model) -> _Column:
    """Values of one record with their units, in the order in which they are shown."""
    own = {name: (_value(f"{part}/{record.id}/{name}", f), f.unit) for name, f in figures_of(record).items() if f.value}
    if isinstance(record, Model):
        return own | _of_model({name: value for name, (value, _) in own.items()})
    if isinstance(record, Chip):
        return own | _of_machine(record, {name: value for name, (value, _) in own.items()})
    chip = facts.chips[record.chip]
    whole = {
        name: (_times(_value(f"chips/{chip.id}/{name}", figure), record.chips), figure.unit)
        for name in _SUMMED
        if (figure := getattr(chip, name)) and figure.value
    }
    own |= whole
    return own | _of_machine(chip, {name: value for name, (value, _) in own.items()})


_SUMMED = (
    "bf16_flop_per_s", "fp8_flop_per_s", "int8_op_per_s", "fp4_flop_per_s", "sram_bytes", "sram_bytes_per_s",
    "mem_bytes", "mem_bytes_per_s",
)  # fmt: skip


def _value(id_: str, figure: Figure) -> Value:
    return Value(figure.value, figure.kind, (id_,))


def _times(value: Value, factor: float) -> Value:
    kind = "unverified" if value.kind == "unverified" else "derived" if factor != 1 else value.kind
    return Value(value.value * factor, kind, value.figures)


def _made(make: Callable[..., float], *values: Value | None) -> Value | None:
    """A value computed from others, as doubtful as the most doubtful of them; nothing where one is missing."""
    there = [value for value in values if value is not None]
    if len(there) < len(values):
        return None
    kind = "unverified" if any(value.kind == "unverified" for value in there) else "derived"
    ids = tuple(dict.fromkeys(id_ for value in there for id_ in value.figures))
    return Value(make(*(value.value for value in there)), kind, ids)


_UNITS_OF_DERIVED = {
    "ridge_flop_per_byte": "FLOP/byte",
    "bytes_per_flop": "byte/FLOP",
    "sweep_s": "s",
    "flop_per_joule": "FLOP/J",
    "rent_usd_per_hour_per_tbyte_per_s": "USD/h",
    "rent_usd_per_hour_per_pflop_per_s": "USD/h",
    "operator_cost_usd_per_hour_per_tbyte_per_s": "USD/h",
    "operator_cost_usd_per_hour_per_pflop_per_s": "USD/h",
    "active_share": "1",
    "kv_bytes_per_token": "byte",
    "kv_bytes_per_100k_tokens": "byte",
}
"""Rows that are computed here: FLOP are of the dense 16-bit peak, the memory is the one that holds the weights."""


_ORDER = (*SI_UNITS, *_UNITS_OF_DERIVED)


def _of_machine(chip: Chip, own: dict[str, Value]) -> _Column:
    """Ridge point, sweep time and prices of speed; on chips that hold the weights in SRAM, SRAM is the memory."""
    memory = "sram" if chip.kind == "sram" else "mem"
    size, rate, peak = own.get(f"{memory}_bytes"), own.get(f"{memory}_bytes_per_s"), own.get("bf16_flop_per_s")
    watts = own.get("tdp_w") or own.get("power_w")
    made = {
        "ridge_flop_per_byte": _made(lambda flop, byte: flop / byte, peak, rate),
        "bytes_per_flop": _made(lambda flop, byte: byte / flop, peak, rate),
        "sweep_s": _made(lambda held, byte: held / byte, size, rate),
        "flop_per_joule": _made(lambda flop, watt: flop / watt, peak, watts),
    }
    for basis in ("rent", "operator_cost"):
        price = own.get(f"{basis}_usd_per_hour")
        made[f"{basis}_usd_per_hour_per_tbyte_per_s"] = _made(lambda usd, byte: usd / (byte / 1e12), price, rate)
        made[f"{basis}_usd_per_hour_per_pflop_per_s"] = _made(lambda usd, flop: usd / (flop / 1e15), price, peak)
    return _with_units(made.items())


def _of_model(own: dict[str, Value]) -> _Column:
    kv = own.get("kv_elements_per_token")
    made = {
        "active_share": _made(lambda active, whole: active / whole, own.get("active_params"), own.get("params")),
        "kv_bytes_per_token": _made(lambda elements: BYTES_OF_16_BIT * elements, kv),
        "kv_bytes_per_100k_tokens": _made(lambda elements: BYTES_OF_16_BIT * LONG_CONTEXT_TOKENS * elements, kv),
    }
    return _with_units(made.items())


def _with_units(made: Iterable[tuple[str, Value | None]]) -> _Column:
    return {name: (value, _UNITS_OF_DERIVED[name]) for name, value in made if value is not None}


_OF_POWER = ("power_w", "flop_per_joule")


def _row(name: str, found: Sequence[tuple[Value, str] | None], bases: Sequence[str]) -> Row:
    """One row; powers on different bases (chip, IT, facility) have no ratio."""
    values = tuple(item[0].value if item else None for item in found)
    alike = [name not in _OF_POWER or basis == bases[0] for basis in bases]
    return Row(
        name=name,
        unit=next(item[1] for item in found if item),
        values=values,
        kinds=tuple(item[0].kind if item else "" for item in found),
        ratios=tuple(ratio if same else None for ratio, same in zip(_ratios(values), alike, strict=True)),
        derived=name in _UNITS_OF_DERIVED,
    )


def _ratios(values: Sequence[float | None]) -> Iterator[float | None]:
    first = values[0]
    for value in values:
        yield value / first if first and value is not None else None

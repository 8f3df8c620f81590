"""Loading the catalogue, file by file and only when a record is asked for."""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from infermix.catalog.measured import Measured
from infermix.catalog.parse import Raw, check_keys, record, toml
from infermix.catalog.records import SI_UNITS, Chip, Efficiency, Figure, Model, Price, Source, Stack, System
from infermix.errors import InputError, near_miss

R = TypeVar("R", bound=msgspec.Struct)
OfferRow = tuple[int, dict[str, str]]

_PRICE_FIGURE = ("value", "unit", "low", "high", "source", "kind", "read", "of", "figure_note")


class UnknownName(InputError, KeyError):
    """No record of that name; a ``KeyError`` too, so that mappings behave as Python expects."""

    __str__ = Exception.__str__


def canonical(name: str) -> str:
    """How spellings are compared: no publisher, lower case, one hyphen for whatever stands between words.

    >>> canonical("meta-llama/Llama-3.1_8B"), canonical("H100 SXM")
    ('llama-3.1-8b', 'h100-sxm')
    """
    return re.sub(r"[^a-z0-9.+]+", "-", name.rsplit("/", 1)[-1].lower()).strip("-")


class Shelf(Mapping[str, R], Generic[R]):
    """Read-only records by id; each is loaded when it is first asked for and then kept."""

    def __init__(self, kind: str, list_ids: Callable[[], Iterable[str]], load: Callable[[str], R]) -> None:
        self.kind = kind
        self._load = functools.cache(load)
        self._ids = functools.cache(lambda: tuple(sorted(list_ids())))
        self._known = functools.cache(lambda: frozenset(self._ids()))
        self._by_spelling = functools.cache(lambda: dict(self.spellings()))

    def __getitem__(self, key: str) -> R:
        if key not in self._known():
            raise UnknownName(
                f"unknown {self.kind}",
                value=key,
                mend=near_miss(key, self._ids()) or f"see `infermix catalog list {self.kind}s`",
            )
        return self._load(key)

    def __contains__(self, key: object) -> bool:
        return key in self._known()

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids())

    def __len__(self) -> int:
        return len(self._ids())

    def spellings(self) -> Iterator[tuple[str, str]]:
        """(canonical spelling, id) of every record's id, name and aliases; every record is loaded."""
        for id_ in self:
            record = self[id_]
            names = (id_, getattr(record, "name", id_), *getattr(record, "aliases", ()))
            yield from ((spelled, id_) for spelled in sorted({canonical(name) for name in names}))

    def called(self, name: str) -> R:
        """The record with this id, name or alias; ``UnknownName`` with a near miss when there is none."""
        if name in self:
            return self[name]
        return self[self._by_spelling().get(canonical(name), name)]


@dataclass(frozen=True)
class Catalog:
    """Every fact that infermix knows, by kind and id."""

    chips: Shelf[Chip]
    systems: Shelf[System]
    models: Shelf[Model]
    prices: Mapping[str, Price]
    efficiencies: Mapping[str, Efficiency]
    stacks: Mapping[str, Stack]
    sources: Mapping[str, Source]


@functools.cache
def catalog() -> Catalog:
    """The packaged catalogue; nothing is read before a record is asked for.

    >>> catalog().chips["h200-sxm"].mem_bytes.value
    141000000000.0
    """
    return open_catalog(files("infermix.catalog") / "data")


def open_catalog(root: Traversable) -> Catalog:
    """A catalogue in the folder ``root``: a file for each chip, model, efficiency, stack; else several in one."""
    return Catalog(
        chips=_by_file("chip", root / "chips", Chip),
        systems=_whole("system", functools.cache(lambda: _systems(root / "systems"))),
        models=_by_file("model", root / "models", Model),
        prices=_whole("price", functools.cache(lambda: _prices(root / "prices"))),
        efficiencies=_by_file("efficiency", root / "efficiency", Efficiency),
        stacks=_by_file("stack", root / "stacks", Stack),
        sources=_whole("source", functools.cache(lambda: _sources(root / "sources.toml"))),
    )


def load_own_chip(path: str | Path) -> tuple[Chip, System]:
    """Read a user's chip: TOML with a ``[chip]`` and a ``[system]`` table in the catalogue's form.

    Figures may leave out source, kind and read date: they are then the user's own word (source
    ``own``, kind ``unverified``). The system may leave out name, vendor, chip and chips (1).
    Raises ``InputError`` with file, key and value.
    """
    where = str(path)
    try:
        raw = toml(Path(path).read_text(encoding="utf-8"), where)
    except (OSError, UnicodeDecodeError) as fault:
        raise InputError(f"cannot be read: {getattr(fault, 'strerror', None) or fault}", where=where) from None
    check_keys(raw, ("chip", "system"), where)
    for table in ("chip", "system"):
        if not isinstance(raw.get(table), dict):
            raise InputError(f"the [{table}] table is missing", where=where, allowed="[chip] and [system]")
    chip = record(Chip, _own(raw["chip"]), f"{where}: chip")
    shared = {"name": chip.name, "vendor": chip.vendor, "chip": chip.id, "chips": 1}
    system = record(System, {**shared, **_own(raw["system"])}, f"{where}: system")
    if system.chip != chip.id:
        raise InputError(
            "the system is not made of this chip", where=f"{where}: system.chip", value=system.chip, allowed=chip.id
        )
    return chip, system


def with_own_chip(base: Catalog, chip: Chip, system: System) -> Catalog:
    """``base`` and one more chip and system. Raises ``InputError`` when an id is taken."""
    for shelf, id_ in ((base.chips, chip.id), (base.systems, system.id)):
        if id_ in shelf:
            raise InputError("the catalogue has this id already", value=id_, mend="choose another id")
    return replace(
        base,
        chips=_added("chip", base.chips, chip.id, chip),
        systems=_added("system", base.systems, system.id, system),
    )


def with_measured(base: Catalog, system: System, own: Measured) -> Catalog:
    """``base``, and step times that were measured of a deployment of this system."""
    told = msgspec.structs.replace(system, measured=(*system.measured, own))
    systems = base.systems
    return replace(base, systems=Shelf("system", lambda: systems, lambda key: told if key == told.id else systems[key]))


def _added(kind: str, base: Mapping[str, R], id_: str, extra: R) -> Shelf[R]:
    return Shelf(kind, lambda: (*base, id_), lambda key: extra if key == id_ else base[key])


def _own(raw: Raw) -> Raw:
    said = {"source": ["own"], "kind": "unverified", "read": ""}
    return {key: {**said, **item} if key in SI_UNITS and isinstance(item, dict) else item for key, item in raw.items()}


def _by_file(kind: str, folder: Traversable, type_: type[R]) -> Shelf[R]:
    def ids() -> Iterator[str]:
        if folder.is_dir():
            yield from (entry.name[: -len(".toml")] for entry in folder.iterdir() if entry.name.endswith(".toml"))

    def load(id_: str) -> R:
        file = folder / f"{id_}.toml"
        return named_record(type_, file.read_text(encoding="utf-8"), id_, str(file))

    return Shelf(kind, ids, load)


def named_record(type_: type[R], text: str, id_: str, where: str) -> R:
    """The record in the text of a file that bears its id."""
    raw = toml(text, where)
    if raw.get("id") != id_:
        raise InputError("the id differs from the file's name", where=f"{where}: id", value=raw.get("id"), allowed=id_)
    return record(type_, raw, where)


def _whole(kind: str, load: Callable[[], dict[str, R]]) -> Shelf[R]:
    return Shelf(kind, load, lambda id_: load()[id_])


def _systems(folder: Traversable) -> dict[str, System]:
    found: dict[str, System] = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml"):
            continue
        raw = toml(file.read_text(encoding="utf-8"), str(file))
        check_keys(raw, ("system",), str(file))
        for table in raw.get("system", []):
            _keep(found, record(System, table, f"{file}: {table.get('id', 'system')}"), str(file))
    return found


def _sources(file: Traversable) -> dict[str, Source]:
    raw = toml(file.read_text(encoding="utf-8"), str(file))
    return {id_: record(Source, {"id": id_, **table}, f"{file}: {id_}") for id_, table in raw.items()}


def _prices(folder: Traversable) -> dict[str, Price]:
    found: dict[str, Price] = {}
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".csv"):
            for id_, rows in offer_rows(file.read_text(encoding="utf-8"), str(file)).items():
                _keep(found, record(Price, offer(rows, str(file)), f"{file}: {id_}"), str(file))
    return found


def offer_rows(text: str, where: str) -> dict[str, list[OfferRow]]:
    """The rows of a price file by offer, each with its line; one row is one figure."""
    lines = csv.DictReader(io.StringIO(text), strict=True)
    lacking = [column for column in ("id", "figure", *_PRICE_FIGURE) if column not in (lines.fieldnames or ())]
    if lacking:
        raise InputError(f"the header lacks {', '.join(lacking)}", where=where)
    found: dict[str, list[OfferRow]] = {}
    for row in lines:
        found.setdefault(row["id"], []).append((lines.line_num, row))
    return found


def offer(rows: Sequence[OfferRow], where: str) -> Raw:
    """The raw record of one offer; its texts stand in its first row. Raises ``InputError`` with the line."""
    texts = {key: cell for key, cell in rows[0][1].items() if cell and key not in (*_PRICE_FIGURE, "figure")}
    raw: Raw = {"provider": "", **texts}
    if "chips" in raw:
        raw["chips"] = int(_float(raw["chips"], f"{where} line {rows[0][0]}: chips"))
    for line, row in rows:
        if None in row or None in row.values():
            raise InputError("row and header differ in length", where=f"{where} line {line}")
        if row["figure"] in raw:
            raise InputError("a figure stands twice", where=f"{where} line {line}", value=row["figure"])
        raw[row["figure"]] = _price_figure(row, f"{where} line {line}: {row['figure']}")
    return raw


def _price_figure(row: dict[str, str], where: str) -> Raw:
    figure: Raw = {"unit": row["unit"], "kind": row["kind"], "read": row["read"]}
    for part in ("value", "low", "high"):
        if row[part]:
            figure[part] = _float(row[part], f"{where}: {part}")
    figure["source"], figure["of"] = row["source"].split(), row["of"].split()
    figure["note"] = row["figure_note"]
    return figure


def _float(cell: str, where: str) -> float:
    try:
        return float(cell)
    except ValueError:
        raise InputError("not a number", where=where, value=cell) from None


def _keep(found: dict[str, R], item: R, where: str) -> None:
    id_: str = item.id  # type: ignore[attr-defined]
    if id_ in found:
        raise InputError("an id stands twice", where=where, value=id_)
    found[id_] = item


def figures_of(item: msgspec.Struct) -> dict[str, Figure]:
    """The figures of a record by field name (by their own names for an efficiency or a stack)."""
    if isinstance(item, Efficiency | Stack):
        return dict(item.figures)
    fields = {name: getattr(item, name) for name in item.__struct_fields__}
    return {name: value for name, value in fields.items() if isinstance(value, Figure)}

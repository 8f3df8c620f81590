"""The catalogue read to the end: what is well formed as facts, what is not as faults, file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib.resources.abc import Traversable
from typing import NamedTuple, TypeVar

import msgspec

from infermix.catalog.check.fault import Fault, said
from infermix.catalog.load import OfferRow, figures_of, named_record, offer, offer_rows
from infermix.catalog.parse import check_keys, record, toml
from infermix.catalog.records import Chip, Efficiency, Figure, Model, Price, Source, Stack, System
from infermix.errors import InputError

R = TypeVar("R", bound=msgspec.Struct)


class Place(NamedTuple):
    """A figure and where it stands."""

    record: str
    field: str
    figure: Figure

    @property
    def id(self) -> str:
        """The figure's id: ``part/record/field``."""
        return f"{self.record}/{self.field}"


@dataclass(frozen=True)
class Facts:
    """Every well-formed record by id, the file of each, and the faults met while reading the others."""

    chips: dict[str, Chip] = field(default_factory=dict)
    systems: dict[str, System] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    prices: dict[str, Price] = field(default_factory=dict)
    efficiency: dict[str, Efficiency] = field(default_factory=dict)
    stacks: dict[str, Stack] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """File of every record that was met, malformed ones too, by ``part/id``."""
    stated: dict[str, frozenset[str]] = field(default_factory=dict)
    """Keys that the table of each system holds: what a record leaves out has its default."""
    malformed: list[Fault] = field(default_factory=list)

    def parts(self) -> dict[str, dict[str, msgspec.Struct]]:
        """Records with figures by the part of the catalogue that they stand in."""
        return {
            "chips": {**self.chips},
            "systems": {**self.systems},
            "models": {**self.models},
            "prices": {**self.prices},
            "efficiency": {**self.efficiency},
            "stacks": {**self.stacks},
        }

    def records(self) -> Iterator[tuple[str, msgspec.Struct]]:
        """Every record with its key, such as ``chips/h200-sxm``."""
        for part, held in self.parts().items():
            yield from ((f"{part}/{id_}", item) for id_, item in held.items())

    @cached_property
    def figures(self) -> dict[str, Place]:
        """Every figure by its id."""
        places = (Place(key, name, figure) for key, item in self.records() for name, figure in figures_of(item).items())
        return {place.id: place for place in places}

    def is_malformed(self, key: str) -> bool:
        """Whether the record, or that of this figure, was met but could not be read: its fault is told already."""
        key = "/".join(key.split("/")[:2])
        return key in self.files and key not in self._kept

    @cached_property
    def _kept(self) -> frozenset[str]:
        return frozenset(key for key, _ in self.records()) | {f"sources/{id_}" for id_ in self.sources}

    def fault(
        self,
        rule: str,
        key: str,
        name: str,
        what: str,
        *,
        value: str | Figure = "",
        allowed: str = "",
        mend: str = "",
        others: tuple[str, ...] = (),
    ) -> Fault:
        """A fault of the field ``name`` of the record ``key``; ``others`` are ids of figures that it contradicts."""
        own = f"{key}/{name}"
        ids = dict.fromkeys((own, *others) if own in self.figures else others)
        return Fault(
            rule=rule,
            file=self.files.get(key, ""),
            record=key,
            field=name,
            what=what,
            value=said(value) if isinstance(value, Figure) else value,
            allowed=allowed,
            mend=mend,
            figures=tuple(ids),
        )


def read(root: Traversable) -> Facts:
    """Read every file of the catalogue in the folder ``root``."""
    facts = Facts()
    _read_files(facts, root, "chips", Chip, facts.chips)
    _read_files(facts, root, "models", Model, facts.models)
    _read_files(facts, root, "efficiency", Efficiency, facts.efficiency)
    _read_files(facts, root, "stacks", Stack, facts.stacks)
    _read_systems(facts, root / "systems")
    _read_prices(facts, root / "prices")
    _read_sources(facts, root / "sources.toml")
    return facts


def _read_files(facts: Facts, root: Traversable, part: str, type_: type[R], held: dict[str, R]) -> None:
    for file, text in _texts(facts, root / part, part, ".toml"):
        id_ = file.rpartition("/")[2].removesuffix(".toml")
        _keep(facts, held, f"{part}/{id_}", file, partial(named_record, type_, text, id_, file))


def _texts(facts: Facts, folder: Traversable, prefix: str, ending: str) -> Iterator[tuple[str, str]]:
    """(path below the root, text) of the folder's files."""
    if not folder.is_dir():
        return
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if not entry.name.endswith(ending):
            continue
        file = f"{prefix}/{entry.name}"
        try:
            yield file, entry.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            facts.malformed.append(_unread(file, "", InputError(f"cannot be read: {error}", where=file)))


def _keep(facts: Facts, held: dict[str, R], key: str, file: str, make: Callable[[], R]) -> None:
    id_ = key.partition("/")[2]
    if id_ in held:
        facts.malformed.append(_unread(file, key, InputError("an id stands twice", where=f"{file}: id", value=id_)))
        return
    facts.files[key] = file
    try:
        held[id_] = make()
    except InputError as error:
        facts.malformed.append(_unread(file, key, error))


def _read_systems(facts: Facts, folder: Traversable) -> None:
    for file, text in _texts(facts, folder, "systems", ".toml"):
        try:
            raw = toml(text, file)
            check_keys(raw, ("system",), file)
        except InputError as error:
            facts.malformed.append(_unread(file, "", error))
            continue
        for table in raw.get("system", []):
            key = f"systems/{table.get('id', '')}"
            facts.stated.setdefault(key, frozenset(table))
            _keep(facts, facts.systems, key, file, partial(record, System, table, file))


def _read_prices(facts: Facts, folder: Traversable) -> None:
    for file, text in _texts(facts, folder, "prices", ".csv"):
        try:
            groups = offer_rows(text, file)
        except InputError as error:
            facts.malformed.append(_unread(file, "", error))
            continue
        for id_, rows in groups.items():
            _keep(facts, facts.prices, f"prices/{id_}", file, partial(_price, rows, file))


def _price(rows: list[OfferRow], file: str) -> Price:
    return record(Price, offer(rows, file), file)


def _read_sources(facts: Facts, file: Traversable) -> None:
    try:
        raw = toml(file.read_text(encoding="utf-8"), file.name)
    except (OSError, UnicodeDecodeError) as error:
        fault = InputError(f"cannot be read: {error}", where=file.name)
        facts.malformed.append(_unread(file.name, "", fault))
        return
    except InputError as error:
        facts.malformed.append(_unread(file.name, "", error))
        return
    for id_, table in raw.items():
        _keep(
            facts, facts.sources, f"sources/{id_}", file.name, partial(record, Source, {"id": id_, **table}, file.name)
        )


def _unread(file: str, key: str, error: InputError) -> Fault:
    """The fault that an error of reading amounts to; the field is what its place says after the file."""
    places = [part for part in error.where.removeprefix(file).strip(": ").split(": ") if not part.startswith("line ")]
    name = places[0].removeprefix("figures.").split(".")[0] if places else ""
    said_after = str(error).removeprefix(f"{error.where}: ").split("; ")[1:]
    rest = [part for part in said_after if not part.startswith("got ")]
    return Fault(
        rule="well_formed",
        file=file,
        record=key,
        field=name,
        what=error.what,
        value="" if error.value is None else str(error.value),
        allowed="; ".join(part.removeprefix("allowed: ") for part in rest if part.startswith("allowed: ")),
        mend="; ".join(part for part in rest if not part.startswith("allowed: ")),
        figures=(),
    )

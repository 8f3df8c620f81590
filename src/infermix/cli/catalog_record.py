"""Output of ``infermix catalog show``: one record, its figures, their grounds and sources."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infermix.catalog.load import Catalog, figures_of
from infermix.catalog.records import Figure
from infermix.cli.output import human_figure

_SHOWN_APART = ("id", "name", "item", "source", "no_speed", "note")


def cited(facts: Catalog, record: msgspec.Struct) -> dict[str, Any]:
    """The sources that a record and its figures rest on."""
    ids = [id_ for figure in figures_of(record).values() for id_ in figure.source]
    ids += getattr(record, "source", ())
    return {id_: msgspec.to_builtins(facts.sources[id_]) for id_ in dict.fromkeys(ids)}


def print_record(console: Console, facts: Catalog, part: str, record: msgspec.Struct) -> None:
    """Print one record; a chip without speed says so first."""
    row: dict[str, Any] = msgspec.to_builtins(record)
    title = row["name"] if "name" in row else row["item"]
    console.print(f"[bold]{escape(title)}[/bold]  ({part}/{row['id']})")
    if row.get("no_speed"):
        _say(console, f"No speed can be told: {row['no_speed']}", style="bold")
    console.print(_texts(row))
    if row.get("note"):
        _say(console, row["note"])
    figures = figures_of(record)
    if figures:
        console.print(_figure_table(figures))
        _print_grounds(console, figures)
    for id_, source in cited(facts, record).items():
        _say(console, " ".join(x for x in (f"{id_}:", source["text"], source["url"], source["date"]) if x), style="dim")


def _texts(row: Mapping[str, Any]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for key, item in row.items():
        if isinstance(item, dict) or item in (None, "", [], ()) or key in _SHOWN_APART:
            continue
        table.add_row(key, escape(", ".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)))
    return table


def _figure_table(figures: Mapping[str, Figure]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("figure", no_wrap=True)
    table.add_column("value", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("source")
    for name, figure in figures.items():
        table.add_row(name, human_figure(figure), figure.kind, escape(" ".join(figure.source)))
    return table


def _print_grounds(console: Console, figures: Mapping[str, Figure]) -> None:
    """Notes and the figures that others were computed from, on lines of their own: ids are never broken."""
    for name, figure in figures.items():
        said = [f"of {' and '.join(figure.of)}"] if figure.of else []
        said += [figure.note] if figure.note else []
        if said:
            _say(console, f"{name}: {'; '.join(said)}")


def _say(console: Console, text: str, *, style: str = "") -> None:
    """Text in lines that break between words only."""
    lines = textwrap.wrap(
        text, console.width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )  # fmt: skip
    for line in lines:
        console.print(line, style=style or None, markup=False, soft_wrap=True)

"""``infermix catalog``: list the facts and show one of them with its sources."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infermix.catalog.load import Catalog, figures_of
from infermix.catalog.load import catalog as packaged
from infermix.catalog.query import shelves
from infermix.catalog.records import Chip, Figure, Model, Price, System
from infermix.cli.output import console_out, human, human_figure, one_line_errors, write_json
from infermix.errors import InputError, near_miss

Row = tuple[str, ...]

_JSON = click.option("--json", "json_path", metavar="FILE", help="Write the rows as JSON (- for stdout).")


@click.group("catalog")
def catalog() -> None:
    """The facts: chips, systems, models and prices, each figure with its source."""


@catalog.command("list")
@click.argument("kind", type=click.Choice(["chips", "systems", "models", "prices"]))
@_JSON
def list_records(kind: str, json_path: str | None) -> None:
    """List every record of one KIND. A question mark marks figures that nobody looked up."""
    with one_line_errors():
        records = list(shelves(packaged())[kind].values())
        console = console_out(json_path == "-")
        console.print(_list_table(kind, records))
        console.print(f"{len(records)} {kind}; ? = unverified")
        if json_path:
            write_json(json_path, [_row(record) for record in records])


@catalog.command("show")
@click.argument("name")
@_JSON
def show(name: str, json_path: str | None) -> None:
    """Show one chip, system, model or price by NAME (or PART/NAME, as systems/gb200-nvl72)."""
    with one_line_errors():
        facts = packaged()
        found = _find(facts, name)
        part, record = next(iter(found.items()))
        console = console_out(json_path == "-")
        _print_record(console, facts, part, record)
        for other in list(found)[1:]:
            console.print(f"Also: {other}/{name}")
        if json_path:
            write_json(json_path, {**_row(record), "part": part, "sources": _cited(facts, record)})


def _find(facts: Catalog, name: str) -> dict[str, msgspec.Struct]:
    parts = shelves(facts)
    part, _, rest = name.partition("/")
    if rest and part in parts:
        return {part: parts[part][rest]}
    found = {part: shelf[name] for part, shelf in parts.items() if name in shelf}
    if not found:
        known = [id_ for shelf in parts.values() for id_ in shelf]
        raise InputError(
            "unknown chip, system, model or price",
            value=name,
            mend=near_miss(name, known) or "see `infermix catalog list chips`",
        )
    return found


def _row(record: msgspec.Struct) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(record)
    return row


def _cited(facts: Catalog, record: msgspec.Struct) -> dict[str, Any]:
    ids = [id_ for figure in figures_of(record).values() for id_ in figure.source]
    ids += getattr(record, "source", ())
    return {id_: msgspec.to_builtins(facts.sources[id_]) for id_ in dict.fromkeys(ids)}


def _print_record(console: Console, facts: Catalog, part: str, record: msgspec.Struct) -> None:
    row = _row(record)
    title = row["name"] if "name" in row else row["item"]
    console.print(f"[bold]{escape(title)}[/bold]  ({part}/{row['id']})")
    texts = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    texts.add_column(style="dim", no_wrap=True)
    texts.add_column(overflow="fold")
    for key, item in row.items():
        if isinstance(item, dict) or item in (None, "", [], ()) or key in ("id", "name", "item", "source"):
            continue
        texts.add_row(key, escape(", ".join(map(str, item)) if isinstance(item, (list, tuple)) else str(item)))
    console.print(texts)
    if figures := figures_of(record):
        console.print(_figure_table(figures))
    for id_, source in _cited(facts, record).items():
        console.print(
            " ".join(x for x in (f"{id_}:", source["text"], source["url"], source["date"]) if x),
            style="dim",
            markup=False,
        )


def _figure_table(figures: Mapping[str, Figure]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("figure", no_wrap=True)
    table.add_column("value")
    table.add_column("kind", no_wrap=True)
    table.add_column("source", overflow="fold")
    for name, figure in figures.items():
        said = " ".join(figure.source)
        said += f"; {figure.note}" if figure.note else ""
        said += f"; of {', '.join(figure.of)}" if figure.of else ""
        table.add_row(name, human_figure(figure), figure.kind, escape(said))
    return table


def _list_table(kind: str, records: list[Any]) -> Table:
    columns, cells = _LISTS[kind]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        left = index == 0 or column in ("chip", "vendor", "basis", "date", "weights", "link", "status")
        table.add_column(column, justify="left" if left else "right", no_wrap=True, overflow="fold")
    for record in records:
        table.add_row(*cells(record))
    return table


def _brief(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return human(figure.value, figure.unit) + ("?" if figure.kind == "unverified" else "")


def _chip_cells(chip: Chip) -> Row:
    figures = (chip.bf16_flop_per_s, chip.sram_bytes, chip.mem_bytes, chip.mem_bytes_per_s, chip.tdp_w)
    return (chip.id, chip.vendor.split(" (")[0], chip.kind, *map(_brief, figures), _brief(chip.rent_usd_per_hour))


def _system_cells(system: System) -> Row:
    figures = (system.power_w, system.rent_usd_per_hour, system.operator_cost_usd_per_hour, system.capital_usd)
    return (system.id, system.chip, str(system.chips), *map(_brief, figures))


def _model_cells(model: Model) -> Row:
    mark = "?" if model.kind == "unverified" else ""
    kv = f"{human(2 * model.kv_elements_per_token.value, 'byte')}{mark}"
    context = f"{model.max_context:,}"
    return (
        model.id,
        _brief(model.params),
        _brief(model.active_params),
        str(model.layers),
        kv,
        context,
        model.native_weights,
    )


def _price_cells(price: Price) -> Row:
    money = price.usd_per_hour or price.capital_usd
    if money:
        return (
            price.id,
            price.basis,
            price.date or "-",
            _brief(money) + (f" for {price.chips}" if price.chips > 1 else ""),
        )
    tokens = [_brief(figure) for figure in (price.input_usd_per_mtok, price.output_usd_per_mtok) if figure]
    each = " / ".join(text.replace(" USD/Mtok", "") for text in tokens)
    return (price.id, price.basis, price.date or "-", f"{each} USD/Mtok" if each else "-")


_LISTS: dict[str, tuple[Row, Callable[[Any], Row]]] = {
    "chips": (("chip", "vendor", "kind", "bf16", "SRAM", "memory", "bandwidth", "TDP", "rent"), _chip_cells),
    "systems": (("system", "chip", "chips", "power", "rent", "operator cost", "capital"), _system_cells),
    "models": (("model", "params", "active", "layers", "KV/token 16 bit", "context", "weights"), _model_cells),
    "prices": (("price", "basis", "date", "chips; tokens in / out"), _price_cells),
}

"""Tables of ``infermix catalog list``: one line a record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

from infermix.catalog.records import Chip, Figure, Model, Price, System
from infermix.cli.output import human

Row = tuple[str, ...]
_LEFT = ("chip", "vendor", "kind", "basis", "date", "weights")
NO_SPEED, CLOSED = " !", " *"
MARKS = {
    "chips": f"? = unverified;{NO_SPEED} = no speed can be told, `infermix catalog show CHIP` says why",
    "systems": "? = unverified",
    "models": f"? = unverified;{CLOSED} = closed: the shape is a guess",
    "prices": "? = unverified",
}
"""What the marks of each list mean."""


def list_table(kind: str, records: list[Any]) -> Table:
    """One line a record; the last column wraps where ids are long."""
    columns, cells = _LISTS[kind]
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        wraps = column == "vendor" or (kind == "prices" and index == len(columns) - 1)
        left = index == 0 or column in _LEFT
        table.add_column(column, justify="left" if left else "right", no_wrap=not wraps, overflow="fold")
    for record in records:
        table.add_row(*cells(record))
    return table


def _brief(figure: Figure | None) -> str:
    if figure is None:
        return "-"
    return human(figure.value, figure.unit) + ("?" if figure.kind == "unverified" else "")


def _chip_cells(chip: Chip) -> Row:
    figures = (chip.bf16_flop_per_s, chip.sram_bytes, chip.mem_bytes, chip.mem_bytes_per_s, chip.tdp_w)
    name = chip.id + (NO_SPEED if chip.no_speed else "")
    return (
        name,
        chip.vendor.split(" (")[0],
        chip.kind,
        *map(_brief, figures),
        _brief(chip.rent_usd_per_hour).replace(" USD/h", ""),
    )


def _system_cells(system: System) -> Row:
    figures = (system.power_w, system.rent_usd_per_hour, system.operator_cost_usd_per_hour, system.capital_usd)
    return (system.id, system.chip, str(system.chips), *map(_brief, figures))


def _model_cells(model: Model) -> Row:
    mark = "?" if model.kind == "unverified" else ""
    return (
        model.id + (CLOSED if model.closed else ""),
        _brief(model.params),
        _brief(model.active_params),
        str(model.layers),
        f"{human(2 * model.kv_elements_per_token.value, 'byte')}{mark}",
        f"{model.max_context:,}",
        model.native_weights,
    )


def _price_cells(price: Price) -> Row:
    money = price.usd_per_hour or price.capital_usd
    if money:
        paid = _brief(money) + (f" for {price.chips}" if price.chips > 1 else "")
    else:
        tokens = [_brief(figure) for figure in (price.input_usd_per_mtok, price.output_usd_per_mtok) if figure]
        each = " / ".join(text.replace(" USD/Mtok", "") for text in tokens)
        paid = f"{each} USD/Mtok" if each else "-"
    return (price.id, price.basis.replace("_", " "), price.date or "-", paid)


_LISTS: dict[str, tuple[Row, Callable[[Any], Row]]] = {
    "chips": (("chip", "vendor", "kind", "bf16", "SRAM", "memory", "bandwidth", "TDP", "USD/h"), _chip_cells),
    "systems": (("system", "chip", "chips", "power", "rent", "operator cost", "capital"), _system_cells),
    "models": (("model", "params", "active", "layers", "KV/token 16 bit", "context", "weights"), _model_cells),
    "prices": (("price", "basis", "date", "chips; tokens in / out"), _price_cells),
}

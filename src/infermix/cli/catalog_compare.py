"""Output of ``infermix catalog compare``: records in columns, ratios to the first beside each value."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from infermix.catalog.compare import Comparison, Row
from infermix.cli.output import human

OTHERS_IN_A_TABLE = 2
"""Records beside the first that fit a hundred columns."""
MARKS = {"measured": "m", "vendor": "v", "derived": "d", "press": "p", "unverified": "?"}

NAMES = {
    "ridge_flop_per_byte": "ridge point",
    "bytes_per_flop": "bytes per FLOP",
    "sweep_s": "sweep of the memory",
    "flop_per_joule": "FLOP per joule",
    "rent_usd_per_hour_per_tbyte_per_s": "rent per TB/s",
    "rent_usd_per_hour_per_pflop_per_s": "rent per PFLOP/s",
    "operator_cost_usd_per_hour_per_tbyte_per_s": "operator cost per TB/s",
    "operator_cost_usd_per_hour_per_pflop_per_s": "operator cost per PFLOP/s",
    "active_share": "active share",
    "kv_bytes_per_token": "KV per token, 16 bit",
    "kv_bytes_per_100k_tokens": "KV per 100,000 tokens",
}
"""Derived rows as people call them."""


def print_comparison(console: Console, found: Comparison) -> None:
    """Print the comparison, the first record again in every further table."""
    others = range(1, len(found.ids))
    for start in range(0, len(others), OTHERS_IN_A_TABLE):
        console.print(_table(found, [0, *others[start : start + OTHERS_IN_A_TABLE]]))
    meanings = ", ".join(f"{mark} {kind}" for kind, mark in MARKS.items())
    console.print(f"{meanings}; x = times {found.ids[0]}")
    if found.part != "models":
        console.print("Arithmetic is the dense 16-bit peak, memory the one that holds the weights.")


def _table(found: Comparison, columns: list[int]) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column(found.part, no_wrap=True)
    for column in columns:
        table.add_column(found.ids[column], justify="right", overflow="fold")
        if column:
            table.add_column("x", justify="right", no_wrap=True)
    for name, texts in found.texts.items():
        table.add_row(name, *_flat((escape(texts[column]), "") for column in columns))
    for row in found.rows:
        table.add_row(
            NAMES.get(row.name, row.name), *_flat((_cell(row, column), _ratio(row, column)) for column in columns)
        )
    return table


def _flat(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Value and ratio of each column; the first column has no ratio."""
    cells = [cell for pair in pairs for cell in pair]
    return cells[:1] + cells[2:]


def _cell(row: Row, column: int) -> str:
    value = row.values[column]
    if value is None:
        return "-"
    shown = f"{value:,.4g}" if row.unit == "byte/FLOP" or (row.unit == "1" and value < 1) else human(value, row.unit)
    return f"{shown} {MARKS[row.kinds[column]]}"


def _ratio(row: Row, column: int) -> str:
    ratio = row.ratios[column]
    return "" if ratio is None else f"{ratio:,.0f}" if ratio >= 1000 else f"{ratio:.3g}"

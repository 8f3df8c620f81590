"""``infermix catalog``: list the facts, show, compare and check them."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from infermix.catalog.load import Catalog
from infermix.catalog.load import catalog as packaged
from infermix.catalog.query import figure_ids, shelves
from infermix.cli.output import console_out, one_line_errors, write_json
from infermix.errors import InputError, near_miss

_JSON = click.option("--json", "json_path", metavar="FILE", help="Write the rows as JSON (- for stdout).")


@click.group("catalog")
def catalog() -> None:
    """The facts: chips, systems, models and prices, each figure with its source."""


@catalog.command("list")
@click.argument("kind", type=click.Choice(["chips", "systems", "models", "prices"]))
@_JSON
def list_records(kind: str, json_path: str | None) -> None:
    """List every record of one KIND. A question mark marks figures that nobody looked up."""
    from infermix.cli.catalog_lists import MARKS, list_table

    with one_line_errors():
        records = list(shelves(packaged())[kind].values())
        console = console_out(json_path == "-")
        console.print(list_table(kind, records))
        console.print(f"{len(records)} {kind}; {MARKS[kind]}", markup=False)
        if json_path:
            write_json(json_path, [_row(kind, record) for record in records])


@catalog.command("show")
@click.argument("name")
@_JSON
def show(name: str, json_path: str | None) -> None:
    """Show one chip, system, model or price by NAME (or PART/NAME, as systems/gb200-nvl72)."""
    from infermix.cli.catalog_record import cited, print_record

    with one_line_errors():
        facts = packaged()
        found = _find(facts, name)
        part, record = next(iter(found.items()))
        console = console_out(json_path == "-")
        print_record(console, facts, part, record)
        for other in list(found)[1:]:
            console.print(f"Also: {other}/{name}")
        if json_path:
            write_json(json_path, {**_row(part, record), "part": part, "sources": cited(facts, record)})


@catalog.command("compare")
@click.argument("names", nargs=-1, required=True)
@click.option("--json", "json_path", metavar="FILE", help="Write the comparison as JSON (- for stdout).")
def compare_records(names: tuple[str, ...], json_path: str | None) -> None:
    """Put two or more chips, systems or models side by side, with ratios to the first."""
    from infermix.catalog.compare import compare
    from infermix.cli.catalog_compare import print_comparison

    with one_line_errors():
        found = compare(names)
        print_comparison(console_out(json_path == "-"), found)
        if json_path:
            write_json(json_path, found)


@catalog.command("check")
@click.option("--root", metavar="FOLDER", help="Check the catalogue in this folder instead of the packaged one.")
@click.option("--json", "json_path", metavar="FILE", help="Write faults, warnings and counts as JSON (- for stdout).")
def check_facts(root: str | None, json_path: str | None) -> None:
    """Check every figure: shape, units, ranges, physics, ages, sources. Exit 1 when there are faults."""
    from infermix.catalog.check.run import check
    from infermix.cli.catalog_check import print_report

    with one_line_errors():
        report = check(root)
        print_report(console_out(json_path == "-"), report)
        if json_path:
            write_json(json_path, report)
    if report.faults:
        raise click.exceptions.Exit(1)


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


def _row(part: str, record: msgspec.Struct) -> dict[str, Any]:
    return {**msgspec.to_builtins(record), "figures": figure_ids(part, record)}

"""``infermix workload``: what traffic looks like."""

from __future__ import annotations

import click

from infermix.cli.output import console_out, one_line_errors, write_json
from infermix.errors import InputError


@click.group("workload")
def workload() -> None:
    """Traffic: pictures of traces and profiles."""


@workload.command("show")
@click.argument("name", metavar="FILE|PROFILE")
@click.option("--columns", multiple=True, metavar="OURS=THEIRS", help="Name a column of the file; may be repeated.")
@click.option("--only", multiple=True, metavar="COLUMN=VALUE", help="Keep a model or kind; may be repeated.")
@click.option("--between", type=float, nargs=2, metavar="FROM TO", help="Only this stretch of the trace, in seconds.")
@click.option("--rate", "rate_per_s", type=float, metavar="N", help="Show it at N requests a second.")
@click.option("--report", metavar="FILE.html", help="Write the picture as one HTML page.")
@click.option("--json", "json_path", metavar="FILE", help="Write the picture as JSON (- for stdout).")
def show(
    name: str,
    columns: tuple[str, ...],
    only: tuple[str, ...],
    between: tuple[float, float] | None,
    rate_per_s: float | None,
    report: str | None,
    json_path: str | None,
) -> None:
    """Show lengths, arrivals, burstiness, reuse and sessions of a trace FILE or a PROFILE."""
    with one_line_errors():
        from infermix.report.workload import print_picture, write_picture
        from infermix.workload.describe import describe

        wanted: dict[str, list[str]] = {}
        for key, value in pairs(only, "--only"):
            wanted.setdefault(key, []).append(value)
        picture = describe(
            name,
            columns=dict(pairs(tuple(p for said in columns for p in said.split(",")), "--columns")),
            only=wanted,
            between_s=between,
            rate_per_s=rate_per_s,
        )
        if report:
            write_picture(picture, report)
        if json_path:
            write_json(json_path, picture)
        print_picture(picture, console_out(json_path == "-"))


def pairs(said: tuple[str, ...], option: str) -> list[tuple[str, str]]:
    """``("a=b", "c=d")`` as pairs."""
    found = []
    for text in said:
        key, equals, value = text.partition("=")
        if not equals or not key.strip() or not value.strip():
            raise InputError("not a pair", where=option, value=text, allowed="NAME=VALUE")
        found.append((key.strip(), value.strip()))
    return found

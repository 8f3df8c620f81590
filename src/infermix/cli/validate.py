"""``infermix validate``: predictions against what was measured."""

from __future__ import annotations

import click

from infermix.cli.output import console_out, one_line_errors, write_json
from infermix.errors import InputError


@click.command("validate")
@click.argument("measurements", metavar="CSV")
@click.option("--worst", type=int, default=8, show_default=True, help="Print so many of the rows farthest off.")
@click.option("--cells", is_flag=True, help="Print every cell of chip, model and metric.")
@click.option("--pages", metavar="FOLDER", help="Write a page for each source, and plots, into this folder.")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON (- for stdout).")
def validate(measurements: str, worst: int, cells: bool, pages: str | None, json_path: str | None) -> None:
    """Predict every row of a CSV of measurements and say how far off that is.

    \b
    infermix validate measurements.csv
    infermix validate measurements.csv --cells --json -
    """  # noqa: D301 - click's mark for lines that stay
    with one_line_errors():
        if worst < 0:
            raise InputError("must be 0 or more", where="--worst", value=worst)
        from infermix.validate.predict import predict_rows
        from infermix.validate.report import record, validation
        from infermix.validate.rows import read_rows

        told = validation(predict_rows(read_rows(measurements)), worst=worst)
        if json_path:
            write_json(json_path, record(told))
        from infermix.cli.validate_tables import print_validation

        print_validation(told, console_out(json_path == "-"), cells=cells)
        if pages:
            from infermix.validate.pages import write_pages

            write_pages(told, pages)

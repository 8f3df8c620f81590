"""``infermix calibrate``: efficiencies from operator tables and measured rows, step times from a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from infermix.cli.calibrate_endpoint import calibrate_endpoint, endpoint_options
from infermix.cli.output import console_out, one_line_errors, write_json
from infermix.errors import InputError


@click.command("calibrate")
@click.option("--tables", metavar="FOLDER", help="Fit operators to tables of their times (Parquet).")
@click.option("--rows", "measurements", metavar="CSV", help="Fit families and stacks to measured rows.")
@click.option("--most", type=int, default=8, show_default=True, help="Cases of each chip, model and engine to look at.")
@click.option("--rounds", type=int, default=8, show_default=True, help="Rounds of the fit at most.")
@click.option("--write", "catalogue", metavar="FOLDER", help="Put the figures into a catalogue's files.")
@click.option("--json", "json_path", metavar="FILE", help="Write figures and residuals as JSON (- for stdout).")
@endpoint_options
def calibrate(
    tables: str | None,
    measurements: str | None,
    most: int,
    rounds: int,
    catalogue: str | None,
    json_path: str | None,
    endpoint: str | None,
    **said: Any,
) -> None:
    """Fit the figures that step times hang on, and say how far off what was held out is.

    \b
    infermix calibrate --tables op_tables
    infermix calibrate --rows measurements.csv --json fit.json
    infermix calibrate --endpoint http://127.0.0.1:8000/v1 --json mine.json
    """  # noqa: D301 - click's mark for lines that stay
    with one_line_errors():
        if sum(source is not None for source in (tables, measurements, endpoint)) != 1:
            raise InputError("one of --tables, --rows and --endpoint is needed", where="calibrate")
        for name, value in (("--most", most), ("--rounds", rounds)):
            if value < 1:
                raise InputError("must be 1 or more", where=name, value=value)
        if tables is not None:
            _tables(tables, json_path)
        elif endpoint is not None:
            calibrate_endpoint(endpoint, json_path, **said)
        elif measurements is not None:
            _rows(measurements, most, rounds, catalogue, json_path)


def _tables(folder: str, json_path: str | None) -> None:
    from infermix.cli.calibrate_tables import print_operators
    from infermix.validate.operators import fit_tables

    found = fit_tables(folder)
    if json_path:
        write_json(json_path, {"operators": found})
    print_operators(found, console_out(json_path == "-"))


def _rows(measurements: str, most: int, rounds: int, catalogue: str | None, json_path: str | None) -> None:
    from infermix.catalog.load import catalog
    from infermix.cli.calibrate_tables import print_calibration
    from infermix.validate.calibrate import calibrate_rows, summary
    from infermix.validate.rows import read_rows
    from infermix.validate.write import write_chips, write_figures

    facts = catalog()
    found = calibrate_rows(
        facts, read_rows(measurements), most=most, rounds=rounds, told=lambda line: click.echo(line, err=True)
    )
    told = summary(found)
    if catalogue:
        write_figures(Path(catalogue), found.figures)
        write_chips(Path(catalogue), found.chips)
    if json_path:
        write_json(json_path, told)
    print_calibration(told, console_out(json_path == "-"))

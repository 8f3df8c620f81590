"""``infermix simulate``: what happens to a fleet under traffic."""

from __future__ import annotations

from typing import Any

import click

from infermix.cli.output import console_out, counting, one_line_errors, write_json
from infermix.errors import InputError
from infermix.route.names import POLICIES


@click.command("simulate")
@click.argument("study", type=click.Path(dir_okay=False))
@click.option("--fleet", metavar="FILE", help="A plan.json, or a TOML with [fleet.NAME] tables.")
@click.option("--instances", type=int, metavar="N", help="N instances of the study's first system.")
@click.option("--requests", type=int, metavar="N", help="Draw or repeat the traffic to N requests.")
@click.option("--seed", type=int, metavar="N", help="Another seed than the study's.")
@click.option(
    "--policy",
    metavar="NAME",
    help=f"Another routing policy than the study's: {', '.join(POLICIES)}, or your own, FILE.py:FUNCTION.",
)
@click.option("--speeds", metavar="WHICH", help="nominal, low or both; a plan's fleet runs at both by default.")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON (- for stdout).")
def simulate(study: str, json_path: str | None, **choices: Any) -> None:
    """Simulate the traffic of STUDY on a fleet: FILE, else the study's own, else N instances, else its plan."""
    with one_line_errors():
        if choices["instances"] is not None and choices["instances"] < 1:
            raise InputError("instances must be 1 or more", where="--instances", value=choices["instances"])
        from infermix.report.tables import print_run
        from infermix.study import simulate as run

        with counting("arrivals") as progress:
            found = run(study, progress=progress, **choices)
        if json_path:
            write_json(json_path, found)
        print_run(found, console_out(json_path == "-"))

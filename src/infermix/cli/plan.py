"""``infermix plan``: what to buy."""

from __future__ import annotations

import sys

import click

from infermix.cli.first_compile import first_compile_said
from infermix.cli.output import console_out, one_line_errors, phases, write_json
from infermix.errors import NoAnswer


@click.command("plan")
@click.argument("study", type=click.Path(dir_okay=False))
@click.option("--report", "report_path", metavar="FILE.html", help="Write the plan as one HTML page.")
@click.option("--out", metavar="DIR", help="Write all that leaves the plan: plan.json, gateway, scripts, bill.")
@click.option("--json", "json_path", metavar="FILE", help="Write the plan as JSON (- for stdout).")
@click.option(
    "--frontier", metavar="N", default=0, help="Prove N fleets for cost against speed.", type=click.IntRange(0)
)
@click.option("--no-cache", is_flag=True, help="Simulate every capacity anew; neither read nor write any.")
def plan(
    study: str, report_path: str | None, out: str | None, json_path: str | None, frontier: int, no_cache: bool
) -> None:
    """Find the cheapest fleet that keeps every promise of STUDY within its limits, and prove it by simulation.

    Exits with 1 when the question is infeasible or the plan could not be proved.
    """
    with one_line_errors():
        from infermix.report.tables import print_frontier, print_plan
        from infermix.study import made_folder, report, write_plan_files
        from infermix.study import plan as make

        folder = made_folder(out) if out else None
        with phases() as say, first_compile_said():
            made = make(study, progress=say, cache=not no_cache, frontier=frontier)
        if json_path:
            write_json(json_path, made)
        print_plan(made, console_out(json_path == "-"))
        if frontier:
            print_frontier(made, console_out(json_path == "-"))
        if report_path:
            report(made, report_path)
            click.echo(f"report: {report_path}", err=True)
        if folder is not None:
            write_json(folder / "plan.json", made)
            click.echo(f"out: {folder}, {', '.join(['plan.json', *write_plan_files(study, made, folder)])}", err=True)
        if made.status == "not_proved":
            missed = [name for name, c in made.classes.items() if not c.holds]
            raise NoAnswer(f"not proved: {', '.join(missed) or 'a limit'} missed after {made.rounds} rounds of mending")
    sys.stdout.flush()

"""``infermix simulate``: what happens to a fleet under traffic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from infermix.cli.first_compile import first_compile_said
from infermix.cli.output import console_out, counting, one_line_errors, write_json
from infermix.cli.replay import play_again
from infermix.errors import InputError
from infermix.route.names import POLICIES

if TYPE_CHECKING:
    from infermix.summary.simulation import Simulation

_POLICY = f"Another routing policy than the study's: {', '.join(POLICIES)}, or your own, FILE.py:FUNCTION."
_FILES = ("json_path", "requests_out", "trace_out", "report_path")


@click.command("simulate")
@click.argument("study", type=click.Path(dir_okay=False), required=False)
@click.option("--fleet", metavar="FILE", help="A plan.json, or a TOML with [fleet.NAME] tables.")
@click.option("--instances", type=int, metavar="N", help="N instances of the study's first system.")
@click.option("--requests", type=int, metavar="N", help="Draw or repeat the traffic to N requests.")
@click.option("--seed", type=int, metavar="N", help="Another seed than the study's.")
@click.option("--seeds", type=int, default=1, show_default=True, metavar="N", help="So many seeds, at once.")
@click.option("--policy", metavar="NAME", help=_POLICY)
@click.option("--speeds", metavar="WHICH", help="nominal, low or both; a plan's fleet runs at both by default.")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON (- for stdout).")
@click.option("--report", "report_path", metavar="FILE.html", help="Write the result as one HTML page.")
@click.option("--replay", metavar="LOG", help="A gateway's decision log in place of STUDY: the same picks again.")
@click.option("--requests-out", metavar="FILE.parquet", help="Write a row for every request (first seed).")
@click.option("--trace-out", metavar="FILE.json", help="Write a stretch of the run for Perfetto (first seed).")
@click.option("--from", "from_s", type=float, metavar="S", help="Start of that stretch.  [default: 0]")
@click.option("--to", "to_s", type=float, metavar="S", help="Its end.  [default: a minute after its start]")
def simulate(
    study: str | None,
    instances: int | None,
    from_s: float | None,
    to_s: float | None,
    replay: str | None,
    **options: Any,
) -> None:
    """Simulate the traffic of STUDY on a fleet: FILE, else the study's own, else N instances, else its plan.

    Ctrl-C ends the run; what was simulated until then is printed and written. It then exits with 130.
    """
    if replay is not None:
        with one_line_errors():
            play_again(replay, study, options["json_path"])
        return
    files = {name: options.pop(name) for name in _FILES}
    with one_line_errors():
        if study is None:
            raise InputError("no study file", where="STUDY", mend="name one, or a decision log with --replay LOG")
        _check(instances, options["seeds"], from_s, to_s, files)
        from infermix.report.tables import print_run
        from infermix.study import simulated
        from infermix.summary.whole import summarise

        with counting("arrivals") as progress, first_compile_said():
            whole = bool(files["requests_out"] or files["trace_out"])
            found = simulated(study, instances=instances, whole=whole, progress=progress, **options)
        summary = summarise(found)
        if files["json_path"]:
            write_json(files["json_path"], summary)
        print_run(summary, console_out(files["json_path"] == "-"))
        _write(found, summary, files, from_s, to_s)
        if found.interrupted:
            raise click.Abort


def _check(
    instances: int | None, seeds: int, from_s: float | None, to_s: float | None, files: dict[str, str | None]
) -> None:  # fmt: skip
    """Raise InputError before anything is simulated whose answer could not be written."""
    for name, count in (("instances", instances), ("seeds", seeds)):
        if count is not None and count < 1:
            raise InputError(f"{name} must be 1 or more", where=f"--{name}", value=count)
    if files["trace_out"] is None and (from_s, to_s) != (None, None):
        raise InputError("a stretch of what is not said", where="--from, --to", mend="add --trace-out FILE.json")
    for path in files.values():
        if path and path != "-" and not Path(path).absolute().parent.is_dir():
            raise InputError("cannot be written: no such folder", where=path)


def _write(
    found: Simulation,
    summary: dict[str, Any],
    files: dict[str, str | None],
    from_s: float | None,
    to_s: float | None,
) -> None:
    """Write the files that were asked for, and say so."""
    from infermix.study import report
    from infermix.summary.table import write_requests
    from infermix.summary.trace import write_trace

    if path := files["requests_out"]:
        click.echo(f"requests: {path}, {write_requests(found, path):,} rows", err=True)
    if path := files["trace_out"]:
        click.echo(f"trace: {path}, {write_trace(found, path, from_s or 0.0, to_s):,} requests", err=True)
    if path := files["report_path"]:
        report(summary, path)
        click.echo(f"report: {path}", err=True)

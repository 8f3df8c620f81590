"""``infermix backtest``: fit one part of a log, predict the rest, answer what-ifs on it."""

from __future__ import annotations

from typing import Any

import click

from infermix.cli.output import console_out, one_line_errors, phases, write_json
from infermix.cli.workload import pairs
from infermix.errors import InputError
from infermix.route.names import POLICIES

_WHAT = "A change, such as traffic=1.3 or instances=2,policy=round_robin; may be repeated."


@click.command("backtest")
@click.argument("log", type=click.Path(dir_okay=False))
@click.option("--fit", "share", type=float, default=0.5, show_default=True, metavar="X", help="Part that is fitted.")
@click.option("--system", metavar="NAME", help="System of the catalogue that served it.")
@click.option("--model", metavar="NAME", help="Model of the catalogue that was served.")
@click.option("--steps", "steps_path", metavar="FILE.json", help="Predict with a calibration; nothing is fitted.")
@click.option("--instances", type=int, metavar="N", default=1, show_default=True, help="Instances that served it.")
@click.option("--policy", metavar="NAME", default="least_wait", show_default=True, help="How requests were routed.")
@click.option("--max-num-seqs", type=int, metavar="N", help="Sequences at once.  [default: found out]")
@click.option("--max-batched-tokens", type=int, metavar="N", help="Tokens in a step.  [default: found out]")
@click.option("--kv-tokens", type=int, metavar="N", help="KV memory of an instance.  [default: the catalogue's]")
@click.option("--columns", multiple=True, metavar="OURS=THEIRS", help="Name a column of the file; may be repeated.")
@click.option("--what-if", "what_ifs", multiple=True, metavar="CHANGE", help=_WHAT)
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON (- for stdout).")
def backtest(log: str, columns: tuple[str, ...], steps_path: str | None, json_path: str | None, **said: Any) -> None:
    """Fit the first part of the requests of LOG, predict the rest, and answer what-ifs on all of them.

    LOG is CSV, Parquet, JSON lines, or a result of vllm bench serve, with the times of first and last tokens.
    """
    with one_line_errors():
        from infermix.measure.backtest import Choices
        from infermix.measure.backtest import backtest as run
        from infermix.measure.calibration import read_calibration
        from infermix.measure.read import read_timed
        from infermix.report.measured import print_backtest

        if said["policy"] not in POLICIES:
            raise InputError("unknown policy", where="--policy", value=said["policy"], allowed=", ".join(POLICIES))
        named = dict(pairs(tuple(part for text in columns for part in text.split(",")), "--columns"))
        steps, engine = read_calibration(steps_path) if steps_path else (None, None)
        said["what_ifs"] = said["what_ifs"] or None
        real = read_timed(log, named)
        with phases() as progress:
            found = run(real, Choices(steps=steps, engine=engine, **said), progress)
        if json_path:
            write_json(json_path, found)
        print_backtest(found, console_out(json_path == "-"))

"""``infermix calibrate --endpoint``: measure a running server and fit its step times."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from infermix.cli.output import console_out, counting, write_json
from infermix.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
_KEY = "Environment variable that holds the API key."
OPTIONS = (
    click.option("--endpoint", metavar="URL", help="Measure the OpenAI-compatible server at URL."),
    click.option("--served-model", metavar="NAME", help="Its model.  [default: the first that it lists]"),
    click.option("--api", metavar="WHICH", default="chat", show_default=True, help="chat or completions."),
    click.option("--key-env", metavar="NAME", default="OPENAI_API_KEY", show_default=True, help=_KEY),
    click.option("--clients", metavar="N,N", default="1,2,4,8", show_default=True, help="Concurrencies to measure."),
    click.option("--prompts", metavar="N,N", default="64,256,1024", show_default=True, help="Tokens of the prompts."),
    click.option("--answers", metavar="N,N", default="16,64", show_default=True, help="Tokens of the answers."),
    click.option(
        "--each", type=int, metavar="N", default=3, show_default=True, help="Questions of each client a round."
    ),
    click.option("--laps", type=int, metavar="N", default=2, show_default=True, help="Rounds over all concurrencies."),
    click.option("--quickest", is_flag=True, help="Fit only the quickest round of each concurrency."),
    click.option("--check/--no-check", default=True, show_default=True, help="Measure a level that is not fitted."),
    click.option("--timeout", type=float, metavar="S", default=120.0, show_default=True, help="Longest silence."),
    click.option("--max-num-seqs", type=int, metavar="N", help="Sequences at once.  [default: found out]"),
    click.option("--max-batched-tokens", type=int, metavar="N", help="Tokens in a step.  [default: found out]"),
    click.option("--kv-tokens", type=int, metavar="N", help="KV memory in tokens.  [default: taken to be enough]"),
    click.option("--log", "log_path", metavar="FILE.jsonl", help="Write every measured request."),
)


def endpoint_options(command: F) -> F:
    """Add the options of ``--endpoint`` to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def calibrate_endpoint(
    endpoint: str, json_path: str | None, log_path: str | None, served_model: str | None, **said: Any
) -> None:
    """Measure, fit, write and print."""
    from infermix.measure.calibration import calibrate
    from infermix.measure.probed import probe_lines, timed_probe
    from infermix.report.measured import print_calibration
    from infermix.serve.endpoint import open_endpoint, served_models
    from infermix.serve.probe import Grid, make_levels, probe, quickest

    _check_folders(json_path, log_path)
    where = open_endpoint(endpoint, api=said["api"], timeout_s=said["timeout"], key_variable=said["key_env"])
    lengths = {name: _whole(said[name], f"--{name}") for name in ("clients", "prompts", "answers")}
    levels = make_levels(Grid(**lengths, each=said["each"], rounds=said["laps"], check=said["check"]))
    model = served_model or served_models(where)[0]
    with counting("questions") as progress:
        found = probe(where, model, levels, progress)
    if log_path:
        Path(log_path).write_bytes(probe_lines(found))
        click.echo(f"log: {log_path}, {len(found.answers):,} rows", err=True)
    real = timed_probe(quickest(found) if said["quickest"] else found)
    settings = {name: said[name] for name in ("max_num_seqs", "max_batched_tokens", "kv_tokens")}
    told = {"endpoint": where.name, "model": model, "api": said["api"], "forced": found.forced}
    told |= {"measured": len(found.answers), "quickest": said["quickest"]}
    told |= calibrate(real, **settings)
    if json_path:
        write_json(json_path, told)
    print_calibration(told, console_out(json_path == "-"))


def _whole(text: str, where: str) -> tuple[int, ...]:
    """Whole numbers with commas between them."""
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise InputError("not whole numbers", where=where, value=text, allowed="1,2,4") from None


def _check_folders(*paths: str | None) -> None:
    """Raise InputError before anything is measured that could not be written."""
    for path in paths:
        if path and path != "-" and not Path(path).absolute().parent.is_dir():
            raise InputError("cannot be written: no such folder", where=path)

"""``infermix top``: what a running gateway does, live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import click

from infermix.cli.output import console_out, one_line_errors, write_json
from infermix.errors import InputError


@click.command("top")
@click.argument("url", default="http://127.0.0.1:8080")
@click.option("--file", "file", metavar="FILE", help="The gateway.toml, for what was promised.")
@click.option("--every", "every_s", type=float, default=1.0, show_default=True, metavar="S", help="Seconds between.")
@click.option("--count", type=int, metavar="N", help="N views, then end.  [default: until Ctrl-C]")
@click.option("--json", "json_path", metavar="FILE", help="Write the last view as JSON (- for stdout).")
def top(url: str, file: str | None, every_s: float, count: int | None, json_path: str | None) -> None:
    """Pools, speeds, promises kept and money per hour of the gateway at URL, as its metrics tell them."""
    with one_line_errors():
        if not every_s > 0:
            raise InputError("must be positive", where="--every", value=every_s)
        if count is not None and count < 1:
            raise InputError("must be 1 or more", where="--count", value=count)
        promised = {} if file is None else _promised(file)
        last = _show(url, promised, every_s, count, console_out(json_path == "-"))
        if json_path and last is not None:
            write_json(json_path, last)


def _promised(file: str) -> dict[str, float]:
    from infermix.cli.extras import needs_extra

    with needs_extra("serve"):
        from infermix.serve.config import load_gateway

    return {name: promise.attainment for name, promise in load_gateway(file).classes.items()}


def _show(url: str, promised: dict[str, float], every_s: float, count: int | None, console: Any) -> Any:
    """Draw views over each other on a terminal, one after the other elsewhere; returns the last."""
    from rich.live import Live

    from infermix.report.live import live_view

    last = None
    if not console.is_terminal:
        for last in _views(url, every_s, count):
            console.print(live_view(last, promised, url))
        return last
    with Live(console=console, auto_refresh=False) as screen:
        for last in _views(url, every_s, count):
            screen.update(live_view(last, promised, url), refresh=True)
    return last


def _views(url: str, every_s: float, count: int | None) -> Iterator[Any]:
    """What happened since the view before; Ctrl-C ends it."""
    from infermix.serve.watch import fetch, now, read_metrics

    before = read_metrics(fetch(url), time.monotonic())
    shown = 0
    try:
        while count is None or shown < count:
            time.sleep(every_s)
            after = read_metrics(fetch(url), time.monotonic())
            yield now(before, after)
            before, shown = after, shown + 1
    except KeyboardInterrupt:
        return

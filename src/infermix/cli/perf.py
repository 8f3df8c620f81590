"""``infermix perf``: how fast a model is on a system."""

from __future__ import annotations

from typing import Any

import click
import msgspec
from rich.table import Table

from infermix.catalog.load import catalog
from infermix.cli.output import console_out, one_line_errors, write_json
from infermix.errors import InputError, NoAnswer
from infermix.fleet import PoolRow, make_deployment
from infermix.perf.predict import Prediction, predict


@click.command("perf")
@click.argument("model")
@click.argument("system")
@click.option("--tp", type=int, help="Tensor parallelism (default: all chips of the system).")
@click.option("--dp", type=int, help="Data parallelism inside the instance.")
@click.option("--stages", type=int, help="SRAM machines: systems in line for one replica (default: fewest that fit).")
@click.option("--weights", help="Dtype of the weights (default: the model's own, if the chip can keep it).")
@click.option("--kv", default="bf16", show_default=True, help="Dtype of the KV cache.")
@click.option("--batch", type=int, default=1, show_default=True, help="Sequences that decode together.")
@click.option("--input", "input_tokens", type=int, default=1000, show_default=True, help="Prompt length [tokens].")
@click.option("--output", "output_tokens", type=int, default=200, show_default=True, help="Answer length [tokens].")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON (- for stdout).")
def perf(
    model: str, system: str, json_path: str | None, batch: int, input_tokens: int, output_tokens: int, **layout: Any
) -> None:
    """Predict TTFT, TPOT and throughput of MODEL on SYSTEM, with the interval and what bounds it."""
    with one_line_errors():
        for name, value in (("--batch", batch), ("--input", input_tokens), ("--output", output_tokens)):
            if value < 1:
                raise InputError("must be 1 or more", where=name, value=value)
        row = PoolRow(system=system, instances=1, max_num_seqs=max(256, batch), **layout)
        found = predict(
            make_deployment(catalog(), row, model, "perf"),
            batch=batch,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
        )
        if json_path:
            write_json(json_path, {"model": model, "system": system, **msgspec.to_builtins(found)})
        if not found.fits:
            raise NoAnswer(f"{model} on {system}: {found.reason}")
        console_out(json_path == "-").print(_table(model, system, found))


def _table(model: str, system: str, found: Prediction) -> Table:
    table = Table(title=f"{model} on {system}, {found.chips} chips", title_justify="left")
    for heading in ("", "nominal", "low", "high"):
        table.add_column(heading, justify="left" if not heading else "right")
    rows = (
        ("TTFT, unloaded", "ttft_s", 1e3, "ms"),
        ("TPOT", "tpot_s", 1e3, "ms"),
        ("output of one user", "tokens_per_s_user", 1, "tokens/s"),
        ("output of the batch", "tokens_per_s", 1, "tokens/s"),
    )
    for label, key, scale, unit in rows:
        values = (getattr(found, key), found.low[key], found.high[key])
        table.add_row(label, *(f"{_number(v * scale)} {unit}" for v in values))
    table.add_row("KV tokens left", f"{found.kv_tokens_left:,}", "", "")
    table.add_row("most of a step is", found.bound, "", "")
    table.caption = found.confidence
    return table


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"

"""``infermix simulate --replay``: a gateway's decisions again, and its requests in the simulator."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from infermix.cli.extras import needs_extra
from infermix.cli.first_compile import first_compile_said
from infermix.cli.output import console_out, human, write_json
from infermix.errors import InputError, NoAnswer


def play_again(path: str, study: str | None, json_path: str | None) -> None:
    """Replay, print, write; NoAnswer where a pick differs."""
    if study is not None:
        raise InputError("a decision log has its own fleet and requests", where="--replay", mend="leave STUDY out")
    with needs_extra("serve"):
        from infermix.measure.replay import replay
    with first_compile_said():
        found = replay(path)
    if json_path:
        write_json(json_path, found)
    console = console_out(json_path == "-")
    console.print(f"{found['identical']:,} of {found['decisions']:,} decisions identical, policy {found['policy']}")
    if "classes" in found:
        console.print(f"{found['requests']:,} answered streams simulated as placed, {found['left_out']:,} left out")
        console.print(_table(found["classes"]))
    if found["identical"] < found["decisions"]:
        first = found["different"][0]
        raise NoAnswer(
            f"{path}: {found['decisions'] - found['identical']} decisions differ, the first is request "
            f"{first['number']}: logged {first['logged']}, again {first['again']}"
        )


def _table(classes: dict[str, Any]) -> Table:
    table = Table(box=None, header_style="", pad_edge=False)
    table.add_column("Class")
    for title in ("requests", "", "live p50", "p99", "simulated p50", "p99", "ratio p50", "p99"):
        table.add_column(title, justify="right")
    for name, row in classes.items():
        for what in ("ttft_s", "tpot_s"):
            times = [row[what][side].get(q) for side in ("live", "simulated") for q in ("p50", "p99")]
            ratios = [row[what]["ratio"].get(q) for q in ("p50", "p99")]
            cells = [
                *("-" if t is None else human(t, "s") for t in times),
                *("-" if r is None else f"{r:.3f}" for r in ratios),
            ]
            first = what == "ttft_s"
            table.add_row(name if first else "", f"{row['requests']:,}" if first else "", what[:4].upper(), *cells)
    return table

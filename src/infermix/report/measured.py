"""Tables for the terminal: a calibrated server, and a log that was backtested."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infermix.report import words

WIDTH = 100
TIMES = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
NUMBERS = {
    "step_s": "every step",
    "token_s": "each token in it",
    "seq_s": "each sequence in it",
    "kv_s": "each KV token read",
    "pair_s": "each prompt token and context token",
    "overhead_s": "once a request",
    "step": "smallest step",
    "arithmetic": "arithmetic",
    "kv": "reading KV",
}


def print_calibration(found: Mapping[str, Any], console: Console) -> None:
    """Print what a calibration found: numbers, settings, and measured against simulated times level by level."""
    _say(console, f"{found['endpoint']}, {found['model']}: {_count(found['measured'], 'answer')} measured", bold=True)
    if found["quickest"]:
        _say(console, f"The quickest round of each concurrency counts: {_count(found['requests'], 'answer')}.")
    _say(console, _left_out(found["failed"], "failed"))
    if not found["forced"]:
        _say(console, "The server knows no ignore_eos: answers may be shorter than asked for, and count as they are.")
    _say(console, _settings(found["engine"], found["levels"]))
    _show(console, _numbers(found["steps"]), _levels(found["levels"]))
    fit, check = found["fit"], found["check"]
    _say(console, f"Fitted: {fit['coefficients']} numbers to {_count(fit['requests'], 'answer')}, off by {_off(fit)}.")
    if check:
        _say(console, f"Kept from the fit: {_count(check['requests'], 'answer')}, off by {_off(check)}.")


def print_backtest(found: Mapping[str, Any], console: Console) -> None:
    """Print a backtest: what was read, what was fitted, how far off the rest is, and what-ifs."""
    log, fit, predicted = found["log"], found["fit"], found["predicted"]
    _say(console, f"{log['source']} ({log['format']}): {log['requests']:,} requests", bold=True)
    _say(console, _left_out(log["left_out"], "left out"))
    if fit["kind"] == "calibration":
        _say(console, f"Predicted: all {predicted['requests']:,}, by a calibration; nothing is fitted here.")
    else:
        said = f"Fitted: {fit['kind']}, {fit['coefficients']} numbers, to the first {fit['requests']:,} requests"
        _say(console, f"{said}, off by {_off(fit)}.")
        _say(console, f"Predicted: the other {predicted['requests']:,}, off by {_off(predicted)}.")
    if predicted["unfinished"]:
        _say(console, f"{predicted['unfinished']:,} of these do not end in the simulation; they count as misses.")
    _say(console, _engine(found["engine"]))
    _show(
        console,
        _numbers(found["steps"]),
        _percentiles(predicted["percentiles"]),
        _groups("Error by class", found["by_class"]),
        _groups("Error by time", found["by_time"]),
        _what_if(found["as_it_was"], found["what_if"]),
    )
    if any("carried" in row for row in found["what_if"]):
        _say(console, "On another system: as the catalogue says, and (fitted) with the factors of this log.")


def _say(console: Console, text: str, *, bold: bool = False) -> None:
    if text:
        console.print(Text(text, style="bold" if bold else ""), width=min(WIDTH, console.width))


def _show(console: Console, *tables: Table) -> None:
    for table in tables:
        if table.row_count:
            console.print()
            console.print(table, width=min(WIDTH, console.width))
    console.print()


def _table(title: str, columns: Iterable[str], left: int = 0) -> Table:
    table = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(Text(title, style="bold not dim"), overflow="fold", min_width=len(title))
    for index, column in enumerate(columns):
        number = index >= left
        table.add_column(Text(column), justify="right" if number else "left", no_wrap=number, overflow="fold")
    return table


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"


def _left_out(reasons: Mapping[str, int], what: str) -> str:
    """Rows that were not used, by reason; nothing where all were."""
    if not reasons:
        return ""
    each = ", ".join(f"{count:,} {reason}" for reason, count in reasons.items())
    return f"{_count(sum(reasons.values()), 'request')} {what}: {each}."


def _off(part: Mapping[str, Any]) -> str:
    """Medians of the errors in a few words."""
    known = [(label, part["errors"][name]) for name, label in TIMES.items() if part["errors"][name]["n"]]
    return (
        ", ".join(f"{words.share(error['median_abs_log_error'])} {label}" for label, error in known) + " at the median"
    )


def _settings(engine: Mapping[str, Any], levels: Sequence[Mapping[str, Any]]) -> str:
    most = max(int(level["name"].split()[0]) for level in levels)
    seqs = engine["max_num_seqs"]
    at_once = f"{seqs} sequences at once" if seqs < most else f"more than {most} sequences at once were not tried"
    return f"Settings: {at_once}, {engine['max_batched_tokens']:,} tokens in a step."


def _engine(engine: Mapping[str, Any]) -> str:
    memory = "KV memory enough" if engine["kv_tokens"] is None else f"{words.tokens(engine['kv_tokens'])} KV tokens"
    fills = ", which fill" if engine["memory_fills"] else ""
    return (
        f"Settings: {_count(engine['instances'], 'instance')}, at most {engine['max_num_seqs']} sequences and "
        f"{engine['max_batched_tokens']:,} tokens in a step, {memory}{fills}."
    )


def _numbers(steps: Mapping[str, Any]) -> Table:
    factors = "step" in steps
    table = _table("Step time" if not factors else "Step time against the catalogue", ("",), left=0)
    for name, value in steps.items():
        if name == "overlap":
            table.add_row("arithmetic while weights are read", "yes" if value else "no")
        elif name.endswith("_s"):
            table.add_row(NUMBERS[name], words.seconds(value))
        else:
            table.add_row(NUMBERS[name], f"x {words.digits(value)}")
    return table


def _levels(levels: Sequence[Mapping[str, Any]]) -> Table:
    columns = [word for label in TIMES.values() for word in (label, "simulated", "off")]
    table = _table("Means", ("answers", *columns))
    for level in levels:
        cells = []
        for name in TIMES:
            point = level[name]["mean"]
            cells += [words.seconds(point["measured"]), words.seconds(point["simulated"]), f"{point['off']:+.1%}"]
        table.add_row(level["name"].replace(", ", "\n"), f"{level['requests']:,}", *cells)
    return table


def _percentiles(points: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    table = _table("The part predicted", ("measured", "predicted", "off"))
    for name, label in TIMES.items():
        for point, pair in points[name].items():
            if point != "mean" and pair["measured"] == pair["measured"]:
                cells = (words.seconds(pair["measured"]), words.seconds(pair["simulated"]), f"{pair['off']:+.1%}")
                table.add_row(f"{label} {point}", *cells)
    return table


def _groups(title: str, groups: Sequence[Mapping[str, Any]]) -> Table:
    table = _table(title, ("requests", *(f"{label} {word}" for label in TIMES.values() for word in ("off", "bias"))))
    for group in groups:
        cells = []
        for name in TIMES:
            error = group["errors"][name]
            known = error["n"] > 0
            cells += (
                [words.share(error["median_abs_log_error"]), f"{error['bias']:+.1%}"] if known else [words.NONE] * 2
            )
        table.add_row(group["name"], f"{group['requests']:,}", *cells)
    return table


def _what_if(base: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("requests", "TTFT p50", "p99", "TPOT p50", "p99", "E2E p50", "p99", "tokens/s")
    table = _table("What if", columns)
    table.columns[0].min_width = max(len(part) for row in (base, *rows) for part in row["what"].split(", ")) + 1
    for row in (base, *rows):
        table.add_row(row["what"].replace(", ", ",\n"), *_outcome(row))
        if "carried" in row:
            table.add_row("  fitted", *_outcome(row["carried"]))
    return table


def _outcome(row: Mapping[str, Any]) -> list[str]:
    missing = row["requests"] - row["completed"]
    cells = [f"{row['requests']:,}" + (f" (-{missing:,})" if missing else "")]
    for name in TIMES:
        cells += [words.seconds(row[name]["p50"]), words.seconds(row[name]["p99"])]
    return [*cells, words.digits(row["output_tokens_per_s"])]

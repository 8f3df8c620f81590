"""What ``infermix perf MODEL SYSTEM`` prints: speeds, where the time goes, what would help, the cost."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infermix.catalog.records import Model
from infermix.explore.apart import Prefill, Split
from infermix.explore.point import Answer, Ask
from infermix.perf.levers import Lever
from infermix.report import words

MOST_LEVERS = 5
"""Of each kind."""
BAR = 36
"""Characters of the longest bar."""
_EIGHTHS = " \u258f\u258e\u258d\u258c\u258b\u258a\u2589"
_BOUNDS = {
    "weights": "reading weights",
    "kv": "reading the KV cache",
    "compute": "arithmetic",
    "links": "exchange between chips",
    "latency": "launches and waiting, which faster memory would not shorten",
}


def print_answer(found: Answer, ask: Ask, console: Console, *, prefill: Prefill | None, split: Split | None) -> None:
    """Print everything told about one model on one system."""
    for line in _headline(found, ask):
        console.print(line)
    tables = [_speeds(found), _parts(found), *_levers(found.levers)] if found.prediction.fits else []
    tables += [_prefill(prefill)] if prefill else []
    tables += [_split(split)] if split else []
    for shown in tables:
        if shown.row_count:
            console.print()
            console.print(shown)
    console.print()
    for said in _foot(found):
        console.print(said, style="dim")


def table(title: str, *columns: str, left: int = 1) -> Table:
    """A table headed by its title, with columns of numbers after ``left`` columns of words."""
    made = Table(box=None, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    made.add_column(Text(title, style="bold not dim"), no_wrap=True)
    for index, column in enumerate(columns, start=1):
        made.add_column(Text(column), justify="left" if index < left else "right", no_wrap=True)
    return made


def bar(share: float, width: int = BAR) -> str:
    """A bar of unicode blocks; anything above nothing shows.

    >>> bar(0.5, 4), bar(0.0, 4), bar(0.001, 4)
    ('\u2588\u2588', '', '\u258f')
    """
    eighths = max(round(8 * width * share), 1 if share > 0 else 0)
    return ("\u2588" * (eighths // 8) + _EIGHTHS[eighths % 8]).rstrip()


def guess(model: Model) -> str:
    """That a closed model's shape is a guess, and how wide; empty for open ones."""
    if not model.closed:
        return ""
    parts = []
    for name, figure in (("", model.params), (" active", model.active_params)):
        if figure.low and figure.high:
            parts.append(f"{words.digits(figure.low / 1e9)} to {words.digits(figure.high / 1e9)} billion{name}")
    span = f": {words.joined(parts)} parameters" if parts else ""
    return f"{model.id} is closed: its shape is a guess{span}. Low and high span that range."


def _headline(found: Answer, ask: Ask) -> Iterable[Text]:
    d, load = found.deployment, ask.load
    chips = f"{d.chips} chip{'s' if d.chips > 1 else ''}"
    several = f" on {d.systems_per_instance} systems" if d.systems_per_instance > 1 else ""
    yield Text(f"{d.model.id} on {d.system.id}: {d.layout}, {chips}{several}", style="bold")
    cached = f", {load.cached_tokens:,} of them cached" if load.cached_tokens else ""
    asked = f"Batch {ask.batch:,}, prompts of {load.input_tokens:,} tokens{cached}, answers of {load.output_tokens:,}"
    yield Text(f"{asked}; weights in {d.weights}, KV cache in {d.kv}{f', drafts {d.spec}' if d.spec else ''}.")
    others = [layout for layout in found.chosen_of if layout != d.layout]
    if others:
        why = "the fewest in line that hold it" if d.is_pipeline else "the least time per token at this batch"
        yield Text(f"Layout chosen: {d.layout}, {why}; {words.joined(others)} would hold it too.")
    for line in (found.note, guess(d.model)):
        if line:
            yield Text(line if line.endswith(".") else f"{line}.", style="yellow")


def _speeds(found: Answer) -> Table:
    now = found.prediction
    shown = table("Speed", "nominal", "low", "high")
    rows = (
        ("TTFT of an idle instance", "ttft_s", words.seconds),
        ("TPOT", "tpot_s", words.seconds),
        ("output of one user", "tokens_per_s_user", _rate),
        ("output of the batch", "tokens_per_s", _rate),
    )
    for label, key, form in rows:
        shown.add_row(label, *(form(v) for v in (getattr(now, key), now.low[key], now.high[key])))
    if cost := found.cost:
        for label, key in (("cost of output", "usd_per_mtok_output"), ("cost, input and output", "usd_per_mtok")):
            values = (getattr(cost, key), cost.low[key], cost.high[key])
            shown.add_row(label, *(f"{words.money(v)}/Mtok" for v in values))
    shown.add_row("KV tokens left", f"{now.kv_tokens_left:,}", "", "")
    return shown


def _rate(value: float) -> str:
    return f"{words.digits(value)} tokens/s"


def _parts(found: Answer) -> Table:
    now, d = found.prediction, found.deployment
    step = sum(now.parts_s.values())
    kept = f", {words.digits(d.spec.accepted_per_step)} tokens" if d.spec else ""
    shown = table(f"Where a step goes ({words.seconds(step)}{kept})", "", "", "", left=2)
    top = max(now.parts_s.values())
    for name, seconds in sorted(now.parts_s.items(), key=lambda part: -part[1]):
        shown.add_row(name, Text(bar(seconds / top), style="blue"), words.seconds(seconds), words.share(seconds / step))
    return shown


def _levers(levers: list[Lever]) -> list[Table]:
    """Settings apart from hardware, each with the ratio of speeds after and before."""
    made = []
    titles = {"setting": "What would make it faster: settings", "hardware": "What would make it faster: hardware"}
    for kind, title in titles.items():
        shown = table(title, "tokens", "first token")
        for lever in [x for x in levers if x.kind == kind][:MOST_LEVERS]:
            shown.add_row(lever.change, *(_times(v) for v in (lever.decode, lever.prompt)))
        made.append(shown)
    return made


def _times(ratio: float) -> Text:
    style = "green" if ratio >= 1.02 else "red" if ratio < 0.98 else "dim"
    return Text(f"\u00d7 {ratio:.2f}", style=style)


def _prefill(found: Prefill) -> Table:
    shown = table(f"Prompts read on {found.system}, {found.layout}", "")
    moved = words.quantity(found.transfer.bytes, "byte")
    rate = words.quantity(found.transfer.bytes_per_s, "byte/s")
    shown.add_row("reading the prompt", words.seconds(found.prompt_s))
    shown.add_row(f"sending {moved} at {rate} ({found.transfer.slower})", words.seconds(found.transfer.seconds))
    shown.add_row("TTFT of idle instances", Text(words.seconds(found.ttft_s), style="bold"))
    return shown


def _split(found: Split) -> Table:
    speed = found.speed
    halves = (
        f"attention on {found.attention_system} {found.attention_layout}, the rest on {found.system} {found.layout}"
    )
    shown = table(f"Split: {halves}", "")
    for label, seconds in (("attention", speed.attention_s), ("the rest", speed.ffn_s), ("network", speed.network_s)):
        shown.add_row(f"{label}, a step", words.seconds(seconds))
    shown.add_row("TPOT", words.seconds(speed.tpot_s))
    shown.add_row("output of one user", _rate(speed.tokens_per_s_user))
    shown.add_row("output, two batches in flight", _rate(speed.tokens_per_s))
    shown.add_row("KV tokens left", f"{speed.kv_tokens_left:,}")
    shown.add_row(Text("hypothetical: no such pair has been shown at these figures", style="yellow"), "")
    return shown


def _foot(found: Answer) -> Iterable[str]:
    if found.prediction.fits:
        yield f"Most of a step is {_BOUNDS[found.prediction.bound]}."
    if cost := found.cost:
        price = f"{words.money(cost.system_usd_per_hour)}/h for {cost.system}"
        yield f"Cost: {price}, {cost.price_basis}, read {cost.price_read}; prompts are paid for, idle time is not."
    else:
        yield f"No cost: {found.no_price} of {found.deployment.system.id}."
    yield f"Confidence: {found.prediction.confidence}. The answer hangs on {len(found.figures)} figures (--json)."

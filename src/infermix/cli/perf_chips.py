"""What ``infermix perf MODEL --all`` and ``infermix perf --all`` print: chips beside each other, reasons of others."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infermix.catalog.records import Model
from infermix.cli.perf_tables import guess, table
from infermix.cli.scatter import KIND_STYLES, scatter
from infermix.explore.chips import WHY_NOT, ChipRow, Chips, Sort
from infermix.report import words

COMPARED = ("llama-3.1-8b", "llama-3.3-70b", "gpt-oss-120b", "deepseek-v3.2", "kimi-k2")
"""Models whose speeds stand for a chip in the table of everything."""
UNFITTED = "no measurement of this family was fitted"
"""What ``perf.predict.confidence`` says of such a family."""
_ORDERS: dict[Sort, str] = {
    "usd": "each chip at its cheapest, cheapest first",
    "speed": "each chip at its fastest, fastest first",
    "ttft": "each chip at its fastest, soonest first token first",
    "throughput": "each chip at its cheapest, most tokens of a chip first",
    "chip": "each chip at its cheapest",
}


def print_chips(found: Chips, model: Model, console: Console, *, top: int | None = None) -> None:
    """Print every chip for one model: the best ones, a chart, the table, and what cannot."""
    cached = f" ({found.cached_tokens:,} cached)" if found.cached_tokens else ""
    load = f"{found.input_tokens:,} tokens in{cached}, {found.output_tokens:,} out"
    console.print(Text(f"{model.id}, {load}: {_ORDERS[found.sort]}", style="bold"))
    if said := guess(model):
        console.print(said, style="yellow")
    for sentence in best_ones(found):
        console.print(sentence)
    shown = found.rows[:top]
    if shown:
        console.print()
        console.print(_rows(shown, found.basis))
    if bases := _bases(shown):
        console.print(bases, style="dim")
    if len(shown) < len(found.rows):
        console.print(f"{len(found.rows) - len(shown)} more: leave out --top, or --json FILE", style="dim")
    if chart := scatter([r for r in found.rows if r.usd_per_mtok_output], found.front):
        console.print()
        console.print(Text("\n").join(chart))
    _print_reasons(found.cannot, console)
    _print_unpriced(found.rows, found.basis, console)


def best_ones(found: Chips) -> Iterable[str]:
    """The cheapest, the fastest and the soonest, in a sentence each."""
    priced = [r for r in found.rows if r.usd_per_mtok_output is not None]
    if priced:
        best = min(priced, key=lambda r: r.usd_per_mtok_output or math.inf)
        cost = f"{words.money(best.usd_per_mtok_output)} per million output tokens"
        blended = f"{words.money(best.usd_per_mtok)} with input counted"
        speed = f"{words.digits(best.tokens_per_s_user)} tokens/s for a user"
        yield f"Cheapest: {best.chip}, {cost} ({blended}) at {speed}, batch {best.batch}, {found.basis}."
    if found.rows:
        fast = max(found.rows, key=lambda r: r.fastest_tokens_per_s_user or 0.0)
        soon = min(found.rows, key=lambda r: r.ttft_s or math.inf)
        yield (
            f"Fastest at any price: {fast.chip}, {words.digits(fast.fastest_tokens_per_s_user)} tokens/s for a user. "
            f"Soonest first token here: {soon.chip}, {words.seconds(soon.ttft_s)}."
        )


def _rows(rows: Sequence[ChipRow], basis: str) -> Table:
    units = ("tokens/s\na user", "TTFT\nidle", "tokens/s\na chip", "$/Mtok\noutput", "$/Mtok\nall")
    shown = table("Chip", "layout", "chips", "batch", *units, "bound", left=2)
    for r in rows:
        costs = (words.digits(r.usd_per_mtok_output), words.digits(r.usd_per_mtok))
        speed = words.digits(r.tokens_per_s_user) + ("?" if UNFITTED in r.confidence else " ")
        numbers = (speed, words.seconds(r.ttft_s), words.digits(r.tokens_per_s_chip))
        name = Text(r.chip, style=KIND_STYLES[words.kind_of(r.kind)])
        shown.add_row(name, r.layout, f"{r.chips:,}", f"{r.batch:,}", *numbers, *costs, r.bound)
    shown.caption = f"?: {UNFITTED}. $: {basis}; prompts are paid for, idle time is not."
    shown.caption_justify = "left"
    return shown


def _bases(rows: Sequence[ChipRow]) -> str:
    """How prices came about, where one was converted."""
    counts = Counter(r.price_basis for r in rows if r.price_basis)
    if all(basis in ("rent", "own") for basis in counts):
        return ""
    return f"Prices: {'; '.join(f'{basis} ({n})' for basis, n in counts.items())}."


def _print_reasons(rows: Sequence[ChipRow], console: Console) -> None:
    """Chips without an answer by reason, each chip named."""
    if not rows:
        return
    console.print()
    console.print(Text(f"No answer from {len(rows)} chips", style="bold"))
    for kind, said in WHY_NOT.items():
        mine = [r for r in rows if r.reason_kind == kind]
        if mine:
            console.print(Text.assemble((f"{said} ({len(mine)}): ", "dim"), ", ".join(r.chip for r in mine)))


def _print_unpriced(rows: Sequence[ChipRow], basis: str, console: Console) -> None:
    groups: dict[tuple[str, str], list[str]] = {}
    for r in rows:
        if r.no_price:
            groups.setdefault((r.no_price, r.no_price_mend), []).append(r.chip)
    if not groups:
        return
    console.print()
    console.print(Text(f"No price by {basis} for {sum(map(len, groups.values()))} chips", style="bold"))
    for (reason, mend), chips in groups.items():
        with_ = f"; to convert it: {mend}" if mend else ""
        console.print(Text.assemble((f"{reason}{with_} ({len(chips)}): ", "dim"), ", ".join(chips)))


def print_everything(rows: Sequence[ChipRow], console: Console) -> None:
    """Print a summary of every chip with every model: what runs, and five models beside each other."""
    by_chip: dict[str, list[ChipRow]] = {}
    for row in rows:
        by_chip.setdefault(row.chip, []).append(row)
    models = {r.model for r in rows}
    compared = [m for m in COMPARED if m in models][:5]
    runs = {chip: len({r.model for r in mine if not r.reason}) for chip, mine in by_chip.items()}
    answered = sum(runs.values())
    pairs = len(by_chip) * len(models)
    console.print(
        Text(f"{len(by_chip)} chips and {len(models)} models: {answered:,} of {pairs:,} pairs run", style="bold")
    )
    console.print("Tokens/s of one user at the fastest point, and $ per million output tokens at the cheapest.")
    console.print()
    shown = table("Chip", "runs", *compared)
    for chip in sorted(by_chip, key=lambda c: (-runs[c], c)):
        if runs[chip]:
            name = Text(chip, style=KIND_STYLES[words.kind_of(by_chip[chip][0].kind)])
            shown.add_row(name, str(runs[chip]), *(_cell(by_chip[chip], model) for model in compared))
    console.print(shown)
    _print_why(rows, runs, console)


def _cell(rows: Sequence[ChipRow], model: str) -> Text:
    mine = {r.best_for: r for r in rows if r.model == model}
    fast, cheap = mine.get("speed"), mine.get("cost")
    if fast is None:
        return Text(words.NONE, style="dim")
    cost = "" if cheap is None or cheap.usd_per_mtok_output is None else words.digits(cheap.usd_per_mtok_output, 2)
    return Text.assemble(words.digits(fast.tokens_per_s_user), (f" {cost:>5}", "dim"))


def _print_why(rows: Sequence[ChipRow], runs: dict[str, int], console: Console) -> None:
    """How many pairs do not run for which reason, and what is said of chips that run nothing."""
    console.print()
    console.print(Text("Pairs without a speed", style="bold"))
    for kind, said in WHY_NOT.items():
        count = sum(r.reason_kind == kind for r in rows)
        if count:
            console.print(f"{count:>6,}  {said}")
    silent = {r.chip: r for r in rows if not runs[r.chip]}
    if silent:
        console.print()
        console.print(Text(f"Chips that run nothing ({len(silent)})", style="bold"))
    for chip, row in silent.items():
        console.print(Text.assemble(chip, (f"  {re.sub(r'[.]$', '', row.reason)}", "dim")))

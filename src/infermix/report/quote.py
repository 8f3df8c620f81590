"""Tables of ``infermix quote``."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from infermix.plan.quote.result import Instead, Quote, Spread
from infermix.report import words
from infermix.report.silicon import table
from infermix.report.silicon_decide import short

ANSWERS = {"take": "Take it", "ask": "Ask for other terms", "leave": "Leave it"}
UNKNOWNS = {
    "demand": "demand",
    "falls": "fall of market prices",
    "late": "delivery late",
    "never": "delivery at all",
    "equity": "worth of the shares",
}


def print_quote(found: Quote, console: Console) -> None:
    """Print whether to take it, how sure that is, what to ask for, what would turn it."""
    for line in headline(found):
        console.print(line, markup=False)
    console.print()
    _figures(found, console)
    if found.instead:
        console.print()
        _instead(found, console)
    console.print()
    _turns(found, console)
    console.print("Assumes: " + " ".join(found.assumptions), markup=False)


def headline(found: Quote) -> list[str]:
    """The answer in sentences."""
    price = rate(found.price, found.unit)
    each = " each" if found.systems > 1 else ""
    first = f"{ANSWERS[found.answer]}: {found.offer} at {price}{each} for {found.months:g} months."
    odds = (
        f"Taking it is right in {found.probability:.0%} of {found.draws} draws ({found.sure:.0%} are asked for); "
        f"it breaks even at {rate(found.break_even.nominal, found.unit)}."
    )
    lines = [first, odds]
    if found.only_with_it:
        lines.append(f"In {found.only_with_it:.0%} of the draws no fleet can serve the study without it.")
    if found.kind == "systems" and found.used < found.systems:
        lines.append(f"Of the {found.systems} offered systems {found.used:g} would serve; the others stand idle.")
    return lines


def rate(value: float, unit: str) -> str:
    """A price with its unit.

    >>> rate(59.95, "USD/h"), rate(float("inf"), "USD/h"), rate(0.6, "USD/Mtok of output")
    ('$60/h', 'any price', '$0.6/Mtok of output')
    """
    if value == float("inf"):
        return "any price"
    if value == float("-inf"):
        return "no price"
    return f"{words.money(value)}{unit.removeprefix('USD')}"


def _figures(found: Quote, console: Console) -> None:
    made = table("", "nominal", "mean", "P10", "P50", "P90", "gains in")

    rows: list[tuple[str, Spread, Callable[[float], str], str]] = [
        (f"break-even price, {found.unit}", found.break_even, words.money, ""),
        ("saved on the rest of the fleet, USD/h", found.saving_usd_per_hour, words.money, ""),
        ("gain over the term, USD of today", found.gain_usd, short, words.share(found.probability)),
    ]
    for name, spread, say, right in rows:
        cells = (spread.nominal, spread.mean, spread.p10, spread.p50, spread.p90)
        made.add_row(name, *(say(cell) if abs(cell) != float("inf") else words.NONE for cell in cells), right)
    console.print(made)
    rest = f"The fleet without it costs {rate(found.without_usd_per_hour, 'USD/h')}, the rest with it"
    rest += f" {rate(found.with_usd_per_hour, 'USD/h')} beside the offer."
    if abs(found.effective_price - found.price) > 1e-6 * found.price:
        effective = rate(found.effective_price, found.unit)
        rest += f" With shares, deposit, delay and refunds its price is {effective} in effect."
    if found.loss_if_wrong_usd is not None:
        rest += f" Where it loses, it loses {short(found.loss_if_wrong_usd)} on average."
    console.print(rest, markup=False)


def _instead(found: Quote, console: Console) -> None:
    made = table("Ask for one of these instead", "offered", "ask for", "right in", "mean gain")
    for ask in found.instead:
        name, offered, wanted = instead_words(found, ask)
        made.add_row(name, offered, wanted, words.share(ask.probability), short(ask.gain_usd))
    console.print(made)


def instead_words(found: Quote, ask: Instead) -> tuple[str, str, str]:
    """(what, as offered, to ask for)."""
    if ask.what == "price":
        return "price", rate(ask.offered, found.unit), rate(ask.ask, found.unit)
    if ask.what == "systems":
        return "fewer systems", f"{ask.offered:g}", f"{ask.ask:g}"
    if ask.what == "months":
        return "a shorter term", f"{ask.offered:g} months", f"{ask.ask:.3g} months"
    if ask.what == "take_or_pay":
        return "paid for in any case", words.share(ask.offered), words.share(ask.ask)
    if ask.what == "delivery":
        return "delivery on the day, or the money back", words.share(ask.offered), "certain"
    return "shares that come with it, worth", short(ask.offered), short(ask.ask)


def _turns(found: Quote, console: Console) -> None:
    made = table("What decides", "right in its lower half", "in its upper half")
    for turn in found.turns:
        kind, _, name = turn.unknown.partition("/")
        said = UNKNOWNS.get(kind) or f"{kind} of {name}"
        made.add_row(said, words.share(turn.right_low), words.share(turn.right_high))
    if made.row_count:
        console.print(made)
    else:
        console.print("Nothing that was drawn turns the answer by itself.")

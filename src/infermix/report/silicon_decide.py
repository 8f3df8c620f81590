"""Tables of ``infermix silicon decide``."""

from __future__ import annotations

from rich.console import Console

from infermix.report import words
from infermix.report.silicon import number, print_ledger, table, usd
from infermix.silicon.decide import Decision, FabCase


def print_decision(found: Decision, console: Console) -> None:
    """Print what to do, how sure that is, what would turn it."""
    console.print(f"{found.name + ': ' if found.name else ''}{found.answer}. {_why(found)}", markup=False)
    console.print(f"Confidence {found.confidence}; {found.samples:,} samples.")
    console.print()
    made = table("Worth today above buying", "nominal", "mean", "P10", "P50", "P90", "loses")
    for choice in found.choices:
        npv = choice.npv_usd
        cells = (short(npv.nominal), short(choice.mean_usd), short(npv.p10), short(npv.p50), short(npv.p90))
        made.add_row(choice.name, *cells, words.share(choice.loss))
    console.print(made)
    console.print()
    _key_figures(found, console)
    if found.fab is not None:
        _fab(found.fab, console)
    if found.deals:
        _deals(found, console)
    _flips(found, console)
    print_ledger(found.ledger, found.sources, console, "the worth of building")
    for line in found.assumptions:
        console.print(line, markup=False)


def _why(found: Decision) -> str:
    """The answer's worth; where it is to buy, what building would be worth."""
    named = found.answer if found.answer != "buy" else "build"
    choice = next(choice for choice in found.choices if choice.name == named)
    worth = f"{usd(choice.mean_usd)} against buying on average, and loses in {choice.loss:.0%} of the samples"
    return f"Building is worth {worth}." if found.answer == "buy" else f"It is worth {worth}."


def short(value: float) -> str:
    """Dollars for narrow columns.

    >>> short(-1.24e9), short(292e6), short(0)
    ('-$1.24 bn', '$292 m', '$0')
    """
    return usd(value).replace(" billion", " bn").replace(" million", " m")


def _key_figures(found: Decision, console: Console) -> None:
    made = table("Building", "")
    units = words.NONE if found.break_even_units == float("inf") else f"{found.break_even_units:,.0f}"
    year = "in none of the years" if found.break_even_year is None else f"in year {found.break_even_year}"
    weeks = found.delivery_years
    after = (
        f"{weeks.p50:.1f} years ({weeks.p10:.1f} to {weeks.p90:.1f}); first silicon works in {found.first_silicon:.0%}"
    )
    rows = (
        ("a unit in use, own", usd(found.own_unit_usd)),
        ("what would be bought for one of today's", usd(found.buy_unit_usd)),
        ("speed over today's chip", words.digits(found.kappa)),
        ("units to break even", f"{units} of {found.units_planned:,.0f} planned, {year}"),
        (f"it loses below a price of {found.losing_price_of} of", usd(found.losing_price_usd)),
        ("chips in hand after", after),
        ("a respin", usd(found.respin_usd)),
        ("a slip of six months", usd(found.slip_usd)),
        ("mean of the worst tenth", usd(found.worst_tenth_usd)),
        ("the right to stop at tape-out", f"{usd(found.option_usd)}, used in {found.stopped:.0%}"),
        ("a credible alternative when bargaining", usd(found.bargaining_usd)),
    )
    for row in rows:
        made.add_row(*row)
    console.print(made)


def _fab(fab: FabCase, console: Console) -> None:
    console.print()
    made = table("A fab of one's own", "")
    made.add_row("capital", usd(fab.capital_usd))
    made.add_row("wafers needed a year", f"{fab.wafers_needed_per_year:,.0f}, {words.share(fab.utilisation)} of it")
    made.add_row("a wafer of its own", usd(fab.own_wafer_usd))
    made.add_row("a wafer bought", usd(fab.bought_wafer_usd))
    made.add_row("use at which it pays", words.share(fab.break_even_utilisation))
    console.print(made)


def _deals(found: Decision, console: Console) -> None:
    console.print()
    made = table("Deals by the chip", "stated", "effective", "because")
    for deal in found.deals:
        made.add_row(f"{deal.name} ({deal.kind})", usd(deal.stated_usd), usd(deal.effective_usd), deal.why)
    console.print(made)


def _flips(found: Decision, console: Console) -> None:
    console.print()
    if not found.flips:
        console.print("No constant turns the answer within its range, alone.")
        return
    made = table("What turns building into a loss or a gain", "now", "turns at", "unit")
    for flip in found.flips:
        made.add_row(flip.id, number(flip.value), number(flip.turns_at), flip.unit)
    console.print(made)

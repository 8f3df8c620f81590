"""Tables of ``infermix silicon supply``."""

from __future__ import annotations

from rich.console import Console

from infermix.report import words
from infermix.report.silicon import print_ledger, table, usd
from infermix.silicon.ledger import Spread
from infermix.silicon.supply import Served, Supply

GIGA, MEGA = 1e9, 1e6
NAMES = {
    "wafers_per_year": "wafers",
    "hbm_stacks_per_year": "HBM stacks",
    "cowos_wafers_per_year": "CoWoS wafers",
    "euv_tools": "EUV tools",
    "gigawatts": "power",
    "usd": "money for chips",
}


def print_supply(found: Supply, console: Console) -> None:
    """Print what a demand takes, what a supply can serve, and what both hang on."""
    console.print(f"{found.demand}: {_count(found.chips.nominal)} {found.chip} at {usd(found.price_usd)} each "
                  f"({found.price_basis}), confidence {found.confidence}.", markup=False)  # fmt: skip
    if found.rate is not None:
        rate = words.digits(found.rate.tokens_per_s_per_chip)
        console.print(f"A chip gives {rate} output tokens/s: {found.rate.how}.", markup=False)
    if found.usd_per_query is not None:
        console.print(f"A query costs {usd(found.usd_per_query)}.")
    if found.stated_usd_per_year is not None:
        console.print(f"At the price that is named, queries cost {usd(found.stated_usd_per_year)} a year.")
    console.print()
    made = table("It takes", "nominal", "P10", "P50", "P90")
    for name, value in {"chips": found.chips, **found.amounts}.items():
        made.add_row(*_row(name, value))
    console.print(made)
    console.print(f"EUV tools: {words.share(found.euv_output_years)} of the tools made in a year work on it for that "
                  f"year; CoWoS: {words.share(found.cowos_share)} of the world's.", markup=False)  # fmt: skip
    if found.served is not None:
        _served(found.served, console)
    print_ledger(found.ledger, found.sources, console, "dollars a year")
    for line in found.missing:
        console.print(f"Left out: {line}.", markup=False)


def _row(name: str, value: Spread) -> tuple[str, ...]:
    numbers = (value.nominal, value.p10, value.p50, value.p90)
    if "USD" in name:
        return (name.replace("USD", "dollars"), *(usd(number) for number in numbers))
    if name.startswith("W "):
        return (name.replace("W ", "power "), *(_watts(number) for number in numbers))
    if name.startswith("kWh"):
        return (name.replace("kWh", "GWh"), *(words.digits(number / MEGA) for number in numbers))
    return (name, *(_count(number) for number in numbers))


def _watts(value: float) -> str:
    return f"{words.digits(value / GIGA)} GW" if value >= GIGA / 10 else f"{words.digits(value / MEGA)} MW"


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else words.digits(value)


def _served(served: Served, console: Console) -> None:
    console.print()
    made = table("What the supply allows", "chips", "")
    for name, chips in sorted(served.chips_by_limit.items(), key=lambda item: item[1]):
        made.add_row(NAMES[name], _count(chips), "binds" if name == served.binds else "")
    console.print(made)
    said = [f"{_count(served.chips)} chips"]
    if served.tokens_per_day is not None:
        said.append(f"{words.digits(served.tokens_per_day / GIGA)} billion output tokens a day")
    if served.queries_per_day is not None:
        said.append(f"{words.digits(served.queries_per_day / MEGA)} million queries a day")
    if served.training_days is not None:
        said.append(f"the training run in {words.digits(served.training_days)} days")
    console.print(f"It serves {words.joined(said)}.", markup=False)

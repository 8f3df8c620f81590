"""Tables of ``infermix silicon cost``, and the ledger of constants that every answer of ``silicon`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infermix.report import words
from infermix.silicon.constants import CONFIDENCES
from infermix.silicon.cost import Check, Cost
from infermix.silicon.ledger import Line, Spread
from infermix.silicon.limits import Limit

BAR = 18
TORNADO = 8
LARGE = ((1e12, " trillion"), (1e9, " billion"), (1e6, " million"))
PARTS = {
    "logic": "logic dies",
    "hbm": "HBM",
    "package": "interposer and substrate",
    "lost_parts": "dies and HBM lost in bonding",
    "lost_packages": "packages lost",
    "test": "assembly and test",
}
BLOCKS = {
    "sram": "SRAM",
    "arithmetic": "arithmetic",
    "hbm_phys": "HBM interfaces",
    "links": "links",
    "rest": "everything else",
    "spread": "space between, pad ring",
}


def usd(value: float | None) -> str:
    """Dollars in the words of balance sheets.

    >>> usd(3155.4), usd(1.2e9), usd(-4.5e6), usd(0.0361)
    ('$3,155', '$1.2 billion', '-$4.5 million', '$0.0361')
    """
    if value is None:
        return words.NONE
    sign, size = ("-" if value < 0 else ""), abs(value)
    for scale, word in LARGE:
        if size >= scale * 0.9995:
            return f"{sign}${words.digits(size / scale)}{word}"
    return f"{sign}${size:,.0f}" if size >= 1000 else f"{sign}{words.money(size)}"


def table(*columns: str) -> Table:
    """A table without a frame: the first column to the left, the others to the right."""
    made = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left", no_wrap=bool(place))
    return made


def print_cost(found: Cost, console: Console) -> None:
    """Print a chip: cost, parts, area, dies, limits, what it hangs on."""
    unit = found.unit_usd
    console.print(
        f"{found.name} on {found.node}: {usd(unit.nominal)} a unit "
        f"({usd(unit.p10)} to {usd(unit.p90)}, 10 to 90 %), confidence {found.confidence}.",
        markup=False,
    )
    if not unit.p10 <= unit.nominal <= unit.p90:
        console.print("The nominal lies outside: constants are taken as published, some at an end of their range.")
    for line in _prices(found):
        console.print(line, markup=False)
    console.print()
    console.print(_parts(found.parts_usd, unit))
    console.print()
    console.print(_area(found))
    console.print()
    console.print(_dies(found))
    print_limits(found.limits, console)
    _speeds(found, console)
    print_checks(found.checks, console)
    print_ledger(found.ledger, found.sources, console)
    for line in found.missing:
        console.print(f"Left out: {line}.", markup=False)


def _prices(found: Cost) -> list[str]:
    said = []
    if found.price_usd is not None:
        said.append(f"At a gross margin of {words.share(found.gross_margin)} it sells for {usd(found.price_usd)}.")
    if found.street_price_usd is not None and found.implied_margin is not None:
        margin = words.share(found.implied_margin)
        said.append(f"The catalogue's price of {usd(found.street_price_usd)} leaves {margin} above these parts.")
    if found.once is not None:
        once = found.once
        said.append(
            f"Once: design {usd(once.design_usd)}, masks {usd(once.masks_usd)}; "
            f"{usd(once.usd_per_unit)} on each of {once.units:,.0f} units."
        )
    return said


def _parts(parts: Mapping[str, Spread], unit: Spread) -> Table:
    made = table("Parts of a unit", "nominal", "P10", "P50", "P90", "share")
    for name, part in parts.items():
        cells = (usd(part.nominal), usd(part.p10), usd(part.p50), usd(part.p90))
        made.add_row(PARTS[name], *cells, words.share(part.nominal / unit.nominal))
    made.add_row("unit", usd(unit.nominal), usd(unit.p10), usd(unit.p50), usd(unit.p90), "", style="bold")
    return made


def _area(found: Cost) -> Table:
    made = table("Area by what is described", "mm2", "share")
    for name, area in found.area_mm2.items():
        if area > 0:
            made.add_row(BLOCKS[name], words.digits(area), words.share(area / found.modelled_mm2))
    made.add_row("all dies", words.digits(found.modelled_mm2), "", style="bold")
    return made


def _dies(found: Cost) -> Table:
    made = table("Dies", "")
    made.add_row("a die", f"{words.digits(found.die_mm2)} mm2, {found.sides_mm[0]:.1f} mm x {found.sides_mm[1]:.1f} mm")
    forms = ", ".join(f"{words.digits(count)} by {name}" for name, count in found.dies_per_wafer.items())
    made.add_row("dies a wafer", forms)
    made.add_row(
        "yield", f"{words.share(found.yields['raw'])} without a defect, {words.share(found.yields['harvested'])} sold"
    )
    made.add_row("logic", f"{usd(found.logic_usd['harvested'])}; {usd(found.logic_usd['raw'])} without harvest")
    return made


def print_limits(limits: Sequence[Limit], console: Console) -> None:
    """Print what is used of what is allowed."""
    if not limits:
        return
    made = table("Limits", "used", "allowed")
    for limit in limits:
        made.add_row(limit.name, f"{words.digits(limit.used)} {limit.unit}", f"{words.digits(limit.allowed)}")
    console.print()
    console.print(made)


def _speeds(found: Cost, console: Console) -> None:
    watts = words.NONE if found.power_w is None else f"{words.digits(found.power_w)} W"
    rates = [("HBM", found.hbm_bytes_per_s), ("SRAM", found.sram_bytes_per_s)]
    said = ", ".join(f"{name} {words.quantity(rate, 'byte/s')}" for name, rate in rates if rate)
    console.print(f"Power {watts}; {said}; {words.digits(found.bytes_per_flop)} bytes per FLOP.", markup=False)


def print_checks(checks: Sequence[Check], console: Console) -> None:
    """Print what the model says of a real chip beside what is known."""
    if not checks:
        return
    made = table("Against the real chip", "modelled", "real", "error")
    for check in checks:
        error = check.error
        told = check.why_not if error is None else f"{error:+.1%}{'' if abs(error) <= 0.25 else ', too far'}"
        made.add_row(check.what, _with_unit(check.modelled, check.unit), _with_unit(check.real, check.unit), told)
    console.print()
    console.print(made)


def _with_unit(value: float | None, unit: str) -> str:
    return words.NONE if not value else f"{words.digits(value)} {unit}"


def print_ledger(lines: Sequence[Line], sources: Mapping[str, str], console: Console, answer: str = "the unit") -> None:
    """Print the tornado, then every constant with its source."""
    moving = [line for line in lines if line.swing > 0][:TORNADO]
    if moving:
        made = table(f"What moves {answer} most", "at low", "at high", "")
        widest = moving[0].swing
        for line in moving:
            bar = "█" * max(1, round(BAR * line.swing / widest))
            made.add_row(line.id, usd(line.at_low), usd(line.at_high), Text(bar.ljust(BAR)))
        console.print()
        console.print(made)
    console.print()
    console.print(_constants(lines))
    console.print(f"Confidence: {', '.join(f'{letter} {said}' for letter, said in CONFIDENCES.items())}.", markup=False)
    for id_, text in sources.items():
        console.print(f"{id_}: {text}", markup=False, soft_wrap=False)


def _constants(lines: Sequence[Line]) -> Table:
    made = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for name, side in (("Constant", "left"), ("value", "right"), ("range", "right"), ("unit", "left"),
                       ("%/%", "right"), ("", "left"), ("source", "left")):  # fmt: skip
        made.add_column(name, justify="right" if side == "right" else "left", overflow="fold")
    for line in lines:
        bounds = f"{number(line.low)} to {number(line.high)}" if line.high > line.low else ""
        made.add_row(
            line.id, number(line.value), bounds, line.unit, f"{line.elasticity:+.2f}", line.confidence,
            f"{' '.join(line.source)} {line.date}",
        )  # fmt: skip
    return made


def number(value: float) -> str:
    """A constant's value: digits for everyday sizes, an exponent for the others.

    >>> number(17000), number(4.1e-13), number(0.0011)
    ('17,000', '4.1e-13', '0.0011')
    """
    return words.digits(value) if value == 0 or 1e-5 <= abs(value) < 1e7 else f"{value:.3g}"

"""``infermix silicon decide``: build, buy, wait, or own a fab."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.errors import located
from infermix.rng import uniforms
from infermix.silicon import demand, economics
from infermix.silicon.build import dies
from infermix.silicon.cashflow import Flow, flow, unit_of
from infermix.silicon.chip import read_chip
from infermix.silicon.constants import Constants, sources
from infermix.silicon.cost import read, seed_of
from infermix.silicon.draw import SAMPLES, Draw, drawn, exact
from infermix.silicon.ledger import Line, Spread, confidence, ledger, spread
from infermix.silicon.limits import limits
from infermix.silicon.venture import Deal, Venture, read_venture
from infermix.units import MONTHS_PER_YEAR, WEEKS_PER_YEAR

KEYS = ("name", "chip", "change", "constants", "seed", "need", "vendor", "own", "terms", "fab", "deal")
WORST = 10
"""Percent of the outcomes whose mean is the worst case."""
SLIP_MONTHS = 6
HALVINGS = 50
LUCK = 21
"""Stream of the luck of first silicon."""


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One of the ways to go, in dollars of today above buying."""

    name: str
    npv_usd: Spread
    mean_usd: float
    loss: float
    """Probability that it is worth less than buying."""


class Flip(msgspec.Struct, frozen=True, kw_only=True):
    """A constant whose range holds a value at which the answer turns."""

    id: str
    value: float
    turns_at: float
    unit: str


class Effective(msgspec.Struct, frozen=True, kw_only=True):
    """What a deal costs by the chip that comes, and against the vendor."""

    name: str
    kind: str
    stated_usd: float
    effective_usd: float
    why: str


class FabCase(msgspec.Struct, frozen=True, kw_only=True):
    """A fab of one's own."""

    capital_usd: float
    wafers_needed_per_year: float
    utilisation: float
    own_wafer_usd: float
    bought_wafer_usd: float
    break_even_utilisation: float


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What to do, how sure that is, and what would turn it."""

    name: str
    answer: str
    choices: tuple[Choice, ...]
    worst_tenth_usd: float
    break_even_units: float
    break_even_year: int | None
    units_planned: float
    kappa: float
    own_unit_usd: float
    buy_unit_usd: float
    losing_price_usd: float
    """Price of what would be bought at delivery below which building loses."""
    losing_price_of: str
    respin_usd: float
    slip_usd: float
    option_usd: float
    """What the right to stop at tape-out adds."""
    stopped: float
    """How often it would be used."""
    bargaining_usd: float
    """Worth of a vendor's price at which building would just lose, on all units."""
    delivery_years: Spread
    first_silicon: float
    fab: FabCase | None
    deals: tuple[Effective, ...]
    flips: tuple[Flip, ...]
    ledger: tuple[Line, ...]
    sources: dict[str, str]
    confidence: str
    samples: int
    figures: tuple[str, ...]
    """None of the catalogue: speeds and prices are the file's."""
    assumptions: tuple[str, ...]


def decide(path: str | Path) -> Decision:
    """The decision that a file asks for. Raises InputError for files that cannot be."""
    raw, table = read(path, KEYS)
    chip = read_chip(raw, str(path), table) if "chip" in raw else None
    venture, full = read_venture(raw, str(path), chip, table)
    seed = seed_of(raw, str(path))
    with located(str(path)):
        if chip is not None:
            limits(chip, Draw(full), "chip")
        return decide_of(venture, full, seed)


class Outcomes(NamedTuple):
    """Both ends of the first silicon in every sample, and the one that was drawn."""

    good: Flow
    failed: Flow
    respin: Floats

    def drawn(self, name: str) -> Floats:
        """A quantity of the outcome that was drawn."""
        found: Floats = np.where(self.respin > 0, getattr(self.failed, name), getattr(self.good, name))
        return found

    def npv(self) -> Floats:
        """Worth of the outcome that was drawn."""
        return self.drawn("npv")


def decide_of(venture: Venture, table: Constants, seed: int = 1) -> Decision:
    """Values of all choices over the ranges of the constants."""
    nominal = Draw(table)
    base = _expected(venture, nominal)
    used = (*nominal.read, "program/respin_probability")
    draw = drawn(table, used, seed)
    outcomes = _outcomes(venture, draw, seed)
    lines = ledger(table, tuple(dict.fromkeys(used)), lambda d: _expected(venture, d))
    chance = draw("program/respin_probability")
    good, failed = outcomes.good, outcomes.failed
    going_on = (1 - chance) * (good.npv + good.before) + chance * (failed.npv + failed.before)
    option = economics.option_usd(good.before, going_on)
    fab, fab_choice = _fab(venture, draw, outcomes, nominal)
    choices = [
        _choice("build", base, outcomes.npv()),
        _choice("start, decide at tape-out", exact(float(option.mean())), option),
        _choice("buy", exact(0), 0 * option),
        _choice("wait a year", _expected(venture, nominal, 1), _outcomes(venture, draw, seed, 1).npv()),
        *([fab_choice] if fab_choice else []),
    ]
    price, of = _losing_price(venture, table)
    unit = unit_of(venture, nominal)
    clean = flow(venture, nominal, exact(0))
    worth = np.cumsum(clean.yearly) - float(clean.before + clean.masks)
    paid = np.flatnonzero(worth > 0)
    return Decision(
        name=venture.name,
        answer=max(choices, key=lambda choice: choice.mean_usd).name,
        choices=tuple(choices),
        worst_tenth_usd=_worst(outcomes.npv()),
        break_even_units=_break_even(venture, nominal),
        break_even_year=int(paid[0]) + 1 if len(paid) else None,
        units_planned=float(clean.built),
        kappa=float(nominal("file/own/kappa")),
        own_unit_usd=float(unit.own),
        buy_unit_usd=float(_compared(venture, nominal)),
        losing_price_usd=price,
        losing_price_of=of,
        respin_usd=float(flow(venture, nominal, exact(1)).npv - clean.npv),
        slip_usd=float(_slipped(venture, table) - base),
        option_usd=float(option.mean() - (going_on - good.before).mean()),
        stopped=float((going_on < 0).mean()),
        bargaining_usd=_bargaining(venture, nominal, price),
        delivery_years=spread(clean.delivery_years, outcomes.drawn("delivery_years")),
        first_silicon=1 - float(nominal("program/respin_probability")),
        fab=fab,
        deals=tuple(effective(name, deal) for name, deal in venture.deals.items()),
        flips=_flips(lines, float(base)),
        ledger=lines,
        sources={id_: sources()[id_].text for line in lines for id_ in line.source},
        confidence=confidence(lines),
        samples=SAMPLES,
        figures=(),
        assumptions=_assumptions(venture),
    )  # fmt: skip


def _expected(venture: Venture, draw: Draw, wait_years: int = 0) -> Floats:
    """Worth of building, a respin weighed by its probability."""
    chance = draw("program/respin_probability")
    good = flow(venture, draw, exact(0), wait_years).npv
    return (1 - chance) * good + chance * flow(venture, draw, exact(1), wait_years).npv


def _outcomes(venture: Venture, draw: Draw, seed: int, wait_years: int = 0) -> Outcomes:
    """The drawn worlds, each with a first silicon that works and with one that does not."""
    luck = uniforms(seed, LUCK, SAMPLES)
    respin = (luck < draw("program/respin_probability")).astype(np.float64)
    good, failed = (flow(venture, draw, np.full(SAMPLES, ended, dtype=np.float64), wait_years) for ended in (0, 1))
    return Outcomes(good, failed, respin)


def _choice(name: str, nominal: Floats, samples: Floats) -> Choice:
    return Choice(
        name=name,
        npv_usd=spread(nominal, samples),
        mean_usd=float(np.mean(samples)),
        loss=float((samples < 0).mean()),
    )


def _worst(samples: Floats) -> float:
    """Mean of the worst tenth."""
    ordered = np.sort(samples)
    return float(ordered[: max(1, len(ordered) * WORST // 100)].mean())


def _compared(venture: Venture, draw: Draw) -> Floats:
    """Cost of what one chip of today gives, of the chip that can be had when the own one comes."""
    unit = unit_of(venture, draw)
    ready = flow(venture, draw, exact(0)).delivery_years
    return np.where(unit.next_years <= ready, np.minimum(unit.next / unit.next_speed, unit.today), unit.today)


def _break_even(venture: Venture, draw: Draw) -> float:
    """Units, software of the years of use and a likely respin included (E22)."""
    clean = flow(venture, draw, exact(0))
    chance = draw("program/respin_probability")
    name = "software_usd_per_year"
    yearly = draw(f"file/own/{name}" if f"file/own/{name}" in draw.table else f"decision/{name}")
    factors = economics.discount(draw("file/terms/discount_rate"), np.arange(venture.need.years) + exact(1) / 2)
    once = clean.before + clean.masks * (1 + chance) + yearly * factors.sum()
    unit = unit_of(venture, draw)
    return float(economics.break_even_units(once, draw("file/own/kappa"), _compared(venture, draw), unit.own))


def _losing_price(venture: Venture, table: Constants) -> tuple[float, str]:
    """The vendor's price at which building is worth as much as buying, all else nominal, by halving an interval.

    Of the next chip where one is stated: today's chip bounds what a dear next one costs.
    """
    name = venture.vendor.name or "the vendor"
    id_, of = "file/vendor/price_usd", f"{name}'s chip"
    if venture.vendor.next_years is not None:
        id_, of = "file/vendor/next_price_usd", f"{name}'s next chip"
    nominal = Draw(table)
    _expected(venture, nominal)

    def worth(price: Floats) -> Floats:
        draw = Draw(table, {id_: price})
        draw.kept = nominal.kept  # the vendor's price changes nothing of the own parts
        return _expected(venture, draw)

    low, high = exact(0), exact(table[id_].value + table["file/vendor/price_usd"].value) * 4
    if worth(high) < 0:
        return math.inf, of
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        wins = worth(middle) > 0
        low, high = (low, middle) if wins else (middle, high)
    return float(high), of


def _slipped(venture: Venture, table: Constants) -> Floats:
    """Worth of building half a year later than planned."""
    weeks = table["file/own/slip_weeks"].value + SLIP_MONTHS * WEEKS_PER_YEAR / MONTHS_PER_YEAR
    return _expected(venture, Draw(table, {"file/own/slip_weeks": exact(weeks)}))


def _bargaining(venture: Venture, draw: Draw, price: float) -> float:
    """What the vendor would have to give on all units to make building just lose."""
    name = "next_price_usd" if venture.vendor.next_years is not None else "price_usd"
    asked = float(draw(f"file/vendor/{name}"))
    speed = float(draw("file/vendor/next_speed")) if venture.vendor.next_years is not None else 1
    bought = float(flow(venture, draw, exact(0)).built * draw("file/own/kappa")) / speed
    return max(asked - price, 0) * bought


def _fab(venture: Venture, draw: Draw, outcomes: Outcomes, nominal: Draw) -> tuple[FabCase | None, Choice | None]:
    """A fab of one's own for these wafers: capital now, wafers at running cost later (E24)."""
    fab, chip = venture.fab, venture.chip
    if fab is None or chip is None:
        return None, None

    def case(values: Draw, built: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        made, running = dies(chip, values), values("file/fab/running_usd_per_wafer")
        wafers = demand.wafers(built * chip.dies, made.per_wafer, made.good_yield)
        capital = fab.wafers_per_month * values(f"nodes/{chip.node}/fab_usd_per_wafer_month")
        return wafers, made.wafer_usd - running, capital, running

    years = exact(venture.need.years)
    wafers, saved, capital, _ = case(draw, outcomes.drawn("built"))
    spare = np.maximum(fab.wafers_per_month * MONTHS_PER_YEAR * years - wafers, 0)
    factor = economics.discount(draw("file/terms/discount_rate"), years / 2)
    worth = outcomes.npv() - capital + (wafers * saved + spare * draw("file/fab/resale_usd_per_wafer")) * factor
    need, gain, cost, running = case(nominal, flow(venture, nominal, exact(0)).built)
    life = nominal("site/fab/life_years")
    yearly = float(need) / venture.need.years
    full = fab.wafers_per_month * MONTHS_PER_YEAR
    share = min(yearly / full, 1)
    own = demand.own_wafer_usd(cost, exact(fab.wafers_per_month), life, exact(max(share, 1 / full))) + running
    told = FabCase(
        capital_usd=float(cost),
        wafers_needed_per_year=yearly,
        utilisation=share,
        own_wafer_usd=float(own),
        bought_wafer_usd=float(gain + running),
        break_even_utilisation=float(cost / (life * full * gain)),
    )
    return told, _choice("build, with an own fab", exact(float(np.median(worth))), worth)


def effective(name: str, deal: Deal) -> Effective:
    """Price by the chip that comes: pre-orders by the odds, equity taken off, a lost supplier added."""
    stated = deal.usd / deal.units
    if deal.kind == "preorder":
        price, why = stated / deal.delivery, f"{deal.delivery:.0%} odds that they come"
    elif deal.kind == "equity":
        price, why = (deal.usd - deal.equity_usd) / deal.units, "the worth of the shares taken off"
    else:
        price = stated * (1 + deal.probability * deal.price_rise)
        why = f"{deal.probability:.0%} odds that the other supplier is gone and prices rise {deal.price_rise:.0%}"
    return Effective(name=name, kind=deal.kind, stated_usd=stated, effective_usd=price, why=why)


def _flips(lines: tuple[Line, ...], base: float) -> tuple[Flip, ...]:
    """Constants whose own range turns the sign of the answer, nearest first; straight between two ends."""
    found = []
    for line in lines:
        for end, there in ((line.low, line.at_low), (line.high, line.at_high)):
            if base * there < 0 and end != line.value:
                turn = line.value + (end - line.value) * base / (base - there)
                found.append(Flip(id=line.id, value=line.value, turns_at=turn, unit=line.unit))
    return tuple(sorted(found, key=lambda flip: abs(flip.turns_at / flip.value - 1) if flip.value else np.inf))


def _assumptions(venture: Venture) -> tuple[str, ...]:
    said = [
        "Worth is in dollars of today, above buying the same tokens of the vendor.",
        "At tape-out everything is taken to be known but the luck of the first silicon, which flatters stopping there.",
        "The end of the chip's use stays where it is: a late chip loses years.",
    ]
    if venture.vendor.next_years is None:
        said.append(
            "No next chip of the vendor is stated: today's is compared with for all years, which flatters building."
        )
    if venture.own.software_years == 0:
        said.append("Software is ready on the first day: state ready_at_delivery and software_years.")
    if venture.chip is None:
        said.append("No chip is described: fab weeks and masks are those of n5, and the unit's cost is one number.")
    return tuple(said)

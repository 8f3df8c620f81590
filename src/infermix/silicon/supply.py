"""``infermix silicon supply``: a demand into chips, wafers, HBM, CoWoS, EUV tools, fabs, power and money; and back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog.load import catalog
from infermix.catalog.parse import Raw, check_keys, convert
from infermix.errors import InputError, located
from infermix.silicon import build, demand, package, wafer
from infermix.silicon.chip import Chip, read_chip
from infermix.silicon.constants import Constants, sources
from infermix.silicon.cost import read, seed_of
from infermix.silicon.draw import Draw, drawn, exact
from infermix.silicon.ledger import Line, Spread, confidence, ledger, spread
from infermix.silicon.limits import limits
from infermix.silicon.serving import Rate, Serve, rate, training_chips, training_days
from infermix.silicon.tco import Site, tco
from infermix.units import DAYS_PER_YEAR, HOURS_PER_FISCAL_YEAR, MONTHS_PER_YEAR, SECONDS_PER_DAY, WATTS_PER_GW

T = TypeVar("T")
KEYS = ("name", "chip", "change", "constants", "seed", "demand", "serve", "supply", "price_usd")
WATTS_PER_KW = 1000
CATALOGUES = "the catalogue's"


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A training run."""

    parameters: float
    """That one token meets."""
    tokens: float
    mfu: float
    days: float


class Demand(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is wanted; one of these."""

    tokens_per_day: float | None = None
    """Output tokens."""
    queries_per_day: float | None = None
    training: Training | None = None
    chips: float | None = None
    gigawatts: float | None = None
    """At the wall."""
    capital_usd: float | None = None
    """Of chips."""
    tokens_per_query: float | None = None
    usd_per_query: float | None = None
    """A price that somebody names, told beside."""


class Given(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What can be had in a year; what is left out does not bind."""

    wafers_per_year: float | None = None
    hbm_stacks_per_year: float | None = None
    cowos_wafers_per_year: float | None = None
    euv_tools: float | None = None
    gigawatts: float | None = None
    usd: float | None = None


class Each(NamedTuple):
    """What one good unit takes."""

    wafers: Floats
    stacks: Floats
    cowos_wafers: Floats
    euv_tool_years: Floats
    facility_w: Floats
    usd: Floats


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What a given supply can serve, and what holds it back."""

    chips: float
    binds: str
    chips_by_limit: dict[str, float]
    tokens_per_day: float | None
    queries_per_day: float | None
    training_days: float | None


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """What a demand takes."""

    name: str
    chip: str
    node: str
    demand: str
    rate: Rate | None
    chips: Spread
    amounts: dict[str, Spread]
    price_usd: float
    price_basis: str
    euv_output_years: float
    """Years of all tools that are made."""
    cowos_share: float
    """Of the world's CoWoS of a year."""
    usd_per_query: float | None
    stated_usd_per_year: float | None
    """Of the price of a query that somebody names."""
    served: Served | None
    ledger: tuple[Line, ...]
    sources: dict[str, str]
    confidence: str
    missing: tuple[str, ...]
    figures: tuple[str, ...]
    """Ids of the catalogue's figures that it hangs on."""


class Question(NamedTuple):
    """A file, read and checked."""

    name: str
    chip: Chip
    demand: Demand
    serve: Serve | None
    given: Given | None
    price_usd: float | None
    rate: Rate | None


def supply(path: str | Path) -> Supply:
    """What the demand of a file takes. Raises InputError for files that cannot be."""
    raw, table = read(path, KEYS)
    asked = _question(raw, str(path), table)
    seed = seed_of(raw, str(path))
    with located(str(path)):
        return supply_of(asked, table, seed)


def _question(raw: Raw, where: str, table: Constants) -> Question:
    chip = read_chip(raw, where, table)
    wanted = _table(Demand, raw, "demand", where)
    if wanted is None:
        raise InputError("no [demand]", where=where, allowed="tokens_per_day, queries_per_day, training, chips ...")
    kinds = ("tokens_per_day", "queries_per_day", "training", "chips", "gigawatts", "capital_usd")
    stated = [kind for kind in kinds if getattr(wanted, kind) is not None]
    if len(stated) != 1:
        raise InputError("a demand is one of several", where=f"{where}: demand", value=", ".join(stated) or None,
                         allowed=" or ".join(kinds))  # fmt: skip
    serve, given = _table(Serve, raw, "serve", where), _table(Given, raw, "supply", where)
    price = raw.get("price_usd")
    if price is not None and not (isinstance(price, (int, float)) and price > 0):
        raise InputError("must be above 0", where=f"{where}: price_usd", value=price)
    told = None
    if serve is not None:
        if not 0 < serve.load <= 1:
            raise InputError("not a share", where=f"{where}: serve.load", value=serve.load, allowed="above 0 to 1")
        told = rate(serve, chip.id, catalog(), f"{where}: serve")
    name = str(raw.get("name", chip.name))
    return Question(name, chip, wanted, serve, given, None if price is None else float(price), told)


def _table(type_: type[T], raw: Raw, key: str, where: str) -> T | None:
    """A table of the file as a struct whose numbers are all above 0, or nothing."""
    said = raw.get(key)
    if said is None:
        return None
    if not isinstance(said, dict):
        raise InputError("not a table", where=f"{where}: {key}", value=said)
    check_keys(said, tuple(type_.__annotations__), f"{where}: {key}")
    _above_zero(said, f"{where}: {key}")
    made: T = convert(type_, said, f"{where}: {key}")  # type: ignore[type-var]
    return made


def _above_zero(said: Mapping[str, object], where: str) -> None:
    for name, value in said.items():
        if isinstance(value, dict):
            _above_zero(value, f"{where}.{name}")
        free = name in ("cached_tokens", "tokens_per_s_user")
        if isinstance(value, (int, float)) and not (value >= 0 if free else value > 0):
            raise InputError(f"{name} must be above 0", where=f"{where}.{name}", value=value)


def supply_of(asked: Question, table: Constants, seed: int = 1) -> Supply:
    """What a demand takes, with its spread over the ranges of the constants."""
    nominal = Draw(table)
    limits(asked.chip, nominal, "chip")
    price, basis = _price(asked, nominal)
    found, each = _amounts(asked, nominal, price), _each(asked.chip, nominal, price)
    used = tuple(nominal.read)
    over = _amounts(asked, drawn(table, used, seed), price)
    lines = ledger(table, used, lambda draw: _amounts(asked, draw, price)["USD a year"])
    tools = float(found["EUV tools for a year"])
    year = float(nominal("site/cowos/wafers_per_month")) * MONTHS_PER_YEAR
    queries = asked.demand.queries_per_day
    stated = asked.demand.usd_per_query
    return Supply(
        name=asked.name,
        chip=asked.chip.name or asked.chip.id or "of the chip",
        node=asked.chip.node,
        demand=_said(asked.demand),
        rate=asked.rate,
        chips=spread(found["chips"], over["chips"]),
        amounts={name: spread(value, over[name]) for name, value in found.items() if name != "chips"},
        price_usd=price,
        price_basis=basis,
        euv_output_years=tools / float(nominal("site/euv/tools_per_year")),
        cowos_share=float(found["CoWoS wafers"]) / year,
        usd_per_query=None if queries is None else float(found["USD a year"]) / (queries * DAYS_PER_YEAR),
        stated_usd_per_year=None if stated is None or queries is None else stated * queries * DAYS_PER_YEAR,
        served=None if asked.given is None else _served(asked, each),
        ledger=lines,
        sources={id_: sources()[id_].text for line in lines for id_ in line.source},
        confidence=confidence(lines),
        missing=_missing(asked, table),
        figures=_figures(asked, basis),
    )


def _said(wanted: Demand) -> str:
    """The demand in words."""
    if wanted.training is not None:
        run = wanted.training
        what = f"a training run of {run.parameters:.3g} parameters on {run.tokens:.3g} tokens"
        return f"{what} in {run.days:g} days at {run.mfu:.0%} of the peak"
    words = {"tokens_per_day": "output tokens a day", "queries_per_day": "queries a day", "chips": "chips",
             "gigawatts": "GW at the wall", "capital_usd": "USD of chips"}  # fmt: skip
    kind = next(name for name in words if getattr(wanted, name) is not None)
    return f"{getattr(wanted, kind):,.4g} {words[kind]}"


def _price(asked: Question, draw: Draw) -> tuple[float, str]:
    """Price of a unit and where it is from: the file, a margin, the catalogue, or its parts."""
    chip = asked.chip
    if asked.price_usd is not None:
        return asked.price_usd, "as stated"
    unit = build.parts(chip, draw).total()
    if chip.gross_margin is not None:
        return float(
            package.price_usd(unit, exact(chip.gross_margin))
        ), f"its parts at a margin of {chip.gross_margin:.1%}"
    known = catalog().chips
    price = known[chip.id].chip_price_usd if chip.id in known else None
    return (price.value, CATALOGUES) if price else (float(unit), "its parts, without a margin")


def _each(chip: Chip, draw: Draw, price: float) -> Each:
    """What one good unit takes of everything that is scarce."""
    made, run = build.dies(chip, draw), build.speeds(chip, draw)
    bonded = exact(1)
    cowos = exact(0)
    if chip.package == "cowos":
        held = "packages/cowos"
        bonded = package.bonds(draw(f"{held}/bond_yield"), exact(chip.dies + chip.stacks))
        bonded = bonded * draw(f"{held}/substrate_bond_yield")
        cowos = 1 / (_interposers(chip, made, draw) * bonded)
    wafers = demand.wafers(exact(chip.dies), made.per_wafer, made.good_yield * bonded)
    yearly = demand.passes_per_tool_year(draw("site/euv/passes_per_hour"), draw("site/euv/uptime"))
    watts = _chip_w(chip, run.power_w) * draw("site/centre/it_over_chip_w") * draw("site/centre/pue")
    tools = wafers * draw(f"nodes/{chip.node}/euv_passes") / yearly
    return Each(wafers, chip.stacks / bonded, cowos, tools, watts, exact(price))


def _interposers(chip: Chip, made: build.Dies, draw: Draw) -> Floats:
    """Interposers of one wafer."""
    stack = draw("memory/stack/width_mm") * draw("memory/stack/length_mm")
    side = np.sqrt(draw("packages/cowos/interposer_over_dies") * (chip.dies * made.die_mm2 + chip.stacks * stack))
    rim = (draw("process/wafer_diameter_mm"), draw("process/scribe_mm"), draw("process/edge_mm"))
    return np.maximum(wafer.dies_grid(side, side, *rim), 1)


def _chip_w(chip: Chip, modelled: Floats | None) -> Floats:
    """Power of a chip: as told, the catalogue's, or modelled."""
    if chip.tdp_w is not None:
        return exact(chip.tdp_w)
    known = catalog().chips
    tdp = known[chip.id].tdp_w if chip.id in known else None
    if tdp is not None:
        return exact(tdp.value)
    if modelled is None:
        raise InputError("no power is known", where="chip.tdp_w", mend="state it")
    return modelled


def _chips(asked: Question, each: Each) -> Floats:
    """Chips that the demand takes."""
    wanted = asked.demand
    if wanted.chips is not None:
        return exact(wanted.chips)
    if wanted.capital_usd is not None:
        return wanted.capital_usd / each.usd
    if wanted.gigawatts is not None:
        return wanted.gigawatts * WATTS_PER_GW / each.facility_w
    if wanted.training is not None:
        run = wanted.training
        return training_chips(run.parameters, run.tokens, run.mfu, run.days, exact(asked.chip.tflops * build.TERA))
    tokens = wanted.tokens_per_day
    if wanted.queries_per_day is not None:
        if wanted.tokens_per_query is None:
            raise InputError("how long is a query?", where="demand.tokens_per_query", mend="state its output tokens")
        tokens = wanted.queries_per_day * wanted.tokens_per_query
    if asked.rate is None or asked.serve is None:
        raise InputError("how fast is a chip?", where="serve", mend="add [serve] with tokens_per_s_per_chip or a model")
    daily = asked.rate.tokens_per_s_per_chip * asked.serve.load * SECONDS_PER_DAY
    return exact((tokens or 0) / daily)


def _amounts(asked: Question, draw: Draw, price: float) -> dict[str, Floats]:
    """Everything that a demand takes, by name."""
    chip, each = asked.chip, _each(asked.chip, draw, price)
    count = _chips(asked, each)
    life, pue = draw("site/centre/server_life_years"), draw("site/centre/pue")
    site = Site(
        draw("site/centre/usd_per_w"), draw("site/centre/life_years"), draw("site/centre/opex_usd_per_w_month"), pue,
        draw("site/centre/usd_per_kwh"), draw("site/centre/finance_rate"), draw("site/centre/server_opex_share"),
    )  # fmt: skip
    it_w = count * each.facility_w / pue
    wafers = count * each.wafers
    found = {
        "chips": count,
        f"wafers of {chip.node}": wafers,
        "HBM stacks": count * each.stacks,
        "CoWoS wafers": count * each.cowos_wafers,
        "EUV tools for a year": count * each.euv_tool_years,
        "USD of EUV tools": count * each.euv_tool_years * draw("site/euv/tool_usd"),
        "W at the wall": count * each.facility_w,
        "USD of chips": count * each.usd,
        "USD of data centre": it_w * site.usd_per_w,
        "kWh a year": count * each.facility_w / WATTS_PER_KW * HOURS_PER_FISCAL_YEAR,
        "USD a year": tco(it_w, count * each.usd, life, site).total() / life,
    }
    capital = _fab_usd(chip, wafers, draw)
    if capital is not None:
        found["USD of fab"] = capital
    return {name: np.asarray(value) for name, value in found.items()}


def _fab_usd(chip: Chip, wafers: Floats, draw: Draw) -> Floats | None:
    """Capital of a fab that makes these wafers in a year at full use; nothing where none is public for the node."""
    by_month, by_year = f"nodes/{chip.node}/fab_usd_per_wafer_month", f"nodes/{chip.node}/capital_usd_per_wafer_year"
    if by_month in draw.table:
        return demand.wafers_per_month(wafers, exact(1)) * draw(by_month)
    return wafers * draw(by_year) if by_year in draw.table else None


def _served(asked: Question, each: Each) -> Served:
    """Chips that each limit allows, the least of them, and what they serve."""
    given = asked.given
    needs = {
        "wafers_per_year": each.wafers, "hbm_stacks_per_year": each.stacks, "cowos_wafers_per_year": each.cowos_wafers,
        "euv_tools": each.euv_tool_years, "gigawatts": each.facility_w / WATTS_PER_GW, "usd": each.usd,
    }  # fmt: skip
    by_limit = {
        name: float(limit / need)
        for name, need in needs.items()
        if (limit := getattr(given, name)) is not None and need > 0
    }
    if not by_limit:
        raise InputError("nothing is limited", where="supply", allowed=", ".join(needs))
    binds = min(by_limit, key=lambda name: by_limit[name])
    chips = by_limit[binds]
    daily = None
    if asked.rate is not None and asked.serve is not None:
        daily = chips * asked.rate.tokens_per_s_per_chip * asked.serve.load * SECONDS_PER_DAY
    per_query, run = asked.demand.tokens_per_query, asked.demand.training
    peak = exact(asked.chip.tflops * build.TERA)
    days = None if run is None else training_days(run.parameters, run.tokens, run.mfu, exact(chips), peak)
    return Served(
        chips=chips,
        binds=binds,
        chips_by_limit=by_limit,
        tokens_per_day=daily,
        queries_per_day=daily / per_query if daily is not None and per_query else None,
        training_days=None if days is None else float(days),
    )


def _figures(asked: Question, price_basis: str) -> tuple[str, ...]:
    """Figures of the catalogue behind power, price and speed."""
    chip, known = asked.chip, catalog().chips
    names = []
    if chip.id in known and chip.tdp_w is None and known[chip.id].tdp_w is not None:
        names.append("tdp_w")
    if price_basis == CATALOGUES:
        names.append("chip_price_usd")
    own = tuple(f"chips/{chip.id}/{name}" for name in names)
    return tuple(dict.fromkeys((*own, *(asked.rate.figures if asked.rate else ()))))


def _missing(asked: Question, table: Constants) -> tuple[str, ...]:
    said = ["wafers of HBM and of interposers are counted as stacks and as CoWoS wafers, their fabs are not"]
    known = ("fab_usd_per_wafer_month", "capital_usd_per_wafer_year")
    if not any(f"nodes/{asked.chip.node}/{name}" in table for name in known):
        said.append(f"capital of a fab: no public figure for {asked.chip.node}")
    said.append("servers around the chips cost nothing here beyond what the price of a chip contains")
    return tuple(said)

"""Chips compared: every chip that runs a model, with its speed, its price and what a token costs on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from infermix.catalog.load import Catalog
from infermix.catalog.records import Chip, Model
from infermix.cost.rent import CostBasis, Terms
from infermix.errors import InputError, NoAnswer
from infermix.explore.prices import NO_TERMS, UNKNOWN, NoPrice, Price, price_of
from infermix.perf import figures
from infermix.perf.operating import Load, Points
from infermix.perf.sweep import (
    REASONS,
    Progress,
    Refusal,
    Row,
    Wish,
    best,
    curves,
    sweep_everything,
    systems_by_chip,
    usual_system,
)

Sort = Literal["usd", "speed", "ttft", "throughput", "chip"]
SORTS: tuple[Sort, ...] = ("usd", "speed", "ttft", "throughput", "chip")
TOO_SLOW = "too_slow"
WHY_NOT = {**REASONS, TOO_SLOW: "slower than asked"}
"""Kinds of reasons why a chip is not in the table."""


class ChipRow(Row, kw_only=True, omit_defaults=True):
    """An operating point with what it costs, or the reason why there is none."""

    vendor: str = ""
    kind: str = ""
    """Kind of chip: ``hbm``, ``sram``, ``gddr``, ``lpddr``, ``other``."""
    fastest_tokens_per_s_user: float | None = None
    """At the chip's fastest point, whatever it costs."""
    tokens_per_s_chip: float | None = None
    """Output of the batch while it decodes, for each chip [tokens/s]."""
    usd_per_hour: float | None = None
    """Of the instance: its share of the whole systems that it takes."""
    usd_per_mtok_output: float | None = None
    """All of the cost laid on output tokens, the reading of prompts included."""
    usd_per_mtok: float | None = None
    """The same cost laid on input and output tokens alike."""
    price_basis: str = ""
    price_read: str = ""
    no_price: str = ""
    """Why there is no price, where there is none."""
    no_price_mend: str = ""


class FrontPoint(msgspec.Struct, kw_only=True):
    """A point than which none is both faster for each user and cheaper."""

    chip: str
    kind: str
    layout: str
    batch: int
    tokens_per_s_user: float
    usd_per_mtok_output: float


class Chips(msgspec.Struct, kw_only=True):
    """Every chip for one model."""

    model: str
    sort: Sort
    basis: CostBasis
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    at_least_tokens_per_s_user: float
    rows: list[ChipRow]
    """One a chip, in the order asked for; those without a price last where that is the order."""
    cannot: list[ChipRow]
    """Chips without an answer, each with its reason."""
    front: list[FrontPoint]
    """From the cheapest point to the fastest, over every chip with a price."""
    by_chip: dict[str, list[FrontPoint]]
    """The same within each chip."""
    figures: list[str]
    """Ids of the catalogue figures that the table hangs on."""


def compare(
    catalog: Catalog,
    model: Model,
    wish: Wish,
    *,
    sort: Sort = "usd",
    basis: CostBasis = "rent",
    terms: Terms = NO_TERMS,
    chips: Iterable[str] | None = None,
) -> Chips:
    """Every chip that runs a model at the point that the order is about: its fastest, else its cheapest.

    Raises
    ------
    InputError
        The request is longer than the model's context, or the model has no layers for the speculation asked for.
    """
    _check(model, wish)
    systems, lines = systems_by_chip(catalog), {}
    rows: list[ChipRow] = []
    ids: list[str] = []
    for chip in (catalog.chips[id_] for id_ in (catalog.chips if chips is None else chips)):
        system = usual_system(catalog, chip, systems.get(chip.id, []))
        price = price_of(catalog, system, basis, terms) if system is not None else UNKNOWN
        found = curves(catalog, chip, system, model, wish)
        row = _telling_row(chip, model, found, wish, sort)
        rows.append(told := priced(row, chip, price, wish.load))
        if isinstance(found, Refusal) or row.reason:
            continue
        told.fastest_tokens_per_s_user = max(1.0 / float(curve.tpot_s.min()) for curve in found)
        ids += _figures(catalog, row, price)
        if isinstance(price, Price):
            lines[chip.id] = front_of(_points(chip, price, found))
    return Chips(
        model=model.id,
        sort=sort,
        basis=basis,
        input_tokens=wish.load.input_tokens,
        output_tokens=wish.load.output_tokens,
        cached_tokens=wish.load.cached_tokens,
        at_least_tokens_per_s_user=wish.least_tokens_per_s_user,
        rows=sorted((r for r in rows if not r.reason), key=lambda r: _order(r, sort)),
        cannot=[r for r in rows if r.reason],
        front=front_of(point for line in lines.values() for point in line),
        by_chip=lines,
        figures=figures.with_roots(catalog, [*ids, *figures.of_model(model)]),
    )


def everything(
    catalog: Catalog,
    wish: Wish,
    done: Progress,
    *,
    basis: CostBasis = "rent",
    terms: Terms = NO_TERMS,
    chips: list[str] | None = None,
    models: list[str] | None = None,
) -> tuple[list[ChipRow], list[str]]:
    """(every chip of the packaged catalogue with every model, ids of the figures that the numbers hang on)."""
    rows = sweep_everything(chips or list(catalog.chips), models or list(catalog.models), wish, done)
    systems = {id_: catalog.systems[id_] for id_ in {row.system for row in rows if row.system}}
    prices = {id_: price_of(catalog, system, basis, terms) for id_, system in systems.items()}
    told = [priced(row, catalog.chips[row.chip], prices.get(row.system, UNKNOWN), wish.load) for row in rows]
    alike = {
        (r.chip, r.weights, r.chips, r.layout, catalog.models[r.model].experts > 0): r for r in rows if not r.reason
    }
    ids = dict.fromkeys(id_ for r in alike.values() for id_ in _figures(catalog, r, prices[r.system]))
    of_models = [id_ for m in {r.model for r in rows if not r.reason} for id_ in figures.of_model(catalog.models[m])]
    return told, sorted(figures.with_roots(catalog, [*ids, *of_models]))


def priced(row: Row, chip: Chip, price: Price | NoPrice, load: Load) -> ChipRow:
    """A row with its price, or with why it has none."""
    told = ChipRow(**msgspec.structs.asdict(row), vendor=chip.vendor, kind=chip.kind)
    if row.reason or row.chip_s_per_mtok_output is None or row.tokens_per_s is None:
        return told
    told.tokens_per_s_chip = row.tokens_per_s / row.chips
    if isinstance(price, NoPrice):
        told.no_price, told.no_price_mend = price.reason, price.mend
        return told
    told.usd_per_hour = price.of_instance(row.chips)
    told.usd_per_mtok_output = row.chip_s_per_mtok_output * price.usd_per_chip_s
    told.usd_per_mtok = told.usd_per_mtok_output * load.output_tokens / (load.input_tokens + load.output_tokens)
    told.price_basis, told.price_read = price.basis, price.read
    return told


def front_of(points: Iterable[FrontPoint]) -> list[FrontPoint]:
    """Those than which none is both faster and cheaper, cheapest first."""
    kept: list[FrontPoint] = []
    for point in sorted(points, key=lambda p: (p.usd_per_mtok_output, -p.tokens_per_s_user)):
        if not kept or point.tokens_per_s_user > kept[-1].tokens_per_s_user:
            kept.append(point)
    return kept


def _points(chip: Chip, price: Price, found: list[Points]) -> Iterator[FrontPoint]:
    for curve in found:
        for batch, tpot_s, cost in zip(curve.batch, curve.tpot_s, curve.chip_s_per_mtok, strict=True):
            yield FrontPoint(
                chip=chip.id,
                kind=chip.kind,
                layout=curve.deployment.layout,
                batch=int(batch),
                tokens_per_s_user=1.0 / float(tpot_s),
                usd_per_mtok_output=float(cost) * price.usd_per_chip_s,
            )


def _check(model: Model, wish: Wish) -> None:
    need = wish.load.input_tokens + wish.load.output_tokens
    if need > model.max_context:
        raise NoAnswer(f"a request of {need:,} tokens exceeds the {model.max_context:,} of {model.id}'s context")
    if wish.spec and wish.spec.method == "mtp" and not model.mtp_layers:
        allowed = "eagle or ngram, or a model trained to predict further tokens"
        raise InputError("the model has no layers for multi-token prediction", where=model.id, allowed=allowed)


def _telling_row(chip: Chip, model: Model, found: list[Points] | Refusal, wish: Wish, sort: Sort) -> Row:
    """The point that the order is about, or why there is none."""
    if isinstance(found, Refusal):
        return Row(chip=chip.id, model=model.id, reason=found.text, reason_kind=found.kind)
    rows = {row.best_for: row for row in best(found, wish.least_tokens_per_s_user)}
    fastest = rows["speed"]
    if "cost" not in rows:
        said = f"{fastest.tokens_per_s_user or 0.0:,.4g} tokens/s of one user at most"
        return Row(chip=chip.id, model=model.id, system=fastest.system, reason=said, reason_kind=TOO_SLOW)
    return fastest if sort in ("speed", "ttft") else rows["cost"]


def _order(row: ChipRow, sort: Sort) -> tuple[float, float, str]:
    speed = row.tokens_per_s_user or 0.0
    first = {
        "usd": math.inf if row.usd_per_mtok_output is None else row.usd_per_mtok_output,
        "speed": -speed,
        "ttft": row.ttft_s or 0.0,
        "throughput": -(row.tokens_per_s_chip or 0.0),
        "chip": 0.0,
    }[sort]
    return first, 0.0 if sort == "chip" else -speed, row.chip


def _figures(catalog: Catalog, row: Row, price: Price | NoPrice) -> list[str]:
    chip, system, model = catalog.chips[row.chip], catalog.systems[row.system], catalog.models[row.model]
    found = figures.of_chip(chip, catalog.efficiencies[chip.efficiency], system, model, row.weights, row.chips)
    if "pp" in row.layout and chip.hop_s is not None:
        found.append(f"chips/{chip.id}/hop_s")
    return found + (list(price.figures) if isinstance(price, Price) else [])

"""One model on one system: how fast, where the time goes, what would help, what it costs."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from infermix.catalog.load import Catalog, UnknownName
from infermix.catalog.query import find_chip, find_system
from infermix.catalog.records import Model, System
from infermix.cost.rent import CostBasis, Terms
from infermix.errors import NoAnswer, near_miss
from infermix.explore.prices import NO_TERMS, NoPrice, Price, price_of
from infermix.fleet import PoolRow, make_deployment
from infermix.perf import figures
from infermix.perf.deployment import MAX_NUM_SEQS, Deployment, check_deployment
from infermix.perf.idle import ttft_s
from infermix.perf.layouts import telling
from infermix.perf.levers import Lever, levers
from infermix.perf.operating import BATCHES, Load, for_groups, points
from infermix.perf.predict import Prediction, predict
from infermix.perf.specdec import Speculation
from infermix.perf.stack import find_stack, with_stack
from infermix.perf.sweep import Wish, a_deployment, systems_by_chip, usual_system
from infermix.perf.table import missing_figures


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of one model on one system; degrees left out are chosen."""

    load: Load
    batch: int = 1
    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    dp: int | None = None
    stages: int | None = None
    weights: str | None = None
    kv: str = "bf16"
    spec: Speculation | None = None
    stack: str = "tuned"
    """Serving engine of some date."""

    @property
    def laid_out(self) -> bool:
        """Whether a degree of parallelism was stated."""
        return any(n is not None for n in (self.tp, self.pp, self.ep, self.dp, self.stages))


class Cost(msgspec.Struct, kw_only=True):
    """What tokens cost at an operating point."""

    usd_per_hour: float
    """Of the instance: its share of the whole systems that it takes."""
    usd_per_mtok_output: float
    """All of the cost laid on output tokens, the reading of prompts included."""
    usd_per_mtok: float
    """The same cost laid on input and output tokens alike."""
    low: dict[str, float]
    """The two at the low end of the speed interval, where they cost most."""
    high: dict[str, float]
    system: str
    system_usd_per_hour: float
    price_basis: str
    price_read: str


class Point(msgspec.Struct, kw_only=True):
    """A batch of the same deployment."""

    batch: int
    tpot_s: float
    tokens_per_s: float
    tokens_per_s_user: float
    chip_s_per_mtok_output: float


class Answer(msgspec.Struct, kw_only=True):
    """Everything told about one model on one system."""

    deployment: Deployment
    chosen_of: list[str]
    """Layouts that were compared; empty where the layout was stated."""
    note: str
    """How the name that was asked for was understood; empty where it is a system's."""
    prediction: Prediction
    levers: list[Lever]
    points: list[Point]
    cost: Cost | None
    no_price: str
    figures: list[str]


def find_place(catalog: Catalog, name: str) -> tuple[System, str]:
    """The system of this name, or the usual one of the chip of this name and words that say so.

    Raises
    ------
    NoAnswer
        The chip is in no system, or no speed can be told for it.
    UnknownName
        Neither a system nor a chip.
    """
    try:
        return find_system(name, catalog), ""
    except UnknownName:
        pass
    try:
        chip = find_chip(name, catalog)
    except UnknownName:
        mend = near_miss(name, [*catalog.systems, *catalog.chips]) or "see `infermix catalog list systems`"
        raise UnknownName("unknown system", value=name, mend=mend) from None
    system = usual_system(catalog, chip, systems_by_chip(catalog).get(chip.id, []))
    if chip.no_speed:
        raise NoAnswer(f"{chip.id}: {chip.no_speed}")
    if system is None:
        raise NoAnswer(f"{chip.id}: no system with this chip is known")
    return system, f"{name} is a chip; taken in its usual system, {system.id}"


def choose(catalog: Catalog, system: System, model: Model, ask: Ask) -> tuple[Deployment, list[str]]:
    """The deployment asked for, and the layouts that were compared where none was stated.

    Of layouts that hold the batch the one with the least time per token, the fewest chips where two are alike; of
    SRAM machines the fewest in line.
    """
    chip = catalog.chips[system.chip]
    if chip.no_speed:
        raise NoAnswer(f"{chip.id}: {chip.no_speed}")
    if not chip.efficiency:
        raise NoAnswer(f"{chip.id}: no family tells what this chip reaches of its peaks")
    if ask.laid_out:
        return _stated(catalog, system, model, ask), []
    base = _ready(a_deployment(catalog, system, model, Wish(load=ask.load, kv=ask.kv, weights=ask.weights or "")), ask)
    check_deployment(base)
    found = telling(base)
    able = [(d, told) for d in found if (told := speed(d, ask)).fits]
    if not able:
        return found[-1] if found else _stated(catalog, system, model, ask), []
    best = able[0] if base.is_pipeline else min(able, key=lambda x: (x[1].tpot_s, x[0].chips))
    return best[0], [d.layout for d, _ in able]


def _stated(catalog: Catalog, system: System, model: Model, ask: Ask) -> Deployment:
    row = PoolRow(
        system=system.id,
        instances=1,
        tp=ask.tp,
        pp=ask.pp,
        ep=ask.ep,
        dp=ask.dp,
        stages=ask.stages,
        weights=ask.weights,
        kv=ask.kv,
    )
    return _ready(make_deployment(catalog, row, model.id, "perf"), ask)


def _ready(d: Deployment, ask: Ask) -> Deployment:
    return msgspec.structs.replace(d, spec=ask.spec, max_num_seqs=max(MAX_NUM_SEQS, ask.batch))


def speed(d: Deployment, ask: Ask) -> Prediction:
    """Speeds at the batch asked for; every DP group has room for its sequences and a chunk, a lone prompt fills one."""
    load = ask.load
    found = predict(
        for_groups(d),
        batch=ask.batch,
        input_tokens=load.input_tokens,
        output_tokens=load.output_tokens,
        cached_tokens=load.cached_tokens,
    )
    if not found.fits or d.dp == 1:
        return found
    first = ttft_s(d, load.input_tokens, load.cached_tokens)
    ends = [{**end, "ttft_s": end["ttft_s"] * first / found.ttft_s} for end in (found.low, found.high)]
    return msgspec.structs.replace(found, ttft_s=first, low=ends[0], high=ends[1])


def answer(
    catalog: Catalog, place: str, model: Model, ask: Ask, *, basis: CostBasis = "rent", terms: Terms = NO_TERMS
) -> Answer:
    """Everything told about one model on the system (or chip) of this name.

    Raises
    ------
    InputError
        Unknown name, or degrees and dtypes that do not go with the machine.
    NoAnswer
        No speed can be told for the chip. A model or batch that does not fit is an answer, ``fits`` is false.
    """
    system, note = find_place(catalog, place)
    load = ask.load
    if (need := load.input_tokens + load.output_tokens) > model.max_context:
        raise NoAnswer(f"a request of {need:,} tokens exceeds the {model.max_context:,} of {model.id}'s context")
    d, compared = choose(catalog, system, model, ask)
    d = with_stack(d, find_stack(catalog, ask.stack, d))
    now = speed(d, ask)
    price = price_of(catalog, system, basis, terms)
    found = Answer(
        deployment=d,
        chosen_of=compared,
        note=note,
        prediction=now,
        levers=[],
        points=[],
        cost=None,
        no_price=price.reason if isinstance(price, NoPrice) else "",
        figures=figures.of_deployment(d),
    )
    if now.fits:
        found.levers = levers(
            for_groups(d),
            now,
            batch=ask.batch,
            input_tokens=load.input_tokens,
            output_tokens=load.output_tokens,
            cached_tokens=load.cached_tokens,
        )
        found.points = operating_points(d, ask)
        if isinstance(price, Price):
            found.cost = _cost(d, ask, now, price)
            found.figures += price.figures
    found.figures = figures.with_roots(catalog, found.figures)
    return found


def operating_points(d: Deployment, ask: Ask) -> list[Point]:
    """The deployment at the batches that fit, the one asked for among them."""
    curve = points(d, ask.load, np.unique(np.append(BATCHES, float(ask.batch))))
    if curve is None:
        return []
    columns = zip(curve.batch, curve.tpot_s, curve.tokens_per_s, curve.chip_s_per_mtok, strict=True)
    return [
        Point(
            batch=int(batch),
            tpot_s=float(tpot),
            tokens_per_s=float(rate),
            tokens_per_s_user=1.0 / float(tpot),
            chip_s_per_mtok_output=float(cost),
        )
        for batch, tpot, rate, cost in columns
    ]


def other_layouts(d: Deployment, ask: Ask) -> list[tuple[Deployment, list[Point]]]:
    """The other layouts worth asking about, each at the batches that fit."""
    others = [x for x in telling(d) if x.layout != d.layout and not missing_figures(x)]
    return [(x, found) for x in others if (found := operating_points(x, ask))]


def _cost(d: Deployment, ask: Ask, now: Prediction, price: Price) -> Cost | None:
    curve = points(d, ask.load, np.array([float(ask.batch)]))
    if curve is None:
        return None
    load = ask.load
    share = load.output_tokens / (load.input_tokens + load.output_tokens)
    output = float(curve.chip_s_per_mtok[0]) * price.usd_per_chip_s
    slow, fast = now.low["tokens_per_s"] / now.tokens_per_s, now.high["tokens_per_s"] / now.tokens_per_s

    def at(factor: float) -> dict[str, float]:
        return {"usd_per_mtok_output": output / factor, "usd_per_mtok": share * output / factor}

    return Cost(
        usd_per_hour=price.of_instance(d.chips),
        **at(1.0),
        low=at(slow),
        high=at(fast),
        system=price.system,
        system_usd_per_hour=price.usd_per_hour,
        price_basis=price.basis,
        price_read=price.read,
    )


def record(found: Answer, ask: Ask) -> dict[str, Any]:
    """The answer as plain values, as the JSON of ``infermix perf`` has it."""
    d, load = found.deployment, ask.load
    degrees = {"stages": d.stages} if d.is_pipeline else {"tp": d.tp, "pp": d.pp, "ep": d.ep, "dp": d.dp}
    told: dict[str, Any] = {
        "model": d.model.id,
        "system": d.system.id,
        "chip": d.chip.id,
        "layout": d.layout,
        **degrees,
        "weights": d.weights,
        "kv": d.kv,
        "spec": str(d.spec) if d.spec else "",
        "batch": ask.batch,
        "input_tokens": load.input_tokens,
        "output_tokens": load.output_tokens,
        "cached_tokens": load.cached_tokens,
        "chosen_of": found.chosen_of,
        "note": found.note,
        "levers": msgspec.to_builtins(found.levers),
        "points": msgspec.to_builtins(found.points),
        "figures": found.figures,
        **msgspec.to_builtins(found.prediction),
    }
    if found.cost is not None:
        return {**told, "cost": msgspec.to_builtins(found.cost)}
    return {**told, "no_price": found.no_price}

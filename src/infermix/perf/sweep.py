"""Every chip with every model: the fastest and the cheapest operating point of each pair, or why there is none."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed

import msgspec
import numpy as np

from infermix.catalog.load import Catalog
from infermix.catalog.load import catalog as packaged
from infermix.catalog.records import Chip, Model, System
from infermix.errors import InfermixError
from infermix.perf.deployment import Deployment, best_weights, check_deployment
from infermix.perf.layouts import fitting, telling
from infermix.perf.memory import kv_tokens_left
from infermix.perf.operating import Load, Points, points
from infermix.perf.predict import confidence
from infermix.perf.specdec import Speculation
from infermix.perf.table import missing_figures, speed_interval

MOST_CHIPS = 72
"""Of a chip's systems the largest with at most so many chips stands for it; SRAM machines by their smallest."""

WORTH_PROCESSES = 1000
"""Pairs from which on starting further processes pays."""

Progress = Callable[[int, int], None]


class Row(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One chip with one model at one operating point, or the reason why there is none."""

    chip: str
    model: str
    system: str = ""
    best_for: str = ""
    """``speed`` (least time per token) or ``cost`` (least chip time per token)."""
    layout: str = ""
    chips: int = 0
    weights: str = ""
    kv: str = ""
    batch: int = 0
    ttft_s: float | None = None
    tpot_s: float | None = None
    tokens_per_s: float | None = None
    tokens_per_s_user: float | None = None
    tokens_per_s_user_low: float | None = None
    tokens_per_s_user_high: float | None = None
    chip_s_per_mtok_output: float | None = None
    kv_tokens_left: int | None = None
    bound: str = ""
    confidence: str = ""
    reason: str = ""
    reason_kind: str = ""
    """One of ``REASONS``."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a chip has no operating point: one of ``REASONS``, and a sentence."""

    kind: str
    text: str


REASONS = {
    "no_speed": "no speed of a language model can be told",
    "no_system": "no system with the chip is known",
    "figures": "the catalogue lacks figures",
    "wired": "wired for another model",
    "context": "the request is longer than the model's context",
    "memory": "the model does not fit",
    "room": "the model fits, the request does not",
    "input": "the options do not go with the chip or the model",
}
"""Kinds of reasons why there is no speed."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of every pair."""

    load: Load
    kv: str = "bf16"
    weights: str = ""
    spec: Speculation | None = None
    least_tokens_per_s_user: float = 0.0
    """The cheapest point must be at least this fast for each user."""


def sweep(catalog: Catalog, chips: Iterable[Chip], models: Iterable[Model], wish: Wish) -> Iterator[Row]:
    """Rows of every pair, chips outermost."""
    known = list(models)
    systems = systems_by_chip(catalog)
    for chip in chips:
        standing = usual_system(catalog, chip, systems.get(chip.id, []))
        for model in known:
            yield from pair(catalog, chip, standing, model, wish)


def sweep_everything(chips: list[str], models: list[str], wish: Wish, done: Progress) -> list[Row]:
    """Rows of every pair of these chips and models of the packaged catalogue, on all cores.

    ``done(n, of)`` is called as chips are finished.
    """
    workers = min(len(chips), os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count() or 1)
    if workers < 2 or len(chips) * len(models) < WORTH_PROCESSES:
        rows: list[Row] = []
        for n, chip in enumerate(chips, 1):
            rows += _of_chip(chip, models, wish)
            done(n, len(chips))
        return rows
    by_chip: dict[str, list[Row]] = {}
    # fresh processes: forking beside threads (of a progress bar, say) can hang
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = {pool.submit(_of_chip, chip, models, wish): chip for chip in chips}
        for n, future in enumerate(as_completed(waiting), 1):
            by_chip[waiting[future]] = future.result()
            done(n, len(chips))
    return [row for chip in chips for row in by_chip[chip]]


def _of_chip(chip: str, models: list[str], wish: Wish) -> list[Row]:
    facts = packaged()
    return list(sweep(facts, [facts.chips[chip]], [facts.models[id_] for id_ in models], wish))


def systems_by_chip(catalog: Catalog) -> dict[str, list[System]]:
    """Systems of each chip."""
    found: dict[str, list[System]] = {}
    for system in catalog.systems.values():
        found.setdefault(system.chip, []).append(system)
    return found


def usual_system(catalog: Catalog, chip: Chip, systems: list[System]) -> System | None:
    """The system that stands for a chip; None where it is in none.

    Those with a price come first, then the largest of at most ``MOST_CHIPS`` chips.
    """
    if not systems:
        return None
    pipeline = chip.efficiency and catalog.efficiencies[chip.efficiency].machine == "pipeline"

    def rank(system: System) -> tuple[bool, bool, int]:
        priced = system.rent_usd_per_hour or system.capital_usd or system.operator_cost_usd_per_hour
        size = -system.chips if pipeline else system.chips
        return priced is not None, system.chips <= MOST_CHIPS, size if system.chips <= MOST_CHIPS else -system.chips

    return max(systems, key=rank)


def pair(catalog: Catalog, chip: Chip, system: System | None, model: Model, wish: Wish) -> Iterator[Row]:
    """The fastest and the cheapest point of one chip with one model, or one row with the reason."""
    found = curves(catalog, chip, system, model, wish)
    if isinstance(found, Refusal):
        place = system.id if system else ""
        yield Row(chip=chip.id, model=model.id, system=place, reason=found.text, reason_kind=found.kind)
        return
    yield from best(found, wish.least_tokens_per_s_user)


def best(found: list[Points], least_tokens_per_s_user: float = 0.0) -> Iterator[Row]:
    """The fastest of these points, and the cheapest where one is fast enough."""
    fastest = min(((c, int(np.argmin(c.tpot_s))) for c in found), key=lambda x: x[0].tpot_s[x[1]])
    yield _row(*fastest, "speed")
    cheapest = [(c, i) for c in found if (i := _cheapest(c, least_tokens_per_s_user)) is not None]
    if cheapest:
        yield _row(*min(cheapest, key=lambda x: x[0].chip_s_per_mtok[x[1]]), "cost")


def _cheapest(curve: Points, least_tokens_per_s_user: float) -> int | None:
    """Index of the point with least chip time that is fast enough."""
    able = 1.0 / curve.tpot_s >= least_tokens_per_s_user
    return int(np.argmin(np.where(able, curve.chip_s_per_mtok, np.inf))) if able.any() else None


def curves(catalog: Catalog, chip: Chip, system: System | None, model: Model, wish: Wish) -> list[Points] | Refusal:
    """Operating points of every layout that holds a request, or why none does."""
    load = wish.load
    if chip.no_speed:
        return Refusal("no_speed", chip.no_speed)
    if not chip.efficiency:
        return Refusal("figures", "no family tells what this chip reaches of its peaks")
    if system is None:
        return Refusal("no_system", "no system with this chip is known")
    if load.input_tokens + load.output_tokens > model.max_context:
        return Refusal("context", f"the request exceeds the model's context of {model.max_context:,} tokens")
    base = a_deployment(catalog, system, model, wish)
    try:
        check_deployment(base)
    except InfermixError as fault:
        return Refusal("wired" if chip.only_models else "input", str(fault))
    if missing := missing_figures(base):
        return Refusal("figures", f"no step time, the catalogue lacks {', '.join(missing)}")
    held = telling(base)
    found = [curve for d in held if not missing_figures(d) and (curve := points(d, load)) is not None]
    return found or _too_large(base, load, fitting(base) if held else [])


def a_deployment(catalog: Catalog, system: System, model: Model, wish: Wish) -> Deployment:
    """The model on one chip of a system, or on one system in line where the weights live in SRAM."""
    chip = catalog.chips[system.chip]
    efficiency = catalog.efficiencies[chip.efficiency]
    return Deployment(
        model=model,
        system=system,
        chip=chip,
        efficiency=efficiency,
        stages=1 if efficiency.machine == "pipeline" else 0,
        weights=wish.weights or best_weights(model, chip, efficiency),
        kv=wish.kv,
        spec=wish.spec,
    )


def _too_large(base: Deployment, load: Load, held: list[Deployment]) -> Refusal:
    need, d = load.input_tokens + load.output_tokens, base
    if held:
        left = max(kv_tokens_left(x) for x in held)
        return Refusal("room", f"a request of {need:,} tokens exceeds the {left:,} KV tokens left on {d.system.id}")
    said = f"{d.model.id} in {d.weights} does not fit on {d.system.id}, nor on several in the layouts looked at"
    return Refusal("memory", said)


def _row(curve: Points, i: int, best_for: str) -> Row:
    d = curve.deployment
    low, high = speed_interval(d)
    speed = 1.0 / float(curve.tpot_s[i])
    return Row(
        chip=d.chip.id,
        model=d.model.id,
        system=d.system.id,
        best_for=best_for,
        layout=d.layout,
        chips=d.chips,
        weights=d.weights,
        kv=d.kv,
        batch=int(curve.batch[i]),
        ttft_s=curve.ttft_s,
        tpot_s=float(curve.tpot_s[i]),
        tokens_per_s=float(curve.tokens_per_s[i]),
        tokens_per_s_user=speed,
        tokens_per_s_user_low=low * speed,
        tokens_per_s_user_high=high * speed,
        chip_s_per_mtok_output=float(curve.chip_s_per_mtok[i]),
        kv_tokens_left=curve.kv_tokens_left,
        bound=curve.bound(i),
        confidence=confidence(d),
    )

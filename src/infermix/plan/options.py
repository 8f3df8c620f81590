"""Options: what could be bought, as the planner simulates it; found among the candidates of ``candidates``.

An option is a deployment at an *operating point*, its batch cap and chunk size. Options that cannot hold a class's
promise even alone and idle are not options for it, and say why.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.errors import NoAnswer
from infermix.perf.deployment import Deployment
from infermix.perf.measured import within_measured
from infermix.perf.table import StepTable, compile_table
from infermix.plan.candidates import (
    BATCH_CAPS,
    CHUNKS,
    Base,
    Bases,
    Missed,
    Point,
    Survey,
    excess,
    open_bases,
    room_of,
    seconds_at,
    survey,
)
from infermix.plan.offers import Offer
from infermix.plan.question import Demand, Question
from infermix.plan.queue_free import lines_of, steps_of

PREFILL_SEQS = 64
"""Prompts that a prefill instance may read at once, at least: there are no answers that they could hold up."""


@dataclass(frozen=True, eq=False)
class Option:
    """A deployment on the market; ``speed`` is where the promises must hold."""

    offer: Offer
    deployment: Deployment
    speed: str = "nominal"
    pair: str = ""
    """The pair of prefill and decode that it is a part of."""
    partner: Option | None = None
    """An option of the pair's other part, beside which it is simulated."""

    @cached_property
    def name(self) -> str:
        """Unique within a study."""
        where = f" in {self.offer.region}" if self.offer.region else ""
        where += f", {self.deployment.role} of {self.pair}" if self.pair else ""
        return f"{self.deployment.model.id} {self.deployment.name} chunk {self.deployment.max_batched_tokens}{where}"

    @cached_property
    def table(self) -> StepTable:
        """Step times at the speed where the promises must hold."""
        table = compile_table(self.deployment)
        return table.at_speed(table.low) if self.speed == "low" else table

    @property
    def usd_per_hour(self) -> float:
        """Price of one instance, shared systems in proportion [USD/h]."""
        return usd_per_hour(self.offer, self.deployment)

    @property
    def kind(self) -> str:
        """Kind of chip."""
        return self.offer.chip.kind

    @cached_property
    def point(self) -> Point:
        """Its operating point, as candidates are judged."""
        d = self.deployment
        return Point(np.array([float(d.max_num_seqs)]), np.array([float(d.max_batched_tokens)]))

    @cached_property
    def base(self) -> Base:
        """Itself, as candidates are judged."""
        d, point = self.deployment, self.point
        steps = steps_of(d, self.speed)
        room = room_of(d, point)
        return Base(self.offer, d, steps, lines_of(steps, point.caps, point.chunks), room, self.pair)


def usd_per_hour(offer: Offer, deployment: Deployment) -> float:
    """Price of one instance of a deployment, shared systems in proportion [USD/h]."""
    return offer.price.usd_per_hour * deployment.systems_per_instance / deployment.instances_per_system


@lru_cache(maxsize=65536)
def queue_free_capacity(option: Option, demand: Demand) -> float:
    """No instance serves more requests of a class a second within its promise: an optimistic bound [1/s]."""
    return 1.0 / float(seconds_at(option.base, demand, option.point).max())


@lru_cache(maxsize=65536)
def able(option: Option, demand: Demand) -> bool:
    """Whether an option is of the class's model and can hold its promise alone and idle."""
    if demand.model is not None and option.deployment.model.id != demand.model.id:
        return False
    return bool(excess(option.base, demand, option.point)[0, 0] <= 1.0) and queue_free_capacity(option, demand) > 0.0


class Kept(NamedTuple):
    """An option that no other one matches, with its queue-free rows: class → seconds of an instance a request."""

    option: Option
    rows: tuple[dict[str, float], ...]

    @property
    def capacity(self) -> dict[str, float]:
        """Class → what an instance serves of it alone [1/s]."""
        names = dict.fromkeys(name for row in self.rows for name in row)
        return {name: 1.0 / max(row.get(name, 0.0) for row in self.rows) for name in names}


@dataclass
class Options:
    """The options of a question: how many candidates were judged, those kept, and why others cannot serve."""

    bases: Bases
    candidates: int
    kept: list[Kept]
    reasons: dict[str, dict[str, str]]
    """Class → system → why it cannot serve the class."""
    bounds: dict[tuple[int, str], Floats]
    """(base, class) → [cap, chunk] queue-free capacities of those that can hold the promise alone."""


def find_options(question: Question, bases: Bases | None = None) -> Options:
    """Judge every candidate of the market.

    Raises
    ------
    NoAnswer
        A model that fits on no system, or a promise that no system can hold.
    """
    bases = bases or open_bases(question)
    if not bases.found:
        said = "; ".join(f"{k}: {v}" for k, v in bases.misfits.items())
        names = " or ".join(model.id for model in question.models)
        raise NoAnswer(f"{names} fits on no system of the market: {said}")
    found = survey(question, bases)
    kept = [_kept(question, *row) for row in found.kept]
    reasons = _reasons(question, bases, found)
    for demand in question.demands:
        if not servable(kept, demand.name):
            best = "; ".join(f"{k}: {v}" for k, v in reasons[demand.name].items())
            raise NoAnswer(f"no system on the market can hold the promise to {demand.name!r}: {best}")
    return Options(bases, bases.candidates, kept, reasons, found.bounds)


def _kept(question: Question, base: Base, cap: int, chunk: int, rows: Floats) -> Kept:
    option = option_at(question, base, cap, chunk)
    named = [dict(zip(question.class_names, row, strict=True)) for row in np.unique(rows, axis=0)]
    return Kept(option, tuple({name: float(s) for name, s in row.items() if np.isfinite(s)} for row in named))


def option_at(question: Question, base: Base, cap: int, chunk: int) -> Option:
    """The option of a base at one of ``BATCH_CAPS`` and one of ``CHUNKS``, by number."""
    seqs = BATCH_CAPS[cap] if base.deployment.role != "prefill" else max(PREFILL_SEQS, BATCH_CAPS[cap])
    d = msgspec.structs.replace(base.deployment, max_num_seqs=seqs, max_batched_tokens=CHUNKS[chunk])
    return Option(base.offer, within_measured(d), question.speed, base.pair)


def servable(kept: list[Kept], name: str) -> bool:
    """Whether some option may serve a class, or both parts of some pair."""
    mine = {(k.option.pair, k.option.deployment.role) for k in kept if name in k.capacity}
    return any(not pair or {(pair, "prefill"), (pair, "decode")} <= mine for pair, _ in mine)


def _reasons(question: Question, bases: Bases, found: Survey) -> dict[str, dict[str, str]]:
    reasons: dict[str, dict[str, str]] = {name: {} for name in question.class_names}
    for demand in question.demands:
        for offer in question.offers:
            missed = found.missed.get((offer.key, demand.name))
            if missed is not None:
                reasons[demand.name][offer.system.id] = _said(question, bases, missed, demand)
            elif (offer.key, demand.name) not in found.able:
                reasons[demand.name][offer.system.id] = f"{question.model_of(demand).id} does not fit"
    return reasons


def _said(question: Question, bases: Bases, missed: Missed, demand: Demand) -> str:
    refusal = refuse(option_at(question, bases.found[missed.base], missed.cap, missed.chunk), demand)
    return "it misses the promise even alone" if refusal is None else refusal.reason


class Refusal(NamedTuple):
    """Why an option cannot serve a class; refusals compare by how badly it misses."""

    excess: float
    reason: str


def refuse(option: Option, demand: Demand) -> Refusal | None:
    """Why an option cannot hold a class's promise even alone and idle; None when it may."""
    slo, table = demand.cls.slo, option.table
    inputs, cached, outputs = demand.some_lengths
    wanted, where = slo.attainment, _layout(option.deployment)
    room = table.blocks * table.block_tokens
    fitting = float((inputs + outputs - 1 <= room).mean())
    if fitting < wanted:
        return Refusal(1e6 - fitting, f"{where}: only {fitting:.0%} of requests fit into its {room:,} KV tokens")
    tpot = (table.decode_s[1] + table.per_seq_s + table.kv_s * (inputs + outputs / 2)) / table.tokens_per_step
    ttft = _idle_ttft_s(option, inputs, cached)
    ttft_promised = np.inf if slo.ttft_s is None else slo.ttft_s + slo.ttft_s_per_1k_uncached * (inputs - cached) / 1000
    checks = (
        ("TPOT", tpot / (slo.tpot_s or np.inf), slo.tpot_s or np.inf),
        ("TTFT", ttft / ttft_promised, slo.ttft_s or np.inf),
        ("E2E", (ttft + tpot * (outputs - 1)) / (slo.e2e_s or np.inf), slo.e2e_s or np.inf),
    )
    for name, ratio, promised in checks:
        over = float(np.quantile(ratio, wanted))
        if over > 1.0:
            return Refusal(over, f"{where}: {name} {_time(over * promised)} even alone, promised {_time(promised)}")
    return None


def _layout(deployment: Deployment) -> str:
    return f"{deployment.stages} in line" if deployment.is_pipeline else deployment.layout


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds < 0.1 else f"{seconds:.3g} s"


def _idle_ttft_s(option: Option, inputs: Floats, cached: Floats) -> Floats:
    """Time to first token on an idle instance, full chunks but the last [s]."""
    table, chunk = option.table, option.deployment.max_batched_tokens
    fresh = inputs - cached
    full, rest = np.floor(fresh / chunk), (fresh % chunk).astype(int)
    base = full * table.mixed_s[chunk] + np.where(rest > 0, table.mixed_s[rest], 0.0)
    pairs = fresh * cached + fresh * (fresh + 1) / 2
    return np.asarray(base + table.kv_s * inputs + table.pair_s * pairs + table.load_s * cached)

"""Candidates: every layout, dtype, speculation and operating point of every model on every system, judged as arrays.

A *base* is a deployment without its operating point; its step times are found once, and all pairs of a batch cap and a
chunk size are judged at once by their queue-free seconds a request (``queue_free``). No object is made for a candidate.

**Pruning.** Of each candidate two descriptions are kept, both in seconds of a whole system: *inner*, by class
the largest of all rows, and *outer*, a few rows. What it can serve lies between them: a mix of rates that keeps
``sum rate x inner <= 1`` keeps every row, and a mix that it can serve keeps each outer row. So where the inner
seconds of B are at most those of one outer row of A for every class, whatever A serves B serves, and on the same
system, hence at the same price, power, vendor, kind and supply: every fleet with A becomes one
with B in its place, and no optimum of the relaxation is lost. Replicas over several systems are
compared with those over as many, for whole replicas are bought. Where speed is worth money, B is as fast, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Bools, Floats, Ints
from infermix.catalog.records import Model
from infermix.errors import InfermixError
from infermix.perf import dataflow, roofline
from infermix.perf.deployment import (
    BLOCK_TOKENS,
    BYTES_PER_WEIGHT,
    Deployment,
    best_weights,
    can_keep_kv,
    check_deployment,
    narrowest_bits,
)
from infermix.perf.layouts import fitting
from infermix.perf.measured import measured_of
from infermix.perf.memory import kv_tokens_left_at
from infermix.perf.specdec import Speculation, read_speculation
from infermix.perf.table import missing_figures, speed_interval
from infermix.plan.offers import Offer
from infermix.plan.pairs import with_pairs
from infermix.plan.question import Demand, Question
from infermix.plan.queue_free import TOKENS, Lines, Steps, lines_of, seconds_by_row, steps_of

CHUNKS = (512, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
BATCH_CAPS = (2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)


@dataclass(frozen=True, eq=False)
class Point:
    """Operating points: every pair of a batch cap and a chunk size."""

    caps: Floats
    chunks: Floats


ALL = Point(np.array(BATCH_CAPS, dtype=np.float64), np.array(CHUNKS, dtype=np.float64))
Numbers = np.ndarray[tuple[int], np.dtype[np.intp]]


@dataclass(frozen=True, eq=False)
class Base:
    """A deployment without its operating point: step times, lines below them, and room by [cap, chunk]."""

    offer: Offer
    deployment: Deployment
    steps: Steps
    lines: Lines
    kv_tokens: Floats
    pair: str = ""
    """The pair that it is a part of; its deployment then has a role."""


class Group(NamedTuple):
    """Candidates of one system, model and number of systems a replica; rows are candidates.

    ``inner`` [candidate, class] and ``outer`` [candidate, row, class] in seconds of a whole system, ``inf`` where the
    class cannot be served; ``base``, ``cap`` and ``chunk`` say which they are.
    """

    inner: Floats
    outer: Floats
    base: Ints
    cap: Ints
    chunk: Ints


@dataclass
class Bases:
    """Bases of a question, how many candidates they stand for, and why systems have none."""

    found: list[Base]
    candidates: int
    misfits: dict[str, str] = field(default_factory=dict)
    unpaired: dict[str, str] = field(default_factory=dict)
    """Pair → why it cannot be had."""


class Missed(NamedTuple):
    """The mildest refusal of a class on a system so far."""

    excess: float
    base: int
    cap: int
    chunk: int


@dataclass
class Survey:
    """What is left of a market's candidates for the classes of a question."""

    kept: list[tuple[Base, int, int, Floats]]
    """(base, cap, chunk, outer rows [row, class] in seconds of an instance)."""
    missed: dict[tuple[str, str], Missed]
    """(offer, class) → the mildest refusal, where no candidate of the offer may serve the class."""
    able: set[tuple[str, str]] = field(default_factory=set)
    """(offer, class) that some candidate may serve."""
    bounds: dict[tuple[int, str], Floats] = field(default_factory=dict)
    """(base, class) → [cap, chunk] queue-free capacities, 0 where the promise cannot be kept even alone.

    Bases that can hold it at no operating point are left out.
    """


def open_bases(question: Question) -> Bases:
    """All bases of a question, with their step times at the speed where promises must hold."""
    bases = Bases([], 0)
    for offer in question.offers:
        before, reason = len(bases.found), ""
        for model in question.models:
            try:
                bases.found += _bases(question, offer, model)
            except InfermixError as fault:
                reason = reason or str(fault)
        if len(bases.found) == before:
            names = " or ".join(model.id for model in question.models)
            bases.misfits[offer.system.id] = reason or f"{names} does not fit"
    paired, bases.unpaired = with_pairs(question, bases.found)
    bases.found += paired
    bases.candidates = len(bases.found) * len(BATCH_CAPS) * len(CHUNKS)
    return bases


def _bases(question: Question, offer: Offer, model: Model) -> Iterator[Base]:
    if not offer.chip.efficiency:
        return
    stated, efficiency = question.study.market, question.catalog.efficiencies[offer.chip.efficiency]
    kvs = [k for k in (stated.kv if stated else ["bf16"]) if can_keep_kv(offer.chip, k)]
    first = Deployment(
        model=model,
        system=offer.system,
        chip=offer.chip,
        efficiency=efficiency,
        stages=1 if efficiency.machine == "pipeline" else 0,
        max_num_seqs=BATCH_CAPS[0],
        max_batched_tokens=CHUNKS[0],
        weights=best_weights(model, offer.chip, efficiency),
        kv=kvs[0],
    )
    check_deployment(first)
    for weights in _weights(question, first):
        for layout in _layouts(msgspec.structs.replace(first, weights=weights)):
            if missing_figures(layout):
                continue
            for spec in _speculations(question, model):
                yield from _timed(offer, msgspec.structs.replace(layout, spec=spec), kvs, question.speed)


def _weights(question: Question, first: Deployment) -> list[str]:
    """The model's own dtype or the next that the chip can keep, and those of the study that it can."""
    stated = question.study.market.weights if question.study.market else []
    bits = narrowest_bits(first.chip, first.efficiency)
    native = 8 * BYTES_PER_WEIGHT.get(first.model.native_weights, 2.0)
    fit = [
        w for w in stated if bits <= 8 * BYTES_PER_WEIGHT[w] <= max(native, bits, 8 * BYTES_PER_WEIGHT[first.weights])
    ]
    return list(dict.fromkeys([first.weights, *fit]))


def _layouts(first: Deployment) -> list[Deployment]:
    """Layouts that hold the model; sequences of their own for each chip only where latents would be copied else."""
    latent = first.model.mla_kv_lora is not None
    return [d for d in fitting(first) if latent or d.dp == 1] or [first]


def _speculations(question: Question, model: Model) -> list[Speculation | None]:
    stated = question.study.market.spec if question.study.market else []
    read = [read_speculation(text, f"{question.study.path}: market.spec") for text in stated]
    return [None, *(spec for spec in read if spec.method != "mtp" or model.mtp_layers)]


def _timed(offer: Offer, d: Deployment, kvs: list[str], speed: str) -> Iterator[Base]:
    """A base for every KV dtype; they share the base times."""
    steps: Steps | None = None
    lines: Lines | None = None
    for kv in kvs:
        mine = msgspec.structs.replace(d, kv=kv)
        room = room_of(mine, ALL)
        if room.max() < BLOCK_TOKENS:
            continue
        if steps is None or lines is None:
            steps = steps_of(mine, speed)
            lines = lines_of(steps, ALL.caps, ALL.chunks)
            yield Base(offer, mine, steps, lines, room)
            continue
        if measured_of(mine) is not None:
            yield Base(offer, mine, steps, lines, room)
            continue
        slower = 1.0 / speed_interval(mine)[0] if speed == "low" else 1.0
        machine = dataflow if mine.is_pipeline else roofline
        other = replace(
            steps,
            kv_s=slower * machine.kv_s(mine),
            per_seq_s=0.0 if mine.is_pipeline else slower * roofline.per_seq_s(mine),
            load_s=slower * dataflow.load_s(mine) if mine.is_pipeline else 0.0,
        )
        yield Base(offer, mine, other, lines, room)


def room_of(d: Deployment, points: Point) -> Floats:
    """[cap, chunk] KV tokens of an instance, as measured where they were."""
    own = measured_of(d)
    if own is not None and own.kv_tokens is not None:
        return np.full((len(points.caps), len(points.chunks)), float(own.kv_tokens))
    return kv_tokens_left_at(d, points.caps[:, None], points.chunks[None, :])


def survey(question: Question, bases: Bases, *, prune: bool = True) -> Survey:
    """Judge all candidates of the systems on offer, and keep those that no other one matches."""
    offered = {offer.key for offer in question.offers}
    groups: dict[tuple[str, str, int, str, str], list[Group]] = {}
    found = Survey([], {})
    for b, base in enumerate(bases.found):
        if base.offer.key not in offered:
            continue
        group = _judged(question, base, b, found)
        if len(group.base):
            d = base.deployment
            key = (base.offer.key, d.model.id, d.systems_per_instance, d.role, base.pair)
            groups.setdefault(key, []).append(group)
    for parts in groups.values():
        group = Group(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))
        for i in np.flatnonzero(undominated(group.inner, group.outer)) if prune else range(len(group.base)):
            base = bases.found[group.base[i]]
            rows = group.outer[i, :, : len(question.demands)] * base.deployment.instances_per_system
            found.kept.append((base, int(group.cap[i]), int(group.chunk[i]), rows))
    alone = [(base, rows) for base, _, _, rows in found.kept if not base.pair]
    found.able = {(base.offer.key, name) for base, rows in alone for name in _served(question, rows)}
    found.missed = {key: missed for key, missed in found.missed.items() if key not in found.able}
    return found


def _served(question: Question, rows: Floats) -> list[str]:
    return [name for name, s in zip(question.class_names, rows.max(axis=0), strict=True) if np.isfinite(s)]


def seconds_at(base: Base, demand: Demand, points: Point) -> Floats:
    """[row, point] least seconds of an instance a request, by every line and row."""
    role = base.deployment.role
    rows = seconds_by_row(base.steps, base.lines, demand, points.caps, points.chunks, base.kv_tokens, role)
    return rows.reshape(-1, base.kv_tokens.size)


def _judged(question: Question, base: Base, b: int, found: Survey) -> Group:
    """All operating points of a base that can serve some class."""
    demands, model = question.demands, base.deployment.model.id
    seconds = np.full((len(demands), 4 * len(base.lines.a), base.kv_tokens.size), np.inf)
    for c, demand in enumerate(demands):
        if question.model_of(demand).id != model:
            continue
        over = excess(base, demand, ALL)
        able = (over <= 1.0).ravel()
        if able.any():
            seconds[c] = np.where(able, seconds_at(base, demand, ALL), np.inf)
            found.bounds[b, demand.name] = 1.0 / seconds[c].max(axis=0).reshape(over.shape)
        elif not base.pair:
            _remember(found.missed, (base.offer.key, demand.name), over, b)
    inner = seconds.max(axis=1)
    some = np.flatnonzero(np.isfinite(inner).any(axis=0))
    tight = np.argmax(seconds[:, :, some], axis=1)  # [class, candidate]: the row that binds each class
    outer = np.stack([_rows(seconds, inner, some, row) for row in tight], axis=1)
    each = base.deployment.instances_per_system
    cap, chunk = np.divmod(some, len(CHUNKS))
    group = Group(inner[:, some].T / each, outer / each, np.full(len(some), b), cap, chunk)
    return _with_speeds(group, question, base, some) if question.profits else group


def _with_speeds(group: Group, question: Question, base: Base, some: Numbers) -> Group:
    """Where speed is worth money, who beats another is as fast: times of users count like seconds of systems."""
    mine = [d for d in question.demands if question.model_of(d).id == base.deployment.model.id]
    times = np.stack([row[some] for demand in mine for row in _user_times_s(base, demand)], axis=1)
    rows = np.broadcast_to(times[:, None], (len(some), group.outer.shape[1], times.shape[1]))
    inner, outer = np.hstack([group.inner, times]), np.concatenate([group.outer, rows], axis=2)
    return group._replace(inner=inner, outer=outer)


def _user_times_s(base: Base, demand: Demand) -> tuple[Floats, Floats]:
    """[point] time to the first token and between tokens that a mean user sees where batches are full."""
    steps, (inputs, cached, outputs) = base.steps, (float(column.mean()) for column in demand.lengths)
    context, fresh = inputs + outputs / 2, inputs - cached
    batch = np.clip(np.minimum(ALL.caps[:, None], base.kv_tokens // max(context, 1.0)), 1.0, None)
    step = steps.decode_s[np.searchsorted(TOKENS, batch)] + batch * (steps.per_seq_s + steps.kv_s * context)
    mixed = np.append(steps.mixed_s, 0.0)
    full, rest = np.divmod(fresh, ALL.chunks)
    last = np.where(rest >= 1.0, np.searchsorted(TOKENS, rest, side="right") - 1, len(TOKENS))
    first = full * mixed[np.searchsorted(TOKENS, ALL.chunks)] + mixed[last]
    return np.broadcast_to(first, step.shape).ravel(), (step / steps.tokens_per_step).ravel()


def _rows(seconds: Floats, inner: Floats, some: Numbers, row: Numbers) -> Floats:
    """[candidate, class] seconds by one row of each candidate; ``inf`` for a class that cannot be served there."""
    return np.where(np.isfinite(inner[:, some].T), seconds[:, row, some].T, np.inf)


def _remember(missed: dict[tuple[str, str], Missed], key: tuple[str, str], over: Floats, b: int) -> None:
    at = int(np.argmin(over))
    mildest = Missed(float(over.flat[at]), b, *divmod(at, len(CHUNKS)))
    if key not in missed or mildest < missed[key]:
        missed[key] = mildest


def undominated(inner: Floats, outer: Floats) -> Bools:
    """Candidates that no other one matches for every class; of equals the first stays.

    Parameters
    ----------
    inner
        [candidate, class] largest seconds of all rows.
    outer
        [candidate, row, class] rows that bind it.
    """
    order = np.argsort(np.where(np.isfinite(inner), inner, 1e9).sum(axis=1), kind="stable")
    kept = np.zeros(len(inner), dtype=bool)
    left = np.ones(len(inner), dtype=bool)
    for i in order:
        if not left[i]:
            continue
        kept[i], left[i] = True, False
        rest = np.flatnonzero(left)
        beaten = (inner[i] <= outer[rest]).all(axis=2).any(axis=1)
        left[rest[beaten]] = False
        was = np.flatnonzero(kept)
        was = was[was != i]
        matched, beaten = inner[i] <= outer[was], inner[i] < outer[was]
        kept[was[(matched.all(axis=2) & beaten.any(axis=2)).any(axis=1)]] = False
    return kept


def excess(base: Base, demand: Demand, points: Point) -> Floats:
    """[cap, chunk] by how much a class's promise is missed even alone and idle: above 1 where it cannot be kept.

    Where it can, 1 stands for any value up to 1. A part of a pair keeps its part of the promise, its partner taking
    no time.
    """
    slo, steps, room, role = demand.cls.slo, base.steps, base.kv_tokens, base.deployment.role
    inputs, cached, outputs = demand.some_lengths
    fitting_share = np.searchsorted(_sorted_lengths(demand, role), room, side="right") / len(inputs)
    tpot = (steps.decode_s[0] + steps.per_seq_s + steps.kv_s * (inputs + outputs / 2)) / steps.tokens_per_step
    answer = tpot * float(role != "prefill")
    over = np.ones(len(points.chunks))
    if slo.tpot_s is not None and role != "prefill":
        over = np.maximum(over, _quantile(tpot[None, :] / slo.tpot_s, slo.attainment))
    if slo.ttft_s is not None or slo.e2e_s is not None:
        ttft = _idle_ttft_s(steps, prompts_of(demand, points)) * float(role != "decode")
        if slo.ttft_s is not None and role != "decode":
            promised = slo.ttft_s + slo.ttft_s_per_1k_uncached * (inputs - cached) / 1000
            over = np.maximum(over, _quantile(ttft / promised, slo.attainment))
        if slo.e2e_s is not None:
            over = np.maximum(over, _quantile((ttft + answer * (outputs - 1)) / slo.e2e_s, slo.attainment))
    return np.where(fitting_share < slo.attainment, 1e6 - fitting_share, np.broadcast_to(over, room.shape))


def _quantile(ratio: Floats, share: float) -> Floats:
    """[row] quantiles where they lie above 1, else 1."""
    at = int(share * (ratio.shape[1] - 1))
    return np.maximum(1.0, np.partition(ratio, at, axis=1)[:, at])


@lru_cache(maxsize=256)
def _sorted_lengths(demand: Demand, role: str) -> Floats:
    inputs, _, outputs = demand.some_lengths
    return np.sort(inputs if role == "prefill" else inputs + outputs - 1)


class Prompts(NamedTuple):
    """Prompts of a class cut into chunks, [chunk, request] or [request]."""

    full: Floats
    whole: Numbers
    """Point of the grid of a whole chunk."""
    last: np.ndarray[tuple[int, int], np.dtype[np.intp]]
    """Point of the grid of the last one, or past its end where there is none."""
    inputs: Floats
    pairs: Floats
    cached: Floats


@lru_cache(maxsize=1024)
def prompts_of(demand: Demand, points: Point) -> Prompts:
    """The prompts of some requests of a class, cut into chunks."""
    inputs, cached, _ = demand.some_lengths
    fresh = inputs - cached
    full, rest = np.divmod(fresh[None, :], points.chunks[:, None])
    last = np.where(rest > 0, np.searchsorted(TOKENS, rest, side="right") - 1, len(TOKENS))
    pairs = fresh * cached + fresh * (fresh + 1) / 2
    return Prompts(full, np.searchsorted(TOKENS, points.chunks), last, inputs, pairs, cached)


def _idle_ttft_s(steps: Steps, prompts: Prompts) -> Floats:
    """[chunk, request] time to first token on an idle instance, full chunks but the last [s]."""
    mixed = np.append(steps.mixed_s, 0.0)
    beside = steps.kv_s * prompts.inputs + steps.pair_s * prompts.pairs + steps.load_s * prompts.cached
    return np.asarray(prompts.full * mixed[prompts.whole][:, None] + mixed[prompts.last] + beside)

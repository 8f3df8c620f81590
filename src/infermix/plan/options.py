"""What could be bought: deployments of the model on every system, at several operating points.

An option is a deployment; its *operating point* is the batch cap and the chunk size. Options that
cannot hold a class's promise even alone and idle are not options for it, and say why.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats
from infermix.catalog.records import Model
from infermix.errors import InfermixError, NoAnswer
from infermix.perf.deployment import Deployment, best_weights, can_keep_kv
from infermix.perf.layouts import fitting
from infermix.perf.measured import all_within_measured
from infermix.perf.table import StepTable, compile_table
from infermix.plan.offers import Offer
from infermix.plan.question import Demand, Question

CHUNKS = (2048, 8192)
BATCH_CAPS = (8, 16, 32, 64, 128, 256)
KEPT = 1
KEPT_REPLICAS = 3
"""Options, and replica sizes, kept of each system for each class."""


@dataclass(frozen=True)
class Option:
    """A deployment on the market."""

    offer: Offer
    deployment: Deployment
    table: StepTable
    """At the speed where the promises must hold."""

    @property
    def name(self) -> str:
        """Unique within a study."""
        where = f" in {self.offer.region}" if self.offer.region else ""
        return f"{self.deployment.name} chunk {self.deployment.max_batched_tokens}{where}"

    @property
    def usd_per_hour(self) -> float:
        """Price of one instance, shared systems in proportion [USD/h]."""
        d = self.deployment
        return self.offer.price.usd_per_hour * d.systems_per_instance / d.instances_per_system

    @property
    def kind(self) -> str:
        """Kind of chip."""
        return self.offer.chip.kind


@dataclass(frozen=True)
class Work:
    """Mean work of a class's request, counted in the terms of a step table."""

    decode_tokens: float
    uncached_tokens: float
    cached_tokens: float
    kv_reads: float
    """KV tokens read by its decode steps."""
    chunk_kv: float
    pairs: float


@lru_cache(maxsize=64)
def work_of(demand: Demand) -> Work:
    """Mean work over the sample of a class."""
    inputs, cached, outputs = demand.lengths
    steps, fresh = outputs - 1, inputs - cached
    return Work(
        decode_tokens=float(steps.mean()),
        uncached_tokens=float(fresh.mean()),
        cached_tokens=float(cached.mean()),
        kv_reads=float((steps * inputs + steps * (steps + 1) / 2).mean()),
        chunk_kv=float(inputs.mean()),
        pairs=float((fresh * cached + fresh * (fresh + 1) / 2).mean()),
    )


def queue_free_capacity(table: StepTable, max_num_seqs: int, work: Work) -> float:
    """No instance serves more requests of this work a second, whatever the arrivals: an optimistic bound [1/s].

    With b the slope of the lower convex envelope of the base time beyond a full batch, a step of D decoding
    sequences and m prompt tokens lasts at least ``(D / cap) base(cap) + m b`` plus the linear terms; and KV memory
    bounds how many KV tokens one step can read.
    """
    base = table.decode_s
    cap = max_num_seqs
    beyond = np.arange(cap + 1, len(base))
    chord = (table.mixed_s[cap + 1 :] - base[cap]) / (beyond - cap)
    slope = min(float(chord.min()), float(base[cap]) / cap) if len(beyond) else float(base[cap]) / cap
    linear = table.per_seq_s * (work.decode_tokens + 1) + table.kv_s * (work.kv_reads + work.chunk_kv)
    linear += table.pair_s * work.pairs + table.load_s * work.cached_tokens
    by_batch = work.decode_tokens * float(base[cap]) / cap + work.uncached_tokens * max(slope, 0.0)
    by_memory = work.kv_reads / (table.blocks * table.block_tokens) * float(base[1])
    return 1.0 / (max(by_batch, by_memory) + linear)


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
    tpot = table.decode_s[1] + table.per_seq_s + table.kv_s * (inputs + outputs / 2)
    ttft = _idle_ttft_s(option, inputs, cached)
    ttft_promised = np.inf if slo.ttft_s is None else slo.ttft_s + slo.ttft_s_per_1k_uncached * (inputs - cached) / 1000
    checks = (
        ("TPOT", tpot / (slo.tpot_s or np.inf), slo.tpot_s or np.inf),
        ("TTFT", ttft / ttft_promised, slo.ttft_s or np.inf),
        ("E2E", (ttft + tpot * (outputs - 1)) / (slo.e2e_s or np.inf), slo.e2e_s or np.inf),
    )
    for name, ratio, promised in checks:
        excess = float(np.quantile(ratio, wanted))
        if excess > 1.0:
            return Refusal(excess, f"{where}: {name} {_time(excess * promised)} even alone, promised {_time(promised)}")
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


def all_options(question: Question) -> tuple[list[Option], dict[str, str]]:
    """(options, reason by system without any)."""
    options, reasons = [], {}
    for offer in question.offers:
        found, reason = [], ""
        for deployment in [d for model in question.models for d in _deployments(question, offer, model)]:
            try:
                table = compile_table(deployment)
            except InfermixError as fault:
                reason = reason or str(fault)
                continue
            found.append(Option(offer, deployment, table.at_speed(table.low) if question.speed == "low" else table))
        options += found
        if not found:
            reasons[offer.system.id] = reason or f"{_names(question)} does not fit"
    if not options:
        raise NoAnswer(
            f"{_names(question)} fits on no system of the market: " + "; ".join(f"{k}: {v}" for k, v in reasons.items())
        )
    return options, reasons


def _names(question: Question) -> str:
    return " or ".join(model.id for model in question.models)


def _deployments(question: Question, offer: Offer, model: Model) -> list[Deployment]:
    if not offer.chip.efficiency:
        return []
    efficiency = question.catalog.efficiencies[offer.chip.efficiency]
    base = Deployment(
        model=model,
        system=offer.system,
        chip=offer.chip,
        efficiency=efficiency,
        weights=best_weights(model, offer.chip, efficiency),
        stages=1 if efficiency.machine == "pipeline" else 0,
    )
    layouts = _layouts(_replace(base, max_num_seqs=BATCH_CAPS[0], max_batched_tokens=CHUNKS[0])) or [base]
    kv = [k for k in question.study.market.kv if can_keep_kv(offer.chip, k)] if question.study.market else ["bf16"]
    return all_within_measured(
        _replace(layout, kv=k, max_batched_tokens=chunk, max_num_seqs=cap)
        for layout in layouts
        for k in kv
        for chunk in CHUNKS
        for cap in BATCH_CAPS
    )


def _layouts(base: Deployment) -> list[Deployment]:
    """Layouts that hold the model; sequences of their own for each chip only where latents would be copied else."""
    latent = base.model.mla_kv_lora is not None
    return [d for d in fitting(base) if latent or d.dp == 1]


def _replace(deployment: Deployment, **changes: object) -> Deployment:
    import msgspec

    return msgspec.structs.replace(deployment, **changes)


Rankings = dict[Demand, tuple[dict[str, list["Option"]], dict[str, str]]]
"""Class → (system → its able options, cheapest per request first; system → the mildest reason against it)."""


def shortlist(
    question: Question, options: list[Option], rankings: Rankings
) -> tuple[list[Option], dict[str, dict[str, str]]]:
    """(options worth simulating, class → system → why it cannot serve the class).

    For each class the cheapest options of each system by optimistic capacity: ``KEPT`` of those that fit into a
    system, and the best of ``KEPT_REPLICAS`` replica sizes where a replica spans several. This may lose an optimum
    that only queueing reveals; the lower bound is taken over all options.
    """
    keep: dict[str, Option] = {}
    reasons: dict[str, dict[str, str]] = {}
    for demand in question.demands:
        if demand not in rankings:
            rankings[demand] = _rank(options, demand)
        ranked, refused = rankings[demand]
        for rows in ranked.values():
            keep |= {option.name: option for option in _best(rows)}
        reasons[demand.name] = {system: reason for system, reason in refused.items() if system not in ranked}
        if not ranked:
            best = "; ".join(f"{k}: {v}" for k, v in reasons[demand.name].items())
            raise NoAnswer(f"no system on the market can hold the promise to {demand.name!r}: {best}")
    return list(keep.values()), reasons


def _rank(options: list[Option], demand: Demand) -> tuple[dict[str, list[Option]], dict[str, str]]:
    work = work_of(demand)
    able: dict[str, list[tuple[float, str, Option]]] = {}
    refused: dict[str, Refusal] = {}
    for option in options:
        system = option.offer.system.id
        if demand.model is not None and option.deployment.model.id != demand.model.id:
            refused.setdefault(system, Refusal(np.inf, f"{demand.model.id} does not fit"))
            continue
        refusal = refuse(option, demand)
        if refusal is None:
            rate = queue_free_capacity(option.table, option.deployment.max_num_seqs, work)
            able.setdefault(system, []).append((option.usd_per_hour / rate, option.name, option))
        elif system not in refused or refusal < refused[system]:
            refused[system] = refusal
    ranked = {
        system: [option for _, _, option in sorted(rows, key=lambda row: row[:2])] for system, rows in able.items()
    }
    return ranked, {system: refusal.reason for system, refusal in refused.items()}


def _best(ranked: list[Option]) -> list[Option]:
    if not ranked[0].deployment.is_pipeline:
        return ranked[:KEPT]
    by_size: dict[int, Option] = {}
    for option in ranked:
        by_size.setdefault(option.deployment.stages, option)
    return list(by_size.values())[:KEPT_REPLICAS]

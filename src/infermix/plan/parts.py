"""Parts of a plan: pools, classes, training, sentences, what tokens cost."""

from __future__ import annotations

import hashlib

import msgspec

from infermix.cost.energy import facility_w
from infermix.fleet import Fleet
from infermix.perf.memory import kv_tokens_left
from infermix.perf.transfer import kv_transfer
from infermix.plan.evidence import Evidence, Traffic, holds
from infermix.plan.limits import offer_of, pool_cost
from infermix.plan.offers import Reservation
from infermix.plan.problem import Study
from infermix.plan.prove import Proved
from infermix.plan.question import Question
from infermix.plan.result import ClassPlan, PairPlan, PoolPlan, TrainingPlan
from infermix.units import SECONDS_PER_HOUR, TOKENS_PER_MTOK


def study_hash(study: Study) -> str:
    """Content hash of a study, its path left out."""
    plain = msgspec.structs.replace(study, path="")
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).hexdigest()[:16]


def usd_per_mtok(question: Question, usd_per_hour: float) -> dict[str, float | None]:
    """Cost of a million tokens if all of it is laid on input, on output, or on both."""
    outputs = sum(d.rate_per_s * d.mean_output for d in question.demands)
    inputs = sum(d.rate_per_s * float(d.lengths[0].mean()) for d in question.demands)
    per_second = usd_per_hour / SECONDS_PER_HOUR * TOKENS_PER_MTOK
    return {"input": per_second / inputs, "output": per_second / outputs, "blended": per_second / (inputs + outputs)}


def assumptions(proved: Proved) -> list[str]:
    """What the reader must know before acting."""
    pools = enumerate(proved.fleet.pools)
    longer = sorted({f"{1 / _low(proved, p) - 1:.0%} longer on {pool.deployment.chip.id}" for p, pool in pools})
    cached = (
        "Cached prefixes are found by the instance that a request is sent to; on HBM chips they cost no time, "
        "on SRAM machines they are loaded over the off-chip links when the request starts."
    )
    steps = (
        "The proof simulates queueing and routing with the step times of the model; "
        f"at low speeds these are {', '.join(longer)}."
    )
    users = (
        "Speeds of SRAM machines are calibrated on single users; their behaviour under concurrency, "
        "hence their cost, is unvalidated."
    )
    return [cached, steps] + ([users] if any(p.deployment.is_pipeline for p in proved.fleet.pools) else [])


def hour_words(question: Question) -> list[str]:
    """Which hour of the day was planned, where hours differ."""
    if question.hour is None:
        return []
    return [f"Planned for the busiest hour of the day, {question.hour}:00 to {question.hour + 1}:00; rates are of it."]


def training_words(question: Question) -> list[str]:
    """A sentence for each training run: what it holds, costs and draws, and whether that was counted."""
    return [_said(held, question) for held in question.reserved]


def _said(held: Reservation, question: Question) -> str:
    power = "" if held.facility_w is None else f" and {held.systems * held.facility_w / 1e3:,.0f} kW"
    cost = f"Training {held.name}: {held.systems} x {held.system.id}, ${held.usd_per_hour:,.2f}/h{power}"
    if not held.counted:
        return f"{cost}; it does not run at {question.hour}:00, so nothing is taken off."
    return f"{cost}, taken off supply, power and budget; not part of the fleet's cost."


def pair_plans(question: Question, fleet: Fleet) -> list[PairPlan]:
    """Pools that hand over to others."""
    pools, found = {pool.name: pool for pool in fleet.pools}, []
    for pair in fleet.pairs:
        one, other = pools[pair.prefill], pools[pair.decode]
        means = {d.name: int(d.lengths[0].mean()) for d in question.demands if d.name in one.serves}
        travels = {n: kv_transfer(one.deployment, other.deployment, tokens).seconds for n, tokens in means.items()}
        told = {"readiness": pair.readiness, "source": pair.source}
        found.append(PairPlan(prefill=pair.prefill, decode=pair.decode, transfer_s=travels, **told))
    return found


def pair_words(unpaired: dict[str, str]) -> list[str]:
    """Pairs that the study asks for and that cannot be had."""
    return [f"Prefill and decode on {name}: not possible, {reason}." for name, reason in unpaired.items()]


def training_plan(held: Reservation) -> TrainingPlan:
    """A training run."""
    return TrainingPlan(
        name=held.name,
        system=held.system.id,
        systems=held.systems,
        chips=held.systems * held.system.chips,
        hours=held.hours,
        counted=held.counted,
        usd_per_hour=held.usd_per_hour,
        basis=held.price.basis,
        facility_kw=None if held.facility_w is None else held.systems * held.facility_w / 1e3,
    )


def _low(proved: Proved, p: int) -> float:
    return proved.options[p].table.low


def pool_plan(question: Question, proved: Proved, p: int) -> PoolPlan:
    """A pool of a proved fleet."""
    pool, evidence = proved.fleet.pools[p], proved.nominal
    d, offer = pool.deployment, offer_of(question, pool)
    outputs, inputs = evidence.output_tokens, evidence.input_tokens
    pipeline = d.is_pipeline
    kilowatts = None if d.system.power_w is None else pool.systems * facility_w(d.system, question.study.cost.pue) / 1e3
    return PoolPlan(
        name=pool.name,
        system=d.system.id,
        model=d.model.id,
        tp=None if pipeline else d.tp,
        pp=None if pipeline else d.pp,
        ep=None if pipeline else d.ep,
        dp=None if pipeline else d.dp,
        stages=d.stages if pipeline else None,
        weights=d.weights,
        kv=d.kv,
        role=d.role,
        max_num_seqs=d.max_num_seqs,
        max_batched_tokens=d.max_batched_tokens,
        spec=None if d.spec is None else str(d.spec),
        instances=pool.instances,
        serves=pool.serves,
        chip=d.chip.id,
        vendor=d.system.vendor,
        kind=d.chip.kind,
        chips=pool.systems * d.system.chips,
        systems=pool.systems,
        spare_instances=-pool.instances % d.instances_per_system,
        usd_per_hour=pool_cost(question, pool),
        basis=offer.price.basis,
        share_tokens=float((inputs[:, p].sum() + outputs[:, p].sum()) / (inputs.sum() + outputs.sum())),
        share_output_tokens=float(outputs[:, p].sum() / outputs.sum()),
        derate=proved.derate[p],
        kv_tokens_left=kv_tokens_left(d),
        busy=float(evidence.busy[p]),
        kv_peak=float(evidence.kv_peak[p]),
        facility_kw=kilowatts,
    )


def class_plan(question: Question, proved: Proved, traffic: Traffic, c: int) -> ClassPlan:
    """A class: its promise and what the simulations showed."""
    demand = question.demands[c]
    nominal, low = proved.nominal, proved.low
    slo = {k: v for k, v in msgspec.to_builtins(demand.cls.slo).items() if v is not None and v != 0.0}
    clipped = sum(traffic.of(seed).clipped.get(demand.name, 0) for seed in nominal.seeds)
    return ClassPlan(
        rate_per_s=demand.rate_per_s,
        slo=slo,
        requests=int(nominal.offered[c]),
        attainment=nominal.attainment(c),
        ci=nominal.interval(c),
        holds=holds(question, nominal)[demand.name],
        attainment_low=low.attainment(c),
        ci_low=low.interval(c),
        holds_low=holds(question, low)[demand.name],
        **_latencies(nominal, demand.name, ""),
        **_latencies(low, demand.name, "_low"),
        clipped_share=clipped / float(nominal.offered[c]),
        cdf={k: v.tolist() for k, v in nominal.cdf[demand.name].items()},
        cdf_low={k: v.tolist() for k, v in low.cdf[demand.name].items()},
    )


def _latencies(evidence: Evidence, name: str, suffix: str) -> dict[str, dict[str, float]]:
    return {f"{key}{suffix}": values for key, values in evidence.latency[name].items()}

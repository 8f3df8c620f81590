"""A proved day as a plan: pools at their largest, slots, contracts, APIs, who goes without."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from infermix.fleet import Fleet
from infermix.plan.contracting import offer_key
from infermix.plan.day import DayProof, SlotProof
from infermix.plan.limits import offer_of
from infermix.plan.model import Solution
from infermix.plan.model.program import api_usd
from infermix.plan.offered import sent_per_s
from infermix.plan.pairs import stage_shares
from infermix.plan.prove import Proved
from infermix.plan.question import Question
from infermix.plan.result import ApiPlan, ContractPlan, SlotPlan
from infermix.plan.solve import Planner, lower_bound
from infermix.units import SECONDS_PER_HOUR


def is_plain(question: Question) -> bool:
    """Whether one fleet serves everything all day: what is proved and thinned as one fleet."""
    free = (
        question.profits or question.limits.rationing or any(d.cls.least_served is not None for d in question.demands)
    )
    several = len(question.slots) > 1 or bool(question.apis) or any(offer.contracts for offer in question.offers)
    return not (free or several or question.limits.redundancy)


def as_proved(proof: SlotProof, day: DayProof) -> Proved:
    """One slot of a day, as the proof of a fleet."""
    options = tuple(
        next(c.column.option for c in day.solution.at(proof.slot) if c.column.option.deployment is pool.deployment)
        for pool in proof.fleet.pools
    )
    ones = (1.0,) * len(options)
    return Proved(proof.status, day.solution, proof.fleet, options, proof.nominal, proof.low, day.rounds, ones)


def largest(day: DayProof) -> tuple[tuple[SlotProof, int], ...]:
    """Every pool of the day in the slot in which it has most instances: (slot, its number there)."""
    found: dict[str, tuple[SlotProof, int]] = {}
    for proof in day.slots:
        for p, pool in enumerate(proof.fleet.pools):
            known = found.get(pool.name)
            if known is None or known[0].fleet.pools[known[1]].instances < pool.instances:
                found[pool.name] = (proof, p)
    return tuple(found.values())


def whole_fleet(day: DayProof) -> Fleet:
    """Every pool of the day at its largest."""
    return Fleet(tuple(proof.fleet.pools[p] for proof, p in largest(day)))


def slot_plans(question: Question, day: DayProof) -> list[SlotPlan]:
    """The slots, where there are several."""
    if len(question.slots) == 1:
        return []
    return [_slot(question, proof, day.solution) for proof in day.slots]


def _slot(question: Question, proof: SlotProof, solution: Solution) -> SlotPlan:
    slot, sent = question.slots[proof.slot], sent_per_s(solution, proof.slot)
    rates = {d.name: d.rate_at(proof.slot) for d in question.demands}
    serves: dict[str, dict[str, float]] = {name: {} for name in rates}
    for name, shares in stage_shares(proof.fleet, [name for name in rates if name in sent]).items():
        serves[name] = {pool: share * sent[name] / (rates[name] or 1.0) for pool, share in shares.items()}
    for api, bought in solution.bought.items():
        for name, taken in bought.items():
            serves[name][api] = taken[proof.slot] / (rates[name] or 1.0)
    unmet = {name: left[proof.slot] / (rates[name] or 1.0) for name, left in solution.unmet.items()}
    names = proof.question.class_names
    return SlotPlan(
        name=slot.name,
        hour=slot.hour,
        hours=slot.hours,
        scenario=slot.scenario,
        probability=slot.probability,
        status=proof.status,
        rates_per_s=rates,
        instances={pool.name: pool.instances for pool in proof.fleet.pools},
        systems={pool.name: pool.systems for pool in proof.fleet.pools},
        usd_per_hour=slot_usd(question, solution, proof.slot),
        serves=serves,
        unmet=unmet,
        attainment={name: proof.nominal.attainment(c) for c, name in enumerate(names)},
        attainment_low={name: proof.low.attainment(c) for c, name in enumerate(names)},
    )


def slot_usd(question: Question, solution: Solution, slot: int) -> dict[str, float]:
    """System or API → what is paid for it in a slot [USD/h]; what starts cost is not in it."""
    found: dict[str, float] = {}
    for offer, contract in question.contracts:
        had = solution.had[contract.name]
        signed = contract.signed or any(had)
        paid = max(had[slot], contract.least_paid if signed else 0)
        usd = paid * contract.usd_per_hour * contract.paid_share(contract.name in question.slots[slot].missing)
        found[offer.system.id] = found.get(offer.system.id, 0.0) + usd
    demands = {d.name: d for d in question.demands}
    for api in question.apis:
        bought = solution.bought.get(api.name, {})
        usd = sum(rates[slot] * api_usd(api, demands[name]) * SECONDS_PER_HOUR for name, rates in bought.items())
        found[api.name] = found.get(api.name, 0.0) + usd
    return {name: usd for name, usd in found.items() if usd > 0.0}


def contract_plans(question: Question, solution: Solution) -> list[ContractPlan]:
    """What is had under which contract, where contracts are stated."""
    return [
        ContractPlan(
            name=contract.name,
            system=offer.system.id,
            region=offer.region,
            systems=tuple(solution.had[contract.name]),
            usd_per_hour=contract.usd_per_hour,
            basis=contract.basis,
            capital_usd=contract.capital_usd * max(solution.had[contract.name]),
        )
        for offer, contract in question.contracts
        if offer.contracts
    ]


def api_plans(question: Question, solution: Solution) -> list[ApiPlan]:
    """What is bought of each API, mean over the slots."""
    weights, demands = [slot.weight for slot in question.slots], {d.name: d for d in question.demands}

    def mean(rates: tuple[float, ...]) -> float:
        return sum(w * r for w, r in zip(weights, rates, strict=True))

    asked = {d.name: mean(tuple(d.rate_at(s) for s in range(len(weights)))) for d in question.demands}
    tokens = sum(demands[name].mean_output * rate for name, rate in asked.items())
    found = []
    for api in question.apis:
        taken = {name: mean(rates) for name, rates in solution.bought.get(api.name, {}).items()}
        found.append(
            ApiPlan(
                name=api.name,
                vendor=api.vendor,
                model=api.model.id,
                serves={name: rate / (asked[name] or 1.0) for name, rate in taken.items()},
                usd_per_hour=sum(r * api_usd(api, demands[n]) * SECONDS_PER_HOUR for n, r in taken.items()),
                share_output_tokens=sum(r * demands[n].mean_output for n, r in taken.items()) / (tokens or 1.0),
            )
        )
    return found


def unmet_shares(question: Question, solution: Solution) -> dict[str, float]:
    """Class → share of its requests over the day that is not served."""
    found = {}
    for demand in question.demands:
        rates = [demand.rate_at(s) * slot.weight for s, slot in enumerate(question.slots)]
        left = solution.unmet.get(demand.name, (0.0,) * len(rates))
        lost = sum(u * slot.weight for u, slot in zip(left, question.slots, strict=True))
        found[demand.name] = lost / (sum(rates) or 1.0)
    return found


def served_bound(planner: Planner, solution: Solution) -> float:
    """Where demand is rationed: queue-free bound on the cost of serving as much of each class as the solution does."""
    question = planner.question
    shares = {}
    for demand in question.demands:
        left = solution.unmet.get(demand.name, (0.0,) * len(question.slots))
        rates = [demand.rate_at(s) for s in range(len(question.slots))]
        shares[demand.name] = min((1 - u / r for u, r in zip(left, rates, strict=True) if r), default=1.0)
    served = tuple(
        replace(d, cls=msgspec.structs.replace(d.cls, least_served=max(0.0, shares[d.name] - 1e-9)))
        for d in question.demands
    )
    limits = msgspec.structs.replace(question.limits, rationing=False)
    return lower_bound(planner.narrowed(replace(question, demands=served, limits=limits)))


def pool_usd(question: Question, solution: Solution, fleet: Fleet, p: int) -> float:
    """A pool's part of what its offer's contracts cost, by its systems among those of all pools at their largest."""
    pool = fleet.pools[p]
    key = offer_key(question, pool.name, pool.deployment.system.id)
    mine = [q.systems for q in fleet.pools if offer_key(question, q.name, q.deployment.system.id) == key]
    paid = sum(
        solution.had[k.name][s] * k.usd_per_hour * k.paid_share(k.name in slot.missing) * slot.weight
        for o, k in question.contracts
        if o.key == key
        for s, slot in enumerate(question.slots)
    )
    return paid * pool.systems / (sum(mine) or 1)


def basis_of(question: Question, fleet: Fleet, p: int) -> str:
    """How the price of a pool's systems came about."""
    offer = offer_of(question, fleet.pools[p])
    return ", ".join(dict.fromkeys(k.basis for k in offer.contracts)) or offer.price.basis

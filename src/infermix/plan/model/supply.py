"""What is bought or rented: contracts, supply, power and money."""

from __future__ import annotations

from infermix.plan.model.lp import Terms
from infermix.plan.model.program import Program, facility_w


def define_contracts(program: Program) -> None:
    """Whole systems had under each contract: the same in every slot, unless the contract is by the hour."""
    for f, (_, contract) in enumerate(program.contracts):
        most = float("inf") if contract.supply is None else float(max(0, contract.supply))
        name = f"had_{contract.name}"
        fixed = None if contract.hourly else program.lp.variable(name, most, whole=True)
        for s in program.slots:
            program.had[f, s] = program.lp.variable(program.at(name, s), most, whole=True) if fixed is None else fixed


def define_hosting(program: Program) -> None:
    """Instances run on systems that are had; with one slot none is had beyond those."""
    for offer in program.question.offers:
        mine = [(f, k) for f, (o, k) in enumerate(program.contracts) if o.key == offer.key]
        for s in program.slots:
            terms = [*program.of_offer(offer, s), *((program.had[f, s], -1.0) for f, _ in mine)]
            exact = len(program.slots) == 1
            program.lp.row(
                program.at(f"hosting_{offer.key}", s), terms, least=0.0 if exact else -float("inf"), most=0.0
            )


def define_supply(program: Program) -> None:
    """No more systems than the market has left beside training."""
    for offer in program.question.offers:
        if offer.supply is None:
            continue
        for s in program.slots:
            held = program.question.reserved_systems(offer.system.id, s)
            terms = [(program.had[f, s], 1.0) for f, (o, _) in enumerate(program.contracts) if o.key == offer.key]
            program.lp.row(program.at(f"supply_{offer.key}", s), terms, most=float(offer.supply - held))


def define_power(program: Program) -> None:
    """Power at the wall, of which training takes its part."""
    limit = program.question.limits.power_mw
    if limit is None:
        return
    for s in program.slots:
        left = limit - program.question.reserved_w(s) / 1e6
        megawatts = [(program.had[f, s], facility_w(offer) / 1e6) for f, (offer, _) in enumerate(program.contracts)]
        program.lp.row(program.at("power", s), megawatts, most=left)


def define_budget(program: Program) -> None:
    """Spend by the hour in every slot, of which training takes its part."""
    limit = program.question.limits.usd_per_hour
    if limit is None:
        return
    for s in program.slots:
        spend: Terms = [term for _, terms in program.spend(s) for term in terms]
        program.lp.row(program.at("budget", s), spend, most=limit - program.question.reserved_usd_per_hour(s))


def define_forced_system(program: Program) -> None:
    """At least one of a system, to learn what that costs."""
    forced = program.question.forced
    mine = [t for o in program.question.offers if o.system.id == forced for t in program.of_offer(o, 0)]
    if mine:
        program.lp.row(f"forced_{forced}", mine, least=1.0)

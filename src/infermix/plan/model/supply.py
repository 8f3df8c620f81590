"""What is bought or rented: contracts, supply, power and money."""

from __future__ import annotations

from math import inf

from infermix.plan.model.lp import Terms
from infermix.plan.model.program import Program, facility_w
from infermix.plan.offers import Offer

FAR_TOO_MANY = 1_000_000


def define_contracts(program: Program) -> None:
    """Whole systems had under each contract: the same in every slot, unless the contract is by the hour."""
    for f, (_, contract) in enumerate(program.contracts):
        most = inf if contract.supply is None else float(max(0, contract.supply))
        fixed = None if contract.hourly else program.lp.variable(f"had_{contract.name}", most, whole=True)
        for s in program.slots:
            name = program.at(f"had_{contract.name}", s)
            program.had[f, s] = program.lp.variable(name, most, whole=True) if fixed is None else fixed


def define_delivery(program: Program) -> None:
    """Nothing is had under a contract that delivers after the systems are needed."""
    for f, (_, contract) in enumerate(program.contracts):
        if contract.late:
            terms = [(v, 1.0) for v in dict.fromkeys(program.had[f, s] for s in program.slots)]
            program.lp.row(f"delivery_{contract.name}", terms, most=0.0)


def define_hosting(program: Program) -> None:
    """Instances run on systems that are had, there, and not being replaced after an interruption.

    With one slot and nothing that may be missing, none is had beyond those.
    """
    for offer in program.question.offers:
        mine = [(f, contract) for f, (o, contract) in enumerate(program.contracts) if o.key == offer.key]
        plain = len(program.slots) == 1 and all(k.up == 1.0 and not k.least_paid for _, k in mine)
        for s in program.slots:
            missing = program.question.slots[s].missing
            there = [(program.had[f, s], -k.up) for f, k in mine if k.name not in missing]
            terms = [*program.of_offer(offer, s), *there]
            program.lp.row(program.at(f"hosting_{offer.key}", s), terms, least=0.0 if plain else -inf, most=0.0)


def define_supply(program: Program) -> None:
    """No more systems than the market has left beside training, under all contracts and in all regions together."""
    for offer in {o.system.id: o for o in program.question.offers}.values():
        if offer.supply is None:
            continue
        for s in program.slots:
            left = offer.supply - program.question.reserved_systems(offer.system.id, s)
            mine = [f for f, (o, _) in enumerate(program.contracts) if o.system.id == offer.system.id]
            program.lp.row(
                program.at(f"supply_{offer.system.id}", s), [(program.had[f, s], 1.0) for f in mine], most=float(left)
            )


def define_take_or_pay(program: Program) -> None:
    """Once a contract is signed, its least systems are paid for, had or not."""
    for f, (offer, contract) in enumerate(program.contracts):
        if not contract.least_paid:
            continue
        signed = program.lp.variable(f"signed_{contract.name}", 1.0, whole=True, lower=float(contract.signed))
        most = float(_most(program, offer) if contract.supply is None else contract.supply)
        fixed = None if contract.hourly else program.lp.variable(f"paid_{contract.name}")
        for s in program.slots if contract.hourly else program.slots[:1]:
            paid = program.lp.variable(program.at(f"paid_{contract.name}", s)) if fixed is None else fixed
            had = program.had[f, s]
            name = program.at(contract.name, s)
            program.lp.row(f"signed_{name}", [(had, 1.0), (signed, -most)], most=0.0)
            program.lp.row(f"pay_{name}", [(paid, 1.0), (had, -1.0)], least=0.0)
            program.lp.row(f"least_{name}", [(paid, 1.0), (signed, -float(contract.least_paid))], least=0.0)
            program.paid[f, s] = paid
        if fixed is not None:
            program.paid.update({(f, s): fixed for s in program.slots})


def _most(program: Program, offer: Offer) -> int:
    """Systems that all pools of an offer could take at once; where no pools are written, far too many."""
    mine = [c for _, c in program.columns() if c.option.offer.key == offer.key]
    return sum(c.most * c.option.deployment.systems_per_instance for c in mine) or FAR_TOO_MANY


def define_no_idle_systems(program: Program) -> None:
    """Where shares are of spend or capacity, all systems that are had all day run in some slot.

    Idle systems of a cheap vendor would otherwise be bought to dilute the share of a dear one.
    """
    if not program.question.limits.dilutes or len(program.slots) == 1:
        return
    for offer in program.question.offers:
        mine = [f for f, (o, k) in enumerate(program.contracts) if o.key == offer.key and not k.hourly]
        if not mine:
            continue
        most, full = float(_most(program, offer)), []
        for s in program.slots:
            z = program.lp.variable(f"full_{offer.key}_s{s}", 1.0, whole=True)
            spare = [*((program.had[f, s], 1.0) for f in mine), *((v, -k) for v, k in program.of_offer(offer, s))]
            program.lp.row(f"idle_{offer.key}_s{s}", [*spare, (z, most)], most=most)
            full.append((z, 1.0))
        program.lp.row(f"full_{offer.key}", full, least=1.0)
        bought = [(program.had[f, 0], 1.0) for f in mine]
        program.lp.row(f"bought_{offer.key}", bought, most=most)


def define_power(program: Program) -> None:
    """Power at the wall of all systems that are had, of which training takes its part."""
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
        spend: Terms = [term for *_, terms in program.spend(s) for term in terms]
        program.lp.row(program.at("budget", s), spend, most=limit - program.question.reserved_usd_per_hour(s))


def define_capital(program: Program) -> None:
    """What systems that are bought cost at the start."""
    limit = program.question.limits.capital_usd
    if limit is None:
        return
    bought = [(program.had[f, 0], k.capital_usd) for f, (_, k) in enumerate(program.contracts) if k.capital_usd]
    program.lp.row("capital", bought, most=limit)


def define_forced_system(program: Program) -> None:
    """At least one of a system serves in some slot, to learn what that costs."""
    forced = program.question.forced
    mine = [t for o in program.question.offers if o.system.id == forced for s in program.slots
            for t in program.of_offer(o, s)]  # fmt: skip
    if mine:
        program.lp.row(f"forced_{forced}", mine, least=1.0)


def define_other_systems(program: Program) -> None:
    """Another set of systems than those that were seen: one that was in is left out, or one that was out is in."""
    seen = program.question.seen
    if not seen:
        return
    used: dict[str, int] = {}
    for offer in {o.system.id: o for o in program.question.offers}.values():
        mine = [f for f, (o, _) in enumerate(program.contracts) if o.system.id == offer.system.id]
        had = [(program.had[f, s], 1.0) for f in mine for s in program.slots]
        z = program.lp.variable(f"used_{offer.system.id}", 1.0, whole=True)
        most = sum(_most(program, o) for o in program.question.offers if o.system.id == offer.system.id)
        program.lp.row(f"unused_{offer.system.id}", [*had, (z, -float(most * len(had)))], most=0.0)
        program.lp.row(f"used_{offer.system.id}", [*had, (z, -1.0)], least=0.0)
        used[offer.system.id] = z
    for k, systems in enumerate(seen):
        changed = [(z, -1.0 if name in systems else 1.0) for name, z in used.items()]
        inside = sum(name in systems for name in used)
        program.lp.row(f"other_{k}", changed, least=1.0 - inside)

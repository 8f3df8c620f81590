"""Tables of a plan that is more than one fleet all day, and where other systems would enter."""

from __future__ import annotations

from infermix.plan.result import ContractPlan, Plan
from infermix.report import words

READY = {
    "shipping": "this pair of vendors' chips ships",
    "demonstrated": "this pair of vendors' chips was demonstrated, not shipped",
    "hypothetical": "this pair of vendors' chips is hypothetical, nobody has shown it",
}


def beside(plan: Plan) -> list[str]:
    """Sentences about profit, APIs and what goes unserved."""
    said = []
    if plan.profit_usd_per_hour is not None:
        earned = (
            f"Earns {words.money(plan.revenue_usd_per_hour)}/h, a profit of {words.money(plan.profit_usd_per_hour)}/h"
        )
        said.append(f"{earned}; no able fleet earns more than {words.money(plan.profit_bound_usd_per_hour or 0.0)}/h.")
    for api in plan.api:
        if api.serves:
            shares = ", ".join(f"{words.share(share)} of {name}" for name, share in api.serves.items())
            said.append(f"{api.vendor} serves {shares} for {words.money(api.usd_per_hour)}/h (API {api.name}).")
    for pair in plan.pairs:
        travels = ", ".join(f"{words.seconds(s)} for a mean prompt of {name}" for name, s in pair.transfer_s.items())
        said.append(f"{pair.prefill} reads prompts for {pair.decode} ({travels} on the way): {READY[pair.readiness]}.")
    left = ", ".join(f"{words.share(share)} of {name}" for name, share in plan.unmet.items() if share > 0)
    return said + ([f"Goes without: {left}."] if left else [])


def slot_rows(plan: Plan) -> list[tuple[str, ...]]:
    """(slot, status, instances of every pool) of every slot."""
    return [
        (
            slot.name,
            words.STATUS.get(slot.status, slot.status),
            ", ".join(f"{n} \u00d7 {name}" for name, n in slot.instances.items()),
        )
        for slot in plan.slots
    ]


def policy_rows(plan: Plan) -> list[tuple[str, ...]]:
    """(policy, whether it was kept, attainment of every class, room of the class with least)."""
    return [
        (
            trial.policy,
            "yes" if trial.chosen else "breaks a limit" if trial.breaks else "no",
            *(words.attained(trial.attainment[n]) if n in trial.attainment else words.NONE for n in plan.classes),
            f"{trial.room:+.0%}",
        )
        for trial in plan.policies
    ]


def contract_rows(plan: Plan) -> list[tuple[str, ...]]:
    """(contract, system, systems had, USD an hour of one, how the price came about)."""
    return [(c.name, c.system, had(c), words.digits(c.usd_per_hour), c.basis) for c in plan.contracts]


def had(contract: ContractPlan) -> str:
    """Systems had under a contract: one number, or the least and the most of the slots."""
    least, most = min(contract.systems, default=0), max(contract.systems, default=0)
    return str(most) if least == most else f"{least} to {most}"


def not_told(plan: Plan) -> list[str]:
    """What of the explanation was not computed, and why."""
    parts = {
        "single-chip fleets": plan.single_chip, "entry prices": plan.entries, "next best fleets": plan.next_best,
        "swings": plan.swings, "frontiers": plan.frontier, "reasons for every system": plan.why,
    }  # fmt: skip
    left_out = [name for name, found in parts.items() if not found]
    if not left_out or not plan.fleet:
        return []
    if len(plan.slots) > 1:
        why = f"each would solve the program of all {len(plan.slots)} slots again"
    elif any(plan.unmet.values()):
        why = "fleets that leave out other requests do not compare by cost"
    else:
        return []
    return [f"Not computed for this plan: {words.joined(left_out)}; {why}."]


def entry_rows(plan: Plan) -> list[tuple[str, ...]]:
    """(system, its price, the price at which it enters, how many times as much it would have to serve)."""
    return [
        (
            e.system,
            words.digits(e.usd_per_hour),
            words.NONE if e.entry_usd_per_hour is None else words.digits(e.entry_usd_per_hour),
            words.NONE if e.entry_speed is None else f"{words.digits(e.entry_speed)}\u00d7",
        )
        for e in plan.entries
    ]


def swing_rows(plan: Plan) -> list[tuple[str, ...]]:
    """(figure, cost at its low end, at its high end, whether the same systems stay)."""
    return [
        (
            s.id,
            *(words.NONE if usd is None else words.digits(usd) for usd in (s.usd_at_low, s.usd_at_high)),
            "stay" if s.survives_low and s.survives_high else "change",
        )
        for s in plan.swings
    ]


def next_rows(plan: Plan) -> list[tuple[str, ...]]:
    """(systems, USD an hour, how much dearer)."""
    return [
        (
            ", ".join(f"{n} \u00d7 {name}" for name, n in a.systems.items()),
            words.digits(a.usd_per_hour),
            f"{a.dearer:+.1%}",
        )
        for a in plan.next_best
    ]

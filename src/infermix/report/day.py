"""Tables of a plan that is more than one fleet all day, and where other systems would enter."""

from __future__ import annotations

from infermix.plan.result import Plan
from infermix.report import words


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


def contract_rows(plan: Plan) -> list[tuple[str, ...]]:
    """(contract, system, systems had, USD an hour of one, how the price came about)."""
    return [(c.name, c.system, _had(c.systems), words.digits(c.usd_per_hour), c.basis) for c in plan.contracts]


def _had(systems: tuple[int, ...]) -> str:
    return str(systems[0]) if len(set(systems)) == 1 else " ".join(map(str, systems))


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

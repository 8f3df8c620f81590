"""Why the plan is what it is: worth of limits, reasons for every system, entries, next best plans, figures."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from infermix.errors import NoAnswer
from infermix.fleet import Fleet
from infermix.plan import entry, next_best, tornado
from infermix.plan.duals import shadow_prices
from infermix.plan.keys import Key, keys_of, one_more
from infermix.plan.limits import LimitUse
from infermix.plan.model import Solution, build
from infermix.plan.offers import Offer
from infermix.plan.pairs import stage_shares
from infermix.plan.prove import Progress, Proved
from infermix.plan.question import Question
from infermix.plan.result import Alternative, EntryPoint, Limit, SwingPoint, Why
from infermix.plan.solve import ROUGH, THREADS, Planner, choose, current_table
from infermix.plan.whatif import systems_in

EXPLAIN_ROUNDS = 2
"""Rounds of simulating capacities for a question that explains."""
ENTRY_STEPS = 3


def price_limits(planner: Planner, proved: Proved, uses: list[LimitUse], progress: Progress) -> list[Limit]:
    """Each limit with the worth of one more unit: by solving again with that unit more, and to the relaxation."""
    progress("what one more of each limit is worth")
    base = proved.solution.loss_usd_per_hour
    keys = {key.name: key for key in keys_of(planner.question)}
    duals = shadow_prices(build(planner.question, current_table(planner)))
    rows = []
    for use in uses:
        key = keys[use.name.split(" ")[0]]
        room = key.step if key.whole else 0.0
        near = abs(use.used - use.allowed) <= 0.02 * max(abs(use.allowed), 1e-12) + room
        cheaper = solve_again(planner, one_more(planner.question, key)) if near and key.value is not None else None
        rows.append(
            Limit(
                name=use.name,
                used=use.used,
                allowed=use.allowed,
                binding=near,
                shadow_price=max(0.0, base - cheaper.loss_usd_per_hour) if cheaper else 0.0,
                unit=key.unit,
                dual_usd_per_hour=_dual(key, duals),
            )
        )
    return rows


def _dual(key: Key, duals: dict[str, float]) -> float | None:
    """Worth of one more unit to the relaxation in which nothing need be whole, added over the slots."""
    row = {"supply": "supply_", "power_mw": "power", "usd_per_hour": "budget", "capital_usd": "capital"}
    what, _, name = key.name.split(".", 1)[1].partition(".")
    if what not in row or (key.name.startswith("market.") and what != "supply"):
        return None
    mine = [dual for full, dual in duals.items() if full == row[what] + name or full.startswith(f"{row[what]}{name}_s")]
    return sum(mine) * key.step if mine else None


def solve_again(planner: Planner, question: Question, gap: float | None = None) -> Solution | None:
    """The best fleet of another question on the same market, with few rounds of simulating; None where none is.

    To the gap of the plan itself unless another one is said.
    """
    again = planner.narrowed(question)
    again.gap = gap or planner.gap
    try:
        return choose(again, rounds=EXPLAIN_ROUNDS)
    except NoAnswer:
        return None


def entries(planner: Planner, proved: Proved, progress: Progress) -> list[EntryPoint]:
    """For every system that was not chosen the price, and the speed, at which it would be."""
    progress("at which price and speed other systems would enter")
    chosen = systems_in(planner.question, proved.solution)
    others = [o for o in {o.system.id: o for o in planner.question.offers}.values() if o.system.id not in chosen]
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda offer: _entry(planner, proved.solution, offer), others))


def _entry(planner: Planner, base: Solution, offer: Offer) -> EntryPoint:
    system, today = offer.system.id, offer.price.usd_per_hour
    told = entry.Entry(None, None)
    if system not in planner.misfits and not all(system in refused for refused in planner.reasons.values()):
        told = entry.entry_of(
            planner.question, lambda q: solve_again(planner, q, ROUGH), system, base, steps=ENTRY_STEPS
        )
    return EntryPoint(
        system=system,
        usd_per_hour=today,
        entry_usd_per_hour=None if told.price is None else told.price * today,
        entry_speed=told.speed,
    )


def alternatives(planner: Planner, proved: Proved, progress: Progress) -> list[Alternative]:
    """The cheapest fleets of other systems that cost at most 5 % more (simulated capacities, not proved)."""
    progress("the next best fleets")
    base, question = proved.solution, planner.question
    found = next_best.next_best(question, lambda q: solve_again(planner, q, ROUGH), base)
    return [
        Alternative(
            systems=systems_in(question, s),
            usd_per_hour=s.usd_per_hour,
            dearer=(s.loss_usd_per_hour - base.loss_usd_per_hour) / abs(base.loss_usd_per_hour or 1.0),
        )
        for s in found
    ]


def swings(planner: Planner, proved: Proved, progress: Progress) -> list[SwingPoint]:
    """The catalogue's figures that could do most to the answer, at the ends of their ranges."""
    progress("which figures the answer hangs on")
    return tornado.tornado(planner.question, planner.short, lambda q: solve_again(planner, q, ROUGH), proved.solution)


def why(planner: Planner, proved: Proved, progress: Progress) -> list[Why]:
    """A sentence for every system on the market."""
    progress("why each system is in or out")
    chosen = {p.deployment.system.id for p in proved.fleet.pools}
    best = {d.name: _least_cost_per_request(planner, d.name, None) for d in planner.question.demands}
    rows, shares = [], stage_shares(proved.fleet, planner.question.class_names)
    for offer in planner.question.offers:
        system = offer.system.id
        parts = [_about(planner, system, name, best[name]) for name in planner.question.class_names]
        reason = planner.misfits.get(system) or "; ".join(parts)
        if system in chosen:
            reason = "; ".join([*_tasks(proved.fleet, system, shares), reason])
        else:
            dearer = _cost_if_forced(planner, system, proved.solution.usd_per_hour)
            reason += f"; buying one all the same makes the fleet {dearer}" if dearer else ""
        rows.append(Why(system=system, chosen=system in chosen, reason=reason))
    return rows


_TASKS = {"both": "serves", "prefill": "reads prompts of", "decode": "writes answers of"}


def _tasks(fleet: Fleet, system: str, shares: dict[str, dict[str, float]]) -> list[str]:
    """What a system's pools do."""
    found = []
    for role, task in _TASKS.items():
        mine = [p.name for p in fleet.pools if p.deployment.system.id == system and p.deployment.role == role]
        done = {n: sum(s.get(p, 0.0) for p in mine) for n, s in shares.items()}
        said = " and ".join(f"{share:.0%} of {n}" for n, share in done.items() if share)
        found += [f"{task} {said}"] if said else []
    return found


def _least_cost_per_request(planner: Planner, name: str, system: str | None) -> float | None:
    """USD per request of a class at the best capacity known (simulated where it was, optimistic elsewhere)."""
    demand = next(d for d in planner.question.demands if d.name == name)
    costs = []
    for option in planner.short:
        mine = (system is None or option.offer.system.id == system) and not option.pair
        if mine and planner.may_serve(option, demand):
            rate = planner.capacities.best_known(option, demand)
            costs.append(option.usd_per_hour / rate / 3600.0)
    return min(costs) if costs else None


def _about(planner: Planner, system: str, name: str, best: float | None) -> str:
    reason = planner.reasons[name].get(system)
    if reason:
        return f"{name}: cannot, {reason}"
    mine = _least_cost_per_request(planner, name, system)
    if mine is None or best is None:
        return f"{name}: not tried"
    rank = "the cheapest" if mine <= best * 1.0001 else f"{_times(mine / best)} times the cheapest"
    return f"{name}: {mine * 1e6:,.0f} USD per million requests, {rank}"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"


def _cost_if_forced(planner: Planner, system: str, base: float) -> str:
    if all(system in refused for refused in planner.reasons.values()) or system in planner.misfits:
        return ""
    forced = solve_again(planner, replace(planner.question, forced=system), ROUGH)
    if forced is None:
        return ""
    return f"{forced.usd_per_hour / base - 1:.1%} dearer" if forced.usd_per_hour > base * 1.001 else "no dearer"

"""The rest of the fleet, with an offer taken and without: what both cost however things turn out.

Capacities are simulated once, as the planner does, at nominal speeds: a fleet bought in a world is one for the speeds
of that world, not for the doubt about them. In a world where a family of chips is faster or slower, its capacities
grow and shrink with it, and an option that then cannot hold a promise even alone and idle serves that class no more.
Then the program of the planner is solved again, with that world's prices and demand.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.plan import model
from infermix.plan.candidates import excess
from infermix.plan.capacity import SIZES
from infermix.plan.model import Column, make_table
from infermix.plan.offers import Contract, Offer
from infermix.plan.options import Option
from infermix.plan.question import Demand, Question
from infermix.plan.quote.draws import NOMINAL, Draws
from infermix.plan.solve import Planner
from infermix.silicon.draw import triangular

GAP = 5e-3
"""Relative gap to which the program is solved, at most."""
LEAST_GAP = 1e-5
OF_THE_BILL = 0.02
"""Share of what the offer costs that the solver may be off by."""
THREADS = 2
PAID = "offer"
AS_USED = "offer, as used"
Progress = Callable[[str], None]


class Cost(NamedTuple):
    """The cheapest fleet of a world [USD/h], and how many of the offered systems it uses; infinite if there is none."""

    usd_per_hour: float
    used: float


@dataclass(frozen=True)
class Rest:
    """What is left for the fleet to serve when an offer is taken."""

    paid: int = 0
    """Offered systems that are paid for in any case: more of them cost nothing."""
    as_used: int = 0
    usd_per_hour: float = 0.0
    """Of one of those that are paid for as they are used."""
    sent_away: tuple[str, ...] = ()
    """Classes of which a share goes to somebody else's tokens."""
    share: float = 0.0


def simulate_all(planner: Planner, factors: tuple[float, ...], say: Progress) -> None:
    """Simulate every option of the shortlist for every class that it can serve, at the pool sizes of these demands."""
    jobs = []
    for option in planner.short:
        for demand in planner.question.demands:
            if planner.may_serve(option, demand):
                sizes = {_size(planner, option, demand, factor) for factor in factors}
                jobs += [(option, demand, size) for size in sorted(sizes)]
    wanted = [job for job in jobs if not planner.capacities.known(*job)]
    say(f"capacities: {len(wanted)} simulated")
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda job: planner.capacities.simulate(*job), wanted))


def _size(planner: Planner, option: Option, demand: Demand, factor: float) -> int:
    """The bracket of a pool that serves a demand alone."""
    needed = factor * demand.rate_per_s / planner.capacities.per_instance(option, demand, -1)
    return int(max(size for size in SIZES if size <= max(needed, 1.0)))


def everywhere(planner: Planner, system: str | None, rest: Rest, draws: Draws, bill: float) -> list[Cost]:
    """The cheapest fleet of every world; ``bill`` [USD/h] says how exactly that must be known."""
    nominal = cheapest(planner, system, rest, draws, NOMINAL, LEAST_GAP if bill == 0.0 else GAP)
    gap = float(np.clip(OF_THE_BILL * bill / max(nominal.usd_per_hour, 1e-9), LEAST_GAP, GAP))
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(lambda w: cheapest(planner, system, rest, draws, w, gap), range(len(draws))))


def cheapest(planner: Planner, system: str | None, rest: Rest, draws: Draws, world: int, gap: float) -> Cost:
    """The cheapest fleet of a world beside what the offer brings."""
    question = _in_world(planner.question, system, rest, draws, world)
    if not question.demands:
        return Cost(0.0, 0.0)
    table = make_table(question, _columns(planner, question, draws, world))
    solution = model.solve(model.build(question, table), gap)
    if solution is None:
        return Cost(float("inf"), 0.0)
    used = sum(max(n) for name, n in solution.had.items() if name in (PAID, AS_USED))
    return Cost(solution.usd_per_hour, float(used))


def _in_world(question: Question, system: str | None, rest: Rest, draws: Draws, world: int) -> Question:
    """The question with a world's prices and demand, and with what the offer brings."""
    offers = tuple(_priced(offer, draws, world) for offer in question.offers)
    offers = tuple(_with_rest(o, rest) if o.system.id == system else o for o in offers)
    kept = [_scaled(demand, float(draws.demand[world]), rest) for demand in question.demands]
    limits = question.limits
    if limits.usd_per_hour is not None and rest.paid:
        left = limits.usd_per_hour - rest.paid * rest.usd_per_hour
        limits = msgspec.structs.replace(limits, usd_per_hour=max(left, 1e-9))
    demands = tuple(demand for demand in kept if demand.rate_per_s > 0.0)
    return replace(question, offers=offers, demands=demands, limits=limits)


def _priced(offer: Offer, draws: Draws, world: int) -> Offer:
    factors = draws.price.get(offer.system.id)
    if factors is None:
        return offer
    factor = float(factors[world])
    ways = tuple(replace(way, usd_per_hour=way.usd_per_hour * factor) for way in offer.ways)
    price = msgspec.structs.replace(offer.price, usd_per_hour=offer.price.usd_per_hour * factor)
    return replace(offer, contracts=ways, price=price)


def _with_rest(offer: Offer, rest: Rest) -> Offer:
    """The offer of a system with the offered ones beside those of the market."""
    ways = list(offer.ways)
    if rest.paid:
        ways.append(Contract(PAID, 0.0, rest.paid))
    if rest.as_used:
        ways.append(Contract(AS_USED, rest.usd_per_hour, rest.as_used))
    supply = None if offer.supply is None else offer.supply + rest.paid + rest.as_used
    return replace(offer, contracts=tuple(ways), supply=supply)


def _scaled(demand: Demand, factor: float, rest: Rest) -> Demand:
    left = 1.0 - rest.share if demand.name in rest.sent_away else 1.0
    by = factor * left
    return replace(
        demand, rate_per_s=demand.rate_per_s * by, rates_per_s=tuple(rate * by for rate in demand.rates_per_s)
    )  # fmt: skip


def _columns(planner: Planner, question: Question, draws: Draws, world: int) -> list[Column]:
    """Columns of the world: capacities at the nearest size that was simulated, times the speed of the family."""
    columns = []
    wanted = {demand.name: demand.rate_per_s for demand in question.demands}
    for option in planner.short:
        speed = speed_of(option, draws)[world]
        able = [d for d in planner.question.demands if d.name in wanted and _able(planner, option, d, float(speed))]
        rates = {size: _rates(planner, option, able, size, float(speed)) for size in SIZES}
        most = sum(2 * wanted[name] / rate for name, rate in rates[SIZES[0]].items()) + 2
        for least, beyond in zip(SIZES, (*SIZES[1:], SIZES[-1] * 4), strict=True):
            if rates[least] and least <= most:
                columns.append(Column(option, least, beyond - 1, rates[least]))
    return columns


def _able(planner: Planner, option: Option, demand: Demand, speed: float) -> bool:
    """Whether it holds the promise alone and idle at this speed."""
    if not planner.may_serve(option, demand):
        return False
    return speed >= 1.0 or _holds_at(option, demand, round(speed, 2))


@lru_cache(maxsize=65536)
def _holds_at(option: Option, demand: Demand, speed: float) -> bool:
    """Every step takes 1 / speed as long: the same as nominal speed and a promise of that share of the time."""
    slo = demand.cls.slo
    times = {name: getattr(slo, name) for name in ("ttft_s", "tpot_s", "e2e_s", "ttft_s_per_1k_uncached")}
    tighter = msgspec.structs.replace(slo, **{name: t if t is None else t * speed for name, t in times.items()})
    asked = replace(demand, cls=msgspec.structs.replace(demand.cls, slo=tighter))
    return bool(excess(option.base, asked, option.point)[0, 0] <= 1.0)


def _rates(planner: Planner, option: Option, able: list[Demand], size: int, speed: float) -> dict[str, float]:
    found = {}
    for demand in able:
        known = [s for s in SIZES if planner.capacities.known(option, demand, s)]
        if known:
            nearest = min(known, key=lambda s: abs(np.log(s / size)))
            found[demand.name] = planner.capacity(option, demand, nearest) * speed
    return {name: rate for name, rate in found.items() if rate > 0.0}


def speed_of(option: Option, draws: Draws) -> Floats:
    """Speed of an option in every world, over nominal."""
    share = draws.share(f"speed/{option.offer.chip.efficiency}")
    found = np.ones(len(draws))
    if share is not None:
        found[1:] = triangular(share[1:], option.table.low, 1.0, option.table.high)
    return found

"""Explanations, checked by solving again: worth of a unit, entries, next best plans, smallest conflicts."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from infermix.plan import model
from infermix.plan.conflict import smallest_conflict
from infermix.plan.duals import shadow_prices
from infermix.plan.entry import entry_price, entry_speed
from infermix.plan.keys import keys_of, one_more, with_value, without
from infermix.plan.model import Column, Solution, make_table
from infermix.plan.next_best import next_best
from infermix.plan.question import Question
from infermix.plan.rules import Limits, Redundancy, Share
from infermix.plan.whatif import at_price, at_speed, paid_for, systems_in
from tests.plan.questions import demand, offer, option, question
from tests.plan.test_plan_day import Made, solved

NAMES = ("h100-x1", "mi300x-x1", "l40s-x1", "cs3")


def market(number: int, limits: Limits | None = None, supply: int | None = None) -> Made:
    """Two classes, four systems of four prices; enough traffic that several are bought."""
    random = np.random.default_rng(7000 + number)
    offers = [
        offer(s, float(random.uniform(2, 9)), supply=supply, facility_w=float(random.uniform(600, 2500))) for s in NAMES
    ]
    classes = [demand("chat", float(random.uniform(20, 40)), 200), demand("code", float(random.uniform(5, 15)), 50)]
    columns = []
    for of in offers:
        rates = {d.name: float(random.uniform(1, 4)) for d in classes}
        columns.append(Column(option(of, **({"stages": 2} if of.system.id == "cs3" else {})), 0, 60, rates))
    return question(offers, classes, limits), columns


def best(made: Made) -> Solution:
    found = solved(*made)
    assert found is not None
    return found


def cost(of: Question, columns: list[Column]) -> float:
    found = solved(of, columns)
    return float("inf") if found is None else found.usd_per_hour


def tight(number: int) -> Made:
    """A market in which supply, power or the budget binds: the cheapest fleet takes a little more than there is."""
    of, columns = market(number)
    free = best((of, columns))
    kind = number % 3
    if kind == 0:
        most = max(systems_in(of, free), key=lambda name: systems_in(of, free)[name])
        have = systems_in(of, free)[most] // 2
        offers = tuple(replace(o, supply=have) if o.system.id == most else o for o in of.offers)
        return replace(of, offers=offers), columns
    megawatts = sum(free.had[o.key][0] * (o.facility_w or 0.0) for o in of.offers) / 1e6
    least = solved_for_power(of, columns)
    if kind == 1:
        return of.with_limits(Limits(power_mw=(0.5 * megawatts + 0.5 * least))), columns
    offers = tuple(replace(o, supply=4) for o in of.offers[:2]) + of.offers[2:]
    return replace(of, offers=offers), columns


def solved_for_power(of: Question, columns: list[Column]) -> float:
    """Least power of any fleet [MW]: the same program with watts for prices."""
    watts = tuple(replace(o, price=replace_price(o, (o.facility_w or 0.0) / 1e6)) for o in of.offers)
    return cost(replace(of, offers=watts), columns)


def replace_price(of: object, usd: float) -> object:
    import msgspec

    return msgspec.structs.replace(of.price, usd_per_hour=usd)  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", range(20))
def test_shadow_prices_agree_with_one_unit_more(number: int) -> None:
    """Within the integer gap: what whole systems cost above fractions, before and after."""
    of, columns = tight(number)
    program = model.build(of, make_table(of, columns))
    duals = shadow_prices(program)
    names = {f"supply_{o.system.id}": f"market.supply.{o.system.id}" for o in of.offers} | {"power": "limits.power_mw"}
    keys = {key.name: key for key in keys_of(of)}
    before, floor = cost(of, columns), relaxed(of, columns)
    for row, dual in duals.items():
        more = one_more(of, keys[names[row]])
        saved = before - cost(more, columns)
        unit = 0.1 if row == "power" else 1.0
        gap = (before - floor) + (cost(more, columns) - relaxed(more, columns))
        assert saved <= dual * unit + gap + 1e-6, "a dual bounds what a unit can save"
        if dual * unit > gap:
            assert saved > 0
    assert duals


def relaxed(of: Question, columns: list[Column]) -> float:
    """Cost where nothing need be whole."""
    from infermix.plan.model.lp import as_highs

    program = model.build(of, make_table(of, columns))
    h = as_highs(replace(program.lp, whole=[False] * len(program.lp.whole)), model.cost(program))
    h.run()
    return float(h.getInfo().objective_function_value)


def test_some_shadow_prices_are_above_nothing() -> None:
    worth = [
        max(shadow_prices(model.build(of, make_table(of, columns))).values())
        for of, columns in (tight(number) for number in range(20))
    ]
    assert sum(usd > 0.01 for usd in worth) >= 10


@pytest.mark.parametrize("number", range(10))
def test_a_system_enters_just_below_its_entry_price_and_not_above(number: int) -> None:
    of, columns = market(number)
    base, found = best((of, columns)), 0
    for system in set(NAMES) - set(systems_in(of, base)):
        factor = entry_price(of, lambda q: solved(q, columns), system, base)
        if factor is None:
            continue
        found += 1
        assert factor <= 1.0 + 1e-6, "at today's price it is not chosen"
        below, above = (solved(at_price(of, system, factor * x), columns) for x in (0.999, 1.001))
        assert below is not None and above is not None
        assert system in systems_in(of, below) and below.usd_per_hour < base.usd_per_hour
        assert system not in systems_in(of, above) and above.usd_per_hour == pytest.approx(base.usd_per_hour)
    assert found


@pytest.mark.parametrize("number", range(10))
def test_a_system_enters_just_above_its_entry_speed_and_not_below(number: int) -> None:
    of, columns = market(number)
    base, found = best((of, columns)), 0
    for system in set(NAMES) - set(systems_in(of, base)):
        factor = entry_speed(of, lambda q: solved(q, columns), system, base, 20)
        assert factor is not None and factor >= 1.0
        found += 1
        faster, slower = (solved(at_speed(of, system, factor * x), columns) for x in (1.001, 0.99))
        assert faster is not None and slower is not None
        assert system in systems_in(of, faster) and faster.usd_per_hour < base.usd_per_hour
        assert slower.usd_per_hour >= base.usd_per_hour * (1 - 1.1e-4)
    assert found


@pytest.mark.parametrize("number", range(10))
def test_the_next_best_are_the_cheapest_of_other_systems(number: int) -> None:
    """Every set of systems tried by itself: with nothing else on the market, and one of each at least."""
    of, columns = market(number)
    base = best((of, columns))
    found = next_best(of, lambda q: solved(q, columns), base, within=0.3, most=4)
    sets_of_all = [set(names) for size in range(1, len(NAMES) + 1) for names in combinations(NAMES, size)]
    costs = [cheapest_with(of, columns, names) for names in sets_of_all]
    order = sorted(x for x in costs if x <= base.usd_per_hour * 1.3)
    assert [base.usd_per_hour, *(s.usd_per_hour for s in found)] == pytest.approx(order[: len(found) + 1], abs=0.01)
    assert len(found) == min(4, len(order) - 1)
    sets = [frozenset(systems_in(of, s)) for s in (base, *found)]
    assert len(set(sets)) == len(sets)


def cheapest_with(of: Question, columns: list[Column], names: set[str]) -> float:
    """Cost of exactly these systems; one of each is bought by trying every extra that is needed for it."""
    offers = tuple(replace(o, supply=None if o.system.id in names else 0) for o in of.offers)
    program = model.build(replace(of, offers=offers), make_table(of, columns))
    for f, (o, _) in enumerate(program.contracts):
        if o.system.id in names:
            program.lp.row("one", [(program.had[f, 0], 1.0)], least=1.0)
    found = model.solve(program, gap=0.0)
    return float("inf") if found is None else found.usd_per_hour


@pytest.mark.parametrize("number", range(6))
def test_a_conflict_is_smallest_and_its_nearest_way_out_just_suffices(number: int) -> None:
    of, columns = market(number, supply=30)
    free = best((of, columns))
    limits = Limits(usd_per_hour=free.usd_per_hour * 0.8, power_mw=50.0, max_vendor_share=0.95)
    asked = of.with_limits(limits)

    def feasible(q: Question) -> bool:
        return solved(q, columns) is not None

    found = smallest_conflict(asked, feasible)
    names = [key.name for key in found.needed]
    assert names == ["limits.usd_per_hour"]
    assert found.nearest["limits.usd_per_hour"] >= free.usd_per_hour - 1e-6
    value = found.nearest["limits.usd_per_hour"]
    assert feasible(with_value(asked, names[0], value)) or feasible(without(asked, "limits.max_vendor_share"))


def test_a_conflict_of_two() -> None:
    """Neither the power nor the share conflicts alone."""
    gpu, sram = offer("h100-x1", 2.0, facility_w=1000.0), offer("cs3", 2.0, facility_w=50_000.0)
    of = question([gpu, sram], [demand("chat", 10.0, 100)], Limits(power_mw=0.06, usd_per_hour=500.0,
                  min_share_output_tokens={"sram": 0.9}))  # fmt: skip
    columns = [Column(option(gpu), 0, 40, {"chat": 2.0}), Column(option(sram, stages=1), 0, 40, {"chat": 3.0})]
    found = smallest_conflict(of, lambda q: solved(q, columns) is not None)
    assert {key.name for key in found.needed} == {"limits.power_mw", "limits.min_share_output_tokens.sram"}
    assert found.nearest["limits.min_share_output_tokens.sram"] == pytest.approx(0.3, abs=0.01)
    assert found.nearest["limits.power_mw"] == pytest.approx(0.151, abs=0.04)


def test_every_limit_can_be_read_set_and_dropped() -> None:
    limits = Limits(
        power_mw=1.0, usd_per_hour=100.0, capital_usd=1e6, max_vendor_share=0.9, min_share_output_tokens={"sram": 0.1},
        shares=[Share(kind="hbm", least=0.2, most=0.8)], redundancy=Redundancy(system=0.9, vendor=0.5),
    )  # fmt: skip
    of = question([offer("h100-x1", 2.0, supply=3)], [demand("chat", 1.0, 10)], limits)
    keys = keys_of(of)
    assert len(keys) == 10
    for key in keys:
        more = {k.name: k.value for k in keys_of(one_more(of, key))}
        assert key.value is not None and more.get(key.name) == pytest.approx(key.value + key.step)
        assert key.name not in {k.name for k in keys_of(without(of, key.name))}
        assert len(keys_of(without(of, key.name))) == len(keys) - 1


def test_what_is_paid_for_a_system() -> None:
    of, columns = market(1)
    found = best((of, columns))
    assert sum(paid_for(of, found, name) for name in NAMES) == pytest.approx(found.usd_per_hour)

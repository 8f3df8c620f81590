"""The program against brute force, to the cent, on small markets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from infermix.errors import NoAnswer
from infermix.plan import model
from infermix.plan.model import Column, Solution, make_table
from infermix.plan.question import Question
from infermix.plan.rules import Limits
from tests.naive.plan import cheapest
from tests.plan.questions import demand, offer, option, question

CASES = range(12)
SYSTEMS = (("h100-x1", {}), ("mi300x-x1", {}), ("l40s-x1", {}), ("cs3", {"stages": 2}))
"""One instance takes whole systems; two kinds of chip, three vendors."""
SHARED = (("h100-x8", {"tp": 2}), ("mi300x-x4", {"tp": 1}), ("l40s-x1", {}), ("cs3", {"stages": 2}))
"""Several instances share a system."""


def market(case: int, systems: tuple[tuple[str, dict[str, int]], ...]) -> tuple[Question, list[Column]]:
    """Two classes, three systems in one to two brackets of pool sizes; capacities grow with the pool."""
    random = np.random.default_rng(1000 + case)
    picked = [systems[i] for i in (*sorted(random.choice(3, 2, replace=False)), 3)]
    offers = [offer(s, float(random.uniform(1, 9)), facility_w=float(random.uniform(500, 3000))) for s, _ in picked]
    demands = [demand("chat", float(random.uniform(5, 15)), 200), demand("code", float(random.uniform(1, 6)), 50)]
    columns = []
    for of, (_, layout) in zip(offers, picked, strict=True):
        choice = option(of, **layout)
        small = {d.name: float(random.uniform(2, 6)) for d in demands if d.name == "chat" or random.uniform() < 0.8}
        columns.append(Column(choice, 1, 2, small))
        large = {name: rate * float(random.uniform(1.0, 1.4)) for name, rate in small.items()}
        columns.append(Column(choice, 3, 4, large))
    return question(offers, demands), columns


def solved(asked: Question, columns: list[Column]) -> Solution | None:
    try:
        return model.solve(model.build(asked, make_table(asked, columns)), gap=0.0)
    except NoAnswer:
        return None


def agree(asked: Question, columns: list[Column]) -> float | None:
    expected, found = cheapest(asked, columns), solved(asked, columns)
    if expected is None:
        assert found is None
        return None
    assert found is not None, expected
    assert found.usd_per_hour == pytest.approx(expected, abs=0.005)
    assert found.bound_usd_per_hour <= expected + 0.001
    return expected


def check_rates(asked: Question, found: Solution) -> None:
    for d in asked.demands:
        assert sum(c.rates.get(d.name, 0.0) for c in found.choices) == pytest.approx(d.rate_per_s, rel=1e-6)
    for c in found.choices:
        assert sum(rate / c.column.capacity[name] for name, rate in c.rates.items()) <= c.instances + 1e-6
        assert c.column.least <= c.instances <= c.column.most


@pytest.mark.parametrize("case", CASES)
def test_without_limits(case: int) -> None:
    asked, columns = market(case, SYSTEMS)
    found = solved(asked, columns)
    if agree(asked, columns) is not None:
        assert found is not None
        check_rates(asked, found)


@pytest.mark.parametrize("case", CASES)
def test_where_instances_share_systems(case: int) -> None:
    agree(*market(case, SHARED))


def limits(kind: str, random: np.random.Generator, free: float) -> dict[str, Any]:
    """A limit that bites in some of the cases and conflicts in others."""
    choices: dict[str, dict[str, Any]] = {
        "power": {"power_mw": float(random.uniform(0.004, 0.012))},
        "budget": {"usd_per_hour": free * float(random.uniform(0.9, 1.2))},
        "vendor_spend": {"max_vendor_share": float(random.uniform(0.4, 0.8)), "vendor_share_of": "spend"},
        "vendor_tokens": {"max_vendor_share": float(random.uniform(0.35, 0.8)), "vendor_share_of": "output_tokens"},
        "least_share": {"min_share_output_tokens": {"sram": float(random.uniform(0.05, 0.6))}},
    }
    return choices[kind]


@pytest.mark.parametrize("kind", ["power", "budget", "vendor_tokens", "least_share"])
@pytest.mark.parametrize("case", CASES)
def test_under_each_limit(case: int, kind: str) -> None:
    asked, columns = market(case, SYSTEMS if case % 2 else SHARED)
    free = cheapest(asked, columns)
    limited = asked.with_limits(Limits(**limits(kind, np.random.default_rng(case), free or 30.0)))
    expected = agree(limited, columns)
    if expected is not None and kind != "budget":
        assert free is not None and expected >= free - 1e-6


def test_under_a_share_of_spend() -> None:
    for case in CASES:
        asked, columns = market(case, SYSTEMS)
        agree(asked.with_limits(Limits(**limits("vendor_spend", np.random.default_rng(case), 0.0))), columns)


@pytest.mark.parametrize("case", CASES)
def test_under_supply(case: int) -> None:
    asked, columns = market(case, SHARED if case % 2 else SYSTEMS)
    random = np.random.default_rng(case)
    offers = tuple(replace(o, supply=int(random.integers(0, 4))) for o in asked.offers)
    agree(replace(asked, offers=offers), columns)


@pytest.mark.parametrize("case", CASES)
def test_under_all_limits(case: int) -> None:
    asked, columns = market(case, SYSTEMS)
    everything = Limits(
        max_vendor_share=0.7, vendor_share_of="output_tokens", min_share_output_tokens={"sram": 0.2}, power_mw=0.02,
        usd_per_hour=60.0,
    )  # fmt: skip
    agree(replace(asked, limits=everything, offers=tuple(replace(o, supply=4) for o in asked.offers)), columns)


@pytest.mark.parametrize("case", CASES[:6])
def test_a_forced_system(case: int) -> None:
    asked, columns = market(case, SYSTEMS)
    free = agree(asked, columns)
    for of in asked.offers:
        dearer = agree(replace(asked, forced=of.system.id), columns)
        if dearer is not None and free is not None:
            assert dearer >= free - 1e-6


def test_the_cases_are_neither_all_feasible_nor_all_infeasible() -> None:
    answers = []
    for case in CASES:
        asked, columns = market(case, SYSTEMS)
        for kind in ("power", "vendor_tokens", "least_share"):
            limited = asked.with_limits(Limits(**limits(kind, np.random.default_rng(case), 30.0)))
            answers.append(solved(limited, columns) is not None)
    assert 0.2 < sum(answers) / len(answers) < 0.98


def test_equal_costs_give_the_fleet_with_fewer_instances() -> None:
    h100, l40s = offer("h100-x1", 2.0), offer("l40s-x1", 1.0)
    chat = demand("chat", 10.0, 100)
    columns = [Column(option(h100), 1, 4, {"chat": 10.0}), Column(option(l40s), 1, 4, {"chat": 5.0})]
    found = solved(question([h100, l40s], [chat]), columns)
    assert found is not None and [c.instances for c in found.choices] == [1]
    assert found.usd_per_hour == pytest.approx(2.0)

"""A small plan from end to end: proved, minimal, the same twice, and what it says adds up."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infermix.catalog.load import catalog
from infermix.catalog.query import figure
from infermix.errors import InputError, NoAnswer
from infermix.fleet import Fleet, Pool, PoolRow, make_fleet
from infermix.metrics.confidence import wilson
from infermix.plan.problem import parse_study
from infermix.plan.result import Plan
from infermix.study import plan, simulate
from tests.plan.questions import CHAT, RAW, study

BUSY: dict[str, Any] = {**CHAT, "rate_per_s": 60.0}
TIMES = ("plan_s", "prove_s")

pytestmark = pytest.mark.compiled_only


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(study(traffic={"chat": BUSY}))


def fleet_of(made: Plan) -> Fleet:
    rows = {row.name: msgspec.convert(msgspec.to_builtins(row), PoolRow) for row in made.fleet}
    return make_fleet(catalog(), rows, made.model, tuple(made.classes), "plan")


def kept(fleet: Fleet, seeds: tuple[int, ...], speed: str) -> bool:
    """Whether the promise holds by the definition: the Wilson lower bound over all seeds."""
    met = offered = 0
    for seed in seeds:
        row = simulate(study(traffic={"chat": BUSY}), fleet=fleet, seed=seed, speeds=speed)["classes"]["chat"]
        met, offered = met + round(row["attainment"] * row["requests"]), offered + row["requests"]
    assert offered >= 2000 * len(seeds)
    return wilson(met, offered)[0] >= BUSY["slo"]["attainment"]


def test_it_is_proved_by_the_definition(made: Plan) -> None:
    assert made.status == "proved" and made.seeds == (1, 2, 3, 4, 5)
    row = made.classes["chat"]
    assert row.holds and row.holds_low and row.requests >= 10_000
    assert row.ci[0] >= 0.95 and row.ci_low[0] >= 0.95
    assert row.ci == pytest.approx(wilson(round(row.attainment * row.requests), row.requests))
    fleet = fleet_of(made)
    assert kept(fleet, made.seeds, "low") and kept(fleet, made.seeds, "nominal")


def test_it_keeps_its_promise_on_other_seeds(made: Plan) -> None:
    assert kept(fleet_of(made), (11, 12, 13, 14, 15), "low")


def test_it_is_minimal(made: Plan) -> None:
    fleet = fleet_of(made)
    assert {row["pool"] for row in made.minimal} == {pool.name for pool in fleet.pools}
    assert all(row["breaks"] for row in made.minimal)
    assert sum(pool.instances for pool in fleet.pools) > 1
    for p in range(len(fleet.pools)):
        smaller = fleet.resized(p, fleet.pools[p].instances - 1)
        if len(smaller.pools) < len(fleet.pools):  # the others take the share of a pool that vanishes
            smaller = Fleet(tuple(_free(pool) for pool in smaller.pools))
        assert not smaller.pools or not kept(smaller, made.seeds, "low")


def _free(pool: Pool) -> Pool:
    return msgspec.structs.replace(pool, serves={})


def test_the_same_plan_twice(made: Plan) -> None:
    again = plan(study(traffic={"chat": BUSY}))
    first, second = (msgspec.to_builtins(p) for p in (made, again))
    for name in TIMES:
        assert first.pop(name) > 0 and second.pop(name) > 0
    assert msgspec.json.encode(first) == msgspec.json.encode(second)


def test_what_it_costs_adds_up(made: Plan) -> None:
    prices = {name: catalog().systems[name].rent_usd_per_hour for name in ("h100-x1", "l40s-x1")}
    for row, pool in zip(made.fleet, fleet_of(made).pools, strict=True):
        price = prices[row.system]
        assert price is not None and row.systems == pool.systems and row.instances == pool.instances
        assert row.usd_per_hour == pytest.approx(row.systems * price.value)
        assert row.chips == row.systems * pool.deployment.system.chips
    assert made.usd_per_hour == pytest.approx(sum(row.usd_per_hour for row in made.fleet))
    assert made.gap == pytest.approx(made.usd_per_hour / made.lower_bound_usd_per_hour - 1)


def test_shares_sum_to_one(made: Plan) -> None:
    for served in made.serves.values():
        assert sum(served.values()) == pytest.approx(1.0)
    for key in ("share_tokens", "share_output_tokens"):
        assert sum(getattr(row, key) for row in made.fleet) == pytest.approx(1.0)
    for row in made.fleet:
        assert row.serves == {name: s[row.name] for name, s in made.serves.items() if row.name in s}
        assert row.kv_tokens_left > 0 and 0 < row.busy <= 1 and 0 < row.derate <= 1
    assert made.unmet == {"chat": 0.0}


def test_figures_resolve(made: Plan) -> None:
    assert len(made.figures) == len(set(made.figures)) > 5
    for id_ in made.figures:
        assert figure(catalog(), id_).source, id_
    unsure = {id_ for id_ in made.figures if figure(catalog(), id_).kind == "unverified"}
    assert {use.id for use in made.unverified} == unsure


def test_every_system_has_its_reason(made: Plan) -> None:
    chosen = {row.system for row in made.fleet}
    assert {why.system: why.chosen for why in made.why} == {s: s in chosen for s in ("h100-x1", "l40s-x1")}
    assert all(why.reason for why in made.why)
    assert {row.system for row in made.single_chip} == {"h100-x1", "l40s-x1"}


def test_no_single_chip_fleet_is_cheaper_than_the_plan_and_none_undercuts_the_bound(made: Plan) -> None:
    for row in made.single_chip:
        if row.usd_per_hour is not None:
            assert row.usd_per_hour >= made.lower_bound_usd_per_hour - 0.01
            assert row.lower_bound_usd_per_hour is not None
            assert row.lower_bound_usd_per_hour >= made.lower_bound_usd_per_hour - 0.01


def test_looser_promises_never_cost_more(made: Plan) -> None:
    costs = [(p.tpot_s, p.usd_per_hour) for p in made.frontier if p.usd_per_hour is not None]
    assert costs == sorted(costs) and len(made.frontier) >= 3
    assert all(b[1] <= a[1] + 1e-9 for a, b in zip(costs, costs[1:], strict=False))  # noqa: RUF007


def test_the_plan_is_a_fleet_file(made: Plan, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_bytes(msgspec.json.encode(made))
    found = simulate(study(traffic={"chat": BUSY}), fleet=path)
    assert found["speeds"] == ["nominal", "low"] and found["promises_kept"]
    assert {n: p["instances"] for n, p in found["pools"].items()} == {row.name: row.instances for row in made.fleet}
    assert json.loads(path.read_bytes())["status"] == "proved"


def test_limits_are_kept_and_named() -> None:
    limited = study(
        traffic={"chat": BUSY},
        market={**RAW["market"], "supply": {"h100-x1": 9}},
        limits={"usd_per_hour": 100.0, "power_mw": 0.1},
    )
    made = plan(limited)
    used = {limit.name: limit for limit in made.limits}
    assert set(used) == {"market.supply.h100-x1", "limits.power_mw", "limits.usd_per_hour"}
    assert all(limit.used <= limit.allowed and limit.shadow_price >= 0 for limit in made.limits)
    assert used["limits.usd_per_hour"].used == pytest.approx(made.usd_per_hour)
    kilowatts = sum(row.facility_kw or 0.0 for row in made.fleet)
    assert used["limits.power_mw"].used == pytest.approx(kilowatts / 1000)


def test_cost_is_at_least_the_lower_bound() -> None:
    """Whole systems are bought, the bound counts shares of them."""
    made = plan(study())
    assert made.fleet
    assert made.usd_per_hour >= made.lower_bound_usd_per_hour - 1e-9 and made.gap >= -1e-12


def test_a_promise_that_leaves_most_of_a_chip_unused_is_kept_by_more_chips() -> None:
    """Far below the queue-free capacity: many more instances than twice what the whole demand takes, queue-free."""
    tight = {**CHAT, "rate_per_s": 45.0, "slo": {**CHAT["slo"], "tpot_s": 0.012}}
    made = plan(study(traffic={"chat": tight}, prove={**RAW["prove"], "speeds": "nominal"}))
    assert made.classes["chat"].holds and made.fleet[0].instances >= 4


def infeasible(**changes: Any) -> str:
    with pytest.raises(NoAnswer) as told:
        plan(study(**changes))
    assert "\n" not in str(told.value) and told.value.exit_code == 1
    return str(told.value)


@pytest.mark.parametrize(
    ("changes", "must", "must_not"),
    [
        ({"limits": {"usd_per_hour": 1.0, "power_mw": 5.0}}, ["limits.usd_per_hour = 1 "], ["power_mw"]),
        ({"limits": {"usd_per_hour": 900.0, "power_mw": 1e-4}}, ["limits.power_mw = 0.0001"], ["usd_per_hour"]),
        (
            {"market": {**RAW["market"], "supply": {"h100-x1": 0, "l40s-x1": 0}}, "limits": {"power_mw": 5.0}},
            ["market.supply.h100-x1 = 0", "market.supply.l40s-x1 = 0"],
            ["power_mw"],
        ),
        (
            {"market": {"systems": ["h100-x1"], "supply": {"h100-x1": 0}}, "limits": {"usd_per_hour": 99.0}},
            ["market.supply.h100-x1 = 0"],
            ["usd_per_hour"],
        ),
        ({"limits": {"max_vendor_share": 0.5, "usd_per_hour": 99.0}}, ["limits.max_vendor_share = 0.5"], ["usd_per"]),
    ],
)
def test_the_smallest_set_of_limits_that_conflict(
    changes: dict[str, Any], must: list[str], must_not: list[str]
) -> None:
    message = infeasible(**changes)
    assert all(part in message for part in must) and not any(part in message for part in must_not), message
    assert "chat at 20/s" in message and "conflict" in message


def test_two_limits_that_conflict_only_together() -> None:
    """Ten H100 are within the budget but not within the power, forty L40S the other way round."""
    market = {"systems": ["h100-x1", "l40s-x1"], "prices": {"h100-x1": 1.0, "l40s-x1": 9.0}}
    fine = {"traffic": {"chat": BUSY}, "market": market}
    message = infeasible(**fine, limits={"usd_per_hour": 8.0, "power_mw": 0.002, "max_vendor_share": 1.0})
    assert "limits.power_mw" in message and "max_vendor_share" not in message


def test_a_share_for_chips_that_are_not_there() -> None:
    message = infeasible(limits={"min_share_output_tokens": {"sram": 0.1}})
    assert "limits.min_share_output_tokens" in message and "sram" in message


def test_a_promise_that_no_system_can_hold() -> None:
    message = infeasible(traffic={"chat": {**CHAT, "slo": {"tpot_s": 1e-4}}})
    assert "'chat'" in message and "h100-x1: tp1: TPOT" in message and "l40s-x1: tp1: TPOT" in message


def test_a_model_that_fits_nowhere() -> None:
    message = infeasible(model="llama-3.1-405b")
    assert "llama-3.1-405b fits on no system" in message and "h100-x1" in message and "l40s-x1" in message


def test_names_of_the_market_are_checked() -> None:
    raw = copy.deepcopy(RAW)
    raw["market"]["supply"] = {"h100x1": 3}
    with pytest.raises(InputError, match=r"s\.toml: market\.supply.*'h100x1'.*did you mean 'h100-x1'"):
        plan(parse_study(raw, "s.toml"))

"""Fleets proved for cost against speed: pools apart are the whole fleet, and nothing is held that is not."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest

from infermix.fleet import Fleet, Pool
from infermix.metrics.confidence import wilson
from infermix.plan.apart import Apart, places, tightest
from infermix.plan.curve import Curve, open_curve
from infermix.plan.evidence import Traffic, gather
from infermix.plan.limits import fleet_cost
from infermix.plan.problem import parse_study
from infermix.plan.prove import seeds_of
from infermix.plan.question import Demand, Question, ask
from infermix.plan.routing import policy_of
from infermix.sim.run import simulate_fleet
from tests.perf.deployments import deploy

RAW = {
    "model": "llama-3.1-8b",
    "traffic": {
        "chat": {
            "profile": "azure-conv-2023",
            "rate_per_s": 12.0,
            "slo": {"ttft_s": 2.0, "tpot_s": 0.08, "attainment": 0.95},
        },
        "code": {
            "profile": "azure-code-2023",
            "rate_per_s": 3.0,
            "slo": {"ttft_s": 3.0, "tpot_s": 0.03, "attainment": 0.95},
        },
    },
    "market": {"systems": ["h100-x1", "l40s-x1"]},
    "limits": {"max_vendor_share": 1.0},
    "prove": {"seeds": 2, "requests_per_class": 1500},
}


@cache
def asked() -> Question:
    return ask(parse_study(RAW, "s.toml"))


def fleet(fast: int = 3, slow: int = 6) -> Fleet:
    """Code on H100; chat on both."""
    first = Pool(
        name="a", deployment=deploy("h100-x1", RAW["model"]), instances=fast, serves={"code": 1.0, "chat": 0.3}
    )
    return Fleet(
        (first, Pool(name="b", deployment=deploy("l40s-x1", RAW["model"]), instances=slow, serves={"chat": 0.7}))
    )


def test_requests_fall_to_pools_as_the_simulator_sends_them() -> None:
    question, mine = asked(), fleet()
    requests = Traffic(question).of(1).requests
    run = simulate_fleet(mine, requests, policy_of(question.study), seed=1, classes=question.study.traffic)
    np.testing.assert_array_equal(
        places(requests.class_id.astype(np.int64), mine.shares(question.class_names)), run.request_pool
    )


@pytest.mark.compiled_only
@pytest.mark.parametrize("speed", ["nominal", "low"])
def test_pools_apart_are_the_whole_fleet(speed: str) -> None:
    """All but the luck of ties between idle instances."""
    question, mine, traffic = asked(), fleet(), Traffic(asked())
    whole = gather(question, traffic, mine, seeds_of(question), speed)
    parts = Apart(question, traffic, "code").outcome(mine, speed).evidence
    np.testing.assert_array_equal(parts.offered, whole.offered)
    np.testing.assert_array_equal(parts.pool_offered, whole.pool_offered)
    np.testing.assert_allclose(parts.output_tokens, whole.output_tokens)
    np.testing.assert_allclose(parts.met / parts.offered, whole.met / whole.offered, atol=0.006)
    np.testing.assert_allclose(parts.busy, whole.busy, rtol=0.05)


def test_a_pool_in_common_is_simulated_once() -> None:
    apart = Apart(asked(), Traffic(asked()), "code")
    apart.outcome(fleet(), "nominal")
    assert apart.simulated == 4  # two pools on two seeds
    apart.outcome(fleet(slow=7), "nominal")
    assert apart.simulated == 6
    apart.outcome(fleet(), "nominal")
    assert apart.simulated == 6


def test_the_tightest_promise_is_the_first_that_holds() -> None:
    rng = np.random.default_rng(3)
    for share in (0.5, 0.9, 0.99):
        times = np.sort(np.where(rng.random(400) < 0.02, np.inf, rng.gamma(2.0, 0.01, 400)))
        held = [t for t in times if wilson(int((times <= t).sum()), len(times))[0] >= share and np.isfinite(t)]
        assert tightest(times, share) == (min(held) if held else np.inf)
    assert tightest(np.array([]), 0.9) == np.inf


@cache
def explored() -> Curve:
    curve = open_curve(asked(), Traffic(asked()), "code")
    curve.settle(fleet(1, 2), 0.03)
    curve.explore(12, lambda _: None)
    curve.confirm()
    return curve


@pytest.mark.compiled_only
def test_what_is_held_is_held_by_the_whole_fleet_at_that_promise() -> None:
    question, traffic = asked(), Traffic(asked())
    assert len(explored().held) >= 10
    for held in explored().best:
        demands = tuple(
            d if d.name != "code" else _promised(question, held.tpot_s * (1.0 + 1e-9)) for d in question.demands
        )
        other = question.with_demands(demands)
        evidence = gather(other, traffic, held.fleet, seeds_of(question), "low")
        for c, demand in enumerate(demands):
            assert evidence.interval(c)[0] >= demand.cls.slo.attainment, (held, demand.name)
        assert held.usd_per_hour == fleet_cost(question, held.fleet)


def _promised(question: Question, tpot_s: float) -> Demand:
    demand = next(d for d in question.demands if d.name == "code")
    slo = msgspec.structs.replace(demand.cls.slo, tpot_s=tpot_s)
    return replace(demand, cls=msgspec.structs.replace(demand.cls, slo=slo))


@pytest.mark.compiled_only
def test_the_curve_has_no_fleet_that_another_beats() -> None:
    curve = explored()
    for held in curve.best:
        assert not any(o.tpot_s < held.tpot_s and o.usd_per_hour <= held.usd_per_hour for o in curve.held)
    for held in curve.held:
        cheapest = curve.cheapest(held.tpot_s)
        assert cheapest is not None and cheapest.usd_per_hour <= held.usd_per_hour
    assert curve.cheapest(0.0) is None


@pytest.mark.compiled_only
def test_a_settled_fleet_can_spare_no_system() -> None:
    curve = open_curve(asked(), Traffic(asked()), "code")
    curve.settle(fleet(8, 14), 0.03)
    best = curve.cheapest(0.03)
    assert best is not None and best.usd_per_hour < fleet_cost(asked(), fleet(8, 14))
    for p, pool in enumerate(best.fleet.pools):
        if pool.instances > 1:
            found, _, _ = curve.prove(best.fleet.resized(p, pool.instances - 1))
            assert found is None or found.tpot_s > 0.03


@pytest.mark.compiled_only
def test_a_broken_limit_is_held_by_nothing() -> None:
    limits = msgspec.structs.replace(asked().limits, usd_per_hour=0.5)
    curve = open_curve(asked().with_limits(limits), Traffic(asked()), "code")
    held, missed, _ = curve.prove(fleet())
    assert held is None and missed == ["limits.usd_per_hour"]
    curve.settle(fleet(), 0.03)
    assert not curve.held

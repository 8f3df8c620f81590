"""A whole plan on very little traffic: every part of the planner in turn, also where kernels are plain Python."""

from __future__ import annotations

import pytest

import infermix as im
from infermix.plan import capacity, frontier, question
from tests.plan.questions import CHAT, study

LITTLE = {"seeds": 1, "requests_per_class": 30}
SLOW = {**CHAT, "rate_per_s": 2.0}


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """Judge capacities on few requests and draw few points of the frontier: parts are tried here, not accuracy."""
    monkeypatch.setattr(capacity, "LEAST", 60)
    monkeypatch.setattr(capacity, "HORIZON_S", 2.0)
    monkeypatch.setattr(capacity, "SIZES", (1, 2, 4))
    monkeypatch.setattr(capacity, "BISECTIONS", 2)
    monkeypatch.setattr(frontier, "FRONTIER", (1.0, 2.0))
    monkeypatch.setattr(question, "SAMPLE", 400)


@pytest.mark.uncompiled_s(150)
def test_a_plan_of_two_systems_on_little_traffic() -> None:
    made = im.plan(study(prove=LITTLE, traffic={"chat": SLOW}))
    assert made.status in ("proved", "proved_nominal", "not_proved")
    assert sum(pool.instances for pool in made.fleet) >= 1
    assert made.lower_bound_usd_per_hour <= made.usd_per_hour
    assert {row.system for row in made.single_chip} == {"h100-x1", "l40s-x1"}
    assert made.why and made.figures


@pytest.mark.uncompiled_s(150)
def test_a_plan_with_limits_on_little_traffic() -> None:
    limits = {"max_vendor_share": 1.0, "power_mw": 1.0, "usd_per_hour": 1000.0}
    made = im.plan(study(prove=LITTLE, traffic={"chat": SLOW}, limits=limits))
    assert all(row.used <= row.allowed for row in made.limits)
    assert {row.name for row in made.limits} >= {"limits.power_mw", "limits.usd_per_hour"}

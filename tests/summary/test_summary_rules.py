"""From a study's words to the rules of a run."""

from __future__ import annotations

import tomllib
from typing import Any

import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.fleet import Fleet, make_fleet
from infermix.plan.problem import Study, parse_study
from infermix.sim.failures import failure_times
from infermix.sim.rules import FleetRules
from infermix.summary.rules import comes_and_goes, fleet_rules

STUDY = """
model = "llama-3.1-8b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 20.0
slo = { ttft_s = 2.0 }
[traffic.batch]
profile = "arxiv-summarisation"
rate_per_s = 1.0
slo = { e2e_s = 600.0 }
[fleet.one]
system = "h100-x1"
instances = 2
[fleet.two]
system = "h100-x1"
instances = 3
"""
EVENT = {"at_s": 5.0, "pool": "two", "instance": 1, "what": "fail"}


def study(*, chat: dict[str, Any] | None = None, two: dict[str, Any] | None = None, **simulate: Any) -> Study:
    raw = tomllib.loads(STUDY)
    raw["traffic"]["chat"] |= chat or {}
    raw["fleet"]["two"] |= two or {}
    return parse_study({**raw, "simulate": simulate}, "s.toml")


def rules(found: Study, horizon_s: float = 100.0, seed: int = 1) -> tuple[FleetRules, Fleet]:
    fleet = make_fleet(catalog(), found.fleet, found.model, tuple(found.traffic), "s.toml: fleet")
    return fleet_rules(found, fleet, tuple(found.traffic), horizon_s, seed), fleet


def test_a_study_without_them_has_no_rules() -> None:
    found, fleet = rules(study())
    assert found == FleetRules() and not comes_and_goes(study(), fleet)


def test_events_count_instances_on_from_pool_to_pool_in_order_of_time() -> None:
    late = {**EVENT, "at_s": 9.0, "pool": "one", "instance": 0, "what": "drain"}
    asked = study(events=[late, EVENT, {**EVENT, "at_s": 9.0, "what": "start"}], stale_s=0.5, resume=True)
    found, fleet = rules(asked)
    assert found.events == ((5.0, 3, "fail"), (9.0, 0, "drain"), (9.0, 3, "start"))
    assert (found.stale_s, found.resume) == (0.5, True) and comes_and_goes(asked, fleet)


def test_limits_are_by_class_and_infinite_where_there_are_none() -> None:
    found, _ = rules(study(chat={"ration_per_s": 3.0, "max_wait_s": 4.0}))
    assert found.ration_per_s == (3.0, np.inf) and found.ration_burst == (1.0, np.inf)
    assert found.max_wait_s == (4.0, np.inf) and found.shed_above is None
    found, _ = rules(study(chat={"ration_per_s": 3.0, "ration_burst": 9.0, "shed_above": 0.8}))
    assert found.ration_burst == (9.0, np.inf) and found.shed_above == (0.8, np.inf)


def test_failures_come_to_instances_that_are_up_and_are_mended() -> None:
    asked = study(failures={"mtbf_hours": 0.01, "repair_s": 4.0}, two={"up": 1})
    found, _ = rules(asked)
    assert {j for _, j, _ in found.events} == {0, 1, 2}
    failed = [t for t, j, what in found.events if j == 2 and what == "fail"]
    assert failed == failure_times(100.0, 0.01, 4.0, 2, seed=1).tolist()
    started = [t for t, j, what in found.events if j == 2 and what == "start"]
    assert started == [t + 4.0 for t in failed]
    times = [t for t, _, _ in found.events]
    assert times == sorted(times) and rules(asked, seed=2)[0].events != found.events


def test_nobody_but_its_autoscaling_starts_an_instance_of_a_pool_that_scales() -> None:
    scale = {"least": 1, "target_inflight": 4.0, "every_s": 1.0, "start_s": 2.0}
    found, _ = rules(study(failures={"mtbf_hours": 0.01, "repair_s": 4.0}, two={"up": 1, "autoscale": scale}))
    assert {what for _, j, what in found.events if j >= 2} == {"fail"}
    assert {j for _, j, _ in found.events} == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("simulate", "must"),
    [
        ({"events": [{**EVENT, "pool": "tow"}]}, "simulate.events[0]: no such pool; got 'tow'"),
        ({"events": [EVENT, {**EVENT, "instance": 3}]}, "simulate.events[1]: no such instance; got 3; allowed: 0 to 2"),
        ({"events": [{**EVENT, "instance": -1}]}, "simulate.events[0].instance: instances count from 0; got -1"),
        ({"events": [{**EVENT, "at_s": -1.0}]}, "simulate.events[0].at_s: at_s must be finite and 0 or more"),
        ({"events": [{**EVENT, "when": 1.0}]}, "when"),
        ({"events": [{**EVENT, "what": "stop"}]}, "stop"),
        ({"stale_s": -1.0}, "simulate.stale_s: stale_s must be finite and 0 or more; got -1.0"),
        ({"failures": {"mtbf_hours": 0.0, "repair_s": 1.0}}, "failures.mtbf_hours: mtbf_hours must be positive"),
        ({"failures": {"mtbf_hour": 1.0, "repair_s": 1.0}}, "did you mean 'mtbf_hours'?"),
    ],
)
def test_faults_are_told_where_they_are(simulate: dict[str, Any], must: str) -> None:
    with pytest.raises(InputError) as told:
        rules(study(**simulate))
    assert must in str(told.value) and str(told.value).startswith("s.toml: simulate") and "\n" not in str(told.value)


def test_a_slip_in_autoscaling_is_told_with_the_nearest_key() -> None:
    with pytest.raises(InputError, match=r"fleet.two.autoscale.*did you mean 'every_s'"):
        study(two={"autoscale": {"least": 1, "target_inflight": 4.0, "every": 1.0}})


@pytest.mark.parametrize(
    ("chat", "must"),
    [
        ({"priority": 128}, "priority: priority out of range; got 128; allowed: -128 to 127"),
        ({"ration_burst": 2.0}, "ration_burst: ration_burst goes with ration_per_s"),
        ({"ration_per_s": 1.0, "ration_burst": 0.5}, "ration_burst: ration_burst must be 1 or more; got 0.5"),
        ({"shed_above": 0.0}, "shed_above: shed_above must be positive and finite; got 0"),
        ({"max_wait_s": -1.0}, "max_wait_s: max_wait_s must be positive and finite; got -1.0"),
    ],
)
def test_limits_that_cannot_be(chat: dict[str, Any], must: str) -> None:
    with pytest.raises(InputError) as told:
        study(chat=chat)
    assert f"s.toml: traffic.chat.{must}" in str(told.value)

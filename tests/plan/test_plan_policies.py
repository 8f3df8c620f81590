"""``policy = "auto"``: the plan tries policies by simulation, keeps one, proves with it and names it everywhere."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.plan.evidence import Traffic
from infermix.plan.export.gateway import gateway_toml
from infermix.plan.limits import fleet_cost
from infermix.plan.policies import ALWAYS, best, candidates, prove_day_routed, prove_routed, with_policy
from infermix.plan.problem import Study, load_study, parse_study
from infermix.plan.question import ask
from infermix.plan.result import PolicyTrial
from infermix.plan.solve import make_planner
from infermix.study import simulated
from tests.report.plans import biting_plan

EXAMPLES = Path(__file__).parents[2] / "examples" / "plan"


def trial(policy: str, room: float, *breaks: str) -> PolicyTrial:
    return PolicyTrial(policy=policy, attainment={}, room=room, breaks=list(breaks))


def test_most_room_is_kept_and_of_those_alike_the_first() -> None:
    assert best([trial("a", 0.1), trial("b", 0.5), trial("c", 0.51)]).policy == "b"
    assert best([trial("a", -3.0), trial("b", -1.0)]).policy == "b"


def test_who_breaks_a_limit_is_kept_only_where_all_do() -> None:
    assert best([trial("a", 0.9, "limits.power_mw"), trial("b", 0.1)]).policy == "b"
    assert best([trial("a", 0.9, "limits.power_mw"), trial("b", 0.1, "limits.power_mw")]).policy == "a"


def test_affinity_is_tried_where_there_are_sessions_and_price_of_delay_where_time_has_a_value() -> None:
    question = ask(load_study(EXAMPLES / "policy.toml"))
    assert candidates(question) == ALWAYS
    worthy = tuple(
        replace(d, cls=msgspec.structs.replace(d.cls, value_of_time_usd_per_hour=10.0)) for d in question.demands
    )
    assert candidates(question.with_demands(worthy)) == (*ALWAYS, "price_of_delay")
    some = replace(worthy[0].sample, session=np.zeros(len(worthy[0].sample), dtype=np.int32))
    with_sessions = (replace(worthy[0], sample=some), question.demands[1])
    assert candidates(question.with_demands(with_sessions)) == (*ALWAYS, "session_affinity", "prefix_affinity")


def test_an_unknown_policy_is_told_that_a_plan_may_choose() -> None:
    raw = tomllib.loads((EXAMPLES / "policy.toml").read_text())
    raw["simulate"]["policy"] = "atuo"
    with pytest.raises(InputError, match=r"simulate\.policy.*auto"):
        parse_study(raw, "x.toml")


def routed_by(study: Study, policy: str) -> Study:
    return msgspec.structs.replace(study, simulate=msgspec.structs.replace(study.simulate, policy=policy))


@pytest.mark.compiled_only
def test_the_policy_that_leaves_room_proves_a_fleet_that_is_no_dearer() -> None:
    study = load_study(EXAMPLES / "policy.toml")
    planner = make_planner(ask(study))
    proved, trials = prove_routed(planner, Traffic(planner.question), lambda _: None)
    plain_planner = make_planner(ask(routed_by(study, "pool_split")))
    plain, none = prove_routed(plain_planner, Traffic(plain_planner.question), lambda _: None)
    assert proved is not None and plain is not None and proved.status == plain.status == "proved" and not none
    assert [t.policy for t in trials] == list(ALWAYS)
    assert [t.policy for t in trials if t.chosen] == [planner.question.study.simulate.policy] != ["auto"]
    question = planner.question
    assert fleet_cost(question, proved.fleet) <= fleet_cost(question, plain.fleet)


def test_the_gateway_names_the_policy_that_was_chosen(tmp_path: Path) -> None:
    study = load_study(EXAMPLES / "policy.toml")
    made = msgspec.structs.replace(biting_plan(), policy="slo_headroom", fleet=[])
    written = tomllib.loads(gateway_toml(made, study, catalog(), tmp_path))
    assert written["gateway"]["policy"] == "slo_headroom"


def test_a_simulation_of_a_plan_routes_as_the_plan_does(tmp_path: Path) -> None:
    study = load_study(EXAMPLES / "policy.toml")
    row = {"system": "h100-x1", "instances": 2, "name": "one"}
    (tmp_path / "plan.json").write_bytes(msgspec.json.encode({"fleet": [row], "policy": "least_inflight"}))
    assert simulated(study, fleet=tmp_path / "plan.json", requests=50, speeds="nominal").policy == "least_inflight"
    assert simulated(study, instances=1, requests=50).policy == "pool_split"


@pytest.mark.compiled_only
def test_a_day_keeps_one_policy() -> None:
    planner = make_planner(ask(routed_by(load_study(EXAMPLES / "slots.toml"), "auto")))
    day, trials = prove_day_routed(planner, lambda _: None)
    assert day is not None and day.status == "proved"
    assert [t.policy for t in trials if t.chosen] == [planner.question.study.simulate.policy]
    assert {p.question.study.simulate.policy for p in day.slots} == {planner.question.study.simulate.policy}


def test_a_question_with_another_policy_is_otherwise_the_same() -> None:
    question = ask(load_study(EXAMPLES / "policy.toml"))
    other = with_policy(question, "least_wait")
    assert other.study.simulate.policy == "least_wait" and other.demands is question.demands

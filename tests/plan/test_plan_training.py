"""Training runs hold systems: supply, power and budget are lowered, the plan says so, and faults are one line."""

from __future__ import annotations

from typing import Any

import pytest

from infermix.errors import InputError, NoAnswer
from infermix.plan import model
from infermix.plan.model import Column, Solution, make_table
from infermix.plan.problem import Study
from infermix.plan.question import Question, ask, planned_hour, thinned
from infermix.plan.result import Plan
from infermix.plan.rules import Limits
from infermix.study import plan
from tests.plan.questions import CAT, CHAT, MODEL, demand, offer, option, question, study

HELD = {"system": "h100-x1", "systems": 2}
BUSY: dict[str, Any] = {**CHAT, "rate_per_s": 60.0}
MARKET: dict[str, Any] = {"systems": ["h100-x1", "l40s-x1"], "supply": {"h100-x1": 5}}

pytestmark = pytest.mark.compiled_only


def asked(training: dict[str, Any], **more: Any) -> Question:
    return ask(study(**{"market": MARKET, "training": training, **more}))


def solved(of: Question, columns: list[Column]) -> Solution | None:
    return model.solve(model.build(of, make_table(of, columns)), gap=0.0)


def reserving(systems: int, limits: Limits | None = None, supply: int | None = 6) -> tuple[Question, list[Column]]:
    """Ten instances of a cheap system would do; a dearer one stands beside it."""
    training = {"run": {"system": "h100-x1", "systems": systems}} if systems else {}
    held = asked(training, market={"systems": ["h100-x1"], "prices": {"h100-x1": 3.0}}).reserved
    cheap, dear = offer("h100-x1", 3.0, supply), offer("l40s-x1", 10.0)
    of = question([cheap, dear], [demand("chat", 10.0, 100)], limits)
    columns = [Column(option(o), 0, 100, {"chat": 2.0}) for o in (cheap, dear)]
    return Question(**{**vars(of), "reserved": held}), columns


@pytest.mark.parametrize(("systems", "cost"), [(0, 15.0), (1, 15.0), (2, 4 * 3 + 10), (4, 2 * 3 + 3 * 10), (6, 50.0)])
def test_the_supply_is_what_training_leaves(systems: int, cost: float) -> None:
    found = solved(*reserving(systems))
    assert found is not None and found.usd_per_hour == pytest.approx(cost)


def test_the_budget_is_what_training_leaves() -> None:
    def feasible(budget: float, systems: int) -> bool:
        return solved(*reserving(systems, Limits(usd_per_hour=budget), supply=None)) is not None

    assert feasible(15.01, 0) and not feasible(14.9, 0)
    assert feasible(15.01 + 6.0, 2) and not feasible(14.9 + 6.0, 2)


def test_the_power_is_what_training_leaves() -> None:
    of, _ = reserving(2, supply=None)
    own = of.reserved[0].facility_w
    assert own is not None and own > 0
    for megawatts, answered in ((0.005001 + 2 * own / 1e6, True), (0.004999 + 2 * own / 1e6, False)):
        assert (solved(*reserving(2, Limits(power_mw=megawatts), supply=None)) is not None) is answered


@pytest.fixture(scope="module")
def made() -> Plan:
    return plan(
        study(
            traffic={"chat": BUSY},
            market=MARKET,
            training={"nightly": {**HELD, "hours": [0, 8]}, "always": {"system": "l40s-x1", "systems": 3}},
            limits={"usd_per_hour": 500.0, "power_mw": 1.0},
        )
    )


def test_a_plan_says_what_training_holds_and_counts_it_against_limits(made: Plan) -> None:
    nightly, always = made.training
    assert (nightly.name, nightly.systems, nightly.chips, nightly.hours) == ("nightly", 2, 2, (0, 8))
    assert always.hours is None and always.usd_per_hour == pytest.approx(3 * 1.548401, rel=1e-6)
    assert nightly.counted and always.counted and made.planned_hour == 0
    limits = {limit.name: limit for limit in made.limits}
    fleet = sum(p.usd_per_hour for p in made.fleet)
    beside = nightly.usd_per_hour + always.usd_per_hour
    assert made.usd_per_hour == pytest.approx(fleet)
    assert limits["limits.usd_per_hour"].used == pytest.approx(fleet + beside)
    drawn = sum(p.facility_kw or 0.0 for p in made.fleet) + (nightly.facility_kw or 0.0) + (always.facility_kw or 0.0)
    assert limits["limits.power_mw"].used == pytest.approx(drawn / 1e3)
    bought = sum(p.systems for p in made.fleet if p.system == "h100-x1")
    assert limits["market.supply.h100-x1"].used == bought + 2 <= limits["market.supply.h100-x1"].allowed == 5
    said = [text for text in made.assumptions if text.startswith("Training ")]
    assert len(said) == 2 and "nightly: 2 x h100-x1" in said[0] and "not part of the fleet's cost" in said[0]
    assert any("0:00 to 1:00" in text for text in made.assumptions)


def test_its_price_and_power_are_among_the_figures() -> None:
    found = plan(study(traffic={"chat": BUSY}, market={"systems": ["h100-x1"]}, training={"run": {
        "system": "b200-x8", "systems": 1}}))  # fmt: skip
    assert any("b200-x8" in id_ or "b200" in id_ for id_ in found.figures)
    assert found.training[0].chips == 8 and found.planned_hour is None


def test_without_training_there_is_none() -> None:
    assert asked({}).reserved == () and asked({}).hour is None


@pytest.mark.parametrize(
    ("hours", "shape", "hour", "counted"),
    [
        ([0, 8], None, 0, True),  # every hour is as busy: the one in which training runs
        ([8, 20], [1.0, 3.0], 12, True),
        ([0, 8], [1.0, 3.0], 12, False),
        ([22, 13], [1.0, 3.0], 12, True),
        (None, [1.0, 3.0], 12, True),
    ],
)
def test_training_counts_in_the_hour_that_is_planned(
    hours: list[int] | None, shape: list[float] | None, hour: int, counted: bool
) -> None:
    run = HELD if hours is None else {**HELD, "hours": hours}
    of = asked({"run": run}, traffic={"chat": CHAT if shape is None else {**CHAT, "shape": shape}})
    assert of.hour == hour and [r.counted for r in of.reserved] == [counted]
    assert (
        of.offers[0].supply == 5
        and of.reserved_systems("h100-x1") == (2 if counted else 0)
        and of.offers[1].supply is None
    )
    assert of.reserved_usd_per_hour() == pytest.approx(2 * of.reserved[0].price.usd_per_hour if counted else 0.0)


def test_the_busiest_hour_is_planned_at_its_rate() -> None:
    of = asked({}, traffic={"chat": {**CHAT, "shape": [1.0, 3.0]}})
    assert of.hour == 12 and of.demands[0].rate_per_s == pytest.approx(30.0)
    mine = {"day": {**CHAT, "shape": [1.0, 3.0]}, "night": {**CHAT, "rate_per_s": 100.0, "shape": [1.5, 1.0]}}
    loaded: Study = study(traffic=mine)
    assert planned_hour(loaded, CAT.models[MODEL]) == 0
    assert [d.rate_per_s for d in ask(loaded).demands] == pytest.approx([10.0, 120.0])


def test_thinning_a_sample_keeps_no_parent() -> None:
    of = asked({}, traffic={"agents": {"profile": "agentic-coding", "sessions": 50, "slo": {"ttft_s": 9.0}}})
    sample = of.demands[0].sample
    assert (sample.parent >= 0).any() and (thinned(sample, 500).parent == -1).all()


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"run": {"system": "h10-x1", "systems": 1}}, ["s.toml: training.run.system", "did you mean 'h100-x1'?"]),
        ({"run": {"system": "h100-x1", "systems": 0}}, ["s.toml: training.run.systems", "got 0"]),
        ({"run": {"system": "h100-x1"}}, ["s.toml: training.run", "systems"]),
        ({"run": {**HELD, "sytems": 1}}, ["s.toml: training.run: sytems", "did you mean 'systems'?"]),
        ({"run": {**HELD, "hours": [0, 25]}}, ["s.toml: training.run.hours", "(0, 25)"]),
        ({"run": {**HELD, "hours": [5, 5]}}, ["training.run.hours", "no hour between them"]),
        ({"run": {**HELD, "hours": 5}}, ["s.toml: training.run", "hours"]),
        (
            {"a": {**HELD, "systems": 3}, "b": {**HELD, "systems": 3}},
            ["s.toml: training (a, b)", "holds more h100-x1 than there are", "got 6", "market.supply.h100-x1 = 5"],
        ),
    ],
)
def test_bad_training_is_one_line(training: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        asked(training)
    message = str(caught.value)
    assert "\n" not in message and [word for word in words if word not in message] == []


def test_runs_whose_hours_part_may_share_systems() -> None:
    apart = {"a": {**HELD, "systems": 3, "hours": [0, 8]}, "b": {**HELD, "systems": 3, "hours": [8, 24]}}
    assert asked(apart).reserved_systems("h100-x1") == 3


def test_a_conflict_names_the_training_beside_it() -> None:
    bad = study(traffic={"chat": BUSY}, market={"systems": ["h100-x1"], "supply": {"h100-x1": 5}},
                training={"run": {**HELD, "systems": 5}})  # fmt: skip
    with pytest.raises(NoAnswer, match=r"market\.supply\.h100-x1 = 5.*beside Training run: 5 x h100-x1"):
        plan(bad)

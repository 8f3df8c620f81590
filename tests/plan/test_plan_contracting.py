"""What a day's fleets cost under contracts, and what a slot's fleet is offered."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from infermix.errors import NoAnswer
from infermix.fleet import Fleet, Pool
from infermix.plan import model
from infermix.plan.contracting import bill
from infermix.plan.model import Column, make_table
from infermix.plan.offered import sent_per_s, slot_question
from infermix.plan.offers import Contract
from infermix.plan.question import Question
from infermix.plan.slots import Slot
from tests.plan.questions import CHAT, demand, offer, option, question, study
from tests.plan.test_plan_day import api, asked, case, solved

DAY = (Slot("00:00", 0, 12.0), Slot("12:00", 12, 12.0))


def fleets(of: Question, *instances: int) -> list[Fleet]:
    made = option(of.offers[0]).deployment
    return [Fleet((Pool(name="pool", deployment=made, instances=n),) if n else ()) for n in instances]


def test_the_busiest_slot_rules_what_is_had_all_day() -> None:
    of = question([offer("h100-x1", 3.0)], [demand("chat", 1.0, 10)], slots=DAY)
    found = bill(of, fleets(of, 2, 5))
    assert found.usd_per_hour == pytest.approx(15.0) and found.had == {"h100-x1": (5, 5)}


def test_what_is_needed_for_half_a_day_is_rented_by_the_hour() -> None:
    contracts = (Contract("own", 3.0), Contract("rent", 5.0, hourly=True))
    of = question([replace(offer("h100-x1", 3.0), contracts=contracts)], [demand("chat", 1.0, 10)], slots=DAY)
    found = bill(of, fleets(of, 2, 5))
    assert found.usd_per_hour == pytest.approx(2 * 3.0 + 3 * 5.0 / 2) and found.had == {"own": (2, 2), "rent": (0, 3)}
    assert found.by_offer == pytest.approx({"h100-x1": found.usd_per_hour})


def test_a_market_that_cannot_hold_a_fleet_says_so() -> None:
    of = question([offer("h100-x1", 3.0, supply=4)], [demand("chat", 1.0, 10)], slots=DAY)
    with pytest.raises(NoAnswer, match="cannot hold"):
        bill(of, fleets(of, 2, 5))


@pytest.mark.parametrize("kind", ["nothing", "spot", "take_or_pay", "undelivered", "scenarios", "capital"])
def test_the_bill_of_a_solution_is_what_the_program_says(kind: str) -> None:
    """The same contracts, found again from the systems that the solution's pools take."""
    checked = 0
    for number in range(4):
        of, columns = case(kind, number)
        found = solved(of, columns)
        if found is None:
            continue
        made = [
            Fleet(tuple(Pool(name=f"{k}", deployment=c.column.option.deployment, instances=c.instances)
                        for k, c in enumerate(found.at(s)))) for s in range(len(of.slots))
        ]  # fmt: skip
        assert bill(of, made).usd_per_hour == pytest.approx(found.usd_per_hour, abs=0.005)
        checked += 1
    assert checked


def test_a_slot_is_a_question_of_its_own() -> None:
    chat = demand("chat", 8.0, 10, rates_per_s=(2.0, 8.0))
    of = question([offer("h100-x1", 3.0)], [chat], slots=DAY)
    found = solved(of, [Column(option(of.offers[0]), 1, 9, {"chat": 1.0})])
    assert found is not None
    for s, rate in enumerate((2.0, 8.0)):
        mine = slot_question(of, found, s)
        assert len(mine.slots) == 1 and mine.demands[0].rate_per_s == pytest.approx(rate)
        assert mine.study.traffic["chat"].rate_per_s == pytest.approx(rate if rate < 8 else CHAT["rate_per_s"])


def test_where_all_is_served_by_one_fleet_the_question_stays() -> None:
    of, columns = case("nothing", 0)
    of = replace(of, slots=(Slot(),), demands=tuple(replace(d, rates_per_s=()) for d in of.demands))
    found = model.solve(model.build(of, make_table(of, columns)))
    assert found is not None and slot_question(of, found) is of


def test_what_an_api_serves_is_not_offered_to_the_fleet() -> None:
    gpu, chat, code = offer("h100-x1", 3.0, supply=1), demand("chat", 8.0, 10), demand("code", 1.0, 10)
    house = api(np.random.default_rng(1), output_usd_per_mtok=100.0)
    both = study(traffic={"chat": CHAT, "code": CHAT}).traffic
    of = asked(question([gpu], [chat, code], apis=(house,)), traffic=both)
    found = solved(of, [Column(option(gpu), 1, 1, {"chat": 2.0})])
    assert found is not None
    mine = slot_question(of, found)
    assert [d.name for d in mine.demands] == list(mine.study.traffic) == ["chat"]
    sent = sent_per_s(found, 0)["chat"]
    assert mine.demands[0].rate_per_s == pytest.approx(sent) == mine.study.traffic["chat"].rate_per_s


def test_sessions_that_an_api_takes_are_sessions_fewer() -> None:
    agents = msgspec.structs.replace(study().traffic["chat"], rate_per_s=None, sessions=40)
    chat = demand("chat", 8.0, 10, cls=agents)
    of = question(
        [offer("h100-x1", 3.0, supply=1)], [chat], apis=(api(np.random.default_rng(1), output_usd_per_mtok=100.0),)
    )
    found = solved(of, [Column(option(of.offers[0]), 1, 1, {"chat": 2.0})])
    assert found is not None and slot_question(of, found).study.traffic["chat"].sessions == 10

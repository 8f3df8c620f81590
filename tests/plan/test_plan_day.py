"""200 random small studies: the program equals brute force to the cent, without and with each kind of limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from infermix.errors import NoAnswer
from infermix.plan import model
from infermix.plan.model import Column, Solution, make_table
from infermix.plan.offers import Api, Contract
from infermix.plan.problem import Slots
from infermix.plan.question import Demand, Question
from infermix.plan.rules import Limits, Objective, Redundancy, Share
from infermix.plan.slots import Slot
from infermix.plan.worth import response, speed_of, speed_of_api, usd_per_request
from infermix.workload.worth import Worth
from tests.naive.plan_day import Answer, best
from tests.plan.questions import CAT, MODEL, demand, offer, option, question, study

CASES = 8
SYSTEMS: tuple[tuple[str, dict[str, int]], ...] = (
    ("h100-x1", {}), ("mi300x-x1", {}), ("l40s-x1", {}), ("cs3", {"stages": 2}), ("h100-x8", {"tp": 2}),
)  # fmt: skip
Random = np.random.Generator
Made = tuple[Question, list[Column]]


def market(random: Random, slots: int = 2, most: int = 2) -> Made:
    """Two classes in two slots, two systems, one bracket each."""
    picked = [SYSTEMS[i] for i in sorted(random.choice(len(SYSTEMS), 2, replace=False))]
    offers = [offer(s, float(random.uniform(1, 9)), facility_w=float(random.uniform(500, 3000))) for s, _ in picked]
    day = tuple(Slot(f"s{s}", None, 24.0 / slots) for s in range(slots))

    def busy(name: str, top: float, output: int) -> Demand:
        rates = tuple(float(random.uniform(0.2, 1.0)) * top for _ in range(slots))
        return demand(name, max(rates), output, rates_per_s=rates)

    demands = [busy("chat", float(random.uniform(2, 7)), 200), busy("code", float(random.uniform(1, 3)), 50)]
    columns = []
    for of, (_, layout) in zip(offers, picked, strict=True):
        capacity = {d.name: float(random.uniform(2, 6)) for d in demands if d.name == "chat" or random.uniform() < 0.8}
        columns.append(Column(option(of, **layout), 1, most, capacity))
    return question(offers, demands, slots=day), columns


def under(of: Question, **limits: Any) -> Question:
    return of.with_limits(Limits(**limits))


def classes(of: Question, **changes: dict[str, Any]) -> Question:
    """The question with some fields of its classes replaced, by name."""
    found = [replace(d, cls=msgspec.structs.replace(d.cls, **changes.get(d.name, {}))) for d in of.demands]
    return of.with_demands(tuple(found))


def moved(of: Question, columns: list[Column], *offers: Any) -> Made:
    """The question with these offers, and its columns on them."""
    made = [replace(c, option=replace(c.option, offer=o)) for c, o in zip(columns, offers, strict=True)]
    return replace(of, offers=tuple(offers)), made


def with_contracts(made: Made, *contracts: Contract) -> Made:
    """The first offer under these contracts."""
    of, columns = made
    return moved(of, columns, replace(of.offers[0], contracts=contracts), *of.offers[1:])


def asked(of: Question, **tables: Any) -> Question:
    return replace(of, study=msgspec.structs.replace(of.study, **tables))


def api(random: Random, **changes: Any) -> Api:
    told: dict[str, Any] = {
        "name": "house", "vendor": "Somebody", "model": CAT.models[MODEL], "input_usd_per_mtok": 0.5,
        "cached_usd_per_mtok": 0.1, "output_usd_per_mtok": float(random.uniform(0.5, 8)), "tokens_per_s": 40.0,
        "ttft_s": 0.5,
    }  # fmt: skip
    return Api(**{**told, **changes})


def shares(random: Random, of: str) -> dict[str, Any]:
    return {"max_vendor_share": float(random.uniform(0.5, 0.9)), "vendor_share_of": of}


def kind_share(made: Made, random: Random, of: str) -> Made:
    which = made[1][1].option.offer
    name = {"vendor": which.system.vendor} if random.uniform() < 0.5 else {"system": which.system.id}
    least = float(random.uniform(0.1, 0.5))
    return under(made[0], shares=[Share(of=of, least=least, most=least + 0.4, **name)]), made[1]  # type: ignore[arg-type]


def scenarios(made: Made, random: Random) -> Made:
    """One part of the day, two demands: what is had all day is had before it is known which comes."""
    of, columns = made
    p = float(random.uniform(0.2, 0.8))
    slots = (Slot("low", None, 24.0, "low", p), Slot("high", None, 24.0, "high", 1 - p))
    rent = Contract("rent", 5.0, hourly=True)
    return with_contracts((replace(of, slots=slots), columns), Contract("reserved", 3.0, supply=2), rent)


def undelivered(made: Made, random: Random) -> Made:
    of, columns = made
    p = float(random.uniform(0.3, 0.9))
    missing = frozenset({"ordered"})
    slots = (Slot("", None, 24.0, "", p), Slot("without", None, 24.0, "without", 1 - p, (), missing))
    ordered = Contract("ordered", 2.0, delivered=p, deposit=float(random.uniform(0, 0.5)))
    return with_contracts((replace(of, slots=slots), columns), ordered, Contract("rent", 8.0, hourly=True))


def take_or_pay(made: Made, random: Random) -> Made:
    least, signed = int(random.integers(1, 4)), bool(random.uniform() < 0.5)
    taken = Contract("taken", float(random.uniform(1, 4)), least_paid=least, signed=signed)
    return with_contracts(made, taken, Contract("rent", 6.0, hourly=True))


def spot(made: Made, random: Random) -> Made:
    there = Contract("spot", float(random.uniform(1, 3)), hourly=True, up=float(random.uniform(0.6, 0.95)), supply=3)
    return with_contracts(made, Contract("own", 4.0, capital_usd=1e5), there)


def capital(made: Made, random: Random) -> Made:
    of, columns = with_contracts(made, Contract("own", 1.0, capital_usd=1e5), Contract("rent", 6.0, hourly=True))
    return under(of, capital_usd=float(random.uniform(0.5e5, 3e5))), columns


def late(made: Made, random: Random) -> Made:
    return with_contracts(made, Contract("own", 0.5, late=True), Contract("rent", 6.0, hourly=True))


def served_by_api(made: Made, random: Random) -> Made:
    of, columns = made
    most = float(random.uniform(50, 900)) if random.uniform() < 0.5 else None
    return replace(of, apis=(api(random, most_tokens_per_s=most),)), columns


def rationed(made: Made, random: Random) -> Made:
    of, columns = made
    of = replace(of, offers=tuple(replace(o, supply=1) for o in of.offers))
    of = classes(of, chat={"tier": int(random.integers(1, 3))}, code={"tier": 1, "least_served": 0.1})
    return under(of, rationing=True), columns


def profit(made: Made, random: Random) -> Made:
    of, columns = made
    curve = [(5.0, 2.0), (50.0, float(random.uniform(5, 30))), (5000.0, float(random.uniform(30, 90)))]
    worth = Worth(price_curve=curve, response=float(random.uniform(0, 0.4)), reference_tokens_per_s=100.0)
    code = {"value_of_time_usd_per_hour": float(random.uniform(0, 20))}
    of = classes(of, chat={"worth": worth}, code=code)
    of = asked(of, objective=Objective(maximise="profit_usd_per_hour"))
    return replace(of, apis=(api(random),)), columns


def starts(made: Made, random: Random) -> Made:
    of, columns = with_contracts(made, Contract("rent", 3.0, hourly=True))
    slots = Slots(count=2, usd_per_start=float(random.uniform(0, 40)), load_gb_per_s=float(random.uniform(0.001, 0.01)))
    return asked(of, slots=slots), columns


def rules(made: Made, random: Random) -> Made:
    of, columns = made
    first, second = of.offers
    of, columns = moved(of, columns, replace(first, region="eu"), replace(second, models=(MODEL, "other")))
    return classes(of, code={"regions": ["eu"]}), columns


def supply(made: Made, random: Random) -> Made:
    of, columns = made
    return replace(of, offers=tuple(replace(o, supply=int(random.integers(0, 3))) for o in of.offers)), columns


def loss(made: Made, random: Random, what: str) -> Made:
    kept = Redundancy(**{what: float(random.uniform(0.2, 0.9))})
    of, columns = made
    return replace(under(of, redundancy=kept), apis=(api(random, output_usd_per_mtok=40.0),)), columns


KINDS: dict[str, Callable[[Made, Random], Made]] = {
    "nothing": lambda made, _: made,
    "power": lambda made, r: (under(made[0], power_mw=float(r.uniform(0.002, 0.008))), made[1]),
    "budget": lambda made, r: (under(made[0], usd_per_hour=float(r.uniform(5, 25))), made[1]),
    "capital": capital,
    "supply": supply,
    "delivery": late,
    "vendor_spend": lambda made, r: (under(made[0], **shares(r, "spend")), made[1]),
    "vendor_capacity": lambda made, r: (under(made[0], **shares(r, "capacity")), made[1]),
    "vendor_tokens": lambda made, r: (under(made[0], **shares(r, "output_tokens")), made[1]),
    "share_spend": lambda made, r: kind_share(made, r, "spend"),
    "share_capacity": lambda made, r: kind_share(made, r, "capacity"),
    "share_tokens": lambda made, r: kind_share(made, r, "output_tokens"),
    "system_lost": lambda made, r: loss(made, r, "system"),
    "vendor_lost": lambda made, r: loss(made, r, "vendor"),
    "rules": rules,
    "api": served_by_api,
    "rationing": rationed,
    "deferrable": lambda made, r: classes_waiting(swinging(made, r)),
    "starts": starts,
    "take_or_pay": take_or_pay,
    "spot": spot,
    "scenarios": scenarios,
    "undelivered": undelivered,
    "profit": profit,
    "all_at_once": lambda made, r: (under(
        served_by_api(classes_waiting(spot(made, r)), r)[0], power_mw=0.02, usd_per_hour=60.0,
        shares=[Share(kind="hbm", least=0.1)]), spot(made, r)[1]),
}  # fmt: skip


def swinging(made: Made, random: Random) -> Made:
    of, columns = made
    rates = (float(random.uniform(6, 12)), float(random.uniform(0, 1)))
    busy = replace(of.demands[0], rate_per_s=rates[0], rates_per_s=rates)
    return of.with_demands((busy, *of.demands[1:])), columns


def classes_waiting(made: Made) -> Made:
    return classes(made[0], chat={"deferrable": True}), made[1]


def worth(server: Any, of: Demand) -> tuple[float, float]:
    """What the equations take as given: worth of a request and response, by server and class."""
    speed = speed_of(server.option, of) if isinstance(server, Column) else speed_of_api(server)
    return usd_per_request(of, speed), response(of, speed)


def solved(of: Question, columns: list[Column]) -> Solution | None:
    try:
        return model.solve(model.build(of, make_table(of, columns)), gap=0.0)
    except NoAnswer:
        return None


def agree(made: Made) -> Answer | None:
    of, columns = made
    expected, found = best(of, columns, worth if of.profits else None), solved(of, columns)
    if expected is None:
        assert found is None
        return None
    assert found is not None, expected
    assert found.loss_usd_per_hour == pytest.approx(expected.loss, abs=0.005)
    for tier, tokens in zip(sorted({d.cls.tier for d in of.demands}), expected.unmet, strict=False):
        mine = [d for d in of.demands if d.cls.tier == tier]
        unmet = found.unmet
        got = sum(d.mean_output * slot.weight * unmet.get(d.name, [0.0] * len(of.slots))[s]
                  for d in mine for s, slot in enumerate(of.slots))  # fmt: skip
        assert got == pytest.approx(tokens, abs=1e-3)
    return expected


def case(kind: str, number: int) -> Made:
    random = np.random.default_rng([sorted(KINDS).index(kind), number])
    return KINDS[kind](market(random, slots=2), random)


@pytest.mark.parametrize("number", range(CASES))
@pytest.mark.parametrize("kind", KINDS)
def test_the_program_equals_brute_force(kind: str, number: int) -> None:
    agree(case(kind, number))


def test_two_hundred_studies() -> None:
    assert len(KINDS) * CASES >= 200


def test_most_have_an_answer_and_some_have_none() -> None:
    answers = {kind: [solved(*case(kind, n)) is not None for n in range(CASES)] for kind in KINDS}
    share = np.mean([found for row in answers.values() for found in row])
    assert 0.5 < share < 0.98
    assert all(any(row) for row in answers.values()), answers


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("nothing", "profit")])
def test_each_kind_makes_a_difference(kind: str) -> None:
    """Else the equations of a limit could be left out without anybody noticing."""
    assert any(_differs(kind, n) for n in range(CASES))


def _differs(kind: str, number: int) -> bool:
    random = np.random.default_rng([sorted(KINDS).index(kind), number])
    free, bound = solved(*market(random, slots=2)), solved(*case(kind, number))
    if free is None or bound is None:
        return (free is None) != (bound is None)
    return abs(free.usd_per_hour - bound.usd_per_hour) > 0.01


def test_a_study_file_of_it_all_is_read() -> None:
    """The builder's names are those of the file."""
    made = study(limits={"rationing": True, "redundancy": {"system": 0.5}, "shares": [{"kind": "hbm", "least": 0.1}]})
    assert made.limits.rationing and made.limits.shares[0].of == "output_tokens"

"""Operating points by simulation: the best of all points is found, though few are simulated."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import msgspec
import numpy as np
import pytest

from infermix.perf.measured import within_measured
from infermix.plan import tuning
from infermix.plan.capacity import Capacities
from infermix.plan.options import Option, Options, able, find_options, queue_free_capacity
from infermix.plan.question import Demand, Question, ask
from infermix.plan.rules import Limits
from infermix.plan.shortlist import shortlist
from infermix.plan.tuning import CAPS, CHUNKS, MOST_SIZE, best_point, openings, shape, tuned
from tests.plan.questions import CHAT, study


class Told(Capacities):
    """Capacities that are told instead of simulated: a share of the queue-free one, by the point's number."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed, self.asked = seed, []  # type: ignore[var-annotated]

    def share(self, option: Option, name: str) -> float:
        d = option.deployment
        return float(np.random.default_rng([self.seed, d.max_num_seqs, d.max_batched_tokens, len(name)]).random())

    def simulate(self, option: Option, demand: Demand, size: int) -> float:
        self.asked.append((option.name, demand.name, size))
        return self.share(option, demand.name) * queue_free_capacity(option, demand)


@cache
def asked() -> Question:
    traffic = {"chat": CHAT, "code": {**CHAT, "profile": "azure-code-2023", "rate_per_s": 6.0}}
    return ask(study(traffic=traffic, market={"systems": ["h100-x1", "l40s-x1", "h100-x2"]}))


@cache
def found() -> Options:
    return find_options(asked())


def points(option: Option) -> list[Option]:
    """Every point that is tried."""
    made = [option]
    for cap in CAPS:
        for chunk in CHUNKS:
            d = msgspec.structs.replace(option.deployment, max_num_seqs=cap, max_batched_tokens=chunk)
            made.append(replace(option, deployment=within_measured(d)))
    return made


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", ["chat", "code"])
def test_the_best_of_all_points_is_found_and_few_are_simulated(seed: int, name: str) -> None:
    demand = next(d for d in asked().demands if d.name == name)
    few = 0
    for option in shortlist(asked(), found()):
        told = Told(seed)
        best, most = best_point(option, demand, told)
        usable = [point for point in points(option) if able(point, demand)]
        twin = max(told.share(p, name) * queue_free_capacity(p, demand) for p in usable)
        assert most == pytest.approx(twin)
        assert told.share(best, name) * queue_free_capacity(best, demand) == pytest.approx(twin)
        assert shape(best) == shape(option)
        assert {size for *_, size in told.asked} <= {1, 2, 4, MOST_SIZE}
        few += len(told.asked) < len({point.name for point in usable})
    assert few


def test_points_that_hold_nothing_are_no_answer() -> None:
    class Nothing(Told):
        def share(self, option: Option, name: str) -> float:
            return 0.0

    demand = asked().demands[0]
    option = shortlist(asked(), found())[0]
    assert best_point(option, demand, Nothing(0)) == (option, 0.0)
    assert tuned(asked(), openings(asked(), found().kept, [option]), Nothing(0), lambda _: None) == []


def test_openings_hold_the_shortlist_and_the_cheapest_of_every_system() -> None:
    short = shortlist(asked(), found())
    opened = openings(asked(), found().kept, short)
    names = [o.name for o in opened]
    assert len(names) == len(set(names)) and {o.name for o in short} <= set(names)
    for demand in asked().demands:
        for offer in asked().offers:
            mine = [k for k in found().kept if k.option.offer.key == offer.key and demand.name in k.capacity]
            if not mine:
                continue
            best = min(mine, key=lambda k: (k.option.usd_per_hour / k.capacity[demand.name], k.option.name))
            assert best.option.name in names
    fewer = openings(asked().with_offers(["l40s-x1"]), found().kept, [])
    assert fewer and {o.offer.system.id for o in fewer} == {"l40s-x1"}


@pytest.mark.parametrize("seed", range(4))
def test_what_could_be_cheaper_than_what_was_tuned_was_tuned(seed: int) -> None:
    """No opening has a queue-free cost of a request below what the tuned ones cost, unless it was looked at."""
    told = Told(seed)
    opened = openings(asked(), found().kept, shortlist(asked(), found()))
    made = tuned(asked(), opened, told, lambda _: None)
    looked = {(name, cls) for name, cls, _ in told.asked}
    shapes = {(shape(o), cls) for o in opened for name, cls in looked if name == o.name}
    for demand in asked().demands:
        costs = [
            o.usd_per_hour / (told.share(o, demand.name) * queue_free_capacity(o, demand))
            for o in made
            if (o.name, demand.name) in looked
        ]
        for option in opened:
            if able(option, demand) and (shape(option), demand.name) not in shapes:
                assert option.usd_per_hour / queue_free_capacity(option, demand) >= min(costs) * (
                    1 - tuning.NEAR - 1e-9
                )


def test_limits_that_leave_nothing_tune_nothing() -> None:
    opened = openings(asked(), found().kept, shortlist(asked(), found()))
    poor = asked().with_limits(Limits(usd_per_hour=0.01))
    told = Told(1)
    assert tuned(poor, opened, told, lambda _: None) == []
    assert not told.asked

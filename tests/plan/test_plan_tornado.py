"""The figures that an answer hangs on, each at both ends of its range."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infermix.catalog.query import figure
from infermix.perf.figures import of_deployment
from infermix.plan.model import Column
from infermix.plan.tornado import speed_factor, tornado, with_figure
from tests.plan.questions import CAT, demand, offer, option, question
from tests.plan.test_plan_day import Made, solved


def market(usd: float = 2.0) -> Made:
    """H100 at its catalogue price against MI300X at a stated one."""
    rent = CAT.systems["h100-x1"].rent_usd_per_hour
    assert rent is not None
    mine = offer("h100-x1", rent.value)
    price = type(mine.price)(rent.value, "rent", ("systems/h100-x1/rent_usd_per_hour",))
    offers = [replace(mine, price=price), offer("mi300x-x1", usd)]
    chat = demand("chat", 100.0, 200)
    return question(offers, [chat]), [Column(option(o), 0, 200, {"chat": 2.0}) for o in offers]


def test_a_faster_memory_does_less_work() -> None:
    of, columns = market()
    gpu, chat = columns[0].option, of.demands[0]
    now = gpu.deployment.chip.mem_bytes_per_s
    assert now is not None
    assert speed_factor(gpu, (chat,), "chips/h100-sxm/mem_bytes_per_s", now.value) == pytest.approx(1.0)
    assert speed_factor(gpu, (chat,), "chips/h100-sxm/mem_bytes_per_s", now.value / 2) < 0.9
    assert speed_factor(gpu, (chat,), "chips/h100-sxm/mem_bytes_per_s", now.value * 2) > 1.1


def test_every_figure_of_a_deployment_can_be_set() -> None:
    d = market()[1][0].option.deployment
    for id_ in of_deployment(d):
        now = figure(CAT, id_).value
        assert with_figure(d, id_, now) == d and with_figure(d, id_, now * 2 + 1) != d


def test_a_price_that_may_fall_below_the_other_decides() -> None:
    """The choice survives the ends that leave H100 the dearer, and no others."""
    of, columns = market()
    rent = figure(CAT, "systems/h100-x1/rent_usd_per_hour")
    assert rent.low is not None and rent.high is not None and rent.low < rent.high
    between = 0.5 * (rent.low + rent.value)
    of = replace(of, offers=(of.offers[0], offer("mi300x-x1", between)))
    base = solved(of, columns)
    assert base is not None and base.had["mi300x-x1"][0] == 50
    swings = tornado(of, [c.option for c in columns], lambda q: solved(q, columns), base, 40)
    (mine,) = [s for s in swings if s.id == "systems/h100-x1/rent_usd_per_hour"]
    assert not mine.survives_low and mine.survives_high
    assert mine.usd_at_low == pytest.approx(50 * rent.low) and mine.usd_at_high == pytest.approx(base.usd_per_hour)


def test_the_widest_swing_comes_first_and_no_figure_twice() -> None:
    of, columns = market()
    base = solved(of, columns)
    assert base is not None
    swings = tornado(of, [c.option for c in columns], lambda q: solved(q, columns), base, 12)
    ids = [s.id for s in swings]
    assert len(ids) == len(set(ids)) > 3
    spread = [max(s.usd_at_low or 0, s.usd_at_high or 0, base.usd_per_hour)
              - min(s.usd_at_low or 1e9, s.usd_at_high or 1e9, base.usd_per_hour) for s in swings]  # fmt: skip
    assert spread == sorted(spread, reverse=True)
    assert all(s.low <= figure(CAT, s.id).value <= s.high for s in swings)

"""Every chip for one model: order, front, reasons, prices."""

from __future__ import annotations

import math
from typing import Any

import pytest

from infermix.catalog.load import catalog
from infermix.catalog.query import figure
from infermix.cost.rent import Terms
from infermix.errors import InputError, NoAnswer
from infermix.explore.chips import SORTS, WHY_NOT, Chips, FrontPoint, Sort, compare, front_of
from infermix.explore.point import Ask, answer
from infermix.perf.operating import Load
from infermix.perf.specdec import Speculation
from infermix.perf.sweep import Wish

CAT = catalog()
LOAD = Load(100_000, 300)


def table(sort: Sort = "usd", model: str = "llama-3.3-70b", load: Load = LOAD, **options: Any) -> Chips:
    wish = {k: options.pop(k) for k in ("kv", "spec", "least_tokens_per_s_user") if k in options}
    return compare(CAT, CAT.models[model], Wish(load=load, **wish), sort=sort, **options)


@pytest.fixture(scope="module")
def by_usd() -> Chips:
    return table()


def test_every_chip_has_one_row_or_one_reason(by_usd: Chips) -> None:
    names = [r.chip for r in by_usd.rows] + [r.chip for r in by_usd.cannot]
    assert sorted(names) == sorted(CAT.chips) and len(by_usd.rows) > 60
    assert {r.reason_kind for r in by_usd.cannot} <= set(WHY_NOT)
    assert {"no_speed", "memory", "room"} <= {r.reason_kind for r in by_usd.cannot}


@pytest.mark.parametrize("sort", SORTS)
def test_the_order_is_the_one_asked_for(sort: Sort) -> None:
    rows = table(sort, model="llama-3.1-8b", load=Load(1000, 200)).rows
    keys = {
        "usd": [math.inf if r.usd_per_mtok_output is None else r.usd_per_mtok_output for r in rows],
        "speed": [-(r.tokens_per_s_user or 0) for r in rows],
        "ttft": [r.ttft_s for r in rows],
        "throughput": [-(r.tokens_per_s_chip or 0) for r in rows],
        "chip": [r.chip for r in rows],
    }[sort]
    assert keys == sorted(keys)  # type: ignore[type-var]
    assert {r.best_for for r in rows} == {"speed" if sort in ("speed", "ttft") else "cost"}


def test_a_row_is_what_the_same_chip_is_told_alone(by_usd: Chips) -> None:
    for row in (r for r in by_usd.rows if r.chip in ("h200-sxm", "mi300x", "tpu-v6e", "trainium2")):
        alone = answer(CAT, row.system, CAT.models[row.model], Ask(load=LOAD, batch=row.batch, tp=int(row.layout[2:])))
        assert alone.prediction.tokens_per_s_user == pytest.approx(row.tokens_per_s_user)
        assert alone.prediction.ttft_s == pytest.approx(row.ttft_s)
        assert alone.cost is not None and alone.cost.usd_per_mtok_output == pytest.approx(row.usd_per_mtok_output)
        assert alone.cost.usd_per_hour == pytest.approx(row.usd_per_hour)


def test_nothing_beats_the_front_and_the_front_is_ordered(by_usd: Chips) -> None:
    front = by_usd.front
    costs, speeds = [p.usd_per_mtok_output for p in front], [p.tokens_per_s_user for p in front]
    assert costs == sorted(costs) and speeds == sorted(speeds) and len(front) > 3
    for line in by_usd.by_chip.values():
        for p in line:
            above = [q for q in front if q.tokens_per_s_user >= p.tokens_per_s_user]
            assert above and min(q.usd_per_mtok_output for q in above) <= p.usd_per_mtok_output
    cheapest = min(r.usd_per_mtok_output for r in by_usd.rows if r.usd_per_mtok_output)
    assert front[0].usd_per_mtok_output == pytest.approx(cheapest)


def test_front_of_drops_what_is_slower_and_dearer() -> None:
    def point(speed: float, cost: float) -> FrontPoint:
        return FrontPoint(chip="x", kind="hbm", layout="", batch=1, tokens_per_s_user=speed, usd_per_mtok_output=cost)

    kept = front_of([point(10, 1), point(5, 2), point(20, 3), point(20, 4), point(9, 1), point(30, 3)])
    assert [(p.tokens_per_s_user, p.usd_per_mtok_output) for p in kept] == [(10, 1), (30, 3)]


def test_a_least_speed_is_kept_and_the_slow_are_named() -> None:
    fast = table(least_tokens_per_s_user=100.0, model="gpt-oss-120b", load=Load(1000, 200))
    free = table(model="gpt-oss-120b", load=Load(1000, 200))
    assert all((r.tokens_per_s_user or 0) >= 100 for r in fast.rows)
    slow = [r for r in fast.cannot if r.reason_kind == "too_slow"]
    assert slow and {r.chip for r in slow} | {r.chip for r in fast.rows} == {r.chip for r in free.rows}
    least = {r.chip: r.usd_per_mtok_output for r in free.rows}
    assert all(r.usd_per_mtok_output >= least[r.chip] for r in fast.rows if r.usd_per_mtok_output)  # type: ignore[operator]
    fastest = {r.chip: r.fastest_tokens_per_s_user or 0.0 for r in free.rows}
    assert all(fastest[r.chip] < 100 for r in slow)


def test_terms_bring_in_the_chips_that_only_had_another_price(by_usd: Chips) -> None:
    terms = Terms(gross_margin=0.4, life_years=5, usd_per_kwh=0.08)
    more = table(terms=terms)
    before = {r.chip: r.usd_per_mtok_output for r in by_usd.rows}
    after = {r.chip: r.usd_per_mtok_output for r in more.rows}
    assert before["wse3"] is None and after["wse3"] is not None
    assert all(after[chip] == cost for chip, cost in before.items() if cost is not None)
    assert all(r.no_price and r.price_basis == "" for r in by_usd.rows if r.usd_per_mtok_output is None)


def test_every_figure_named_is_in_the_catalogue(by_usd: Chips) -> None:
    assert all(math.isfinite(figure(CAT, id_).value) for id_ in by_usd.figures)
    chips = {id_.split("/")[1] for id_ in by_usd.figures if id_.startswith("chips/")}
    assert chips >= {r.chip for r in by_usd.rows}
    for row in by_usd.rows:
        if row.usd_per_mtok_output is not None:
            assert f"systems/{row.system}/rent_usd_per_hour" in by_usd.figures


def test_questions_that_no_chip_can_answer() -> None:
    with pytest.raises(NoAnswer, match="131,072"):
        table(load=Load(200_000, 200))
    with pytest.raises(InputError, match="multi-token prediction"):
        table(spec=Speculation("mtp", 2, 2.3))
    assert table(model="deepseek-v3.2", load=Load(1000, 200), spec=Speculation("mtp", 2, 2.3)).rows

"""Mending: pools that missed count for less, never for more; what is solved keeps limits; what is kept is recalled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from infermix.plan.cache import Store
from infermix.plan.evidence import Evidence
from infermix.plan.mending import MORE, START, Mends, kept_for_later, mends_of, recalled
from infermix.plan.model import Choice, Column, Solution
from infermix.plan.offers import Offer
from infermix.plan.options import queue_free_capacity
from infermix.plan.question import Question
from tests.plan.questions import demand, offer, option, question

SHARE = 0.5
"""Simulated capacity over the queue-free one."""
RATE = 700.0


def small(prices: Sequence[float] = (2.0, 3.1), supply: int | None = None) -> Mends:
    """Chat on two systems, one pool of each."""
    offers = (offer("h100-x1", prices[0], supply), offer("h200-x1", prices[1]))
    asked = question(list(offers), [demand("chat", RATE, 100)])
    return Mends(asked, [column(one, asked) for one in offers])


def column(of: Offer, asked: Question) -> Column:
    mine = option(of)
    return Column(mine, 0, 1000, {d.name: SHARE * queue_free_capacity(mine, d) for d in asked.demands})


def counts(mends: Mends, i: int) -> float:
    """What an instance of a pool counts for [1/s]."""
    one = mends.columns[i]
    bound = queue_free_capacity(one.option, mends.question.demands[0])
    return min(one.capacity["chat"] * mends.factor(one.pool, 0), bound)


def solved(mends: Mends) -> Solution:
    found = mends.solve()
    assert found is not None
    return found


def evidence(offered: Sequence[float], met: Sequence[float]) -> Evidence:
    """Counts of one class by pool; the rest is nothing."""
    sent, good = np.array([offered], dtype=float), np.array([met], dtype=float)
    zero, nothing = np.zeros(sent.shape[1]), np.zeros_like(sent)
    return Evidence("low", ("chat",), sent.sum(axis=1), good.sum(axis=1), sent, good, nothing, nothing, zero, zero)


def cheapest(mends: Mends) -> float:
    """Twin: every number of instances of either pool."""
    each, prices = [counts(mends, i) for i in range(2)], [o.price.usd_per_hour for o in mends.question.offers]
    most = [ceil(RATE / rate) + 1 for rate in each]
    supply = [o.supply if o.supply is not None else 10**9 for o in mends.question.offers]
    pairs = itertools.product(range(most[0]), range(most[1]))
    fits = [p for p in pairs if np.dot(p, each) >= RATE - 1e-6 and all(n <= s for n, s in zip(p, supply, strict=True))]
    return min(float(np.dot(p, prices)) for p in fits)


@pytest.mark.parametrize("factors", [(None, None), (0.9, None), (0.7, 1.02), (None, 0.8), (0.55, 0.6)])
@pytest.mark.parametrize("supply", [None, 2])
def test_the_fleet_of_what_pools_count_for_is_the_cheapest(
    factors: tuple[float | None, ...], supply: int | None
) -> None:
    mends = small(supply=supply)
    for one, factor in zip(mends.columns, factors, strict=True):
        if factor is not None:
            mends.factors[one.pool, 0] = factor
    found = solved(mends)
    assert found.usd_per_hour == pytest.approx(cheapest(mends), abs=0.01)
    assert sum(c.rates["chat"] for c in found.choices) == pytest.approx(RATE)
    for choice in found.choices:
        i = next(i for i, one in enumerate(mends.columns) if one.pool == choice.column.pool)
        assert choice.rates["chat"] <= choice.instances * counts(mends, i) * (1 + 1e-6)


def test_a_pool_never_counts_for_more_than_its_queue_free_bound() -> None:
    mends = small()
    mends.factors = {(one.pool, 0): 5.0 for one in mends.columns}
    for choice in solved(mends).choices:
        bound = queue_free_capacity(choice.column.option, mends.question.demands[0])
        assert choice.rates["chat"] <= choice.instances * bound * (1 + 1e-6)


def test_a_miss_takes_an_instance_or_moves_the_traffic() -> None:
    """The pool that missed counts for less, the other for as much; its traffic no longer fits into its instances."""
    mends = small((2.0, 20.0))
    (choice,) = solved(mends).choices
    before = mends.factor(choice.column.pool, 0)
    other = next(one.pool for one in mends.columns if one.pool != choice.column.pool)
    mends.take_off(0, (choice,), mends.question, evidence([1000.0], [800.0]), ["chat"])
    assert mends.factor(choice.column.pool, 0) < before
    assert mends.factor(other, 0) == START
    rate = choice.column.capacity["chat"] * mends.factor(choice.column.pool, 0)
    assert choice.rates["chat"] / rate >= choice.instances + MORE - 1e-9
    again = solved(mends)
    assert again.usd_per_hour > 0.0
    assert sum(c.instances for c in again.choices) > choice.instances


@pytest.mark.parametrize("met", [990.0, 940.0, 700.0, 0.0])
def test_deratings_only_fall_and_fall_further_the_more_is_missed(met: float) -> None:
    mends, worse = small(), small()
    choices = solved(mends).choices
    asked, pools = mends.question, len(choices)
    for _ in range(3):
        factors = dict(mends.factors)
        mends.take_off(0, choices, asked, evidence([1000.0] * pools, [met] * pools), ["chat"])
        for key, factor in mends.factors.items():
            assert factor < factors.get(key, START)
    worse.take_off(0, choices, asked, evidence([1000.0] * pools, [met / 2] * pools), ["chat"])
    first = small()
    first.take_off(0, choices, asked, evidence([1000.0] * pools, [met] * pools), ["chat"])
    assert all(worse.factors[key] <= factor for key, factor in first.factors.items())


def test_of_two_pools_the_one_that_missed_is_taken_off() -> None:
    mends = small()
    choices = tuple(Choice(one, 4, 4, {"chat": RATE / 2}) for one in mends.columns)
    mends.take_off(0, choices, mends.question, evidence([1000.0, 1000.0], [700.0, 1000.0]), ["chat"])
    assert set(mends.factors) == {(mends.columns[0].pool, 0)}


def test_mending_ends_in_a_fleet_with_room() -> None:
    """As a simulation that accepts no pool above a load: what is accepted in the end is below it."""
    mends, most, rounds = small(), 0.8 * SHARE, 0
    while True:
        found = solved(mends)
        loads = [
            c.rates["chat"] / c.instances / queue_free_capacity(c.column.option, mends.question.demands[0])
            for c in found.choices
        ]
        if max(loads) <= most:
            break
        rounds += 1
        assert rounds < 60
        met = [1000.0 if load <= most else 900.0 for load in loads]
        mends.take_off(0, found.choices, mends.question, evidence([1000.0] * len(loads), met), ["chat"])
    assert 0 < rounds < 60
    honest = small()
    honest.factors = {(one.pool, 0): most / SHARE for one in honest.columns}
    assert solved(honest).usd_per_hour <= found.usd_per_hour <= 1.25 * solved(honest).usd_per_hour


def test_limits_that_leave_nothing_leave_no_fleet() -> None:
    asked = small().question
    short = replace(asked, offers=tuple(replace(one, supply=1) for one in asked.offers))
    assert Mends(short, [column(one, short) for one in short.offers]).solve() is None


def test_what_was_kept_is_recalled_for_the_same_study_alone(tmp_path: Path) -> None:
    mends, store = small(), Store(tmp_path)
    assert not recalled(mends.question, mends.columns, store).columns
    mends.factors[mends.columns[0].pool, 0] = 0.81
    kept_for_later(mends, store)
    again = recalled(mends.question, mends.columns, store)
    assert [one.pool for one in again.columns] == [one.pool for one in mends.columns]
    assert again.factor(mends.columns[0].pool, 0) == 0.81
    assert again.factor(mends.columns[1].pool, 0) == START
    assert not recalled(mends.question, mends.columns, Store(None)).columns


def test_an_earlier_proof_is_begun_with_unless_others_are_cheaper(tmp_path: Path) -> None:
    mends, store = small(), Store(tmp_path)
    chosen = solved(mends)
    fresh, first = mends_of(mends.question, mends.columns, chosen, store)
    assert {one.pool for one in fresh.columns} == {c.column.pool for c in chosen.choices} and not fresh.factors
    assert first.usd_per_hour == pytest.approx(chosen.usd_per_hour)
    learned = 0.9999 * START  # so little less that no instance is added
    kept_for_later(Mends(mends.question, fresh.columns, {(fresh.columns[0].pool, 0): learned}), store)
    known, _ = mends_of(mends.question, mends.columns, chosen, store)
    assert known.factors[fresh.columns[0].pool, 0] == learned
    cheaper = replace(chosen, usd_per_hour=0.8 * chosen.usd_per_hour)
    other, _ = mends_of(mends.question, mends.columns, cheaper, store)
    assert not other.factors

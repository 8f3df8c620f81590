"""Estimated capacities: below the bound, near to what is simulated, and they tell operating points apart."""

from __future__ import annotations

import math
from functools import cache
from itertools import pairwise

import numpy as np
import pytest

from infermix.arrays import Floats
from infermix.plan.candidates import ALL, BATCH_CAPS, CHUNKS, Base, excess, open_bases, seconds_at
from infermix.plan.capacity import Capacities
from infermix.plan.estimate import estimated, poisson_up_to
from infermix.plan.options import find_options, option_at
from infermix.plan.question import Demand, Question, ask
from infermix.plan.shortlist import KEPT, NEAR, shortlist
from tests.plan.questions import CHAT, study

TIGHT = {**CHAT, "slo": {"ttft_s": 2.0, "tpot_s": 0.04, "attainment": 0.99}}


@cache
def asked() -> Question:
    return ask(study(model="llama-3.3-70b", traffic={"chat": TIGHT}, market={"systems": ["h100-x8", "b200-x8"]}))


def bounds_of(base: Base, demand: Demand) -> Floats:
    """[cap, chunk] queue-free capacities; 0 where the promise cannot be kept even alone."""
    able = excess(base, demand, ALL) <= 1.0
    seconds = seconds_at(base, demand, ALL).max(axis=0).reshape(able.shape)
    return np.where(able, 1.0 / seconds, 0.0)


def test_bounds_are_kept_as_candidates_are_judged() -> None:
    question = asked()
    found, demand = find_options(question), question.demands[0]
    for b, base in enumerate(found.bases.found):
        mine = found.bounds.get((b, demand.name), np.zeros((len(BATCH_CAPS), len(CHUNKS))))
        np.testing.assert_allclose(mine, bounds_of(base, demand))
    assert found.bounds


def test_points_given_up_early_are_none_that_could_be_chosen() -> None:
    """Beside the whole search over every point."""
    question = asked()
    demand, given_up = question.demands[0], 0
    for base in open_bases(question).found:
        bound = bounds_of(base, demand)
        whole = estimated(base, demand, ALL, bound)
        best = float(whole.max())
        early = estimated(base, demand, ALL, bound, within=NEAR)
        near = whole >= best / NEAR
        np.testing.assert_array_equal(early[near], whole[near])
        assert (early[~near] <= whole[~near]).all()
        given_up += int((early < whole).sum())
        above = estimated(base, demand, ALL, bound, within=NEAR, least=1.01 * best)
        assert above.max() < 1.01 * best or best == 0.0
    assert given_up > 100


def test_poisson_is_near_to_the_exact_sum() -> None:
    for mean in (0.1, 1.0, 5.0, 40.0):
        for count in (0, 1, 4, 30, 60):
            exact = sum(math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(count + 1))
            assert float(poisson_up_to(np.array(float(count)), np.array(mean))) == pytest.approx(exact, abs=0.02)


@pytest.mark.compiled_only
@pytest.mark.parametrize("layout", ["tp4", "tp8"])
@pytest.mark.parametrize("system", ["h100-x8", "b200-x8"])
def test_estimates_are_near_to_simulated_capacities(system: str, layout: str) -> None:
    question, capacities = asked(), Capacities()
    demand = question.demands[0]
    (base, *_) = [
        b for b in open_bases(question).found if b.offer.system.id == system and b.deployment.layout == layout
    ]
    rates = estimated(base, demand, ALL, bounds_of(base, demand))
    assert (rates <= bounds_of(base, demand)).all()
    for cap, chunk in ((512, 8192), (512, 512), (64, 2048)):
        at = BATCH_CAPS.index(cap), CHUNKS.index(chunk)
        simulated = capacities.simulate(option_at(question, base, *at), demand, 4)
        assert rates[at] == pytest.approx(simulated, rel=0.4), (cap, chunk)


@pytest.mark.compiled_only
def test_the_shortlist_holds_more_than_what_looks_best_queue_free() -> None:
    """Queue-free, the largest chunk on the fewest chips is best; simulated, it costs much more."""
    question, capacities = asked(), Capacities()
    demand, found = question.demands[0], find_options(question)
    for offer in question.offers:
        mine = [o for o in shortlist(question, found) if o.offer is offer]
        assert 0 < len(mine) <= KEPT
        naive = max(
            (k for k in found.kept if k.option.offer is offer), key=lambda k: k.capacity["chat"] / k.option.usd_per_hour
        ).option
        usd = [o.usd_per_hour / capacities.simulate(o, demand, 4) for o in (*mine, naive)]
        assert min(usd[:-1]) < 0.85 * usd[-1]


def test_a_tighter_promise_never_raises_an_estimate() -> None:
    """Of the whole grid, but for the last halving of the search."""
    bases, found = open_bases(asked()).found, []
    for tpot_s in (0.03, 0.04, 0.06):
        traffic = {"chat": {**TIGHT, "slo": {**TIGHT["slo"], "tpot_s": tpot_s}}}
        demand = ask(study(model="llama-3.3-70b", traffic=traffic)).demands[0]
        limit = bounds_of(bases[-1], asked().demands[0])
        found.append(estimated(bases[-1], demand, ALL, limit))
    for tighter, looser in pairwise(found):
        assert (tighter <= looser).all() and tighter.sum() < looser.sum()

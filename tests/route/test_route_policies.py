"""Every policy: the compiled one decides as its twin does, among eligible instances, and as it always did."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix import jit
from infermix.rng import u01
from infermix.route import scorers
from infermix.route.at_once import AT_ONCE, MANY
from infermix.route.names import POLICIES
from infermix.route.registry import POLICIES as COMPILED
from infermix.route.view import Ask, FleetView
from tests.naive import policies as naive
from tests.nightly import examples
from tests.route.views import asks, make_ask, make_view, ready, views, without

every = pytest.mark.parametrize("name", POLICIES)
GOLDEN = json.loads((Path(__file__).parent / "golden.json").read_text())


@every
@settings(max_examples=examples(300), deadline=None, derandomize=True)
@given(view=views(), ask=asks())
def test_as_the_twin(name: str, view: FleetView, ask: Ask) -> None:
    assert ready(COMPILED[name])(view, ask) == getattr(naive, name)(view, ask)


@every
@settings(max_examples=examples(300), deadline=None, derandomize=True)
@given(view=st.one_of(views(), views(MANY, 256)), ask=asks())
def test_all_at_once_as_one_by_one(name: str, view: FleetView, ask: Ask) -> None:
    assert AT_ONCE[name](view, ask) == ready(COMPILED[name])(view, ask)


@every
@settings(max_examples=examples(100), deadline=None, derandomize=True)
@given(view=views(), ask=asks())
def test_asked_again_with_its_choice_masked(name: str, view: FleetView, ask: Ask) -> None:
    """Each answer is eligible, none comes twice, and all are told unless the policy refuses."""
    choose, told = ready(COMPILED[name]), list[int]()
    while (answer := choose(without(view, *told), ask)) >= 0:
        assert view.eligible[answer] and answer not in told
        told.append(answer)
    left = without(view, *told).eligible
    if name == "pool_split":
        shares = view.share[ask.class_id]
        assert not any(shares[view.pool[j]] > 0 for j in np.flatnonzero(left))
    elif name == "deadline" and view.refuse_late[ask.class_id]:
        assert not any(naive.in_time(view, ask, int(j)) for j in np.flatnonzero(left))
    else:
        assert not left.any()


@every
def test_nobody_eligible_and_one_alone(name: str) -> None:
    choose = ready(COMPILED[name])
    assert choose(make_view(3, eligible=[False] * 3), make_ask(5)) == -1
    assert choose(make_view(1), make_ask(7)) == 0
    assert choose(make_view(4, eligible=[False, False, True, False]), make_ask(6, session=3, prefix=4)) == 2
    assert choose(make_view(0), make_ask(1)) == -1


@every
def test_ties_go_in_turn(name: str) -> None:
    """Equal instances take turns; power of two draws them by lot, and affinity asks the session."""
    choose, view = ready(COMPILED[name]), make_view(4)
    if name == "power_of_two":
        answers = [choose(view, make_ask(k, u=(k + 0.5) / 40)) for k in range(40)]
        assert [answers.count(j) for j in range(4)] == [10] * 4
    else:
        assert [choose(view, make_ask(k)) for k in range(8)] == [0, 1, 2, 3] * 2


@pytest.mark.parametrize("name", GOLDEN)
def test_decisions_of_old(name: str) -> None:
    """Recorded before any other policy was there."""
    assert [ready(COMPILED[name])(golden_view(k), golden_ask(k)) for k in range(len(GOLDEN[name]))] == GOLDEN[name]


def golden_view(k: int) -> FleetView:
    n, pools, classes = 1 + k % 7, 3, 2

    def draw(stream: int, low: int, high: int, size: int = n) -> np.ndarray:  # type: ignore[type-arg]
        return low + np.floor(u01(k, stream, np.arange(size)) * (high - low + 1)).astype(np.int64)

    return make_view(
        n, classes, pools, pool=np.sort(draw(1, 0, pools - 1)), eligible=u01(k, 2, np.arange(n)) < 0.8,
        inflight=draw(3, 0, 12), waiting=draw(4, 0, 3), running=draw(5, 0, 9), queued_tokens=100 * draw(6, 0, 4),
        context_tokens=1000 * draw(7, 0, 9), max_num_seqs=draw(8, 1, 8), prefill_s_per_token=draw(9, 1, 3) / 1024,
        step_s=draw(10, 1, 4) / 128, share=np.round(4 * u01(k, 11, np.arange(6))).reshape(classes, pools) / 4,
        sent=draw(12, 0, 20, pools * classes).reshape(classes, pools),
    )  # fmt: skip


def golden_ask(k: int) -> Ask:
    return Ask(k, k % 2, 0, -1, 0.0, 100 + k, k % 50, 16.0, 0, np.inf, float(u01(k, 0, 0)), -1)


PAIRS: list[tuple[str, Callable[..., float]]] = [
    ("wait_s", naive.wait_s), ("queue_s", naive.queue_s), ("predicted_ttft_s", naive.ttft_s),
    ("predicted_tpot_s", naive.tpot_s), ("predicted_e2e_s", naive.e2e_s), ("usd_per_request", naive.usd),
    ("slo_use", naive.slo_use),
]  # fmt: skip
SCORES = {name: jit.outermost(getattr(scorers, name)) for name, _ in PAIRS}


@pytest.mark.parametrize(("name", "twin"), PAIRS, ids=[name for name, _ in PAIRS])
@settings(max_examples=examples(100), deadline=None, derandomize=True)
@given(view=views(), ask=asks())
def test_scores_are_the_twins(name: str, twin: Callable[..., float], view: FleetView, ask: Ask) -> None:
    for j in range(len(view.pool)):
        assert SCORES[name](view, ask, j) == pytest.approx(twin(view, ask, j), rel=1e-12)

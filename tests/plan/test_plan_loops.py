"""Places of a closed loop: sessions stay whole, and so do the chains in which they follow each other."""

from __future__ import annotations

import numpy as np
import pytest

from infermix.plan.loops import COPY_SHIFT_S, places_of, with_sessions
from infermix.plan.question import merged
from infermix.workload.arrivals import draw
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.requests import Requests, make_requests

LOOP = TrafficClass(profile="agentic-coding", sessions=40, slo=Slo(ttft_s=2.0))


@pytest.fixture(scope="module")
def loop() -> Requests:
    return draw({"agents": LOOP}, seed=3, requests=4000).requests


def slow_places(requests: Requests) -> list[int]:
    """Sessions joined whenever one waited for the other, one request at a time."""
    label = {int(s): int(s) for s in requests.session}

    def root(s: int) -> int:
        return s if label[s] == s else root(label[s])

    for row, mother in enumerate(requests.parent):
        if mother >= 0:
            a, b = root(int(requests.session[row])), root(int(requests.session[mother]))
            label[max(a, b)] = min(a, b)
    return [root(int(s)) for s in requests.session]


def test_places_are_the_sessions_that_waited_for_each_other(loop: Requests) -> None:
    found, slow = places_of(loop), slow_places(loop)
    assert len(set(found)) == len(set(slow)) == len(set(zip(found, slow, strict=True)))
    assert len(set(found)) <= 40 * 2
    assert (found[loop.parent[loop.parent >= 0]] == found[loop.parent >= 0]).all()


@pytest.mark.parametrize("wanted", [1, 7, 40, 95])
def test_chains_stay_whole(loop: Requests, wanted: int) -> None:
    places = places_of(loop)
    some = with_sessions(loop, places, wanted, until_s=np.inf)
    have = int(places.max()) + 1
    whole, rest = divmod(wanted, have)
    assert len(some) == whole * len(loop) + int((places < rest).sum())
    assert (np.diff(some.arrival_s) >= 0).all() and (some.parent < np.arange(len(some))).all()
    child = some.parent >= 0
    mother = some.parent[child]
    original = {
        (round(float(t), 6), int(i)): (round(float(loop.arrival_s[p]), 6), int(loop.input_tokens[p]))
        for t, i, p in zip(loop.arrival_s, loop.input_tokens, loop.parent, strict=True)
        if p >= 0
    }
    if wanted <= have:
        for row, before in zip(np.flatnonzero(child), mother, strict=True):
            key = (round(float(some.arrival_s[row]), 6), int(some.input_tokens[row]))
            assert original[key] == (round(float(some.arrival_s[before]), 6), int(some.input_tokens[before]))
    else:
        shifted = np.setdiff1d(np.round(some.arrival_s - COPY_SHIFT_S, 6), np.round(loop.arrival_s, 6))
        assert len(shifted) < len(some)


def test_only_what_comes_until_then(loop: Requests) -> None:
    some = with_sessions(loop, places_of(loop), 10, until_s=100.0)
    assert len(some) > 0 and some.arrival_s.max() < 100.0


def test_merging_keeps_parents(loop: Requests) -> None:
    other = make_requests(("chat",), [0.5, 1.5, 2.5], 10, 10)
    both = merged([loop, other])
    mine = np.flatnonzero(both.class_id == 0)
    assert both.class_names == ("agents", "chat") and len(both) == len(loop) + 3
    child = mine[both.parent[mine] >= 0]
    assert len(child) == (loop.parent >= 0).sum()
    assert (both.class_id[both.parent[child]] == 0).all()
    assert (both.session[both.parent[mine]] >= 0).all()
    assert (both.parent[both.class_id == 1] == -1).all()

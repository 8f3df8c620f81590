"""What each policy promises: draws, homes, prices, deadlines."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infermix.route import policies
from infermix.route.luck import mixed, unit_of
from infermix.route.view import Ask, FleetView
from infermix.sim.prepare import prefix_keys
from infermix.workload.requests import make_requests
from tests.naive import policies as naive
from tests.nightly import examples
from tests.route.views import asks, make_ask, make_view, ready, views, without

laws = settings(max_examples=examples(200), deadline=None, derandomize=True)


@laws
@given(view=views(), ask=asks())
def test_least_inflight_is_the_least(view: FleetView, ask: Ask) -> None:
    answer = ready(policies.least_inflight)(view, ask)
    counts = view.inflight[view.eligible]
    assert answer == -1 if not len(counts) else view.inflight[answer] == counts.min()


@laws
@given(view=views(), ask=asks())
def test_power_of_two_takes_the_better_of_its_draws(view: FleetView, ask: Ask) -> None:
    drawn = naive.draws_of_two(view, ask)
    assume(drawn is not None and drawn[0] != drawn[1])
    assert drawn is not None
    answer = ready(policies.power_of_two)(view, ask)
    assert answer in drawn
    assert naive.wait_s(view, ask, answer) == min(naive.wait_s(view, ask, j) for j in drawn)


@pytest.mark.parametrize("masked", [(), (1,), (0, 3, 4)])
def test_pairs_are_drawn_alike(masked: tuple[int, ...]) -> None:
    """Every pair of eligible instances comes as often: chi-square over the pairs, the 99.9 % point."""
    view = without(make_view(6), *masked)
    left = np.flatnonzero(view.eligible)
    pairs = {(int(a), int(b)): 0 for a in left for b in left if a < b}
    n = 12_000
    for k in range(n):
        drawn = naive.draws_of_two(view, make_ask(k, u=(k + 0.5) / n))
        assert drawn is not None
        pairs[min(drawn), max(drawn)] += 1
    expected = n / len(pairs)
    chi2 = sum((count - expected) ** 2 / expected for count in pairs.values())
    degrees = len(pairs) - 1
    assert chi2 < degrees + 3.1 * (2 * degrees) ** 0.5 + 8


@pytest.mark.parametrize(("policy", "field"), [("session_affinity", "session"), ("prefix_affinity", "prefix")])
def test_a_key_has_one_home_and_only_its_own_move(policy: str, field: str) -> None:
    """Rendezvous: counters that stay bearable move nobody; one instance less moves only those that were there."""
    choose, idle = ready(getattr(policies, policy)), make_view(5)
    busy = idle._replace(inflight=np.array([3, 0, 1, 2, 0]), context_tokens=np.array([3, 0, 1, 2, 0]) * 500)
    homes = [choose(idle, make_ask(k, **{field: k})) for k in range(1000)]
    assert [choose(busy, make_ask(9 * k, **{field: k})) for k in range(1000)] == homes
    assert min(homes.count(j) for j in range(5)) > 150
    for gone in range(5):
        moved = [choose(without(idle, gone), make_ask(k, **{field: k})) for k in range(1000)]
        assert all(after == before for before, after in zip(homes, moved, strict=True) if before != gone)
        assert gone not in moved


def test_homes_follow_speed() -> None:
    """An instance of three times the tokens a second is home to three times the sessions."""
    view = make_view(2, step_s=[0.01, 0.03])
    homes = [ready(policies.session_affinity)(view, make_ask(k, session=k)) for k in range(4000)]
    assert homes.count(0) / 4000 == pytest.approx(0.75, abs=0.03)


@laws
@given(view=views(), ask=asks(), key=st.integers(0, 2**31 - 1))
def test_nobody_waits_long_at_home(view: FleetView, ask: Ask, key: int) -> None:
    ask = ask._replace(session=key)
    answer = ready(policies.session_affinity)(view, ask)
    if answer >= 0:
        least = min(naive.queue_s(view, ask, int(j)) for j in np.flatnonzero(view.eligible))
        reading = ask.input_tokens * view.prefill_s_per_token[answer]
        assert naive.queue_s(view, ask, answer) <= policies.SPILL_FACTOR * least + reading + 1e-12


def test_a_session_leaves_a_full_home() -> None:
    view, ask = make_view(3), make_ask(session=11)
    home = ready(policies.session_affinity)(view, ask)
    queued = np.zeros(3, dtype=np.int64)
    queued[home] = 999  # its wait is below the reading of 1000 tokens
    assert ready(policies.session_affinity)(view._replace(queued_tokens=queued), ask) == home
    queued[home] = 1001
    assert ready(policies.session_affinity)(view._replace(queued_tokens=queued.copy()), ask) != home


def test_prefix_before_session_before_wait() -> None:
    choose, view = ready(policies.prefix_affinity), make_view(7)
    for k in range(50):
        by_prefix = choose(view, make_ask(k, session=k, prefix=1))
        assert by_prefix == choose(view, make_ask(0, session=-1, prefix=1))
        assert choose(view, make_ask(k, session=k)) == ready(policies.session_affinity)(view, make_ask(k, session=k))


def test_keys_of_prefixes() -> None:
    """Equal where the first two blocks are; unknown without blocks."""
    requests = make_requests(("c",), [0.0, 1.0, 2.0, 3.0, 4.0], 100, 10)
    assert prefix_keys(requests).tolist() == [-1] * 5
    blocks = [[0, 7, 8], [0, 7, 9], [0, 8], [0], []]
    start = np.cumsum([0, *map(len, blocks)])
    known = replace(requests, block_start=(start,), block_ids=(np.concatenate(blocks).astype(np.int64),))
    keys = prefix_keys(known)
    assert keys[0] == keys[1] and len({*keys[1:4].tolist()}) == 3 and keys[4] == -1 and min(keys[:4]) >= 0


def test_scrambling_is_one_to_one_and_even() -> None:
    assert len({mixed(k) for k in range(100_000)}) == 100_000
    drawn = np.array([unit_of(key, j) for key in range(2000) for j in range(5)])
    counts = np.histogram(drawn, bins=20, range=(0, 1))[0]
    assert ((counts - 500) ** 2 / 500).sum() < 45  # 19 degrees of freedom, 99.9 %
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.03


@laws
@given(view=views(), ask=asks())
def test_generous_promises_buy_the_cheapest(view: FleetView, ask: Ask) -> None:
    free = np.full(2, np.inf)
    view = view._replace(slo_ttft_s=free, slo_tpot_s=free, slo_e2e_s=free)
    answer = ready(policies.cheapest_meeting_slo)(view, ask)
    if answer >= 0:
        assert naive.usd(view, ask, answer) == min(naive.usd(view, ask, int(j)) for j in np.flatnonzero(view.eligible))


@laws
@given(view=views(), ask=asks())
def test_promises_are_kept_where_any_instance_keeps_them(view: FleetView, ask: Ask) -> None:
    use = [naive.slo_use(view, ask, int(j)) for j in np.flatnonzero(view.eligible)]
    for name in ("cheapest_meeting_slo", "slo_headroom", "pool_split_spill"):
        answer = ready(getattr(policies, name))(view, ask)
        if use and min(use) <= 1:
            assert naive.slo_use(view, ask, answer) <= 1
        if use and name == "slo_headroom":
            assert naive.slo_use(view, ask, answer) == min(use)


@laws
@given(view=views(), ask=asks())
def test_price_of_delay_between_cheapest_and_fastest(view: FleetView, ask: Ask) -> None:
    """Worth nothing: cheapest. Worth everything: fastest. Between: the more it is worth, the dearer and sooner."""
    choose, left = ready(policies.price_of_delay), np.flatnonzero(view.eligible)
    assume(len(left) > 0)
    usd, e2e = ({int(j): f(view, ask, int(j)) for j in left} for f in (naive.usd, naive.e2e_s))
    answers = [choose(view._replace(delay_usd_per_s=np.full(2, worth)), ask) for worth in (0.0, 1e-4, 1e-2, 1.0, 1e30)]
    assert usd[answers[0]] == min(usd.values())
    known = [j for j in usd if usd[j] < np.inf] or list(usd)
    assert e2e[answers[-1]] == pytest.approx(min(e2e[j] for j in known), rel=1e-9)
    for cheaper, dearer in pairwise(answers):
        assert usd[cheaper] <= usd[dearer] * (1 + 1e-9) and e2e[cheaper] >= e2e[dearer] * (1 - 1e-9)


def test_unknown_prices_are_dearer_than_known_ones() -> None:
    view = make_view(3, usd_per_s=[np.nan, 100.0, np.nan], step_base_s=[0.001, 0.1, 0.001])
    for name in ("cheapest_meeting_slo", "price_of_delay"):
        assert ready(getattr(policies, name))(view, make_ask()) == 1
        none_known = view._replace(usd_per_s=np.full(3, np.nan))
        assert ready(getattr(policies, name))(none_known, make_ask(2)) == 2, "the soonest done, in turn"


def test_the_plans_pool_spills_both_ways_and_back() -> None:
    """Slow while it keeps the promise; then to the other pool, whichever was planned; then back."""
    choose = ready(policies.pool_split_spill)
    for planned in (0, 1):
        other = 1 - planned
        share = [[1.0 - planned, float(planned)]]
        view = make_view(2, 1, 2, share=share, slo_ttft_s=[0.5])
        assert choose(view, make_ask()) == planned
        full = view._replace(queued_tokens=np.where(np.arange(2) == planned, 10_000, 0))
        assert choose(full, make_ask()) == other
        assert choose(full._replace(queued_tokens=np.full(2, 10_000)), make_ask()) == planned
        assert choose(without(view, planned), make_ask()) == other


@laws
@given(view=views(), ask=asks())
def test_only_what_is_late_everywhere_is_refused(view: FleetView, ask: Ask) -> None:
    answer = ready(policies.deadline)(view, ask)
    left = [int(j) for j in np.flatnonzero(view.eligible)]
    timely = [j for j in left if naive.in_time(view, ask, j)]
    if timely:
        assert answer in timely
        assert naive.e2e_s(view, ask, answer) == min(naive.e2e_s(view, ask, j) for j in timely)
    elif view.refuse_late[ask.class_id] or not left:
        assert answer == -1
    else:
        assert naive.e2e_s(view, ask, answer) == min(naive.e2e_s(view, ask, j) for j in left)

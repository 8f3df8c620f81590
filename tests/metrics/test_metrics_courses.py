"""Courses over time, sessions and counted times, against loops that cannot be misread."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermix.metrics.binned import binned_percentiles, binned_quantiles
from infermix.metrics.sessions import session_times
from infermix.metrics.timeline import timeline

ROW = st.tuples(st.floats(0, 50), st.floats(0.1, 30), st.sampled_from(["good", "late", "refused", "unfinished"]))


@given(rows=st.lists(ROW, min_size=1, max_size=30))
def test_a_course_is_what_a_loop_counts(rows: list[tuple[float, float, str]]) -> None:
    arrival = np.array([a for a, _, _ in rows])
    kind = np.array([k for _, _, k in rows])
    ended = (kind == "good") | (kind == "late")
    last = np.where(ended, arrival + np.array([d for _, d, _ in rows]), np.nan)
    course = timeline(arrival, last, kind != "refused", kind == "good", 100.0, bins=10)
    assert course.edges_s.tolist() == pytest.approx(list(range(0, 101, 10)))
    for b in range(10):
        left, right = 10.0 * b, 10.0 * (b + 1)
        inside = [i for i in range(len(rows)) if left <= arrival[i] < right]
        assert course.arrivals_per_s[b] == pytest.approx(len(inside) / 10)
        assert course.completions_per_s[b] == pytest.approx(sum(left <= t < right for t in last) / 10)
        overlap = 0.0
        for i in range(len(rows)):
            if kind[i] != "refused":
                end = last[i] if ended[i] else 100.0
                overlap += max(0.0, min(right, end) - max(left, arrival[i]))
        assert course.in_flight[b] == pytest.approx(overlap / 10, abs=1e-9)
        if inside:
            assert course.attainment[b] == pytest.approx(np.mean([kind[i] == "good" for i in inside]))
        else:
            assert math.isnan(course.attainment[b])


def test_nothing_at_all_has_a_course() -> None:
    none = np.empty(0)
    course = timeline(none, none, none.astype(bool), none.astype(bool), 0.0)
    assert course.arrivals_per_s.sum() == 0 == course.in_flight.sum() and np.isnan(course.attainment).all()


def test_a_session_lasts_from_its_first_arrival_to_its_last_token() -> None:
    session = np.array([7, -1, 7, 3, 7, 3])
    arrival = np.array([1.0, 0.0, 5.0, 2.0, 9.0, 4.0])
    last = np.array([4.0, 99.0, 8.0, 3.0, 12.5, np.nan])
    times, whole = session_times(session, arrival, last)
    assert whole.tolist() == [False, True] and math.isnan(times[0]) and times[1] == 11.5


@given(
    values=st.lists(st.floats(0.01, 9.99), min_size=1, max_size=200), q=st.sampled_from([0.01, 0.5, 0.9, 0.99, 1.0])
)  # fmt: skip
def test_counted_quantiles_lie_in_the_bin_of_the_true_one(values: list[float], q: float) -> None:
    edges = np.linspace(0, 10, 101)
    counts = np.histogram(values, edges)[0]
    true = sorted(values)[math.ceil(q * len(values) - 1e-9) - 1]
    place = min(int(np.searchsorted(edges, true, side="right")) - 1, 99)
    found = float(binned_quantiles(counts, edges, np.array([q]))[0])
    assert edges[place] - 1e-9 <= found <= edges[place + 1] + 1e-9


def test_nothing_counted_has_no_percentile() -> None:
    assert all(math.isnan(v) for v in binned_percentiles(np.zeros(3, dtype=np.int64), np.arange(4.0)).values())

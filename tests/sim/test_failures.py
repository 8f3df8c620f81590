"""Random failures: exponential times, the same whatever else there is."""

from __future__ import annotations

import numpy as np
import pytest

from infermix.sim.failures import failure_events, failure_times

DAY_S = 86_400.0


def test_times_between_failures_are_exponential_and_repairs_come_on_top() -> None:
    horizon_s, repair_s = 5_000 * 3600.0, 600.0
    times = np.concatenate([failure_times(horizon_s, 2.0, repair_s, j, seed=3) for j in range(4)])
    assert len(times) == pytest.approx(4 * horizon_s / (2.0 * 3600.0 + repair_s), rel=0.03)
    up_s = np.diff(failure_times(horizon_s, 2.0, repair_s, 0, seed=3)) - repair_s
    assert up_s.min() > 0 and up_s.mean() == pytest.approx(7200.0, rel=0.06)
    assert up_s.std() == pytest.approx(7200.0, rel=0.08)
    assert np.mean(up_s > 7200.0) == pytest.approx(np.exp(-1), abs=0.03)


def test_a_longer_horizon_and_another_seed() -> None:
    short, long = (failure_times(h, 1.0, 60.0, 2, seed=1) for h in (DAY_S, 10 * DAY_S))
    assert 5 < len(short) < 50 and np.array_equal(short, long[: len(short)]) and long[len(short)] >= DAY_S
    assert (long < 10 * DAY_S).all()
    assert not np.array_equal(short, failure_times(DAY_S, 1.0, 60.0, 3, seed=1)[: len(short)])
    assert not np.array_equal(short, failure_times(DAY_S, 1.0, 60.0, 2, seed=2)[: len(short)])


def test_events_are_failures_and_the_starts_after_them() -> None:
    times = failure_times(DAY_S, 1.0, 60.0, 7, seed=1).tolist()
    found = failure_events(DAY_S, 1.0, 60.0, 7, seed=1)
    assert found[::2] == [(t, 7, "fail") for t in times]
    assert found[1::2] == [(t + 60.0, 7, "start") for t in times]
    assert failure_events(DAY_S, 1.0, 60.0, 7, seed=1, starts=False) == [(t, 7, "fail") for t in times]

"""Runs that end early, refuse, or are slower: what comes out stays consistent."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.fleet import Fleet, PoolRow, make_fleet
from infermix.perf.table import compile_table
from infermix.sim import run as run_module
from infermix.sim.result import COMPLETED, REFUSED, UNFINISHED, Run
from infermix.sim.run import simulate_fleet
from infermix.workload.requests import Requests, make_requests

CLASSES = ("chat", "code")


def fleet(**rows: dict[str, Any]) -> Fleet:
    pools = {name: msgspec.convert({"system": "h100-x1", "instances": 2, **row}, PoolRow) for name, row in rows.items()}
    return make_fleet(catalog(), pools, "llama-3.1-8b", CLASSES, "test")


def traffic(n: int = 3000, rate_per_s: float = 30.0) -> Requests:
    random = np.random.default_rng(1)
    return make_requests(
        CLASSES,
        np.cumsum(random.exponential(1 / rate_per_s, n)),
        random.integers(1, 3000, n),
        random.integers(1, 300, n),
        class_id=random.integers(0, 2, n),
    )


def check(run: Run, n: int) -> None:
    """What holds of any run, however it ended."""
    assert len(run.requests) == n == len(run.status) == len(run.instance)
    counts = {code: int((run.status == code).sum()) for code in (COMPLETED, REFUSED, UNFINISHED)}
    assert sum(counts.values()) == n
    done, taken = run.status == COMPLETED, run.instance >= 0
    assert np.array_equal(np.isfinite(run.last_s), done) and np.all(np.isfinite(run.first_s[done]))
    assert np.all(run.first_s[done] >= run.requests.arrival_s[done]) and np.all(run.last_s[done] >= run.first_s[done])
    assert np.all(taken[done]) and not taken[run.status == REFUSED].any()
    assert not np.isfinite(run.first_s[~taken]).any()
    assert run.arrived <= n and not taken[run.arrived :].any()
    assert np.all(run.request_pool[taken] == run.pool[run.instance[taken]]) and np.all(run.request_pool[~taken] == -1)
    ends = run.last_s[done]
    assert run.simulated_s == (ends.max() if len(ends) else 0.0)
    assert np.all(run.busy_s >= 0) and np.all(run.seq_steps >= run.steps) and run.kernel_s >= 0


def test_an_interrupt_between_batches_ends_the_run_cleanly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "ARRIVALS_PER_CALL", 500)
    seen = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done >= 1000:
            raise KeyboardInterrupt

    requests = traffic()
    run = simulate_fleet(fleet(a={}), requests, "least_wait", progress=progress)
    assert seen == [(500, 3000), (1000, 3000)]
    check(run, 3000)
    assert run.interrupted and run.arrived == 1000
    assert 0 < (run.status == COMPLETED).sum() < 1000
    assert np.all(run.status[1000:] == UNFINISHED)

    whole = simulate_fleet(fleet(a={}), requests, "least_wait")
    done = run.status == COMPLETED
    assert np.array_equal(run.last_s[done], whole.last_s[done]), "what was simulated is what the whole run shows"


def test_progress_counts_up_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = traffic()
    plain = simulate_fleet(fleet(a={}), requests, "round_robin")
    monkeypatch.setattr(run_module, "ARRIVALS_PER_CALL", 700)
    seen: list[tuple[int, int]] = []
    run = simulate_fleet(fleet(a={}), requests, "round_robin", progress=lambda *counts: seen.append(counts))
    assert seen == [(700, 3000), (1400, 3000), (2100, 3000), (2800, 3000), (3000, 3000)]
    assert not run.interrupted and np.array_equal(run.last_s, plain.last_s)
    check(run, 3000)


@pytest.mark.parametrize("until_s", [0.0, 1e-6, 5.0, 50.0])
def test_until_is_the_last_moment(until_s: float) -> None:
    requests = traffic()
    run = simulate_fleet(fleet(a={}), requests, "least_wait", until_s=until_s)
    whole = simulate_fleet(fleet(a={}), requests, "least_wait")
    check(run, 3000)
    assert run.simulated_s <= until_s
    assert np.array_equal(run.status == COMPLETED, whole.last_s <= until_s)
    early = whole.first_s <= until_s
    assert np.array_equal(run.first_s[early], whole.first_s[early]) and not np.isfinite(run.first_s[~early]).any()


def test_an_endless_horizon_finishes_everything() -> None:
    run = simulate_fleet(fleet(a={}), traffic(), "least_wait")
    check(run, 3000)
    assert np.all(run.status == COMPLETED) and run.arrived == 3000


def test_refused_when_nothing_fits() -> None:
    """Longer than all KV tokens of an instance: refused, and those around it are served."""
    a = fleet(a={})
    room = compile_table(a.pools[0].deployment).blocks * 16
    inputs = np.full(20, 100)
    inputs[[3, 8]] = (room, room + 5)
    outputs = np.full(20, 10)
    outputs[15] = room  # its prompt fits, its answer does not
    requests = make_requests(CLASSES, np.arange(20.0), inputs, outputs)
    run = simulate_fleet(a, requests, "least_wait")
    check_refused = np.flatnonzero(run.status == REFUSED)
    assert check_refused.tolist() == [3, 8, 15]
    assert np.all(run.status[np.setdiff1d(np.arange(20), check_refused)] == COMPLETED)
    assert np.isnan(run.first_s[check_refused]).all() and np.isnan(run.e2e_s[check_refused]).all()


def test_refused_when_no_pool_serves_the_class() -> None:
    requests = traffic(500)
    run = simulate_fleet(fleet(a={"serves": {"chat": 1.0}}), requests, "pool_split")
    check(run, 500)
    assert np.array_equal(run.status == REFUSED, requests.class_id == 1)


def test_low_speed_is_slower_for_everyone_alone() -> None:
    """One request at a time: no queue can turn the order around."""
    requests = make_requests(CLASSES, 100.0 * np.arange(30), np.arange(1, 31) * 100, np.arange(1, 31) * 5)
    nominal, low = (simulate_fleet(fleet(a={}), requests, "least_wait", speed=s) for s in ("nominal", "low"))
    factor = compile_table(fleet(a={}).pools[0].deployment).low
    assert 0 < factor < 1
    assert low.e2e_s == pytest.approx(nominal.e2e_s / factor, rel=1e-9)
    assert low.ttft_s == pytest.approx(nominal.ttft_s / factor, rel=1e-9)


def test_low_speed_is_slower_under_load() -> None:
    requests = traffic()
    nominal, low = (simulate_fleet(fleet(a={}), requests, "least_wait", speed=s) for s in ("nominal", "low"))
    assert low.busy_s.sum() > nominal.busy_s.sum() and low.e2e_s.mean() > nominal.e2e_s.mean()


def test_no_requests_at_all() -> None:
    run = simulate_fleet(fleet(a={}), make_requests(CLASSES, [], [], []), "least_wait")
    check(run, 0)
    assert run.steps.sum() == 0 and run.simulated_s == 0.0

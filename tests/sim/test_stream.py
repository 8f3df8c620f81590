"""Arrivals that come window after window: the same bits as one run over all of them, and refusals in one line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.errors import InputError
from infermix.metrics.goodput import meets
from infermix.metrics.latency import PERCENTILES
from infermix.sim import run as run_module
from infermix.sim.prepare import make_promises
from infermix.sim.result import COMPLETED, REFUSED, Run
from infermix.sim.rules import FleetRules
from infermix.sim.run import simulate_pools
from infermix.sim.state import DECODE, PREFILL, PoolSpec
from infermix.sim.stream import Ended, Streamed, simulate_stream
from infermix.sim.totals import TIMES
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.requests import Requests, make_requests
from tests.nightly import examples

CLASSES = ("chat", "code")
TYPICAL = np.array([30.0, 60.0])
POLICIES = ("round_robin", "least_wait", "power_of_two", "pool_split")
BY_INSTANCE = (
    "busy_s", "steps", "decode_tokens", "prompt_tokens", "kv_peak_blocks", "preemptions", "on_s", "seq_steps", "gaps",
)  # fmt: skip


def pool(instances: int = 2, **columns: Any) -> PoolSpec:
    tokens = 64
    given_columns: dict[str, Any] = {
        "instances": instances,
        "decode_s": 0.010 + 1e-4 * np.arange(tokens + 1),
        "mixed_s": 0.015 + 1.5e-4 * np.arange(tokens + 1),
        "per_seq_s": 1e-5, "kv_s": 1e-6, "pair_s": 1e-7, "load_s": 1e-6,
        "block_tokens": 16, "blocks": 40, "max_num_seqs": 8, "max_batched_tokens": tokens,
        "serves": np.array([True, True]),
        "prefill_s_per_token": 4e-4, "step_s": 0.012,
    }  # fmt: skip
    return PoolSpec(**{**given_columns, **columns})


def traffic(n: int, rate_per_s: float, seed: int, ties: bool = False) -> Requests:
    random = np.random.default_rng(seed)
    gaps = random.exponential(1.0 / rate_per_s, n)
    if ties:
        gaps[random.random(n) < 0.4] = 0.0
    inputs = random.integers(1, 200, n)
    return make_requests(
        CLASSES,
        np.cumsum(gaps),
        inputs,
        random.integers(1, 120, n),
        class_id=random.integers(0, 2, n),
        cached_tokens=random.integers(0, 2, n) * (inputs // 2),
    )


def part(requests: Requests, first: int, last: int) -> Requests:
    columns = {k: v[first:last] for k, v in vars(requests).items() if isinstance(v, np.ndarray)}
    return replace(requests, **columns)


def parts(requests: Requests, cuts: list[int]) -> Iterator[Requests]:
    for first, last in zip([0, *cuts], [*cuts, len(requests)], strict=True):
        yield part(requests, first, last)


def streamed(windows: Iterator[Requests], pools: list[PoolSpec], policy: str, **others: Any) -> tuple[Streamed, Ended]:
    """What the stream answers, and all that it handed on, in order of arrival."""
    seen: list[Ended] = []
    found = simulate_stream(windows, pools, policy, typical_output_tokens=TYPICAL, consume=seen.append, **others)
    number = np.concatenate([e.number for e in seen])
    order = np.argsort(number)

    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(e.run, name) for e in seen])[order]

    columns = {name: column(name) for name in ("admit_s", "first_s", "last_s", "instance", "status")}
    return found, Ended(number[order], replace(seen[-1].run, **columns))


def assert_same(found: Streamed, all_of: Ended, whole: Run) -> None:
    came = whole.came
    assert np.array_equal(all_of.number, np.flatnonzero(came))
    for name in ("admit_s", "first_s", "last_s", "instance", "status"):
        assert np.array_equal(getattr(all_of.run, name), getattr(whole, name)[came], equal_nan=name.endswith("_s")), (
            name
        )
    for name in BY_INSTANCE:
        assert np.array_equal(getattr(found.end, name), getattr(whole, name)), name
    assert (found.arrived, found.simulated_s) == (whole.arrived, whole.simulated_s)


@st.composite
def cuts_of(draw: st.DrawFn, n: int) -> list[int]:
    return sorted(draw(st.lists(st.integers(0, n), max_size=12)))


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=examples(40), deadline=None, derandomize=True)
@given(data=st.data(), n=st.integers(0, 150), seed=st.integers(0, 99), rate=st.sampled_from([5.0, 40.0, 400.0]))
def test_the_same_bits_whatever_the_windows(policy: str, data: st.DataObject, n: int, seed: int, rate: float) -> None:
    """Long prompts are refused, short memory preempts, queues grow and empty: all of it across the borders."""
    requests = traffic(n, rate, seed, ties=seed % 2 == 0)
    pools = [pool(2), pool(3, blocks=11, serves=np.array([True, seed % 3 > 0]), ranks=1 + seed % 2)]
    until_s = data.draw(st.sampled_from([np.inf, 0.5 * n / rate, 0.05, 0.0]))
    rules = data.draw(
        st.sampled_from([None, FleetRules(stale_s=0.05), FleetRules(ration_per_s=(20.0, 9.0), ration_burst=(5.0, 2.0))])
    )
    same: dict[str, Any] = {"seed": seed, "until_s": until_s, "rules": rules}
    whole = simulate_pools(requests, pools, policy, typical_output_tokens=TYPICAL, **same)
    found, all_of = streamed(parts(requests, data.draw(cuts_of(n))), pools, policy, **same)
    assert_same(found, all_of, whole)


@pytest.mark.uncompiled_s(20)
def test_queues_and_preempted_sequences_move_along() -> None:
    """Every border cuts through queues, batches, and sequences that wait to be read anew."""
    requests = traffic(150, 40.0, 2)
    pools = [pool(1, blocks=20), pool(1, blocks=30)]
    whole = simulate_pools(requests, pools, "round_robin", typical_output_tokens=TYPICAL)
    found, all_of = streamed(parts(requests, list(range(5, 150, 5))), pools, "round_robin")
    assert_same(found, all_of, whole)
    assert (
        np.all(whole.preemptions > 0)
        and np.nanmax(whole.queue_s) > 1.0
        and (whole.last_s < requests.arrival_s[-1]).sum() > 20
    )


def test_one_request_a_window_and_autoscaling() -> None:
    requests = traffic(300, 60.0, 3)
    scaled = pool(4, instances_up=1, least=1, target_inflight=3.0, scale_every_s=0.5, start_s=0.2)
    whole = simulate_pools(requests, [scaled], "least_wait", typical_output_tokens=TYPICAL)
    found, all_of = streamed(parts(requests, list(range(1, 300))), [scaled], "least_wait")
    assert_same(found, all_of, whole)
    assert len(np.unique(whole.instance)) > 1


def test_calls_of_the_kernel_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, seen = traffic(500, 80.0, 4), list[int]()
    whole = simulate_pools(requests, [pool()], "power_of_two", typical_output_tokens=TYPICAL)
    monkeypatch.setattr(run_module, "ARRIVALS_PER_CALL", 60)
    found, all_of = streamed(parts(requests, [100, 350]), [pool()], "power_of_two", progress=seen.append)
    assert_same(found, all_of, whole)
    assert seen == [60, 100, 160, 220, 280, 340, 350, 410, 470, 500]


def test_totals_are_those_of_the_whole_run() -> None:
    requests = traffic(3000, 30.0, 5)
    slos = {"chat": Slo(ttft_s=0.2, tpot_s=0.02), "code": Slo(e2e_s=1.0)}
    listed = {name: TrafficClass(profile="azure-conv-2023", rate_per_s=1.0, slo=slo) for name, slo in slos.items()}
    pools = [pool(3, blocks=16)]
    whole = simulate_pools(requests, pools, "least_wait", typical_output_tokens=TYPICAL)
    windows = parts(requests, [700, 1500, 1501])
    totals = simulate_stream(
        windows, pools, "least_wait", typical_output_tokens=TYPICAL, promises=make_promises(CLASSES, listed)
    ).totals
    assert (totals.requests, totals.unfinished) == (3000, 0)
    assert (
        totals.completed == (whole.status == COMPLETED).sum() and totals.refused == (whole.status == REFUSED).sum() > 0
    )
    uncached = requests.input_tokens - requests.cached_tokens
    for c, name in enumerate(CLASSES):
        mine = requests.class_id == c
        good = meets(slos[name], whole.ttft_s[mine], whole.tpot_s[mine], whole.e2e_s[mine], uncached[mine])
        assert totals.attainment(c) == good.mean() and 0 < good.mean() < 1
        done = mine & (whole.status == COMPLETED)
        assert totals.tokens[:, c].tolist() == [
            getattr(requests, key)[done].sum() for key in ("input_tokens", "cached_tokens", "output_tokens")
        ]
        for key in TIMES:
            values = getattr(whole, key)[mine]
            values = values[np.isfinite(values)]
            assert totals.mean_s(key, c) == pytest.approx(values.mean(), abs=1e-6)
            exact = np.percentile(values, PERCENTILES, method="inverted_cdf")
            assert list(totals.percentiles(key, c).values()) == pytest.approx(exact.tolist(), rel=0.016, abs=1e-7)


def test_an_interrupt_ends_it_cleanly() -> None:
    requests = traffic(600, 30.0, 6)

    def windows() -> Iterator[Requests]:
        yield from parts(part(requests, 0, 400), [100, 200])
        raise KeyboardInterrupt

    found, all_of = streamed(windows(), [pool()], "least_wait")
    assert found.interrupted and found.arrived == 400 == len(all_of.number)

    def stop(done: int) -> None:
        if done >= 200:
            raise KeyboardInterrupt

    found, all_of = streamed(parts(requests, [100, 200, 300]), [pool()], "least_wait", progress=stop)
    assert found.interrupted and found.arrived == 200 == len(all_of.number) and found.totals.unfinished > 0


def test_what_is_not_plain_is_refused() -> None:
    requests = traffic(20, 5.0, 7)
    sessions = replace(requests, session=np.arange(20, dtype=np.int32))
    cached = pool(prefix_cache=True)
    apart = [pool(role=PREFILL), pool(role=DECODE)]
    fails = FleetRules(events=((1.0, 0, "fail"),))
    cases: list[tuple[Requests, list[PoolSpec], FleetRules | None]] = [
        (sessions, [pool()], None), (requests, [cached], None), (requests, apart, None), (requests, [pool()], fails),
    ]  # fmt: skip
    for table, pools, rules in cases:
        with pytest.raises(InputError, match="only plain requests"):
            simulate_stream([table], pools, "least_wait", typical_output_tokens=TYPICAL, rules=rules)


def test_windows_must_follow_each_other() -> None:
    early, late = parts(traffic(20, 5.0, 8), [10])
    others = replace(late, class_names=("chat", "other"))
    for windows, said in (
        ([late, early], "begins before"),
        ([early, others], "differ in their classes"),
        ([], "no window"),
    ):
        with pytest.raises(InputError, match=said):
            simulate_stream(windows, [pool()], "least_wait", typical_output_tokens=TYPICAL)

"""Where the engine degenerates to a queue with a known answer (see docs/laws.md).

One slot, prompts of one uncached token, step times that depend on nothing: the service time of a
request is ``prompt + (output - 1) · decode`` and the instance is an M/G/1 queue under Poisson
arrivals.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from infermix.arrays import Floats, Ints
from infermix.rng import uniforms
from infermix.route.view import Ask, FleetView
from infermix.workload.requests import Requests, make_requests
from tests.laws.engines import naive_engine
from tests.laws.strategies import Engine
from tests.naive.policies import least_wait
from tests.naive.sim import NaivePool, NaiveResult

PROMPT_S, DECODE_S = 0.3, 0.1
LOAD = 0.5
GOING_ON = 0.75  # chance of one more token: mean output 1 / (1 - 0.75) = 4
MEAN_OUTPUT = 4


def single_server() -> NaivePool:
    return NaivePool(
        instances=1,
        decode_s=[DECODE_S] * 2,
        mixed_s=[PROMPT_S] * 2,
        per_seq_s=0.0,
        kv_s=0.0,
        pair_s=0.0,
        load_s=0.0,
        block_tokens=16,
        blocks=1000,
        max_num_seqs=1,
        max_batched_tokens=1,
        serves=None,
        prefill_s_per_token=PROMPT_S,
        step_s=DECODE_S,
    )


def poisson_requests(count: int, rate: float, output: Ints) -> Requests:
    gaps = -np.log(uniforms(2024, 1, count)) / rate
    return make_requests(("only",), np.cumsum(gaps), 1, output)


def enough(engine: Engine) -> int:
    return 5_000 if engine is naive_engine else 200_000


def mean_and_error(values: Floats, batches: int = 40) -> tuple[float, float]:
    """Mean of a correlated series and its standard error from batch means."""
    means = np.array([part.mean() for part in np.array_split(values, batches)])
    return float(values.mean()), float(means.std(ddof=1) / math.sqrt(batches))


def waits(table: Requests, run: NaiveResult) -> Floats:
    return np.array(run.first_s) - PROMPT_S - table.arrival_s


def pollaczek_khinchine(rate: float, mean_s: float, mean_square_s2: float) -> float:
    return rate * mean_square_s2 / (2 * (1 - rate * mean_s))


def lindley(arrival_s: Floats, service_s: Floats) -> Floats:
    """Exact waits of a single server, first come first served, one after the other."""
    wait, out = 0.0, []
    for gap, service in zip(np.diff(arrival_s, append=math.inf), service_s, strict=True):
        out.append(wait)
        wait = max(0.0, wait + float(service) - float(gap))
    return np.array(out)


@pytest.mark.parametrize("kind", ["constant", "geometric"])
def test_single_server_queue(engine: Engine, kind: str) -> None:
    """L14 (M/D/1) and L15 (M/G/1 with geometric lengths, the discrete M/M/1): every wait obeys
    Lindley's recursion, and the mean wait is that of Pollaczek and Khinchine with the true moments,
    within four standard errors (from batch means). L16: Little's law for the system and its server."""
    count = enough(engine)
    if kind == "constant":
        output = np.full(count, MEAN_OUTPUT, dtype=np.int64)
        variance_tokens = 0.0
    else:
        output = 1 + np.floor(np.log(uniforms(2024, 2, count)) / math.log(GOING_ON)).astype(np.int64)
        variance_tokens = GOING_ON / (1 - GOING_ON) ** 2
    mean_s = PROMPT_S + (MEAN_OUTPUT - 1) * DECODE_S
    rate = LOAD / mean_s
    table = poisson_requests(count, rate, output)
    run = engine(table, [single_server()], least_wait, typical_output_tokens=[float(MEAN_OUTPUT)])
    wait = waits(table, run)
    service_s: Floats = np.asarray(PROMPT_S + (output - 1) * DECODE_S, dtype=np.float64)
    assert np.allclose(wait, lindley(table.arrival_s, service_s), rtol=1e-6, atol=1e-6)

    expected = pollaczek_khinchine(rate, mean_s, mean_s**2 + variance_tokens * DECODE_S**2)
    mean, error = mean_and_error(wait)
    assert error < (0.12 if engine is naive_engine else 0.02) * expected, "too few requests to say anything"
    assert abs(mean - expected) < 4 * error

    # L16: requests in the system, counted at regular moments, against rate · time in system
    last = np.array(run.last_s)
    horizon = float(last.max())
    moments = np.linspace(0.0, horizon, 4 * count, endpoint=False)
    arrived = np.searchsorted(table.arrival_s, moments, side="right")
    left = np.searchsorted(np.sort(last), moments, side="right")
    in_system, system_error = mean_and_error((arrived - left).astype(np.float64))
    assert in_system == pytest.approx(float((last - table.arrival_s).sum()) / horizon, rel=0.01)
    assert abs(in_system - rate * (expected + mean_s)) < 4 * system_error + 0.01
    # ... and for the server alone: the busy share is the rate times the service time
    assert run.busy_s[0] == pytest.approx(float(service_s.sum()), rel=1e-9)
    assert run.busy_s[0] / horizon == pytest.approx(LOAD, rel=0.06 if engine is naive_engine else 0.01)


def test_little_seen_by_arrivals() -> None:
    """L16 again, twin only: Poisson arrivals see time averages, so the mean of ``inflight`` that they
    are shown is rate · mean time in system."""
    count, rate = 5_000, LOAD / (PROMPT_S + (MEAN_OUTPUT - 1) * DECODE_S)
    table = poisson_requests(count, rate, np.full(count, MEAN_OUTPUT, dtype=np.int64))
    seen: list[float] = []

    def record(view: FleetView, ask: Ask) -> int:
        seen.append(float(view.inflight[0]))
        return 0

    run = naive_engine(table, [single_server()], record)
    mean, error = mean_and_error(np.array(seen))
    stay = float(np.mean(np.array(run.last_s) - table.arrival_s))
    assert abs(mean - rate * stay) < 4 * error

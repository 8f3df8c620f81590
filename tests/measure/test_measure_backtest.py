"""Backtests: the part that was not fitted is predicted, and what-ifs are answered by simulation."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infermix.errors import InputError
from infermix.measure.backtest import Choices, backtest
from infermix.measure.engine import Engine
from infermix.measure.fit import replay
from infermix.measure.read import read_timed
from infermix.measure.slices import slices
from infermix.measure.steps import OwnSteps
from infermix.measure.timed import Timed
from infermix.measure.whatif import Known, answer, more, read_what_if
from infermix.rng import uniforms
from infermix.workload.requests import Requests, make_requests

REPOSITORY = Path(__file__).resolve().parents[2]
TRACES = Path(os.environ.get("INFERMIX_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "traces"
TRUE = OwnSteps(step_s=0.02, token_s=0.0005)
ENGINE = Engine(max_num_seqs=256, max_batched_tokens=2048)


def some_requests(n: int = 120, gap_s: float = 0.3) -> Requests:
    gaps = -np.log(uniforms(3, 1, n)) * gap_s
    inputs = (50 + 500 * uniforms(3, 2, n)).astype(int)
    outputs = (2 + 60 * uniforms(3, 3, n)).astype(int)
    return make_requests(("chat", "code"), np.cumsum(gaps), inputs, outputs, class_id=np.arange(n) % 2)


def some_log(**changes: Any) -> Timed:
    requests = some_requests(**changes)
    unknown = np.full(len(requests), np.nan)
    real = replay(Timed(requests, unknown, unknown), TRUE, ENGINE)
    return Timed(requests, real.ttft_s, real.e2e_s, source="made", format="made")


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    said = Choices(max_num_seqs=256, max_batched_tokens=2048, what_ifs=("traffic=1.3", "instances=2"))
    return backtest(some_log(), said)


def test_what_follows_the_same_law_is_predicted(told: dict[str, Any]) -> None:
    assert told["fit"]["requests"] == 60 and told["predicted"]["requests"] == 60
    assert all(error["median_abs_log_error"] < 0.04 for error in told["predicted"]["errors"].values())
    assert sum(group["requests"] for group in told["by_class"]) == 60
    assert sum(group["requests"] for group in told["by_time"]) == 60


def test_what_ifs_are_simulated(told: dict[str, Any]) -> None:
    traffic, instances = told["what_if"]
    assert traffic["requests"] == pytest.approx(1.3 * 120, abs=20)
    assert traffic["e2e_s"]["p50"] > told["as_it_was"]["e2e_s"]["p50"] > instances["e2e_s"]["p50"]
    json.dumps(told)


def test_the_part_that_is_predicted_does_not_enter_the_fit() -> None:
    real, said = some_log(n=50), Choices(max_num_seqs=256, max_batched_tokens=2048, what_ifs=())
    part = np.arange(len(real)) < len(real) / 2
    late = Timed(real.requests, real.ttft_s, np.where(part, real.e2e_s, real.e2e_s * 5.0), source="made")
    assert backtest(late, said)["steps"] == backtest(real, said)["steps"]


def test_a_calibration_predicts_all_and_fits_nothing() -> None:
    told = backtest(some_log(), Choices(steps=TRUE, engine=ENGINE, what_ifs=()))
    assert told["fit"]["kind"] == "calibration" and told["predicted"]["requests"] == 120
    assert told["predicted"]["errors"]["e2e_s"]["p90"] == 0.0


def test_more_traffic_keeps_what_there_is() -> None:
    requests = some_requests()
    twice = more(requests, 2.0)
    assert len(twice) == 2 * len(requests)
    assert np.isin(requests.arrival_s, twice.arrival_s).all()
    assert np.all(np.diff(twice.arrival_s) >= 0.0)
    assert more(requests, 1.0).arrival_s.tolist() == requests.arrival_s.tolist()
    assert len(more(requests, 0.5)) == pytest.approx(60, abs=20)


def test_another_system_is_told_as_the_catalogue_says() -> None:
    known = Known(some_requests(), TRUE, ENGINE, "least_wait", "llama-3.1-8b")
    told = answer(known, read_what_if("system=h100-x1"))
    assert told["completed"] == 120 and "carried" not in told
    with pytest.raises(InputError, match="did you mean 'h100-x1'"):
        answer(known, read_what_if("system=h100x1"))
    with pytest.raises(InputError, match="add --model"):
        answer(Known(known.requests, TRUE, ENGINE, "least_wait"), read_what_if("system=h100-x1"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("trafic=2", "did you mean 'traffic'"),
        ("traffic=much", "not a number"),
        ("traffic=-1", "out of range"),
        ("instances=0", "1 or more"),
        ("policy=best", "unknown policy"),
        ("traffic", "no such change"),
    ],
)
def test_changes_that_cannot_be_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_what_if(text)


def test_a_policy_needs_two_instances() -> None:
    known = Known(some_requests(), TRUE, ENGINE, "least_wait")
    with pytest.raises(InputError, match="every policy is the same"):
        answer(known, read_what_if("policy=round_robin"))
    assert answer(known, read_what_if("instances=2,policy=round_robin"))["completed"] == 120


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (Choices(share=1.0), "between 0 and 1"),
        (Choices(share=0.01), "too few requests"),
        (Choices(system="h100-x1"), "add --model"),
        (Choices(system="h100-x1", model="llama-3.1-8b", steps=TRUE, engine=ENGINE), "of its own"),
    ],
)
def test_questions_that_cannot_be_are_refused(said: Choices, says: str) -> None:
    with pytest.raises(InputError, match=says):
        backtest(some_log(), said)


def test_slices_are_hours_of_the_day_in_long_logs() -> None:
    labels, codes = slices(np.arange(0.0, 3 * 86400.0, 1800.0), 0.0)
    assert len(labels) == 24 and labels[5] == "hour 5" and np.bincount(codes).tolist() == [6] * 24


@pytest.mark.compiled_only
@pytest.mark.parametrize(("name", "system"), [("RTX4090", "rtx-4090-x1"), ("RTXPRO6000", "rtx-pro-6000-x1")])
def test_measured_runs_are_predicted_within_a_tenth(name: str, system: str) -> None:
    path = TRACES / f"vllm_measured_{name}_Llama-3.1-8B.parquet"
    if not path.exists():
        pytest.skip(f"no measured runs at {TRACES}; set INFERMIX_SHARED_DATA to the folder that holds traces/")
    said = Choices(system=system, model="llama-3.1-8b", max_batched_tokens=2048, what_ifs=())
    told = backtest(read_timed(path), said)
    off = {n: abs(point["p50"]["off"]) for n, point in told["predicted"]["percentiles"].items()}
    assert max(off.values()) < 0.1, off

"""``infermix backtest``: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infermix.measure.engine import Engine
from infermix.measure.fit import replay
from infermix.measure.steps import OwnSteps
from infermix.measure.timed import Timed
from infermix.rng import uniforms
from infermix.workload.requests import make_requests
from tests.cli.conftest import Invoke


@pytest.fixture
def log(tmp_path: Path) -> Path:
    arrivals = np.cumsum(uniforms(5, 1, 60))
    requests = make_requests(("chat",), arrivals, (40 + 400 * uniforms(5, 2, 60)).astype(int), 12)
    unknown = np.full(60, np.nan)
    steps, engine = OwnSteps(step_s=0.02, token_s=0.0005), Engine(max_num_seqs=64, max_batched_tokens=2048)
    found = replay(Timed(requests, unknown, unknown), steps, engine)
    columns = {
        "t_s": 1.7e9 + requests.arrival_s,
        "input_tokens": requests.input_tokens,
        "output_tokens": requests.output_tokens,
        "ttft_s": found.ttft_s,
        "e2e_s": found.e2e_s,
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join([*lines, '{"t_s": 1, "error": "refused"}', "broken"]) + "\n")
    return path


@pytest.mark.compiled_only
def test_a_log_is_predicted_and_lost_rows_are_told(invoke: Invoke, log: Path, tmp_path: Path) -> None:
    code, out, err = invoke("backtest", str(log), "--what-if", "traffic=1.3", "--json", str(tmp_path / "b.json"))
    assert code == 0, err
    assert "2 requests left out: 1 not a JSON object, 1 failed." in out
    assert "Predicted: the other 30" in out and "traffic=1.3" in out and "Error by class" in out
    found = json.loads((tmp_path / "b.json").read_text())
    assert {"log", "fit", "steps", "engine", "predicted", "by_class", "by_time", "as_it_was", "what_if"} <= set(found)
    assert found["log"]["left_out"] == {"not a JSON object": 1, "failed": 1}


@pytest.mark.compiled_only
def test_a_calibration_predicts_a_log(invoke: Invoke, log: Path, tmp_path: Path) -> None:
    made = {"steps": {"step_s": 0.02, "token_s": 0.0005}, "engine": {"max_num_seqs": 64, "max_batched_tokens": 2048}}
    path = tmp_path / "cal.json"
    path.write_text(json.dumps(made))
    code, out, err = invoke("backtest", str(log), "--steps", str(path), "--what-if", "instances=2,policy=round_robin")
    assert code == 0, err
    assert "Predicted: all 60, by a calibration" in out and "policy=round_robin" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--fit", "2"], "between 0 and 1"),
        (["--system", "h100-x1"], "add --model"),
        (["--system", "h100x1", "--model", "llama-3.1-8b"], "did you mean 'h100-x1'"),
        (["--policy", "best"], "unknown policy"),
        (["--what-if", "speed=2"], "no such change"),
        (["--columns", "t_s=when"], "column when (for t_s) is missing"),
        (["--steps", "/no/such.json"], "cannot be read"),
        (["--max-num-seqs", "0"], "must be 1 or more"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(invoke: Invoke, log: Path, arguments: list[str], says: str) -> None:
    code, out, err = invoke("backtest", str(log), *arguments)
    assert (code, out) == (2, ""), err
    assert err.startswith("infermix: ") and err.count("\n") == 1 and says in err

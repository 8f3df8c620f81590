"""Step times measured on a deployment of one's own stand in place of the modelled ones, in simulate and in plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infermix.errors import InputError
from infermix.fleet import make_fleet
from infermix.perf.table import compile_table
from infermix.plan.options import find_options
from infermix.plan.problem import load_study
from infermix.plan.question import ask, open_facts
from infermix.study import simulate

STEPS = {"step_s": 0.020, "token_s": 1e-4, "seq_s": 5e-5, "kv_s": 1e-7, "pair_s": 0.0, "overhead_s": 0.003}
ENGINE = {"max_num_seqs": 6, "max_batched_tokens": 512, "kv_tokens": 160_000, "instances": 1}
STUDY = """
model = "llama-3.1-8b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 0.2
slo = { ttft_s = 5.0, tpot_s = 0.1, attainment = 0.9 }
[market]
systems = ["h100-x1", "h200-x1"]
[calibration.mine]
file = "mine.json"
system = "h100-x1"
[fleet.mine]
system = "h100-x1"
instances = 1
"""


def written(folder: Path, **changes: Any) -> Path:
    """A study and the calibration that it names."""
    errors = {name: {"median_abs_log_error": 0.05} for name in ("ttft_s", "tpot_s", "e2e_s")}
    told = {"steps": {**STEPS, "overlap": False}, "engine": ENGINE, "fit": {"errors": errors}, "check": None}
    (folder / "mine.json").write_text(json.dumps({**told, **changes}))
    (folder / "study.toml").write_text(STUDY)
    return folder / "study.toml"


def test_a_measured_deployment_steps_as_it_was_measured(tmp_path: Path) -> None:
    """By hand, at several batches; the interval follows from the error of the fit."""
    study = load_study(written(tmp_path))
    d = make_fleet(open_facts(study), study.fleet, study.model, ("chat",), "here").pools[0].deployment
    table = compile_table(d)
    assert (d.max_num_seqs, d.max_batched_tokens) == (6, 512)
    assert table.decode_s[4] == pytest.approx(0.020 + 4e-4)
    np.testing.assert_array_equal(table.mixed_s, table.decode_s)
    assert (table.per_seq_s, table.kv_s, table.pair_s, table.blocks) == (5e-5, 1e-7, 0.0, 10_000)
    assert table.low == pytest.approx(np.exp(-0.122)) and table.high == pytest.approx(np.exp(0.122))


def test_simulate_gives_the_times_that_were_measured(tmp_path: Path) -> None:
    """With hardly anybody else there, a token takes a step of one sequence and its context."""
    found = simulate(written(tmp_path), requests=200)
    one = STEPS["step_s"] + STEPS["token_s"] + STEPS["seq_s"]
    p50 = found["classes"]["chat"]["tpot_s"]["p50"]
    assert one < p50 < 1.2 * one
    bare = (tmp_path / "study.toml").read_text().replace("[calibration.mine]", "[calibration.mine]\nmodel='qwen3-8b'")
    (tmp_path / "study.toml").write_text(bare)
    assert simulate(tmp_path / "study.toml", requests=200)["classes"]["chat"]["tpot_s"]["p50"] < 0.6 * one


def test_plan_reads_the_same_table(tmp_path: Path) -> None:
    question = ask(load_study(written(tmp_path)))
    options = [kept.option for kept in find_options(question).kept]
    of = {name: [o for o in options if o.deployment.system.id == name] for name in ("h100-x1", "h200-x1")}
    assert of["h100-x1"] and of["h200-x1"]
    at_low_speed = pytest.approx(1e-7 * np.exp(0.122))
    assert all(o.table.kv_s == at_low_speed for o in of["h100-x1"])
    assert {o.deployment.max_num_seqs for o in of["h100-x1"]} == {6}
    assert all(o.table.kv_s != at_low_speed for o in of["h200-x1"])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": {"step_s": 0.1}}, "not a calibration"),
        ({"steps": {**STEPS, "overlap": False, "kv_s": -1.0}}, "must be 0 or more"),
        ({"engine": {**ENGINE, "max_num_seqs": 0}}, "must be 1 or more"),
        ({"fit": None}, "not a calibration"),
    ],
)
def test_a_file_that_is_no_calibration_is_refused_in_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError, match=said) as fault:
        open_facts(load_study(written(tmp_path, **changes)))
    assert "calibration.mine" in str(fault.value) and "\n" not in str(fault.value)


def test_a_missing_file_and_a_wrong_key_are_told(tmp_path: Path) -> None:
    study = written(tmp_path)
    (tmp_path / "mine.json").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        open_facts(load_study(study))
    study.write_text(STUDY.replace('system = "h100-x1"\n[fleet', 'sistem = "h100-x1"\n[fleet'))
    with pytest.raises(InputError, match="system"):
        load_study(study)

"""``infermix plan --out``: one folder with everything, asked for before anything is planned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infermix import study
from infermix.plan.result import Plan
from infermix.study import simulate
from tests.cli.conftest import Invoke
from tests.plan.test_plan_export import planned

STUDY = """
model = "gpt-oss-120b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 3.0
slo = { ttft_s = 2.0 }
[market]
systems = ["h200-x8", "mi355x-x8", "cs3"]
[cost]
gross_margin = 0.4
"""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Plan:
    made = planned()
    gpu = [pool for pool in made.fleet if pool.name == "gpu"]
    for pool in gpu:
        pool.serves = {}
    made.fleet = gpu
    monkeypatch.setattr(study, "plan", lambda *_, **__: made)
    return made


def test_out_holds_all_that_leaves_a_plan(invoke: Invoke, tmp_path: Path, quick: Plan) -> None:
    (tmp_path / "s.toml").write_text(STUDY)
    code, out, err = invoke("plan", str(tmp_path / "s.toml"), "--out", str(tmp_path / "o"))
    assert code == 0 and "Who serves whom" in out
    found = {str(path.relative_to(tmp_path / "o")) for path in (tmp_path / "o").rglob("*") if path.is_file()}
    assert found == {"plan.json", "gateway.toml", "bill-of-materials.csv", "deploy/gpu.sh"}
    assert all(name in err for name in found)
    raw: dict[str, Any] = json.loads((tmp_path / "o" / "plan.json").read_text())
    assert raw["fleet"][0]["name"] == "gpu"
    told = simulate(tmp_path / "s.toml", fleet=tmp_path / "o" / "plan.json", requests=50, speeds="nominal")
    assert told["completed"] == 50


def test_a_folder_that_cannot_be_written_ends_it_before_planning(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "plan", lambda *_, **__: pytest.fail("planned all the same"))
    (tmp_path / "s.toml").write_text(STUDY)
    (tmp_path / "o").write_text("a file")
    code, _, err = invoke("plan", str(tmp_path / "s.toml"), "--out", str(tmp_path / "o"))
    assert code == 2 and err.count("\n") == 1 and "cannot be written" in err

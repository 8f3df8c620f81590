"""``infermix simulate``: files beside the table, a clean interrupt, choices that are refused before anything runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import polars as pl
import pytest

from infermix.sim import run as run_module
from tests.cli.conftest import Invoke

STUDY = """
name = "small"
model = "llama-3.1-8b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 20.0
slo = { ttft_s = 2.0, tpot_s = 0.05, attainment = 0.95 }
[fleet.one]
system = "h100-x1"
instances = 2
"""


@pytest.fixture
def invoke(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    (tmp_path / "s.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)

    return partial(invoke, "simulate", "s.toml")


def test_everything_that_is_asked_for_is_written_and_said(invoke: Invoke, tmp_path: Path) -> None:
    code, out, err = invoke(
        "--requests", "500", "--seeds", "2", "--json", "r.json", "--report", "r.html", "--requests-out", "r.parquet",
        "--trace-out", "t.json", "--from", "2", "--to", "5",
    )  # fmt: skip
    assert code == 0 and "seeds 1 to 2" in " ".join(out.split()) and max(map(len, out.splitlines())) <= 100
    for word in ("TTFT", "ITL", "queue", "p99 lies in", "Cost and energy", "kWh in steps", "attained"):
        assert word in out
    said = json.loads((tmp_path / "r.json").read_text())
    assert said["requests"] == 1000 and said["seeds"] == [1, 2] and not said["interrupted"]
    assert len(pl.read_parquet(tmp_path / "r.parquet")) == 500
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert "<!doctype html>" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert err.splitlines()[0] == "requests: r.parquet, 500 rows" and "report: r.html" in err
    assert "trace: t.json, " in err


def test_the_trace_is_a_minute_unless_told(invoke: Invoke, tmp_path: Path) -> None:
    assert invoke("--requests", "2500", "--trace-out", "t.json")[0] == 0
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    starts = [e["ts"] for e in events if e["ph"] == "X" and e["cat"] == "request"]
    assert 55e6 < max(starts) < 60e6


@pytest.mark.parametrize(
    ("options", "must"),
    [
        (["--seeds", "0"], ["--seeds", "0"]),
        (["--from", "5"], ["--from, --to", "--trace-out"]),
        (["--requests", "50", "--trace-out", "t.json", "--from", "9", "--to", "3"], ["--from, --to", "(9.0, 3.0)"]),
        (["--requests", "50", "--trace-out", "t.json", "--from", "1e9"], ["no request in this stretch"]),
        (["--requests", "50", "--report", "none/r.html"], ["none/r.html", "cannot be written"]),
        (["--requests", "50", "--requests-out", "none/r.parquet"], ["none/r.parquet", "cannot be written"]),
    ],
)
def test_wrong_choices_are_one_line(invoke: Invoke, options: list[str], must: list[str]) -> None:
    code, _, err = invoke(*options)
    assert code == 2 and err.count("\n") == 1 and all(word in err for word in must), err


def test_what_cannot_be_written_is_said_before_anything_runs(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_module, "simulate_fleet", lambda *_args, **_more: pytest.fail("it ran"))
    assert invoke("--report", "none/r.html")[0] == 2


def test_an_interrupted_run_is_printed_and_written_and_exits_with_130(
    invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_module, "ARRIVALS_PER_CALL", 500)
    from infermix.sim import run as module

    simulate_fleet = module.simulate_fleet

    def stopped(*args: object, progress: Callable[[int, int], None], **more: object) -> object:
        def at_1000(done: int, total: int) -> None:
            progress(done, total)
            if done >= 1000:
                raise KeyboardInterrupt

        return simulate_fleet(*args, progress=at_1000, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "simulate_fleet", stopped)
    code, out, err = invoke("--requests", "4000", "--json", "r.json", "--report", "r.html")
    assert code == 130 and err.splitlines()[-1] == "infermix: interrupted"
    assert "Interrupted: 1,000 of 4,000 requests had arrived; only those are judged." in " ".join(out.split())
    said = json.loads(Path("r.json").read_text())
    assert said["interrupted"] and said["arrived"] == 1000 and said["classes"]["chat"]["requests"] == 1000
    assert "1,000 of 4,000 requests had arrived" in Path("r.html").read_text(encoding="utf-8")


@pytest.mark.compiled_only
def test_ctrl_c_reaches_a_process(tmp_path: Path) -> None:
    """A run of some seconds is stopped after a moment: it answers with what it has."""
    (tmp_path / "s.toml").write_text(STUDY)
    slow = (
        "import sys, time\n"
        "from infermix.sim import run\n"
        "run.ARRIVALS_PER_CALL = 500\n"
        "real = run._run\n"
        "def slowly(state, view, arrivals, choose, until_s, progress):\n"
        "    def pause(done, total):\n"
        "        print('at', done, file=sys.stderr, flush=True)\n"
        "        time.sleep(0.05)\n"
        "        progress(done, total)\n"
        "    return real(state, view, arrivals, choose, until_s, pause)\n"
        "run._run = slowly\n"
        "from infermix.cli.main import main\n"
        "main(['simulate', 's.toml', '--requests', '200000', '--json', 'r.json'])\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", slow], cwd=tmp_path, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    assert process.stderr.readline().startswith("at ")
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Interrupted:" in out and err.rstrip().endswith("infermix: interrupted")
    said = json.loads((tmp_path / "r.json").read_text())
    assert said["interrupted"] and 500 <= said["arrived"] < 200_000
    assert said["completed"] + said["unfinished"] == 200_000

"""``infermix calibrate --endpoint`` on a server with known step times."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infermix.measure.read import read_timed
from infermix.serve import endpoint
from tests.cli.conftest import Invoke
from tests.serve.fake_server import Behaviour, serving

SMALL = ["--clients", "1,3", "--prompts", "20,90", "--answers", "6,14", "--each", "2", "--laps", "2"]
KEY = "sk-not-to-be-seen"


@pytest.mark.compiled_only
def test_step_times_of_a_known_server_are_found(
    invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the clock of the server, which a busy machine does not slow."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    out_path, log_path = tmp_path / "found.json", tmp_path / "log.jsonl"
    behaviour = Behaviour(step_s=0.020, token_s=0.001, key=KEY, own_clock=True)
    opened = endpoint.open_endpoint

    def on_its_clock(*args: Any, **named: Any) -> endpoint.Endpoint:
        return replace(opened(*args, **named), clock=lambda: behaviour.now_s)

    monkeypatch.setattr(endpoint, "open_endpoint", on_its_clock)
    with serving(behaviour) as url:
        code, out, err = invoke("calibrate", "--endpoint", url, *SMALL, "--json", str(out_path), "--log", str(log_path))
    assert code == 0, err
    text = out_path.read_text()
    found = json.loads(text)
    assert KEY not in out + err + text + log_path.read_text()
    assert found["failed"] == {} and found["forced"] and found["model"] == "fake"
    assert found["steps"]["token_s"] == pytest.approx(0.001, rel=0.15)
    assert all(error["median_abs_log_error"] < 0.05 for error in found["fit"]["errors"].values())
    assert all(error["median_abs_log_error"] < 0.05 for error in found["check"]["errors"].values())
    assert "Kept from the fit" in out and "every step" in out
    assert len(read_timed(log_path)) == found["requests"]


@pytest.mark.compiled_only
def test_failures_and_unknown_fields_are_counted_and_told(invoke: Invoke) -> None:
    behaviour = Behaviour(step_s=0.004, token_s=0.0001, fails_every=5, knows_ignore_eos=False)
    with serving(behaviour) as url:
        code, out, err = invoke("calibrate", "--endpoint", f"{url}/v1", *SMALL, "--api", "completions", "--no-check")
    assert code == 0, err
    assert "questions failed" in out or "requests failed" in out
    assert "HTTP 500: out of luck" in " ".join(out.split())
    assert "knows no ignore_eos" in out
    assert all("prompt" in body for body in behaviour.seen)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "one of --tables, --rows and --endpoint"),
        (["--endpoint", "http://127.0.0.1:9"], "the server does not answer"),
        (["--endpoint", "http://127.0.0.1:9", "--clients", "1,x"], "not whole numbers"),
        (["--endpoint", "http://127.0.0.1:9", "--clients", "0,1"], "from 1 on"),
        (["--endpoint", "http://127.0.0.1:9", "--answers", "1"], "an answer needs 2 tokens"),
        (["--endpoint", "http://127.0.0.1:9", "--api", "soap"], "unknown API"),
        (["--endpoint", "http://127.0.0.1:9", "--json", "/no/such/folder/x.json"], "no such folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(invoke: Invoke, arguments: list[str], says: str) -> None:
    code, out, err = invoke("calibrate", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("infermix: ") and err.count("\n") == 1 and says in err

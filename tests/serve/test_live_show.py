"""``make live``: the files that it writes can be served and emulated, and its verdict can be no."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.serve.config import read_gateway
from infermix.serve.emulator.config import load_emulated

FOLDER = Path(__file__).parents[2] / "examples" / "serve"
PLAN: dict[str, Any] = json.loads((FOLDER / "live" / "plan.json").read_text())


@pytest.fixture(scope="module")
def show() -> ModuleType:
    spec = importlib.util.spec_from_file_location("live_show", FOLDER / "live.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["live_show"] = module  # dataclasses ask for it
    spec.loader.exec_module(module)
    return module


def test_the_packaged_plan_answers_the_study_beside_it() -> None:
    study = tomllib.loads((FOLDER / "live.toml").read_text())
    assert PLAN["study"] == study["name"] and PLAN["status"] == "proved"
    assert {pool["system"] for pool in PLAN["fleet"]} == set(study["market"]["systems"])
    for name, row in study["traffic"].items():
        promised = {key: value for key, value in PLAN["classes"][name]["slo"].items() if value}
        assert promised == row["slo"] and PLAN["classes"][name]["rate_per_s"] == pytest.approx(
            row["rate_per_s"], rel=0.05
        )


def test_the_files_are_read_by_gateway_and_emulator(show: ModuleType, tmp_path: Path) -> None:
    text = show.gateway_file(PLAN)
    file = read_gateway(tomllib.loads(text), "live")
    assert set(file.classes) == {"coding", "chat"} and file.gateway.policy == "pool_split"
    (tmp_path / "gateway.toml").write_text(text)
    places, _ = load_emulated(tmp_path / "gateway.toml")
    assert len(places) == len(file.backends) == 1 + show.MOST_INSTANCES
    assert all(place.spec.prefix_cache for place in places)


def tallies(show: ModuleType, kept: int = 100, chat_fast: int = 1, failed: int = 0) -> dict[str, Any]:
    """A hundred requests of each class: so many kept their promise, so many chats were on the fast pool."""
    found = {name: show.Tally(row["slo"]) for name, row in PLAN["classes"].items()}
    for k in range(100):
        late_s = 0.0 if k < kept else 9.0
        found["coding"].note("cs3-x3", late_s, 0.001, 1.0, "the stream was cut" if k < failed else "")
        found["chat"].note("cs3-x3" if k < chat_fast else "h200-x1-tp1", 0.1, 0.01, 1.0, "")
    return found


def test_the_verdict_says_what_held(show: ModuleType) -> None:
    holds, said = show.verdict(PLAN, tallies(show), "coding")
    assert holds
    assert "coding kept TTFT ≤ 1.5 s, TPOT ≤ 0.003 s for 100.0% of 100 (promised 95%), 100% on cs3-x3" in said
    assert "99% on h200-x1-tp1" in said


@pytest.mark.parametrize("wrong", [{"kept": 94}, {"chat_fast": 10}, {"failed": 6}])
def test_the_verdict_can_be_no(show: ModuleType, wrong: dict[str, int]) -> None:
    holds, said = show.verdict(PLAN, tallies(show, **wrong), "coding")
    assert not holds
    assert "failed" not in wrong or "6 failed (the stream was cut)" in said


def test_a_plan_that_mixes_chat_into_the_fast_pool_does_not_pass(show: ModuleType) -> None:
    mixed = copy.deepcopy(PLAN)
    for pool in mixed["fleet"]:
        pool["serves"]["chat"] = 0.75 if pool["name"] == "cs3-x3" else 0.25
    assert not show.verdict(mixed, tallies(show, chat_fast=75), "coding")[0]

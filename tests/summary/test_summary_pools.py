"""What pools are told to have done, found, handed over and cost."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest

from infermix.plan.problem import parse_study
from infermix.study import simulate

STUDY = """
model = "llama-3.1-8b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 10.0
slo = { ttft_s = 2.0 }
"""
ONE = {"system": "h100-x1", "instances": 1}


def told(fleet: dict[str, Any], chat: dict[str, Any] | None = None, **said: Any) -> dict[str, Any]:
    raw = tomllib.loads(STUDY)
    raw["traffic"]["chat"] |= chat or {}
    return simulate(parse_study({**raw, "fleet": fleet, "simulate": said}, "s.toml"), policy="least_wait", requests=600)


def test_a_prompt_counts_where_it_was_read_and_an_answer_where_it_was_completed() -> None:
    apart = told({"read": {**ONE, "role": "prefill"}, "answer": {**ONE, "role": "decode", "system": "h200-x1"}})
    whole = told({"one": ONE})["pools"]["one"]
    read, answer = apart["pools"]["read"], apart["pools"]["answer"]
    assert (read["role"], answer["role"]) == ("prefill", "decode") and apart["completed"] == 600
    for key in ("input", "cached", "output"):
        assert read["tokens"][key] + answer["tokens"][key] == whole["tokens"][key]
    assert answer["tokens"]["input"] == 0 < answer["requests"] <= read["requests"] == 600
    assert read["by_instance"]["requests"] == [600] and answer["by_instance"]["requests"] == [answer["completed"]]
    assert read["by_instance"]["input_tokens"] == [read["tokens"]["input"]]
    assert read["usd_per_mtok"] is answer["usd_per_mtok"] is None
    usd = apart["usd_per_mtok"]["output"] * whole["tokens"]["output"] / 1e6
    assert usd == pytest.approx(read["usd"] + answer["usd"])


def test_rent_is_paid_for_the_time_that_instances_are_on() -> None:
    always = told({"one": {**ONE, "instances": 2}})
    drained = told(
        {"one": {**ONE, "instances": 2}}, events=[{"at_s": 20.0, "pool": "one", "instance": 1, "what": "drain"}]
    )
    whole, part = always["pools"]["one"], drained["pools"]["one"]
    assert whole["share_on"] == 1.0 and whole["on_hours"] == pytest.approx(2 * always["simulated_s"] / 3600)
    assert 0.5 < part["share_on"] < 0.95
    assert part["on_hours"] == pytest.approx(2 * part["share_on"] * drained["simulated_s"] / 3600)
    assert part["usd_per_hour"] == whole["usd_per_hour"]
    assert part["usd"] == pytest.approx(part["usd_per_hour"] / 2 * part["on_hours"])
    on_kwh = whole["energy_kwh"]["always_on"] * part["on_hours"] / whole["on_hours"]
    assert part["energy_kwh"]["always_on"] == pytest.approx(on_kwh)


def test_a_failure_sends_requests_back() -> None:
    event = {"at_s": 20.0, "pool": "one", "instance": 1, "what": "fail"}
    found = told({"one": {**ONE, "instances": 2}}, events=[event])
    assert found["pools"]["one"]["restarts"] > 0 and found["completed"] == 600
    assert found["classes"]["chat"]["refused_by"] == {}


def test_who_turned_requests_away_is_the_gateway() -> None:
    found = told({"one": ONE}, chat={"ration_per_s": 5.0})
    assert 200 < found["refused"] < 400
    assert found["classes"]["chat"]["refused_by"] == {"gateway": found["refused"]}


def test_what_caches_found_is_a_share_of_the_prompts() -> None:
    sessions = {"profile": "agentic-coding", "rate_per_s": 1.0}
    row = {**ONE, "prefix_cache": True}
    bare = told({"one": row}, chat=sessions)["pools"]["one"]
    tiered = told({"one": {**row, "host_kv_gb": 500.0, "host_gb_per_s": 50.0}}, chat=sessions)["pools"]["one"]
    assert 0 < bare["cache_hit_share"] < 1 and bare["loaded_share"] is None
    assert tiered["loaded_share"] > 0 and tiered["cache_hit_share"] + tiered["loaded_share"] > bare["cache_hit_share"]

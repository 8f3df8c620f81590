"""``simulate``: what it counts, which fleet it takes, and that it does the same thing twice."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from infermix.errors import InputError
from infermix.plan.problem import Study, parse_study
from infermix.study import simulate

RAW: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "traffic": {
        "chat": {
            "profile": "azure-conv-2023",
            "rate_per_s": 20.0,
            "slo": {"ttft_s": 2.0, "tpot_s": 0.05, "attainment": 0.95},
        },
        "code": {"profile": "azure-code-2023", "rate_per_s": 5.0, "slo": {"e2e_s": 30.0, "attainment": 0.9}},
    },
    "market": {"systems": ["h100-x1", "l40s-x1"]},
    "simulate": {"policy": "least_wait", "seed": 3},
}
FLEET: dict[str, Any] = {
    "big": {"system": "h100-x1", "instances": 2},
    "small": {"system": "l40s-x1", "instances": 3, "serves": {"code": 1.0}},
}
COUNTS = ("requests", "completed", "refused", "unfinished")
TIMES = ("ttft_s", "tpot_s", "e2e_s")


def study(**changes: Any) -> Study:
    return parse_study({**copy.deepcopy(RAW), **changes}, "s.toml")


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in found.items() if k not in ("kernel_s", "peak_rss_bytes")}


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return simulate(study(fleet=FLEET), requests=3000)


def test_the_keys_of_the_summary(found: dict[str, Any]) -> None:
    keys = {*COUNTS, "simulated_s", "kernel_s", "peak_rss_bytes", "classes", "pools", "usd_per_mtok"}
    assert keys <= set(found)
    assert list(found["classes"]) == ["chat", "code"] and list(found["pools"]) == ["big", "small"]
    for row in found["classes"].values():
        assert {*TIMES, "attainment", "goodput_per_s"} <= set(row)
        for name in TIMES:
            assert list(row[name]) == ["p50", "p90", "p99"]
            assert 0 < row[name]["p50"] <= row[name]["p90"] <= row[name]["p99"]
        assert 0 <= row["attainment"] <= 1
        assert row["goodput_per_s"] == pytest.approx(row["attainment"] * row["requests"] / found["simulated_s"])
    for row in found["pools"].values():
        assert {"busy", "kv_peak", "tokens"} <= set(row)
        assert 0 < row["busy"] <= 1 and 0 < row["kv_peak"] <= 1
    assert json.loads(json.dumps(found)) == found


def test_counts_are_conserved(found: dict[str, Any]) -> None:
    assert found["requests"] == 3000 == found["completed"] + found["refused"] + found["unfinished"]
    assert sum(row["requests"] for row in found["classes"].values()) == 3000
    assert found["completed"] == 3000


def test_money_is_laid_on_the_tokens_served(found: dict[str, Any]) -> None:
    hourly = 2 * 2.95 + 3 * 1.548401
    tokens = {
        kind: sum(row["tokens"][kind] for row in found["pools"].values()) / found["simulated_s"] * 3600 / 1e6
        for kind in ("input", "output")
    }
    tokens["blended"] = tokens["input"] + tokens["output"]
    assert found["usd_per_mtok"] == {kind: pytest.approx(hourly / mtok, rel=1e-5) for kind, mtok in tokens.items()}


def test_without_a_price_on_the_basis_there_is_no_cost() -> None:
    assert (
        simulate(study(fleet={"a": {"system": "cs3", "stages": 4, "instances": 1}}), requests=50)["usd_per_mtok"]
        is None
    )


def test_the_same_twice_and_another_seed_differs(found: dict[str, Any]) -> None:
    again = simulate(study(fleet=FLEET), requests=3000)
    assert json.dumps(timeless(again)) == json.dumps(timeless(found))
    other = simulate(study(fleet=FLEET), requests=3000, seed=4)
    assert other["seed"] == 4 and other["classes"] != found["classes"]


@pytest.mark.parametrize("requests", [1, 7, 2500])
def test_requests_are_exactly_as_many_as_asked_for(requests: int) -> None:
    assert simulate(study(fleet=FLEET), requests=requests)["requests"] == requests


def test_both_speeds_side_by_side(found: dict[str, Any]) -> None:
    both = simulate(study(fleet=FLEET), requests=3000, speeds="both")
    assert both["speeds"] == ["nominal", "low"]
    for name, row in both["classes"].items():
        assert {**found["classes"][name], **row} == row  # nominal is what it was alone
        for key in ("ttft_s", "tpot_s", "e2e_s"):
            assert all(row[f"{key}_low"][p] > row[key][p] for p in row[key])
        assert row["attainment_low"] <= row["attainment"]


def test_a_fleet_from_a_plan_from_toml_and_from_the_study_is_the_same_fleet(
    found: dict[str, Any], tmp_path: Path
) -> None:
    toml = tmp_path / "f.toml"
    toml.write_text(
        '[fleet.big]\nsystem = "h100-x1"\ninstances = 2\n'
        '[fleet.small]\nsystem = "l40s-x1"\ninstances = 3\nserves = { code = 1.0 }\n'
    )
    assert timeless(simulate(study(), fleet=toml, requests=3000)) == timeless(found)
    plan = tmp_path / "plan.json"
    rows = [{"name": name, "usd_per_hour": 1.0, "derate": 0.9, **row} for name, row in FLEET.items()]
    plan.write_text(json.dumps({"fleet": [*rows, {"system": "h100-x1", "instances": 0, "name": "none"}]}))
    planned = simulate(study(), fleet=plan, requests=3000)
    assert planned["speeds"] == ["nominal", "low"], "the fleet of a plan runs at both speeds"
    assert timeless(simulate(study(), fleet=plan, requests=3000, speeds="nominal")) == timeless(found)
    assert simulate(study(fleet={"other": FLEET["big"]}), fleet=toml, requests=99)["pools"].keys() == {"big", "small"}


def test_instances_of_the_first_system() -> None:
    pools = simulate(study(), instances=3, requests=200)["pools"]
    assert list(pools) == ["h100-x1"] and pools["h100-x1"]["instances"] == 3
    with pytest.raises(InputError, match=r"s\.toml.*market"):
        simulate(study(market=None), instances=3, requests=200)


@pytest.mark.parametrize(
    ("name", "text", "must"),
    [
        ("p.json", "{", "not valid JSON"),
        ("p.json", '{"fleet": {}}', "no fleet in it"),
        ("p.json", '{"fleet": [{"system": "h100-x1"}]}', "instances"),
        ("f.toml", "fleet = 3", "no fleet in it"),
        ("f.toml", "[fleet", "not valid TOML"),
        ("f.toml", '[fleet.a]\nsystem = "h100-x1"\ninstances = "2"', "fleet.a"),
    ],
)
def test_fleet_files_that_are_none(tmp_path: Path, name: str, text: str, must: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as told:
        simulate(study(), fleet=tmp_path / name, requests=10)
    assert must in str(told.value) and name in str(told.value)


def test_more_instances_serve_no_fewer_in_time() -> None:
    slower = study(traffic={"chat": {**RAW["traffic"]["chat"], "rate_per_s": 90.0}})
    kept = [simulate(slower, instances=n, requests=4000)["classes"]["chat"]["attainment"] for n in (1, 4, 16)]
    assert kept == sorted(kept) and kept[0] < 0.5 < kept[-1]


def test_requests_that_fit_nowhere_are_refused_and_counted() -> None:
    """The smaller model's context is longer than what one L4 holds beside the weights."""
    tight = {"a": {"system": "l4-x1", "instances": 1, "kv": "bf16", "max_num_seqs": 8, "max_batched_tokens": 512}}
    found = simulate(study(fleet=tight, traffic={"code": {**RAW["traffic"]["code"], "rate_per_s": 0.01}}), requests=40)
    assert found["requests"] == 40 == found["completed"] + found["refused"] + found["unfinished"]


def test_a_class_that_no_pool_serves_is_refused_whole() -> None:
    only = {"a": {"system": "h100-x1", "instances": 1, "serves": {"code": 1.0}}}
    found = simulate(study(fleet=only), requests=1000)
    assert found["refused"] == found["classes"]["chat"]["requests"] > 0
    assert found["classes"]["chat"]["attainment"] == 0.0 and not found["promises_kept"]
    assert found["completed"] == found["classes"]["code"]["requests"]


def long_contexts(folder: Path, context: str) -> dict[str, Any]:
    """A trace with one request in four beyond the 131,072 tokens of the model, on chips with room for more."""
    rows = "".join(f"{i},{200_000 if i % 4 == 0 else 1000},10\n" for i in range(40))
    (folder / "t.csv").write_text("t_s,input_tokens,output_tokens\n" + rows)
    raw = {
        "model": "llama-3.1-8b",
        "traffic": {"long": {"trace": "t.csv", "slo": {"e2e_s": 100.0}, "context": context}},
        "fleet": {"a": {"system": "h200-x1", "instances": 4}},
    }
    return simulate(parse_study(raw, str(folder / "s.toml")), policy="least_wait", requests=40)


def test_long_contexts_are_clipped_and_counted(tmp_path: Path) -> None:
    found = long_contexts(tmp_path, "clip")
    assert found["requests"] == 40 == found["completed"] and found["clipped"] == {"long": 10}


def test_long_contexts_are_refused_where_the_class_says_so(tmp_path: Path) -> None:
    found = long_contexts(tmp_path, "refuse")
    assert found["clipped"] == {} and (found["completed"], found["refused"]) == (30, 10)


def test_wrong_choices_are_named() -> None:
    with pytest.raises(InputError, match="'fast'"):
        simulate(study(fleet=FLEET), requests=10, speeds="fast")
    with pytest.raises(InputError, match=r"requests.*0"):
        simulate(study(fleet=FLEET), requests=0)
    with pytest.raises(InputError, match="did you mean 'least_wait'"):
        simulate(study(fleet=FLEET), requests=10, policy="lest_wait")

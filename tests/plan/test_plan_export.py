"""What leaves a plan: files that gateways, operators and buyers read, as they stand and as others parse them.

``INFERMIX_GOLDEN=write`` writes the files anew; read the difference before it is kept.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.plan.export.engines import BY_CHIP, BY_FAMILY, engines_of
from infermix.plan.export.files import made_folder, plan_files, write_files
from infermix.plan.export.gateway import key_name, toml_value
from infermix.plan.problem import Study, parse_study
from infermix.plan.result import ApiPlan, ContractPlan, Plan, PoolPlan
from tests.report import plans

FOLDER = Path(__file__).parents[1] / "golden" / "export"
FACTS = catalog()
BILL = "bill-of-materials.csv"
RAW: dict[str, Any] = {
    "model": "gpt-oss-120b",
    "name": "Lanes",
    "traffic": {
        "coding": {
            "profile": "agentic-coding", "rate_per_s": 3.0, "priority": 2, "value_of_time_usd_per_hour": 60.0,
            "slo": {"ttft_s": 1.5, "tpot_s": 0.003, "ttft_s_per_1k_uncached": 0.1, "attainment": 0.95},
        },
        "chat": {"profile": "azure-conv-2023", "rate_per_s": 30.0, "slo": {"e2e_s": 30.0, "attainment": 0.99}},
    },
    "market": {"systems": ["h200-x8", "mi355x-x8", "cs3"], "prices": {"mi355x-x8": 20.0}},
    "cost": {"gross_margin": 0.4},
}  # fmt: skip


def study(**changes: Any) -> Study:
    return parse_study({**RAW, **changes}, "lanes.toml")


def pool(name: str, system: str, **changes: Any) -> PoolPlan:
    record = FACTS.systems[system]
    chip = FACTS.chips[record.chip]
    return plans.pool(name, chip.kind, system=system, chip=chip.id, vendor=record.vendor, **changes)


def fleet() -> list[PoolPlan]:
    sram: dict[str, Any] = dict.fromkeys(("tp", "pp", "ep", "dp"))
    return [
        pool("gpu", "h200-x8", tp=2, instances=3, systems=1, chips=8, usd_per_hour=28.0, serves={"chat": 0.75}),
        pool("wide", "mi355x-x8", tp=1, dp=8, ep=8, instances=1, systems=1, chips=8, kv="bf16", weights="fp8",
             usd_per_hour=20.0, spec="eagle:2:2.3", serves={"chat": 0.25}),
        pool("fast", "cs3", **sram, stages=3, instances=2, systems=6, chips=6, usd_per_hour=419.6,
             basis="rent (from operator's cost at 40% gross margin)", serves={"coding": 1.0}, facility_kw=None),
        pool("reader", "h200-x8", tp=8, role="prefill", instances=1, systems=1, chips=8, usd_per_hour=28.0, serves={}),
    ]  # fmt: skip


def planned(**changes: Any) -> Plan:
    return msgspec.structs.replace(plans.biting_plan(), fleet=fleet(), **changes)


FILES = plan_files(planned(), study(), FACTS, Path("out"))


@pytest.mark.parametrize("name", FILES)
def test_files_are_as_they_were(name: str) -> None:
    golden = FOLDER / name.replace("/", "-")
    if os.environ.get("INFERMIX_GOLDEN") == "write":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(FILES[name])
    assert FILES[name] == golden.read_text()


def test_the_gateway_has_a_backend_for_every_instance_and_every_promise() -> None:
    raw = tomllib.loads(FILES["gateway.toml"])
    assert raw["gateway"]["plan"] == "plan.json" and raw["gateway"]["policy"] == "pool_split"
    assert [b["name"] for b in raw["backends"]] == [f"{p.name}/{i}" for p in fleet() for i in range(p.instances)]
    assert len({b["url"] for b in raw["backends"]}) == 7
    assert [b["engine"] for b in raw["backends"]] == ["vllm"] * 4 + ["openai"] * 2 + ["vllm"]
    assert sum(b["usd_per_hour"] for b in raw["backends"]) == pytest.approx(sum(p.usd_per_hour for p in fleet()))
    assert raw["backends"][4]["stages"] == 3 and "tp" not in raw["backends"][4]
    mean = {
        name: (row.pop("typical_input_tokens"), row.pop("typical_output_tokens"))
        for name, row in raw["classes"].items()
    }
    assert 80_000 < mean["coding"][0] < 150_000 and 100 < mean["chat"][1] < 400
    assert raw["classes"]["coding"] == {
        "model": "gpt-oss-120b", "ttft_s": 1.5, "tpot_s": 0.003, "ttft_s_per_1k_uncached": 0.1, "attainment": 0.95,
        "value_of_time_usd_per_hour": 60.0, "priority": 2,
    }  # fmt: skip
    assert raw["classes"]["chat"] == {"model": "gpt-oss-120b", "e2e_s": 30.0, "attainment": 0.99}


def test_the_gateway_reads_what_the_planner_writes(tmp_path: Path) -> None:
    pytest.importorskip("httptools", reason="the live part is not installed")
    from infermix.serve.config import load_gateway

    whole = msgspec.structs.replace(planned(), fleet=[p for p in fleet() if p.role == "both"])
    (tmp_path / "gateway.toml").write_text(plan_files(whole, study(), FACTS, tmp_path)["gateway.toml"])
    read = load_gateway(tmp_path / "gateway.toml")
    assert [b.name for b in read.backends] == [f"{p.name}/{i}" for p in whole.fleet for i in range(p.instances)]
    assert read.classes["coding"].tpot_s == 0.003


def test_keys_are_named_never_written() -> None:
    raw = tomllib.loads(FILES["gateway.toml"])
    assert raw["gateway"]["keys_env"] == "INFERMIX_KEYS"
    assert not [key for b in raw["backends"] for key in b if "key" in key]  # one's own servers ask for none
    assert key_name("8x cards") == "API_8X_CARDS_KEY"


def test_endpoints_of_others_are_backends_and_lines_of_the_bill() -> None:
    house = {"vendor": "Somebody", "input_usd_per_mtok": 0.05, "output_usd_per_mtok": 0.08, "tokens_per_s": 100.0}
    asked = study(market={**RAW["market"], "api": {"house": house}})
    bought = ApiPlan(
        name="house", vendor="Somebody", model="gpt-oss-120b", serves={"chat": 0.8}, usd_per_hour=13.0,
        share_output_tokens=0.5,
    )  # fmt: skip
    files = plan_files(planned(api=[bought]), asked, FACTS, Path("out"))
    rows = tomllib.loads(files["gateway.toml"])["backends"]
    assert rows[-1]["name"] == "house" and rows[-1]["tpot_s"] == 0.01 and rows[-1]["key_env"] == "HOUSE_KEY"
    shares = {row.get("pool", row["name"]): row["serves"].get("chat", 0.0) for row in rows}
    assert sum(shares.values()) == pytest.approx(1.0) and shares["gpu"] == pytest.approx(0.15)
    line = list(csv.DictReader(io.StringIO(files["bill-of-materials.csv"])))[-1]
    assert line["vendor"] == "Somebody" and float(line["usd_per_hour"]) == 13.0


def test_contracts_are_the_lines_of_the_bill() -> None:
    had = ContractPlan(
        name="bought", system="h200-x8", region="", systems=(2, 3), usd_per_hour=9.0, basis="capital over 4 years",
        capital_usd=768_000.0,
    )  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(plan_files(planned(contracts=[had]), study(), FACTS, Path("o"))[BILL])))
    assert [(row["use"], row["systems"], float(row["usd_per_hour"])) for row in rows] == [
        ("serving, bought", "3", 27.0)
    ]
    assert rows[0]["price_source"] == rows[0]["capital_source"] != ""


def test_a_policy_of_ones_own_is_found_from_the_folder() -> None:
    own = plan_files(planned(policy="mine.py:pick"), study(), FACTS, Path("out/deep"))
    assert tomllib.loads(own["gateway.toml"])["gateway"]["policy"] == "../../mine.py:pick"


def test_a_plan_that_is_not_proved_says_so_to_its_gateway() -> None:
    assert "NOT PROVED" in plan_files(planned(status="not_proved"), study(), FACTS, Path("out"))["gateway.toml"]
    assert "NOT PROVED" not in FILES["gateway.toml"]


def test_names_that_bite_stay_names() -> None:
    bite = plans.BITE + "\n\\"
    assert tomllib.loads(f"x = {toml_value({bite: bite})}")["x"] == {bite: bite}
    odd = plan_files(msgspec.structs.replace(planned(), fleet=[pool(bite, "cs3")]), study(), FACTS, Path("out"))
    assert all("/" not in name.removeprefix("deploy/") and "<" not in name for name in odd)
    assert tomllib.loads(odd["gateway.toml"])["backends"][0]["pool"] == bite


def test_the_bill_adds_up_and_names_its_sources() -> None:
    rows = list(csv.DictReader(io.StringIO(FILES["bill-of-materials.csv"])))
    assert [row["system"] for row in rows] == ["h200-x8", "mi355x-x8", "cs3"]
    assert sum(float(row["usd_per_hour"]) for row in rows) == pytest.approx(sum(p.usd_per_hour for p in fleet()))
    assert [int(row["systems"]) for row in rows] == [2, 1, 6]
    assert rows[1]["price_kind"] == "study" and "market.prices" in rows[1]["price_source"]
    assert "http" in rows[0]["price_source"] and rows[0]["price_kind"] == "derived"
    assert float(rows[0]["capital_usd"]) == 2 * float(rows[0]["capital_usd_each"])
    assert [row["power_kw"] for row in rows] == ["40.000", "20.000", ""]


@pytest.mark.parametrize(("name", "engines"), [("gpu", ("vllm", "sglang", "trtllm")), ("wide", ("vllm", "sglang"))])
def test_scripts_start_the_engine_that_is_named(name: str, engines: tuple[str, ...], tmp_path: Path) -> None:
    """A shell runs them; stand-ins for the engines say how they were called."""
    for command in ("vllm", "python", "trtllm-serve"):
        (tmp_path / command).write_text('#!/bin/sh\necho "$0" "$@"\n')
        (tmp_path / command).chmod(0o755)
    script = tmp_path / "pool.sh"
    script.write_text(FILES[f"deploy/{name}.sh"])
    env = {"PATH": f"{tmp_path}:/bin:/usr/bin", "MODELS": "/models", "OPTIONS": "o.yaml", "DRAFT": "d"}
    for engine in engines:
        told = subprocess.run(["sh", script, engine], env=env, capture_output=True, text=True, check=True).stdout
        assert "/models/gpt-oss-120b" in told and "--port 8000" in told
    assert subprocess.run(["sh", script, "other"], env=env, capture_output=True, check=False).returncode == 2
    del env["MODELS"]
    assert subprocess.run(["sh", script], env=env, capture_output=True, check=False).returncode != 0


def test_drafts_and_groups_reach_the_engine_as_they_are_meant(tmp_path: Path) -> None:
    (tmp_path / "vllm").write_text('#!/bin/sh\nfor a in "$@"; do echo "$a"; done\n')
    (tmp_path / "vllm").chmod(0o755)
    (tmp_path / "pool.sh").write_text(FILES["deploy/wide.sh"])
    env = {"PATH": f"{tmp_path}:/bin:/usr/bin", "MODELS": "/models", "DRAFT": "own/draft"}
    told = subprocess.run(["sh", tmp_path / "pool.sh"], env=env, capture_output=True, text=True, check=True).stdout
    words = told.splitlines()
    assert msgspec.json.decode(words[words.index("--speculative-config") + 1]) == {
        "method": "eagle3", "model": "own/draft", "num_speculative_tokens": 2,
    }  # fmt: skip
    assert words[words.index("--max-num-seqs") + 1] == "32"  # 256 of the instance over 8 groups
    assert "--enable-expert-parallel" in words and words[words.index("--data-parallel-size") + 1] == "8"


def test_chips_without_an_engine_say_so() -> None:
    told = subprocess.run(["sh", "-c", FILES["deploy/fast.sh"]], capture_output=True, text=True, check=False)
    assert told.returncode == 1 and "none of vLLM" in told.stderr and "Cerebras" in told.stderr


def test_every_engine_is_said_of_chips_that_exist() -> None:
    assert set(BY_FAMILY) <= set(FACTS.efficiencies)
    assert set(BY_CHIP) <= set(FACTS.chips)
    assert all(runs.source.startswith("https://") for chip in FACTS.chips.values() for runs in engines_of(chip))
    assert not any(engines_of(chip) for chip in FACTS.chips.values() if chip.kind == "sram")


def test_an_earlier_plan_leaves_no_sketch_behind_and_other_files_stay(tmp_path: Path) -> None:
    folder = made_folder(tmp_path / "a" / "b")
    (folder / "deploy" / "own.sh").write_text("echo mine\n")
    write_files(FILES, folder)
    fewer = {name: text for name, text in FILES.items() if "wide" not in name}
    write_files(fewer, folder)
    assert {path.name for path in (folder / "deploy").iterdir()} == {"gpu.sh", "fast.sh", "reader.sh", "own.sh"}


def test_a_folder_that_cannot_be_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        made_folder(tmp_path / "file")

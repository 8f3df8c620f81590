"""Bad input: one line on stderr that names file and key, exit 2; questions without an answer: exit 1."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke

STUDY = """
name = "small"
model = "llama-3.1-8b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 20.0
slo = { ttft_s = 2.0, tpot_s = 0.05, attainment = 0.95 }
[market]
systems = ["h100-x1", "l40s-x1"]
[prove]
seeds = 5
requests_per_class = 500
"""
CHIP = """
[chip]
id = "mine"
name = "Mine"
vendor = "Me"
cls = "gpu_hbm"
bf16_flop_per_s = { value = 500, unit = "TFLOP/s" }
mem_bytes = { value = 80, unit = "GB" }
mem_bytes_per_s = { value = 3, unit = "TB/s" }
[system]
id = "mine-x1"
rent_usd_per_hour = { value = 2.0, unit = "USD/h" }
"""


@pytest.fixture
def told(invoke: Invoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The one line that a study is refused with."""
    monkeypatch.chdir(tmp_path)

    def run(text: str, *options: str, code: int = 2, command: str = "plan") -> str:
        Path("s.toml").write_text(text)
        exit_code, out, err = invoke(command, "s.toml", *options)
        assert (exit_code, out) == (code, ""), (exit_code, out, err)
        assert err.startswith("infermix: ") and err.endswith("\n") and err.count("\n") == 1, err
        assert "Traceback" not in err
        return err

    return run


@pytest.mark.parametrize(
    ("old", "new", "where", "near"),
    [
        ("model =", "modle =", "s.toml: modle", "model"),
        ("[market]", "[marekt]", "s.toml: marekt", "market"),
        ("systems =", "sytems =", "s.toml: market: sytems", "systems"),
        ("rate_per_s", "rate_pers", "s.toml: traffic.chat: rate_pers", "rate_per_s"),
        ("attainment", "atainment", "s.toml: traffic.chat.slo: atainment", "attainment"),
        ("seeds", "sedes", "s.toml: prove: sedes", "seeds"),
        ("[prove]", "[limits]\npower_mv = 1\n[prove]", "s.toml: limits: power_mv", "power_mw"),
        ("[prove]", "[cost]\ngross_margn = 0.4\n[prove]", "s.toml: cost: gross_margn", "gross_margin"),
        ("[prove]", "[objective]\nminimize = 'x'\n[prove]", "s.toml: objective: minimize", "minimise"),
        ("[prove]", "[simulate]\npolcy = 'x'\n[prove]", "s.toml: simulate: polcy", "policy"),
        ("[prove]", "[fleet.a]\nsystem = 'x'\ninstnces = 1\n[prove]", "s.toml: fleet.a: instnces", "instances"),
    ],
)
def test_unknown_keys_at_every_level(told: Callable[..., str], old: str, new: str, where: str, near: str) -> None:
    message = told(STUDY.replace(old, new, 1))
    assert f"{where}: unknown key" in message and f"did you mean '{near}'?" in message


@pytest.mark.parametrize(
    ("old", "new", "must"),
    [
        ("rate_per_s = 20.0", "rate_per_s = -20", ["s.toml: traffic.chat", "rate_per_s", "-20"]),
        ("rate_per_s = 20.0", "rate_per_s = 0", ["s.toml: traffic.chat", "rate_per_s"]),
        ("rate_per_s = 20.0", "rate_per_s = inf", ["s.toml: traffic.chat", "rate_per_s"]),
        ("rate_per_s = 20.0", "", ["s.toml: traffic.chat", "rate_per_s"]),
        ("rate_per_s = 20.0", 'rate_per_s = "20/s"', ["s.toml: traffic", "rate_per_s", "str"]),
        ("ttft_s = 2.0", 'ttft_s = "1.5 s"', ["s.toml: traffic", "slo.ttft_s", "str"]),
        ("ttft_s = 2.0", "ttft_s = -1", ["s.toml: traffic.chat.slo", "ttft_s", "-1"]),
        ("attainment = 0.95", "attainment = 95", ["s.toml: traffic.chat.slo", "attainment", "95"]),
        ("ttft_s = 2.0, tpot_s = 0.05, ", "", ["s.toml: traffic.chat.slo", "no target"]),
        ('profile = "azure-conv-2023"', "", ["s.toml: traffic.chat", "profile", "trace"]),
        ('"azure-conv-2023"', '"azure-cnv-2023"', ["traffic.chat", "did you mean 'azure-conv-2023'?"]),
        ("slo =", 'context = "clp"\nslo =', ["s.toml: traffic.chat.context", "did you mean 'clip'?"]),
        ('["h100-x1", "l40s-x1"]', "[]", ["s.toml", "market"]),
        ('["h100-x1", "l40s-x1"]', '["h100x1"]', ["'h100x1'", "did you mean 'h100-x1'?"]),
        ('"llama-3.1-8b"', '"llama-3.1-9b"', ["'llama-3.1-9b'", "did you mean 'llama-3.1-8b'?"]),
        ("seeds = 5", "seeds = 0", ["s.toml: prove.seeds"]),
        ("seeds = 5", "seeds = 5.5", ["s.toml: prove.seeds"]),
        ("[prove]", "[limits]\nmax_vendor_share = 1.2\n[prove]", ["s.toml: limits.max_vendor_share", "1.2"]),
        ("[prove]", "[limits]\npower_mw = -1\n[prove]", ["s.toml: limits.power_mw", "-1"]),
        ("[prove]", "[limits]\nusd_per_hour = nan\n[prove]", ["s.toml: limits.usd_per_hour"]),
        ("[prove]", "[limits.min_share_output_tokens]\nsrm = 0.1\n[prove]", ["s.toml: limits", "did you mean 'sram'?"]),
        ("[prove]", "[limits]\nmin_share_output_tokens = { sram = 2 }\n[prove]", ["s.toml: limits", "sram", "2"]),
        ("[prove]", "[market.supply]\nh100-x1 = -1\n[prove]", ["s.toml: market.supply.h100-x1", "-1"]),
        ("[prove]", "[market.supply]\nh10-x1 = 1\n[prove]", ["s.toml: market.supply", "did you mean 'h100-x1'?"]),
        ("[prove]", "[market.prices]\nh100-x1 = 0\n[prove]", ["s.toml: market.prices.h100-x1"]),
        ("[prove]", 'cost_basis = "x"\n[prove]', ["s.toml: market: cost_basis", "unknown key"]),
        ("[market]", '[market]\nkv = ["fp3"]', ["s.toml: market.kv", "fp3"]),
        ("[prove]", "[cost]\npue = 'x'\n[prove]", ["s.toml: cost.pue", "str"]),
        ("name =", 'cost_basis = "lease"\nname =', ["s.toml: cost_basis", "lease"]),
        ("model =", "model = [", ["s.toml", "not valid TOML"]),
    ],
)
def test_wrong_values(told: Callable[..., str], old: str, new: str, must: list[str]) -> None:
    text = STUDY.replace(old, new, 1)
    assert text != STUDY
    message = told(text)
    assert all(part in message for part in must), message


@pytest.mark.parametrize("policy", ["least_wiat", "least wait"])
def test_unknown_policy(told: Callable[..., str], policy: str) -> None:
    text = f'{STUDY}[simulate]\npolicy = "{policy}"\n[fleet.a]\nsystem = "h100-x1"\ninstances = 1\n'
    assert "did you mean 'least_wait'?" in told(text, "--requests", "10", command="simulate")
    assert "did you mean 'least_wait'?" in told(STUDY, "--policy", policy, "--instances", "1", command="simulate")


@pytest.mark.parametrize(
    ("system", "must"),
    [
        ("cs3", ["operator_cost_usd_per_hour", "cost.gross_margin"]),
        ("groq-v1-rack", ["capital_usd", "cost.life_years", "cost.usd_per_kwh"]),
        ("corsair-x8", ["no price in the catalogue"]),
    ],
)
def test_a_missing_price_basis(told: Callable[..., str], system: str, must: list[str]) -> None:
    message = told(STUDY.replace("l40s-x1", system))
    assert all(part in message for part in (*must, system, f"[market.prices] {system}")), message


@pytest.mark.parametrize("terms", ["gross_margin = 1.0", "gross_margin = 0.4\nutilisation = 0.0"])
def test_terms_that_no_price_can_be_converted_with(told: Callable[..., str], terms: str) -> None:
    text = STUDY.replace("l40s-x1", "groq-v1-rack") + f"[cost]\nlife_years = 4\nusd_per_kwh = 0.1\n{terms}\n"
    assert "s.toml: cost." in told(text)


@pytest.mark.parametrize(
    ("old", "new"), [("ttft_s = 2.0", 'ttft_s = "1.5 s"'), ("rate_per_s = 20.0", 'rate_per_s = "x"')]
)
def test_a_wrong_type_in_a_class_names_the_class(told: Callable[..., str], old: str, new: str) -> None:
    assert "s.toml: traffic.chat" in told(STUDY.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new"),
    [('["h100-x1"', '["h100x1"'), ('"llama-3.1-8b"', '"llama-3.1-9b"'), ("l40s-x1", "corsair-x8")],
)
def test_names_are_told_with_the_file(told: Callable[..., str], old: str, new: str) -> None:
    assert "s.toml" in told(STUDY.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "must"),
    [
        ('unit = "TB/s"', 'unit = "GB"', ["mine.toml: chip: mem_bytes_per_s.unit", "'GB'", "TB/s"]),
        ('unit = "TB/s"', 'unit = "TBs"', ["mine.toml: chip: mem_bytes_per_s.unit", "'TBs'", "did you mean 'TB/s'?"]),
        ("{ value = 80, unit", "{ value = -80, unit", ["mine.toml: chip: mem_bytes.value", "-80"]),
        ("{ value = 80, unit", '{ value = "80", unit', ["mine.toml: chip: mem_bytes.value", "'80'"]),
        ('{ value = 80, unit = "GB" }', "80", ["mine.toml: chip: mem_bytes", "a figure must be a table"]),
        ("mem_bytes =", "mem_byts =", ["mine.toml: chip: mem_byts", "did you mean 'mem_bytes'?"]),
        ("[system]", "[sytem]", ["mine.toml: sytem", "did you mean 'system'?"]),
        ('cls = "gpu_hbm"\n', "", ["mine.toml: chip", "cls"]),
    ],
)
def test_own_chips(told: Callable[..., str], tmp_path: Path, old: str, new: str, must: list[str]) -> None:
    assert old in CHIP
    (tmp_path / "mine.toml").write_text(CHIP.replace(old, new))
    message = told(STUDY.replace("[prove]", 'own_chips = ["mine.toml"]\n[prove]'))
    assert all(part in message for part in must), message


def test_an_own_chip_that_cannot_be_read(told: Callable[..., str]) -> None:
    message = told(STUDY.replace("[prove]", 'own_chips = ["none.toml"]\n[prove]'))
    assert "none.toml: cannot be read" in message


HEAD = "t_s,input_tokens,output_tokens\n"


@pytest.mark.parametrize(
    ("text", "must"),
    [
        ("t_s,input_tokens\n0,1\n", ["output_tokens"]),
        (f"{HEAD}0,10,1\n2,10,1\n1,10,1\n", ["descend", "row 3", "sort"]),
        (HEAD, ["t.csv"]),
        ("", ["t.csv"]),
        (f"{HEAD}0,10,1\n1,ten,1\n", ["t.csv"]),
        (f"{HEAD}0,10,1\n0,10,1\n", ["t.csv"]),
        (None, ["t.csv"]),
    ],
    ids=["columns", "unsorted", "no rows", "empty", "not a number", "one instant", "missing"],
)
def test_traces(told: Callable[..., str], tmp_path: Path, text: str | None, must: list[str]) -> None:
    if text is not None:
        (tmp_path / "t.csv").write_text(text)
    study = STUDY.replace('profile = "azure-conv-2023"', 'trace = "t.csv"').replace("rate_per_s = 20.0\n", "")
    message = told(study)
    assert all(part in message for part in (*must, "t.csv")), message


def test_files_that_cannot_be_read(invoke: Invoke, told: Callable[..., str], tmp_path: Path) -> None:
    for command in ("plan", "simulate"):
        code, out, err = invoke(command, "none.toml")
        assert (code, out, err.count("\n")) == (2, "", 1) and "none.toml: cannot be read" in err
        code, out, err = invoke(command, str(tmp_path))
        assert (code, out, err.count("\n")) == (2, "", 1) and str(tmp_path) in err
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe")
    code, _, err = invoke("plan", str(tmp_path / "b.toml"))
    assert code == 2 and "not UTF-8" in err and err.count("\n") == 1
    assert "none.json: cannot be read" in told(STUDY, "--fleet", "none.json", command="simulate")


@pytest.mark.parametrize(
    ("options", "must"),
    [
        (["--instances", "0"], ["--instances", "0"]),
        (["--instances", "x"], ["--instances", "'x'"]),
        (["--requests", "0", "--instances", "1"], ["requests", "0"]),
        (["--speeds", "fast", "--instances", "1"], ["'fast'", "nominal, low, both"]),
        (["--sped"], ["--sped"]),
    ],
)
def test_options(told: Callable[..., str], options: list[str], must: list[str]) -> None:
    message = told(STUDY, *options, command="simulate")
    assert all(part in message for part in must), message


@pytest.mark.parametrize(
    ("arguments", "must"),
    [
        (["perf", "llama-3.1-8b", "h100x8"], ["did you mean 'h100-x8'?"]),
        (["perf", "lama-3.1-8b", "h100-x8"], ["did you mean 'llama-3.1-8b'?"]),
        (["perf", "llama-3.1-8b", "h100-x8", "--tp", "3"], ["tp must divide"]),
        (["perf", "llama-3.1-8b", "h100-x8", "--batch", "0"], ["--batch"]),
        (["perf", "llama-3.1-8b"], ["SYSTEM"]),
        (["catalog", "show", "h100x8"], ["did you mean 'h100-x8'?"]),
        (["catalog", "list", "chip"], ["'chip'"]),
        (["paln"], ["paln"]),
        (["plan"], ["STUDY"]),
    ],
)
def test_other_commands(invoke: Invoke, arguments: list[str], must: list[str]) -> None:
    code, out, err = invoke(*arguments)
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert all(part in err for part in must), err


@pytest.mark.parametrize(
    ("old", "new", "must"),
    [
        ("tpot_s = 0.05", "tpot_s = 0.0001", ["'chat'", "h100-x1", "l40s-x1", "TPOT"]),
        ("llama-3.1-8b", "llama-3.1-405b", ["llama-3.1-405b fits on no system", "h100-x1", "l40s-x1"]),
        ("[prove]", "[limits]\nusd_per_hour = 1\n[prove]", ["limits.usd_per_hour = 1", "chat at 20/s"]),
        ("[prove]", "[market.supply]\nh100-x1 = 0\nl40s-x1 = 0\n[prove]", ["supply.h100-x1 = 0", "supply.l40s-x1 = 0"]),
        ("[prove]", "[limits.min_share_output_tokens]\nsram = 0.1\n[prove]", ["min_share_output_tokens", "sram"]),
    ],
)
def test_questions_without_an_answer(told: Callable[..., str], old: str, new: str, must: list[str]) -> None:
    message = told(STUDY.replace(old, new, 1), code=1)
    assert all(part in message for part in must), message


def test_a_model_that_does_not_fit_has_no_speed(invoke: Invoke) -> None:
    code, _, err = invoke("perf", "llama-3.1-405b", "h100-x1")
    assert code == 1 and err.count("\n") == 1 and "llama-3.1-405b on h100-x1" in err


def test_json_has_stdout_to_itself(invoke: Invoke, tmp_path: Path) -> None:
    study = tmp_path / "s.toml"
    study.write_text(STUDY)
    for arguments, key in (
        (["simulate", str(study), "--instances", "1", "--requests", "200", "--json", "-"], "completed"),
        (["plan", str(study), "--json", "-"], "status"),
        (["perf", "llama-3.1-8b", "h100-x1", "--json", "-"], "tpot_s"),
        (["catalog", "show", "cs3", "--json", "-"], "id"),
    ):
        code, out, err = invoke(*arguments)
        assert code == 0 and key in json.loads(out) and len(err.splitlines()) > 3, "tables go to stderr"


def test_a_file_that_cannot_be_written(told: Callable[..., str]) -> None:
    where = str(Path("no") / "x.json")
    message = told(STUDY, "--instances", "1", "--requests", "10", "--json", where, command="simulate")
    assert "x.json: cannot be written" in message


@pytest.mark.parametrize("command", [[], ["plan"], ["simulate"], ["perf"], ["catalog"], ["catalog", "list"]])
def test_help_of_every_command(invoke: Invoke, command: list[str]) -> None:
    code, out, err = invoke(*command, "--help")
    assert (code, err) == (0, "") and out.startswith("Usage:") and max(map(len, out.splitlines())) <= 100


def test_as_a_process_help_is_quick_and_faults_are_one_line(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    code = (
        "import sys\nfrom infermix.cli.main import main\ntry: main(['plan', '--help'])\n"
        "except SystemExit: sys.exit(len({'numba', 'highspy', 'polars', 'jinja2'} & set(sys.modules)))"
    )
    helped = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=20, check=False
    )
    assert helped.returncode == 0 and helped.stdout.startswith("Usage:") and helped.stderr == ""
    (tmp_path / "s.toml").write_text(STUDY.replace("model =", "modle ="))
    failed = subprocess.run(
        [sys.executable, "-m", "infermix", "plan", "s.toml"],
        capture_output=True, text=True, env=environment, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert (failed.returncode, failed.stdout, failed.stderr.count("\n")) == (2, "", 1)
    assert failed.stderr.startswith("infermix: s.toml: modle: unknown key")

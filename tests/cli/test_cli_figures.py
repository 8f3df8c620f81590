"""Whatever a command answers, it names the catalogue figures that the answer hangs on, and each can be looked up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from infermix.catalog.load import catalog
from infermix.catalog.query import figure
from infermix.cli import main as command_line

ROOT = Path(__file__).parents[2]
STUDY = """
model = "llama-3.1-8b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 5.0
slo = { ttft_s = 2.0, tpot_s = 0.05, attainment = 0.9 }
[market]
systems = ["h100-x1"]
[prove]
seeds = 1
requests_per_class = 200
[fleet.one]
system = "h100-x1"
instances = 2
"""

DESIGN = """
[space]
node = ["n3"]
sram_mb = [64, 600]
tflops = [800]
hbm = ["hbm3e"]
stacks = [6]
links = [18]
[work.chat]
model = "llama-3.1-8b"
input_tokens = 1000
output_tokens = 200
tokens_per_s_user = 25
ttft_s = 2.0
[money]
gross_margin = 0.5
system_usd_per_chip = 6000
life_years = 4
finance_rate = 0.08
usd_per_kwh = 0.08
load = 0.5
"""

COMMANDS = {
    "catalog list": ["catalog", "list", "systems"],
    "catalog show": ["catalog", "show", "h200-x8"],
    "catalog compare": ["catalog", "compare", "h100-sxm", "mi300x"],
    "catalog check": ["catalog", "check"],
    "perf": ["perf", "llama-3.1-8b", "h100-x1"],
    "perf --all": ["perf", "llama-3.1-8b", "--all"],
    "simulate": ["simulate", "STUDY"],
    "plan": ["plan", "STUDY"],
    "workload show": ["workload", "show", "azure-conv-2023"],
    "silicon cost": ["silicon", "cost", "examples/silicon/cost-h100.toml"],
    "silicon supply": ["silicon", "supply", "examples/silicon/supply-queries.toml"],
    "silicon decide": ["silicon", "decide", "examples/silicon/decide-small.toml"],
    "silicon design": ["silicon", "design", "DESIGN"],
}
NONE_USED = {"catalog check", "workload show", "silicon decide"}
"""Commands whose answers hang on no figure: a check names only those at fault, traffic and a decision have none."""


def ids(answer: Any) -> list[str]:
    rows = answer if isinstance(answer, list) else [answer]
    return [id_ for row in rows for id_ in row["figures"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_figure_of_every_answer_resolves(command: str, tmp_path: Path) -> None:
    study, out = tmp_path / "s.toml", tmp_path / "out.json"
    study.write_text(STUDY, encoding="utf-8")
    design = tmp_path / "d.toml"
    design.write_text(DESIGN, encoding="utf-8")
    files = {"STUDY": str(study), "DESIGN": str(design)}
    arguments = [files.get(word, word) for word in COMMANDS[command]]
    arguments = [str(ROOT / word) if word.startswith("examples/") else word for word in arguments]
    with pytest.raises(SystemExit) as left:
        command_line.main([*arguments, "--json", str(out)])
    assert left.value.code in (0, 1)
    found = ids(json.loads(out.read_text(encoding="utf-8")))
    assert bool(found) != (command in NONE_USED)
    assert all(figure(catalog(), id_).unit for id_ in found)


MEASURED = {"backtest", "calibrate", "quote", "validate"}
"""Commands that hold the catalogue against files, of measurements or of an offer; tests of their own ask them."""
LIVE = {"emulate", "epp", "serve", "top"}
"""Commands that run until they are stopped."""


def test_every_command_is_asked() -> None:
    assert {name.split()[0] for name in COMMANDS} | MEASURED | LIVE == set(command_line.COMMANDS)

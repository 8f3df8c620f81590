"""The lab's questions: studies that parse, shares that are what the page says, tables that print."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from infermix.catalog.load import catalog
from infermix.plan.problem import parse_study
from infermix.plan.question import ask

FILE = Path(__file__).parents[2] / "examples" / "lab" / "lab.py"


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lab", FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_variant_is_a_study_and_agents_write_a_tenth(lab: ModuleType) -> None:
    raw = lab.variants()
    studies = {name: parse_study(table, str(FILE.with_name("lab.toml"))) for name, table in raw.items()}
    assert len(studies) == 7
    question = ask(studies["a tenth on SRAM"])
    written = {d.name: d.rate_per_s * d.mean_output for d in question.demands}
    assert written["coding"] / sum(written.values()) == pytest.approx(0.10, abs=0.005)
    assert question.limits.min_share_output_tokens == {"sram": 0.10} and question.limits.max_vendor_share == 0.70
    assert not studies["free, NVIDIA halved"].limits.min_share_output_tokens
    market = studies["free, NVIDIA halved"].market
    assert market is not None and (market.supply["h200-x8"], market.supply["b200-x8"]) == (4, 2)


def test_fast_chips_are_the_cheapest_where_the_page_says(lab: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    lab.print_speeds(catalog())
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line[:18].strip().isdigit()]
    assert len(rows) == len(lab.CONTEXTS) * len(lab.SPEEDS)
    cheapest = [(int(row[0]), row[1]) for row in rows]
    assert all(chip == "mi355x" for speed, chip in cheapest if speed <= 100)
    assert all(chip == "wse3" for speed, chip in cheapest if speed >= 200)

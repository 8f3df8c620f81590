"""``infermix quote``: what it prints and writes, what it refuses, what its page says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from infermix.plan.problem import load_study
from infermix.plan.quote.offer import Deposit, Equity, Late, Promise, Ranges, VendorOffer, load_offer
from infermix.plan.quote.result import Instead, Quote, Spread, Turn
from tests.cli.conftest import Invoke

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples" / "quote").glob("*.toml"))
STUDY = """
model = "llama-3.1-8b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 60.0
slo = { ttft_s = 2.0, tpot_s = 0.05, attainment = 0.95 }
[market]
systems = ["h100-x1"]
prices = { h100-x1 = 3.0 }
"""


@pytest.mark.compiled_only
def test_an_answer_of_a_hundred_columns_and_its_json(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(STUDY)
    (tmp_path / "o.toml").write_text('system = "h100-x1"\nsystems = 2\ndraws = 16\nusd_per_hour = 3.3\n')
    words = ("quote", str(tmp_path / "s.toml"), "--offer", str(tmp_path / "o.toml"), "--json", "-")
    code, out, err = invoke(*words)
    assert code == 0 and "Ask for other terms" in err and "$3/h" in err
    assert max(len(line) for line in err.splitlines()) <= 100
    raw = json.loads(out)
    assert raw["answer"] == "ask" and raw["instead"][0]["what"] == "price"
    assert set(raw) == set(Quote.__struct_fields__)
    assert invoke(*words)[1] == out  # the same worlds, the same answer


@pytest.mark.parametrize("text", ["", 'system = "cs3"\n', "= 1"])
def test_offers_that_cannot_be_end_with_2_and_one_line(invoke: Invoke, tmp_path: Path, text: str) -> None:
    (tmp_path / "s.toml").write_text(STUDY)
    (tmp_path / "o.toml").write_text(text)
    code, out, err = invoke("quote", str(tmp_path / "s.toml"), "--offer", str(tmp_path / "o.toml"))
    assert code == 2 and not out and err.strip().count("\n") == 0 and "o.toml" in err


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_offers_to_the_study_that_they_name(path: Path) -> None:
    offer, text = load_offer(path), path.read_text()
    told = re.search(r"infermix quote (\S+) --offer (\S+)", text)
    assert told and ROOT / told[2] == path and len(text.splitlines()) <= 60
    assert set(offer.classes) <= set(load_study(ROOT / told[1]).traffic)


def test_every_key_is_explained() -> None:
    page, answers = ((ROOT / "docs" / name).read_text() for name in ("quote.md", "json.md"))
    keys = {f for struct in (VendorOffer, Deposit, Equity, Late, Promise, Ranges) for f in struct.__struct_fields__}
    assert sorted(keys - set(re.findall(r"`(\w+)`", page))) == []
    said = set(re.findall(r"`(\w+)`", answers))
    assert sorted({f for part in (Quote, Spread, Instead, Turn) for f in part.__struct_fields__} - said) == []

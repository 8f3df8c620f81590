"""A demand into chips, wafers, tools, power and money, and a supply back into what it serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infermix.cli.main import main
from infermix.silicon.supply import Supply, supply
from tests.silicon.conftest import Told

EXAMPLES = Path(__file__).parents[2] / "examples" / "silicon"
BASE = """
chip = "h100-sxm"
price_usd = 27500
[demand]
tokens_per_day = 1e12
[serve]
tokens_per_s_per_chip = 1000
load = 0.5
"""


def asked(tmp_path: Path, text: str) -> Supply:
    (tmp_path / "s.toml").write_text(text)
    return supply(tmp_path / "s.toml")


def nominal(found: Supply, name: str) -> float:
    return found.amounts[name].nominal


def test_chips_of_a_demand_by_hand(tmp_path: Path) -> None:
    found = asked(tmp_path, BASE)
    assert found.chips.nominal == pytest.approx(1e12 / (1000 * 0.5 * 86_400))
    assert nominal(found, "USD of chips") == pytest.approx(found.chips.nominal * 27_500)
    bonded = 0.95**6 * 0.99
    assert nominal(found, "HBM stacks") == pytest.approx(found.chips.nominal * 5 / bonded)
    assert nominal(found, "W at the wall") == pytest.approx(found.chips.nominal * 700 * 1.8 * 1.2)
    passes = nominal(found, "wafers of n4") * 14
    assert nominal(found, "EUV tools for a year") == pytest.approx(passes / 591_300)


def test_there_and_back(tmp_path: Path) -> None:
    there = asked(tmp_path, BASE)
    wafers = nominal(there, "wafers of n4")
    back = asked(tmp_path, f"{BASE}[supply]\nwafers_per_year = {wafers}\ngigawatts = 100\n").served
    assert back is not None and back.binds == "wafers_per_year"
    assert back.tokens_per_day == pytest.approx(1e12)
    assert back.chips_by_limit["gigawatts"] == pytest.approx(100e9 / (700 * 1.8 * 1.2))


def test_a_demand_in_power_or_money_is_the_same_chips(tmp_path: Path) -> None:
    chips = asked(tmp_path, BASE.replace("tokens_per_day = 1e12", "chips = 50000"))
    watts, usd = nominal(chips, "W at the wall"), nominal(chips, "USD of chips")
    assert usd == 50_000 * 27_500
    by_power = asked(tmp_path, BASE.replace("tokens_per_day = 1e12", f"gigawatts = {watts / 1e9}"))
    by_money = asked(tmp_path, BASE.replace("tokens_per_day = 1e12", f"capital_usd = {usd}"))
    assert by_power.chips.nominal == pytest.approx(50_000)
    assert by_money.chips.nominal == pytest.approx(50_000)


def test_gpt4s_training_takes_what_was_said() -> None:
    found = supply(EXAMPLES / "supply-training.toml")
    assert found.chips.nominal == pytest.approx(25_000, rel=0.01)
    assert nominal(found, "USD of chips") == pytest.approx(0.25e9, rel=0.01)
    assert found.served is not None
    assert found.served.training_days == pytest.approx(95 * found.chips.nominal / found.served.chips)


def test_four_cents_a_query_beside_what_it_costs_now() -> None:
    found = supply(EXAMPLES / "supply-queries.toml")
    assert found.stated_usd_per_year == pytest.approx(12.4e9, rel=0.002)
    assert found.rate is not None and "gpt-oss-120b" in found.rate.how
    assert found.usd_per_query is not None and found.usd_per_query < 0.0036 / 10


@pytest.mark.parametrize(
    ("old", "new", "must"),
    [
        ("tokens_per_day = 1e12", "tokens_per_day = -1", ["demand.tokens_per_day", "above 0", "-1"]),
        ("tokens_per_day = 1e12", "chips = -5", ["demand.chips", "above 0", "-5"]),
        ("tokens_per_day = 1e12", "tokens_per_day = 1\nchips = 1", ["one of several", "tokens_per_day, chips"]),
        ("tokens_per_day = 1e12", "", ["demand", "one of several", "gigawatts"]),
        ("tokens_per_day = 1e12", "queries_per_day = 1e9", ["demand.tokens_per_query", "how long is a query"]),
        ("tokens_per_day = 1e12", "tokens_per_dy = 1", ["demand: tokens_per_dy: unknown key", "tokens_per_day"]),
        ("tokens_per_day = 1e12", "training = { parameters = 1e9, tokens = 1e12, mfu = 0.4 }", ["training", "days"]),
        ("load = 0.5", "load = 1.5", ["serve.load", "1.5"]),
        ("tokens_per_s_per_chip = 1000", "", ["serve", "state tokens_per_s_per_chip"]),
        ("tokens_per_s_per_chip = 1000", 'model = "gpt-oss-120b"', ["serve", "input_tokens and output_tokens"]),
        ("price_usd = 27500", "price_usd = 0", ["price_usd", "above 0"]),
        ("load = 0.5", "load = 0.5\n[supply]\nwafers_per_year = -1", ["supply.wafers_per_year", "-1"]),
        ("load = 0.5", "load = 0.5\n[supply]", ["supply", "nothing is limited"]),
        ('chip = "h100-sxm"', 'chip = "h100"', ["no description of this chip", "did you mean 'h100-sxm'?"]),
    ],
)
def test_demands_that_cannot_be(told: Told, old: str, new: str, must: list[str]) -> None:
    text = BASE.replace(old, new, 1)
    assert text != BASE
    message = told(text, "supply")
    assert all(part in message for part in must), message


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("supply-*.toml")))
def test_examples_run_and_fit_a_hundred_columns(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["silicon", "supply", str(EXAMPLES / name), "--json", str(tmp_path / "a.json")])
    out, _ = capsys.readouterr()
    assert left.value.code == 0
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 100
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["chips"]["nominal"] > 0 and found["ledger"] and found["sources"]


def test_a_model_that_a_chip_cannot_serve_at_this_speed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "s.toml").write_text(
        'chip = "h100-sxm"\n[demand]\ntokens_per_day = 1e9\n[serve]\nmodel = "llama-3.3-70b"\n'
        "input_tokens = 1000\noutput_tokens = 100\ntokens_per_s_user = 5000\n"
    )
    with pytest.raises(SystemExit) as left:
        main(["silicon", "supply", str(tmp_path / "s.toml")])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (1, "")
    assert "no point gives each user 5000 tokens/s" in err and err.count("\n") == 1

"""Build or buy: the years by hand, the price at which building loses, the option, deals, files that cannot be."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from infermix.cli.main import main
from infermix.silicon.cashflow import flow, lifetime_usd_per_w
from infermix.silicon.constants import Constants, constants
from infermix.silicon.cost import read
from infermix.silicon.decide import KEYS, Decision, decide, effective
from infermix.silicon.draw import Draw
from infermix.silicon.venture import Deal, Venture, read_venture
from tests.silicon.conftest import Told

EXAMPLES = Path(__file__).parents[2] / "examples" / "silicon"
BASE = """
name = "x"
[need]
units_per_year = 20000
years = 6
[vendor]
name = "V"
price_usd = 40000
power_w = 1000
[own]
kappa = { value = 0.9, low = 0.6, high = 1.1 }
unit_usd = 12800
power_w = 900
nre_usd = 500e6
ready_at_delivery = 0.5
software_years = 1
[terms]
discount_rate = 0.1
"""
NEXT = "power_w = 1000\nnext_years = 1.5\nnext_price_usd = 60000\nnext_speed = 2.5\n"


def asked(tmp_path: Path, text: str) -> Decision:
    (tmp_path / "s.toml").write_text(text)
    return decide(tmp_path / "s.toml")


def opened(tmp_path: Path, text: str) -> tuple[Venture, Constants]:
    (tmp_path / "s.toml").write_text(text)
    raw, table = read(tmp_path / "s.toml", KEYS)
    return read_venture(raw, "s.toml", None, table)


def by_hand(table: Constants, respin: bool, next_chip: bool) -> float:
    """The years one after the other, in plain Python."""
    c = {id_: item.value for id_, item in table.items()}
    watt = float(lifetime_usd_per_w(Draw(table))) * c["site/centre/it_over_chip_w"]
    weeks = (
        sum(c[f"program/{name}_weeks"] for name in ("tapeout", "queue", "osat", "bringup")) + c["nodes/n5/fab_weeks"]
    )
    ready = (weeks + respin * c["program/respin_weeks"]) / (365.25 / 7)
    worth = -500e6 - respin * c["nodes/n5/masks_usd"]
    for year in range(6):
        since = year + 1 - ready
        units = 20_000 * min(max(since, 0), 1)
        today = buy = 40_000 + 1000 * watt
        if next_chip:
            share = min(max(year + 1 - 1.5, 0), 1)
            buy = (1 - share) * today + share * min((60_000 + 1000 * watt) / 2.5, today)
        kappa = 0.9 * (0.5 + 0.5 * min(max(since, 0), 1))
        gain = units * (kappa * buy - 12_800 - 900 * watt) - c["decision/software_usd_per_year"]
        worth += gain / 1.1 ** (year + 0.5)
    return worth


@pytest.mark.parametrize("respin", [False, True])
@pytest.mark.parametrize("next_chip", [False, True])
def test_the_years_by_hand(tmp_path: Path, respin: bool, next_chip: bool) -> None:
    venture, table = opened(tmp_path, BASE.replace("power_w = 1000\n", NEXT) if next_chip else BASE)
    found = float(flow(venture, Draw(table), np.float64(respin)).npv)
    assert found == pytest.approx(by_hand(table, respin, next_chip), rel=1e-9)


def test_building_breaks_even_at_the_price_that_is_named(tmp_path: Path) -> None:
    for text, key in ((BASE, "price_usd = 40000"), (BASE.replace("power_w = 1000\n", NEXT), "next_price_usd = 60000")):
        price = asked(tmp_path, text).losing_price_usd
        name = key.partition(" ")[0]
        texts = (text.replace(key, f"{name} = {price * factor}") for factor in (0.98, 1, 1.02))
        at = [asked(tmp_path, changed).choices[0].npv_usd.nominal for changed in texts]
        assert abs(at[1]) < 1e4
        assert at[0] < 0 < at[2]


def test_a_dearer_vendor_a_faster_chip_and_fewer_delays_help(tmp_path: Path) -> None:
    base = asked(tmp_path, BASE).choices[0].npv_usd.nominal
    for old, new, better in [
        ("price_usd = 40000", "price_usd = 44000", True),
        ("value = 0.9", "value = 1.0", True),
        ("unit_usd = 12800", "unit_usd = 14000", False),
        ("nre_usd = 500e6", "nre_usd = 700e6", False),
        ("nre_usd = 500e6", "nre_usd = 500e6\nslip_weeks = 26", False),
        ("software_years = 1", "software_years = 2", False),
    ]:
        assert (asked(tmp_path, BASE.replace(old, new, 1)).choices[0].npv_usd.nominal > base) == better, new


def test_half_a_year_of_slip_is_what_a_slip_of_26_weeks_costs(tmp_path: Path) -> None:
    found = asked(tmp_path, BASE)
    slipped = asked(tmp_path, BASE.replace("nre_usd", f"slip_weeks = {365.25 / 14}\nnre_usd"))
    assert found.slip_usd == pytest.approx(slipped.choices[0].npv_usd.nominal - found.choices[0].npv_usd.nominal)
    assert found.respin_usd < found.slip_usd * 0.5 < 0


def test_the_right_to_stop_is_never_worth_less_than_nothing(tmp_path: Path) -> None:
    dear, cheap = (
        asked(tmp_path, BASE.replace("value = 0.9, low = 0.6", f"value = {k}, low = {k / 2}")) for k in (0.7, 1.1)
    )
    for found in (dear, cheap):
        choices = {choice.name: choice for choice in found.choices}
        assert found.option_usd >= 0
        assert choices["start, decide at tape-out"].mean_usd >= choices["build"].mean_usd - 1e6
    assert dear.stopped > cheap.stopped
    assert dear.answer == "buy"


def test_seeded_and_stable_under_resampling(tmp_path: Path) -> None:
    first, again, other = (asked(tmp_path, f"seed = {seed}\n{BASE}") for seed in (1, 1, 2))
    assert first == again
    assert other.choices[0].mean_usd == pytest.approx(first.choices[0].mean_usd, abs=0.02 * 500e6)
    assert other.choices[0].loss == pytest.approx(first.choices[0].loss, abs=0.03)


class TestDeals:
    """What offers cost by the chip that comes."""

    def test_the_51_million_of_a_start_up_that_did_not_deliver(self) -> None:
        usd = constants()["deals/cerebras/preorder_usd"].value
        found = effective("rain", Deal(kind="preorder", usd=usd, units=3000, delivery=0.25))
        assert (found.stated_usd, found.effective_usd) == (17_000, 68_000)

    def test_equity_paid_in_chips(self) -> None:
        found = effective("amd", Deal(kind="equity", usd=9e9, units=300_000, equity_usd=2e9))
        assert found.effective_usd == pytest.approx(7e9 / 300_000)

    def test_a_licence_that_removes_a_supplier(self) -> None:
        found = effective("groq", Deal(kind="licence", usd=9e9, units=300_000, probability=0.5, price_rise=0.2))
        assert found.effective_usd == pytest.approx(33_000)


class TestExample:
    found = decide(EXAMPLES / "decide-n3.toml")

    def test_flips_are_where_the_sign_turns(self) -> None:
        ids = [flip.id for flip in self.found.flips]
        assert "file/own/kappa" in ids and "decision/partner_margin" in ids

    def test_a_fab_is_hardly_used(self) -> None:
        fab = self.found.fab
        assert fab is not None and fab.utilisation < 0.01 and fab.own_wafer_usd > 10 * fab.bought_wafer_usd
        assert fab.capital_usd == 20_000 * 400_000

    def test_the_ledger_holds_chip_programme_site_and_file(self) -> None:
        shelves = {line.id.split("/")[0] for line in self.found.ledger}
        assert {"nodes", "memory", "packages", "process", "program", "site", "decision", "file"} <= shelves
        assert {id_ for line in self.found.ledger for id_ in line.source} == set(self.found.sources)

    def test_4096_samples_are_the_default(self) -> None:
        assert self.found.samples == 4096


@pytest.mark.parametrize(
    ("old", "new", "must"),
    [
        ("units_per_year = 20000", "units_per_year = -20000", ["need.units_per_year", "negative", "-20000"]),
        ("units_per_year = 20000", "units_per_year = 0", ["need.units_per_year", "above 0"]),
        ("kappa = { value = 0.9, low = 0.6", "kappa = { value = 0.9, low = 0.95", ["own.kappa", "low <= value"]),
        ("kappa = { value = 0.9,", "kappa = {", ["own.kappa", "no value"]),
        (
            "kappa = { value = 0.9, low = 0.6",
            "kappa = { value = 0.9, lo = 0.6",
            ["own.kappa: lo: unknown key", "'low'"],
        ),
        ("price_usd = 40000", "", ["vendor", "price_usd"]),
        ("power_w = 1000", "power_w = 1000\nnext_speed = 2.0", ["vendor", "next_years, next_price_usd and next_speed"]),
        ("unit_usd = 12800", "", ["own.unit_usd", "what does a unit cost?"]),
        ("power_w = 900", "", ["own.power_w", "describe [chip]"]),
        ("discount_rate = 0.1", "discount_rate = 10", ["terms.discount_rate", "not a share"]),
        ("discount_rate = 0.1", "discount_rate = 0.1\ntake_or_pay = { hbm = 0.9 }", ["take_or_pay", "describe [chip]"]),
        ("[terms]\ndiscount_rate = 0.1", "", ["the [terms] table is missing"]),
        ("[terms]", "[deal.a]\nkind = 'gift'\nusd = 1\nunits = 1\n[terms]", ["deal.a.kind", "'gift'", "preorder"]),
        ("[terms]", "[deal.a]\nkind = 'preorder'\nusd = 1\nunits = 1\ndelivery = 2\n[terms]", ["deal.a.delivery", "2"]),
    ],
)
def test_decisions_that_cannot_be(told: Told, old: str, new: str, must: list[str]) -> None:
    text = BASE.replace(old, new, 1)
    assert text != BASE
    message = told(text, "decide")
    assert all(part in message for part in must), message


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("decide-*.toml")))
def test_examples_run_and_fit_a_hundred_columns(name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(["silicon", "decide", str(EXAMPLES / name), "--json", str(tmp_path / "a.json")])
    out, _ = capsys.readouterr()
    assert left.value.code == 0
    assert max(len(line.rstrip()) for line in out.splitlines()) <= 100
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["choices"] and found["ledger"] and found["sources"]

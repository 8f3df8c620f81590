"""Lists and records on the command line: nothing is cut, ids are whole, marks are explained, figures are named."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from infermix.catalog.load import catalog as packaged
from infermix.catalog.load import figures_of
from infermix.catalog.query import figure, shelves
from infermix.cli.catalog import catalog

FACTS = packaged()


def out(*arguments: str) -> str:
    run = CliRunner().invoke(catalog, list(arguments))
    assert run.exit_code == 0, run.output
    assert max(map(len, run.stdout.splitlines())) <= 100
    return run.stdout


@pytest.mark.parametrize("kind", ["chips", "systems", "models", "prices"])
def test_every_row_of_a_list_names_its_figures(kind: str) -> None:
    rows = json.loads(CliRunner().invoke(catalog, ["list", kind, "--json", "-"]).stdout)
    assert [row["id"] for row in rows] == list(shelves(FACTS)[kind])
    for row in rows:
        named = [id_.rpartition("/")[2] for id_ in row["figures"]]
        assert named == list(figures_of(shelves(FACTS)[kind][row["id"]]))
    assert figure(FACTS, rows[0]["figures"][0]).source


@pytest.mark.parametrize("name", ["h200-sxm", "h200-x8", "gpt-oss-120b", "rent-nebius-h200-on-demand"])
def test_a_record_names_its_figures(name: str) -> None:
    record = json.loads(CliRunner().invoke(catalog, ["show", name, "--json", "-"]).stdout)
    assert record["figures"] and all(id_.startswith(f"{record['part']}/{name}/") for id_ in record["figures"])


def test_prices_are_not_cut() -> None:
    text = " ".join(out("list", "prices").split())
    for id_, price in FACTS.prices.items():
        paid = price.usd_per_hour or price.capital_usd or price.output_usd_per_mtok
        assert id_ in text and "\u2026" not in text
        if paid:
            assert text.partition(f"{id_} ")[2].split(" USD", 1)[0].count(" ") < 8, id_
    assert "42.00 USD/h for 4" in text and "41.96 USD/h" in text


@pytest.mark.parametrize("id_", ["h200-x8", "h100-x8", "gb200-x4", "cs3", "groq-v1-rack"])
def test_ids_are_never_broken(id_: str) -> None:
    text = out("show", id_)
    for item in figures_of(FACTS.systems[id_]).values():
        assert all(base in text for base in item.of)
        for word in item.note.split():
            assert word in text


def test_closed_models_and_chips_without_speed_are_marked() -> None:
    chips, models = out("list", "chips"), out("list", "models")
    for lines, shelf, field, mark in (
        (chips, FACTS.chips, "no_speed", " !"),
        (models, FACTS.models, "closed", " *"),
    ):
        for id_ in shelf:
            line = next(line for line in lines.splitlines() if line.startswith((f"{id_} ", f"{id_}{mark} ")))
            assert line.startswith(f"{id_}{mark} ") == bool(getattr(shelf[id_], field))
    assert "! = no speed can be told" in chips and "* = closed" in models


def test_the_kind_of_every_chip_is_whole() -> None:
    assert {"hbm", "lpddr", "gddr", "sram", "other"} <= set(out("list", "chips").split())


def test_a_chip_without_speed_says_so_first() -> None:
    lines = out("show", "rain-npu").splitlines()
    assert lines[1].startswith("No speed can be told: ")
    assert "No speed" not in out("show", "h200-sxm")

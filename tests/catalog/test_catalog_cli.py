"""``infermix catalog``: tables for people, JSON for programs, one line for mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from infermix.catalog.load import catalog as packaged
from infermix.cli.catalog import catalog
from infermix.cli.output import human, write_json
from infermix.errors import InputError

COUNTS = {"chips": len(packaged().chips), "models": len(packaged().models), "prices": len(packaged().prices)}


@pytest.mark.parametrize("kind", ["chips", "systems", "models", "prices"])
def test_list_fits_the_page_and_json_takes_stdout(kind: str) -> None:
    plain = CliRunner().invoke(catalog, ["list", kind])
    assert plain.exit_code == 0 and plain.stderr == ""
    assert max(map(len, plain.stdout.splitlines())) <= 100
    both = CliRunner().invoke(catalog, ["list", kind, "--json", "-"])
    rows = json.loads(both.stdout)
    assert len(rows) == COUNTS.get(kind, len(rows)) and all(row["id"] in both.stderr for row in rows)
    assert both.stderr == plain.stdout


@pytest.mark.parametrize(
    "name", ["h200-sxm", "cs3", "gpt-oss-120b", "rent-nebius-h200-on-demand", "systems/gb200-nvl72"]
)
def test_show_gives_each_figure_with_its_source(name: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    run = CliRunner().invoke(catalog, ["show", name, "--json", str(path)])
    assert run.exit_code == 0, run.output
    assert max(map(len, run.stdout.splitlines())) <= 100
    text = path.read_text()
    record = json.loads(text)
    assert text.endswith("}\n") and record["id"] == name.rpartition("/")[2]
    figures = {key: item for key, item in record.items() if isinstance(item, dict) and "value" in item}
    assert figures
    for key, item in figures.items():
        assert key in run.stdout and item["kind"] in run.stdout
        assert item["source"] and all(record["sources"][source]["text"] for source in item["source"])


def test_show_uses_human_scale() -> None:
    out = CliRunner().invoke(catalog, ["show", "h200-sxm"]).stdout
    for text in ("4.8 TB/s", "141 GB", "989 TFLOP/s", "10 us", "814 mm2", "10.2 kW", "3.50 USD/h"):
        assert text in out


def test_an_unknown_name_exits_2_with_a_near_miss() -> None:
    run = CliRunner().invoke(catalog, ["show", "h200-x9"])
    assert run.exit_code == 2 and run.stdout == ""
    assert "got 'h200-x9'; did you mean 'h200-x" in run.stderr and run.stderr.count("\n") == 1


def test_a_json_file_that_cannot_be_written_exits_2(tmp_path: Path) -> None:
    run = CliRunner().invoke(catalog, ["show", "cs3", "--json", str(tmp_path / "no" / "x.json")])
    assert run.exit_code == 2 and "cannot be written" in run.stderr


def test_json_has_stable_keys_and_no_nan(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json(path, {"b": float("nan"), "a": [1.0, float("inf")], "c": {"z": 1, "y": None}})
    text = path.read_text()
    assert json.loads(text) == {"a": [1.0, None], "b": None, "c": {"y": None, "z": 1}}
    assert text.index('"a"') < text.index('"b"') < text.index('"c"') and text.endswith("}\n")
    with pytest.raises(InputError):
        write_json(tmp_path, {})


def test_human_scales() -> None:
    assert human(0.0, "byte") == "0 B" and human(999.9995e9, "byte") == "1,000 GB"
    assert human(1.25e-6, "s") == "1.25 us" and human(3600.0, "s") == "3,600 s"
    assert human(0.0375, "USD/Mtok") == "0.0375 USD/Mtok" and human(3.1e6, "USD") == "3,100,000 USD"

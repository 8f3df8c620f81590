"""The example of engines and fleets: everything that it switches on shows in the table, the page and the JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from infermix.cli.main import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "engine-features.toml"


def test_the_example_runs_and_shows_what_it_switches_on(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    found, page = tmp_path / "r.json", tmp_path / "r.html"
    with pytest.raises(SystemExit) as left:
        main(["simulate", str(EXAMPLE), "--json", str(found), "--report", str(page)])
    out, _ = capsys.readouterr()
    assert left.value.code == 0 and max(map(len, out.splitlines())) <= 100
    for word in (
        "Engines",
        "cache hits",
        "link busy",
        "sent back",
        "Prefill on reading, decode on answering: shipping",
    ):
        assert word in out
    html = page.read_text(encoding="utf-8")
    assert "Cache hits" in html and "Prefill on reading, decode on answering: shipping" in html
    told = json.loads(found.read_text())
    reading, answering, talking = (told["pools"][name] for name in ("reading", "answering", "talking"))
    assert reading["cache_hit_share"] > 0.3 and 0 < reading["loaded_share"] < 1 - reading["cache_hit_share"]
    assert 0 < reading["link_busy"] < 1 and 0 < answering["link_busy"] < 1
    assert answering["cache_hit_share"] is answering["loaded_share"] is talking["link_busy"] is None
    assert talking["restarts"] > 0 and talking["share_on"] < 1 and reading["share_on"] < 1 == answering["share_on"]
    assert [(p["prefill"], p["decode"], p["readiness"]) for p in told["pairs"]] == [
        ("reading", "answering", "shipping")
    ]
    assert told["unfinished"] == 0 and told["promises_kept"]


def test_a_plain_fleet_has_no_table_of_engines(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    plain = tmp_path / "s.toml"
    plain.write_text(
        'model = "llama-3.1-8b"\n[traffic.chat]\nprofile = "azure-conv-2023"\nrate_per_s = 5.0\nslo = { ttft_s = 2 }\n'
        '[fleet.one]\nsystem = "h100-x1"\ninstances = 1\n'
    )
    with pytest.raises(SystemExit):
        main(["simulate", str(plain), "--requests", "100"])
    assert "Engines" not in capsys.readouterr().out

"""The page of a simulation: everything told is on it, nothing is fetched, charts lie within their frames."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from infermix.plan.problem import parse_study
from infermix.study import report, simulate
from tests.report.plans import BITE
from tests.report.test_report_html import CHROMIUM, Reader

pytest.importorskip("jinja2", reason="needs the extra infermix[report]")
from infermix.errors import InputError
from infermix.report.simulation import courses, headline, in_flight, latency_plots, render_simulation, write_simulation

RAW: dict[str, Any] = {
    "name": f"study {BITE}",
    "model": "llama-3.1-8b",
    "traffic": {
        f"chat {BITE}": {
            "profile": "azure-conv-2023", "rate_per_s": 30.0,
            "slo": {"ttft_s": 0.2, "tpot_s": 0.02, "attainment": 0.95},
        },
        "code": {"profile": "azure-code-2023", "rate_per_s": 5.0, "slo": {"e2e_s": 3.0, "attainment": 0.9}},
    },
    "simulate": {"policy": "least_wait", "seed": 3},
    "fleet": {"big": {"system": "h100-x1", "instances": 2}, "wafer": {"system": "cs3", "stages": 2, "instances": 1}},
}  # fmt: skip


def run(name: str) -> dict[str, Any]:
    if name == "seeds":
        return simulate(parse_study(RAW, "s.toml"), requests=800, seeds=3, speeds="both")
    if name == "refused":
        fleet = {"big": {"system": "h100-x1", "instances": 1, "serves": {"code": 1.0}}}
        return simulate(parse_study({**RAW, "fleet": fleet}, "s.toml"), requests=300)
    quick = {"code": {**RAW["traffic"]["code"], "slo": {"e2e_s": 60.0, "attainment": 0.9}}}
    return simulate(parse_study({**RAW, "traffic": quick}, "s.toml"), requests=300)


@pytest.fixture(scope="module")
def runs() -> dict[str, dict[str, Any]]:
    return {name: run(name) for name in NAMES}


NAMES = ("seeds", "refused", "kept")


def test_what_was_found_is_on_the_page(runs: dict[str, dict[str, Any]]) -> None:
    found = runs["seeds"]
    text = Reader(render_simulation(found)).text
    wanted = [f"study {BITE}", f"chat {BITE}", "code", "least_wait", "2,400 requests of 3 seeds", "big", "wafer"]
    wanted += ["95% of requests with TTFT ≤ 0.2 s and TPOT ≤ 20 ms", "90% of requests with E2E ≤ 3 s"]
    wanted += ["ITL", "queue", "nominal and low speeds", "kWh always on", "No cost of wafer: cs3", "Seeds"]
    wanted += [f"{row['requests']:,}" for row in found["pools"].values()]
    wanted += [f"{100 * row['busy']:.1f}%" for row in found["pools"].values()]
    assert [word for word in wanted if word not in text] == []


def test_refusals_and_absent_numbers_are_said(runs: dict[str, dict[str, Any]]) -> None:
    text = Reader(render_simulation(runs["refused"])).text
    n = runs["refused"]["classes"][f"chat {BITE}"]["refused"]
    assert f"Refused of chat {BITE}: {n} no pool serves the class." in text
    assert f"No request of chat {BITE} was completed." in text and "Promises are missed: 0.0%" in text


def test_headlines(runs: dict[str, dict[str, Any]]) -> None:
    assert headline(runs["kept"]) == "The promise is kept."
    late = {"classes": {"a": {"attainment": 0.96, "promised": 0.95, "attainment_low": 0.9}}, "promises_kept": False}
    assert headline(late) == "Every promise is kept at nominal speeds; at low speeds a would miss."
    missed = {"classes": {"a": {"attainment": 0.5, "promised": 0.95}}, "promises_kept": False}
    assert headline(missed) == "Promises are missed: 50.0% of a (promised 95.0%)."


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_fetched_nothing_runs_and_nothing_becomes_markup(
    runs: dict[str, dict[str, Any]], name: str
) -> None:  # fmt: skip
    page = render_simulation(runs[name])
    reader = Reader(page)
    links = [value for key, value in reader.attributes if key in ("href", "src", "action", "data", "srcset")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bsrc=", page)
    assert "script" not in reader.tags and not [key for key, _ in reader.attributes if key.startswith("on")]
    assert BITE not in page
    anchors = {value[1:] for key, value in reader.attributes if key == "href" and value.startswith("#")}
    assert anchors == {value for key, value in reader.attributes if key == "id"}


@pytest.mark.parametrize("name", NAMES)
def test_every_place_lies_within_its_frame(runs: dict[str, dict[str, Any]], name: str) -> None:
    found = runs[name]
    plots = [in_flight(found), *(p for rows in courses(found).values() for p in rows)]
    plots += [p for n, c in found["classes"].items() for p in latency_plots(n, c)]
    for plot in plots:
        points = [float(v) for curve in plot.curves for v in re.findall(r"-?[\d.]+", curve.points)]
        assert points and all(-0.01 <= v <= 100.01 for v in points), plot.title
        assert all(-0.01 <= t.at <= 100.01 for t in [*plot.x_ticks, *plot.y_ticks]) and plot.x_ticks and plot.y_ticks
        assert plot.promise is None or 0 < plot.promise.at < 100


def test_a_line_stops_where_nothing_arrived_and_a_lone_bin_is_seen(runs: dict[str, dict[str, Any]]) -> None:
    found = json.loads(json.dumps(runs["kept"]))
    course = found["over_time"]["classes"]["code"]["attainment"]
    course[:] = [None] * 60
    course[3], course[10], course[11] = 1.0, 0.9, 0.95
    lines = courses(found)["code"][0].curves
    assert len(lines) == 2 and [len(line.points.split()) for line in lines] == [2, 2]
    assert lines[0].points.startswith("5.00,0.00 6.67,0.00")


def test_the_verb_writes_the_page(runs: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    report(runs["kept"], tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == render_simulation(runs["kept"])
    with pytest.raises(InputError, match="cannot be written"):
        write_simulation(runs["kept"], tmp_path / "none" / "r.html")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("name", ["seeds", "refused"])
def test_a_telephone_does_not_scroll_sideways(runs: dict[str, dict[str, Any]], name: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render_simulation(runs[name]), encoding="utf-8")
    frame = tmp_path / "frame.html"
    frame.write_text(
        '<iframe id="f" src="page.html" style="width:390px;height:4000px;border:0"></iframe><p id="out"></p><script>'
        "f.onload = () => { const d = f.contentDocument.documentElement;"
        "out.textContent = JSON.stringify([d.scrollWidth, d.clientWidth]); }</script>"
    )
    assert CHROMIUM is not None
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    found = subprocess.run(
        [CHROMIUM, *flags, "--virtual-time-budget=3000", f"--user-data-dir={tmp_path / 'user'}", frame.as_uri()],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    match = re.search(r'<p id="out">(\[.*?\])</p>', found.stdout)
    assert match, found.stderr[-500:]
    wide, seen = json.loads(match[1])
    assert wide <= seen

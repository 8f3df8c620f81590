"""The page of a picture: whole, escaped, self-contained, right in its places, no wider than a telephone."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import msgspec
import pytest

from infermix.workload.describe import describe
from infermix.workload.picture import Picture
from tests.report.plans import BITE
from tests.report.test_report_html import CHROMIUM, Reader
from tests.workload.test_workload_closed import AGENT
from tests.workload.test_workload_picture import MOONCAKE

pytest.importorskip("jinja2", reason="needs the extra infermix[report]")
from infermix.report.workload import duration, histogram, rate_plot, render_picture, spark


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Picture]:
    (tmp_path / "a.csv").write_text(AGENT)
    (tmp_path / "m.jsonl").write_text(MOONCAKE)
    (tmp_path / "l.csv").write_text("input_tokens,output_tokens\n" + "5,6\n" * 30)
    biting = describe("a.csv", base_dir=tmp_path, rate_per_s=2.0)
    return {
        "sessions": msgspec.structs.replace(
            biting, name=f"n {BITE}", description=f"d {BITE}", source=f"s {BITE}", notes=[f"note {BITE}"],
            models={f"m {BITE}": 3, "other": 3},
        ),
        "blocks": describe("m.jsonl", base_dir=tmp_path),
        "timeless": describe("l.csv", base_dir=tmp_path),
        "profile": describe("azure-code-2023"),
    }  # fmt: skip


NAMES = ("sessions", "blocks", "timeless", "profile")


def test_what_is_known_is_on_the_page(pictures: dict[str, Picture]) -> None:
    text = Reader(render_picture(pictures["sessions"])).text
    wanted = [f"n {BITE}", f"d {BITE}", f"s {BITE}", f"note {BITE}", f"m {BITE} 3", "2 sessions", "Arrivals are drawn"]
    wanted += ["Pause after an answer", "sub agent times put on session clock: 1", "16.7% of the requests"]
    for word in wanted:
        assert word in text, word
    text = Reader(render_picture(pictures["blocks"])).text
    for word in ("7 prefix blocks of 512 tokens, 4 of them distinct", "42.9%", "28.6%", "as recorded", "read as it is"):
        assert word in text, word
    text = Reader(render_picture(pictures["timeless"])).text
    assert "No times were recorded, so there is no rate." in text and "Burstiness" not in text


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_fetched_nothing_runs_and_nothing_becomes_markup(pictures: dict[str, Picture], name: str) -> None:
    page = render_picture(pictures[name])
    reader = Reader(page)
    links = [value for key, value in reader.attributes if key in ("href", "src", "action", "data", "srcset")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert "script" not in reader.tags and not re.search(r"@import|url\(|\bsrc=", page)
    assert not [key for key, _ in reader.attributes if key.startswith("on")] and BITE not in page


@pytest.mark.parametrize("name", NAMES)
def test_contents_lead_to_sections(pictures: dict[str, Picture], name: str) -> None:
    attributes = Reader(render_picture(pictures[name])).attributes
    anchors = {value[1:] for key, value in attributes if key == "href" and value.startswith("#")}
    assert anchors == {value for key, value in attributes if key == "id"}


def test_bars_stand_where_and_as_high_as_they_should(pictures: dict[str, Picture]) -> None:
    c = pictures["profile"].lengths["input_tokens"]
    plot = histogram("input_tokens", c)
    points = [tuple(map(float, p.split(","))) for p in plot.curves[0].points.split()]
    assert points[0] == (0.0, 100.0) and points[-1] == (100.0, 100.0)
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    tops = [y for _, y in points[1:-1:2]]
    assert len(tops) == len(c.counts) and tops.index(min(tops)) == c.counts.index(max(c.counts))
    assert min(tops) == pytest.approx(100 - 100 / 1.12, abs=0.01)
    assert plot.promise is not None and 0 < plot.promise.at < 100


def test_rates_over_time_have_their_mean(pictures: dict[str, Picture]) -> None:
    arrivals = pictures["profile"].arrivals
    assert arrivals is not None
    plot = rate_plot(arrivals)
    heights = [100 - float(p.split(",")[1]) for p in plot.curves[0].points.split()[1:-1:2]]
    assert plot.level is not None
    assert sum(heights) / len(heights) == pytest.approx(plot.level.at, abs=0.02)
    assert max(heights) == pytest.approx(100 / 1.12, abs=0.01)
    assert plot.x_ticks[0].label.startswith("0 ") and all(0 <= t.at <= 100 for t in plot.x_ticks)


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.05, "50 ms"), (90.0, "90 s"), (600.0, "10 min"), (7200.0, "2 h"), (1_209_600.0, "14 days")]
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_sparks() -> None:
    assert spark([0, 0, 8, 4]) == "  █▄" and spark([1.0] * 10, 5) == "█████" and spark([0.001, 9.0]) == "▁█"
    assert spark([0.0, 0.0]) == "  "


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("name", ["sessions", "profile"])
def test_a_telephone_does_not_scroll_sideways(pictures: dict[str, Picture], name: str, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(render_picture(pictures[name]), encoding="utf-8")
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

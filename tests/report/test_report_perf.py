"""Pages of perf: whole, self-contained, without overlapping names, and true to the numbers they show."""

from __future__ import annotations

import itertools
import re
import subprocess
from html import escape, unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("jinja2", reason="needs the extra infermix[report]")
from infermix.catalog.load import catalog
from infermix.cost.rent import Terms
from infermix.errors import InputError
from infermix.explore.chips import Chips, compare
from infermix.explore.point import Answer, Ask, answer
from infermix.explore.roofline import roofline
from infermix.perf.operating import Load
from infermix.perf.specdec import Speculation
from infermix.perf.sweep import Wish
from infermix.report.labels import GAP, LETTER, LINE, NARROW, WIDE, Named, place_labels
from infermix.report.perf import (
    PARTS,
    curve_chart,
    part_bars,
    render_chips,
    render_point,
    roofline_chart,
    scatter_chart,
    write_chips,
    write_point,
)
from tests.report.test_report_html import CHROMIUM, Reader

CAT = catalog()
ASK = Ask(load=Load(1000, 200), batch=16)


def point(model: str = "llama-3.3-70b", system: str = "h200-x8", ask: Ask = ASK) -> Answer:
    return answer(CAT, system, CAT.models[model], ask)


@pytest.fixture(scope="module")
def chips() -> Chips:
    terms = Terms(gross_margin=0.4, life_years=5, usd_per_kwh=0.08)
    return compare(CAT, CAT.models["llama-3.3-70b"], Wish(load=Load(100_000, 300)), terms=terms)


CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("llama-3.3-70b", "h200-x8", {"batch": 16}),
    ("deepseek-v3.2", "gb200-nvl72", {"batch": 512}),
    ("gpt-oss-120b", "cs3", {"batch": 1}),
    ("gpt-5-class", "b200-x8", {"batch": 4}),
    ("deepseek-v3.2", "h200-x8", {"batch": 3, "spec": Speculation("mtp", 2, 2.3)}),
    ("llama-3.1-8b", "h200-sxm", {"tp": 1}),
]


@pytest.mark.parametrize(("model", "system", "options"), CASES)
def test_a_page_is_whole_and_loads_nothing(model: str, system: str, options: dict[str, Any]) -> None:
    ask = Ask(load=Load(1000, 200), **options)
    found = point(model, system, ask)
    page = render_point(found, ask)
    read = Reader(page)
    _self_contained(page, read)
    wanted = [model, found.deployment.system.id, found.prediction.confidence[1:], "Roofline", "What would help"]
    wanted += [lever.change for lever in found.levers] + found.figures + [f"Batch {p.batch:,}" for p in found.points]
    assert [text for text in wanted if text not in read.text] == []
    assert ("its shape is a guess" in read.text) == CAT.models[model].closed


def test_the_page_of_chips_is_whole_and_loads_nothing(chips: Chips) -> None:
    page = render_chips(chips, CAT.models["llama-3.3-70b"])
    read = Reader(page)
    _self_contained(page, read)
    assert [r.chip for r in (*chips.rows, *chips.cannot) if r.chip not in read.text] == []
    assert [r.reason for r in chips.cannot if r.reason not in read.text] == []
    assert [r.no_price for r in chips.rows if r.no_price and r.no_price.capitalize() not in read.text] == []


def _self_contained(page: str, read: Reader) -> None:
    assert not {"script", "link rel=stylesheet", "img", "iframe", "object"} & read.tags
    refs = [value for name, value in read.attributes if name in ("src", "href")]
    assert all(ref.startswith(("#", "data:")) for ref in refs), refs
    assert "url(" not in page and "@import" not in page and "nan" not in re.findall(r"[\w.]+", read.text)
    names = re.findall(r'(?:style="left|points=")[^"]*', page)
    assert names and not any("nan" in text or "inf" in text for text in names)


def test_a_name_with_markup_is_escaped() -> None:
    found = point()
    found.note = "<b>bold</b> & more"
    assert "<b>bold" not in render_point(found, ASK) and "&lt;b&gt;bold" in render_point(found, ASK)


def test_without_prices_or_speed_there_is_still_a_page(chips: Chips) -> None:
    alone = compare(CAT, CAT.models["llama-3.3-70b"], Wish(load=Load(1000, 200)), chips=["wse3", "truenorth"])
    page = render_chips(alone, CAT.models["llama-3.3-70b"])
    assert 'class="chart"' not in page and "wse3" in Reader(page).text
    none = compare(CAT, CAT.models["llama-3.3-70b"], Wish(load=Load(1000, 200)), chips=["truenorth"])
    assert "spiking" in Reader(render_chips(none, CAT.models["llama-3.3-70b"])).text


@pytest.mark.parametrize(("model", "system", "options"), CASES)
def test_parts_fill_their_bar(model: str, system: str, options: dict[str, Any]) -> None:
    ask = Ask(load=Load(1000, 200), **options)
    found = point(model, system, ask)
    bars = part_bars(found, ask)
    assert [b.name for b in bars] == [f"Batch {p.batch:,}" for p in found.points]
    for bar in bars:
        assert sum(s.width for s in bar.segments) == pytest.approx(100)
        assert [s.label for s in bar.segments] == [name for name in PARTS if name in {s.label for s in bar.segments}]


def test_every_part_of_a_step_has_a_colour() -> None:
    for model, system, options in CASES:
        found = point(model, system, Ask(load=Load(1000, 200), **options))
        assert set(found.prediction.parts_s) <= set(PARTS)
    piped = point("kimi-k2", "h100-x8", Ask(load=Load(1000, 200), tp=8, pp=4))
    assert "hops" in piped.prediction.parts_s and set(piped.prediction.parts_s) <= set(PARTS)


@pytest.mark.parametrize(("model", "system", "options"), CASES)
def test_marks_of_the_roofline_lie_under_the_lines(model: str, system: str, options: dict[str, Any]) -> None:
    """On the page too: at its place along the axis every mark is below the roof drawn there."""
    found = point(model, system, Ask(load=Load(1000, 200), **options))
    chart = roofline_chart(roofline(found.deployment, Load(1000, 200), [p.batch for p in found.points]))
    roofs = [
        [tuple(map(float, xy.split(","))) for xy in c.points.split()] for c in chart.curves if c.style != "reached-line"
    ]
    for mark in chart.marks:
        assert 0 <= mark.x <= 100 and 0 <= mark.y <= 100
        assert mark.y <= max(100 - _at(line, mark.x) for line in roofs) + 1e-6, mark.title
    assert sum("prompt" in mark.style for mark in chart.marks) == 1


def _at(line: list[tuple[float, ...]], x: float) -> float:
    for (x0, y0), (x1, y1) in itertools.pairwise(line):
        if x0 <= x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return line[0][1] if x < line[0][0] else line[-1][1]


def test_the_batch_asked_for_is_marked_and_named() -> None:
    chart = curve_chart(point(), ASK)
    own = [m for m in chart.marks if "own" in m.style]
    assert len(own) == 1 and own[0].title.startswith("batch 16:")
    assert any(label.text == "tp8, batch 16" for label in chart.labels)
    assert {"tp2", "tp4"} <= {m.title for m in chart.marks}
    users = [m.x for m in chart.marks if m.title.startswith("batch")]
    assert users == sorted(users, reverse=True), "the larger the batch, the slower each user"


def test_the_scatter_has_every_chip_with_a_price(chips: Chips) -> None:
    priced = [r for r in chips.rows if r.usd_per_mtok_output]
    chart = scatter_chart(chips, priced)
    assert {m.title.split()[0] for m in chart.marks} == {r.chip for r in priced}
    assert all(0 <= m.x <= 100 and 0 <= m.y <= 100 for m in chart.marks)
    named = {label.text for label in chart.labels}
    assert named >= {p.chip for p in chips.front} and len(named) > len(priced) / 2
    front = next(c for c in chart.curves if c.style == "front-line")
    xs = [float(p.split(",")[0]) for p in front.points.split()]
    assert xs == sorted(xs) and len(xs) == len(chips.front)


def boxes(labels: list[Any], size: tuple[float, float]) -> list[tuple[float, float, float, float]]:
    """Where names stand, computed anew [px]: left, bottom, right, top."""
    found = []
    for label in labels:
        x, y, wide = label.x / 100 * size[0], label.y / 100 * size[1], LETTER * len(label.text)
        left = {"right": x + GAP, "left": x - GAP - wide}.get(label.side, x - wide / 2)
        bottom = {"above": y + GAP - 2, "below": y - GAP + 2 - LINE}.get(label.side, y - LINE / 2)
        found.append((left, bottom, left + wide, bottom + LINE))
    return found


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_names_do_not_overlap(size: tuple[float, float], chips: Chips) -> None:
    chart = scatter_chart(chips, [r for r in chips.rows if r.usd_per_mtok_output])
    shown = [label for label in chart.labels if size == WIDE or not label.tight]
    for a, b in itertools.combinations(boxes(shown, size), 2):
        assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])
    assert len(shown) > 10


def test_a_name_finds_another_side_or_waits_for_a_broad_page() -> None:
    both = place_labels([Named(50, 50, "first"), Named(51, 50, "second")], [(50, 50), (51, 50)])
    assert [label.side for label in both] == ["right", "left"]
    crowd = place_labels([Named(50, 50, "x" * 12)] * 9, [])
    assert 1 < len(crowd) < 9
    edge = place_labels([Named(99, 50, "at the right edge")], [])
    assert [label.side for label in edge] == ["left"]
    assert [label.tight for label in place_labels([Named(40, 50, "y" * 40)], [])] == [True]


def test_files_are_written_or_refused_in_one_line(tmp_path: Path, chips: Chips) -> None:
    write_point(point(), ASK, tmp_path / "point.html")
    write_chips(chips, CAT.models["llama-3.3-70b"], tmp_path / "chips.html")
    for name in ("point.html", "chips.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.lstrip().startswith("<!doctype html>") and len(text) < 300_000
    with pytest.raises(InputError, match="cannot be written"):
        write_point(point(), ASK, tmp_path / "no" / "x.html")


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kind", ["point", "chips"])
def test_the_page_never_scrolls_sideways(width: int, kind: str, tmp_path: Path, chips: Chips) -> None:
    """In a frame of that width: a headless window is never narrower than 500 px."""
    assert CHROMIUM
    text = render_point(point(), ASK) if kind == "point" else render_chips(chips, CAT.models["llama-3.3-70b"])
    frame = f'<iframe width="{width}" height="800" srcdoc="{escape(text)}"></iframe><p id="said"></p>'
    ask = "d=document.querySelector('iframe').contentDocument.documentElement;"
    ask += "said.textContent=d.scrollWidth+' '+d.clientWidth"
    page = tmp_path / "frame.html"
    page.write_text(f"<!doctype html><style>iframe{{border:0}}</style>{frame}<script>onload=()=>{{{ask}}}</script>")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    run = subprocess.run([CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<p id="said">(\d+) (\d+)</p>', unescape(run.stdout))
    assert found and int(found[1]) <= int(found[2]) and int(found[2]) > width - 20

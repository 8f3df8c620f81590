"""The HTML report: whole, escaped, self-contained, light and dark, and no wider than a telephone."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pytest

from infermix.errors import InputError
from infermix.plan.result import FrontierPoint, Plan, ProvedFleet
from infermix.report import words
from tests.report.plans import (
    BITE,
    biting_plan,
    day_plan,
    doubtful_plan,
    earning_plan,
    empty_plan,
    scenario_plan,
    served,
)

pytest.importorskip("jinja2", reason="needs the extra infermix[report]")
from infermix.report.day_charts import day_pictures
from infermix.report.html import render, write_report
from infermix.report.range_charts import tornado

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PLANS = {
    "biting": biting_plan, "doubtful": doubtful_plan, "empty": empty_plan, "day": day_plan, "earning": earning_plan,
    "scenarios": scenario_plan,
}  # fmt: skip
VOID = {"meta", "link", "br", "wbr", "line", "polyline"}


class Reader(HTMLParser):
    """Text, tags and attributes of a page; fails on tags that do not match."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.words: list[str] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert not self.open

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_every_class_pool_limit_and_reason_is_there() -> None:
    plan = biting_plan()
    text = Reader(render(plan)).text
    wanted = [plan.study, plan.study_hash, plan.policy, plan.model, *plan.classes, *plan.assumptions]
    wanted += [p.name for p in plan.fleet] + [p.vendor for p in plan.fleet] + [f.id for f in plan.unverified]
    wanted += [limit.name for limit in plan.limits] + [words.limit_name(limit) for limit in plan.limits]
    wanted += [part for w in plan.why for part in (w.system, *w.reason.split("; "))]
    wanted += [str(c["reason"]) for row in plan.single_chip for c in row.classes.values()]
    wanted += [system for point in plan.frontier for system in point.systems]
    wanted += [
        "$180/h",
        "$12.5/h per system",
        "no fleet was found",
        "By simulated capacities, not proved",
        "1, 2, 3, 4, 5",
    ]
    assert [want for want in wanted if want not in text] == []


def test_no_text_of_the_plan_becomes_markup() -> None:
    page = render(biting_plan())
    assert BITE not in page and escape(BITE, quote=False)[:6] in page
    titles = [value for name, value in Reader(page).attributes if name in ("title", "aria-label")]
    assert any(BITE in title for title in titles)


@pytest.mark.parametrize("name", PLANS)
def test_nothing_is_fetched_and_nothing_runs(name: str) -> None:
    page = render(PLANS[name]())
    reader = Reader(page)
    links = [value for key, value in reader.attributes if key in ("href", "src", "action", "data", "srcset")]
    assert all(link.startswith("#") or link == "data:," for link in links)
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\bsrc=", page)
    assert "script" not in reader.tags and not [key for key, _ in reader.attributes if key.startswith("on")]


@pytest.mark.parametrize("name", PLANS)
def test_contents_lead_to_sections(name: str) -> None:
    attributes = Reader(render(PLANS[name]())).attributes
    anchors = {value[1:] for key, value in attributes if key == "href" and value.startswith("#")}
    assert anchors == {value for key, value in attributes if key == "id"}


def test_both_colour_schemes_and_print_have_every_colour() -> None:
    page = render(biting_plan())
    light = set(re.findall(r"(--[a-z-]+):", page.split("@media")[0]))
    schemes = re.findall(r"@media (\(prefers-color-scheme: dark\)|print) \{\s*:root \{(.*?)\}", page, re.DOTALL)
    assert [name for name, _ in schemes] == ["(prefers-color-scheme: dark)", "print"]
    assert all(set(re.findall(r"(--[a-z-]+):", body)) == light for _, body in schemes)


@pytest.mark.parametrize("kind", words.KINDS)
def test_every_kind_of_chip_has_a_colour(kind: str) -> None:
    assert f".{kind} {{ --c: var(--{kind})" in render(biting_plan())


def test_a_day_shows_its_slots_contracts_apis_and_what_is_near() -> None:
    plan = day_plan()
    text = Reader(render(plan)).text
    wanted = [slot.name for slot in plan.slots] + [c.name for c in plan.contracts] + [a.name for a in plan.api]
    wanted += [e.system for e in plan.entries] + [s.id for s in plan.swings]
    wanted += ["Systems at work", "Spend, $ an hour", "Requests of chat a second", "2 to 8", "11.2", "1.61\u00d7",
               "no fleet", "1 µs to 40 µs", "other systems at its high end", "Vendor with most", "$/h a MW", "+2.3%",
               "20.0% unserved", "Goes without: 3.0% of chat"]  # fmt: skip
    assert [want for want in wanted if want not in text] == []
    assert "The day" not in Reader(render(biting_plan())).text


def test_what_is_not_computed_is_said() -> None:
    bare = {key: [] for key in ("entries", "next_best", "swings", "single_chip")}
    text = Reader(render(msgspec.structs.replace(day_plan(6), **bare))).text
    assert "Not computed for this plan: single-chip fleets, entry prices, next best fleets and swings" in text
    assert "all 4 slots again" in text
    assert "Not computed" not in Reader(render(biting_plan())).text


def test_a_profit_is_a_tile_in_place_of_the_gap() -> None:
    text = Reader(render(earning_plan())).text
    assert "profit, of $400/h earned" in text and "above the lower bound" not in text


def test_stacked_systems_add_up() -> None:
    """The outline of the uppermost layer is the sum of all of them."""
    plan = day_plan(6)
    stacked = day_pictures(plan)[0].plots[0]
    top = 1.12 * max(sum(slot.systems.values()) for slot in plan.slots)
    outline = [tuple(map(float, point.split(","))) for point in stacked.curves[-1].points.split()]
    for i, slot in enumerate(plan.slots):
        assert outline[2 * i] == pytest.approx((25.0 * i, 100 - 100 * sum(slot.systems.values()) / top), abs=0.01)


def test_every_scenario_has_a_picture() -> None:
    pictures = day_pictures(scenario_plan())
    assert len(pictures) == 1 and [t.label for t in pictures[0].plots[0].x_ticks] == ["as stated", "boom"]
    parted = msgspec.structs.replace(
        day_plan(6),
        slots=[msgspec.structs.replace(s, scenario=name) for name in ("a", "b") for s in day_plan(6).slots],
    )
    assert [p.title for p in day_pictures(parted)] == ["a, probability 100.0%", "b, probability 100.0%"]


def test_swings_start_at_the_cost_of_the_plan() -> None:
    plan = day_plan()
    found = tornado(plan)
    assert found is not None and tornado(biting_plan()) is None
    first = found.rows[0]
    assert first.low < found.base < first.high <= 100 and found.rows[1].high == 100


def test_little_to_say_is_said_plainly() -> None:
    text = Reader(render(doubtful_plan())).text
    for want in (
        "Not proved", "20.0% of the 95.0% promised", "No fleet of a single system", "Short of its promise by 75.0%",
        "No latencies were recorded", "The study sets none", "was looked up", "Without the least share",
    ):  # fmt: skip
        assert want in text
    assert "Cost against speed" not in text and "None" not in text and "nan" not in text


def test_no_fleet_is_said_plainly() -> None:
    text = Reader(render(empty_plan())).text
    assert "No fleet was found" in text and "infeasible" in text
    assert not re.search(r"\b(nan|inf|None)\b", text)


def test_fleets_that_were_proved_are_counted_and_drawn() -> None:
    plan = biting_plan()
    tpot_s = plan.frontier[0].tpot_s
    rows = [
        ProvedFleet(usd_per_hour=1234.0, tpot_s=tpot_s, pools={"p": 1}, systems={}, status="proved", best=True),
        ProvedFleet(usd_per_hour=2345.0, tpot_s=tpot_s, pools={"p": 2}, systems={}, status="proved", best=False),
    ]
    page = render(msgspec.structs.replace(plan, proved_fleets=rows))
    assert "2 fleets were proved by simulation" in page and "of 1 none is both" in page
    assert page.count('class="mark fleet"') == 2 and words.money(2345.0) in page


def test_a_frontier_without_any_fleet_has_a_table_but_no_plot() -> None:
    nowhere = FrontierPoint(
        class_name="gone", tpot_s=0.003, usd_per_hour=None, lower_bound_usd_per_hour=None, systems={}
    )
    text = Reader(render(msgspec.structs.replace(biting_plan(), frontier=[nowhere]))).text
    assert "no fleet was found" in text and "Cost against the TPOT" not in text


def test_one_time_for_all_requests_is_drawn() -> None:
    flat = served(cdf={"ttft_s": [0.1] * 101}, cdf_low={}, slo={"ttft_s": 0.1, "attainment": 0.999}, attainment=1.0)
    assert "TTFT of chat" in render(msgspec.structs.replace(biting_plan(), classes={"chat": flat}))


def test_the_file_is_written_and_small(tmp_path: Path) -> None:
    write_report(biting_plan(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and len(page) < 300_000


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*nowhere[^\n]*cannot be written: [^\n]+$"):
        write_report(biting_plan(), tmp_path / "nowhere" / "report.html")


def test_a_missing_extra_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"^the report needs jinja2; install infermix\[report\]$"):
        write_report(biting_plan(), tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


def many_pools() -> Plan:
    plan = biting_plan()
    fleet = [msgspec.structs.replace(plan.fleet[i % 2], name=f"{'x' * 40}-{i}") for i in range(9)]
    return msgspec.structs.replace(plan, fleet=fleet, study="y" * 80)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("plan", [biting_plan, doubtful_plan, empty_plan, many_pools, day_plan, scenario_plan])
def test_the_page_never_scrolls_sideways(width: int, plan: object, tmp_path: Path) -> None:
    """In a frame of that width: a headless window is never narrower than 500 px."""
    assert callable(plan) and CHROMIUM
    frame = f'<iframe width="{width}" height="800" srcdoc="{escape(render(plan()))}"></iframe><p id="said"></p>'
    ask = "d=document.querySelector('iframe').contentDocument.documentElement;"
    ask += "said.textContent=d.scrollWidth+' '+d.clientWidth"
    page = tmp_path / "frame.html"
    page.write_text(f"<!doctype html><style>iframe{{border:0}}</style>{frame}<script>onload=()=>{{{ask}}}</script>")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom")
    run = subprocess.run([CHROMIUM, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<p id="said">(\d+) (\d+)</p>', unescape(run.stdout))
    assert found and int(found[1]) <= int(found[2]) and int(found[2]) > width - 20

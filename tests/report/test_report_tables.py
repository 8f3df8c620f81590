"""The terminal's tables: whole, at most 100 columns wide, short, and safe from markup in names."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import Any

import msgspec
import pytest
from rich.console import Console

from infermix.plan.result import Plan, Why
from infermix.report import words
from infermix.report.tables import print_plan, print_run, shortened
from tests.report.plans import (
    BITE,
    ONE_MORE,
    biting_plan,
    day_plan,
    doubtful_plan,
    earning_plan,
    empty_plan,
    limit,
    pool,
    served,
    single,
)


def lines(plan: Plan, width: int = 100) -> list[str]:
    stream = io.StringIO()
    print_plan(plan, Console(file=stream, width=width, highlight=False))
    return stream.getvalue().splitlines()


def large_plan() -> Plan:
    """As large as a study usually gets: four pools, two classes, nine systems, five limits."""
    plan = biting_plan()
    cannot = (
        "coding: cannot, tp8: TPOT 5.52 ms even alone, promised 3 ms; chat: 31 USD per million requests, 1.3 times "
    )
    cannot += "the cheapest; buying one all the same makes the fleet 12.3% dearer"
    names = ("mi300x-x8-tp1", "mi355x-x8-tp1", "cs3-x2", "cs3-x3")
    return msgspec.structs.replace(
        plan,
        fleet=[pool(name, "sram" if "cs3" in name else "hbm") for name in names],
        classes={"coding": served(), "chat": served()},
        serves={"coding": {"cs3-x3": 1.0}, "chat": dict.fromkeys(names, 0.25)},
        single_chip=[single("cs3", 250.0)] + [single(f"system-{i}-x8", None, "slow", "cannot") for i in range(8)],
        limits=[limit(f"market.supply.system-{i}", "system") for i in range(5)],
        why=[Why(system=f"system-{i}-x8", chosen=i < 3, reason=cannot) for i in range(9)],
        assumptions=["Cached prefixes are found by the instance that a request is sent to. " * 2] * 3,
    )


@pytest.mark.parametrize("plan", [biting_plan, doubtful_plan, empty_plan, large_plan, day_plan, earning_plan])
@pytest.mark.parametrize("width", [80, 100, 200])
def test_tables_fit(plan: Any, width: int) -> None:
    assert max(map(len, lines(plan(), width))) <= min(width, 100)


def test_a_usual_plan_is_under_60_lines() -> None:
    assert len(lines(large_plan())) < 60


def test_every_class_pool_limit_and_system_is_there_and_no_name_is_markup() -> None:
    plan = biting_plan()
    text = "\n".join(lines(plan))
    wanted = [*plan.classes, *(p.name for p in plan.fleet), *(w.system for w in plan.why)]
    wanted += [words.limit_name(limit) for limit in plan.limits]
    assert [want for want in wanted if any(word not in text for word in want.split())] == []
    for want in (BITE, "proved", "$180/h", "150", "binding", "$12.5/h per system", "chips/a 2", "50.0%", "5 million"):
        assert want in text


def test_pools_that_do_not_fit_across_are_told_in_words() -> None:
    plan = biting_plan()
    fleet = [pool(f"pool-number-{i}") for i in range(12)]
    serves = {"chat": {p.name: 1 / 12 for p in fleet}}
    text = " ".join(lines(msgspec.structs.replace(plan, fleet=fleet, serves=serves)))
    assert text.count("8.3% pool-number-") == 12


def test_a_missed_promise_is_told() -> None:
    text = " ".join(" ".join(lines(doubtful_plan())).split())
    assert "Not proved with 5 seeds" in text and "chat reaches 20.0% of the 95.0% promised" in text
    assert "Unverified: none." in text and "No fleet of a single system was found that keeps every promise." in text


@pytest.mark.parametrize(
    ("room", "want"),
    [
        (200, "chat: 31 USD; coding: cannot, slow alone, promised 3 ms; one more: 2% dearer"),
        (70, "coding: cannot, slow alone, promised 3 ms; one more: 2% dearer"),
        (30, "one more: 2% dearer"),
        (12, "one more: 2\u2026"),
    ],
)
def test_a_reason_is_cut_where_it_weighs_least(room: int, want: str) -> None:
    reason = f"chat: 31 USD; coding: cannot, slow even alone, promised 3 ms; {ONE_MORE} 2% dearer"
    assert shortened(Why(system="x", chosen=False, reason=reason), room) == want


def summary(**changes: Any) -> dict[str, Any]:
    times = {"p50": 0.0121, "p90": 0.118, "p99": 123.4}
    cls = {
        "ttft_s": times,
        "tpot_s": times,
        "e2e_s": times,
        "attainment": 0.94,
        "promised": 0.95,
        "goodput_per_s": 19.7,
    }
    tokens = {"input": 1_200_000_000, "output": 340_000_000}
    place = {"system": "mi355x-x8", "instances": 8, "busy": 0.91, "kv_peak": 0.02, "batch": 33.21, "tokens": tokens}
    return {
        "requests": 1_000_000, "completed": 999_990, "refused": 0, "unfinished": 10, "simulated_s": 2412.3,
        "kernel_s": 0.081, "peak_rss_bytes": 312_000_000,
        "classes": {f"coding {BITE}": {**cls, "attainment_low": 0.91}, "chat": cls},
        "pools": {f"fast {BITE}": {**place, "preemptions": 12}},
        "usd_per_mtok": {"input": 0.04, "output": 0.94, "blended": None}, "policy": "least_wait", "speed": "nominal",
        **changes,
    }  # fmt: skip


def run_text(said: dict[str, Any]) -> str:
    stream = io.StringIO()
    print_run(said, Console(file=stream, width=100, highlight=False))
    assert max(map(len, stream.getvalue().splitlines())) <= 100
    return " ".join(stream.getvalue().split())


def test_a_run_is_told_in_full() -> None:
    text = run_text(summary())
    for want in (
        "1,000,000 requests, 999,990 completed, 0 refused, 10 unfinished", "81 ms", "312 MB", "least_wait", "nominal",
        f"coding {BITE} 94.0% 95.0% 91.0% 19.7 TTFT 12.1 ms 0.118 s 123 s", f"fast {BITE} mi355x-x8 8 91.0% 2.0% 33.2",
        "1.2 billion 340 million 12", "$0.04 input, $0.94 output",
    ):  # fmt: skip
        assert want in text


def test_a_run_without_costs_or_pools_is_told() -> None:
    text = run_text(summary(usd_per_mtok=None, pools={}, policy=None, speed=None))
    assert "Cost per million" not in text and "Pools" not in text


def test_reports_load_neither_compiler_nor_solver() -> None:
    program = "import infermix.report.tables, infermix.report.html, sys, json; print(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not {"numba", "highspy", "polars", "jinja2"} & set(json.loads(run.stdout))

"""A run too long to keep tells what the same run tells when it is kept."""

from __future__ import annotations

import io
import tomllib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from infermix.plan.problem import Study, parse_study
from infermix.report.tables import print_run
from infermix.study import simulate
from infermix.summary import running, streaming
from infermix.workload.arrivals import Drawn
from infermix.workload.requests import Requests, make_requests

STUDY = """
model = "llama-3.1-8b"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = 10.0
slo = { ttft_s = 0.1 }
[traffic.papers]
profile = "arxiv-summarisation"
rate_per_s = 4.0
slo = { e2e_s = 5.0 }
ration_per_s = 3.0
[fleet.one]
system = "h100-x1"
instances = 2
[fleet.other]
system = "l40s-x1"
instances = 1
serves = { chat = 1.0 }
"""
REQUESTS = 3_000
MEASURED = ("kernel_s", "peak_rss_bytes")


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(streaming, "KEPT_WHOLE", 1_000)
    monkeypatch.setattr(streaming, "PIECE", 700)
    return parse_study(tomllib.loads(STUDY), "s.toml")


def together(pieces: list[Drawn]) -> Requests:
    tables = [piece.requests for piece in pieces]

    def column(name: str) -> Any:
        return np.concatenate([getattr(table, name) for table in tables])

    return make_requests(
        tables[0].class_names, column("arrival_s"), column("input_tokens"), column("output_tokens"),
        class_id=column("class_id"), cached_tokens=column("cached_tokens"),
    )  # fmt: skip


def told(study: Study, **choices: Any) -> dict[str, Any]:
    found = simulate(study, requests=REQUESTS, policy="round_robin", **choices)
    return {key: value for key, value in found.items() if key not in MEASURED}


@pytest.fixture
def kept(study: Study, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The same requests in one piece; the first piece tells what a gateway knows of answers."""

    def offered(study: Study, model: Any, *, seed: int, requests: int, **_: Any) -> Drawn:
        pieces = list(streaming.pieces(study, model, seed, requests))
        assert len(pieces) > 3
        return replace(pieces[0], requests=together(pieces))

    with monkeypatch.context() as patch:
        patch.setattr(running, "offered", offered)
        return told(study, whole=True)


def test_a_run_told_piece_by_piece_is_the_run_told_at_once(study: Study, kept: dict[str, Any]) -> None:
    found = told(study)
    assert found["requests"] == REQUESTS == found["completed"] + found["refused"] and found["refused"] > 0
    assert found == kept


def test_of_a_longer_run_a_part_is_kept_and_all_is_counted(
    study: Study, kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "SAMPLE", 1_000)
    found = told(study)
    assert found["kept_one_in"] == 3 and kept["kept_one_in"] == 1
    assert found["pools"] == kept["pools"]
    for name, row in found["classes"].items():
        whole = kept["classes"][name]
        for key in ("requests", "completed", "refused", "refused_by", "attainment", "attainment_ci", "itl_s"):
            assert row[key] == whole[key], key
        assert row["ttft_s"]["p50"] == pytest.approx(whole["ttft_s"]["p50"], rel=0.2)
    told_on = Console(width=100, record=True, file=io.StringIO())
    print_run({**found, **dict.fromkeys(MEASURED, 1.0)}, told_on)
    assert "percentiles and curves are of one in 3, drawn at random" in told_on.export_text()
    rates = [np.sum(run["over_time"]["classes"]["chat"]["arrivals_per_s"]) for run in (found, kept)]
    assert rates[0] == pytest.approx(rates[1], rel=0.1)


def test_traffic_that_needs_more_is_kept_whole(study: Study) -> None:
    raw = tomllib.loads(STUDY)
    raw["traffic"]["chat"]["priority"] = 1
    assert told(parse_study(raw, "s.toml"))["kept_one_in"] == 1
    assert told(study, whole=True)["kept_one_in"] == 1


def test_pieces_follow_each_other(study: Study) -> None:
    from infermix.catalog.query import find_model

    pieces = list(streaming.pieces(study, find_model(study.model), 1, REQUESTS))
    times = np.concatenate([piece.requests.arrival_s for piece in pieces])
    assert len(times) == REQUESTS and np.all(np.diff(times) >= 0.0)
    first, second = (piece.requests.input_tokens[:200] for piece in pieces[:2])
    assert not np.array_equal(first, second)
    assert REQUESTS / times[-1] == pytest.approx(14.0, rel=0.15)

"""ServeGen: rates window by window, laws of spacing, lengths by client and time, and every fault in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from infermix.errors import InputError
from infermix.workload.arrivals import Drawn, draw
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.clients import Clients
from infermix.workload.servegen import read_clients

SLO = Slo(ttft_s=1.0)
LANGUAGE = {"category": "language", "model": "m"}
RATES: list[dict[str, Any]] = [
    {**LANGUAGE, "client": 0, "window_start_s": 0, "rate_rps": 10.0, "cv": 3.0, "pattern": "Gamma", "arg1": 1 / 9},
    {**LANGUAGE, "client": 0, "window_start_s": 600, "rate_rps": 0.0, "cv": 0.0, "pattern": "", "arg1": 0.0},
    {**LANGUAGE, "client": 0, "window_start_s": 1200, "rate_rps": 2.5, "cv": 1.0, "pattern": "Exponential",
     "arg1": 0.0},
    {**LANGUAGE, "client": 1, "window_start_s": 0, "rate_rps": 1.0, "cv": 0.5, "pattern": "Weibull", "arg1": 2.1},
    {**LANGUAGE, "client": 1, "window_start_s": 600, "rate_rps": 4.0, "cv": 0.5, "pattern": "Weibull", "arg1": 2.1},
    {**LANGUAGE, "client": 1, "window_start_s": 1200, "rate_rps": 0.5, "cv": 0.5, "pattern": "Weibull", "arg1": 2.1},
    {"category": "multimodal", "model": "mm", "client": 5, "window_start_s": 0, "rate_rps": 3.0, "cv": 1.0,
     "pattern": "Gamma", "arg1": 1.0},
]  # fmt: skip


def lengths(client: int, start: int, of: dict[str, Any] = LANGUAGE, **pdfs: str) -> list[dict[str, Any]]:
    common = {"category": of["category"], "model": of["model"], "client": client, "window_start_s": start}
    return [{**common, "field": name, "pdf_json": text} for name, text in pdfs.items()]


LENGTHS = [
    *lengths(0, 0, input_tokens="{100: 0.25, 200: 0.75}", output_tokens="{10: 1.0}"),
    *lengths(0, 1200, input_tokens="{300: 1.0}", output_tokens="{30: 1.0}"),
    *lengths(1, 0, input_tokens="{7: 1.0}", output_tokens="{9: 0.5, 11: 0.5}"),
    *lengths(5, 0, RATES[6], text_tokens="{50: 1.0}", image_tokens="{1000: 0.5, 2000: 0.5}",
             image_count="{0: 0.5, 3: 0.5}", output_tokens="{4: 1.0}"),
]  # fmt: skip


def write(folder: Path, rates: list[dict[str, Any]] = RATES, pdfs: list[dict[str, Any]] = LENGTHS) -> Path:
    pl.DataFrame([{"arg2": 1.0, **row} for row in rates]).write_parquet(folder / "x_client_rates.parquet")
    pl.DataFrame(pdfs).write_parquet(folder / "x_length_pdfs.parquet")
    return folder


def drawn(folder: Path, horizon: float = 1800.0, seed: int = 1, **more: Any) -> Drawn:
    cls = TrafficClass(slo=SLO, trace="x_client_rates.parquet", **{"only": {"model": "m"}, **more})
    return draw({"a": cls}, seed=seed, horizon_s=horizon, base_dir=folder)


def test_every_window_has_the_rate_that_was_counted(tmp_path: Path) -> None:
    found = drawn(write(tmp_path), horizon=3600.0)
    counts = np.histogram(found.requests.arrival_s, 6, (0, 3600))[0]
    assert counts.tolist() == [6600, 2400, 1800] * 2
    assert found.rates_per_s["a"] == pytest.approx(6.0)
    assert np.all(found.requests.cached_tokens == 0) and found.repairs == {
        "a": {"windows_with_lengths_of_another_time": 1}
    }


def test_clients_have_their_own_lengths_at_their_own_times(tmp_path: Path) -> None:
    table = drawn(write(tmp_path)).requests
    window = (table.arrival_s // 600).astype(int)
    first = table.input_tokens[(window == 0) & (table.output_tokens == 10)]
    assert len(first) == 6000 and np.mean(first == 200) == pytest.approx(0.75, abs=0.03)
    assert set(first.tolist()) == {100, 200}
    late = table.output_tokens == 30
    assert late.sum() == 1500 and set(window[late]) == {2} and set(table.input_tokens[late]) == {300}
    other = table.input_tokens == 7
    assert set(table.output_tokens[other].tolist()) == {9, 11}
    assert [int((other & (window == w)).sum()) for w in range(3)] == [600, 2400, 300]


def test_spacing_follows_the_law_of_the_window(tmp_path: Path) -> None:
    def cv(client: int, window: int) -> float:
        spread = []
        for seed in range(12):
            table = drawn(tmp_path, seed=seed).requests
            mine = (table.input_tokens == 7) == (client == 1)
            t = table.arrival_s[mine & (table.arrival_s // 600 == window)]
            spread.append(np.diff(t).std() / np.diff(t).mean())
        return float(np.mean(spread))

    write(tmp_path)
    assert cv(0, 0) == pytest.approx(3.0, rel=0.1)
    assert cv(0, 2) == pytest.approx(1.0, rel=0.1)
    assert cv(1, 1) == pytest.approx(0.5, rel=0.1)


def test_a_stated_rate_scales_every_window(tmp_path: Path) -> None:
    found = drawn(write(tmp_path), rate_per_s=0.75)
    counts = np.histogram(found.requests.arrival_s, 3, (0, 1800))[0]
    assert counts == pytest.approx([825, 300, 225], abs=2)
    totals = [len(drawn(tmp_path, seed=s, rate_per_s=0.0123, horizon=600.0).requests) for s in range(400)]
    assert np.mean(totals) == pytest.approx(600 * 0.0123 * 11 / 6, rel=0.02)


def test_between_s_takes_a_stretch(tmp_path: Path) -> None:
    found = drawn(write(tmp_path), between_s=(600.0, 1800.0), horizon=1200.0)
    assert np.histogram(found.requests.arrival_s, 2, (0, 1200))[0].tolist() == [2400, 1800]
    assert found.rates_per_s["a"] == pytest.approx(3.5)


def test_a_prompt_of_text_and_images(tmp_path: Path) -> None:
    table = drawn(write(tmp_path), only={"category": "multimodal"}, horizon=600.0).requests
    assert len(table) == 1800 and set(table.output_tokens) == {4}
    images = table.input_tokens - 50
    assert set(images.tolist()) == {0, 3000, 4000, 5000, 6000}
    assert np.mean(images == 0) == pytest.approx(0.5, abs=0.05)
    assert np.mean(images == 4000) == pytest.approx(0.5 * 3 / 8, abs=0.04)


def test_missing_lengths_are_borrowed_and_counted(tmp_path: Path) -> None:
    write(tmp_path, pdfs=[row for row in LENGTHS if row["client"] == 0])
    found = drawn(tmp_path)
    assert found.repairs == {"a": {"windows_with_lengths_of_other_clients": 3}}
    assert set(found.requests.input_tokens) <= {100, 200, 300}
    only_late = [*lengths(0, 1200, input_tokens="{300: 1.0}", output_tokens="{30: 1.0}"), *LENGTHS[4:6]]
    write(tmp_path, pdfs=only_late)
    assert drawn(tmp_path).repairs["a"]["windows_with_lengths_of_another_time"] == 2


def test_same_seed_same_traffic_and_a_longer_horizon_only_adds(tmp_path: Path) -> None:
    write(tmp_path)
    a, b, c = (drawn(tmp_path, horizon=h, seed=s).requests for h, s in ((1800, 1), (5400, 1), (1800, 2)))
    n = len(a)
    assert a.arrival_s.tolist() == b.arrival_s[:n].tolist() and a.input_tokens.tolist() == b.input_tokens[:n].tolist()
    assert a.arrival_s.tolist() != c.arrival_s.tolist()
    again = b.arrival_s[(b.arrival_s >= 1800) & (b.arrival_s < 3600)] - 1800
    assert len(again) == n and not np.allclose(again, a.arrival_s, atol=1e-6)


def faulty(row: int, **change: Any) -> list[dict[str, Any]]:
    return [{**r, **change} if i == row else r for i, r in enumerate(RATES)]


@pytest.mark.parametrize(
    ("rates", "pdfs", "more", "words"),
    [
        (RATES, LENGTHS, {"only": {}}, ["several models", "language/m, multimodal/mm", 'model = "m"']),
        (RATES, LENGTHS, {"only": {"model": "n"}}, ["only.model", "no such model", "'n'", "m, mm"]),
        (RATES, LENGTHS, {"only": {"modle": "m"}}, ["only names modle", "did you mean 'model'"]),
        (RATES, LENGTHS, {"only": {"model": "m", "category": "multimodal"}}, ["no such model", "'m'; allowed: mm"]),
        (RATES, LENGTHS, {"between_s": (9000.0, 9600.0)}, ["between_s", "no client asks", "0 to 1800 s"]),
        (RATES, LENGTHS, {"lengths": "gone.parquet"}, ["ServeGen's rates need its lengths", "gone.parquet"]),
        (RATES, LENGTHS, {"sessions": 3}, ["ServeGen has no sessions"]),
        (faulty(0, pattern="Pareto"), LENGTHS, {}, ["unknown pattern", "'Pareto'", "Gamma, Exponential, Weibull"]),
        (faulty(0, arg1=0.0), LENGTHS, {}, ["arg1", "a shape must be positive"]),
        (RATES, [{**LENGTHS[0], "pdf_json": "{}"}, *LENGTHS[1:]], {}, ["not a distribution", "input_tokens"]),
        (RATES, [{**LENGTHS[0], "pdf_json": "{1: -1}"}, *LENGTHS[1:]], {}, ["not a distribution", "{1: -1}"]),
        (RATES, LENGTHS[1:], {}, ["lengths need input and output", "['output_tokens']"]),
        (RATES, LENGTHS[6:], {}, ["no lengths for this model", "language/m"]),
    ],
)
def test_every_fault_is_one_clear_line(
    tmp_path: Path, rates: list[dict[str, Any]], pdfs: list[dict[str, Any]], more: dict[str, Any], words: list[str]
) -> None:
    write(tmp_path, rates, pdfs)
    with pytest.raises(InputError) as caught:
        drawn(tmp_path, **more)
    message = str(caught.value)
    assert "traffic.a" in message and "\n" not in message
    assert [word for word in words if word not in message] == []


def test_lengths_belong_to_servegen_alone(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("t_s,input_tokens,output_tokens\n0,1,1\n1,1,1\n")
    with pytest.raises(InputError, match="lengths is for ServeGen's rates"):
        draw({"a": TrafficClass(slo=SLO, trace="t.csv", lengths="l.parquet")}, seed=1, base_dir=tmp_path)


@pytest.mark.parametrize(
    ("category", "rate", "inputs", "outputs"),
    [("reason", 16.01, (900, 1700), (1300, 1750)), ("multimodal", 9.47, (1000, 2000), (80, 200))],
)
def test_the_recorded_clients(
    traces_dir: Path, category: str, rate: float, inputs: tuple[int, int], outputs: tuple[int, int]
) -> None:
    where = traces_dir / "servegen_client_rates.parquet"
    pool = read_clients(where, None, {"category": (category,)}, None, "traffic.a")
    assert pool.mean_rate_per_s == pytest.approx(rate, rel=1e-3) and pool.span_s == 86_400
    rows = Clients(pool, 16, 1.0).rows(86_400.0, 1)
    assert len(rows.arrival_s) == pytest.approx(86_400, rel=0.01)
    assert inputs[0] < rows.input_tokens.mean() < inputs[1] and outputs[0] < rows.output_tokens.mean() < outputs[1]
    each = np.bincount((pool.start_s // 3600).astype(int), weights=pool.rate_per_s, minlength=24)
    counts = np.histogram(rows.arrival_s, 24, (0, 86_400))[0]
    assert counts / counts.sum() == pytest.approx(each / each.sum(), abs=0.002)

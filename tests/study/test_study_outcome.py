"""What a simulation tells of classes, seeds, pools, energy and refusals, against the request table and by hand."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.metrics.confidence import wilson
from infermix.metrics.intervals import order_interval, t_interval
from infermix.plan.problem import Study, parse_study
from infermix.sim import run as run_module
from infermix.study import simulate, simulated
from infermix.summary.simulation import Simulation
from infermix.summary.table import request_table, write_requests
from infermix.summary.trace import write_trace
from infermix.summary.whole import summarise

RAW: dict[str, Any] = {
    "model": "llama-3.1-8b",
    "traffic": {
        "chat": {
            "profile": "azure-conv-2023", "rate_per_s": 30.0,
            "slo": {"ttft_s": 0.2, "tpot_s": 0.02, "attainment": 0.95},
        },
        "code": {"profile": "azure-code-2023", "rate_per_s": 5.0, "slo": {"e2e_s": 3.0, "attainment": 0.9}},
    },
    "simulate": {"policy": "least_wait", "seed": 3},
    "fleet": {
        "big": {"system": "h100-x1", "instances": 2},
        "small": {"system": "l40s-x1", "instances": 3, "serves": {"code": 1.0}},
    },
}  # fmt: skip


def study(**changes: Any) -> Study:
    return parse_study({**copy.deepcopy(RAW), **changes}, "s.toml")


@pytest.fixture(scope="module")
def one() -> Simulation:
    return simulated(study(), requests=4000)


@pytest.fixture(scope="module")
def told(one: Simulation) -> dict[str, Any]:
    return summarise(one)


@pytest.fixture(scope="module")
def table(one: Simulation) -> pl.DataFrame:
    return request_table(one)


@pytest.fixture(scope="module")
def many() -> dict[str, Any]:
    return simulate(study(), requests=3000, seeds=5)


def test_classes_are_what_their_rows_say(told: dict[str, Any], table: pl.DataFrame) -> None:
    for name, row in told["classes"].items():
        mine = table.filter(pl.col("class") == name)
        assert row["requests"] == len(mine) == row["completed"] + row["refused"] + row["unfinished"]
        good = int(mine["good"].sum())
        assert row["attainment"] == good / len(mine) and row["attainment_ci"] == list(wilson(good, len(mine)))
        assert 0 < good < len(mine) and row["goodput_per_s"] == pytest.approx(good / told["simulated_s"])
        for key in ("ttft_s", "tpot_s", "e2e_s", "queue_s"):
            values = np.sort(mine[key].drop_nulls().to_numpy())
            for p in (50, 90, 99):
                assert row[key][f"p{p}"] == pytest.approx(np.percentile(values, p))
                low, high = row[f"{key}_ci"][f"p{p}"]
                assert [low, high] == list(order_interval(values, p / 100))
                assert low <= row[key][f"p{p}"] <= high
        for key in ("ttft_s", "tpot_s", "e2e_s"):
            values = mine[key].drop_nulls().to_numpy()
            assert len(row["cdf"][key]) == 101 and row["cdf"][key][0] == values.min()
            assert row["cdf"][key][50] == pytest.approx(np.median(values)) and row["cdf"][key][-1] == values.max()
        assert row["itl_s"]["p50"] < row["itl_s"]["p90"] < row["itl_s"]["p99"] and "itl_s_ci" not in row


def test_good_rows_are_those_that_meet_every_target(table: pl.DataFrame) -> None:
    chat = table.filter(pl.col("class") == "chat")
    expected = (pl.col("ttft_s") <= 0.2) & (pl.col("tpot_s").fill_null(0.0) <= 0.02)
    assert chat.select(expected.alias("good"))["good"].to_list() == chat["good"].to_list()
    code = table.filter(pl.col("class") == "code")
    assert (code["e2e_s"] <= 3.0).to_list() == code["good"].to_list()


def test_what_is_one_request_after_the_other_has_no_itl_interval_but_seeds_have(many: dict[str, Any]) -> None:
    row = many["classes"]["chat"]
    low, high = row["itl_s_ci"]["p99"]
    assert low < row["itl_s"]["p99"] < high


def test_several_seeds_are_each_what_they_are_alone(many: dict[str, Any]) -> None:
    alone = [simulate(study(), requests=3000, seed=seed) for seed in range(3, 8)]
    assert many["seeds"] == [3, 4, 5, 6, 7] and many["requests"] == 15_000 == many["arrived"]
    for name, row in many["classes"].items():
        parts = [found["classes"][name] for found in alone]
        assert [s["attainment"][name] for s in many["by_seed"]] == [part["attainment"] for part in parts]
        good = round(sum(part["attainment"] * part["requests"] for part in parts))
        assert row["requests"] == sum(part["requests"] for part in parts)
        assert row["attainment"] == good / row["requests"]
        assert row["attainment_ci"] == list(wilson(good, row["requests"]))
        ends = t_interval(np.array([part["attainment"] for part in parts]))
        assert row["attainment_ci_seeds"] == pytest.approx(np.clip(np.array(ends, dtype=float), 0, 1).tolist())
        for key in ("ttft_s", "tpot_s", "e2e_s", "itl_s", "queue_s"):
            for p in ("p50", "p90", "p99"):
                values = np.array([part[key][p] for part in parts])
                low, high = t_interval(values)
                assert row[key][p] == pytest.approx(values.mean())
                assert row[f"{key}_ci"][p] == pytest.approx([max(0.0, low or 0.0), high])
    assert many["pools"] == alone[0]["pools"] and many["over_time"] == alone[0]["over_time"]


def test_the_table_is_written_and_read_as_it_was(one: Simulation, table: pl.DataFrame, tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    assert write_requests(one, path) == 4000
    read = pl.read_parquet(path)
    assert read.equals(table) and read.schema == table.schema
    assert read.columns == [
        "class", "session", "pool", "instance", "arrival_s", "queue_s", "ttft_s", "tpot_s", "e2e_s",
        "input_tokens", "cached_tokens", "output_tokens", "status", "good",
    ]  # fmt: skip
    run = next(iter(one.runs.values()))
    assert read["input_tokens"].to_list() == run.requests.input_tokens.tolist()
    assert read["arrival_s"].is_sorted() and set(read["status"]) == {"completed"}
    for name, instances in (("big", 2), ("small", 3)):
        numbers = read.filter(pl.col("pool") == name)["instance"]
        assert numbers.min() == 0 and numbers.max() == instances - 1
    with pytest.raises(InputError, match="cannot be written"):
        write_requests(one, tmp_path / "none" / "r.parquet")


def test_what_does_not_exist_is_null() -> None:
    only = {"a": {"system": "h100-x1", "instances": 1, "serves": {"code": 1.0}}}
    found = simulated(study(fleet=only), requests=300)
    chat = request_table(found).filter(pl.col("class") == "chat")
    assert len(chat) > 0 and set(chat["status"]) == {"refused"} and not chat["good"].any()
    for column in ("pool", "instance", "session", "queue_s", "ttft_s", "tpot_s", "e2e_s"):
        assert chat[column].null_count() == len(chat), column
    row = summarise(found)["classes"]["chat"]
    assert row["refused_by"] == {"no_pool": len(chat)} and row["ttft_s"] == {"p50": None, "p90": None, "p99": None}
    assert row["ttft_s_ci"]["p50"] == [None, None] and row["cdf"]["ttft_s"] == []


def test_pools_and_instances_are_what_their_rows_say(told: dict[str, Any], table: pl.DataFrame) -> None:
    for name, row in told["pools"].items():
        mine = table.filter(pl.col("pool") == name)
        assert row["requests"] == len(mine) == row["completed"]
        tokens = {key: int(mine[f"{key}_tokens"].sum()) for key in ("input", "cached", "output")}
        assert row["tokens"] == tokens
        for j in range(row["instances"]):
            here = mine.filter(pl.col("instance") == j)
            assert row["by_instance"]["requests"][j] == len(here)
            assert row["by_instance"]["input_tokens"][j] == here["input_tokens"].sum()
            assert row["by_instance"]["output_tokens"][j] == here["output_tokens"].sum()
        assert row["busy"] == pytest.approx(np.mean(row["by_instance"]["busy"]))
        assert row["kv_peak"] == max(row["by_instance"]["kv_peak"])
        assert {len(column) for column in row["by_instance"].values()} == {row["instances"]}


def test_energy_and_cost_by_hand() -> None:
    """Three instances at TP 2 of systems of eight chips: two systems' worth would hold eight; one is bought."""
    fleet = {"a": {"system": "h100-x8", "tp": 2, "instances": 3}}
    found = simulate(study(fleet=fleet, cost={"pue": 1.5}), requests=2000)
    pool, system = found["pools"]["a"], catalog().systems["h100-x8"]
    assert system.power_w is not None and system.rent_usd_per_hour is not None
    factor = {"chip": 1.8 * 1.5, "it": 1.5, "facility": 1.0}[system.power_basis]
    watts, seconds = system.power_w.value * factor, found["simulated_s"]
    inside = pool["busy"] * 3 / 4 * watts * seconds
    assert pool["systems"] == 1
    assert pool["energy_kwh"]["busy"] == pytest.approx(inside / 3.6e6)
    assert pool["energy_kwh"]["always_on"] == pytest.approx(watts * seconds / 3.6e6)
    assert pool["output_tokens_per_joule"] == pytest.approx(pool["tokens"]["output"] / inside)
    assert found["energy_kwh"] == pool["energy_kwh"] and "energy_reason" not in found
    usd = system.rent_usd_per_hour.value * seconds / 3600
    assert pool["usd"] == pytest.approx(usd)
    for kind in ("input", "output"):
        assert pool["usd_per_mtok"][kind] == pytest.approx(usd / pool["tokens"][kind] * 1e6)
    assert found["usd_per_mtok"] == pytest.approx(pool["usd_per_mtok"])
    assert "systems/h100-x8/power_w" in found["figures"]


def test_without_a_price_there_is_a_reason_and_no_number() -> None:
    found = simulate(study(fleet={"w": {"system": "cs3", "stages": 2, "instances": 1}}), requests=200)
    row = found["pools"]["w"]
    assert row["usd"] is row["usd_per_mtok"] is None and "cs3" in row["usd_reason"]
    assert row["energy_kwh"]["busy"] > 0


def test_a_fleet_with_one_unknown_power_has_no_total(monkeypatch: pytest.MonkeyPatch) -> None:
    from infermix.errors import NoAnswer
    from infermix.summary import pools

    known = pools.facility_w

    def forgetful(system: Any, pue: float) -> float:
        if system.id == "l40s-x1":
            raise NoAnswer("l40s-x1: the catalogue has no power figure")
        return known(system, pue)

    monkeypatch.setattr(pools, "facility_w", forgetful)
    found = simulate(study(), requests=500)
    assert found["pools"]["small"]["energy_kwh"] is None and "l40s-x1" in found["pools"]["small"]["energy_reason"]
    assert found["pools"]["big"]["energy_kwh"]["busy"] > 0
    assert found["energy_kwh"] is None and "small" in found["energy_reason"]


def test_reasons_of_refusals(tmp_path: Path) -> None:
    """Beyond the context alone, beyond it with the answer, and within it."""
    lengths = [(200_000, 10), (131_000, 100), (1000, 10), (131_060, 20), (131_071, 1)]
    rows = "".join(f"{i},{a},{b}\n" for i, (a, b) in enumerate(lengths * 2))
    (tmp_path / "t.csv").write_text("t_s,input_tokens,output_tokens\n" + rows)
    raw = {
        "model": "llama-3.1-8b",
        "traffic": {"long": {"trace": "t.csv", "slo": {"e2e_s": 100.0}, "context": "refuse"}},
        "fleet": {"a": {"system": "h200-x1", "instances": 4}},
    }
    row = simulate(parse_study(raw, str(tmp_path / "s.toml")), policy="least_wait", requests=10)["classes"]["long"]
    assert row["refused_by"] == {"prompt_too_long": 2, "answer_too_long": 4} and row["refused"] == 6
    assert row["over_context"] == 6


def test_courses_add_up_to_the_run(told: dict[str, Any], table: pl.DataFrame) -> None:
    course = told["over_time"]
    edges = np.array(course["edges_s"])
    width = edges[1]
    assert len(edges) == 61 and edges[-1] == pytest.approx(told["simulated_s"])
    for name, row in course["classes"].items():
        mine = table.filter(pl.col("class") == name)
        assert sum(row["arrivals_per_s"]) * width == pytest.approx(len(mine))
        assert sum(row["completions_per_s"]) * width == pytest.approx(len(mine))
        assert sum(row["in_flight"]) * width == pytest.approx(mine["e2e_s"].sum()), "Little's law over the whole run"
        weights = np.array(row["arrivals_per_s"]) * width
        share = np.array([0.0 if v is None else v for v in row["attainment"]])
        assert (weights * share).sum() == pytest.approx(mine["good"].sum())


def test_sessions_are_told_where_there_are_some() -> None:
    traffic = {"agents": {"profile": "agentic-coding", "sessions": 6, "slo": {"ttft_s": 5.0}}}
    found = simulated(study(traffic=traffic, fleet={"a": {"system": "h200-x1", "instances": 4}}), requests=600)
    row, rows = summarise(found)["classes"]["agents"], request_table(found)
    assert rows["session"].null_count() == 0 and row["sessions"] == rows["session"].n_unique()
    assert row["turn_s"] == row["e2e_s"]
    last = rows.with_columns(end=pl.col("arrival_s") + pl.col("e2e_s")).group_by("session")
    spans = last.agg(span=pl.col("end").max() - pl.col("arrival_s").min(), gone=pl.col("e2e_s").null_count())
    whole = spans.filter(pl.col("gone") == 0)["span"].to_numpy()
    assert row["whole_sessions"] == len(whole) > 3
    assert row["session_s"]["p50"] == pytest.approx(np.median(whole))
    assert "session_s" not in summarise(simulated(study(), requests=100))["classes"]["chat"]


def interrupted(monkeypatch: pytest.MonkeyPatch, **choices: Any) -> Simulation:
    monkeypatch.setattr(run_module, "ARRIVALS_PER_CALL", 500)

    def progress(done: int, total: int) -> None:
        if done >= 1000:
            raise KeyboardInterrupt

    return simulated(study(), requests=4000, progress=progress, **choices)


def test_an_interrupted_run_tells_what_was_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    found = summarise(interrupted(monkeypatch))
    assert found["interrupted"] and found["arrived"] == 1000 and found["requests"] == 4000
    assert found["completed"] + found["unfinished"] == 4000 and found["completed"] < 1000
    rows = found["classes"].values()
    assert sum(row["requests"] for row in rows) == 1000, "those that never arrived are not judged"
    assert sum(row["unfinished"] for row in rows) == 1000 - found["completed"] < 400
    chat = found["classes"]["chat"]
    whole = request_table(simulated(study(), requests=4000)).sort("arrival_s").head(1000)
    good = whole.filter(pl.col("class") == "chat")["good"].sum()
    told = round(chat["attainment"] * chat["requests"])
    assert told <= good <= told + chat["unfinished"], "what was done is as in the whole run"
    assert json.loads(json.dumps(found)) == found


def test_an_interrupt_of_several_seeds_ends_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    found = interrupted(monkeypatch, seeds=3)
    assert found.interrupted and 1 <= len(found.seeds) <= 3 and found.seeds[0] == 3
    assert any(part.interrupted for part in found.parts["nominal"])


def test_progress_adds_up_over_runs() -> None:
    seen: list[tuple[int, int]] = []
    simulate(study(), requests=700, seeds=2, speeds="both", progress=lambda *counts: seen.append(counts))
    assert sorted(done for done, _ in seen) == [done for done, _ in seen] and seen[-1] == (2800, 2800)


def test_wrong_counts_of_seeds_are_refused() -> None:
    with pytest.raises(InputError, match="seeds must be 1 or more"):
        simulate(study(), requests=10, seeds=0)


def trace(found: Simulation, tmp_path: Path, *stretch: float) -> list[dict[str, Any]]:
    path = tmp_path / "t.json"
    write_trace(found, path, *stretch)
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert set(raw) == {"displayTimeUnit", "traceEvents"} and raw["displayTimeUnit"] == "ms"
    return list(raw["traceEvents"])


def test_a_trace_has_the_form_that_perfetto_reads(one: Simulation, tmp_path: Path) -> None:
    events = trace(one, tmp_path, 20.0, 30.0)
    known = {"M": {"args"}, "X": {"ts", "dur", "cat", "args"}, "C": {"ts", "args"}}
    for event in events:
        assert {"ph", "name", "pid", "tid"} | known[event["ph"]] <= set(event)
        assert isinstance(event["pid"], int) and isinstance(event["tid"], int) and event["pid"] >= 1
        assert event["ph"] != "X" or (event["dur"] >= 0 and event["ts"] >= 0)
    named = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert set(named.values()) <= {"big 0", "big 1", "small 0", "small 1", "small 2"} and len(named) == len(
        set(named.values())
    )
    tracks = {(e["pid"], e["tid"]) for e in events if e["name"] == "thread_name"}
    assert {(e["pid"], e["tid"]) for e in events if e["ph"] == "X"} == tracks


def test_spans_of_a_trace_are_the_times_of_the_table(
    one: Simulation, table: pl.DataFrame, tmp_path: Path
) -> None:  # fmt: skip
    events = trace(one, tmp_path, 20.0, 30.0)
    spans = {e["args"]["row"]: e for e in events if e["ph"] == "X" and e["cat"] == "request"}
    end = table["arrival_s"] + table["e2e_s"]
    inside = ((table["arrival_s"] < 30.0) & (end > 20.0)).to_list()
    assert sorted(spans) == [i for i, held in enumerate(inside) if held] and len(spans) > 100
    parts: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "X" and event["cat"] == "part":
            parts.setdefault((event["pid"], event["tid"]), []).append(event)
    for i, span in spans.items():
        row = table.row(i, named=True)
        assert span["name"] == row["class"] and span["args"]["output_tokens"] == row["output_tokens"]
        assert span["ts"] == pytest.approx(row["arrival_s"] * 1e6, abs=0.01)
        assert span["dur"] == pytest.approx(row["e2e_s"] * 1e6, abs=0.01)
        mine = [
            p
            for p in parts[span["pid"], span["tid"]]
            if span["ts"] <= p["ts"] + 0.002 and p["ts"] + p["dur"] <= span["ts"] + span["dur"] + 0.002
        ]
        lengths = {p["name"]: p["dur"] for p in mine}
        assert lengths.get("queue", 0.0) == pytest.approx(row["queue_s"] * 1e6, abs=0.01)
        assert lengths["prefill"] == pytest.approx((row["ttft_s"] - row["queue_s"]) * 1e6, abs=0.01)
        assert lengths.get("decode", 0.0) == pytest.approx((row["e2e_s"] - row["ttft_s"]) * 1e6, abs=0.01)


def test_spans_of_a_track_do_not_overlap_and_the_counter_counts_them(one: Simulation, tmp_path: Path) -> None:
    events = trace(one, tmp_path, 20.0, 30.0)
    by_track: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for e in events:
        if e["ph"] == "X" and e["cat"] == "request":
            by_track.setdefault((e["pid"], e["tid"]), []).append((e["ts"], e["ts"] + e["dur"]))
    for spans in by_track.values():
        spans.sort()
        assert all(a[1] <= b[0] + 0.002 for a, b in itertools.pairwise(spans))
    for pid in {pid for pid, _ in by_track}:
        counts = [e["args"]["requests"] for e in events if e["ph"] == "C" and e["pid"] == pid]
        assert counts[-1] == 0 and min(counts) >= 0
        assert max(counts) == len([tid for p, tid in by_track if p == pid]), "as many tracks as requests at once"


def test_stretches_without_requests_are_refused(one: Simulation, tmp_path: Path) -> None:
    for stretch, word in (((1e6, 2e6), "no request"), ((5.0, 5.0), "no stretch"), ((-1.0, 5.0), "no stretch")):
        with pytest.raises(InputError, match=word):
            write_trace(one, tmp_path / "t.json", *stretch)


def test_a_request_that_was_cut_off_is_a_span_to_the_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = interrupted(monkeypatch)
    run = found.runs["nominal"]
    events = trace(found, tmp_path, 0.0, 1e6)
    cut = [e for e in events if e["ph"] == "X" and e["cat"] == "request" and not e["args"]["finished"]]
    assert len(cut) == int(((run.instance >= 0) & ~np.isfinite(run.last_s)).sum()) > 0
    until = max(run.simulated_s, float(np.nanmax(run.first_s)), float(run.requests.arrival_s[999]))
    assert all(e["ts"] + e["dur"] <= until * 1e6 + 0.01 for e in cut)

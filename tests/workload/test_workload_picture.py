"""Pictures of traffic: figures against what was put in, for traces, profiles and ServeGen's clients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infermix.errors import InputError
from infermix.workload.describe import describe
from infermix.workload.picture import BINS, SLOTS, arriving, column
from infermix.workload.profiles import profile_names
from tests.workload.test_workload_closed import AGENT
from tests.workload.test_workload_servegen import write as write_servegen

MOONCAKE = (
    '{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [0, 1]}\n'
    '{"timestamp": 3000, "input_length": 1536, "output_length": 6, "hash_ids": [0, 1, 2]}\n'
    '{"timestamp": 9000, "input_length": 1024, "output_length": 7, "hash_ids": [8, 1]}\n'
)


def test_a_column_says_what_is_in_it() -> None:
    c = column(np.array([10] * 90 + [1000] * 10))
    assert (c.mean, c.p50, c.max) == (109.0, 10.0, 1000.0)
    assert len(c.counts) == BINS and sum(c.counts) == 100 and c.counts[-1] == 10
    assert c.edges[0] == 1.0 or c.edges[0] == 10.0
    at = int(np.searchsorted(c.edges, 10, side="right")) - 1
    assert c.counts[at] == 90
    assert column(np.full(7, 5)).counts == [7]
    assert sum(column(np.array([0.0, 0.0, 3.0])).counts) == 3


def test_arrivals_of_a_known_stream() -> None:
    t = np.sort(np.random.default_rng(1).uniform(0, 7200, 72_000))
    a = arriving(t, 7200.0)
    assert a is not None and a.window_s == 100.0 and len(a.per_s) == SLOTS
    assert a.gap_cv == pytest.approx(1.0, abs=0.02) and a.dispersion["1"] == pytest.approx(1.0, abs=0.05)
    assert sum(a.per_s) * a.window_s == pytest.approx(72_000)
    assert arriving(t[:2], 7200.0) is None
    even = arriving(np.arange(0, 7200, 0.1), 7200.0)
    assert even is not None and even.gap_cv < 1e-6 and even.peak_to_mean == pytest.approx(1.0, abs=1e-3)


def test_reuse_of_prefix_blocks(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text(MOONCAKE)
    p = describe("m.jsonl", base_dir=tmp_path)
    assert (p.reuse.blocks, p.reuse.distinct_blocks, p.reuse.block_tokens) == (7, 4, 512)
    assert p.reuse.known_share == pytest.approx(3 / 7) and p.reuse.prefix_share == pytest.approx(2 / 7)
    assert p.reuse.cached_share == pytest.approx(1024 / 3584) and p.reuse.warm_share == pytest.approx(1 / 3)
    assert (p.requests, p.drawn, p.format, p.kind) == (3, False, "Mooncake", "trace")
    assert p.rate_per_s == pytest.approx(3 / p.span_s) and p.figures == []
    assert p.tokens_per_s["input"] == pytest.approx(p.rate_per_s * 3584 / 3)
    assert p.tokens_per_s["uncached"] == pytest.approx(p.rate_per_s * 2560 / 3)


def test_sessions_have_turns_pauses_and_service(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(AGENT)
    p = describe("a.csv", base_dir=tmp_path)
    assert p.sessions is not None and p.sessions.think_s is not None and p.sessions.service_s is not None
    assert p.sessions.sessions == 2 and p.sessions.turns.mean == 3.0
    assert p.sessions.think_s.max == 92.0 and p.sessions.service_s.max == 6.0
    assert p.sessions.sub_agent_share == pytest.approx(1 / 6)
    assert p.rate_per_s is None and p.arrivals is None and p.tokens_per_s == {}
    assert p.repairs == {"sub_agent_times_put_on_session_clock": 1, "service_times_taken_as_median": 1}
    shown = describe("a.csv", base_dir=tmp_path, rate_per_s=3.0)
    assert shown.drawn and shown.rate_per_s == 3.0 and shown.arrivals is not None and shown.requests == 6
    (tmp_path / "s.csv").write_text("session,t_s,input_tokens,output_tokens\n0,0,1,1\n0,5,1,1\n")
    plain = describe("s.csv", base_dir=tmp_path)
    assert plain.sessions is not None and plain.sessions.think_s is None


def test_a_trace_without_times_has_no_arrivals_unless_at_a_rate(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text("input_tokens,output_tokens\n" + "5,6\n" * 30)
    p = describe("l.csv", base_dir=tmp_path)
    assert p.arrivals is None and any("no times" in note for note in p.notes)
    shown = describe("l.csv", base_dir=tmp_path, rate_per_s=2.0)
    assert shown.arrivals is not None and shown.arrivals.gap_cv == pytest.approx(1.0, abs=0.03)


def test_a_coarse_clock_is_named_and_spread(tmp_path: Path) -> None:
    rows = "".join(f"{3 * (i // 10)},5,6\n" for i in range(2000))
    (tmp_path / "c.csv").write_text("t_s,input_tokens,output_tokens\n" + rows)
    p = describe("c.csv", base_dir=tmp_path)
    assert p.arrivals is not None and p.arrivals.clock_step_s == 3.0
    assert p.arrivals.gap_cv == pytest.approx(0.95, abs=0.1)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_has_a_picture(name: str) -> None:
    p = describe(name, rate_per_s=7.0)
    assert p.kind == "profile" and p.drawn and p.licence and p.description
    assert p.rate_per_s == 7.0 and p.arrivals is not None and sum(p.arrivals.per_s) > 0
    assert len(p.arrivals.per_s) == SLOTS
    assert (p.sessions is not None) == (name == "agentic-coding")


def test_a_profile_is_shown_as_recorded() -> None:
    assert describe("azure-conv-2023").rate_per_s == pytest.approx(5.53, abs=0.01)
    assert describe("agentic-coding").rate_per_s == 1.0
    assert describe("mooncake-conversation").reuse.cached_share == pytest.approx(0.374, abs=0.02)


def test_servegens_clients(tmp_path: Path) -> None:
    write_servegen(tmp_path)
    p = describe("x_client_rates.parquet", base_dir=tmp_path, only={"model": ["m"]})
    assert p.kind == "clients" and p.format == "ServeGen" and p.arrivals is not None
    assert p.arrivals.per_s == [11.0, 4.0, 3.0] and p.rate_per_s == pytest.approx(6.0)
    assert p.arrivals.peak_to_mean == pytest.approx(11 / 6) and p.requests == 10_800
    doubled = describe("x_client_rates.parquet", base_dir=tmp_path, only={"model": ["m"]}, rate_per_s=12.0)
    assert doubled.arrivals is not None and doubled.arrivals.per_s == pytest.approx([22.0, 8.0, 6.0])


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("azure-con-2023", {}, ["no such file or profile", "did you mean 'azure-conv-2023'"]),
        ("gone.csv", {}, ["no such trace", "gone.csv"]),
        ("gone.toml", {}, ["no such profile file"]),
        ("azure-conv-2023", {"rate_per_s": 0.0}, ["--rate", "rate must be positive"]),
        ("l.csv", {"between_s": (3.0, 1.0)}, ["between_s must be two times"]),
    ],
)
def test_what_cannot_be_shown(tmp_path: Path, name: str, more: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        describe(name, base_dir=tmp_path, **more)  # type: ignore[arg-type]
    assert [word for word in words if word not in str(caught.value)] == []


def test_the_recorded_traces_have_pictures(traces_dir: Path) -> None:
    mooncake = describe(str(traces_dir / "mooncake_conversation.parquet"))
    assert mooncake.reuse.cached_share == pytest.approx(0.374, abs=0.001) and mooncake.reuse.blocks == 288_500
    assert mooncake.arrivals is not None and mooncake.arrivals.clock_step_s == pytest.approx(3.0, abs=0.01)
    agents = describe(str(traces_dir / "agentic_coding.parquet"))
    assert agents.sessions is not None and agents.sessions.service_s is not None
    assert agents.sessions.sessions == 692 and agents.sessions.service_s.p50 == pytest.approx(6.1, abs=0.1)

"""Profiles: what they keep of their traces, how they are made, and how they are read."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.errors import InputError
from infermix.workload.arrivals import draw
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.distil import PACKAGED, distil, distil_packaged, quantiles, to_toml
from infermix.workload.profiles import load_profile, parse_profile, profile_names
from infermix.workload.requests import Requests
from infermix.workload.tables import Joint, Quantiles
from infermix.workload.traces import Trace, read_trace

SLO = Slo(ttft_s=1.0)
LEVELS = (0.5, 0.9, 0.99)


def columns_of(rows: Requests | Trace) -> dict[str, np.ndarray]:
    inputs, outputs = rows.input_tokens.astype(float), rows.output_tokens.astype(float)
    return {
        "input_tokens": inputs,
        "uncached_tokens": inputs - rows.cached_tokens,
        "output_tokens": outputs,
        "context_tokens": inputs + outputs,
    }


def drawn(name: str, n: int = 2_000_000) -> Requests:
    return draw({"x": TrafficClass(slo=SLO, profile=name, rate_per_s=5.0)}, seed=1, requests=n).requests


def test_packaged_profiles() -> None:
    assert set(profile_names()) == set(PACKAGED)


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_every_profile_says_where_it_came_from(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.n > 1000
    for field in ("description", "source", "licence", "read", "note", "left_out"):
        assert getattr(profile.about, field), field


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_packaged_profile_is_what_distilling_gives(name: str, traces_dir: Path) -> None:
    packaged = Path(distil.__code__.co_filename).parent / "data" / "profiles" / f"{name}.toml"
    assert distil_packaged(traces_dir, name) == packaged.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_drawn_lengths_match_the_facts(name: str) -> None:
    """Without the traces: against the statistics that the profile keeps of its trace."""
    facts = load_profile(name).facts
    for column, values in columns_of(drawn(name)).items():
        want = facts[column]
        assert values.mean() == pytest.approx(want.mean, rel=0.02), column
        assert np.quantile(values, LEVELS) == pytest.approx((want.p50, want.p90, want.p99), rel=0.10), column


@pytest.mark.parametrize("name", sorted(PACKAGED))
def test_drawn_lengths_match_the_trace(name: str, traces_dir: Path) -> None:
    trace, rows = columns_of(read_trace(traces_dir / PACKAGED[name][0])), columns_of(drawn(name))
    for column, want in trace.items():
        assert rows[column].mean() == pytest.approx(want.mean(), rel=0.02), column
        assert np.quantile(rows[column], LEVELS) == pytest.approx(np.quantile(want, LEVELS), rel=0.10), column
    for a, b in (("input_tokens", "output_tokens"), ("uncached_tokens", "output_tokens")):
        assert (rows[a] * rows[b]).mean() == pytest.approx((trace[a] * trace[b]).mean(), rel=0.05), (a, b)


@pytest.mark.parametrize("name", ["azure-code-2023", "azure-conv-2023"])
def test_drawn_gaps_match_the_trace(name: str, traces_dir: Path) -> None:
    recorded = np.diff(read_trace(traces_dir / PACKAGED[name][0]).t_s)
    gaps = np.diff(drawn(name, 500_000).arrival_s)
    assert gaps.std() / gaps.mean() == pytest.approx(recorded.std() / recorded.mean(), rel=0.12)
    assert np.median(gaps) / gaps.mean() == pytest.approx(np.median(recorded) / recorded.mean(), rel=0.12)


def test_contexts_of_agents_grow_along_the_session(traces_dir: Path) -> None:
    trace, rows = read_trace(traces_dir / PACKAGED["agentic-coding"][0]), load_profile("agentic-coding").sampler()
    starts = np.flatnonzero(np.diff(trace.session, prepend=-1))
    turn = np.arange(len(trace)) - starts[trace.session]
    grid = (np.arange(20_000) + 0.5) / 20_000
    luck = np.modf(grid * 7919.0)[0]
    for low, high in ((0, 1), (8, 24), (64, 128)):
        want = trace.input_tokens[(turn >= low) & (turn < high)].mean()
        stratum = rows.stratum(np.full(len(grid), low))
        assert rows.draw(stratum, grid, luck).input_tokens.mean() == pytest.approx(want, rel=0.06)


def test_first_requests_of_agents_have_nothing_cached() -> None:
    tables = load_profile("agentic-coding").sampler()
    grid = (np.arange(1000) + 0.5) / 1000
    lengths = tables.draw(0, grid, grid)
    assert np.array_equal(lengths.input_tokens, lengths.uncached_tokens)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=400))
@settings(deadline=None)
def test_quantiles_keep_mean_and_range(values: list[int]) -> None:
    table = quantiles(values)
    if len(values) > 1:
        table.check("q", 1)
    x = table.expand()
    assert x.mean() == pytest.approx(np.mean(values), rel=0.05, abs=1.0)
    assert np.all(np.diff(x) >= 0)
    assert x.min() >= min(values) * (1 - 1e-4)
    assert x.max() <= max(values) * (1 + 1e-4)


def make_trace(n: int, sessions: bool) -> Trace:
    rng = np.random.default_rng(3)
    inputs = rng.integers(50, 500, n).astype(np.int32)
    session = (np.arange(n) // 10).astype(np.int32) if sessions else np.full(n, -1, np.int32)
    t = (np.arange(n) % 10) * 3.0 if sessions else np.cumsum(rng.exponential(2.0, n))
    return Trace(t, inputs, (inputs // 2).astype(np.int32), rng.integers(1, 90, n).astype(np.int32), session, "mine")


@pytest.mark.parametrize("sessions", [False, True])
def test_a_profile_of_ones_own_trace(tmp_path: Path, sessions: bool) -> None:
    trace = make_trace(2000, sessions)
    profile = distil(trace, "mine")
    text = to_toml(profile)
    assert parse_profile(text, "mine") == profile
    (tmp_path / "mine.toml").write_text(text)
    cls = {"x": TrafficClass(slo=SLO, profile="mine.toml", rate_per_s=4.0)}
    rows = columns_of(draw(cls, seed=1, requests=50_000, base_dir=tmp_path).requests)
    for column, want in columns_of(trace).items():
        assert rows[column].mean() == pytest.approx(want.mean(), rel=0.03)


def test_too_small_a_trace_makes_no_profile() -> None:
    with pytest.raises(InputError, match="too few requests"):
        distil(make_trace(50, False), "mine")


def test_unknown_profiles(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"traffic\.x: unknown profile; got 'agentic'.*did you mean 'agentic-coding'"):
        load_profile("agentic", where="traffic.x")
    with pytest.raises(InputError, match="no such profile file"):
        load_profile("gone.toml", base_dir=tmp_path)
    (tmp_path / "bad.toml").write_text("name = 3")
    with pytest.raises(InputError, match="malformed profile"):
        load_profile("bad.toml", base_dir=tmp_path)


GOOD = distil(make_trace(500, False), "good")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gap": None}, "gap or sessions"),
        ({"input_tokens": Quantiles(levels=(0.0, 1.0), values=(0.0, 5.0))}, "values must climb"),
        ({"input_tokens": Quantiles(levels=(0.0, 0.9), values=(1.0, 5.0))}, "levels must climb"),
        ({"input_tokens": Quantiles(levels=(0.0, 1.0), values=(1.0,))}, "pair up"),
        ({"uncached_share": None}, "go together"),
        ({"uncached_share": Quantiles(levels=(0.0, 1.0), values=(0.5, 1.5))}, "values must climb"),
        ({"joint": Joint(input_cuts=(0.0, 1.0), output_cuts=(0.0, 1.0), counts=(1, 2))}, "fill the cells"),
        ({"joint": Joint(input_cuts=(0.0, 1.0), output_cuts=(0.0, 1.0), counts=(0,))}, "holds no request"),
        ({"joint": Joint(input_cuts=(0.1, 1.0), output_cuts=(0.0, 1.0), counts=(1,))}, "input_cuts must climb"),
        ({"joint": Joint(turns=(1,), input_cuts=(0.0, 1.0), output_cuts=(0.0, 1.0), counts=(1,))}, "turns must climb"),
    ],
)
def test_malformed_tables_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_profile(to_toml(msgspec.structs.replace(GOOD, **change)), "good")

"""Offered traffic: rates, horizons, conservation, determinism, and contexts that are too long."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.errors import InputError
from infermix.workload.arrivals import Drawn, draw, shorten
from infermix.workload.classes import Slo, TrafficClass
from tests.nightly import examples

SLO = Slo(ttft_s=1.0)
COLUMNS = ("arrival_s", "input_tokens", "cached_tokens", "output_tokens")
PROFILES = ("agentic-coding", "azure-code-2023", "azure-conv-2023")


def profile(name: str, rate: float, **more: str) -> TrafficClass:
    return TrafficClass(slo=SLO, profile=name, rate_per_s=rate, **more)


def rows_of(drawn: Drawn, name: str) -> list[list[float]]:
    mine = drawn.requests.class_id == drawn.requests.class_names.index(name)
    return [getattr(drawn.requests, column)[mine].tolist() for column in COLUMNS]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plain trace of 200 requests and one of 5 sessions with 4 to 8 requests; input tokens tell the rows apart."""
    rng = np.random.default_rng(5)
    t = np.concatenate(([0.0], np.cumsum(rng.exponential(0.5, 199))))
    lines = [f"{float(t[i])!r},{1000 + i},{1 + i % 7}" for i in range(200)]
    (tmp_path / "plain.csv").write_text("t_s,input_tokens,output_tokens\n" + "\n".join(lines))
    lines, row = [], 0
    for session in range(5):
        for k in range(4 + session):
            lines.append(f"{session},{k * (3.0 + session)},{1000 + row},5")
            row += 1
    (tmp_path / "sessions.csv").write_text("session,t_s,input_tokens,output_tokens\n" + "\n".join(lines))
    return tmp_path


def plain(rate: float | None = None) -> TrafficClass:
    return TrafficClass(slo=SLO, trace="plain.csv", rate_per_s=rate)


def test_as_recorded_then_repeated(folder: Path) -> None:
    once = draw({"a": plain()}, seed=1, base_dir=folder)
    assert once.requests.input_tokens.tolist() == list(range(1000, 1200))
    assert once.rates_per_s["a"] * once.horizon_s == pytest.approx(200)
    more = draw({"a": plain()}, seed=2, requests=450, base_dir=folder)
    assert more.requests.input_tokens.tolist() == [1000 + i % 200 for i in range(450)]
    assert more.requests.arrival_s[200:400] - more.requests.arrival_s[:200] == pytest.approx(once.horizon_s)
    assert np.array_equal(more.requests.arrival_s[:200], once.requests.arrival_s)


@pytest.mark.parametrize("factor", [0.3, 1.0, 2.5, 7.0])
def test_a_trace_at_another_rate_has_that_mean_rate(folder: Path, factor: float) -> None:
    rate = factor * draw({"a": plain()}, seed=1, base_dir=folder).rates_per_s["a"]
    counts = [len(draw({"a": plain(rate)}, seed=s, horizon_s=70.0, base_dir=folder).requests) for s in range(200)]
    error = np.std(counts) / np.sqrt(len(counts)) + 1e-9
    assert abs(np.mean(counts) - rate * 70.0) < 3 * error


def test_whole_copies_over_the_span_hold_every_row_as_often(folder: Path) -> None:
    recorded = draw({"a": plain()}, seed=1, base_dir=folder)
    drawn = draw({"a": plain(3 * recorded.rates_per_s["a"])}, seed=4, horizon_s=recorded.horizon_s, base_dir=folder)
    assert np.bincount(drawn.requests.input_tokens - 1000).tolist() == [3] * 200


def test_seeds_shift_the_phases(folder: Path) -> None:
    a, b = (draw({"a": plain(3.0)}, seed=s, horizon_s=50.0, base_dir=folder) for s in (1, 2))
    assert a.requests.arrival_s.tolist() != b.requests.arrival_s.tolist()


SESSION_ROWS = [4, 5, 6, 7, 8]


@given(st.floats(0.5, 200.0), st.integers(0, 2**63))
@settings(deadline=None, max_examples=examples(40))
def test_sessions_are_whole_and_keep_their_offsets(
    tmp_path_factory: pytest.TempPathFactory, horizon: float, seed: int
) -> None:
    folder = tmp_path_factory.mktemp("s")
    lines = [f"{s},{k * (3.0 + s)},{100 * s + k + 1},5" for s, rows in enumerate(SESSION_ROWS) for k in range(rows)]
    (folder / "s.csv").write_text("session,t_s,input_tokens,output_tokens\n" + "\n".join(lines))
    rate = 2 * 30 / horizon
    cls = {"a": TrafficClass(slo=SLO, trace="s.csv", rate_per_s=rate)}
    table = draw(cls, seed=seed, horizon_s=horizon * (1 + 1e-12), base_dir=folder).requests
    assert 60 <= len(table) <= 68
    assert np.all((table.arrival_s >= 0) & (table.arrival_s < horizon * (1 + 2e-12)))
    for number in range(10):
        mine = table.session == number
        s = number % 5
        tokens, t = table.input_tokens[mine], table.arrival_s[mine]
        assert sorted(tokens.tolist()) == [100 * s + k + 1 for k in range(SESSION_ROWS[s])]
        order = np.argsort(tokens)
        offset = np.mod(t[order] - t[order][0] - np.arange(SESSION_ROWS[s]) * (3.0 + s) + horizon / 2, horizon)
        assert offset == pytest.approx(horizon / 2, abs=1e-6)


@pytest.mark.parametrize("name", PROFILES)
def test_profiles_have_the_mean_rate_asked_for(name: str) -> None:
    counts = [len(draw({"a": profile(name, 3.0)}, seed=s, horizon_s=900.0).requests) for s in range(300)]
    assert abs(np.mean(counts) - 2700) < 3 * np.std(counts) / np.sqrt(len(counts)) + 1e-9


def test_sessions_of_a_trace_have_the_mean_rate_asked_for(folder: Path) -> None:
    cls = {"a": TrafficClass(slo=SLO, trace="sessions.csv", rate_per_s=0.5)}
    counts = [len(draw(cls, seed=s, horizon_s=85.0, base_dir=folder).requests) for s in range(300)]
    assert abs(np.mean(counts) - 42.5) < 3 * np.std(counts) / np.sqrt(len(counts))


def test_sessions_arrive_evenly_over_the_horizon() -> None:
    table = draw({"a": profile("agentic-coding", 20.0)}, seed=3, horizon_s=20_000.0).requests
    counts = np.histogram(table.arrival_s, 10, (0, 20_000.0))[0]
    assert counts == pytest.approx(np.full(10, len(table) / 10), rel=0.06)


@pytest.mark.parametrize("n", [1, 7, 5000])
def test_exactly_the_number_asked_for(folder: Path, n: int) -> None:
    classes = {name: profile(name, 2.0) for name in PROFILES} | {"t": plain(), "u": plain(0.7)}
    drawn = draw(classes, seed=6, requests=n, base_dir=folder)
    assert len(drawn.requests) == n
    assert drawn.requests.arrival_s[-1] < drawn.horizon_s
    assert np.all(drawn.requests.cached_tokens < drawn.requests.input_tokens)
    if n > 1000:
        assert drawn.horizon_s == pytest.approx(n / sum(drawn.rates_per_s.values()), rel=0.3)


def test_min_per_class_rules_the_horizon(folder: Path) -> None:
    classes = {"often": profile("azure-conv-2023", 50.0), "rare": profile("azure-conv-2023", 0.5)}
    drawn = draw(classes, seed=1, min_per_class=1000)
    assert drawn.horizon_s == pytest.approx(1.02 * 1000 / 0.5)
    assert np.bincount(drawn.requests.class_id).min() >= 1000 - 3 * 40
    longer = draw(classes | {"t": plain()}, seed=1, min_per_class=1, base_dir=folder)
    assert np.count_nonzero(longer.requests.class_id == 2) == 200
    assert len(draw(classes, seed=1, requests=10, min_per_class=100).requests) > 10


def test_a_profile_with_a_longer_horizon_only_adds_requests() -> None:
    short, long = (draw({"a": profile("azure-conv-2023", 9.0)}, seed=1, horizon_s=h) for h in (500.0, 9000.0))
    n = len(short.requests)
    for column in COLUMNS:
        assert np.array_equal(getattr(short.requests, column), getattr(long.requests, column)[:n])


@given(st.integers(0, 2**64 - 1), st.floats(1.0, 400.0))
@settings(deadline=None, max_examples=examples(25))
def test_same_seed_same_traffic_and_sound_columns(seed: int, horizon: float) -> None:
    classes = {name: profile(name, 4.0) for name in PROFILES}
    a, b = (draw(classes, seed=seed, horizon_s=horizon).requests for _ in range(2))
    for column in (*COLUMNS, "session", "class_id"):
        assert np.array_equal(getattr(a, column), getattr(b, column))
    assert np.all(np.diff(a.arrival_s) >= 0)
    assert not len(a) or (a.arrival_s[0] >= 0 and a.arrival_s[-1] < horizon)
    assert np.all((a.cached_tokens >= 0) & (a.cached_tokens < a.input_tokens))
    assert np.all(a.output_tokens >= 1)


def test_adding_a_class_leaves_the_others_as_they_are(folder: Path) -> None:
    few = {name: profile(name, 3.0) for name in PROFILES} | {"t": plain(5.0)}
    more = {"new": profile("agentic-coding", 1.0)} | dict(reversed(few.items()))
    a, b = (draw(classes, seed=8, horizon_s=300.0, base_dir=folder) for classes in (few, more))
    for name in few:
        assert rows_of(a, name) == rows_of(b, name)


def test_two_classes_of_one_profile_have_different_luck() -> None:
    drawn = draw({"a": profile("azure-conv-2023", 5.0), "b": profile("azure-conv-2023", 5.0)}, seed=1, horizon_s=50.0)
    assert rows_of(drawn, "a") != rows_of(drawn, "b")


def test_sessions_of_two_classes_do_not_share_numbers() -> None:
    names = {"a": "agentic-coding", "b": "azure-conv-2023", "c": "agentic-coding"}
    classes = {k: profile(name, 2.0) for k, name in names.items()}
    table = draw(classes, seed=1, horizon_s=500.0).requests
    a, b, c = (set(table.session[table.class_id == k].tolist()) for k in range(3))
    assert not a & c
    assert b == {-1}


def test_long_contexts_are_clipped_or_left_and_counted() -> None:
    treatment = {"cut": "clip", "kept": "refuse"}
    classes = {name: profile("agentic-coding", 2.0, context=how) for name, how in treatment.items()}
    whole, fitted = (draw(classes, seed=2, horizon_s=4000.0, max_context=m) for m in (None, 100_000))
    long = whole.requests.input_tokens + whole.requests.output_tokens > 100_000
    for k, (name, counted) in enumerate([("cut", fitted.clipped), ("kept", fitted.over_context)]):
        assert counted[name] == np.count_nonzero(long & (whole.requests.class_id == k)) > 0
    assert fitted.clipped["kept"] == fitted.over_context["cut"] == 0
    assert whole.clipped == whole.over_context == {"cut": 0, "kept": 0}
    after = fitted.requests.input_tokens + fitted.requests.output_tokens
    cut = fitted.requests.class_id == 0
    assert after[cut].max() == 100_000
    assert np.array_equal(after[~cut], (whole.requests.input_tokens + whole.requests.output_tokens)[~cut])


@given(st.integers(1, 500), st.integers(0, 499), st.integers(1, 500), st.integers(2, 300))
@settings(deadline=None)
def test_shortening_fits_and_keeps_what_it_can(inputs: int, cached: int, outputs: int, limit: int) -> None:
    cached = min(cached, inputs - 1)
    columns = (np.array([value], np.int32) for value in (inputs, cached, outputs))
    new_in, new_cached, new_out = (int(c[0]) for c in shorten(*columns, limit))
    if inputs + outputs <= limit:
        assert (new_in, new_cached, new_out) == (inputs, cached, outputs)
    else:
        assert new_in + new_out <= limit
        assert new_out == min(outputs, limit // 2)
        assert new_in - new_cached == min(inputs - cached, new_in)
        assert 0 <= new_cached < new_in


def test_repairs_are_reported(folder: Path) -> None:
    (folder / "z.csv").write_text("t_s,input_tokens,output_tokens\n0,5,0\n1,5,3\n")
    classes = {"z": TrafficClass(slo=SLO, trace="z.csv"), "p": profile("azure-conv-2023", 1.0)}
    drawn = draw(classes, seed=1, base_dir=folder)
    assert drawn.repairs == {"z": {"output_tokens_raised_to_1": 1}, "p": {}}


BAD_CLASSES = [
    (TrafficClass(slo=SLO), "exactly one of profile and trace"),
    (TrafficClass(slo=SLO, profile="azure-conv-2023", trace="plain.csv"), "exactly one of profile and trace"),
    (profile("azure-conv-2023", 0.0), "rate_per_s must be positive"),
    (profile("azure-conv-2023", float("nan")), "rate_per_s must be positive"),
    (TrafficClass(slo=SLO, profile="azure-conv-2023"), "needs rate_per_s; add rate_per_s; recorded were 5.53"),
    (TrafficClass(slo=SLO, trace="sessions.csv"), "the class needs rate_per_s"),
    (TrafficClass(slo=SLO, trace="one.csv"), "all requests arrive at one instant"),
    (profile("azure-con-2023", 1.0), "did you mean 'azure-conv-2023'"),
    (profile("azure-conv-2023", 1.0, context="clipp"), "did you mean 'clip'"),
    (TrafficClass(slo=Slo(), profile="azure-conv-2023", rate_per_s=1.0), "no target"),
]


@pytest.mark.parametrize(("cls", "words"), BAD_CLASSES)
def test_a_bad_class_is_named(folder: Path, cls: TrafficClass, words: str) -> None:
    (folder / "one.csv").write_text("t_s,input_tokens,output_tokens\n0,5,1\n")
    with pytest.raises(InputError, match=words) as caught:
        draw({"chat": cls}, seed=1, horizon_s=10.0, base_dir=folder)
    assert "traffic.chat" in str(caught.value) or "one.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ({}, "how much traffic"),
        ({"requests": 5, "horizon_s": 3.0}, "both requests and horizon_s"),
        ({"requests": 0}, "requests must be positive"),
        ({"horizon_s": 0.0}, "horizon_s must be positive"),
        ({"horizon_s": float("inf")}, "horizon_s must be positive"),
        ({"min_per_class": -1}, "min_per_class is negative"),
        ({"requests": 5, "max_context": 1}, "max_context is too short"),
        ({"horizon_s": 1e12}, "too many requests"),
    ],
)
def test_a_bad_size_is_refused(size: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        draw({"a": profile("azure-conv-2023", 1.0)}, seed=1, **size)  # type: ignore[arg-type]


def test_no_class_is_refused() -> None:
    with pytest.raises(InputError, match="no traffic class"):
        draw({}, seed=1, horizon_s=1.0)

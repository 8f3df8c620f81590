"""Sessions: what a request waited for, stretches of work, and N of them alive at every moment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infermix.errors import InputError
from infermix.workload.arrivals import draw
from infermix.workload.classes import Part, Slo, TrafficClass
from infermix.workload.closed import ClosedLoop, profile_stretches
from infermix.workload.profiles import load_profile
from infermix.workload.requests import make_requests
from infermix.workload.rows import Rows, in_order, joined
from infermix.workload.traces import read_trace
from infermix.workload.turns import Stretches, stretches, turns_of

SLO = Slo(ttft_s=1.0)
HEAD = "session,t_s,input_tokens,output_tokens,depth,api_time_s\n"
AGENT = HEAD + (
    "a,0,10,1,0,2\n"  # answer at 2
    "a,0.5,11,1,1,1\n"  # sub-agent, half a second after that answer
    "a,5,12,1,0,3\n"  # pause 3, answer at 8
    "a,100,13,1,0,4\n"  # pause 92
    "b,0,20,1,0,\n"  # service unknown
    "b,1,21,1,0,6\n"
)


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    file = tmp_path / "agent.csv"
    file.write_text(AGENT)
    return file


def test_parents_pauses_and_service_times(agent: Path) -> None:
    turns = turns_of(read_trace(agent))
    assert turns.parent.tolist() == [-1, 0, 0, 2, -1, 4]
    assert turns.think_s.tolist() == [0, 0.5, 3, 92, 0, 0]
    assert turns.service_s.tolist() == [2, 1, 3, 4, 1, 6]  # the median is 3, but the next request came after 1
    assert turns.repairs == {"service_times_taken_as_median": 1}


def test_a_pause_before_the_answer_is_raised_and_counted(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("session,t_s,input_tokens,output_tokens,api_time_s\na,0,1,1,5\na,4,1,1,1\n")
    turns = turns_of(read_trace(tmp_path / "x.csv"))
    assert turns.think_s.tolist() == [0, 0] and turns.repairs == {"pauses_raised_to_0": 1}


def test_stretches_end_where_people_leave(agent: Path) -> None:
    whole, cut = (stretches(read_trace(agent), leave) for leave in (1000.0, 60.0))
    assert whole.start.tolist() == [0, 4, 6] and whole.length_s.tolist() == [104, 7]
    assert cut.start.tolist() == [0, 3, 4, 6] and cut.length_s.tolist() == [8, 4, 7]
    assert cut.input_tokens.tolist() == [10, 11, 12, 13, 20, 21]
    assert cut.offset_s.tolist() == [0, 2.5, 5, 0, 0, 1]
    assert cut.parent.tolist() == [-1, 0, 0, -1, -1, 0] and cut.think_s.tolist() == [0, 0.5, 3, 0, 0, 0]
    assert cut.rate_per_s == pytest.approx(6 / 19)


def alive(loop: ClosedLoop, horizon: float, seed: int, at: np.ndarray) -> np.ndarray:
    """Sessions at work at each time, by place."""
    place, picked, begin = loop.schedule(horizon, seed)
    end = begin + loop.work.length_s[picked]
    counts = np.zeros((loop.sessions, len(at)), int)
    for p, low, high in zip(place, begin, end, strict=True):
        counts[p] += (at >= low) & (at < high)
    return counts


@pytest.mark.parametrize("n", [1, 7, 40])
def test_every_place_has_one_session_at_every_moment(agent: Path, n: int) -> None:
    loop = ClosedLoop(stretches(read_trace(agent), 60.0), n, 16)
    counts = alive(loop, 300.0, 3, np.random.default_rng(1).uniform(0, 300, 400))
    assert np.all(counts == 1)


def test_a_loop_is_stationary_and_has_its_mean_rate(agent: Path) -> None:
    """Starting every place with a fresh session would bring too many first requests at once."""
    loop = ClosedLoop(stretches(read_trace(agent), 60.0), 400, 16)
    rows = [loop.rows(30.0, seed).arrival_s for seed in range(60)]
    counts = np.histogram(np.concatenate(rows), 6, (0, 30.0))[0] / (60 * 5.0)
    assert counts == pytest.approx(np.full(6, loop.rate_per_s), rel=0.03)
    assert loop.rate_per_s == pytest.approx(400 * 6 / 19)


def test_requests_come_their_pause_after_their_parents_answer(agent: Path) -> None:
    work = stretches(read_trace(agent), 60.0)
    rows = ClosedLoop(work, 25, 16).rows(200.0, 5)
    assert rows.parent is not None and rows.think_s is not None
    service = {10: 2.0, 11: 1.0, 12: 3.0, 13: 4.0, 20: 1.0, 21: 6.0}
    assert rows.session is not None
    waits = (rows.parent >= 0) & (rows.session == rows.session[rows.parent])
    child = np.flatnonzero(waits)
    mother = rows.parent[child]
    served = np.array([service[int(x)] for x in rows.input_tokens[mother]])
    assert rows.arrival_s[child] == pytest.approx(rows.arrival_s[mother] + served + rows.think_s[child])
    assert len(child) > 100
    assert set(rows.input_tokens[mother].tolist()) == {10, 20}
    assert np.all(rows.think_s[~waits] == 0)


def test_a_session_waits_for_the_one_that_had_its_place(agent: Path) -> None:
    """Every session but the first of its place starts after the last request of another, which no other waits for."""
    loop = ClosedLoop(stretches(read_trace(agent), 60.0), 25, 16)
    rows = loop.rows(200.0, 5)
    assert rows.parent is not None and rows.session is not None
    heir = np.flatnonzero((rows.parent >= 0) & (rows.session != rows.session[rows.parent]))
    assert len(heir) > 50
    assert np.all(np.isin(rows.input_tokens[heir], (10, 13, 20)))
    ended = rows.parent[heir]
    assert len(set(ended.tolist())) == len(ended)
    for last in ended:
        mine = rows.session == rows.session[last]
        assert rows.arrival_s[last] == rows.arrival_s[mine].max()
    first = len(set(rows.session.tolist())) - len(heir)
    assert first == 25


def test_parents_survive_sorting_and_merging(agent: Path, tmp_path: Path) -> None:
    classes = {
        "one": TrafficClass(slo=SLO, trace="agent.csv", sessions=9, leave_after_s=60.0),
        "plain": TrafficClass(slo=SLO, profile="azure-conv-2023", rate_per_s=3.0),
        "two": TrafficClass(slo=SLO, trace="agent.csv", sessions=4),
    }
    for size in ({"horizon_s": 300.0}, {"requests": 500}):
        table = draw(classes, seed=2, base_dir=tmp_path, **size).requests  # type: ignore[arg-type]
        assert np.all(table.parent < np.arange(len(table)))
        child = np.flatnonzero((table.parent >= 0) & (table.session == table.session[table.parent]))
        mother = table.parent[child]
        assert len(child) > 20
        assert np.array_equal(table.class_id[child], table.class_id[mother])
        pairs = set(zip(table.input_tokens[mother].tolist(), table.input_tokens[child].tolist(), strict=True))
        assert pairs <= {(10, 11), (10, 12), (12, 13), (20, 21)}
        assert np.all(table.parent[table.class_id == 1] == -1) and np.all(table.session[table.class_id == 1] == -1)


def test_rows_are_joined_and_reordered() -> None:
    one = np.ones(2, np.int32)
    a = Rows(np.array([0.0, 5.0]), one, one * 0, one, np.array([0, 0], np.int32), np.array([-1, 0], np.int32))
    b = Rows(np.array([1.0, 2.0]), one, one * 0, one, np.array([-1, -1], np.int32))
    rows = joined([a, b, a])
    assert rows.session.tolist() == [0, 0, -1, -1, 1, 1] and rows.parent is not None
    assert rows.parent.tolist() == [-1, 0, -1, -1, -1, 4]
    order = np.argsort(rows.arrival_s, kind="stable")
    assert in_order(rows.parent, order).tolist() == [-1, -1, -1, -1, 0, 1]


def test_the_profile_works_as_its_trace(traces_dir: Path) -> None:
    recorded = stretches(read_trace(traces_dir / "agentic_coding.parquet"), 1800.0)
    drawn = profile_stretches(load_profile("agentic-coding"), 1800.0)
    assert drawn.rate_per_s == pytest.approx(recorded.rate_per_s, rel=0.05)
    assert drawn.input_tokens.mean() == pytest.approx(recorded.input_tokens.mean(), rel=0.05)
    for name in ("input_tokens", "cached_tokens", "output_tokens"):
        assert getattr(recorded, name).sum() > 0, name
    assert len(recorded.input_tokens) == 46_218


def test_a_profile_in_a_closed_loop() -> None:
    cls = TrafficClass(slo=SLO, profile="agentic-coding", sessions=200)
    drawn = draw({"a": cls}, seed=1, requests=20_000)
    assert len(drawn.requests) == 20_000
    assert drawn.rates_per_s["a"] == pytest.approx(20_000 / drawn.horizon_s, rel=0.1)
    assert np.mean(drawn.requests.parent >= 0) > 0.9
    twice = draw({"a": TrafficClass(slo=SLO, profile="agentic-coding", sessions=400)}, seed=1, horizon_s=60.0)
    assert twice.rates_per_s["a"] == pytest.approx(2 * drawn.rates_per_s["a"])
    never = draw({"a": TrafficClass(slo=SLO, profile="agentic-coding", sessions=200, leave_after_s=1e9)}, seed=1,
                 horizon_s=60.0)  # fmt: skip
    assert never.rates_per_s["a"] < 0.6 * drawn.rates_per_s["a"]


def test_a_mix_shares_the_sessions_out(agent: Path, tmp_path: Path) -> None:
    mix = [Part(trace="agent.csv", weight=2.0), Part(profile="agentic-coding", weight=1.0)]
    drawn = draw({"a": TrafficClass(slo=SLO, mix=mix, sessions=10)}, seed=1, horizon_s=5000.0, base_dir=tmp_path)
    work = stretches(read_trace(agent), 1800.0).rate_per_s
    library = profile_stretches(load_profile("agentic-coding"), 1800.0).rate_per_s
    assert drawn.rates_per_s["a"] == pytest.approx(7 * work + 3 * library)
    assert drawn.repairs["a"] == {"service_times_taken_as_median": 1}


def test_a_library_of_stretches_is_sound() -> None:
    work: Stretches = profile_stretches(load_profile("agentic-coding"), 600.0)
    sizes = np.diff(work.start)
    assert sizes.min() >= 1 and sizes.sum() == len(work.offset_s)
    first = work.start[:-1]
    assert np.all(work.offset_s[first] == 0) and np.all(work.parent[first] == -1)
    inside = np.setdiff1d(np.arange(len(work.offset_s)), first)
    assert np.all(work.think_s[inside] <= 600.0) and np.all(np.diff(work.offset_s)[inside - 1] > 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sessions": 0}, ["sessions must be positive", "got 0"]),
        ({"sessions": 5, "rate_per_s": 2.0}, ["rate_per_s does not go with sessions", "traffic.a.rate_per_s"]),
        ({"sessions": 5, "shape": [1.0, 2.0]}, ["shape does not go with sessions"]),
        ({"sessions": 5, "leave_after_s": 0.0}, ["leave_after_s must be positive"]),
        ({"sessions": 5, "profile": "azure-conv-2023"}, ["needs a profile of sessions", "agentic-coding"]),
        ({"sessions": 5, "profile": None, "trace": "plain.csv"}, ["the trace has no sessions", "session ="]),
        ({"sessions": 5, "profile": None, "trace": "s.csv"}, ["does not say how long", "api_time_s ="]),
    ],
)
def test_bad_closed_loops(tmp_path: Path, change: dict[str, object], words: list[str]) -> None:
    (tmp_path / "plain.csv").write_text("t_s,input_tokens,output_tokens\n0,1,1\n1,1,1\n")
    (tmp_path / "s.csv").write_text("session,t_s,input_tokens,output_tokens\n0,0,1,1\n0,1,1,1\n")
    base: dict[str, object] = {"slo": SLO, "profile": "agentic-coding"}
    with pytest.raises(InputError) as caught:
        draw({"a": TrafficClass(**{**base, **change})}, seed=1, horizon_s=9.0, base_dir=tmp_path)  # type: ignore[arg-type]
    assert [word for word in words if word not in str(caught.value)] == []


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"parent": [-1, -2]}, "parent out of range"),
        ({"parent": [-1, 1]}, "a row before 1"),
        ({"parent": [-1, 5]}, "got 5"),
        ({"think_s": [0.0, -1.0]}, "think_s must be 0 or more"),
        ({"think_s": [0.0, float("nan")]}, "row 1"),
    ],
)
def test_parents_are_earlier_rows_and_pauses_are_not_negative(columns: dict[str, list[float]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        make_requests(("a",), [0.0, 1.0], [5, 5], [1, 1], **columns)  # type: ignore[arg-type]

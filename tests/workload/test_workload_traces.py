"""Reading traces: every format, every repair, and one clear message for every fault."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermix.errors import InputError
from infermix.workload.traces import Trace, known_prefix_blocks, read_trace

PLAIN = "t_s,input_tokens,output_tokens\n"


def write(folder: Path, text: str, name: str = "trace.csv") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def parquet(folder: Path, **columns: object) -> Path:
    file = folder / "trace.parquet"
    pl.DataFrame(columns).write_parquet(file)
    return file


def columns_of(trace: Trace) -> list[list[float]]:
    return [c.tolist() for c in (trace.t_s, trace.input_tokens, trace.cached_tokens, trace.output_tokens)]


def test_our_csv_counts_time_from_the_first_request(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, PLAIN + "5.5,10,3\n6,20,4\n6,30,5\n"))
    assert columns_of(trace) == [[0.0, 0.5, 0.5], [10, 20, 30], [0, 0, 0], [3, 4, 5]]
    assert not trace.has_sessions
    assert trace.repairs == {}
    assert trace.source.endswith("trace.csv")
    assert trace.session.tolist() == [-1, -1, -1]


def test_rate_and_span_keep_the_mean_gap(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, PLAIN + "0,1,1\n1,1,1\n4,1,1\n"))
    assert trace.span_s == 6.0
    assert trace.rate_per_s == 0.5


def test_columns_are_read_only(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, PLAIN + "0,1,1\n1,1,1\n"))
    with pytest.raises(ValueError, match="read-only"):
        trace.t_s[0] = 1.0


def test_public_azure_csv(tmp_path: Path) -> None:
    rows = "2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    trace = read_trace(write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows))
    assert trace.t_s == pytest.approx([0.0, 4.314579], abs=1e-9)
    assert trace.input_tokens.tolist() == [374, 396]
    assert trace.output_tokens.tolist() == [44, 109]


@pytest.mark.parametrize("stamp", ["2024-05-10 00:00:0{}.009930+00:00", "2024-05-10T00:00:0{}", "2024-05-10 00:00:0{}"])
def test_other_ways_to_write_a_date(tmp_path: Path, stamp: str) -> None:
    rows = "".join(f"{stamp.format(s)},1,1\n" for s in (1, 3))
    trace = read_trace(write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\n" + rows))
    assert trace.t_s.tolist() == [0.0, 2.0]


def test_parquet_with_dates(tmp_path: Path) -> None:
    t = pl.Series(["2024-01-01 00:00:00", "2024-01-01 00:00:01.5"]).str.to_datetime("%Y-%m-%d %H:%M:%S%.f")
    trace = read_trace(parquet(tmp_path, t_s=t, input_tokens=[1, 2], output_tokens=[1, 1]))
    assert trace.t_s.tolist() == [0.0, 1.5]


MOONCAKE = [
    '{"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [0, 1]}',
    '{"timestamp": 3000, "input_length": 1400, "output_length": 6, "hash_ids": [0, 1, 2]}',
    '{"timestamp": 3000, "input_length": 1024, "output_length": 7, "hash_ids": [0, 1]}',
    '{"timestamp": 6500, "input_length": 2048, "output_length": 8, "hash_ids": [0, 9, 2, 8]}',
    '{"timestamp": 7000, "input_length": 100, "output_length": 9, "hash_ids": []}',
]


def test_mooncake_jsonl_caches_the_leading_known_blocks(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "\n".join(MOONCAKE), "m.jsonl"))
    assert trace.t_s.tolist() == [0.0, 3.0, 3.0, 6.5, 7.0]
    assert trace.cached_tokens.tolist() == [0, 1024, 1023, 512, 0]
    assert trace.block_start[0].tolist() == [0, 2, 5, 7, 11, 11]
    assert trace.block_ids[0].tolist() == [0, 1, 0, 1, 2, 0, 1, 0, 9, 2, 8]
    assert trace.repairs == {}


def test_mooncake_parquet_is_the_same(tmp_path: Path) -> None:
    a = read_trace(write(tmp_path, "\n".join(MOONCAKE), "m.jsonl"))
    names = {"input_length": "input_tokens", "output_length": "output_tokens"}
    frame = pl.read_ndjson(tmp_path / "m.jsonl").rename(names)
    file = tmp_path / "m.parquet"
    frame.with_columns(t_s=pl.col("timestamp") / 1000).drop("timestamp").write_parquet(file)
    b = read_trace(file)
    assert columns_of(a) == columns_of(b)


@given(st.lists(st.lists(st.integers(0, 6), max_size=5, unique=True), min_size=1, max_size=12))
def test_known_prefix_blocks_against_the_obvious_loop(rows: list[list[int]]) -> None:
    seen: set[int] = set()
    expected = []
    for ids in rows:
        run = 0
        while run < len(ids) and ids[run] in seen:
            run += 1
        expected.append(run)
        seen |= set(ids)
    starts = np.cumsum([0] + [len(ids) for ids in rows])
    flat = np.array([i for ids in rows for i in ids], dtype=np.int64)
    assert known_prefix_blocks(starts, flat).tolist() == expected


def test_sessions_keep_their_own_clock(tmp_path: Path) -> None:
    file = parquet(
        tmp_path,
        session=[7, 7, 3, 3, 3],
        t_s=[0.0, 4.0, 0.0, 1.0, 1.0],
        input_tokens=[10, 20, 5, 6, 7],
        output_tokens=[1, 0, 1, 1, 0],
        prefix_tokens=[0, 10, 0, 6, 9],
    )
    trace = read_trace(file)
    assert trace.has_sessions
    assert trace.sessions == 2
    assert trace.session.tolist() == [0, 0, 1, 1, 1]
    assert trace.t_s.tolist() == [0, 4, 0, 1, 1]
    assert trace.cached_tokens.tolist() == [0, 10, 0, 5, 6]
    assert trace.repairs == {"output_tokens_raised_to_1": 2, "cached_tokens_lowered_below_input": 2}


def test_interleaved_sessions_are_gathered_and_named_sessions_work(tmp_path: Path) -> None:
    text = "session,t_s,input_tokens,output_tokens\nb,10,1,1\na,0,2,1\nb,12,3,1\na,5,4,1\n"
    trace = read_trace(write(tmp_path, text))
    assert trace.session.tolist() == [0, 0, 1, 1]
    assert trace.t_s.tolist() == [0, 2, 0, 5]
    assert trace.input_tokens.tolist() == [1, 3, 2, 4]


def test_sub_agents_are_put_on_the_clock_of_their_session(tmp_path: Path) -> None:
    file = parquet(
        tmp_path,
        session=[0] * 5,
        depth=[0, 1, 1, 1, 0],
        t_s=[10.0, 0.0, 7.0, 0.0, 20.0],
        api_time_s=[2.0, None, None, 1.0, 1.0],
        input_tokens=[1, 2, 3, 4, 5],
        output_tokens=[1] * 5,
    )
    trace = read_trace(file)
    assert trace.t_s.tolist() == [0, 2, 2, 9, 10]
    assert trace.input_tokens.tolist() == [1, 2, 4, 3, 5]
    assert trace.repairs == {"sub_agent_times_put_on_session_clock": 3}


def test_a_session_has_no_rate(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "session,t_s,input_tokens,output_tokens\n0,0,1,1\n0,5,1,1\n"))
    with pytest.raises(InputError, match="rate_per_s"):
        _ = trace.rate_per_s


def test_stated_columns(tmp_path: Path) -> None:
    file = write(tmp_path, "when,prompt,answer,hit\n0,10,1,3\n2,20,2,19\n")
    names = {"t_s": "when", "input_tokens": "prompt", "output_tokens": "answer", "cached_tokens": "hit"}
    assert columns_of(read_trace(file, names)) == [[0, 2], [10, 20], [3, 19], [1, 2]]


def test_stated_columns_add_to_ours(tmp_path: Path) -> None:
    file = write(tmp_path, "t_s,input_tokens,answer\n0,10,1\n2,20,2\n")
    assert read_trace(file, {"output_tokens": "answer"}).output_tokens.tolist() == [1, 2]


def test_nothing_to_read_becomes_one_token_and_is_counted(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, PLAIN + "0,0,0\n1,5,0\n"))
    assert trace.input_tokens.tolist() == [1, 5]
    assert trace.output_tokens.tolist() == [1, 1]
    assert trace.repairs == {"input_tokens_raised_to_1": 1, "output_tokens_raised_to_1": 2}


FAULTS = {
    "empty file": ("", "trace.csv", ["the trace is empty"]),
    "no rows": (PLAIN, "trace.csv", ["the trace is empty", "at least one request"]),
    "suffix": ("x", "trace.cvs", ["unknown kind of trace file", "'.cvs'", "did you mean '.csv'"]),
    "missing column": (
        "t_s,input_token,output_tokens\n0,1,1\n",
        "trace.csv",
        ["column input_tokens is missing", "did you mean 'input_token'", "TIMESTAMP ContextTokens"],
    ),
    "missing, other case": (
        "timestamp,contexttokens,generatedtokens\n0,1,1\n",
        "trace.csv",
        ["TIMESTAMP: did you mean 'timestamp'", "ContextTokens: did you mean 'contexttokens'"],
    ),
    "foreign": ("a,b\n0,1\n", "trace.csv", ["is missing", "['a', 'b']", "columns = {"]),
    "descends": (
        PLAIN + "0,1,1\n5,1,1\n4,1,1\n",
        "trace.csv",
        ["row 3", "arrival times descend", "4.0", "5.0", "sort"],
    ),
    "negative": (PLAIN + "0,1,1\n1,-7,1\n", "trace.csv", ["column input_tokens, row 2", "negative value", "'-7'"]),
    "negative time": (PLAIN + "-3,1,1\n", "trace.csv", ["column t_s, row 1", "negative value", "'-3'"]),
    "text": (PLAIN + "0,1,1\n1,2,many\n", "trace.csv", ["column output_tokens, row 2", "not a number", "'many'"]),
    "nan": (PLAIN + "0,1,1\n1,NaN,1\n", "trace.csv", ["column input_tokens, row 2", "not a number"]),
    "infinite": (PLAIN + "0,1,1\ninf,1,1\n", "trace.csv", ["column t_s, row 2", "not a number"]),
    "gap": (PLAIN + "0,1,1\n1,,1\n", "trace.csv", ["column input_tokens, row 2", "not a number"]),
    "half a token": (PLAIN + "0,1.5,1\n", "trace.csv", ["column input_tokens, row 1", "whole number", "'1.5'"]),
    "huge": (PLAIN + "0,1,99999999999\n", "trace.csv", ["column output_tokens, row 1", "0 to 1000000000"]),
    "bad first date": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\nsoon,1,1\n",
        "trace.csv",
        ["column TIMESTAMP, row 1", "not a number or date", "'soon'"],
    ),
    "bad later date": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,1,1\nlater,1,1\n",
        "trace.csv",
        ["column TIMESTAMP, row 2", "not a date", "'later'"],
    ),
    "broken json": (MOONCAKE[0] + "\n{oops\n", "m.jsonl", ["row 2", "not a JSON object", "{oops"]),
    "json of another kind": ('{"a": 1}\n', "m.jsonl", ["is missing", "input_length"]),
    "ids that are text": (
        '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": ["a"]}\n',
        "m.jsonl",
        ["column hash_ids", "lists of whole numbers"],
    ),
    "session descends": (
        "session,t_s,input_tokens,output_tokens\n0,0,1,1\n1,0,1,1\n0,9,1,1\n0,8,1,1\n",
        "trace.csv",
        ["row 4", "arrival times descend", "8.0", "within each session"],
    ),
    "no session": (
        "session,t_s,input_tokens,output_tokens\n0,0,1,1\n,0,1,1\n",
        "trace.csv",
        ["column session, row 2", "without a session"],
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_clear_line(tmp_path: Path, fault: str) -> None:
    text, name, words = FAULTS[fault]
    file = write(tmp_path, text, name)
    with pytest.raises(InputError) as caught:
        read_trace(file, where="traffic.chat")
    message = str(caught.value)
    assert message.startswith(f"traffic.chat: {file}")
    assert "\n" not in message
    for word in words:
        assert word in message


def test_a_missing_file_suggests_its_neighbour(tmp_path: Path) -> None:
    write(tmp_path, PLAIN, "chat-2023.csv")
    with pytest.raises(InputError, match=r"no such trace.*did you mean 'chat-2023\.csv'"):
        read_trace(tmp_path / "chat-2032.csv")
    with pytest.raises(InputError, match="check the path"):
        read_trace(tmp_path / "nowhere" / "x.csv")
    with pytest.raises(InputError, match="must be a file"):
        read_trace(tmp_path)


def test_a_broken_parquet_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_trace(write(tmp_path, "not parquet at all", "trace.parquet"))


def test_a_column_of_another_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"column input_tokens.*does not hold numbers"):
        read_trace(parquet(tmp_path, t_s=[0.0], input_tokens=[[1]], output_tokens=[1]))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"input_tokns": "t_s"}, ["does not know", "did you mean 'input_tokens'"]),
        ({"output_tokens": "anser"}, ["anser (for output_tokens) is missing", "did you mean 'answer'"]),
        ({"input_tokens": "answer"}, ["column output_tokens is missing"]),
    ],
)
def test_faults_of_stated_columns(tmp_path: Path, columns: dict[str, str], words: list[str]) -> None:
    file = write(tmp_path, "t_s,prompt,answer\n0,1,1\n")
    with pytest.raises(InputError) as caught:
        read_trace(file, columns)
    for word in words:
        assert word in str(caught.value)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    assert len(read_trace(write(tmp_path, PLAIN + "0,1,1\n"))) == 1
    assert len(read_trace(write(tmp_path, PLAIN + "0,1,1\n1,1,1\n"))) == 2


def test_importing_the_workload_does_not_load_polars() -> None:
    code = "import sys, infermix.workload.arrivals; sys.exit('polars' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_recorded_traces_are_read(traces_dir: Path) -> None:
    agents = read_trace(traces_dir / "agentic_coding.parquet")
    assert (len(agents), agents.sessions) == (46_218, 692)
    assert agents.cached_tokens.sum() / agents.input_tokens.sum() == pytest.approx(0.96, abs=0.005)
    mooncake = read_trace(traces_dir / "mooncake_conversation.parquet")
    assert len(mooncake) == 12_031
    assert np.all(mooncake.cached_tokens < mooncake.input_tokens)
    assert mooncake.cached_tokens.sum() / mooncake.input_tokens.sum() == pytest.approx(0.374, abs=0.005)

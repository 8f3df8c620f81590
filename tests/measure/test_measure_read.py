"""Request logs of every kind: what is read, and that nothing is lost silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from infermix.errors import InputError
from infermix.measure.read import read_timed


def write_lines(path: Path, rows: list[dict[str, Any]], *more: str) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "".join(line + "\n" for line in more))
    return path


def test_plain_columns_are_read_and_put_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "t_s,input_tokens,output_tokens,cached_tokens,ttft_ms,latency_ms,class\n"
        "7,100,11,0,250,1250,chat\n5,200,5,150,500,900,code\n"
    )
    log = read_timed(path)
    assert log.requests.arrival_s.tolist() == [0.0, 2.0]
    assert log.requests.input_tokens.tolist() == [200, 100]
    assert log.requests.cached_tokens.tolist() == [150, 0]
    assert log.ttft_s.tolist() == [0.5, 0.25]
    assert log.tpot_s == pytest.approx([0.1, 0.1])
    assert [log.requests.class_names[c] for c in log.requests.class_id] == ["code", "chat"]
    assert np.isnan(log.began_unix_s) and log.left_out == {}


def test_rows_that_cannot_be_used_are_counted_by_reason(tmp_path: Path) -> None:
    good = {"t_s": 1.0, "input_tokens": 10, "output_tokens": 3, "ttft_s": 0.1, "e2e_s": 0.3}
    rows = [
        good,
        good | {"status": "failed"},
        good | {"status_code": 503},
        good | {"error": {"message": "gone"}},
        good | {"t_s": None},
        good | {"input_tokens": "many"},
        good | {"output_tokens": 0},
        good | {"e2e_s": None},
        good | {"e2e_s": 0.05},
        good | {"ttft_s": -1.0},
    ]
    log = read_timed(write_lines(tmp_path / "log.jsonl", rows, "not json", "[1, 2]"))
    assert len(log) == 1
    assert log.left_out == {
        "not a JSON object": 2,
        "failed": 3,
        "no time of arrival": 1,
        "no number of input tokens": 1,
        "no number of output tokens": 1,
        "no time of the last token (unfinished)": 1,
        "first token before the arrival": 1,
        "last token before the first": 1,
    }


def test_a_gateways_log_with_dates_and_usage(tmp_path: Path) -> None:
    rows = [
        {
            "startTime": f"2026-03-01T12:00:0{i}.5Z",
            "completionStartTime": f"2026-03-01T12:00:0{i}.75Z",
            "endTime": f"2026-03-01T12:00:0{i + 1}.75Z",
            "model": f"m{i % 2}",
            "response": {
                "usage": {
                    "prompt_tokens": 50,
                    "completion_tokens": 11,
                    "prompt_tokens_details": {"cached_tokens": 32},
                }
            },
        }
        for i in range(4)
    ]
    log = read_timed(write_lines(tmp_path / "log.jsonl", rows))
    assert log.format == "LiteLLM"
    assert log.ttft_s == pytest.approx([0.25] * 4) and log.e2e_s == pytest.approx([1.25] * 4)
    assert log.requests.cached_tokens.tolist() == [32] * 4
    assert log.requests.class_names == ("m0", "m1")
    assert log.began_unix_s == pytest.approx(1772366400.5)


def test_an_openai_log_with_milliseconds(tmp_path: Path) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3}
    rows = [{"created": 1772366400000 + 500 * i, "usage": usage, "ttft_ms": 40, "latency_ms": 60} for i in range(3)]
    log = read_timed(write_lines(tmp_path / "log.jsonl", rows))
    assert log.format == "OpenAI"
    assert log.requests.arrival_s == pytest.approx([0.0, 0.5, 1.0])
    assert log.tpot_s == pytest.approx([0.01] * 3)


def test_clocks_of_client_and_engine_are_put_together(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(
        "arrival_time,queued_ts,scheduled_ts,first_token_ts,last_token_ts,input_toks,output_toks\n"
        "1000000000.0,50.0,50.1,50.5,51.5,100,11\n1000000001.0,51.2,51.2,51.6,52.6,100,11\n"
    )
    log = read_timed(path)
    assert log.format == "vLLM engine"
    assert log.requests.arrival_s == pytest.approx([0.0, 1.0])
    assert log.ttft_s == pytest.approx([0.5, 0.6])
    assert log.began_unix_s == 1e9


def test_a_benchmark_result(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    found = {
        "input_lens": [10, 20, 30],
        "output_lens": [3, 2, 0],
        "start_times": [5.0, 5.5, 6.0],
        "ttfts": [0.1, 0.2, 0.0],
        "itls": [[0.01, 0.02], [0.03], []],
        "errors": ["", "", "boom"],
    }
    path.write_text(json.dumps(found))
    log = read_timed(path)
    assert len(log) == 2 and log.left_out == {"failed": 1}
    assert log.e2e_s == pytest.approx([0.13, 0.23])


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("when,in,out,took\n1,5,2,0.5\n")
    log = read_timed(path, {"t_s": "when", "input_tokens": "in", "output_tokens": "out", "e2e_s": "took"})
    assert log.e2e_s.tolist() == [0.5] and np.isnan(log.ttft_s).all()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("log.csv", "t_s,input_tokens\n1,2\n", "no column tells output_tokens"),
        ("log.csv", "t_s,input_tokens,output_tokens\n1,2,3\n", "no column tells the end of requests"),
        ("log.csv", "t_s,input_tokens,output_tokens,e2e_s\n1,2,3,x\n", "no row can be used"),
        ("log.csv", "t_s,input_tokens,output_tokens,e2e_s\n", "no request in it"),
        ("log.txt", "x", "unknown kind of log"),
        ("log.json", "{}", "not a result with single requests"),
        ("log.parquet", "x", "cannot be read"),
        ("log.jsonl", "x\n", "no request in it"),
    ],
)
def test_files_that_are_no_logs_are_refused_in_one_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(InputError, match=says) as fault:
        read_timed(path)
    assert "\n" not in str(fault.value)

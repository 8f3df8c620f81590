"""Published formats: what is taken from each, what is repaired and counted, and one line for every fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from infermix.errors import InputError
from infermix.workload.arrivals import draw
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.traces import Trace, read_trace

SLO = Slo(ttft_s=1.0)
BURST = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
BURST_ROWS = (
    "5,ChatGPT,472,18,490,Conversation log\n45,GPT-4,1087,230,1317,API log\n"
    "40,ChatGPT,10,0,10,Conversation log\n118,GPT-4,417,276,693,Conversation log\n"
)


def write(folder: Path, text: str, name: str) -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def lines(*records: dict[str, Any]) -> str:
    return "\n".join(json.dumps(record) for record in records)


def lengths(trace: Trace) -> list[list[int]]:
    return [c.tolist() for c in (trace.input_tokens, trace.cached_tokens, trace.output_tokens)]


def test_burstgpt_as_published(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, BURST + BURST_ROWS, "b.csv"))
    assert trace.format == "BurstGPT"
    assert trace.t_s.tolist() == [0.0, 35.0, 40.0, 113.0]
    assert lengths(trace) == [[472, 10, 1087, 417], [0] * 4, [18, 1, 230, 276]]
    assert trace.models == {"ChatGPT": 2, "GPT-4": 2}
    assert trace.repairs == {"put_in_order_of_time": 1, "failed_requests_read_as_1_output_token": 1}
    assert not trace.has_sessions and trace.service_s is None


def test_burstgpt_with_sessions_and_elapsed_times_keeps_its_common_clock(tmp_path: Path) -> None:
    head = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    rows = "1,a,0.5,ChatGPT,4,5,9,API log\n3,a,,ChatGPT,6,7,13,API log\n"
    trace = read_trace(write(tmp_path, head + rows, "b.csv"))
    assert trace.t_s.tolist() == [0.0, 2.0] and not trace.has_sessions
    assert trace.service_s is not None and np.isnan(trace.service_s[1]) and trace.service_s[0] == 0.5


@pytest.mark.parametrize(
    ("only", "inputs", "left_out"),
    [
        ({"model": ("GPT-4",)}, [1087, 417], 2),
        ({"kind": ("Conversation log",)}, [472, 10, 417], 1),
        ({"model": ("GPT-4",), "kind": ("API log",)}, [1087], 3),
        ({"model": ("GPT-4", "ChatGPT")}, [472, 10, 1087, 417], 0),
    ],
)
def test_only_keeps_models_and_kinds_and_counts_the_rest(
    tmp_path: Path, only: dict[str, tuple[str, ...]], inputs: list[int], left_out: int
) -> None:
    trace = read_trace(write(tmp_path, BURST + BURST_ROWS, "b.csv"), only=only)
    assert trace.input_tokens.tolist() == inputs
    assert trace.repairs.get("left_out_by_only", 0) == left_out


def test_between_s_takes_a_stretch_and_counts_the_rest(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, BURST + BURST_ROWS, "b.csv"), between_s=(35.0, 113.0))
    assert trace.input_tokens.tolist() == [10, 1087] and trace.t_s.tolist() == [0.0, 5.0]
    assert trace.repairs["left_out_by_between_s"] == 2


def test_prefix_blocks_stay_with_their_rows_and_the_cache_is_warm_from_before(tmp_path: Path) -> None:
    rows = [
        {"timestamp": 0, "input_length": 1024, "output_length": 5, "hash_ids": [1, 2]},
        {"timestamp": 1000, "input_length": 512, "output_length": 5, "hash_ids": [9]},
        {"timestamp": 2000, "input_length": 1536, "output_length": 5, "hash_ids": [1, 2, 3]},
    ]
    trace = read_trace(write(tmp_path, lines(*rows), "m.jsonl"), between_s=(0.5, 9.0))
    assert trace.format == "Mooncake"
    assert trace.block_start[0].tolist() == [0, 1, 4] and trace.block_ids[0].tolist() == [9, 1, 2, 3]
    assert trace.cached_tokens.tolist() == [0, 1024]


def test_llmservingsim_counts_nanoseconds_and_the_engine_seconds(tmp_path: Path) -> None:
    columns = {"input_toks": [7, 9], "output_toks": [3, 4]}
    pl.DataFrame({**columns, "arrival_time_ns": [1_500_000_000, 2_000_000_000]}).write_parquet(tmp_path / "s.parquet")
    pl.DataFrame({**columns, "arrival_time": [1787267982.5, 1787267980.25]}).write_parquet(tmp_path / "v.parquet")
    simulated, measured = (read_trace(tmp_path / name) for name in ("s.parquet", "v.parquet"))
    assert simulated.t_s.tolist() == [0.0, 0.5] and simulated.format == "LLMServingSim"
    assert measured.t_s.tolist() == [0.0, 2.25] and measured.input_tokens.tolist() == [9, 7]
    assert measured.repairs == {"put_in_order_of_time": 1}


def test_lengths_without_times_need_a_rate_and_come_once_each(tmp_path: Path) -> None:
    text = "num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n" + "".join(
        f"{100 + i},{i + 1},{101 + 2 * i},9.9\n" for i in range(50)
    )
    write(tmp_path, text, "arxiv.csv")
    trace = read_trace(tmp_path / "arxiv.csv")
    assert not trace.timed and trace.format == "Vidur" and len(trace) == 50
    cls = TrafficClass(slo=SLO, trace="arxiv.csv")
    with pytest.raises(InputError, match=r"traffic\.a: the trace has no times, so the class needs rate_per_s"):
        draw({"a": cls}, seed=1, requests=10, base_dir=tmp_path)
    cls = TrafficClass(slo=SLO, trace="arxiv.csv", rate_per_s=4.0)
    once = draw({"a": cls}, seed=1, requests=100, base_dir=tmp_path)
    assert np.bincount(once.requests.input_tokens - 100).tolist() == [2] * 50
    other = draw({"a": cls}, seed=2, requests=100, base_dir=tmp_path)
    assert once.requests.input_tokens.tolist() != other.requests.input_tokens.tolist()


def test_vidur_with_times_is_replayed(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "arrived_at,num_prefill_tokens,num_decode_tokens\n2,5,6\n4,7,8\n", "v.csv"))
    assert trace.timed and trace.t_s.tolist() == [0.0, 2.0]


BENCH = {
    "model_id": "llama",
    "request_rate": 4.0,
    "input_lens": [10, 20, 30],
    "output_lens": [3, 0, 2],
    "ttfts": [0.5, 0.0, 0.25],
    "itls": [[0.1, 0.1], [], [0.05]],
    "start_times": [100.0, 103.0, 101.0],
    "generated_texts": ["a", "", "b"],
    "errors": ["", "timeout", ""],
}


def test_a_vllm_benchmark_result(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, json.dumps(BENCH), "r.json"))
    assert trace.t_s.tolist() == [0.0, 1.0, 3.0]
    assert lengths(trace) == [[10, 30, 20], [0] * 3, [3, 2, 1]]
    assert trace.repairs == {"put_in_order_of_time": 1, "failed_requests_read_as_1_output_token": 1}
    assert trace.service_s is not None and trace.service_s == pytest.approx([0.7, 0.3, 0.0])
    assert trace.models == {"llama": 3}


def test_an_older_benchmark_result_has_no_times(tmp_path: Path) -> None:
    old = {key: value for key, value in BENCH.items() if key != "start_times"}
    assert not read_trace(write(tmp_path, json.dumps(old), "r.json")).timed


USAGE = {"prompt_tokens": 100, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 64}}
LOGS = {
    "a response": {"object": "chat.completion", "created": 1000, "model": "m", "usage": USAGE},
    "request and response": {"request": {"model": "m"}, "response": {"created": 1000, "model": "m", "usage": USAGE}},
    "batch": {
        "custom_id": "1",
        "response": {"status_code": 200, "body": {"created": 1000, "model": "m", "usage": USAGE}},
        "error": None,
    },
    "responses": {
        "object": "response",
        "created_at": 1000,
        "model": "m",
        "usage": {"input_tokens": 100, "output_tokens": 20, "input_tokens_details": {"cached_tokens": 64}},
    },
    "litellm": {
        "startTime": 1000.0,
        "endTime": 1002.5,
        "model": "m",
        "status": "success",
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "metadata": {"usage_object": USAGE},
    },
    "litellm wrapped": {
        "standard_logging_object": {
            "startTime": "1970-01-01T00:16:40Z",
            "endTime": "1970-01-01T00:16:42.5+00:00",
            "model": "m",
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "metadata": {"usage_object": USAGE},
        }
    },
}


def _later(record: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The same line, so much later."""
    text = json.dumps(record).replace("00:16:4", "00:17:4")
    shift = {"1000": f"{1000 + seconds:g}", "1002.5": f"{1002.5 + seconds:g}"}
    for old, new in shift.items():
        text = text.replace(f": {old}", f": {new}")
    found: dict[str, Any] = json.loads(text)
    return found


@pytest.mark.parametrize("name", LOGS)
def test_logs_of_openai_compatible_services(tmp_path: Path, name: str) -> None:
    trace = read_trace(write(tmp_path, lines(LOGS[name], _later(LOGS[name], 60)), "log.jsonl"))
    assert trace.t_s == pytest.approx([0.0, 60.0])
    assert lengths(trace) == [[100, 100], [64, 64], [20, 20]]
    assert trace.models == {"m": 2} and trace.repairs == {}
    if name.startswith("litellm"):
        assert trace.service_s is not None and trace.service_s == pytest.approx([2.5, 2.5])


def test_failed_requests_of_a_log_are_left_out_and_counted(tmp_path: Path) -> None:
    good = LOGS["a response"]
    failures: list[dict[str, Any]] = [
        {"created": 1001, "model": "m", "error": {"message": "overloaded"}},
        {"response": {"status_code": 429, "body": {}}, "custom_id": "2"},
        {"startTime": 1.0, "status": "failure", "prompt_tokens": 5, "completion_tokens": 0},
    ]
    trace = read_trace(write(tmp_path, lines(_later(good, 9), *failures, good), "log.jsonl"))
    assert len(trace) == 2
    assert trace.repairs == {"failed_requests_left_out": 3, "put_in_order_of_time": 1}


def test_milliseconds_are_told_by_their_size(tmp_path: Path) -> None:
    rows = [{**LOGS["a response"], "created": 1_700_000_000_000 + 500 * i} for i in range(2)]
    assert read_trace(write(tmp_path, lines(*rows), "log.jsonl")).t_s.tolist() == [0.0, 0.5]


FAULTS: dict[str, tuple[str, str, list[str]]] = {
    "log without usage": (
        lines(LOGS["a response"], {"created": 3, "model": "m"}), "l.jsonl",
        ["row 2", "no token counts", "include_usage"],
    ),
    "log without time": (lines({"model": "m", "usage": USAGE}), "l.jsonl", ["row 1", "no time", "created"]),
    "log with text": (
        lines({"created": 1, "usage": {"prompt_tokens": "x", "completion_tokens": 2}}), "l.jsonl",
        ["row 1: usage.prompt_tokens", "not a number of tokens", "'x'"],
    ),
    "log with a bad date": (
        lines({"startTime": "soon", "prompt_tokens": 1, "completion_tokens": 2}), "l.jsonl",
        ["row 1: startTime", "not a date", "'soon'"],
    ),
    "log broken": (lines(LOGS["a response"]) + "\n[1]\n", "l.jsonl", ["row 2", "not a JSON object", "[1]"]),
    "bench without details": (json.dumps({"duration": 3.0}), "r.json", ["no lengths", "--save-detailed"]),
    "bench of unequal lists": (
        json.dumps({**BENCH, "start_times": [1.0]}), "r.json", ["lists differ in length", "'start_times': 1"],
    ),
    "bench that is none": ("[1, 2]", "r.json", ["not a benchmark result", "vllm bench serve"]),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_is_one_clear_line(tmp_path: Path, fault: str) -> None:
    text, name, words = FAULTS[fault]
    file = write(tmp_path, text, name)
    with pytest.raises(InputError) as caught:
        read_trace(file, where="traffic.chat")
    message = str(caught.value)
    assert message.startswith(f"traffic.chat: {file}") and "\n" not in message
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("only", "words"),
    [
        ({"model": ("GPT4",)}, ["only.model", "no request with this model", "did you mean 'GPT-4'", "ChatGPT"]),
        ({"modle": ("GPT-4",)}, ["only names modle", "did you mean 'model'", "model, kind"]),
        ({"session": ("1",)}, ["only names session", 'columns = { session = "…" }']),
        ({"model": ("ChatGPT",), "kind": ("API log",)}, ["no request is left"]),
    ],
)
def test_faults_of_only(tmp_path: Path, only: dict[str, tuple[str, ...]], words: list[str]) -> None:
    file = write(tmp_path, BURST + BURST_ROWS, "b.csv")
    with pytest.raises(InputError) as caught:
        read_trace(file, only=only)
    assert [word for word in words if word not in str(caught.value)] == []


def test_faults_of_between_s(tmp_path: Path) -> None:
    file = write(tmp_path, BURST + BURST_ROWS, "b.csv")
    with pytest.raises(InputError, match=r"no request in this time.*0 to 113 s"):
        read_trace(file, between_s=(500.0, 600.0))
    text = "session,t_s,input_tokens,output_tokens\n0,0,1,1\n"
    with pytest.raises(InputError, match="between_s cannot be told"):
        read_trace(write(tmp_path, text, "s.csv"), between_s=(0.0, 1.0))
    with pytest.raises(InputError, match="the trace has no times"):
        read_trace(write(tmp_path, "input_tokens,output_tokens\n1,1\n", "l.csv"), between_s=(0.0, 1.0))


def test_a_time_under_another_name_is_not_overlooked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="column t_s is missing"):
        read_trace(write(tmp_path, "arrival,input_tokens,output_tokens\n0,1,1\n", "x.csv"))


@pytest.mark.parametrize(
    ("name", "n", "timed"),
    [
        ("arxiv_summarization", 28_257, False),
        ("llmservingsim_sharegpt-llama-3.1-8b-300-sps10", 300, True),
        ("vllm_measured_RTX4090_Llama-3.1-8B", 300, True),
        ("mooncake_synthetic", 3_993, True),
        ("azure2023_code", 8_819, True),
    ],
)
def test_the_recorded_traces_are_recognised(traces_dir: Path, name: str, n: int, timed: bool) -> None:
    trace = read_trace(traces_dir / f"{name}.parquet")
    assert (len(trace), trace.timed) == (n, timed)
    assert np.all(np.diff(trace.t_s) >= 0) and trace.t_s[0] == 0.0


def test_what_vllm_measured_was_offered_as_planned(traces_dir: Path) -> None:
    planned = read_trace(traces_dir / "llmservingsim_sharegpt-llama-3.1-8b-300-sps10.parquet")
    measured = read_trace(traces_dir / "vllm_measured_RTX4090_Llama-3.1-8B.parquet")
    assert measured.input_tokens.tolist() == planned.input_tokens.tolist()
    assert measured.t_s == pytest.approx(planned.t_s, abs=0.2)

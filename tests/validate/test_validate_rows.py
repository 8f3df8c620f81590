"""Measurement files and what their rows mean."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from infermix.errors import InfermixError, InputError
from infermix.validate.engines import engine_of
from infermix.validate.meaning import APART, case_of
from infermix.validate.outcome import outcome_of
from infermix.validate.predict import predict_row
from infermix.validate.rows import read_rows
from tests.validate.rows_for import row

HEADER = "id,chip,model,metric,value,quality\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id,chip\n", "the header lacks model, metric, value"),
        (HEADER + "a,H100-SXM,x,tpot_ms,-1,A\n", "line 2: value: not a positive number"),
        (HEADER + "a,H100-SXM,x,tpot_ms,1,A\nb,H100-SXM,x,speed,1,A\n", "line 3: unknown metric; got 'speed'"),
        (HEADER + "a,H100-SXM,x,tpot_ms,1,E\n", "unknown quality; got 'E'"),
    ],
)
def test_bad_files_are_told_in_one_line(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=said):
        read_rows(file)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_rows("no-such.csv")


def test_columns_that_a_file_lacks_are_left_open(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text(HEADER + "a,H100-SXM,Llama-3.1-8B,tpot_ms,7.5,A\n", encoding="utf-8")
    (one,) = read_rows(file)
    assert one.value == 7.5 and one.tp is None and one.clients is None and one.framework == ""


def test_engines_by_name_and_date() -> None:
    names = {"vLLM (2023)": "vllm-2023", "vllm 0.12.0": "vllm", "vLLM": "vllm-2024", "trtllm 1.0.0rc3": "tensorrt-llm",
             "TensorRT-LLM 0.5/0.6.1": "tensorrt-llm-2024", "sglang 0.5.9": "sglang",
             "vLLM nightly 2026-02": "vllm-day-0",
             "Deepspeed-MII": "deepspeed", "nobody knows": "other"}  # fmt: skip
    assert {name: engine_of(name).id for name in names} == names
    assert engine_of("vllm", "2026-03").id == "vllm"


def test_clients_of_equal_lengths_stay_in_step_where_prompts_are_read_first() -> None:
    """All prompts are read before any answer goes on, so all answers end together, and all clients ask again."""
    drawn, exact = (case_of(row(source=s, framework="sglang 0.5.9")) for s in ("InferenceX made up", "made up"))
    assert (drawn.shortest, exact.shortest, exact.apart) == (0.8, 1.0, 0.0)
    assert outcome_of(drawn).ttft_s < 0.7 * outcome_of(exact).ttft_s


def test_clients_of_engines_that_mix_drift_apart() -> None:
    """Prompts stagger their answers; means of lengths stay, and a client no longer waits for all others' prompts."""
    case = case_of(row())
    in_step = msgspec.structs.replace(case, apart=0.0)
    assert case.apart == APART
    assert outcome_of(case).ttft_s < 0.7 * outcome_of(in_step).ttft_s
    same = [outcome_of(c).output_tokens_per_s for c in (case, in_step)]
    assert same[0] == pytest.approx(same[1], rel=0.08)
    alone = case_of(row(batch_or_concurrency="1"))
    assert outcome_of(alone).tpot_s == pytest.approx(
        outcome_of(msgspec.structs.replace(alone, apart=0.0)).tpot_s, rel=0.01
    )


def test_sglang_keeps_its_cache_in_16_bits_unless_a_script_asks_otherwise() -> None:
    kept = {s: case_of(row(source=s, framework="sglang 0.5.9")).deployment.kv for s in ("made up", "InferenceX-DB")}
    assert kept == {"made up": "bf16", "InferenceX-DB": "fp8"}
    assert case_of(row(framework="trtllm 1.1.0")).deployment.kv == "fp8"


def test_a_batch_is_sent_once() -> None:
    case = case_of(row(scenario="batch-offline", batch_or_concurrency="32", metric="total_tok_s"))
    assert case.requests == case.clients == 32


def test_quantised_checkpoints_of_gpt_oss_are_mxfp4_whatever_the_row_says() -> None:
    assert case_of(row(model="gpt-oss-120b", weight_dtype="nvfp4")).deployment.weights == "mxfp4"


def test_workers_of_a_split_row() -> None:
    notes = "disagg P:1x(tp4 dp1 ep4 bs1) D:3x(tp8 dp1 ep8 bs34); id=x"
    case = case_of(row(chip="GB200", model="DeepSeek-R1", weight_dtype="nvfp4", scenario="server-closed-loop-disagg",
                       notes=notes, batch_or_concurrency="102", framework="trtllm"))  # fmt: skip
    assert case.prefill is not None
    assert (case.prefill.tp, case.deployment.tp, case.instances, case.clients) == (4, 8, 3, 34)
    assert case.prefill_instances == pytest.approx(1 / 3)
    assert not case.assumed


def test_what_is_not_told_is_named() -> None:
    case = case_of(row(tp=None, input_len=None, weight_dtype=""))
    assert set(case.assumed) == {"layout", "prompt length", "weights"}


def test_cores_are_not_chips() -> None:
    case = case_of(row(chip="Inferentia2", num_chips=12, tp=24, model="Llama-2-13B", weight_dtype="fp16",
                       framework="Transformers-NeuronX 2.18.0"))  # fmt: skip
    assert case.deployment.tp == 12


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metric": "step_ms"}, "single layer"),
        ({"scenario": "production-decode"}, "production fleet"),
        ({"chip": "no such chip"}, "unknown chip"),
        ({"model": "no such model"}, "unknown model"),
    ],
)
def test_rows_without_an_answer_say_why(changes: dict[str, str], said: str) -> None:
    with pytest.raises(InfermixError, match=said):
        case_of(row(**changes))
    found = predict_row(row(**changes))
    assert not found.covered and said in found.reason


def test_one_row_has_an_interval_around_its_value() -> None:
    found = predict_row(row())
    assert found.covered and found.low < found.value < found.high

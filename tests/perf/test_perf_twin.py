"""The compiled step table against the slow twin, field by field."""

from __future__ import annotations

import math
import zlib
from dataclasses import fields, replace

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infermix.catalog import shape
from infermix.catalog.records import Figure, Model
from infermix.errors import NoAnswer
from infermix.perf import dataflow, model_cost, roofline
from infermix.perf.breakdown import step_parts_s
from infermix.perf.deployment import BLOCK_TOKENS, BYTES_PER_KV, BYTES_PER_WEIGHT, Deployment
from infermix.perf.idle import ttft_s
from infermix.perf.memory import capacity_bytes, kv_tokens_left
from infermix.perf.specdec import Speculation
from infermix.perf.table import StepTable, compile_table, missing_figures, table_at
from tests.naive import perf as naive
from tests.naive import perf_memory
from tests.naive import perf_model as count
from tests.naive.perf_sram import Pipeline
from tests.nightly import examples
from tests.perf.deployments import CAT, MODELS, deploy, every_layout
from tests.perf.shapes import deployments, models

TOKENS = (1, 2, 7, 33, 81, 256, 257, 1000, 8191)
CLOSE = 1e-9

EAGER = Figure(3e-4, "s", ("MEAS",), "derived", "2026-11-22")


def eager(d: Deployment) -> Deployment:
    """On a host that launches kernels one by one."""
    figures = {**d.efficiency.figures, "eager_layer_s": EAGER}
    return msgspec.structs.replace(d, efficiency=msgspec.structs.replace(d.efficiency, figures=figures))


KNOWN = {
    "8b-eager": eager(deploy("h100-x1", "llama-3.1-8b")),
    "405b-eager-pipeline": eager(deploy("h100-x8", "llama-3.1-405b", tp=8, pp=3)),
    "8b-h100": deploy("h100-x1", "llama-3.1-8b"),
    "70b-h200-fp8": deploy("h200-x8", "llama-3.1-70b", tp=8, weights="fp8"),
    "70b-two-systems": deploy("h100-x8", "llama-3.1-70b", tp=16),
    "405b-pipeline": deploy("h100-x8", "llama-3.1-405b", tp=8, pp=3),
    "gpt-oss-b200": deploy("b200-x8", "gpt-oss-120b", tp=8, weights="mxfp4", kv="fp8"),
    "gpt-oss-h100": deploy("h100-x8", "gpt-oss-120b", tp=2, weights="mxfp4"),
    "mixtral-dp2": deploy("h100-x8", "mixtral-8x7b", tp=4, dp=2),
    "mixtral-ep8-int4": deploy("h100-x8", "mixtral-8x7b", tp=2, dp=4, ep=8, weights="int4", kv="int4"),
    "v3-h200-ep8": deploy("h200-x8", "deepseek-v3", dp=8, ep=8, spec=Speculation("mtp", 1, 1.8)),
    "v3-four-systems": deploy("h200-x8", "deepseek-v3", tp=2, dp=16, ep=32),
    "v3.2-tp-pp": deploy("h100-x8", "deepseek-v3.2", tp=8, pp=2, ep=8, kv="fp8"),
    "v2-lite": deploy("h100-x8", "deepseek-v2-lite", tp=2, pp=2, dp=2, ep=4),
    "glm-shared-experts": deploy("mi325x-x8", "glm-4.5", tp=8, weights="fp8"),
    "next-hybrid": deploy("h200-x8", "qwen3-next-80b-a3b", tp=4, spec=Speculation("mtp", 2, 2.2)),
    "nano-apart": deploy("b200-x8", "nemotron-3-nano-30b-a3b", tp=2, dp=2, ep=4),
    "mamba": deploy("h100-x1", "falcon-mamba-7b"),
    "gemma-4": deploy("h200-x8", "gemma-4-31b", tp=8),
    "all-slide": deploy("h100-x1", "mistral-7b-v0.1"),
    "maverick-nvfp4": deploy("b200-x8", "llama-4-maverick-17b-128e", tp=8, weights="nvfp4", kv="nvfp4"),
    "palm-one-kv-head": deploy("gb200-nvl72", "palm-540b", tp=16, weights="int4"),
    "gpt-j-plain-mlp": deploy("a100-80-x2", "gpt-j-6b", dp=2),
    "tpu-int8": deploy("tpu-v5e-x8", "llama-2-70b", tp=8, weights="int8"),
    "cs3-x4": deploy("cs3", "llama-3.1-70b", stages=4),
    "cs3-gpt-oss": deploy("cs3", "gpt-oss-120b", stages=4, spec=Speculation("eagle", 3, 2.4)),
    "cs3-v3": deploy("cs3", "deepseek-v3", stages=24),
    "groq-x14": deploy("groq-v1-rack", "llama-2-70b", stages=14),
    "groq-x24-moe": deploy("groq-v1-rack", "glm-4.5-air", stages=24),
    "lpx-fp8-only": deploy("groq3-lpx-rack", "llama-3.1-70b", weights="fp8"),
    "northpole-half-layers": deploy(
        "northpole-x16", "llama-3.1-8b", stages=6, weights="int4", kv="int8", spec=Speculation("eagle", 2, 2.3)
    ),
    "corsair-int8-only": deploy("corsair-x8", "llama-3.1-8b", stages=2),
}


def agree(d: Deployment, compiled: StepTable, tokens: list[int]) -> None:
    """Raise unless every field of a table of these tokens is the twin's."""
    twin, off = naive.twin(d), {}
    wanted: dict[str, list[float]] = {
        "decode_s": [twin.decode_s(t) for t in tokens],
        "mixed_s": [twin.mixed_s(t) for t in tokens],
        "per_seq_s": [twin.per_seq_s()],
        "kv_s": [twin.kv_s()],
        "pair_s": [twin.pair_s()],
        "load_s": [twin.load_s()],
        "latency_s": [twin.latency_s()],
        "issue_interval_s": [twin.issue_interval_s()],
        "block_tokens": [16],
        "valid_tokens": [d.max_batched_tokens],
        "tokens_per_step": [d.spec.accepted_per_step if d.spec else 1.0],
        "low": [naive.interval(d)[0]],
        "high": [naive.interval(d)[1]],
        "version": [1],
    }
    m = d.model  # weights of the mean attention block are rounded to whole ones
    close = 1e-7 if m.sliding_heads or m.sliding_kv_heads or m.sliding_head_dim else CLOSE
    for name, numbers in wanted.items():
        found = np.atleast_1d(getattr(compiled, name)).tolist()
        if len(found) != len(numbers) or not all(
            abs(a - b) <= close * abs(b) for a, b in zip(found, numbers, strict=True)
        ):
            off[name] = (found, numbers)
    assert not off, f"{d.model.id} on {d.name}: {off}"
    assert set(wanted) | {"blocks"} == {field.name for field in fields(StepTable)}
    left = perf_memory.kv_tokens_left(d)
    assert abs(kv_tokens_left(d) - math.floor(left)) <= 1 + CLOSE * left
    assert abs(compiled.blocks - left / BLOCK_TOKENS) <= 1 + CLOSE * left


@pytest.mark.parametrize("name", KNOWN)
def test_the_table_is_the_twins(name: str) -> None:
    d = KNOWN[name]
    compiled, tokens = compile_table(d), [t for t in TOKENS if t <= d.max_batched_tokens]
    at = np.array(tokens)
    agree(d, replace(compiled, decode_s=compiled.decode_s[at], mixed_s=compiled.mixed_s[at]), tokens)
    assert compiled.decode_s[0] == compiled.decode_s[1] and compiled.mixed_s[0] == compiled.mixed_s[1]
    assert len(compiled.decode_s) == len(compiled.mixed_s) == compiled.valid_tokens + 1
    for prompt, cached in ((1, 0), (777, 0), (9000, 0), (9000, 8999), (20_000, 3000), (10, 10)):
        wanted = naive.ttft_s(d, prompt, cached)
        assert ttft_s(d, prompt, cached) == pytest.approx(wanted, rel=CLOSE), (prompt, cached)


@settings(deadline=None, max_examples=examples(300))
@given(d=deployments(), tokens=st.lists(st.integers(1, 900), min_size=1, max_size=3), prompt=st.integers(1, 1500))
def test_any_shape_on_any_chip_is_the_twins(d: Deployment, tokens: list[int], prompt: int) -> None:
    left = perf_memory.kv_tokens_left(d)
    assume(abs(left - BLOCK_TOKENS) > 1)
    if left < BLOCK_TOKENS:
        with pytest.raises(NoAnswer, match="does not fit"):
            compile_table(d)
        return
    tokens = [1, *tokens]
    agree(d, table_at(d, np.array(tokens, dtype=float)), tokens)
    assert ttft_s(d, prompt, 30) == pytest.approx(naive.ttft_s(d, prompt, 30), rel=CLOSE, abs=0)


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_catalogue_is_the_twins(model: str) -> None:
    """In one layout on each of five systems, other dtypes and speculation each time."""
    for system in ("h200-x8", "gb200-nvl72", "mi300x-x8", "tpu-v6e-x8", "cs3"):
        turn = zlib.crc32(f"{system} {model}".encode())
        layouts = every_layout(CAT.systems[system], CAT.models[model])
        spec = (None, Speculation("ngram", 2, 1.5), Speculation("eagle", 1, 1.2))[turn % 3]
        d = msgspec.structs.replace(
            layouts[turn // 3 % len(layouts)],
            weights=sorted(BYTES_PER_WEIGHT)[turn // 5 % len(BYTES_PER_WEIGHT)],
            kv=sorted(BYTES_PER_KV)[turn // 11 % len(BYTES_PER_KV)],
            spec=spec,
        )
        if perf_memory.kv_tokens_left(d) > BLOCK_TOKENS + 1 and not missing_figures(d):
            agree(d, table_at(d, np.array([1.0, 40.0, 3000.0])), [1, 40, 3000])


@settings(deadline=None, max_examples=examples(150))
@given(model=models(), weights=st.sampled_from(sorted(BYTES_PER_WEIGHT)), kv=st.sampled_from(sorted(BYTES_PER_KV)))
def test_counting_is_the_twins(model: Model, weights: str, kv: str) -> None:
    head = model.hidden * model.vocab
    assert shape.parameters(model) == pytest.approx(count.parameters(model), rel=CLOSE)
    assert shape.active_parameters(model) == pytest.approx(count.token_flop(model) / 2 + head, rel=CLOSE)
    assert model_cost.weight_bytes(model, weights) == pytest.approx(count.weight_bytes(model, weights), rel=CLOSE)
    assert model_cost.weight_parts(model, weights).experts == pytest.approx(
        count.expert_bytes(model, weights), rel=1e-6
    )
    assert model_cost.flop_per_token(model) == pytest.approx(count.token_flop(model), rel=CLOSE)
    assert model_cost.kv_bytes_per_token(model, kv) == pytest.approx(count.kept_kv_bytes(model, kv), rel=CLOSE)
    assert model_cost.context_flop_per_pair(model) == count.context_pair_flop(model)
    assert model_cost.context_flop_per_read(model) == count.context_read_flop(model)
    assert model_cost.reach_flop_per_token(model) == pytest.approx(count.reach_flop(model), rel=CLOSE)
    far = 10_000 + (model.sliding_window or 0) + (model.sparse_topk or 0)
    read = far * model_cost.context_bytes_per_token(model, kv) + model_cost.reach_bytes_per_sequence(model, kv)
    assert read - count.state_bytes(model) == pytest.approx(count.context_kv_bytes(model, kv, far), rel=CLOSE)
    if model.experts:
        for tokens in (1, 2, 7.5, 300):
            touched = model_cost.experts_touched(model, np.array(tokens))
            assert touched == pytest.approx(count.experts_touched(model, tokens), rel=CLOSE)


@settings(deadline=None, max_examples=examples(100))
@given(d=deployments(), batch=st.integers(1, 300), context=st.integers(0, 50_000))
def test_parts_of_a_step_add_up(d: Deployment, batch: int, context: int) -> None:
    assume(perf_memory.kv_tokens_left(d) > BLOCK_TOKENS + 1)
    twin, parts = naive.twin(d), step_parts_s(d, batch, context)
    whole = twin.decode_s(batch) + batch * (twin.per_seq_s() + context * twin.kv_s())
    assert sum(parts.values()) == pytest.approx(whole, rel=CLOSE, abs=0)
    assert all(seconds > 0 for seconds in parts.values()), parts


@pytest.mark.parametrize("name", KNOWN)
def test_the_whole_machine_has_the_capacity_of_its_chips(name: str) -> None:
    assert capacity_bytes(KNOWN[name]) == pytest.approx(perf_memory.capacity_bytes(KNOWN[name]), rel=1e-12)


def test_prompts_drain_in_the_best_of_the_microbatches() -> None:
    """No other power of two drains sooner, and none is lost by the engine's choice."""
    d = KNOWN["cs3-x4"]
    twin = Pipeline(d)
    drained = {b: (d.model.layers + math.ceil(4096 / b)) * twin.stage_s(b) for b in (1, 2, 4, 64, 512, 4096)}
    assert dataflow.mixed_s(d, np.array([4096.0]))[0] <= min(drained.values()) * (1 + CLOSE) + twin.beside_s()


def test_chunks_leave_stages_in_line_no_later_than_one_by_one_or_all_at_once() -> None:
    d = KNOWN["405b-pipeline"]
    whole = np.array([4096.0])
    fullest, beside = 126 / 126, roofline.base_s(d, whole) - roofline.stack_s(d, whole / 3).total
    mixed = roofline.mixed_s(d, whole)
    for n in (1, 2, 3):
        leaves = fullest * (2 + n) / 3 * roofline.stack_s(d, whole / n).total + beside
        assert mixed <= leaves + roofline.prompt_launches_s(d) + 1e-12
    assert mixed >= roofline.base_s(d, whole)


def test_compiling_twice_gives_the_same_table() -> None:
    d = KNOWN["8b-h100"]
    assert compile_table(d) is compile_table(msgspec.structs.replace(d))

"""The compiled step table against the slow twin."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infermix.catalog.records import Model
from infermix.errors import NoAnswer
from infermix.perf import dataflow, model_cost, roofline
from infermix.perf.deployment import BLOCK_TOKENS, BYTES_PER_KV, BYTES_PER_WEIGHT, Deployment
from infermix.perf.memory import capacity_bytes, kv_tokens_left
from infermix.perf.table import compile_table
from tests.naive import perf as naive
from tests.perf.deployments import CAT, MODELLED, deploy, is_pipeline

TOKENS = (1, 2, 3, 7, 8, 15, 16, 31, 32, 33, 36, 63, 64, 80, 81, 127, 200, 255, 256, 257, 511, 1000, 2048, 4097, 8191)
TERMS = ("per_seq_s", "kv_s", "pair_s", "load_s", "latency_s", "issue_interval_s")
CLOSE = 1e-9

KNOWN = {
    "8b-h100": deploy("h100-x1", "llama-3.1-8b"),
    "70b-h200-fp8": deploy("h200-x8", "llama-3.1-70b", tp=8, weights="fp8"),
    "gpt-oss-b200": deploy("b200-x8", "gpt-oss-120b", tp=8, weights="mxfp4", kv="fp8"),
    "gpt-oss-h100": deploy("h100-x8", "gpt-oss-120b", tp=2, weights="mxfp4"),
    "mixtral-dp2": deploy("h100-x8", "mixtral-8x7b", tp=4, dp=2),
    "glm-shared-experts": deploy("mi325x-x8", "glm-4.5", tp=8, weights="fp8"),
    "maverick-nvfp4": deploy("b200-x8", "llama-4-maverick-17b-128e", tp=8, weights="nvfp4"),
    "palm-one-kv-head": deploy("gb200-nvl72", "palm-540b", tp=16, weights="int4"),
    "gpt-j-plain-mlp": deploy("a100-80-x2", "gpt-j-6b", dp=2),
    "tpu-int8": deploy("tpu-v5e-x8", "llama-2-70b", tp=8, weights="int8"),
    "cs3-x4": deploy("cs3", "llama-3.1-70b", stages=4),
    "cs3-gpt-oss": deploy("cs3", "gpt-oss-120b", stages=4),
    "groq-x14": deploy("groq-v1-rack", "llama-2-70b", stages=14),
    "groq-x24-moe": deploy("groq-v1-rack", "glm-4.5-air", stages=24),
    "lpx-fp8-only": deploy("groq3-lpx-rack", "llama-3.1-70b", weights="fp8"),
    "corsair-int8-only": deploy("corsair-x8", "llama-3.1-8b", stages=2),
}


def agree(d: Deployment, tokens: list[int]) -> None:
    """Raise unless table and twin say the same at these token counts."""
    compiled, twin = compile_table(d), naive.twin(d)
    for t in tokens:
        assert compiled.decode_s[t] == pytest.approx(twin.decode_s(t), rel=CLOSE, abs=0), f"decode_s[{t}]"
        assert compiled.mixed_s[t] == pytest.approx(twin.mixed_s(t), rel=CLOSE, abs=0), f"mixed_s[{t}]"
    for term in TERMS:
        assert getattr(compiled, term) == pytest.approx(getattr(twin, term)(), rel=CLOSE, abs=0), term
    assert abs(kv_tokens_left(d) - math.floor(naive.kv_tokens_left(d))) <= 1
    assert abs(compiled.blocks - naive.kv_tokens_left(d) / BLOCK_TOKENS) <= 1


@pytest.mark.parametrize("name", KNOWN)
def test_the_table_is_the_twins(name: str) -> None:
    d = KNOWN[name]
    agree(d, [t for t in TOKENS if t <= d.max_batched_tokens])


@pytest.mark.parametrize("name", KNOWN)
def test_no_tokens_cost_as_much_as_one_and_the_table_ends_at_its_limit(name: str) -> None:
    compiled = compile_table(KNOWN[name])
    assert compiled.decode_s[0] == compiled.decode_s[1] and compiled.mixed_s[0] == compiled.mixed_s[1]
    assert len(compiled.decode_s) == len(compiled.mixed_s) == compiled.valid_tokens + 1
    assert compiled.valid_tokens == KNOWN[name].max_batched_tokens
    assert compiled.block_tokens == BLOCK_TOKENS


@st.composite
def catalogue_deployments(draw: st.DrawFn) -> Deployment:
    """Any system with any model in any layout that divides."""
    system = CAT.systems[draw(st.sampled_from(sorted(CAT.systems)))]
    model = CAT.models[draw(st.sampled_from(MODELLED))]
    options: dict[str, object] = {
        "weights": draw(st.sampled_from(sorted(BYTES_PER_WEIGHT))),
        "kv": draw(st.sampled_from(sorted(BYTES_PER_KV))),
        "max_num_seqs": draw(st.integers(1, 256)),
        "max_batched_tokens": draw(st.integers(256, 2048)),
    }
    if is_pipeline(system):
        options["stages"] = draw(st.integers(1, 64))
    else:
        divisors = [tp for tp in range(1, system.chips + 1) if model.heads % tp == 0]
        tp = draw(st.sampled_from(divisors))
        options |= {"tp": tp, "dp": draw(st.integers(1, system.chips // tp))}
    return deploy(system.id, model.id, **options)


@settings(deadline=None, max_examples=150)
@given(d=catalogue_deployments(), tokens=st.lists(st.integers(1, 256), min_size=1, max_size=3))
def test_any_deployment_of_the_catalogue_is_the_twins(d: Deployment, tokens: list[int]) -> None:
    fits = naive.kv_tokens_left(d)
    assume(abs(fits - BLOCK_TOKENS) > 1)
    if fits < BLOCK_TOKENS:
        with pytest.raises(NoAnswer, match="does not fit"):
            compile_table(d)
    else:
        agree(d, [*tokens, d.max_batched_tokens])


@st.composite
def shapes(draw: st.DrawFn) -> Model:
    """A small model of any shape: dense or MoE, gated or not, with or without windows."""
    layers, kv_heads = draw(st.integers(1, 12)), draw(st.sampled_from([1, 2, 4, 8]))
    experts = draw(st.sampled_from([0, 0, 4, 8, 64]))
    window = draw(st.sampled_from([None, 64, 1000]))
    moe_layers = draw(st.integers(1, layers)) if experts else 0
    return msgspec.structs.replace(
        CAT.models["gpt-oss-20b"],
        layers=layers,
        hidden=draw(st.sampled_from([64, 512, 2880])),
        kv_heads=kv_heads,
        heads=kv_heads * draw(st.sampled_from([1, 2, 8])),
        head_dim=draw(st.sampled_from([32, 64, 128])),
        ffn=draw(st.integers(1, 9000)),
        vocab=draw(st.integers(2, 200_000)),
        tied_embeddings=draw(st.booleans()),
        gated_mlp=draw(st.booleans()),
        experts=experts,
        active_experts=draw(st.integers(1, min(8, experts))) if experts else 0,
        expert_ffn=draw(st.integers(1, 4000)) if experts else 0,
        shared_experts=draw(st.integers(0, 2)) if experts else 0,
        shared_expert_ffn=draw(st.integers(1, 4000)) if experts else 0,
        moe_layers=moe_layers,
        dense_layers=layers - moe_layers,
        sliding_window=window,
        sliding_layers=draw(st.integers(0, layers - 1)) if window else 0,
    )


@settings(deadline=None, max_examples=150)
@given(
    model=shapes(),
    system=st.sampled_from(["h100-x8", "b200-x8", "tpu-v5e-x8", "mi300x-x8", "cs3", "groq-v1-rack", "northpole-x16"]),
    weights=st.sampled_from(sorted(BYTES_PER_WEIGHT)),
    tokens=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    data=st.data(),
)
def test_any_shape_is_the_twins(
    model: Model, system: str, weights: str, tokens: list[int], data: st.DataObject
) -> None:
    d = deploy(system, "gpt-oss-20b", weights=weights, max_num_seqs=16, max_batched_tokens=300)
    d = msgspec.structs.replace(d, model=model)
    if not d.is_pipeline:
        tp = data.draw(st.sampled_from([tp for tp in (1, 2, 4, 8) if model.heads % tp == 0]))
        d = msgspec.structs.replace(d, tp=tp, dp=data.draw(st.integers(1, 8 // tp)))
    assume(naive.kv_tokens_left(d) > 2 * BLOCK_TOKENS)
    agree(d, tokens)


@settings(deadline=None, max_examples=100)
@given(model=shapes(), weights=st.sampled_from(sorted(BYTES_PER_WEIGHT)), kv=st.sampled_from(sorted(BYTES_PER_KV)))
def test_counting_is_the_twins(model: Model, weights: str, kv: str) -> None:
    assert model_cost.weight_bytes(model, weights) == pytest.approx(naive.weight_bytes(model, weights), rel=1e-12)
    assert model_cost.parameters(model) == naive.parameters(model)
    assert model_cost.flop_per_token(model) == pytest.approx(naive.token_flop(model), rel=1e-12)
    assert model_cost.flop_per_pair(model) == naive.pair_flop(model)
    assert model_cost.full_layers(model) == naive.full_layers(model)
    window = model.sliding_window or 0
    for context in (window, window + 1, 10 * window + 3):
        held = context * model_cost.kv_bytes_per_token(model, kv) + model_cost.kv_bytes_per_sequence(model, kv)
        assert held == pytest.approx(naive.context_kv_bytes(model, kv, context), rel=1e-12)
    if model.experts:
        for tokens in (1, 2, 7.5, 300):
            touched = model_cost.experts_touched(model, tokens)
            assert touched == pytest.approx(naive.experts_touched(model, tokens), rel=1e-9)


@pytest.mark.parametrize("name", KNOWN)
def test_the_whole_machine_has_the_capacity_of_its_chips(name: str) -> None:
    assert capacity_bytes(KNOWN[name]) == pytest.approx(naive.capacity_bytes(KNOWN[name]), rel=1e-12)


def test_parts_of_a_step_add_up() -> None:
    d = KNOWN["mixtral-dp2"]
    tokens = np.array([1.0, 64.0, 1000.0])
    parts = roofline.layers_s(d, tokens)
    whole = parts.attention_gemm + parts.mlp + parts.collectives + parts.fixed + roofline.head_s(d)
    assert whole == pytest.approx(compile_table(d).decode_s[tokens.astype(int)], rel=1e-12)


def test_prompts_drain_in_the_best_of_the_microbatches() -> None:
    """No other power of two drains sooner, and none is lost by the engine's choice."""
    d = KNOWN["cs3-x4"]
    twin = naive.Pipeline(d)
    drained = {b: (d.model.layers + math.ceil(4096 / b)) * twin.stage_s(b) for b in (1, 2, 4, 64, 512, 4096)}
    assert dataflow.mixed_s(d, np.array([4096.0]))[0] <= min(drained.values()) * (1 + CLOSE) + twin.beside_s()


def test_compiling_twice_gives_the_same_table() -> None:
    d = KNOWN["8b-h100"]
    assert compile_table(d) is compile_table(msgspec.structs.replace(d))

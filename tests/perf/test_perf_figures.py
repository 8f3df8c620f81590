"""Closed forms and published tables."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest

from infermix.catalog import shape
from infermix.catalog.query import find_chip, find_model
from infermix.perf import comm, dataflow, model_cost, ops, roofline
from infermix.perf.deployment import BYTES_PER_KV, BYTES_PER_WEIGHT
from infermix.perf.idle import ttft_s
from infermix.perf.memory import activation_bytes, capacity_bytes, kv_blocks, kv_replication, kv_tokens_left
from infermix.perf.predict import predict
from infermix.perf.specdec import Speculation
from infermix.perf.table import compile_table, step_time_s
from tests.perf.deployments import CAT, MODELS, deploy, scaled, with_chip, with_efficiency


@pytest.mark.parametrize(
    ("experts", "active", "tokens", "touched"),
    [
        (256, 8, 1, 8.0),
        (256, 8, 8, 57.4),
        (256, 8, 32, 163.3),
        (256, 8, 10_000, 256.0),
        (8, 2, 2, 3.5),
        (16, 16, 1, 16.0),
        (128, 4, 0, 0.0),
    ],
)
def test_experts_touched(experts: int, active: int, tokens: int, touched: float) -> None:
    model = msgspec.structs.replace(find_model("minimax-m2.5"), experts=experts, active_experts=active)
    assert model_cost.experts_touched(model, tokens) == pytest.approx(touched, abs=0.1)


def test_experts_touched_is_the_mean_of_uniform_draws() -> None:
    model, draw = find_model("gpt-oss-20b"), np.random.default_rng(7)
    seen = [
        len({e for _ in range(12) for e in draw.choice(model.experts, model.active_experts, replace=False)})
        for _ in range(2000)
    ]
    assert model_cost.experts_touched(model, 12) == pytest.approx(np.mean(seen), abs=0.2)


@pytest.mark.parametrize("name", MODELS)
def test_parameters_are_those_published(name: str) -> None:
    """Norms and biases are left out: well below half a percent."""
    model = find_model(name)
    assert shape.parameters(model) == pytest.approx(model.params.value, rel=0.005)
    assert shape.active_parameters(model) == pytest.approx(model.active_params.value, rel=0.005)
    assert shape.kv_elements_per_token(model) == pytest.approx(model.kv_elements_per_token.value, rel=1e-6)
    assert model_cost.kv_bytes_per_layer(model, "bf16") == 2 * model_cost.kv_bytes_per_layer(model, "fp8")


def test_published_sizes_of_models() -> None:
    """Llama papers and the gpt-oss model card (table of parameters and checkpoint sizes)."""
    assert shape.parameters(find_model("deepseek-v3")) == pytest.approx(671e9, rel=1e-3)
    assert shape.active_parameters(find_model("deepseek-v3")) == pytest.approx(37e9, rel=0.02)
    assert shape.parameters(find_model("kimi-k2")) == pytest.approx(1.03e12, rel=0.01)
    assert shape.parameters(find_model("qwen3-next-80b-a3b")) == pytest.approx(79.7e9, rel=0.01)
    assert shape.parameters(find_model("llama-3.1-8b")) == pytest.approx(8.03e9, rel=1e-3)
    assert shape.parameters(find_model("llama-3.1-70b")) == pytest.approx(70.55e9, rel=1e-3)
    assert shape.parameters(find_model("llama-3.1-405b")) == pytest.approx(405.85e9, rel=1e-3)
    assert shape.parameters(find_model("mixtral-8x7b")) == pytest.approx(46.7e9, rel=1e-3)
    assert model_cost.weight_bytes(find_model("gpt-oss-120b"), "mxfp4") == pytest.approx(60.8 * 2**30, rel=0.01)
    assert model_cost.weight_bytes(find_model("gpt-oss-20b"), "mxfp4") == pytest.approx(12.8 * 2**30, rel=0.01)


def test_mxfp4_is_for_experts_and_vocabulary_is_always_bf16() -> None:
    dense, moe = find_model("llama-3.1-8b"), find_model("gpt-oss-120b")
    assert model_cost.weight_bytes(dense, "mxfp4") == model_cost.weight_bytes(dense, "bf16")
    assert model_cost.weight_bytes(moe, "mxfp4") < 0.3 * model_cost.weight_bytes(moe, "bf16")
    assert model_cost.weight_bytes(dense, "int4") < 0.4 * model_cost.weight_bytes(dense, "bf16")
    assert model_cost.weight_parts(moe, "int4") == model_cost.weight_parts(moe, "mxfp4")
    for weights in ("mxfp4", "nvfp4", "fp8", "int4", "fp32"):
        parts = model_cost.weight_parts(moe, weights)
        assert parts.head == parts.embedding == 2 * 201_088 * 2880
    assert BYTES_PER_WEIGHT["mxfp4"] == BYTES_PER_WEIGHT["int4"] == 4 / 8 + 1 / 32
    assert BYTES_PER_WEIGHT["nvfp4"] == BYTES_PER_KV["nvfp4"] == 4 / 8 + 1 / 16


def test_routers_stay_in_bf16() -> None:
    """36 of 2880 x 128 in gpt-oss, whatever the rest is in."""
    moe, router = find_model("gpt-oss-120b"), 36 * 2880 * 128
    free = msgspec.structs.replace(moe, experts=0, active_experts=0, moe_layers=0, dense_layers=0, mlp_layers=0)
    for weights, each in (("fp8", 1), ("mxfp4", 2), ("fp32", 4)):
        assert model_cost.weight_parts(moe, weights).mlp == 2 * router
        assert model_cost.weight_parts(free, weights).mixers == model_cost.weight_parts(moe, weights).mixers
        assert model_cost.weight_parts(moe, weights).mixers == each * 36 * shape.attention_weights(moe)


def test_kv_of_one_token_and_of_one_long_context() -> None:
    llama, oss = find_model("llama-3.1-70b"), find_model("gpt-oss-120b")
    assert model_cost.kv_bytes_per_token(llama, "bf16") == 327_680
    assert 100_000 * model_cost.kv_bytes_per_token(llama, "bf16") == pytest.approx(33e9, rel=0.01)
    assert 100_000 * model_cost.kv_bytes_per_token(llama, "fp8") == pytest.approx(16e9, rel=0.03)
    assert model_cost.attention_kinds(oss) == (18, 18, 0)
    windows = model_cost.kv_bytes_per_sequence(oss, "bf16")
    assert windows == 18 * 128 * 2 * 8 * 64 * 2
    assert 100_000 * model_cost.kv_bytes_per_token(oss, "bf16") + windows == pytest.approx(3.7e9, rel=0.01)
    assert model_cost.kv_bytes_per_sequence(llama, "bf16") == 0


@pytest.mark.parametrize(("use", "tokens"), [(0.8, 2_441), (0.9, 56_152)])
def test_tokens_left_on_four_wafers_hang_steeply_on_memory_use(use: float, tokens: int) -> None:
    """(4 x 44 GB x use - 140 GB) / 327,680 bytes."""
    d = deploy("cs3", "llama-3.1-70b", stages=4)
    d = with_efficiency(d, "memory_use", use / d.efficiency.figures["memory_use"].value)
    assert capacity_bytes(d) == pytest.approx(4 * 44e9 * use)
    left = (capacity_bytes(d) - 140e9) // model_cost.kv_bytes_per_token(d.model, "bf16")
    assert left == (4 * 44e9 * use - 140e9) // 327_680 == tokens
    more = model_cost.weight_bytes(d.model, "bf16") - 140e9
    assert kv_tokens_left(d) == pytest.approx(tokens - more / 327_680, abs=1)
    assert kv_blocks(d) == max(0, kv_tokens_left(d) // 16)
    assert activation_bytes(d) == 0


def test_tokens_left_on_an_h100_by_hand() -> None:
    """80 GB x 0.9, less 16.06 GB of weights, 0.54 GB of activations and 0.13 GB of logits, over 131,072 bytes."""
    d = deploy("h100-x1", "llama-3.1-8b")
    weights = 2 * (32 * (4096 * 128 * (2 * 32 + 2 * 8) + 3 * 4096 * 14336) + 2 * 4096 * 128_256)
    free = 72e9 - weights - 8 * 4096 * 2 * 8192 - 4 * 128_256 * 256
    assert kv_tokens_left(d) == math.floor(free / 131_072)


@pytest.mark.parametrize(
    ("model", "tp", "copies"),
    [("llama-3.1-70b", 1, 1), ("llama-3.1-70b", 8, 1), ("llama-3.1-70b", 64, 8), ("palm-540b", 4, 4)],
)
def test_kv_heads_are_stored_once_until_ranks_outnumber_them(model: str, tp: int, copies: int) -> None:
    assert kv_replication(deploy("gb200-nvl72", model, tp=tp)) == copies


@pytest.mark.parametrize(
    ("chip", "seconds"),
    [
        ("wse3", 2.1e-6),
        ("groq-lpu-v1", 2.9e-6),
        ("groq3-lpu", 3.3e-6),
        ("corsair", 13e-6),
        ("bow-ipu", 14e-6),
        ("northpole", 17e-6),
    ],
)
def test_sram_is_swept_in_microseconds(chip: str, seconds: float) -> None:
    sram, rate = find_chip(chip).sram_bytes, find_chip(chip).sram_bytes_per_s
    assert sram is not None and rate is not None
    assert sram.value / rate.value == pytest.approx(seconds, rel=0.03)


def test_hbm_is_swept_in_milliseconds() -> None:
    memory, rate = find_chip("h100-sxm").mem_bytes, find_chip("h100-sxm").mem_bytes_per_s
    assert memory is not None and rate is not None
    assert memory.value / rate.value == pytest.approx(23.9e-3, rel=0.002)


PUBLISHED = [
    ("cs3", "llama-3.1-8b", {"stages": 1}, 1837, 0.10),
    ("groq-v1-rack", "llama-2-70b", {"stages": 9, "weights": "int8"}, 300, 0.15),
    ("groq-v1-rack", "llama-3.1-8b", {"stages": 1, "weights": "int8"}, 751, 0.15),
    ("groq-v1-rack", "llama-3.1-70b", {"stages": 9, "weights": "int8"}, 250, 0.25),
    ("cs3", "gpt-oss-120b", {"stages": 2}, 1844, 0.10),
    ("cs3", "llama-3.1-70b", {"stages": 4}, 450, 0.35),
    ("groq-v1-rack", "gpt-oss-20b", {"stages": 2}, 1000, 0.40),
    ("groq-v1-rack", "gpt-oss-120b", {"stages": 10}, 476, 0.40),
]
"""Tokens a second of single users, and how near the prediction has to come."""


@pytest.mark.parametrize(("system", "model", "layout", "speed", "near"), PUBLISHED)
def test_published_speeds_of_single_users(
    system: str, model: str, layout: dict[str, Any], speed: float, near: float
) -> None:
    table = compile_table(deploy(system, model, **layout))
    predicted = 1 / (table.decode_s[1] + table.per_seq_s + 1000 * table.kv_s)
    assert predicted == pytest.approx(speed, rel=near)
    assert table.low * predicted <= speed <= table.high * predicted


def test_the_speed_of_a_wafer_is_about_1800_and_flat_up_to_its_layers() -> None:
    table = compile_table(deploy("cs3", "llama-3.1-8b"))
    assert 1 / table.latency_s == pytest.approx(1800, rel=0.10)
    assert np.ptp(table.decode_s[1:33]) == 0
    assert table.decode_s[64] > table.decode_s[32]
    assert 32 / table.decode_s[32] == pytest.approx(32 / table.latency_s)


def test_groq_runs_dense_models_at_24000_over_layers() -> None:
    for model in ("llama-2-7b", "llama-2-13b", "llama-2-70b"):
        d = deploy("groq-v1-rack", model, stages=9, weights="int8")
        assert 1 / compile_table(d).latency_s == pytest.approx(24_000 / d.model.layers, rel=0.15)


def test_reading_is_a_small_part_of_a_layer_in_sram() -> None:
    """Weights of one layer over the bandwidth it owns: the rest is synchronisation and arithmetic."""
    for system, layout in (("cs3", {"stages": 4}), ("groq-v1-rack", {"stages": 9, "weights": "int8"})):
        d = deploy(system, "llama-2-70b", **layout)
        fast = with_efficiency(d, "layer_s", 1.0)
        rate = fast.chip.sram_bytes_per_s
        assert rate is not None
        chip = msgspec.structs.replace(fast.chip, sram_bytes_per_s=scaled(rate, 1e9))
        unread = msgspec.structs.replace(fast, chip=chip)
        one = np.ones(1)
        share = 1 - dataflow.stage_s(unread, one)[0] / dataflow.stage_s(d, one)[0]
        assert 0 < share < 0.15


def test_all_reduce_by_hand() -> None:
    """A start, and the volume of a ring at the share of a link of 450 GB/s that is reached."""
    d = deploy("h100-x8", "llama-3.1-8b", tp=8)
    start, share = (d.efficiency.figures[n].value for n in ("allreduce_start_s", "allreduce_bytes"))
    moved = np.array([0.0, 1e6, 64e6])
    assert comm.all_reduce_s(d, 8, moved) == pytest.approx(start + 1.75 * moved / (share * 450e9))
    assert comm.all_reduce_s(d, 2, moved) == pytest.approx(start + moved / (share * 450e9))
    assert not comm.all_reduce_s(d, 1, moved).any()


def test_collectives_over_two_systems_by_hand() -> None:
    """16 H100 in two boxes: 8 reduce inside, then each exchanges its eighth over its port of 50 GB/s, of which 0.8."""
    d, moved = deploy("h100-x8", "gpt-oss-120b", dp=16, ep=16), np.array([0.0, 1e6])
    f = {name: figure.value for name, figure in d.efficiency.figures.items()}
    assert d.chip.scaleout_bytes_per_s is not None and d.chip.scaleout_bytes_per_s.value == 50e9
    inside = f["allreduce_start_s"] + 1.75 * moved / (f["allreduce_bytes"] * 450e9)
    across = 10e-6 + moved / 8 / (0.8 * 50e9)
    assert comm.all_reduce_s(d, 16, moved) == pytest.approx(inside + across)
    inside = f["alltoall_start_s"] + moved * 7 / 16 / (f["alltoall_bytes"] * 450e9)
    across = 10e-6 + moved * 8 / 16 / (0.8 * 50e9)
    assert comm.all_to_all_s(d, 16, moved) == pytest.approx(inside + across)
    assert comm.hop_s(d, moved) == pytest.approx(10e-6 + moved / (0.8 * 50e9))
    apart = deploy("h100-x1", "gpt-oss-120b", dp=2, ep=2)
    assert comm.all_reduce_s(apart, 2, moved) == pytest.approx(10e-6 + moved / (0.8 * 50e9)), "one chip a system"


def test_published_figures_of_deepseek_v3() -> None:
    """70,272 bytes of KV a token in bf16; 256 experts of 44 M; MLA's arithmetic for a decoding token."""
    v3 = find_model("deepseek-v3")
    assert model_cost.kv_bytes_per_token(v3, "bf16") == 61 * (512 + 64) * 2 == 70_272
    assert model_cost.flop_per_read(v3) == 2 * 128 * (2 * 512 + 64) == 278_528
    assert model_cost.flop_per_pair(v3) == 2 * 128 * (128 + 64 + 128)
    assert shape.expert_weights(v3) == 3 * 7168 * 2048
    assert shape.attention_weights(v3) == pytest.approx(187.1e6, rel=1e-3)
    assert model_cost.weight_bytes(v3, "fp8") == pytest.approx(671.0e9 + 2 * 129_280 * 7168, rel=1e-3)
    sparse = find_model("deepseek-v3.2")
    assert model_cost.kv_bytes_per_token(sparse, "bf16") == 70_272 + 61 * 128
    assert model_cost.context_bytes_per_token(sparse, "bf16") == 61 * 128
    assert model_cost.reach_bytes_per_sequence(sparse, "bf16") == 2048 * 70_272


def test_a_rank_sends_a_token_once_to_each_rank_that_it_needs() -> None:
    """Of 8 experts on 32 ranks some share a rank: 7.2 copies, in 8 bits there and 16 back."""
    d = deploy("h200-x8", "deepseek-v3", dp=32, ep=32)
    f = {name: figure.value for name, figure in d.efficiency.figures.items()}
    copies = 32 * (1 - (31 / 32) ** 8)
    assert copies == pytest.approx(7.18, abs=0.01)
    sent = 4 * copies * 7168 * np.array([1.0, 2.0])
    rates = sent * 7 / 32 / (f["alltoall_bytes"] * 450e9) + sent * 24 / 32 / (0.8 * 50e9)
    starts = 2 * (f["alltoall_start_s"] + f["internode_start_s"])
    moved = roofline.stack_s(d, np.array([4.0 * 32])).collectives[0]
    assert moved == pytest.approx(58 * (starts + rates.sum()), rel=1e-9)


@pytest.mark.parametrize(
    ("system", "model", "options"),
    [
        ("h200-x8", "llama-3.1-70b", {"tp": 8}),
        ("h200-x8", "deepseek-v3", {"dp": 16, "ep": 16, "kv": "fp8", "spec": Speculation("mtp", 1, 1.8)}),
        ("h100-x8", "gpt-oss-120b", {"tp": 2, "pp": 2, "dp": 2, "ep": 4}),
        ("cs3", "llama-3.1-70b", {"stages": 8, "spec": Speculation("eagle", 3, 2.4)}),
        ("groq-v1-rack", "llama-3.1-8b", {"stages": 2, "weights": "int8"}),
    ],
)
@pytest.mark.parametrize("batch", [1, 8])
def test_a_prediction_is_the_table_and_its_parts_add_up(
    system: str, model: str, options: dict[str, Any], batch: int
) -> None:
    d = deploy(system, model, **options)
    said, table = predict(d, batch=batch, input_tokens=1000, output_tokens=200), compile_table(d)
    step = table.decode_s[batch] + batch * (table.per_seq_s + 1100 * table.kv_s)
    assert said.fits and said.reason == "" and said.chips == d.chips
    assert said.tpot_s * table.tokens_per_step == pytest.approx(step, rel=1e-9)
    assert sum(said.parts_s.values()) == pytest.approx(step, rel=1e-9)
    assert min(said.parts_s.values()) > 0
    assert said.bound in {"weights", "kv", "compute", "links", "latency"}
    assert said.tokens_per_s == pytest.approx(batch / said.tpot_s) and said.tokens_per_s_user == 1 / said.tpot_s
    assert said.ttft_s == ttft_s(d, 1000)
    assert said.low["tpot_s"] >= said.tpot_s >= said.high["tpot_s"]
    assert said.low["ttft_s"] >= said.ttft_s >= said.high["ttft_s"]
    cached = predict(d, batch=batch, input_tokens=1000, output_tokens=200, cached_tokens=900)
    assert cached.ttft_s < said.ttft_s and cached.tpot_s == said.tpot_s


def test_what_binds_a_step() -> None:
    """Weights of a 405B read for few; arithmetic for many; KV for long contexts; launches of a small model."""

    def bound(system: str, model: str, batch: int, tokens: int, **options: Any) -> str:
        d = deploy(system, model, max_num_seqs=4096, **options)
        return predict(d, batch=batch, input_tokens=tokens, output_tokens=2).bound

    assert bound("h200-x8", "llama-3.1-405b", 1, 100, tp=8, weights="fp8") == "weights"
    assert bound("h200-x8", "llama-3.1-8b", 2000, 10) == "compute"
    assert bound("h200-x8", "llama-3.1-8b", 60, 10_000) == "kv"
    assert bound("h200-x8", "qwen2.5-0.5b", 1, 100) == "latency"
    assert bound("cs3", "llama-3.1-70b", 1, 1000, stages=4) == "latency"
    far = find_chip("h100-sxm")
    assert far.scaleout_bytes_per_s is not None
    d = deploy("h100-x8", "llama-3.1-70b", tp=64, max_num_seqs=4096)
    slow = with_chip(d, scaleout_bytes_per_s=scaled(far.scaleout_bytes_per_s, 0.01))
    assert predict(slow, batch=512, input_tokens=10, output_tokens=2).bound == "links"


def test_a_prediction_that_does_not_fit_says_so() -> None:
    said = predict(deploy("h100-x1", "llama-3.1-70b"), batch=1, input_tokens=10, output_tokens=10)
    assert not said.fits and "does not fit" in said.reason and math.isnan(said.tpot_s) and said.parts_s == {}
    many = predict(deploy("h100-x1", "llama-3.1-8b"), batch=1000, input_tokens=1000, output_tokens=10)
    assert not many.fits and "exceed" in many.reason and many.kv_tokens_left > 0


def test_gemm_by_hand() -> None:
    """A small one is read, a large one computed: 4096 x 4096 in bf16 on an H100."""
    chip, hopper = find_chip("h100-sxm"), CAT.efficiencies["hopper"]
    peak, name = ops.peak_flop_per_s(chip, "bf16")
    assert name == "bf16_flop_per_s"
    assert peak == pytest.approx(989e12, rel=0.01)
    f = {name: figure.value for name, figure in hopper.figures.items()}
    one, many = ops.gemm_s(chip, hopper, "bf16", np.array([1.0, 8192.0]), 4096, 4096)
    read = 2 * (4096**2 + 8192) / (f["gemm_bytes"] * 3.35e12)
    assert one == pytest.approx(f["gemm_floor_s"] + read, rel=1e-6)
    work = 2 * 8192 * 4096**2 / (f["gemm_flop"] * peak)
    assert work < many - f["gemm_floor_s"] < 1.02 * work


def test_work_that_overlaps_in_part() -> None:
    """All of both at 1, the longer one in the limit, never less than it."""
    a, b = np.array([1.0, 3.0, 2.0]), np.array([1.0, 4.0, 0.0])
    assert ops.joined(a, b, 1.0) == pytest.approx(a + b)
    assert ops.joined(a, b, 2.0) == pytest.approx(np.hypot(a, b))
    assert ops.joined(a, b, 500.0) == pytest.approx(np.maximum(a, b), rel=2e-3)


@pytest.mark.parametrize(
    ("chip", "weights", "name"),
    [
        ("h100-sxm", "bf16", "bf16_flop_per_s"),
        ("h100-sxm", "fp8", "fp8_flop_per_s"),
        ("h100-sxm", "int8", "int8_op_per_s"),
        ("h100-sxm", "mxfp4", "bf16_flop_per_s"),
        ("h100-sxm", "nvfp4", "fp8_flop_per_s"),
        ("h100-sxm", "int4", "bf16_flop_per_s"),
        ("b200-sxm", "mxfp4", "fp8_flop_per_s"),
        ("b200-sxm", "nvfp4", "fp4_flop_per_s"),
        ("a100-80-sxm", "fp8", "bf16_flop_per_s"),
        ("tpu-v3", "int8", "bf16_flop_per_s"),
        ("groq3-lpu", "bf16", "fp8_flop_per_s"),
        ("northpole", "bf16", "int8_op_per_s"),
    ],
)
def test_units_that_multiply(chip: str, weights: str, name: str) -> None:
    assert ops.peak_flop_per_s(find_chip(chip), weights)[1] == name


def test_large_batches_of_the_70b_come_near_the_arithmetic_peak() -> None:
    """A prompt of 8,192 tokens on 8 H200: between 30 % and 80 % of the bf16 peak in all."""
    d = deploy("h200-x8", "llama-3.1-70b", tp=8)
    table = compile_table(d)
    flop = 8192 * model_cost.flop_per_token(d.model)
    peak = 8 * ops.peak_flop_per_s(d.chip, "bf16")[0]
    assert 0.3 < flop / peak / table.mixed_s[8192] < 0.8


def test_decode_steps_are_the_table_and_its_linear_terms() -> None:
    d = deploy("h200-x8", "llama-3.1-70b", tp=8, weights="fp8")
    table, seqs, context = compile_table(d), np.array([1, 8, 64]), np.array([[100.0], [20_000.0]])
    steps = step_time_s(d, decode_seqs=seqs, context_tokens=context)
    assert steps.shape == (2, 3)
    for i, tokens in enumerate((100, 20_000)):
        for j, n in enumerate((1, 8, 64)):
            expected = table.decode_s[n] + n * table.per_seq_s + n * tokens * table.kv_s
            assert steps[i, j] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("system", "layout"), [("h200-x8", {"tp": 8}), ("cs3", {"stages": 8})])
@pytest.mark.parametrize(("prompt", "cached"), [(1, 0), (300, 0), (512, 0), (1300, 0), (1300, 1000), (5000, 4999)])
def test_time_to_first_token_is_that_of_the_chunks(
    system: str, layout: dict[str, int], prompt: int, cached: int
) -> None:
    d = deploy(system, "llama-3.1-70b", max_batched_tokens=512, **layout)
    table = compile_table(d)
    seconds, at = cached * table.load_s, cached
    while at < prompt:
        chunk = min(512, prompt - at)
        pairs = sum(position + 1 for position in range(at, at + chunk))
        seconds += table.mixed_s[chunk] + table.per_seq_s + (at + chunk) * table.kv_s + pairs * table.pair_s
        at += chunk
    assert ttft_s(d, prompt, cached) == pytest.approx(seconds, rel=1e-12)
    assert ttft_s(d, prompt + 1, cached) > ttft_s(d, prompt, cached)

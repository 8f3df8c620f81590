"""What more chips change, by how they are laid out."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from infermix.catalog.query import find_model
from infermix.catalog.records import System
from infermix.perf import roofline
from infermix.perf.deployment import Deployment
from infermix.perf.memory import kv_tokens_left
from infermix.perf.table import compile_table, table_at
from tests.perf.deployments import CAT, ROUNDING, deploy, every_layout, run, systems_by_chip

LARGEST = [systems[-1] for chip, systems in sorted(systems_by_chip().items()) if not CAT.chips[chip].no_speed]
HBM = [system for system in LARGEST if CAT.efficiencies[CAT.chips[system.chip].efficiency].machine == "hbm"]


def laid(d: Deployment, **layout: int) -> Deployment:
    return msgspec.structs.replace(d, **layout)


@pytest.mark.parametrize("system", LARGEST, ids=lambda system: system.id)
def test_more_chips_hold_more_tokens(system: System) -> None:
    """By tensor parallelism, or by stages: of any model."""
    for model in CAT.models.values():
        held = [kv_tokens_left(d) for d in every_layout(system, model) if (d.pp, d.dp, d.ep) == (1, 1, 1)]
        fit = [left for left in held if left > 0]
        assert fit == sorted(fit), f"{model.id} on {system.id}: {held}"


PIPED = [
    ("h100-x8", "llama-3.1-70b", {"tp": 4}, 2),
    ("h100-x8", "llama-3.1-8b", {"tp": 2}, 4),
    ("h200-x8", "llama-3.1-405b", {"tp": 8, "weights": "fp8"}, 2),
    ("h200-x8", "llama-3.1-405b", {"tp": 8, "weights": "fp8"}, 3),
    ("h200-x8", "gpt-oss-120b", {"tp": 2, "dp": 2, "ep": 4}, 2),
    ("b200-x8", "qwen3-235b-a22b", {"tp": 8, "ep": 8}, 2),
    ("mi300x-x8", "qwen3-next-80b-a3b", {"tp": 8}, 4),
]


@pytest.mark.parametrize(("system", "model", "layout", "pp"), PIPED)
def test_stages_in_line_add_room_but_no_speed_for_one(system: str, model: str, layout: dict[str, int], pp: int) -> None:
    """Layers that divide evenly over ``pp`` stages.

    KV tokens: at least ``pp`` times as many, for weights are held once. A token alone: no sooner, for it passes every
    stage. A step of ``pp`` times the sequences: no shorter than one stage's worth without stages.
    """
    d = deploy(system, model, **layout)  # type: ignore[arg-type]  # sizes and dtypes
    piped = laid(d, pp=pp)
    assert d.model.layers % pp == 0
    assert kv_tokens_left(piped) >= pp * kv_tokens_left(d) - pp
    tokens = np.array([1.0, 8.0, 64.0, 512.0])
    one, many = table_at(d, tokens), table_at(piped, pp * tokens)
    alone = table_at(piped, np.ones(1))
    assert alone.latency_s >= one.latency_s
    assert alone.issue_interval_s == alone.latency_s / pp
    assert (many.decode_s >= one.decode_s * (1 - ROUNDING)).all()
    assert (many.mixed_s >= many.decode_s).all()
    assert many.kv_s == pytest.approx(one.kv_s / pp)
    assert many.pair_s == pytest.approx(one.pair_s / pp)


def test_stages_that_do_not_divide_wait_for_the_fullest() -> None:
    """80 layers on 3 stages: 27 of 26.7."""
    d = deploy("h100-x8", "llama-3.1-70b", tp=2)
    even = table_at(laid(d, pp=1), np.ones(1))
    three = table_at(laid(d, pp=3), np.ones(1))
    assert three.kv_s == pytest.approx(even.kv_s / 3 * 81 / 80)


def test_dp_groups_serve_as_if_alone() -> None:
    """Without shared experts: the same step for ``dp`` times the sequences, each term shared out."""
    for model in ("llama-3.1-8b", "qwen3-30b-a3b", "deepseek-v2-lite"):
        one = deploy("h200-x8", model)
        tokens = np.array([1.0, 7.0, 64.0])
        alone, eight = table_at(one, tokens), table_at(laid(one, dp=8), 8 * tokens)
        assert eight.decode_s == pytest.approx(alone.decode_s, rel=1e-12)
        for name in ("per_seq_s", "kv_s", "pair_s"):
            assert getattr(eight, name) == pytest.approx(getattr(alone, name) / 8, rel=1e-12)
        whole = laid(one, dp=8, max_batched_tokens=8 * 8192, max_num_seqs=8 * 256)
        assert kv_tokens_left(whole) == pytest.approx(8 * kv_tokens_left(one), abs=8)


def test_experts_shared_out_are_held_once() -> None:
    """Eight groups of DeepSeek-V2-Lite hold its experts eight times, or once."""
    d = deploy("h200-x8", "deepseek-v2-lite", dp=8)
    model = d.model
    experts = 26 * 64 * 3 * 2048 * model.expert_ffn * 2
    token = (512 + 64) * 2 * 27
    assert kv_tokens_left(laid(d, ep=8)) - kv_tokens_left(d) == pytest.approx(7 * experts / token, abs=1)


@pytest.mark.parametrize(
    ("model", "ep"), [("deepseek-v3", 32), ("gpt-oss-120b", 8), ("mixtral-8x7b", 8), ("mixtral-8x7b", 2)]
)
def test_the_busiest_rank_is_between_the_mean_and_the_most(model: str, ep: int) -> None:
    d = deploy("h200-x8", model, dp=ep, ep=ep)
    tokens = np.unique(np.geomspace(1, 1e5, 60).round())
    copies, touched = roofline.slowest_rank(d, tokens)
    held, k = d.model.experts / ep, d.model.active_experts
    mean = d.model.experts * (1 - (1 - k / d.model.experts) ** tokens) / ep
    assert (touched <= held).all() and (touched >= mean * (1 - ROUNDING)).all()
    assert (copies <= tokens * min(k, held)).all()
    assert (copies >= np.minimum(tokens * k / ep, tokens * min(k, held)) * (1 - ROUNDING)).all()
    assert (np.diff(copies) >= 0).all() and (np.diff(touched) >= -1e-12).all()
    assert copies[-1] == pytest.approx(tokens[-1] * k / ep, rel=0.05), "many tokens even out"


@pytest.mark.parametrize(
    ("model", "ep", "tokens"), [("deepseek-v3", 32, 64), ("deepseek-v3", 8, 512), ("gpt-oss-120b", 8, 128)]
)
def test_the_busiest_rank_is_near_that_of_random_routing(model: str, ep: int, tokens: int) -> None:
    """Uniform draws without replacement: the formula is above their mean maximum, and by less than a third."""
    d, draw = deploy("h200-x8", model, dp=ep, ep=ep), np.random.default_rng(3)
    experts, k, held = d.model.experts, d.model.active_experts, d.model.experts // ep
    most_copies, most_touched = [], []
    for _ in range(60):
        chosen = np.argsort(draw.random((tokens, experts)), axis=1)[:, :k]
        loads = np.bincount(chosen.ravel() // held, minlength=ep)
        touched = np.bincount(np.unique(chosen) // held, minlength=ep)
        most_copies.append(loads.max())
        most_touched.append(touched.max())
    copies, touched_ = roofline.slowest_rank(d, np.array([float(tokens)]))
    assert 0.97 * np.mean(most_copies) <= copies[0] <= 1.33 * np.mean(most_copies)
    assert 0.97 * np.mean(most_touched) <= touched_[0] <= 1.33 * np.mean(most_touched)


def test_one_expert_rank_and_one_group_are_plain_tensor_parallelism_by_hand() -> None:
    """Llama-3.1-8B on 8 H100, 16 tokens: the equations of old, written out."""
    d = deploy("h100-x8", "llama-3.1-8b", tp=8)
    f = {name: figure.value for name, figure in d.efficiency.figures.items()}

    def gemm(tokens: float, rows: float, columns: float) -> float:
        moved = 2 * rows * columns + 2 * tokens * (rows + columns)
        work, read = 2 * tokens * rows * columns / (f["gemm_flop"] * peak), moved / (f["gemm_bytes"] * 3.35e12)
        p = f["gemm_overlap"]
        return (work**p + read**p) ** (1 / p) + f["gemm_floor_s"]

    assert d.chip.bf16_flop_per_s is not None
    peak = d.chip.bf16_flop_per_s.value
    reduce = f["allreduce_start_s"] + 2 * 7 / 8 * 16 * 4096 * 2 / (f["allreduce_bytes"] * 450e9)
    layer = gemm(16, 4096, (4 + 2 * 1) * 128) + gemm(16, 4 * 128, 4096) + f["attention_floor_s"] + reduce
    layer += gemm(16, 4096, 2 * 14336 / 8) + gemm(16, 14336 / 8, 4096) + reduce + f["layer_s"]
    whole = 32 * layer + gemm(1, 4096, 128_256 / 8) + f["host_s"]
    assert compile_table(d).decode_s[16] == pytest.approx(whole, rel=1e-12)


def test_kv_heads_are_copied_beyond_their_number() -> None:
    """16 ranks on 8 KV heads store each twice: no faster per token than 8 ranks."""
    eight, sixteen = (compile_table(deploy("gb200-nvl72", "llama-3.1-70b", tp=tp)) for tp in (8, 16))
    assert sixteen.kv_s == pytest.approx(eight.kv_s, rel=1e-12)
    assert sixteen.pair_s == pytest.approx(eight.pair_s / 2, rel=1e-12)


def test_windows_are_copied_as_often_as_their_own_kv_heads() -> None:
    """gemma-4-31b slides over 16 KV heads and attends to the whole with 4: at 8 ranks only the latter are copied."""
    model = find_model("gemma-4-31b")
    one, eight = (deploy("h200-x8", model.id, tp=tp) for tp in (1, 8))
    freed = laid(one, max_num_seqs=1), laid(eight, max_num_seqs=1)
    window = 50 * 1024 * 2 * 16 * 256 * 2
    logits = 4 * model.vocab
    for d, less, copies in ((one, freed[0], 1), (eight, freed[1], 2)):
        token = 10 * 2 * 4 * 512 * 2 * copies
        assert kv_tokens_left(less) - kv_tokens_left(d) == pytest.approx(255 * (window + logits) / token, abs=1)


def test_a_latent_is_copied_on_every_chip_of_tp_and_shared_out_over_dp() -> None:
    for model, reads in (("kimi-k2", True), ("deepseek-v3", False)):
        tensor, data = (deploy("h200-x8", model, **layout) for layout in ({"tp": 8}, {"dp": 8, "ep": 8}))
        a, b = table_at(tensor, np.ones(1)), table_at(data, np.ones(1))
        chip = 576 * 2 * 61 / (tensor.efficiency.figures["mla_bytes"].value * 4.8e12)
        assert a.kv_s == pytest.approx(chip), "every chip reads it all"
        assert (b.kv_s == pytest.approx(chip / 8)) == reads, "128 heads on one latent are bound by arithmetic"
        assert b.kv_s >= chip / 8 * (1 - ROUNDING)
    assert b.blocks > 2 * a.blocks


@pytest.mark.parametrize("model", ["deepseek-v3.2", "glm-5"])
def test_chosen_tokens_stop_growing(model: str) -> None:
    """Long contexts cost their index: less than the latents they would read otherwise."""
    d = deploy("b200-x8", model, dp=8, ep=8, weights="fp8")
    whole = msgspec.structs.replace(d, model=msgspec.structs.replace(d.model, sparse_topk=None, indexer_heads=0))
    sparse, dense = table_at(d, np.ones(1)), table_at(whole, np.ones(1))
    assert sparse.kv_s < 0.5 * dense.kv_s and sparse.per_seq_s > dense.per_seq_s
    assert sparse.pair_s < 0.5 * dense.pair_s
    assert kv_tokens_left(d) < kv_tokens_left(whole), "the index is kept beside the latents"


def test_linear_mixers_cost_no_context() -> None:
    mamba = run(deploy("h100-x1", "falcon-mamba-7b"))
    assert mamba is not None
    assert mamba.t.kv_s == mamba.t.pair_s == 0 < mamba.t.per_seq_s
    assert kv_tokens_left(mamba.d) == mamba.d.max_num_seqs * mamba.d.model.max_context
    hybrid = deploy("h100-x8", "qwen3-next-80b-a3b", tp=2)
    full = find_model("qwen3-next-80b-a3b")
    assert 12 * 2 * full.kv_heads * full.head_dim * 2 == pytest.approx(24_576)
    table = table_at(hybrid, np.ones(1))
    assert table.kv_s == pytest.approx(24_576 / (2 * 3.35e12 * hybrid.efficiency.figures["attention_bytes"].value))


def test_no_model_mixes_windows_with_chosen_tokens() -> None:
    """Step time takes all attention blocks of a model with sparse attention as sparse."""
    assert not [m.id for m in CAT.models.values() if m.sparse_topk and m.sliding_layers]

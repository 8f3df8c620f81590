"""What a deployment is made of, and which ones are refused with which words."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from infermix.errors import InputError, NoAnswer
from infermix.perf import model_cost
from infermix.perf.deployment import Deployment, best_weights, check_deployment, narrowest_bits
from infermix.perf.memory import kv_blocks, kv_tokens_left
from infermix.perf.specdec import Speculation, read_speculation
from infermix.perf.table import compile_table, missing_figures
from tests.perf.deployments import CAT, deploy, is_pipeline, scaled, with_chip


@pytest.mark.parametrize(
    ("system", "layout", "chips", "systems", "instances"),
    [
        ("h100-x8", {"tp": 1}, 1, 1, 8),
        ("h100-x8", {"tp": 2}, 2, 1, 4),
        ("h100-x8", {"tp": 1, "dp": 3}, 3, 1, 2),
        ("h100-x8", {"tp": 4, "dp": 2}, 8, 1, 1),
        ("h100-x1", {"tp": 1}, 1, 1, 1),
        ("h100-x8", {"tp": 16}, 16, 2, 1),
        ("h100-x8", {"tp": 8, "pp": 3}, 24, 3, 1),
        ("h100-x8", {"tp": 2, "pp": 2}, 4, 1, 2),
        ("h100-x8", {"tp": 2, "pp": 2, "dp": 4}, 16, 2, 1),
        ("gb200-nvl72", {"tp": 8}, 8, 1, 9),
        ("gb200-nvl72", {"tp": 16}, 16, 1, 4),
        ("cs3", {"stages": 1}, 1, 1, 1),
        ("cs3", {"stages": 4}, 4, 4, 1),
        ("groq-v1-rack", {"stages": 9}, 576, 9, 1),
        ("groq3-lpx-rack", {"stages": 2}, 512, 2, 1),
        ("northpole-x16", {"stages": 3}, 48, 3, 1),
    ],
)
def test_chips_and_systems(system: str, layout: dict[str, int], chips: int, systems: int, instances: int) -> None:
    d = deploy(system, "llama-3.1-70b", **layout)
    assert (d.chips, d.systems_per_instance, d.instances_per_system) == (chips, systems, instances)


def test_spare_chips_serve_nothing() -> None:
    rack = CAT.systems["groq-v1-rack"]
    assert (rack.chips, rack.spare_chips) == (64, 8)
    assert deploy("groq-v1-rack", "llama-2-7b", stages=1).chips == 64


def test_names_tell_deployments_apart() -> None:
    mixtral = deploy("h200-x8", "mixtral-8x7b", tp=4, dp=2, weights="fp8", kv="fp8", max_num_seqs=64)
    assert deploy("h200-x8", "gpt-oss-120b", tp=8, kv="fp8", max_num_seqs=64).name == "h200-x8 tp8 mxfp4/fp8 64 seqs"
    assert mixtral.name == "h200-x8 tp4 dp2 fp8/fp8 64 seqs"
    assert deploy("cs3", "llama-3.1-70b", stages=4).name == "cs3 x4 bf16/bf16 256 seqs"


STREAMING = ("tp, pp, dp and ep are for machines that stream weights from memory",)
FILLED = ("tp x pp x dp does not fill whole systems",)

BAD: dict[str, tuple[str, str, dict[str, Any], list[str]]] = {
    "no weights": ("h100-x8", "llama-3.1-8b", {"weights": ""}, ["unknown weight dtype", "got ''", "bf16", "mxfp4"]),
    "weights": ("h100-x8", "llama-3.1-8b", {"weights": "fp7"}, ["unknown weight dtype", "got 'fp7'", "nvfp4"]),
    "kv": (
        "h100-x8",
        "llama-3.1-8b",
        {"kv": "fp4"},
        ["unknown KV dtype", "got 'fp4'", "allowed: bf16, fp16, fp8, int8, nvfp4, int4"],
    ),
    "no stages": ("cs3", "llama-3.1-8b", {"stages": 0}, ["stages missing", "got 0", "1 or more"]),
    "stages below": ("cs3", "llama-3.1-8b", {"stages": -1}, ["stages missing", "got -1"]),
    "tp on SRAM": ("cs3", "llama-3.1-8b", {"tp": 2}, [*STREAMING, "(2, 1, 1, 1)", "stages"]),
    "dp on SRAM": ("cs3", "llama-3.1-8b", {"stages": 4, "dp": 2}, [*STREAMING, "(1, 1, 2, 1)"]),
    "pp on SRAM": ("cs3", "llama-3.1-8b", {"stages": 4, "pp": 2}, [*STREAMING, "(1, 2, 1, 1)"]),
    "ep on SRAM": ("cs3", "gpt-oss-120b", {"stages": 4, "ep": 2}, [*STREAMING, "(1, 1, 1, 2)"]),
    "stages on HBM": ("h100-x8", "llama-3.1-8b", {"stages": 1}, ["stages is for SRAM machines", "(1, 1, 1, 1, 1)"]),
    "tp 0": ("h100-x8", "llama-3.1-8b", {"tp": 0}, ["must be 1 or more", "(0, 1, 1, 1, 0)"]),
    "dp 0": ("h100-x8", "llama-3.1-8b", {"dp": 0}, ["must be 1 or more", "(1, 1, 0, 1, 0)"]),
    "ep below": ("h100-x8", "gpt-oss-20b", {"ep": -8}, ["must be 1 or more", "(1, 1, 1, -8, 0)"]),
    "tp 3": ("h100-x8", "llama-3.1-8b", {"tp": 3}, ["divide the attention heads", "got 3", "divisors of 32"]),
    "pp 33": ("h100-x8", "llama-3.1-8b", {"tp": 8, "pp": 33}, ["pp exceeds the layers", "got 33", "up to 32"]),
    "partly filled": (
        "h100-x8",
        "llama-3.1-8b",
        {"tp": 4, "dp": 3},
        [*FILLED, "got 12", "up to 8, or whole multiples"],
    ),
    "tp x dp": ("h100-x4", "llama-3.1-8b", {"tp": 2, "dp": 3}, [*FILLED, "got 6", "up to 4, or whole multiples"]),
    "tp x pp x dp": ("h100-x8", "llama-3.1-8b", {"tp": 2, "pp": 3, "dp": 2}, [*FILLED, "got 12"]),
    "ep of a dense model": ("h100-x8", "llama-3.1-8b", {"tp": 8, "ep": 8}, ["ep is for models with experts", "got 8"]),
    "ep over pp": ("h100-x8", "gpt-oss-20b", {"tp": 4, "pp": 2, "ep": 8}, ["ep does not divide", "tp x dp = 4"]),
    "ep 3": ("h100-x8", "gpt-oss-20b", {"tp": 8, "ep": 3}, ["ep does not divide", "got 3", "divisors of tp x dp = 8"]),
    "more ranks than experts": (
        "h100-x8",
        "mixtral-8x7b",
        {"dp": 16, "ep": 16},
        ["ep does not divide", "got 16", "up to 8 experts"],
    ),
    "no seqs": ("h100-x8", "llama-3.1-8b", {"max_num_seqs": 0}, ["max_num_seqs out of range", "got 0", "1 to 8192"]),
    "seqs": (
        "h100-x8",
        "llama-3.1-8b",
        {"max_num_seqs": 300, "max_batched_tokens": 256},
        ["max_num_seqs out of range", "got 300", "1 to 256"],
    ),
    "mtp": (
        "h100-x8",
        "llama-3.1-8b",
        {"spec": Speculation("mtp", 1, 1.8)},
        ["no layers for multi-token prediction", "allowed: eagle or ngram"],
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_deployments_are_refused_in_one_line(name: str) -> None:
    system, model, options, words = BAD[name]
    d = deploy(system, model, **options)
    with pytest.raises(InputError) as caught:
        check_deployment(d)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{model} on {system}: ")
    for word in words:
        assert word in line
    with pytest.raises(InputError, match="on"):
        compile_table(d)


@pytest.mark.parametrize(
    "text",
    [
        "mtp",
        "mtp:x",
        "medusa:2:1.5",
        "mtp:0",
        "mtp:17:2",
        "eagle:2:0.5",
        "eagle:2:3.5",
        "ngram:2",
        "eagle:5",
        "mtp:1:1.5:2",
    ],
)
def test_bad_speculation_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match=r"^here: ") as caught:
        read_speculation(text, "here")
    line = str(caught.value)
    assert "\n" not in line and ("allowed: " in line or f"write {text}:ACCEPTED" in line)


def test_speculation_says_what_it_was_read_from() -> None:
    for text in ("mtp:2:2.3", "eagle:3:2.4", "ngram:4:1.25"):
        spec = read_speculation(text)
        assert str(spec) == text and spec.width == spec.depth + 1
        assert spec.draft_layers == (0 if text.startswith("ngram") else spec.depth)
    assert read_speculation("mtp:1").accepted_per_step == 1.8


@pytest.mark.parametrize("system", sorted(CAT.systems))
def test_every_system_runs_a_small_model_or_says_why_not_in_one_line(system: str) -> None:
    chip = CAT.chips[CAT.systems[system].chip]
    layout = {"stages": 64} if is_pipeline(CAT.systems[system]) else {}
    d = deploy(system, (*chip.only_models, "qwen2.5-0.5b")[0], **layout, max_num_seqs=8, max_batched_tokens=256)
    if missing_figures(d) or chip.no_speed:
        with pytest.raises(NoAnswer, match=f"^{chip.id}: ") as caught:
            compile_table(d)
        assert "\n" not in str(caught.value)
    else:
        assert compile_table(d).blocks > 0


def test_a_chip_with_a_model_in_its_wiring_runs_no_other() -> None:
    """And takes neither time nor room for weights; what its catalogue entry lacks is lent here by a wafer."""
    wired = next(system for system in CAT.systems.values() if CAT.chips[system.chip].only_models)
    names = ("bf16_flop_per_s", "sram_bytes", "sram_bytes_per_s", "no_speed")
    lent = {name: getattr(CAT.chips["wse3"], name) for name in names}
    with pytest.raises(NoAnswer, match=r"is wired for .* and runs no other model"):
        compile_table(with_chip(deploy(wired.id, "gpt-oss-120b"), **lent))
    d = with_chip(deploy(wired.id, CAT.chips[wired.chip].only_models[0], weights="int4"), **lent)
    fast = with_chip(d, bf16_flop_per_s=scaled(lent["bf16_flop_per_s"], 100))
    assert 1 / compile_table(fast).latency_s == pytest.approx(17_000, rel=0.05)
    use = d.efficiency.figures["memory_use"].value
    assert kv_tokens_left(d) == int(lent["sram_bytes"].value * use // 131_072)


def test_good_deployments_pass_through() -> None:
    for d in (
        deploy("h100-x8", "llama-3.1-8b", tp=4, dp=2),
        deploy("h100-x8", "gpt-oss-120b", tp=2, pp=2, dp=4, ep=8, spec=read_speculation("eagle:2")),
        deploy("cs3", "llama-3.1-70b", stages=4),
    ):
        assert check_deployment(d) is d


@pytest.mark.parametrize(
    ("system", "model", "layout"),
    [
        ("h100-x1", "llama-3.1-70b", {"weights": "bf16"}),
        ("h100-x8", "llama-3.1-405b", {"tp": 8, "weights": "bf16"}),
        ("cs3", "llama-3.1-70b", {"stages": 3, "weights": "bf16"}),
        ("groq-v1-rack", "llama-2-70b", {"stages": 1}),
    ],
)
def test_a_model_that_does_not_fit_has_no_answer(system: str, model: str, layout: dict[str, Any]) -> None:
    d = deploy(system, model, **layout)
    with pytest.raises(NoAnswer, match="does not fit") as caught:
        compile_table(d)
    assert model in str(caught.value) and d.name in str(caught.value)
    assert f"{kv_tokens_left(d):,} KV tokens left" in str(caught.value)
    assert kv_tokens_left(d) < 0 and kv_blocks(d) == 0


@pytest.mark.parametrize(("left", "blocks"), [(0.5, 0), (15.5, 0), (16.5, 1), (31.5, 1), (32.5, 2)])
def test_a_model_fits_when_one_block_of_kv_is_left(left: float, blocks: int) -> None:
    d = deploy("cs3", "llama-3.1-8b")
    use = d.efficiency.figures["memory_use"].value
    needed = model_cost.weight_bytes(d.model, d.weights) + left * model_cost.kv_bytes_per_token(d.model, d.kv)
    assert d.chip.sram_bytes is not None
    d = with_chip(d, sram_bytes=msgspec.structs.replace(d.chip.sram_bytes, value=needed / use))
    assert (kv_tokens_left(d), kv_blocks(d)) == (int(left), blocks)
    if blocks:
        assert compile_table(d).blocks == blocks
    else:
        with pytest.raises(NoAnswer, match=f"does not fit on cs3 x1 .*: {int(left)} KV tokens left"):
            compile_table(d)


@pytest.mark.parametrize(
    ("system", "layout", "field", "said"),
    [
        ("h100-x8", {"tp": 2}, "mem_bytes", "mem_bytes"),
        ("h100-x8", {"tp": 2}, "mem_bytes_per_s", "mem_bytes_per_s"),
        ("h100-x8", {"tp": 2}, "link_bytes_per_s", "link_bytes_per_s"),
        ("h100-x8", {"pp": 2}, "link_bytes_per_s", "link_bytes_per_s"),
        ("h100-x8", {"tp": 16}, "scaleout_bytes_per_s", "scaleout_bytes_per_s"),
        ("h100-x1", {"pp": 2}, "scaleout_bytes_per_s", "scaleout_bytes_per_s"),
        ("cs3", {}, "sram_bytes", "sram_bytes"),
        ("cs3", {}, "sram_bytes_per_s", "sram_bytes_per_s"),
    ],
)
def test_a_chip_without_a_figure_has_no_answer(system: str, layout: dict[str, int], field: str, said: str) -> None:
    d = with_chip(deploy(system, "llama-3.1-8b", **layout), **{field: None})
    assert missing_figures(d) == [said]
    with pytest.raises(NoAnswer, match=f"{d.chip.id}: no step time, the catalogue lacks {said}$"):
        compile_table(d)


def test_a_chip_without_any_peak_has_no_answer_and_one_rank_needs_no_link() -> None:
    d = deploy("h100-x1", "llama-3.1-8b")
    bare = with_chip(d, bf16_flop_per_s=None, fp8_flop_per_s=None, int8_op_per_s=None)
    with pytest.raises(NoAnswer, match="lacks a peak arithmetic rate"):
        compile_table(bare)
    linkless = compile_table(with_chip(d, link_bytes_per_s=None))
    assert linkless.hash == compile_table(d).hash


def best(model: str, system: str) -> str:
    """``best_weights`` by names."""
    chip = CAT.chips[CAT.systems[system].chip]
    return best_weights(CAT.models[model], chip, CAT.efficiencies[chip.efficiency])


@pytest.mark.parametrize(
    ("system", "weights"),
    [
        ("h200-x8", "mxfp4"),
        ("b200-x8", "mxfp4"),
        ("a100-80-x8", "mxfp4"),
        ("mi300x-x8", "mxfp4"),
        ("tpu-v6e-x8", "fp8"),
        ("tpu-v5e-x8", "int8"),
        ("tpu-v3-x8", "bf16"),
        ("cs3", "mxfp4"),
        ("groq-v1-rack", "int8"),
        ("groq3-lpx-rack", "fp8"),
    ],
)
def test_best_weights_of_gpt_oss(system: str, weights: str) -> None:
    assert best("gpt-oss-120b", system) == weights


def test_best_weights_of_wide_models_are_their_own() -> None:
    for system in ("h200-x8", "b200-x8", "tpu-v3-x8", "groq-v1-rack"):
        assert best("llama-3.1-70b", system) == "bf16"
        assert best("llama-2-70b", system) == "fp16"


def test_an_unknown_native_dtype_is_read_as_bf16() -> None:
    chip = CAT.chips["h100-sxm"]
    model = msgspec.structs.replace(CAT.models["llama-3.1-8b"], native_weights="float12")
    assert best_weights(model, chip, CAT.efficiencies[chip.efficiency]) == "bf16"


def test_narrowest_bits_follow_the_datasheet_unless_stated() -> None:
    neuron = CAT.efficiencies["neuron"]
    other = msgspec.structs.replace(
        neuron, figures={name: f for name, f in neuron.figures.items() if name != "narrowest_weight_bits"}
    )
    for chip, bits in (("b200-sxm", 4), ("h100-sxm", 8), ("a100-80-sxm", 8), ("tpu-v3", 16)):
        assert narrowest_bits(CAT.chips[chip], other) == bits
    assert narrowest_bits(CAT.chips["a100-80-sxm"], CAT.efficiencies["ampere"]) == 4


def test_deployments_are_values() -> None:
    first, second = (deploy("h100-x8", "llama-3.1-8b", tp=2) for _ in range(2))
    assert first == second and isinstance(first, Deployment)
    with pytest.raises(AttributeError):
        first.tp = 4  # type: ignore[misc]

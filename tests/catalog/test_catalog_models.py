"""Model shapes: totals that others published, hybrids counted from their dimensions, names that measurements use."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from infermix.catalog import shape
from infermix.catalog.load import catalog, figures_of
from infermix.catalog.query import find_chip, find_model
from infermix.catalog.records import Model
from infermix.errors import InputError
from infermix.perf.deployment import BYTES_PER_WEIGHT

SHARED = Path(os.environ.get("INFERMIX_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MODELS = catalog().models
OPEN = [id_ for id_, model in MODELS.items() if not model.closed]
CLOSED = [id_ for id_, model in MODELS.items() if model.closed]

UNRESOLVED_MODELS = {
    "GPT-3-175B 1 layer": "one layer of GPT-3: as an alias it would be predicted as all 96",
}
"""Spellings of the measurement file that name no record, and why."""

UNRESOLVED_CHIPS: dict[str, str] = {}

KNOWN = {  # billions of parameters as publishers state them, vision towers and MTP layers aside
    "llama-3-8b": 8.03,
    "llama-3.1-405b": 405.9,
    "gpt-neox-20b": 20.55,
    "gemma-2-27b": 27.23,
    "gemma-3-27b": 27.0,
    "gemma-4-31b": 30.7,
    "qwen3-235b-a22b": 235.1,
    "qwen3-next-80b-a3b": 80.0,
    "qwen3.5-397b-a17b": 397.0,
    "gpt-oss-120b": 116.83,
    "deepseek-v2": 235.7,
    "deepseek-v3": 671.0,
    "deepseek-v4-flash": 284.0,
    "glm-5": 744.0,
    "kimi-linear-48b-a3b": 49.1,
    "minimax-text-01": 456.0,
    "falcon-mamba-7b": 7.27,
    "jamba-v0.1": 51.6,
    "nemotron-3-nano-30b-a3b": 31.6,
    "nemotron-3-super-120b-a12b": 120.6,
    "longcat-flash": 560.0,
    "step-3.7-flash": 196.8,
}

LOOSE = {
    "falcon-7b": "published with head and embedding counted apart",
    "ernie-4.5-21b-a3b": "claim rounded in the name",
}
"""Shapes between 3 and 5 % off their claim; their notes say what the difference is."""

PLAIN = (
    "year layers hidden heads kv_heads head_dim ffn vocab tied_embeddings gated_mlp experts active_experts expert_ffn"
    " shared_experts shared_expert_ffn moe_layers dense_layers mla_q_lora mla_kv_lora mla_qk_nope mla_qk_rope"
    " mla_v_head max_context"
)

MENDED = {
    ("deepseek-v3.2", "params"): "its indexer counts",
    ("deepseek-v3.2", "active_params"): "its indexer counts",
    ("deepseek-v3.2", "native_weights"): "its configuration says fp8",
    ("glm-5", "params"): "its indexer counts",
    ("glm-5", "active_params"): "its indexer counts",
    ("glm-5.2", "params"): "its indexer counts",
    ("glm-5.2", "active_params"): "its indexer counts",
    ("glm-5.2", "native_weights"): "fp8 is an edition beside the bf16 one",
    ("kimi-k2.5", "native_weights"): "its configuration keeps the experts in four bits",
    ("minimax-m2.5", "native_weights"): "its configuration says fp8",
    ("llama-4-scout-17b-16e", "sliding_window"): "its chunks are taken as windows",
    ("llama-4-maverick-17b-128e", "sliding_window"): "its chunks are taken as windows",
    **{(id_, "year"): "it had none" for id_ in ("deepseek-v3.2", "glm-5", "kimi-k2.5", "minimax-m2.5")},
    **{
        (id_, "kind"): "looked up since"
        for id_ in [
            "llama-2-13b",
            "llama-2-70b",
            "mistral-7b-v0.1",
            "qwen2.5-14b",
            "qwen2.5-32b",
            "qwen2.5-72b",
            "glm-4.5",
            "glm-4.5-air",
        ]
    },
}
"""Cells of the background table that the catalogue corrects."""


@pytest.mark.parametrize("id_", list(MODELS))
def test_totals_are_what_the_shape_says(id_: str) -> None:
    model = MODELS[id_]
    assert shape.parameters(model) == pytest.approx(model.params.value, rel=0.002)
    assert shape.active_parameters(model) == pytest.approx(model.active_params.value, rel=0.002)
    assert shape.kv_elements_per_token(model) == pytest.approx(model.kv_elements_per_token.value, rel=0.002)


@pytest.mark.parametrize("id_", OPEN)
def test_totals_are_near_the_claim(id_: str) -> None:
    model = MODELS[id_]
    if model.params_claimed:
        off = abs(shape.parameters(model) / model.params_claimed.value - 1)
        assert off <= (0.05 if id_ in LOOSE else 0.03), off
        assert id_ not in LOOSE or model.note


@pytest.mark.parametrize(("id_", "billions"), KNOWN.items())
def test_known_checkpoints(id_: str, billions: float) -> None:
    assert shape.parameters(MODELS[id_]) == pytest.approx(billions * 1e9, rel=0.01)


@pytest.mark.parametrize("id_", list(MODELS))
def test_a_record_is_coherent(id_: str) -> None:
    model, count = MODELS[id_], shape.blocks(MODELS[id_])
    assert min(count) >= 0
    assert model.native_weights in BYTES_PER_WEIGHT
    assert model.config or model.kind == "unverified" or "config" not in model.confidence
    assert bool(model.linear_layers) == bool(model.linear_weights) == bool(model.linear_state_elements)
    assert model.sliding_layers <= count.attention and bool(model.sliding_layers) == bool(model.sliding_window)
    assert model.active_experts <= model.experts
    assert (count.moe > 0) == (model.experts > 0)
    if shape.is_mla(model):
        assert model.mla_qk_nope and model.mla_qk_rope and model.mla_v_head
    if model.attention_layers is None and model.mlp_layers is None:
        assert count.attention + count.linear == count.dense + count.moe == model.layers
    if model.linear_layers:
        assert "ixer" in model.note and "state" in model.note


@pytest.mark.parametrize("id_", CLOSED)
def test_a_closed_model_is_a_guess_with_a_range(id_: str) -> None:
    model = MODELS[id_]
    assert model.kind == "unverified" and "guess" in model.note
    for item in figures_of(model).values():
        assert item.kind == "unverified" and item.note
    for item in (model.params, model.active_params):
        assert item.low is not None and item.high is not None and item.low < item.value < item.high
    assert shape.active_parameters(model) < shape.parameters(model)


def test_no_spelling_names_two_records() -> None:
    spelled = Counter(spelling for spelling, _ in MODELS.spellings())
    assert not [spelling for spelling, times in spelled.items() if times > 1]


@pytest.mark.parametrize(
    ("name", "id_"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("Mistral-7B", "mistral-7b-v0.2"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-v3"),
        ("unsloth/gpt-oss-20b-BF16", "gpt-oss-20b"),
        ("MoonshotAI/Kimi_K2.6", "kimi-k2.5"),
        ("GPT-5.3-Codex-Spark", "gpt-5.3-codex-spark"),
    ],
)
def test_names_that_people_use(name: str, id_: str) -> None:
    assert find_model(name).id == id_


def _gated_delta(hidden: int, key_heads: int, value_heads: int) -> tuple[int, int]:
    """Weights and state of a gated DeltaNet mixer: heads of 128, convolution over 4 tokens."""
    keys, values = 128 * key_heads, 128 * value_heads
    convolved = keys + keys + values
    into = hidden * (convolved + values) + hidden * 2 * value_heads  # q, k, v and gate; decay and step
    inner = 4 * convolved + 2 * value_heads + 128
    return into + inner + values * hidden, value_heads * 128 * 128 + 3 * convolved


def _mamba2(hidden: int, heads: int, groups: int, state: int) -> tuple[int, int]:
    """Weights and state of a Mamba-2 mixer: heads of 64, convolution with bias over 4 tokens."""
    inner = 64 * heads
    convolved = inner + 2 * groups * state
    into = hidden * (inner + convolved + heads)
    return into + 5 * convolved + 3 * heads + inner + inner * hidden, inner * state + 3 * convolved


def _mamba(hidden: int, state: int) -> tuple[int, int]:
    """Weights and state of a Mamba mixer: twice the width inside, step size through hidden / 16."""
    inner, rank = 2 * hidden, hidden // 16
    into = hidden * 2 * inner + 5 * inner
    scan = inner * (rank + 2 * state) + (rank + 1) * inner + inner * state + inner
    return into + scan + inner * hidden, inner * state + 3 * inner


@pytest.mark.parametrize(
    ("id_", "mixer"),
    [
        ("qwen3-next-80b-a3b", lambda: _gated_delta(2048, 16, 32)),
        ("qwen3.5-397b-a17b", lambda: _gated_delta(4096, 16, 64)),
        ("nemotron-3-nano-30b-a3b", lambda: _mamba2(2688, 64, 8, 128)),
        ("nemotron-3-ultra-550b-a55b", lambda: _mamba2(8192, 256, 8, 128)),
        ("falcon-mamba-7b", lambda: _mamba(4096, 16)),
        ("mamba-130m", lambda: _mamba(768, 16)),
    ],
)
def test_linear_mixers_recompute(id_: str, mixer: Callable[[], tuple[int, int]]) -> None:
    model = MODELS[id_]
    assert (model.linear_weights, model.linear_state_elements) == mixer()


def test_sliding_layers_may_have_other_heads() -> None:
    model = MODELS["gemma-4-31b"]
    full, sliding = 5376 * 512 * (32 + 32 + 4 + 4), 5376 * 256 * (32 + 32 + 16 + 16)
    assert shape.attention_weights(model) == round((10 * full + 50 * sliding) / 60)
    assert shape.kv_elements_per_layer(model) == 2 * 4 * 512
    assert shape.kv_elements_per_layer(model, sliding=True) == 2 * 16 * 256


def test_compressed_attention_is_stated_outright() -> None:
    model = MODELS["deepseek-v4-flash"]
    block = 4096 * 1024 + 1024 * 64 * 512 + 4096 * 512 + 64 * 512 * 1024 + 8 * 1024 * 4096
    indexed = 2 * 4096 * 1024 + 2 * 4096 * 256 + 1024 * 64 * 128 + 4096 * 64
    assert shape.attention_weights(model) == round((43 * block + 21 * indexed + 20 * 2 * 4096 * 512) / 43)
    assert shape.kv_elements_per_token(model) == pytest.approx(21 * 512 / 4 + 20 * 512 / 128)


def test_experts_may_work_at_a_width_of_their_own() -> None:
    model = MODELS["nemotron-3-super-120b-a12b"]
    assert shape.expert_weights(model) == 2 * 1024 * 2688
    assert shape.shared_expert_weights(model) == 2 * 4096 * 5376 + 2 * 4096 * 1024


@cache
def _rows() -> list[dict[str, str]]:
    path = SHARED / "measurements.csv"
    if not path.is_file():
        pytest.skip(f"the shared measurements are not at {path}")
    with path.open(encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if row["quality"] in "ABC"]


def _unknown(find: Callable[[str], object], names: set[str]) -> set[str]:
    missing = set()
    for name in names:
        try:
            find(name)
        except InputError:
            missing.add(name)
    return missing


def test_every_model_of_the_measurements_is_known() -> None:
    assert _unknown(find_model, {row["model"] for row in _rows()}) == set(UNRESOLVED_MODELS)


def test_every_chip_of_the_measurements_is_known() -> None:
    assert _unknown(find_chip, {row["chip"] for row in _rows()}) == set(UNRESOLVED_CHIPS)


def test_rows_resolve_to_a_chip_and_a_model() -> None:
    rows = _rows()
    lost = [row for row in rows if row["model"] in UNRESOLVED_MODELS or row["chip"] in UNRESOLVED_CHIPS]
    assert len(rows) > 10_000
    assert len(lost) <= 0.02 * len(rows)


def _changed(model: Model, row: dict[str, str]) -> set[str]:
    """Fields of a model that differ from its row of the background table."""
    found = {field for field in PLAIN.split() if (getattr(model, field) or 0) != int(row[field] or 0)}
    for field, column in (("params", "params_b_computed"), ("active_params", "active_params_b_computed")):
        if getattr(model, field).value != pytest.approx(float(row[column]) * 1e9, rel=1e-6):
            found.add(field)
    for field, column in (("params_claimed", "params_b_claimed"), ("active_params_claimed", "active_b_claimed")):
        claim, said = getattr(model, field), float(row[column] or 0) * 1e9
        if (claim.value if claim else 0) != pytest.approx(said):
            found.add(field)
    if (model.kind == "unverified") != ("(memory" in row["source"]):
        found.add("kind")
    if (model.sliding_window or 0) != int((row["sliding_window"] or "0").split()[0]):
        found.add("sliding_window")
    if model.native_weights != row["native_weight_dtype"].split()[0]:
        found.add("native_weights")
    return found


def test_the_background_table_is_kept_but_for_what_was_mended() -> None:
    path = SHARED / "models.csv"
    if not path.is_file():
        pytest.skip(f"the shared model table is not at {path}")
    by_name = {model.name: model for model in MODELS.values()}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    changed = {(by_name[row["model"]].id, field) for row in rows for field in _changed(by_name[row["model"]], row)}
    assert changed == set(MENDED)

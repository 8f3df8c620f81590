"""Every chip with every model: each pair has numbers or a reason, and no number is better than physics allows.

A usual run takes every third model, a nightly one all. The bounds are computed here from the catalogue's own records:
parameters, bandwidth, arithmetic, memory.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from infermix.catalog.load import catalog
from infermix.catalog.query import figure
from infermix.catalog.records import Chip, Model
from infermix.explore.chips import WHY_NOT, ChipRow, everything
from infermix.perf.operating import Load
from infermix.perf.specdec import Speculation
from infermix.perf.sweep import Row, Wish, sweep
from tests.nightly import NIGHTLY

CAT = catalog()
MODELS = sorted(CAT.models)[:: 1 if NIGHTLY else 3]
LOAD = Load(1000, 200)
WORDS = {
    *("chip", "model", "system", "best_for", "layout", "weights", "kv", "bound", "confidence", "vendor", "kind"),
    *("price_basis", "price_read", "no_price", "no_price_mend", "reason", "reason_kind"),
}
MONEY = {"usd_per_hour", "usd_per_mtok_output", "usd_per_mtok"}
NUMBERS = {
    name for name in ChipRow.__struct_fields__ if name not in WORDS | MONEY and name != "fastest_tokens_per_s_user"
}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "int8": 1, "nvfp4": 0.5, "mxfp4": 0.5, "int4": 0.5}
"""Bytes of a weight, block scales left out: no more than is stored."""


@pytest.fixture(scope="module")
def told() -> tuple[list[ChipRow], list[str]]:
    return everything(CAT, Wish(load=LOAD), lambda _done, _of: None, models=MODELS)


@pytest.fixture(scope="module")
def rows(told: tuple[list[ChipRow], list[str]]) -> list[ChipRow]:
    return told[0]


def test_every_pair_is_told_once_for_speed_and_once_for_cost(rows: list[ChipRow]) -> None:
    found: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        found.setdefault((row.chip, row.model), []).append(row.best_for)
    assert set(found) == {(chip, model) for chip in CAT.chips for model in MODELS}
    assert {tuple(sorted(kinds)) for kinds in found.values()} == {("",), ("cost", "speed")}
    assert sum(row.best_for == "speed" for row in rows) > 0.6 * len(found)


def test_a_row_has_every_number_or_a_reason(rows: list[ChipRow]) -> None:
    for row in rows:
        values: dict[str, Any] = {name: getattr(row, name) for name in NUMBERS}
        if row.reason:
            assert not any(values.values()), row
            assert row.reason_kind in WHY_NOT
            assert len(row.reason) > 10
            continue
        assert all(v is not None and math.isfinite(v) and v > 0 for v in values.values()), row
        assert row.bound and row.confidence and row.layout and row.system and not row.reason_kind
        assert row.tokens_per_s_user_low < row.tokens_per_s_user <= row.tokens_per_s_user_high  # type: ignore[operator]


def test_a_row_has_a_price_or_says_why_not(rows: list[ChipRow]) -> None:
    priced = 0
    for row in (r for r in rows if not r.reason):
        values = [getattr(row, name) for name in MONEY]
        if row.no_price:
            assert values == [None] * 3 and not row.price_basis
            continue
        priced += 1
        system, cost = CAT.systems[row.system], row.usd_per_mtok_output
        assert system.rent_usd_per_hour is not None and row.price_basis == "rent" and row.price_read
        assert row.chip_s_per_mtok_output is not None and cost is not None and row.usd_per_mtok is not None
        each = system.rent_usd_per_hour.value / system.chips / 3600
        assert cost == pytest.approx(row.chip_s_per_mtok_output * each)
        assert row.usd_per_mtok * (1000 + 200) == pytest.approx(cost * 200)
    assert priced > 0.3 * len(rows)


def test_the_two_points_of_a_pair_are_the_fastest_and_the_cheapest(rows: list[ChipRow]) -> None:
    pairs: dict[tuple[str, str], dict[str, ChipRow]] = {}
    for row in (r for r in rows if not r.reason):
        pairs.setdefault((row.chip, row.model), {})[row.best_for] = row
    for both in pairs.values():
        speed, cost = both["speed"], both["cost"]
        assert speed.tokens_per_s_user >= cost.tokens_per_s_user  # type: ignore[operator]
        assert cost.chip_s_per_mtok_output <= speed.chip_s_per_mtok_output  # type: ignore[operator]


def test_every_figure_named_is_in_the_catalogue(told: tuple[list[ChipRow], list[str]]) -> None:
    rows, ids = told
    assert len(ids) == len(set(ids))
    for id_ in ids:
        assert math.isfinite(figure(CAT, id_).value)
    told_of = {part: {id_.split("/")[1] for id_ in ids if id_.startswith(part)} for part in ("chips", "models")}
    assert told_of["chips"] >= {r.chip for r in rows if not r.reason}
    assert told_of["models"] == {r.model for r in rows if not r.reason}


def within_physics(row: Row, load: Load, kept: float = 1.0, width: int = 1) -> None:
    """No row is faster than weights can be read once a step, than arithmetic allows, or fuller than memory."""
    chip, model = CAT.chips[row.chip], CAT.models[row.model]
    assert row.tpot_s and row.tokens_per_s and row.tokens_per_s_user and row.ttft_s and row.kv_tokens_left
    assert row.tokens_per_s == pytest.approx(
        row.batch / row.tpot_s
    ) and row.tokens_per_s_user * row.tpot_s == pytest.approx(1)
    step, met = row.tpot_s * kept, in_layers(model)
    peak = row.chips * largest_peak(chip)
    assert step >= 2 * met * row.batch * width / peak, "arithmetic"
    assert row.ttft_s >= 2 * met * (load.input_tokens - load.cached_tokens) / peak, "arithmetic of the prompt"
    assert row.batch * (load.input_tokens + load.output_tokens) <= row.kv_tokens_left
    if chip.only_models:
        return
    pipeline = CAT.efficiencies[chip.efficiency].machine == "pipeline"
    memory, rate = (chip.sram_bytes, chip.sram_bytes_per_s) if pipeline else (chip.mem_bytes, chip.mem_bytes_per_s)
    assert memory is not None and rate is not None
    read = met * BYTES[row.weights]
    if plain(model):
        read += row.batch * load.context * model.kv_elements_per_token.value * BYTES[row.kv]
    assert step >= read / (row.chips * rate.value), "bandwidth"
    held = model.params.value * BYTES[row.weights]
    assert held <= row.chips * memory.value, "memory"


def test_the_bounds_bite(rows: list[ChipRow]) -> None:
    """Three times the speed would break them on many rows."""
    broken = 0
    for row in (r for r in rows if not r.reason and r.best_for == "cost"):
        fields = {name: getattr(row, name) for name in Row.__struct_fields__}
        fields |= {"tpot_s": row.tpot_s / 3, "tokens_per_s": 3 * row.tokens_per_s}  # type: ignore[operator]
        try:
            within_physics(Row(**{**fields, "tokens_per_s_user": 3 * row.tokens_per_s_user}), LOAD)  # type: ignore[operator]
        except AssertionError:
            broken += 1
    assert broken > 3 * len(MODELS)


def in_layers(model: Model) -> float:
    """Weights that a token meets, the vocabulary left out."""
    return model.active_params.value * (1 - 1e-3) - model.hidden * model.vocab


def plain(model: Model) -> bool:
    """Every block attends to the whole context, and keeps keys and values of it."""
    return not (model.sliding_layers or model.linear_layers or model.sparse_topk or model.mla_kv_lora) and not (
        model.attention_block_kv_elements or model.attention_layers
    )


def largest_peak(chip: Chip) -> float:
    peaks = (chip.bf16_flop_per_s, chip.fp8_flop_per_s, chip.int8_op_per_s, chip.fp4_flop_per_s)
    return max(p.value for p in peaks if p is not None)


def test_no_speed_exceeds_its_bound(rows: list[ChipRow]) -> None:
    for row in rows:
        if not row.reason:
            within_physics(row, LOAD)


@pytest.mark.parametrize(
    ("load", "spec"),
    [
        (LOAD, Speculation("eagle", 2, 2.3)),
        (Load(20_000, 500, 15_000), None),
        (Load(100, 4000), Speculation("ngram", 4, 5.0)),
    ],
)
def test_no_speed_exceeds_its_bound_with_drafts_and_other_loads(load: Load, spec: Speculation | None) -> None:
    some = [
        CAT.models[id_] for id_ in ("llama-3.1-8b", "llama-3.3-70b", "gpt-oss-120b", "deepseek-v3.2", "qwen3-30b-a3b")
    ]
    kept, width = (spec.accepted_per_step, spec.width) if spec else (1.0, 1)
    found = [r for r in sweep(CAT, CAT.chips.values(), some, Wish(load=load, spec=spec)) if not r.reason]
    assert len({r.chip for r in found}) > 60
    for row in found:
        within_physics(row, load, kept, width)

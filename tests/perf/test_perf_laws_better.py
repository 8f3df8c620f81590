"""Better machines and narrower caches are nowhere worse, over every model on every chip of the catalogue."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.errors import NoAnswer
from infermix.perf.deployment import Deployment
from infermix.perf.memory import kv_tokens_left
from infermix.perf.table import StepTable, compile_table, table_at
from tests.nightly import examples
from tests.perf.deployments import (
    CAT,
    TIMES,
    WHOLE,
    Run,
    deploy,
    not_worse,
    runs_on,
    scaled,
    systems_by_chip,
    with_chip,
    with_efficiency,
)
from tests.perf.shapes import deployments

RUNNING = [chip for chip in sorted(systems_by_chip()) if not CAT.chips[chip].no_speed]

CAPACITY = {"sram_bytes", "mem_bytes"}
SPEED = {
    "bf16_flop_per_s",
    "fp8_flop_per_s",
    "int8_op_per_s",
    "fp4_flop_per_s",
    "sram_bytes_per_s",
    "mem_bytes_per_s",
    "link_bytes_per_s",
    "scaleout_bytes_per_s",
}


def improved(d: Deployment, names: set[str], factor: float = 1.5) -> Deployment:
    """The deployment on a chip with more of these, of which it has any."""
    has = {name: figure for name in sorted(names) if (figure := getattr(d.chip, name)) is not None}
    return with_chip(d, **{name: scaled(figure, factor) for name, figure in has.items()})


def felt_by(run: Run, names: set[str]) -> bool:
    """Whether more of these changes anything; raises where it makes anything worse."""
    better = table_at(improved(run.d, names), run.tokens)
    not_worse(better, run.t, f"{run} with more {', '.join(sorted(names))}")
    return better.hash != run.t.hash


@pytest.mark.parametrize("chip", RUNNING)
def test_a_better_chip_is_nowhere_worse(chip: str) -> None:
    """Faster memory, arithmetic, links and network, or larger memory: one figure at a time, and all at once."""
    felt: set[str] = set()
    for turn, run in enumerate(runs_on(chip)):
        has = sorted(name for name in SPEED if getattr(run.d.chip, name) is not None)
        for name in has if WHOLE else [has[turn % len(has)]]:
            felt |= {name} if felt_by(run, {name}) else set()
        roomy = improved(run.d, CAPACITY)
        assert kv_tokens_left(roomy) > kv_tokens_left(run.d) or not run.t.kv_s, str(run)
        if WHOLE or turn % 8 == 0:
            felt_by(run, SPEED | CAPACITY)
    pipeline = any(run.d.is_pipeline for run in runs_on(chip))
    wired = bool(CAT.chips[chip].only_models)
    assert not runs_on(chip) or wired or ("sram_bytes_per_s" if pipeline else "mem_bytes_per_s") in felt


@pytest.mark.parametrize("chip", RUNNING)
def test_a_narrower_cache_is_neither_slower_nor_smaller(chip: str) -> None:
    for turn, run in enumerate(runs_on(chip)):
        if WHOLE or turn % 5 == 0:
            kv = ("fp8", "nvfp4", "int4")[turn // 5 % 3]
            narrow = table_at(msgspec.structs.replace(run.d, kv=kv), run.tokens)
            not_worse(narrow, run.t, f"{run} with {kv} KV")
            most = {"fp8": 2.0}.get(kv, 2 / 0.5625 if kv == "nvfp4" else 2 / 0.53125)
            windows = run.d.model.sliding_layers > 0 and run.d.model.sliding_window
            if not windows and run.t.blocks > 100:
                assert narrow.blocks <= most * (run.t.blocks + 1), str(run)


FAMILIES: dict[str, tuple[str, str, dict[str, int]]] = {
    "ampere": ("a100-80-x8", "llama-3.1-70b", {"tp": 8}),
    "blackwell": ("b200-x8", "deepseek-v3.2", {"dp": 16, "ep": 16}),
    "cdna": ("mi300x-x8", "mixtral-8x22b", {"tp": 4, "dp": 2, "ep": 8}),
    "hopper": ("h200-x8", "deepseek-v3", {"tp": 8, "pp": 2, "ep": 8}),
    "neuron": ("trn2-x16", "llama-3.1-70b", {"tp": 16}),
    "tpu": ("tpu-v6e-x8", "qwen3-32b", {"tp": 8}),
    "wafer": ("cs3", "gpt-oss-120b", {"stages": 4}),
    "groq": ("groq-v1-rack", "qwen3-30b-a3b", {"stages": 9}),
    "sram-card": ("corsair-x8", "gpt-oss-20b", {"stages": 4}),
    "northpole": ("northpole-x16", "llama-3.1-8b", {"stages": 6}),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_better_efficiencies_are_nowhere_worse(family: str) -> None:
    """Shares and rates up, times of overheads down."""
    system, model, layout = FAMILIES[family]
    d = deploy(system, model, **layout)
    assert d.efficiency.id == family
    base = compile_table(d)
    for name in d.efficiency.figures:
        if name.startswith("speed") or name in ("narrowest_weight_bits", "memory_use", "stages_per_layer"):
            continue
        lower = name.endswith("_factor") or (name.endswith("_s") and not name.endswith("_per_s"))
        better = compile_table(with_efficiency(d, name, 0.9 if lower else 1.1))
        not_worse(better, base, f"{d.name} with better {name}")
    roomy = compile_table(with_efficiency(d, "memory_use", 1.02))
    assert roomy.blocks > base.blocks
    not_worse(roomy, base, d.name)


@settings(deadline=None, max_examples=examples(150))
@given(
    d=deployments(), factor=st.floats(1.0, 10.0), names=st.sets(st.sampled_from(sorted(SPEED | CAPACITY)), min_size=1)
)
def test_any_better_chip_is_nowhere_worse(d: Deployment, factor: float, names: set[str]) -> None:
    d = msgspec.structs.replace(d, max_batched_tokens=max(64, d.max_num_seqs))
    try:
        base = compile_table(d)
    except NoAnswer:
        return
    not_worse(compile_table(improved(d, names, factor)), base, d.name)


@settings(deadline=None, max_examples=examples(60))
@given(factor=st.floats(0.1, 10.0), again=st.floats(0.1, 10.0), name=st.sampled_from(["h100-x8", "cs3"]))
def test_speeds_multiply(factor: float, again: float, name: str) -> None:
    base = compile_table(deploy(name, "llama-3.1-8b"))
    once, both = base.at_speed(factor).at_speed(again), base.at_speed(factor * again)
    for field in TIMES:
        assert np.allclose(getattr(once, field), getattr(both, field), rtol=1e-12, atol=0), field


def without_quantising(d: Deployment) -> Deployment:
    """Narrow products as quick to start, and overlapping as much, as wide ones."""
    if d.is_pipeline:
        return d
    f = d.efficiency.figures
    figures = {**f, "quantise_s": scaled(f["quantise_s"], 0.0), "gemm_overlap_narrow": f["gemm_overlap"]}
    return msgspec.structs.replace(d, efficiency=msgspec.structs.replace(d.efficiency, figures=figures))


@pytest.mark.parametrize(("system", "layout"), [("h200-x8", {"tp": 8}), ("b200-x8", {"tp": 8}), ("cs3", {"stages": 8})])
def test_narrower_weights_are_nowhere_worse(system: str, layout: dict[str, Any]) -> None:
    """In bytes: 8-bit beats 16-bit, but for quantising; and 8-bit KV holds about twice the tokens."""
    deployed = (deploy(system, "llama-3.1-70b", weights=w, **layout) for w in ("bf16", "fp8"))
    wide, narrow = (compile_table(without_quantising(d)) for d in deployed)
    not_worse(narrow, wide, system)
    wide = compile_table(deploy(system, "llama-3.1-70b", weights="bf16", **layout))
    small = compile_table(deploy(system, "llama-3.1-70b", weights="bf16", kv="fp8", **layout))
    not_worse(small, wide, system)
    assert small.blocks == pytest.approx(2 * wide.blocks, abs=2)
    assert small.kv_s == wide.kv_s / 2 or system == "cs3"


def test_equal_tables_have_equal_hashes_and_every_field_counts() -> None:
    base = compile_table(deploy("cs3", "llama-3.1-8b"))
    assert base.at_speed(1.0).hash == base.hash
    for field in fields(StepTable):
        other = replace(base, **{field.name: getattr(base, field.name) + 1})
        assert other.hash != base.hash, field.name

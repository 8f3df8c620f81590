"""Fits find what made-up measurements were made with."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.perf.ops import joined
from infermix.validate.cross import held_out, without
from infermix.validate.fit import fit, outcome_with, samples_of
from infermix.validate.knobs import ALIKE, Knob, holds, stack_knobs
from infermix.validate.operators import Start, fit_experts, fit_gemm, fit_tables, least_absolute
from infermix.validate.rows import Row
from infermix.validate.write import write_chips
from tests.validate.rows_for import row

TRUE = {("efficiency", "hopper", "layer_s"): 4e-5, ("efficiency", "hopper", "gemm_bytes"): 0.6}


def made_up() -> list[Row]:
    rows = [
        row(id=f"{model}-{clients}", model=model, batch_or_concurrency=str(clients), framework="unknown")
        for model in ("Llama-3.1-70B", "Llama-3.1-8B", "Qwen3-32B")
        for clients in (1, 4, 16, 64)
    ]
    return [
        row(**{**{f: getattr(s.rows[0], f) for f in ("id", "model", "batch_or_concurrency", "framework")},
               "value": outcome_with(catalog(), s.case, TRUE).tpot_s * 1e3})
        for s in samples_of(rows)
    ]  # fmt: skip


def knobs() -> list[Knob]:
    return [
        Knob("efficiency", "hopper", "layer_s", 2e-5, 1.0, 1.0),
        Knob("efficiency", "hopper", "gemm_bytes", 0.8, 1.0, 1.0),
    ]


def test_a_fit_finds_the_figures_that_rows_were_made_with() -> None:
    found = fit(catalog(), samples_of(made_up()), knobs(), rounds=12)
    assert np.median(np.abs(found.errors)) < 0.03
    for id_, value in TRUE.items():
        assert found.values[id_] == pytest.approx(value, rel=0.15)


def test_held_out_rows_do_not_pull() -> None:
    """One model made slower by half: left out, the others agree with each other."""
    rows = [msgspec.structs.replace(r, value=r.value * (1.5 if "8B" in r.model else 1.0)) for r in made_up()]
    found = fit(catalog(), samples_of(rows), knobs(), rounds=8)
    out = held_out(found, "model", "llama-3.1-8b")
    errors = found.errors + found.slopes @ (without(found, out) - found.ln)
    assert np.median(np.abs(errors[~out])) < 0.03
    assert np.median(errors[out]) == pytest.approx(-np.log(1.5), abs=0.1)


def test_figures_of_an_engine_are_held_to_each_other() -> None:
    """What moves together is free but for its beliefs; what moves apart costs; other engines do not matter."""
    stacks = catalog().stacks
    kept = [k for name in ("vllm-hopper", "vllm-blackwell", "sglang-hopper") for k in stack_knobs(stacks[name])]
    square, own = holds(kept), np.diag([k.spread**-2.0 for k in kept])
    assert square == pytest.approx(square.T)
    alike = np.array([k.name == "request_s" and k.engine == "vllm" for k in kept], dtype=float)
    assert alike.sum() == 2 and square @ alike == pytest.approx(own @ alike)
    one = np.eye(len(kept))[np.flatnonzero(alike)[0]]
    apart = one @ (square - own) @ one
    assert apart == pytest.approx(0.5 * ALIKE["request_s"] ** -2)
    assert all(square[i] @ one == 0 for i, k in enumerate(kept) if k.engine == "sglang" or k.name != "request_s")


def test_least_absolute_errors_shrug_off_outliers() -> None:
    x = np.linspace(1, 10, 50)
    seconds = 3.0 * x + 2.0
    seconds[::10] *= 5
    found, _ = least_absolute(lambda p: p[0] * x + p[1], (Start("a", 1.0), Start("b", 1.0)), np.log(seconds))
    assert found == pytest.approx({"a": 3.0, "b": 2.0}, rel=0.02)


def test_products_are_found_again() -> None:
    m, n, k = (
        np.array(a, dtype=float).ravel() for a in np.meshgrid([1, 16, 128, 1024, 8192], [1024, 4096], [2048, 8192])
    )
    work, reading = 2 * m * n * k / 989e12, (2 * n * k + 2 * m * (n + k)) / 3.35e12
    seconds = joined(work / 0.7, reading / 0.8, 2.0) + 3e-6
    table = pl.DataFrame(
        {"system": "h100_sxm", "gemm_dtype": "bfloat16", "m": m, "n": n, "k": k, "latency": 1e3 * seconds}
    )
    (found,) = fit_gemm(table)
    assert found.median_abs_log_error < 0.01
    assert found.figures == pytest.approx(
        {"gemm_flop": 0.7, "gemm_bytes": 0.8, "floor_s": 3e-6, "overlap": 2.0}, rel=0.05
    )


def test_experts_are_found_again() -> None:
    tokens = np.array([1.0, 8, 64, 512, 4096, 16384])
    touched = 64 * (1 - (1 - 4 / 64) ** tokens)
    moved = touched * 3 * 2048 * 1024 * 2 + 2 * tokens * 4 * (2 * 2048 + 3 * 1024)
    seconds = 6 * tokens * 4 * 2048 * 1024 / (0.5 * 989e12) + moved / (0.9 * 3.35e12) + 2e-5
    table = pl.DataFrame({
        "system": "h100_sxm", "moe_dtype": "bfloat16", "num_tokens": tokens, "hidden_size": 2048, "inter_size": 1024,
        "topk": 4, "num_experts": 64, "moe_tp_size": 1, "moe_ep_size": 1, "latency": 1e3 * seconds,
    })  # fmt: skip
    (found,) = fit_experts(table)
    assert found.figures == pytest.approx({"moe_flop": 0.5, "moe_bytes": 0.9, "floor_s": 2e-5}, rel=0.05)


def test_a_folder_without_tables(tmp_path: object) -> None:
    with pytest.raises(InputError, match="no operator tables"):
        fit_tables(str(tmp_path))


def test_chips_of_the_rows_are_told_in_the_family_s_file(tmp_path: Path) -> None:
    (tmp_path / "efficiency").mkdir()
    path = tmp_path / "efficiency" / "hopper.toml"
    path.write_text('id = "hopper"\nmachine = "hbm"\n\n[figures]\nspeed = { value = 1 }\n', encoding="utf-8")
    for names in (("a", "b"), ("a",)):
        write_chips(tmp_path, {"hopper": names})
        told = tomllib.loads(path.read_text(encoding="utf-8"))
        assert told["chips"] == list(names) and told["figures"]["speed"] == {"value": 1}
    assert path.read_text(encoding="utf-8").count("chips") == 1

"""Operators by themselves: efficiencies of products, experts, attention and reductions from tables of their times.

Each model is the one that step times use, with few figures: an operator takes ``joined(arithmetic, bytes) + floor``.
Figures are fitted to least absolute ln error. Columns are those of the tables of ``aiconfigurator``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import polars as pl

from infermix.arrays import Floats
from infermix.catalog.query import find_chip
from infermix.catalog.records import Chip, Figure
from infermix.errors import InputError
from infermix.perf.ops import joined

BYTES = {"bfloat16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "nvfp4": 0.5625}
PEAKS = {
    "bfloat16": "bf16_flop_per_s", "fp8": "fp8_flop_per_s", "fp8_block": "fp8_flop_per_s", "nvfp4": "fp4_flop_per_s",
}  # fmt: skip
MOST_ROWS = 5000
"""Of one table, drawn evenly."""
CHIPS = {"rtx_pro_6000_server": "rtx-pro-6000", "gb200": "gb200-nvl72", "a100_sxm": "a100-80-sxm"}


class Fitted(msgspec.Struct, frozen=True, kw_only=True):
    """Figures of one kind of operator on one chip."""

    operator: str
    chip: str
    dtype: str
    rows: int
    figures: dict[str, float]
    median_abs_log_error: float


class Start(NamedTuple):
    """A figure's name, where its fit begins, and the most it may be."""

    name: str
    value: float
    most: float = np.inf


def fit_tables(folder: str | Path) -> list[Fitted]:
    """Fit every table of the folder that is there.

    Raises
    ------
    InputError
        The folder has none of the tables.
    """
    kinds: dict[str, Callable[[pl.DataFrame], list[Fitted]]] = {
        "gemm.gemm": fit_gemm,
        "moe.moe": fit_experts,
        "attention.context_attention": fit_prefill,
        "attention.generation_attention": fit_decode,
        "comm.custom_allreduce": fit_reductions,
    }
    found, where = [], Path(folder)
    files = {name: where / f"{name}.parquet" for name in kinds}
    if not any(file.is_file() for file in files.values()):
        raise InputError("no operator tables", where=str(folder), allowed=", ".join(f"{n}.parquet" for n in kinds))
    for name, file in files.items():
        if file.is_file():
            found.extend(kinds[name](pl.read_parquet(file)))
    return found


def fit_gemm(table: pl.DataFrame) -> list[Fitted]:
    """Products of m tokens with weights of k x n."""
    wide = table.filter((pl.col("n") >= 512) & (pl.col("k") >= 512))
    starts = (Start("gemm_flop", 0.7, 1), Start("gemm_bytes", 0.75, 1), Start("floor_s", 4e-6), Start("overlap", 2.0))

    def model(own: pl.DataFrame, chip: Chip, dtype: str) -> Callable[[Floats], Floats]:
        m, n, k = (_column(own, name) for name in "mnk")
        flop, moved = 2 * m * n * k, n * k * BYTES[dtype] + 2 * m * (n + k)
        work, reading = flop / _value(_peak(chip, dtype)), moved / _value(chip.mem_bytes_per_s)
        return lambda x: joined(work / x[0], reading / x[1], max(1.0, x[3])) + x[2]

    return _by_chip(wide, "gemm_dtype", "gemm", starts, model)


def fit_experts(table: pl.DataFrame) -> list[Fitted]:
    """Both products of routed experts, experts not shared out."""
    whole = table.filter(pl.col("moe_ep_size") == 1)
    starts = (Start("moe_flop", 0.5, 1), Start("moe_bytes", 0.7, 1), Start("floor_s", 2e-5))

    def model(own: pl.DataFrame, chip: Chip, dtype: str) -> Callable[[Floats], Floats]:
        tokens, hidden, k, experts = (
            _column(own, name) for name in ("num_tokens", "hidden_size", "topk", "num_experts")
        )
        inner = _column(own, "inter_size") / _column(own, "moe_tp_size")
        touched = experts * (1 - (1 - k / experts) ** tokens)
        moved = touched * 3 * hidden * inner * BYTES[dtype] + 2 * tokens * k * (2 * hidden + 3 * inner)
        work = 6 * tokens * k * hidden * inner / _value(_peak(chip, dtype))
        reading = moved / _value(chip.mem_bytes_per_s)
        return lambda x: np.asarray(work / x[0] + reading / x[1] + x[2])

    return _by_chip(whole, "moe_dtype", "experts", starts, model)


def fit_prefill(table: pl.DataFrame) -> list[Fitted]:
    """Attention of prompts, heads 128 wide, prompts of 256 tokens or more."""
    full = _full(table).filter(pl.col("isl") >= 256)
    starts = (Start("attention_flop", 0.5, 1), Start("floor_s", 2e-5))

    def model(own: pl.DataFrame, chip: Chip, _: str) -> Callable[[Floats], Floats]:
        batch, length, heads, before = (_column(own, name) for name in ("batch_size", "isl", "num_heads", "step"))
        flop = 4 * 128 * heads * batch * (length * before + length * length / 2)
        around = batch * length * heads * 128 * 8 / _value(chip.mem_bytes_per_s)
        work = flop / _value(chip.bf16_flop_per_s)
        return lambda x: np.asarray(work / x[0] + around + x[1])

    return _by_chip(full, "attn_dtype", "prefill attention", starts, model)


def fit_decode(table: pl.DataFrame) -> list[Fitted]:
    """Attention of decoding sequences, heads 128 wide, contexts of 128 tokens or more."""
    full = _full(table).filter(pl.col("isl") + pl.col("step") >= 128)
    starts = (Start("attention_bytes", 0.7, 1), Start("floor_s", 8e-6))

    def model(own: pl.DataFrame, chip: Chip, dtype: str) -> Callable[[Floats], Floats]:
        batch, heads = _column(own, "batch_size"), _column(own, "num_key_value_heads")
        context = _column(own, "isl") + _column(own, "step")
        reading = 2 * heads * 128 * BYTES[dtype] * batch * context / _value(chip.mem_bytes_per_s)
        return lambda x: np.asarray(reading / x[0] + x[1])

    return _by_chip(full, "kv_cache_dtype", "decode attention", starts, model)


def fit_reductions(table: pl.DataFrame) -> list[Fitted]:
    """All-reduces inside a system, as recorded launches."""
    kept = table.filter(~pl.col("backend").fill_null("").str.contains("eager"))
    starts = (Start("allreduce_bytes", 0.8, 2), Start("start_s", 5e-6))

    def model(own: pl.DataFrame, chip: Chip, _: str) -> Callable[[Floats], Floats]:
        ranks, sent = _column(own, "num_gpus"), 2 * _column(own, "message_size")
        passing = 2 * (ranks - 1) / ranks * sent / _value(chip.link_bytes_per_s)
        return lambda x: np.asarray(passing / x[0] + x[1])

    return _by_chip(kept, "allreduce_dtype", "all-reduce", starts, model)


def _full(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter((pl.col("window_size").fill_null(0) <= 0) & (pl.col("head_dim") == 128))


def _column(table: pl.DataFrame, name: str) -> Floats:
    return table[name].to_numpy().astype(np.float64)


def _peak(chip: Chip, dtype: str) -> Figure | None:
    figure: Figure | None = getattr(chip, PEAKS[dtype])
    return figure


def _value(figure: Figure | None) -> float:
    assert figure is not None
    return figure.value


def _by_chip(
    table: pl.DataFrame,
    dtype: str,
    operator: str,
    starts: Sequence[Start],
    model: Callable[[pl.DataFrame, Chip, str], Callable[[Floats], Floats]],
) -> list[Fitted]:
    """One fit for each chip and dtype with a peak of it."""
    found = []
    for (system, kind), rows in sorted(table.group_by("system", dtype), key=lambda group: str(group[0])):
        chip = find_chip(CHIPS.get(str(system), str(system).replace("_", "-")))
        if kind not in BYTES or _peak(chip, str(kind)) is None:
            continue
        own = rows.filter(pl.col("latency") > 0)
        own = own.sample(min(MOST_ROWS, len(own)), seed=1)
        measured = np.log(_column(own, "latency") * 1e-3)
        figures, errors = least_absolute(model(own, chip, str(kind)), starts, measured)
        found.append(
            Fitted(
                operator=operator, chip=chip.id, dtype=str(kind), rows=len(rows), figures=figures,
                median_abs_log_error=float(np.median(np.abs(errors))),
            )
        )  # fmt: skip
    return found


def least_absolute(
    seconds: Callable[[Floats], Floats], starts: Sequence[Start], measured: Floats, *, rounds: int = 40
) -> tuple[dict[str, float], Floats]:
    """(figures, ln errors) of least mean absolute ln error, by Gauss-Newton steps on their logarithms."""
    ln, most = np.log([s.value for s in starts]), np.log([s.most for s in starts])
    error = np.log(seconds(np.exp(ln))) - measured
    for _ in range(rounds):
        slopes = np.stack([_slope(seconds, ln, j) for j in range(len(ln))], axis=1)
        weights = 1.0 / np.maximum(np.abs(error), 0.02)
        left = (slopes * weights[:, None]).T @ slopes + 1e-6 * len(error) * np.eye(len(ln))
        step = np.linalg.solve(left, -(slopes * weights[:, None]).T @ error)
        for shorter in (1.0, 0.3, 0.1):
            tried = np.minimum(ln + shorter * np.clip(step, -0.5, 0.5), most)
            then = np.log(seconds(np.exp(tried))) - measured
            if np.mean(np.abs(then)) < np.mean(np.abs(error)) - 1e-7:
                ln, error = tried, then
                break
        else:
            break
    return {s.name: float(x) for s, x in zip(starts, np.exp(ln), strict=True)}, error


def _slope(seconds: Callable[[Floats], Floats], ln: Floats, j: int) -> Floats:
    moved = ln.copy()
    moved[j] += 1e-4
    return np.asarray((np.log(seconds(np.exp(moved))) - np.log(seconds(np.exp(ln)))) / 1e-4)

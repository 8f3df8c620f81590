"""Fit the few overheads of the HBM step-time model on public measurements of time per output token.

    python benchmarks/fit_overheads.py ../shared/data/measurements.csv

Everything else in ``catalog/data/efficiency`` comes from operator tables; what operators do not show
(launches and small kernels of a layer, routing of a MoE layer, the host between steps) is fitted here
per family, on rows with at most 16 clients, aggregated serving and no speculative decoding. Prints the
figures, the median absolute log error over (chip, model) cells, and the 5th and 95th percentile of
measured ÷ predicted speed: the ``speed`` interval of the family.
"""

from __future__ import annotations

import sys
from itertools import product

import msgspec
import numpy as np
import polars as pl

from infermix.catalog.load import catalog
from infermix.errors import InfermixError
from infermix.perf.deployment import Deployment
from infermix.perf.table import compile_table

CHIPS = {"H100-SXM": "h100-x8", "H200-SXM": "h200-x8", "B200-SXM": "b200-x8", "A100-80G": "a100-80-x8"}
MODELS = {
    "Llama-3.1-8B": "llama-3.1-8b", "Llama-3.1-70B": "llama-3.1-70b", "Qwen3-32B": "qwen3-32b",
    "MiniMax-M2.5": "minimax-m2.5", "Llama-2-70B": "llama-2-70b", "Mixtral-8x7B": "mixtral-8x7b",
}  # fmt: skip
MEAN_LENGTH = 0.9
"""Clients draw lengths between 80 and 100 % of nominal."""


def rows(path: str) -> pl.DataFrame:
    """Rows that the fit may use, numbers parsed."""
    number = [
        pl.col(c).cast(pl.Float64, strict=False)
        for c in ("value", "batch_or_concurrency", "input_len", "output_len", "tp", "dp", "pp")
    ]
    return (
        pl.read_csv(path, infer_schema_length=None)
        .with_columns(number)
        .filter(pl.col("metric") == "tpot_ms", pl.col("quality").is_in(["A", "B"]), pl.col("spec_decode") == "no")
        .filter(pl.col("chip").is_in(list(CHIPS)), pl.col("model").is_in(list(MODELS)))
        .filter(
            pl.col("tp").is_not_null(),
            pl.col("dp").fill_null(1) == 1,
            pl.col("pp").fill_null(1) == 1,
            pl.col("ep").cast(pl.Float64, strict=False).fill_null(1) == 1,
        )
        .filter(
            pl.col("batch_or_concurrency").is_not_null(), pl.col("input_len").is_not_null(), pl.col("output_len") > 16
        )
        .filter(~pl.col("scenario").str.contains("disagg"), ~pl.col("framework").str.contains("2023"))
    )


def deployment(row: dict[str, object]) -> Deployment:
    """The deployment that a row was measured on."""
    cat = catalog()
    system = cat.systems[CHIPS[str(row["chip"])]]
    chip = cat.chips[system.chip]
    weights = {"fp8_block": "fp8", None: "bf16"}.get(row["weight_dtype"], row["weight_dtype"])  # type: ignore[call-overload]
    kv = "fp8" if str(row["kv_dtype"]).startswith("fp8") else "bf16"
    return Deployment(
        model=cat.models[MODELS[str(row["model"])]], system=system, chip=chip,
        efficiency=cat.efficiencies[chip.efficiency],
        tp=int(row["tp"]), weights=str(weights), kv=kv, max_num_seqs=1024,  # type: ignore[call-overload]
    )  # fmt: skip


def predict_s(row: dict[str, float], d: Deployment) -> float:
    """Time per output token in a closed loop: a decode step, and the other clients' prompts in between."""
    table = compile_table(d)
    clients, prompt, output = (
        row["batch_or_concurrency"],
        MEAN_LENGTH * row["input_len"],
        MEAN_LENGTH * row["output_len"],
    )
    batch = min(1024, max(1, round(clients)))
    step = table.decode_s[batch] + batch * (table.per_seq_s + table.kv_s * (prompt + output / 2))
    chunk = min(prompt, 8192)
    prefill = (
        prompt * (table.mixed_s[8192] / 8192 if clients > 4 else table.mixed_s[int(chunk)] / chunk)
        + table.pair_s * prompt**2 / 2
    )
    return float(step + prefill * (clients - 1) / output)


def with_overheads(d: Deployment, layer_us: float, moe_us: float, host_us: float) -> Deployment:
    """The deployment with other overheads."""
    figures = dict(d.efficiency.figures)
    for name, us in (("layer_s", layer_us), ("moe_layer_s", moe_us), ("host_s", host_us)):
        figures[name] = msgspec.structs.replace(figures[name], value=us * 1e-6)
    return msgspec.structs.replace(d, efficiency=msgspec.structs.replace(d.efficiency, figures=figures))


def cell_error(logs: np.ndarray, cells: list[tuple[object, object]]) -> float:
    """Median over (chip, model) cells of the median absolute log error."""
    names = sorted(set(cells), key=str)
    return float(np.median([np.median(np.abs(logs[[c == name for c in cells]])) for name in names]))


def fit(family: str, data: list[dict[str, object]]) -> None:
    """Grid search of the three overheads; prints figures and residuals."""
    small = [r for r in data if float(r["batch_or_concurrency"]) <= 16]  # type: ignore[arg-type]
    pairs = []
    for r in small:
        try:
            compile_table(deployment(r))
            pairs.append((r, deployment(r)))
        except InfermixError:
            continue
    cells = [(r["chip"], r["model"]) for r, _ in pairs]
    measured = np.array([float(r["value"]) for r, _ in pairs]) * 1e-3  # type: ignore[arg-type]
    base = np.array([predict_s(r, with_overheads(d, 0, 0, 0)) for r, d in pairs])  # type: ignore[arg-type]
    steps = np.array(
        [
            1 + MEAN_LENGTH * r["input_len"] / 8192 * (r["batch_or_concurrency"] - 1) / (MEAN_LENGTH * r["output_len"])
            for r, _ in pairs
        ]
    )  # type: ignore[operator]
    layers = np.array([d.model.layers for _, d in pairs])
    moe = np.array([d.model.moe_layers if d.model.experts else 0 for _, d in pairs])
    best = (np.inf, 0.0, 0.0, 0.0)
    for layer_us, moe_us, host_us in product(range(0, 41, 2), range(0, 81, 4), range(0, 2001, 100)):
        predicted = base + steps * 1e-6 * (layers * layer_us + moe * moe_us + host_us)
        error = cell_error(np.log(predicted / measured), cells)
        if error < best[0] - 1e-9:
            best = (error, layer_us, moe_us, host_us)
    logs = np.log((base + steps * 1e-6 * (layers * best[1] + moe * best[2] + best[3])) / measured)
    low, high = np.quantile(np.exp(logs), [0.05, 0.95])
    print(
        f"{family}: layer {best[1]} us, MoE layer {best[2]} us, host {best[3]} us; "
        f"{len(pairs)} rows, {len(set(cells))} cells"
    )
    print(f"  median |ln| over cells {best[0]:.3f}; measured/predicted speed 5-95 %: {low:.2f}-{high:.2f}")
    for name in sorted(set(cells), key=str):
        mine = logs[[c == name for c in cells]]
        print(
            f"  {name[0]:10s} {name[1]:16s} n {len(mine):4d}  "
            f"median ln(pred/meas) {np.median(mine):+.2f}  |ln| {np.median(np.abs(mine)):.2f}"
        )


if __name__ == "__main__":
    table = rows(sys.argv[1]).to_dicts()
    by_family: dict[str, list[dict[str, object]]] = {}
    for entry in table:
        family_id = catalog().chips[catalog().systems[CHIPS[entry["chip"]]].chip].efficiency
        by_family.setdefault(family_id, []).append(entry)
    for name, entries in sorted(by_family.items()):
        fit(name, entries)

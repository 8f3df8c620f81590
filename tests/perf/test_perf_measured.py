"""The fit of the overheads, reproduced on the public measurements where they are at hand."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from infermix.perf.table import compile_table

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("INFERMIX_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))

CLIENTS = 16
"""The fit uses rows of at most so many."""


@pytest.fixture(scope="module")
def fit() -> ModuleType:
    """``benchmarks/fit_overheads.py`` as a module."""
    pytest.importorskip("polars", reason="polars reads the measurements")
    spec = importlib.util.spec_from_file_location("fit_overheads", REPOSITORY / "benchmarks" / "fit_overheads.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(fit: ModuleType) -> list[dict[str, Any]]:
    file = SHARED / "measurements.csv"
    if not file.is_file():
        pytest.skip(f"no measurements at {file}; set INFERMIX_SHARED_DATA to the folder that holds measurements.csv")
    return [row for row in fit.rows(str(file)).to_dicts() if row["batch_or_concurrency"] <= CLIENTS]


def test_large_cells_of_the_fit_are_met_within_a_quarter(fit: ModuleType, rows: list[dict[str, Any]]) -> None:
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        d = fit.deployment(row)
        if d.efficiency.id in ("hopper", "blackwell"):
            error = np.log(fit.predict_s(row, d) * 1e3 / row["value"])
            cells.setdefault((row["chip"], row["model"]), []).append(error)
    large = {cell: errors for cell, errors in cells.items() if len(errors) >= 20}
    assert len(large) >= 6 and {chip for chip, _ in large} == {"H100-SXM", "H200-SXM", "B200-SXM"}
    off = {cell: round(float(np.median(np.abs(errors))), 3) for cell, errors in large.items()}
    assert max(off.values()) < 0.25, off
    assert np.median(list(off.values())) < 0.15, off


def test_stated_interval_covers_about_nine_rows_in_ten(fit: ModuleType, rows: list[dict[str, Any]]) -> None:
    """In sample: ``low`` and ``high`` are percentiles of these very rows."""
    inside: dict[str, list[bool]] = {"hopper": [], "blackwell": []}
    for row in rows:
        d = fit.deployment(row)
        if d.efficiency.id in inside:
            table = compile_table(d)
            speed = fit.predict_s(row, d) * 1e3 / row["value"]
            inside[d.efficiency.id].append(table.low * 0.99 <= speed <= table.high * 1.01)
    for family, hits in inside.items():
        assert len(hits) > 100 and 0.8 < np.mean(hits) < 0.97, (family, len(hits), np.mean(hits))

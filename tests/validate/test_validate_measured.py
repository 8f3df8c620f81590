"""Predictions on the public measurements, where they are at hand: a floor under what `validation/` shows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.validate.fit import errors_with, samples_of
from infermix.validate.meaning import covered
from infermix.validate.predict import Predicted, predict_rows
from infermix.validate.report import validation
from infermix.validate.rows import Row, read_rows
from infermix.validate.score import kind_of, score

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("INFERMIX_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
CASES = 4
"""Of each chip, model and engine."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    file = SHARED / "measurements.csv"
    if not file.is_file():
        pytest.skip(f"no measurements at {file}; set INFERMIX_SHARED_DATA to the folder that holds measurements.csv")
    return [row for row in read_rows(file) if row.quality != "D"]


@pytest.fixture(scope="module")
def found(rows: list[Row]) -> list[Predicted]:
    return predict_rows(row for sample in samples_of(rows, most=CASES) for row in sample.rows)


def test_ten_microseconds_between_systems_are_neither_too_few_nor_too_many(rows: list[Row]) -> None:
    """DeepSeek-V3 on two nodes, tp16: the figure was not fitted; half or twice of it predicts time per token worse."""
    spans = [r for r in rows if (r.chip, r.model, r.tp, r.metric) == ("H100-SXM", "DeepSeek-V3", 16, "tpot_ms")]
    samples = samples_of([r for r in spans if r.quality == "B"])
    assert sum(len(s.rows) for s in samples) >= 8
    own = ("efficiency", "hopper", "internode_start_s")
    start = catalog().efficiencies["hopper"].figures["internode_start_s"].value

    def off(factor: float) -> float:
        errors = [errors_with(catalog(), s, {own: factor * start}) for s in samples]
        return float(np.median(np.abs(np.concatenate(errors))))

    assert off(1.0) < 0.06 < min(off(0.001), off(2.0))


def test_nearly_every_row_is_covered(rows: list[Row]) -> None:
    assert sum(not covered(row) for row in rows) >= 0.98 * len(rows)


def test_errors_over_cells_stay_where_they_are(found: list[Predicted]) -> None:
    most = {"tpot": 0.2, "ttft": 0.4, "throughput": 0.2}
    for kind, bound in most.items():
        told = score([p for p in found if kind_of(p.row.metric) == kind])
        assert told.median_abs_log_error is not None and told.median_abs_log_error < bound, kind


def test_intervals_hold_about_nine_rows_in_ten(found: list[Predicted]) -> None:
    inside = score(found).inside
    assert inside is not None and 0.8 < inside < 0.98


def test_more_decisions_are_right_than_wrong(found: list[Predicted]) -> None:
    right = validation(found).regret.right
    assert right is not None and right > 0.8

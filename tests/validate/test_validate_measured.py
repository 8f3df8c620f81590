"""Predictions on the public measurements, where they are at hand: a floor under what `validation/` shows."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from infermix.validate.fit import samples_of
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

"""Cross-validation: rows of a chip, or of a model, predicted with figures that were fitted without them.

The fit is not run again for each: around its end errors move nearly in straight lines, so a fold solves the same
least absolute errors on those lines without the held-out rows, and predicts these with the figures it finds, by the
full model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

from infermix.arrays import Bools, Floats
from infermix.catalog.load import Catalog
from infermix.catalog.query import find_chip, find_model
from infermix.perf.stack import stack_for
from infermix.validate.fit import Fit, Sample, outcome_with, solved, values_at
from infermix.validate.interval import interval_of, spread_around
from infermix.validate.knobs import Values, kin
from infermix.validate.predict import Predicted, metric_of
from infermix.validate.rows import Row

By = Literal["model", "chip"]
PASSES = 4
"""Moves on the straight lines; each is limited."""


def held_out(fit: Fit, by: By, name: str) -> Bools:
    """Which rows of the fit are of the chip or model."""
    return np.array([record_of(row, by) == name for row in fit.rows])


@lru_cache(maxsize=100_000)
def record_of(row: Row, by: By) -> str:
    """Id of a row's chip or model in the catalogue: names of one shape are one model."""
    return find_model(row.model).id if by == "model" else find_chip(row.chip).id


def without(fit: Fit, out: Bools) -> Floats:
    """Figures (ln) fitted without some rows; those that these rows, and kin, do not hang on stay as they are."""
    own = np.flatnonzero(kin(fit.knobs) @ np.abs(fit.slopes[out]).any(axis=0))
    rows = np.flatnonzero(np.abs(fit.slopes[:, own]).any(axis=1))
    slopes, weights = fit.slopes[np.ix_(rows, own)], np.where(out, 0.0, fit.weights)[rows]
    knobs, ln, errors = [fit.knobs[j] for j in own], fit.ln[own], fit.errors[rows]
    most = np.log([k.most for k in knobs])
    for _ in range(PASSES):
        moved = np.minimum(solved(knobs, ln, errors, slopes, weights), most)
        errors, ln = errors + slopes @ (moved - ln), moved
    found = fit.ln.copy()
    found[own] = ln
    return found


def cross_validate(
    catalog: Catalog,
    fit: Fit,
    samples: Sequence[Sample],
    by: By,
    told: Callable[[str], None] = lambda _: None,
) -> list[Predicted]:
    """Predict every row of quality A and B with figures that saw nothing of its chip, or of its model."""
    names = sorted({record_of(r, by) for s in samples for r in s.rows if r.quality in "AB"})
    found: list[Predicted] = []
    for name in names:
        values = values_at(fit.knobs, without(fit, held_out(fit, by, name)))
        for sample in samples:
            rows = [r for r in sample.rows if record_of(r, by) == name and r.quality in "AB"]
            if rows:
                found.extend(_predicted(catalog, sample, rows, values, by))
        told(name)
    return found


def _predicted(catalog: Catalog, sample: Sample, rows: Sequence[Row], values: Values, by: By) -> list[Predicted]:
    outcome = outcome_with(catalog, sample.case, values)
    d = sample.case.deployment
    stack = stack_for(catalog, sample.case.engine.id, d)
    found = []
    for row in rows:
        value = metric_of(outcome, row.metric)
        if not np.isfinite(value) or value <= 0:
            continue
        low, high = spread_around(value, row.metric, interval_of(sample.case, row.metric, stack, new_chip=by == "chip"))
        found.append(
            Predicted(
                row=row, value=value, low=low, high=high, assumed=sample.case.assumed, family=d.efficiency.id,
                stack=sample.case.engine.id,
            )
        )  # fmt: skip
    return found

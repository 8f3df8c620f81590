"""Fitting figures to measured rows: least absolute ln error, cell by cell, held to what was believed before.

Minimises ``sum over cells of mean |ln(predicted / measured)| + held * sum ((ln x - ln believed) / spread)^2 / 2`` by
Gauss-Newton steps on ``ln x`` with weights ``1 / |error|``; figures of an engine that are alike whatever the chip are
held to each other as well. A cell is one chip, model, engine and metric, so that thousands of rows of one kind do not
drown eight of another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog.load import Catalog
from infermix.errors import InfermixError
from infermix.perf.stack import stack_for
from infermix.validate.knobs import Knob, Values, holds, moved_case, moved_stack
from infermix.validate.meaning import Case, case_of
from infermix.validate.outcome import Outcome, outcome_on
from infermix.validate.predict import metric_of
from infermix.validate.rows import Row

HELD = 0.3
"""Weight of what was believed, against one cell."""
NEAR = 0.03
"""Errors below are not told apart: what repeated measurements differ by."""
STEP = 0.05
"""In ln, for differences."""
FARTHEST = 0.5
"""Of one move, in ln."""
OUTLIER = 1.5
"""Rows farther off than this in ln at the end weigh as if they were so far."""


TELLS = 0.02
"""A row tells of a figure when its ln moves by so much of the figure's."""


def rows_that_tell(slopes: Floats) -> Floats:
    """How many rows tell of each figure."""
    return np.asarray((np.abs(slopes) >= TELLS).sum(axis=0), dtype=np.float64)


class Sample(NamedTuple):
    """One case and its rows."""

    case: Case
    rows: tuple[Row, ...]


class Fit(NamedTuple):
    """Figures, and how the errors move with them, at the end of a fit."""

    knobs: list[Knob]
    ln: Floats
    errors: Floats
    slopes: Floats
    weights: Floats
    rows: list[Row]

    @property
    def values(self) -> dict[tuple[str, str, str], float]:
        """The figures by (part, record, name)."""
        return values_at(self.knobs, self.ln)


def values_at(knobs: Sequence[Knob], ln: Floats) -> dict[tuple[str, str, str], float]:
    """Figures at a point."""
    return {(k.part, k.record, k.name): min(k.most, float(np.exp(x))) for k, x in zip(knobs, ln, strict=True)}


def samples_of(rows: Sequence[Row], *, most: int = 10**9) -> list[Sample]:
    """Rows by case; of each cell at most so many cases, evenly picked."""
    cases: dict[bytes, tuple[Case, list[Row]]] = {}
    for row in rows:
        try:
            case = case_of(row)
        except InfermixError:
            continue
        cases.setdefault(msgspec.json.encode(case), (case, []))[1].append(row)
    cells: dict[tuple[str, ...], list[Sample]] = {}
    for case, own in cases.values():
        cells.setdefault((own[0].source, own[0].chip, own[0].model, case.engine.id), []).append(
            Sample(case, tuple(own))
        )
    return [sample for cell in cells.values() for sample in _picked(cell, most)]


def _picked(cell: list[Sample], most: int) -> list[Sample]:
    if len(cell) <= most:
        return cell
    return [cell[i] for i in np.unique(np.linspace(0, len(cell) - 1, most).astype(int))]


def outcome_with(catalog: Catalog, case: Case, values: Values) -> Outcome:
    """A case's outcome with other figures."""
    stack = moved_stack(stack_for(catalog, case.engine.id, case.deployment), values)
    return outcome_on(moved_case(case, values), stack)


def errors_with(catalog: Catalog, sample: Sample, values: Values) -> Floats:
    """ln(predicted / measured) of a case's rows."""
    outcome = outcome_with(catalog, sample.case, values)
    return np.array([np.log(max(1e-12, metric_of(outcome, r.metric)) / r.value) for r in sample.rows])


def touches(catalog: Catalog, sample: Sample) -> set[tuple[str, str]]:
    """(part, record) of what a case hangs on."""
    family = sample.case.deployment.efficiency.id
    stack = stack_for(catalog, sample.case.engine.id, sample.case.deployment)
    return {("efficiency", family)} | ({("stacks", stack.id)} if stack else set())


def cell_weights(samples: Sequence[Sample]) -> Floats:
    """Weights that make each cell weigh as its rows to the power 0.3; quality C a quarter."""
    cells = [(r.source, r.chip, r.model, s.case.engine.id, r.metric) for s in samples for r in s.rows]
    counts: dict[tuple[str, ...], int] = {}
    for cell in cells:
        counts[cell] = counts.get(cell, 0) + 1
    quality = np.array([0.25 if r.quality == "C" else 1.0 for s in samples for r in s.rows])
    return np.asarray(quality * np.array([counts[cell] ** -0.7 for cell in cells]))


def fit(
    catalog: Catalog,
    samples: Sequence[Sample],
    knobs: Sequence[Knob],
    *,
    rounds: int = 5,
    told: Callable[[str], None] = lambda _: None,
) -> Fit:
    """Fit the knobs to the samples."""
    knobs, weights = list(knobs), cell_weights(samples)
    believed = np.log([k.believed for k in knobs])
    ln = believed.copy()
    hangs = [touches(catalog, s) for s in samples]
    errors = _errors(catalog, samples, values_at(knobs, ln))
    slopes = np.zeros((len(errors), len(knobs)))
    for turn in range(rounds):
        slopes = _slopes(catalog, samples, hangs, knobs, ln, errors)
        if turn == 0:
            told_of = [int(n) for n in rows_that_tell(slopes)]
            kept = [j for j, n in enumerate(told_of) if n >= knobs[j].fewest]
            knobs, ln, slopes = [knobs[j] for j in kept], ln[kept], slopes[:, kept]
        best = _loss(errors, weights, knobs, ln)
        for shorter in (1.0, 0.5, 0.2):
            moved = _clipped(knobs, ln + shorter * (solved(knobs, ln, errors, slopes, weights) - ln))
            tried = _errors(catalog, samples, values_at(knobs, moved))
            if _loss(tried, weights, knobs, moved) < best - 1e-6:
                ln, errors = moved, tried
                break
        else:
            break
        told(f"round {turn + 1}: {_loss(errors, weights, knobs, ln) / weights.sum():.4f}")
    slopes = _slopes(catalog, samples, hangs, knobs, ln, errors)
    return Fit(knobs, ln, errors, slopes, weights, [r for s in samples for r in s.rows])


def _clipped(knobs: Sequence[Knob], ln: Floats) -> Floats:
    return np.minimum(ln, np.log([k.most for k in knobs]))


def solved(knobs: Sequence[Knob], ln: Floats, errors: Floats, slopes: Floats, weights: Floats) -> Floats:
    """The point of least loss where errors move in straight lines; no knob farther than ``FARTHEST``."""
    believed = np.log([k.believed for k in knobs])
    hold = HELD * holds(knobs)
    move = np.zeros(len(knobs))
    for _ in range(15):
        off = errors + slopes @ move
        w = weights / np.clip(np.abs(off), NEAR, None) * np.minimum(1.0, OUTLIER / np.maximum(np.abs(off), 1e-9))
        left = (slopes * w[:, None]).T @ slopes + hold
        right = -(slopes * w[:, None]).T @ errors + hold @ (believed - ln)
        move = 0.5 * move + 0.5 * np.clip(np.linalg.solve(left, right), -FARTHEST, FARTHEST)
    return ln + move


def _loss(errors: Floats, weights: Floats, knobs: Sequence[Knob], ln: Floats) -> float:
    apart = ln - np.log([k.believed for k in knobs])
    off = np.minimum(np.abs(errors), OUTLIER)
    return float(weights @ off) + float(HELD * (apart @ holds(knobs) @ apart) / 2)


def _errors(catalog: Catalog, samples: Sequence[Sample], values: Values) -> Floats:
    return np.concatenate([errors_with(catalog, s, values) for s in samples])


def _slopes(
    catalog: Catalog,
    samples: Sequence[Sample],
    hangs: Sequence[set[tuple[str, str]]],
    knobs: Sequence[Knob],
    ln: Floats,
    errors: Floats,
) -> Floats:
    slopes = np.zeros((len(errors), len(knobs)))
    starts = np.cumsum([0, *(len(s.rows) for s in samples)])
    for j, knob in enumerate(knobs):
        moved = ln.copy()
        moved[j] += STEP if np.exp(moved[j] + STEP) <= knob.most else -STEP
        values = values_at(knobs, moved)
        for i, sample in enumerate(samples):
            if (knob.part, knob.record) in hangs[i]:
                own = slice(starts[i], starts[i + 1])
                slopes[own, j] = (errors_with(catalog, sample, values) - errors[own]) / (moved[j] - ln[j])
    return slopes

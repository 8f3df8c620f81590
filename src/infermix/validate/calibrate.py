"""From a fit to figures of the catalogue: values, what tells of them, and intervals of speed from held-out rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.catalog.load import Catalog
from infermix.catalog.query import figure
from infermix.catalog.records import Figure
from infermix.perf.stack import BY_LOAD, stack_for
from infermix.validate.cross import cross_validate
from infermix.validate.fit import TELLS, Fit, Sample, fit, samples_of
from infermix.validate.interval import by_load
from infermix.validate.knobs import FEWEST_ROWS, knobs_of
from infermix.validate.predict import Predicted
from infermix.validate.rows import Row
from infermix.validate.score import Score, kind_of, score
from infermix.validate.write import note_of

Id = tuple[str, str, str]
LOW, HIGH = 0.065, 0.935
"""Ends of an interval that holds nine rows in ten, those of models that were seen included."""
MANY_ROWS = 100
FEW = (0.5, 1.5)
"""With fewer rows than that an interval is at least so wide."""
FEW_OFF = 0.3
"""In ln: ends of a figure that very few rows tell of are at least so far off."""
WIDEST = 8.0
"""Factor that an end is cut at."""


class Calibration(NamedTuple):
    """A fit, what was held out, and the figures that follow."""

    fit: Fit
    samples: list[Sample]
    by_model: list[Predicted]
    by_chip: list[Predicted]
    figures: dict[Id, Figure]

    @property
    def chips(self) -> dict[str, tuple[str, ...]]:
        """Chips of the fitted rows of quality A and B, by family."""
        seen: dict[str, set[str]] = {}
        for sample in self.samples:
            d = sample.case.deployment
            if any(r.quality in "AB" for r in sample.rows):
                seen.setdefault(d.efficiency.id, set()).add(d.chip.id)
        return {family: tuple(sorted(chips)) for family, chips in seen.items()}


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What is told of a calibration."""

    rows: int
    fitted: int
    """Figures."""
    by_model: dict[str, dict[str, Score]]
    by_chip: dict[str, dict[str, Score]]
    figures: dict[str, Figure]


def calibrate_rows(
    catalog: Catalog,
    rows: Sequence[Row],
    *,
    most: int = 8,
    rounds: int = 8,
    told: Callable[[str], None] = lambda _: None,
) -> Calibration:
    """Fit families and stacks to measured rows, then predict each chip and each model without its own rows.

    Parameters
    ----------
    most
        Cases of each cell that the fit looks at.
    """
    kept = [r for r in rows if r.quality != "D"]
    samples = [s for s in samples_of(kept, most=most) if tells_of_figures(s)]
    families = sorted({s.case.deployment.efficiency.id for s in samples})
    stacks = [stack_for(catalog, s.case.engine.id, s.case.deployment) for s in samples]
    knobs = knobs_of(catalog, families, sorted({stack.id for stack in stacks if stack}))
    found = fit(catalog, samples, knobs, rounds=rounds, told=told)
    every = [s for s in samples_of(kept) if tells_of_figures(s)]
    by_model, by_chip = (cross_validate(catalog, found, every, by) for by in ("model", "chip"))
    figures = fitted_figures(catalog, found)
    figures |= interval_figures(catalog, every, by_model)
    return Calibration(found, every, by_model, by_chip, figures)


def tells_of_figures(sample: Sample) -> bool:
    """Whether rows may be fitted: endpoints of SRAM machines that may draft tell of drafting as much as of the chip."""
    return not sample.case.deployment.is_pipeline or all(r.spec_decode == "no" for r in sample.rows)


def fitted_figures(catalog: Catalog, found: Fit) -> dict[Id, Figure]:
    """The fitted figures with what tells of them; their ends from how sharply the rows tell."""
    told: dict[Id, Figure] = {}
    share = found.weights / np.maximum(np.abs(found.errors), 0.1)
    for j, knob in enumerate(found.knobs):
        tell = np.abs(found.slopes[:, j]) >= TELLS
        rows = int(tell.sum())
        if rows < knob.fewest:
            continue
        sharp = float((share * found.slopes[:, j] ** 2).sum()) + 1.0 / knob.spread**2
        least = FEW_OFF if knob.fewest < FEWEST_ROWS else 0.0
        off = min(1.0, max(least, 1.645 * float(np.median(np.abs(found.errors[tell]))) / np.sqrt(sharp)))
        value = min(knob.most, float(np.exp(found.ln[j])))
        old = figure(catalog, knob.id)
        told[(knob.part, knob.record, knob.name)] = msgspec.structs.replace(
            old, value=value, source=("MEAS", "OPS") if "OPS" in old.source else ("MEAS",), kind="derived",
            low=value * np.exp(-off), high=min(max(knob.most, value), value * np.exp(off)),
            believed=knob.believed, note=note_of(rows, float(np.median(np.abs(found.errors[tell])))),
        )  # fmt: skip
    return told


def interval_figures(catalog: Catalog, samples: Sequence[Sample], held_out: Sequence[Predicted]) -> dict[Id, Figure]:
    """Intervals of speed by stack, and by family over engines of today, from rows that their figures did not see.

    Where there are rows enough those with few sequences on an instance, and those with many, have ends of their own.
    """
    cases = {r.id: s.case for s in samples for r in s.rows}
    errors: dict[Id, list[float]] = {}
    for p in held_out:
        case = cases[p.row.id]
        stack = stack_for(catalog, case.engine.id, case.deployment)
        speed = p.error if p.row.metric.endswith("_ms") else -p.error
        whole = "speed_prompt" if kind_of(p.row.metric) == "ttft" else "speed"
        for name in (whole, by_load(case, whole)):
            if stack is not None:
                errors.setdefault(("stacks", stack.id, name), []).append(speed)
            if stack is None or not stack.until:
                errors.setdefault(("efficiency", p.family, name), []).append(speed)
    for whole, parts in BY_LOAD.items():
        for id_ in [i for i in errors if i[2] in parts]:
            if not MANY_ROWS <= len(errors[id_]) < len(errors[(*id_[:2], whole)]):
                del errors[id_]
    return {id_: _interval(own) for id_, own in errors.items() if len(own) >= FEWEST_ROWS}


def _interval(speeds: Sequence[float]) -> Figure:
    low, high = np.exp(np.quantile(speeds, [LOW, HIGH]))
    if len(speeds) < MANY_ROWS:
        low, high = min(low, FEW[0]), max(high, FEW[1])
    note = f"held-out models: ends hold nine in ten of {len(speeds):,} rows, measured over predicted speed"
    return Figure(
        value=1.0, unit="1", source=("MEAS",), kind="derived", read="2026-11-22",
        low=float(np.clip(low, 1 / WIDEST, 0.97)), high=float(np.clip(high, 1.03, WIDEST)), note=note,
    )  # fmt: skip


def summary(calibration: Calibration) -> Summary:
    """Counts, held-out scores and figures."""
    return Summary(
        rows=len(calibration.fit.rows),
        fitted=sum(1 for id_ in calibration.figures if not id_[2].startswith("speed")),
        by_model=held_out_scores(calibration.by_model),
        by_chip=held_out_scores(calibration.by_chip),
        figures={"/".join(id_): f for id_, f in sorted(calibration.figures.items())},
    )


def held_out_scores(found: Sequence[Predicted]) -> dict[str, dict[str, Score]]:
    """Scores by quality (A, AB) and kind of metric."""
    return {
        qualities: {
            kind: score([p for p in found if p.row.quality in qualities and kind_of(p.row.metric) == kind])
            for kind in ("tpot", "ttft", "throughput")
        }
        for qualities in ("A", "AB")
    }

"""How far predictions lie from what was measured: by cell, by group of chips, by kind of metric."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence

import msgspec
import numpy as np

from infermix.catalog.query import find_chip
from infermix.errors import InputError
from infermix.validate.predict import Predicted

KINDS = {"tpot_ms": "tpot", "tok_s_user": "tpot", "ttft_ms": "ttft"}
"""Kind of metric; the others are throughput."""
GROUPS = ("nvidia", "other_hbm", "sram")


class Cell(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of one chip, model and metric."""

    chip: str
    model: str
    metric: str
    n: int
    median_abs_log_error: float
    bias: float
    """Median ln(predicted / measured): above 0, too much is predicted."""


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """Errors of some rows; those of quality C count by their interval only."""

    n: int
    covered: int
    scored: int
    """Rows of quality A and B that are predicted."""
    cells: int
    median_abs_log_error: float | None
    """Median over cells of their median."""
    p90: float | None
    """Of single rows."""
    bias: float | None
    inside: float | None
    """Share of covered rows of quality A and B whose interval holds what was measured."""
    inside_c: float | None
    width: float | None
    """Median of high over low, quality A and B."""


def kind_of(metric: str) -> str:
    """``tpot``, ``ttft`` or ``throughput``."""
    return KINDS.get(metric, "throughput")


def group_of(chip: str) -> str:
    """``nvidia``, ``other_hbm`` or ``sram``; chips without a record count by their name alone as other_hbm."""
    try:
        record = find_chip(chip)
    except InputError:
        return "other_hbm"
    if record.kind == "sram":
        return "sram"
    return "nvidia" if record.vendor == "NVIDIA" else "other_hbm"


def cells_of(found: Iterable[Predicted]) -> list[Cell]:
    """Errors by chip, model and metric, rows of quality A and B."""
    errors: dict[tuple[str, str, str], list[float]] = {}
    for p in found:
        if p.covered and p.row.quality in "AB":
            errors.setdefault((p.row.chip, p.row.model, p.row.metric), []).append(p.error)
    return [
        Cell(
            chip=chip, model=model, metric=metric, n=len(e),
            median_abs_log_error=float(np.median(np.abs(e))), bias=float(np.median(e)),
        )
        for (chip, model, metric), e in sorted(errors.items())
    ]  # fmt: skip


def score(found: Sequence[Predicted]) -> Score:
    """Errors of these rows together."""
    covered = [p for p in found if p.covered]
    scored = [p for p in covered if p.row.quality in "AB"]
    errors = np.array([p.error for p in scored])
    cells = cells_of(scored)
    return Score(
        n=len(found),
        covered=len(covered),
        scored=len(scored),
        cells=len(cells),
        median_abs_log_error=_median([c.median_abs_log_error for c in cells]),
        p90=float(np.quantile(np.abs(errors), 0.9)) if len(errors) else None,
        bias=_median([c.bias for c in cells]),
        inside=_share(p.inside for p in scored),
        inside_c=_share(p.inside for p in covered if p.row.quality == "C"),
        width=_median([p.high / p.low for p in scored]),
    )


def _median(values: Sequence[float]) -> float | None:
    return float(np.median(values)) if values else None


def _share(hits: Iterable[bool]) -> float | None:
    listed = list(hits)
    return sum(listed) / len(listed) if listed else None


def scores_by(found: Sequence[Predicted], key: Callable[[Predicted], Hashable]) -> dict[str, Score]:
    """Scores of the rows with the same key, in the order of the keys."""
    parts: dict[str, list[Predicted]] = {}
    for p in found:
        parts.setdefault(str(key(p)), []).append(p)
    return {name: score(parts[name]) for name in sorted(parts)}


def breakdown(found: Sequence[Predicted]) -> dict[str, dict[str, dict[str, Score]]]:
    """Scores by quality (A, AB), kind of metric, and group with ``all`` first."""
    told: dict[str, dict[str, dict[str, Score]]] = {}
    for qualities in ("A", "AB"):
        kept = [p for p in found if p.row.quality in qualities]
        for kind in ("tpot", "ttft", "throughput"):
            rows = [p for p in kept if kind_of(p.row.metric) == kind]
            groups = scores_by(rows, lambda p: group_of(p.row.chip))
            told.setdefault(qualities, {})[kind] = {"all": score(rows), **groups}
    return told

"""What each class got, in the keys of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from infermix.metrics.confidence import wilson
from infermix.metrics.intervals import order_interval, t_interval
from infermix.metrics.latency import PERCENTILES
from infermix.sim.result import Run
from infermix.summary.simulation import ClassPart, Part, Simulation, class_times
from infermix.workload.classes import Slo

CDF_POINTS = 101
PROMISED = ("ttft_s", "tpot_s", "e2e_s")
COUNTS = ("requests", "completed", "refused", "unfinished")


def class_row(found: Simulation, name: str) -> dict[str, Any]:
    """One class at every speed that was run; keys of the second speed end in its name."""
    slo, c = found.study.traffic[name].slo, list(found.study.traffic).index(name)
    first = next(iter(found.runs))
    parts = [part.classes[name] for part in found.parts[first]]
    row: dict[str, Any] = {key: sum(getattr(part, key) for part in parts) for key in COUNTS}
    row |= {"promised": slo.attainment, "slo": _targets(slo)}
    row["refused_by"] = found.refused_by[name]
    row["over_context"] = found.drawn.over_context.get(name, 0)
    if sessions := sum(part.sessions for part in parts):
        row |= {"sessions": sessions, "whole_sessions": sum(part.whole_sessions for part in parts)}
    for speed, run in found.runs.items():
        suffix = "" if speed == first else f"_{speed}"
        told = _outcome(found.parts[speed], name) | _times(found.parts[speed], name, run, c)
        row |= {f"{key}{suffix}": value for key, value in told.items()}
    return row


def _targets(slo: Slo) -> dict[str, float]:
    keys = (*PROMISED, "attainment")
    said = {key: value for key in keys if (value := getattr(slo, key)) is not None}
    if slo.ttft_s_per_1k_uncached:
        said["ttft_s_per_1k_uncached"] = slo.ttft_s_per_1k_uncached
    return said


def _outcome(parts: Sequence[Part], name: str) -> dict[str, Any]:
    """Attainment of all seeds with its intervals, and good requests a second."""
    classes = [part.classes[name] for part in parts]
    good, offered = sum(c.good for c in classes), sum(c.requests for c in classes)
    seconds = sum(part.simulated_s for part in parts)
    row: dict[str, Any] = {
        "attainment": good / offered if offered else 0.0,
        "attainment_ci": list(wilson(good, offered)),
        "goodput_per_s": good / seconds if seconds else 0.0,
    }
    if len(classes) > 1:
        shares = np.array([c.good / c.requests if c.requests else np.nan for c in classes])
        low, high = t_interval(shares)
        row["attainment_ci_seeds"] = [
            None if low is None else max(0.0, low), None if high is None else min(1.0, high),
        ]  # fmt: skip
    return row


def _times(parts: Sequence[Part], name: str, run: Run, c: int) -> dict[str, Any]:
    """Percentiles with their intervals, and the quantiles of what can be promised."""
    classes = [part.classes[name] for part in parts]
    row: dict[str, Any] = {key: _means(classes, key) for key in classes[0].percentiles}
    if len(classes) > 1:
        row |= {f"{key}_ci": {f"p{p}": _between_seeds(classes, key, f"p{p}") for p in PERCENTILES} for key in row}
    shares, cdf = np.linspace(0, 1, CDF_POINTS), {}
    for key, values in class_times(run, (run.requests.class_id == c) & run.came):
        ordered = np.sort(values[np.isfinite(values)])
        if len(classes) == 1:
            row[f"{key}_ci"] = {f"p{p}": list(order_interval(ordered, p / 100)) for p in PERCENTILES}
        if key in PROMISED:
            cdf[key] = [float(q) for q in np.quantile(ordered, shares)] if len(ordered) else []
    return {**row, "cdf": cdf}


def _means(classes: Sequence[ClassPart], key: str) -> dict[str, float | None]:
    """Percentiles, averaged over the seeds that have them."""
    found: dict[str, float | None] = {}
    for p in PERCENTILES:
        values = np.array([c.percentiles.get(key, {}).get(f"p{p}", np.nan) for c in classes])
        kept = values[np.isfinite(values)]
        found[f"p{p}"] = float(kept.mean()) if len(kept) else None
    return found


def _between_seeds(classes: Sequence[ClassPart], key: str, percentile: str) -> list[float | None]:
    values = np.array([c.percentiles.get(key, {}).get(percentile, np.nan) for c in classes])
    low, high = t_interval(values)
    return [None if low is None else max(0.0, low), high]

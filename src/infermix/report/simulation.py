"""One self-contained HTML file from a simulated run: no scripts, nothing fetched, light and dark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from infermix import __version__
from infermix.errors import InputError
from infermix.report import run_words, words
from infermix.report.charts import Axis, Curve, Plot, Tick, Whisker, Whiskers, cdf_plot
from infermix.report.html import _environment
from infermix.report.run_words import RUN_TIMES
from infermix.report.workload import _apart, _time_axis, duration

Summary = Mapping[str, Any]
FULL = 98.0
"""Place of 100 % on an axis of attainments [%]: a dot there is still inside."""


def write_simulation(summary: Summary, path: str | Path) -> None:
    """Write what ``simulate`` found as one HTML file; InputError when it cannot be written."""
    text = render_simulation(summary)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise InputError(f"cannot be written: {fault.strerror}", where=str(path)) from None


def render_simulation(summary: Summary) -> str:
    """What ``simulate`` found as the text of an HTML file."""
    classes = summary["classes"]
    low = list(summary["speeds"][1:])
    return (
        _environment()
        .get_template("simulation.html")
        .render(
            run=summary,
            words=words,
            say=sys.modules[__name__],
            told=run_words,
            times={name: [(k, n) for k, n in RUN_TIMES.items() if k in c] for name, c in classes.items()},
            whiskers=attainments(classes, bool(low)),
            cdfs={name: latency_plots(name, c) for name, c in classes.items()},
            courses=courses(summary),
            in_flight=in_flight(summary),
            second=low[0] if low else "",
            version=__version__,
        )
    )


def headline(summary: Summary) -> str:
    """What became of the promises, in a sentence."""
    classes = summary["classes"]
    missed = [name for name, c in classes.items() if c["attainment"] < c["promised"]]
    if missed:
        rows = ((n, classes[n]["attainment"], classes[n]["promised"]) for n in missed)
        said = (f"{words.attained(at)} of {n} (promised {words.share(promised)})" for n, at, promised in rows)
        return f"Promises are missed: {words.joined(said)}."
    if not summary["promises_kept"]:
        late = [n for n, c in classes.items() if c.get("attainment_low", 1.0) < c["promised"]]
        return f"Every promise is kept at nominal speeds; at low speeds {words.joined(late)} would miss."
    return f"{'The promise is' if len(classes) == 1 else 'Every promise is'} kept."


def promise(c: Summary) -> str:
    """The promise to a class as a sentence."""
    return words.promise(SimpleNamespace(slo=c["slo"]))  # type: ignore[arg-type]


def counted(summary: Summary) -> str:
    """What was simulated."""
    n = len(summary["seeds"])
    seeds = f"{n} seeds" if n > 1 else f"seed {summary['seed']}"
    done = ", ".join(f"{summary[key]:,} {key}" for key in ("completed", "refused", "unfinished"))
    return f"{summary['requests']:,} requests of {seeds}: {done}. {duration(summary['simulated_s'])} were simulated."


def attainments(classes: Summary, both: bool) -> Whiskers | None:
    """Attainment of every class with its interval and promise, on one axis that ends at 100 %."""
    rows = [(name, c, suffix) for name, c in classes.items() for suffix in (("", "_low") if both else ("",))]
    rows = [row for row in rows if f"attainment{row[2]}" in row[1]]
    if not rows:
        return None
    lowest = min(min(c["promised"], c[f"attainment_ci{suffix}"][0]) for _, c, suffix in rows)
    start = max(0.0, 1.0 - 1.15 * max(1.0 - lowest, 1e-3))
    axis = Axis(start, 1.0, log=False)

    def place(value: float) -> float:
        return FULL / 100 * axis.place(value)

    found = []
    for name, c, suffix in rows:
        at, (low, high) = c[f"attainment{suffix}"], c[f"attainment_ci{suffix}"]
        spots = (place(at), place(low), place(high), place(c["promised"]))
        speeds, interval = ("low" if suffix else "nominal"), run_words.between(low, high)
        found.append(Whisker(name, speeds, *spots, at >= c["promised"], words.attained(at), interval))
    return Whiskers([Tick(place(v), f"{words.digits(100 * v, 6)}%") for v in axis.ticks(6)], found)


def latency_plots(name: str, c: Summary) -> list[Plot]:
    """Distributions of the times that can be promised."""
    low = c.get("cdf_low", {})
    plots = (cdf_plot(name, c["slo"], key, c["cdf"][key], low.get(key, ())) for key in words.TARGETS)
    return [plot for plot in plots if plot is not None]


def courses(summary: Summary) -> dict[str, list[Plot]]:
    """Class → attainment, and arrivals beside completions, over time."""
    edges = summary["over_time"]["edges_s"]
    return {
        name: [_attained(name, c, edges, summary["classes"][name]["promised"]), _load(name, c, edges)]
        for name, c in summary["over_time"]["classes"].items()
    }


def _attained(name: str, c: Summary, edges: Sequence[float], promised: float) -> Plot:
    values = [v for v in c["attainment"] if v is not None]
    lowest = min([*values, promised])
    up = Axis(max(0.0, 1.0 - 1.25 * max(1.0 - lowest, 0.004)), 1.0, log=False)
    return Plot(
        title=f"Attainment of {name}",
        alt=f"Share of requests of {name} that met every target, by time of arrival; promised {words.share(promised)}",
        x_ticks=_times(edges),
        y_ticks=[Tick(up.place(y), f"{words.digits(100 * y, 5)}%") for y in up.ticks(5)],
        curves=[Curve(line, "nominal") for line in _lines(c["attainment"], up)],
        level=Tick(up.place(promised), "promised"),
    )


def _load(name: str, c: Summary, edges: Sequence[float]) -> Plot:
    top = max([*c["arrivals_per_s"], *c["completions_per_s"]], default=0.0)
    up = Axis(0.0, 1.12 * top or 1.0, log=False)
    return Plot(
        title=f"Requests of {name} a second",
        alt=f"Requests of {name} that arrived and that ended, a second, over time",
        x_ticks=_times(edges),
        y_ticks=[Tick(up.place(y), words.digits(y)) for y in up.ticks(5)],
        curves=[Curve(_steps(c["arrivals_per_s"], up), "steps")]
        + [Curve(line, "nominal") for line in _lines(c["completions_per_s"], up)],
    )


def in_flight(summary: Summary) -> Plot:
    """Requests with an instance, all classes together, over time."""
    course = summary["over_time"]
    total = [sum(values) for values in zip(*(c["in_flight"] for c in course["classes"].values()), strict=True)]
    up = Axis(0.0, 1.12 * max(total, default=0.0) or 1.0, log=False)
    return Plot(
        title="Requests in flight",
        alt="Mean number of requests with an instance, waiting or running, over time",
        x_ticks=_times(course["edges_s"]),
        y_ticks=[Tick(up.place(y), words.digits(y)) for y in up.ticks(5)],
        curves=[Curve(_steps(total, up), "steps")],
    )


def _times(edges: Sequence[float]) -> list[Tick]:
    return _apart([Tick(100.0 * x / edges[-1], label) for x, label in _time_axis(edges[-1])])


def _lines(values: Sequence[float | None], up: Axis) -> list[str]:
    """A line through the middles of the bins that have a value; it stops where there is none."""
    runs: list[list[tuple[float, float]]] = [[]]
    for i, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append((100 * (i + 0.5) / len(values), 100 - up.place(value)))
    half = 50 / max(len(values), 1)
    alone = [[(x - half, y), (x + half, y)] if len(run) == 1 else run for run in runs for x, y in run[:1]]
    return [" ".join(f"{x:.2f},{y:.2f}" for x, y in run) for run in alone]


def _steps(values: Sequence[float], up: Axis) -> str:
    """The outline of bars from zero."""
    points, n = ["0,100"], len(values)
    for i, value in enumerate(values):
        height = 100.0 - up.place(value)
        points += [f"{100 * i / n:.2f},{height:.2f}", f"{100 * (i + 1) / n:.2f},{height:.2f}"]
    return " ".join([*points, "100,100"])

"""A picture of traffic for people: in the terminal, and as one self-contained HTML file."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infermix import __version__
from infermix.errors import InputError
from infermix.report import words
from infermix.report.charts import Axis, Curve, Plot, Tick
from infermix.report.html import _environment
from infermix.workload.picture import Arriving, Column, Picture

BARS = " ▁▂▃▄▅▆▇█"
LABELS = {
    "input_tokens": "input",
    "uncached_tokens": "uncached",
    "output_tokens": "output",
    "context_tokens": "context",
    "turns": "requests",
    "think_s": "pause",
    "service_s": "service",
}
TITLES = {
    "input_tokens": "Input tokens of a request",
    "uncached_tokens": "Input tokens that were not cached",
    "output_tokens": "Output tokens of a request",
    "context_tokens": "Context: input and output tokens",
    "turns": "Requests of a session",
    "think_s": "Pause after an answer: thinking and tools",
    "service_s": "Service time, arrival to last token",
}
_UNITS = (("d", 86400.0), ("h", 3600.0), ("min", 60.0))
TIMES_S = (0.001, 0.01, 0.1, 1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0, 86400.0, 864000.0)
"""Ticks of an axis of time [s]."""
POISSON_IS_1 = "1 is Poisson"


def duration(value: float | None) -> str:
    """A time from microseconds to days.

    >>> duration(3537.0), duration(86400.0), duration(0.002)
    ('59 min', '24 h', '2 ms')
    """
    if value is None or not math.isfinite(value) or value < 120:
        return words.seconds(value)
    for unit, seconds, most in (("min", 60.0, 120.0), ("h", 3600.0, 72.0), ("days", 86400.0, math.inf)):
        if value / seconds < most:
            return f"{words.digits(value / seconds)} {unit}"
    raise AssertionError(value)


def heading(picture: Picture) -> str:
    """What is shown, in a line."""
    count = f"{picture.requests:,} requests"
    if picture.kind == "profile":
        return f"{picture.name}: a profile, {picture.format}; {count} drawn"
    return f"{picture.name}: {picture.format}, {count}"


def load(picture: Picture) -> str:
    """How much work comes in a second."""
    if picture.rate_per_s is None:
        return ""
    over = f" over {duration(picture.span_s)}" if picture.span_s else ""
    each = [f"{words.digits(v)} {name}" for name, v in picture.tokens_per_s.items()]
    return f"{words.digits(picture.rate_per_s)} requests a second{over}; tokens a second: {', '.join(each)}"


def burstiness(arrivals: Arriving) -> str:
    """How far arrivals are from Poisson."""
    each = [f"{words.digits(v)} in {w} s" for w, v in arrivals.dispersion.items() if math.isfinite(v)]
    counts = f"; variance over mean of counts {', '.join(each)}" if each else ""
    return f"cv of gaps {words.digits(arrivals.gap_cv)}{counts} ({POISSON_IS_1})"


def reuse(picture: Picture) -> list[str]:
    """What was there before, in sentences."""
    r = picture.reuse
    if not r.cached_share and not r.blocks:
        return ["Nothing is known to be cached."]
    said = [f"{words.share(r.cached_share)} of input tokens cached; {words.share(r.warm_share)} of requests have some."]
    if r.blocks:
        said.append(
            f"{r.blocks:,} prefix blocks of {r.block_tokens} tokens, {r.distinct_blocks:,} of them distinct: "
            f"{words.share(r.known_share)} were seen before, {words.share(r.prefix_share)} in a leading run that a "
            "prefix cache can use."
        )
    return said


def repairs(picture: Picture) -> list[str]:
    """What was changed while reading."""
    return [f"{name.replace('_', ' ')}: {n:,}" for name, n in picture.repairs.items()]


def tables(picture: Picture) -> dict[str, dict[str, Column]]:
    """Title → rows of distributions."""
    found = {"Lengths [tokens]": picture.lengths}
    if picture.sessions is not None:
        s = picture.sessions
        count = f"{s.sessions:,} sessions" if s.sessions else "Sessions"
        found[count] = {k: c for k in ("turns", "think_s", "service_s") if (c := getattr(s, k)) is not None}
    return found


def value(name: str, x: float) -> str:
    """A value of a distribution in its unit."""
    return duration(x) if name.endswith("_s") else words.digits(x, 4)


def spark(values: Sequence[float], width: int | None = None) -> str:
    """Values as blocks of eight heights, averaged down to ``width`` of them.

    >>> spark([0.0, 1.0, 2.0, 4.0])
    ' ▂▄█'
    """
    n = min(width or len(values), len(values))
    edges = [i * len(values) // n for i in range(n + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(edges)]
    top = max(means, default=0.0)
    return "".join(BARS[0 if m <= 0 else max(1, round(8 * m / top))] for m in means)


def print_picture(picture: Picture, console: Console) -> None:
    """Print a picture in at most 100 columns."""
    _say(console, heading(picture), "bold")
    for line in (picture.description, load(picture)):
        if line:
            _say(console, line)
    for title, rows in tables(picture).items():
        console.print()
        console.print(_distributions(title, rows))
    if picture.arrivals is not None:
        _print_arrivals(picture.arrivals, picture.drawn, console)
    console.print()
    for line in reuse(picture):
        _say(console, line)
    if len(picture.models) > 1:
        _say(console, "Models: " + ", ".join(f"{name or 'none'} {n:,}" for name, n in picture.models.items()))
    if picture.repairs:
        _say(console, "Repairs: " + "; ".join(repairs(picture)), "yellow")
    for note in picture.notes:
        _say(console, note, "dim")
    if picture.licence:
        _say(console, f"Source: {picture.source}; {picture.licence}", "dim")


def _print_arrivals(arrivals: Arriving, drawn: bool, console: Console) -> None:
    console.print()
    _say(console, "Arrivals, drawn" if drawn else "Arrivals, as recorded", "bold")
    peak = f"peak {words.digits(max(arrivals.per_s))}/s, {words.digits(arrivals.peak_to_mean)} times the mean"
    console.print(Text(spark(arrivals.per_s, 72), style="blue"))
    _say(console, f"each mark {duration(arrivals.window_s * max(len(arrivals.per_s) / 72, 1))}; {peak}", "dim")
    _say(console, burstiness(arrivals))
    if arrivals.clock_step_s:
        _say(console, f"The clock steps by {duration(arrivals.clock_step_s)}; requests were spread over a step by lot.")


def _distributions(title: str, rows: dict[str, Column]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for head in ("", "mean", "p50", "p90", "p99", "max"):
        table.add_column(head, justify="right" if head else "left", no_wrap=True)
    table.add_column("few to many, log", no_wrap=True)
    for name, c in rows.items():
        cells = (value(name, x) for x in (c.mean, c.p50, c.p90, c.p99, c.max))
        table.add_row(Text(LABELS[name], style="bold"), *cells, Text(spark(c.counts), style="blue"))
    return table


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(Text(text, style=style))


def write_picture(picture: Picture, path: str | Path) -> None:
    """Write a picture as one HTML file; InputError when it cannot be written."""
    text = render_picture(picture)
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise InputError(f"cannot be written: {fault.strerror}", where=str(path)) from None


def render_picture(picture: Picture) -> str:
    """A picture as the text of an HTML file."""
    import sys

    template = _environment().get_template("workload.html")
    plots = {title: [histogram(name, c) for name, c in rows.items()] for title, rows in tables(picture).items()}
    return template.render(
        picture=picture,
        words=words,
        say=sys.modules[__name__],
        plots=plots,
        rates=None if picture.arrivals is None else rate_plot(picture.arrivals),
        version=__version__,
    )


def histogram(name: str, c: Column) -> Plot:
    """Share of requests by size on a logarithmic axis, with the median."""
    axis = Axis(c.edges[0], c.edges[-1])
    total = max(sum(c.counts), 1)
    shares = [100.0 * n / total for n in c.counts]
    top = 1.12 * max(shares)
    points = [f"{axis.place(c.edges[0]):.2f},100"]
    for left, right, share in zip(c.edges[:-1], c.edges[1:], shares, strict=True):
        height = 100.0 - 100.0 * share / top
        points += [f"{axis.place(left):.2f},{height:.2f}", f"{axis.place(right):.2f},{height:.2f}"]
    points.append(f"{axis.place(c.edges[-1]):.2f},100")
    median = min(max(c.p50, c.edges[0]), c.edges[-1])
    up = Axis(0.0, top, log=False)
    return Plot(
        title=TITLES[name],
        alt=f"{TITLES[name]}: median {value(name, c.p50)}, 99 of 100 below {value(name, c.p99)}",
        x_ticks=_apart([Tick(axis.place(x), _tick(name, x)) for x in _ticks(name, axis)]),
        y_ticks=[Tick(up.place(y), f"{words.digits(y)}%") for y in up.ticks(4)],
        curves=[Curve(" ".join(points), "steps")],
        promise=Tick(axis.place(median), f"median {value(name, c.p50)}"),
    )


def _ticks(name: str, axis: Axis) -> list[float]:
    """Round values of an axis; times are round in seconds, minutes, hours and days."""
    if name.endswith("_s") and axis.high > 60.0 * axis.low:
        return [x for x in TIMES_S if axis.low <= x <= axis.high]
    return axis.ticks(7)


def _tick(name: str, x: float) -> str:
    if name.endswith("_s"):
        return next((f"{x / s:g} {unit}" for unit, s in _UNITS if x >= s), words.seconds(x))
    return f"{x / 1000:g}k" if x >= 1000 else f"{x:g}"


def _apart(ticks: list[Tick]) -> list[Tick]:
    """Every other tick has room on a narrow page where there are many."""
    many = len(ticks) > 4
    return [Tick(t.at, t.label, t.sub, many and i % 2 == 1) for i, t in enumerate(ticks)]


def rate_plot(arrivals: Arriving) -> Plot:
    """Requests a second over time."""
    n, span = len(arrivals.per_s), len(arrivals.per_s) * arrivals.window_s
    up, along = Axis(0.0, 1.12 * max(arrivals.per_s) or 1.0, log=False), _time_axis(span)
    points = ["0,100"]
    for i, rate in enumerate(arrivals.per_s):
        height = 100.0 - up.place(rate)
        points += [f"{100 * i / n:.2f},{height:.2f}", f"{100 * (i + 1) / n:.2f},{height:.2f}"]
    points.append("100,100")
    mean = sum(arrivals.per_s) / n
    return Plot(
        title="Requests a second",
        alt=f"Requests a second over {duration(span)}, between {min(arrivals.per_s):.3g} and {max(arrivals.per_s):.3g}",
        x_ticks=_apart([Tick(100.0 * x / span, label) for x, label in along]),
        y_ticks=[Tick(up.place(y), words.digits(y)) for y in up.ticks(5)],
        curves=[Curve(" ".join(points), "steps")],
        level=Tick(up.place(mean), "mean"),
    )


def _time_axis(span_s: float) -> list[tuple[float, str]]:
    """Round times from 0 to the span, with labels in one unit."""
    for unit, seconds in (("days", 86400.0), ("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if span_s >= 3 * seconds or unit == "s":
            return [(x * seconds, f"{x:g} {unit}") for x in Axis(0.0, span_s / seconds, log=False).ticks(8)]
    raise AssertionError(span_s)

"""Shapes of the charts: everything is placed in percent of the plot, so that a page needs no script.

A plot is drawn as an SVG that stretches with the page, with its words as HTML text on top, so that lines and
letters keep their size at any width.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from infermix.plan.result import FrontierPoint, Plan
from infermix.report import words


class Tick(msgspec.Struct, frozen=True):
    """A mark on an axis: place [%], words, and a second line of words."""

    at: float
    label: str
    sub: str = ""
    tight: bool = False
    """Too near to another one for a narrow page."""


class Curve(msgspec.Struct, frozen=True):
    """A line through ``x,y`` points as SVG wants them (y counts downwards)."""

    points: str
    style: str


class Mark(msgspec.Struct, frozen=True):
    """A point with its words: place [%] from the left and from the bottom."""

    x: float
    y: float
    style: str
    title: str


class Plot(msgspec.Struct, frozen=True, kw_only=True):
    """One plot with two axes."""

    title: str
    alt: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    marks: list[Mark] = []
    promise: Tick | None = None
    level: Tick | None = None


class Segment(msgspec.Struct, frozen=True):
    """A part of a bar: words, width [%], kind of chip, shade among its kind."""

    label: str
    width: float
    kind: str
    shade: int
    value: str


class Bar(msgspec.Struct, frozen=True, kw_only=True):
    """A bar of segments with its name and total."""

    name: str
    value: str
    segments: list[Segment]
    style: str = ""
    note: str = ""


class Whisker(msgspec.Struct, frozen=True):
    """An attainment with its interval and promise, placed in percent."""

    name: str
    speeds: str
    at: float
    low: float
    high: float
    promise: float
    holds: bool
    value: str
    interval: str


class Whiskers(msgspec.Struct, frozen=True):
    """Attainments of all classes on one axis."""

    ticks: list[Tick]
    rows: list[Whisker]


class Frontier(msgspec.Struct, frozen=True):
    """Cost against the speed promised to a class: a plot and its points."""

    name: str
    plot: Plot | None
    log: bool
    """Whether the axis of cost is logarithmic."""
    points: list[FrontierPoint]


def shades(plan: Plan) -> dict[str, int]:
    """A shade for each pool: pools of one kind share a hue and differ in depth."""
    seen: dict[str, int] = {}
    found = {}
    for pool in plan.fleet:
        found[pool.name] = seen.get(pool.kind, 0) % 4
        seen[pool.kind] = seen.get(pool.kind, 0) + 1
    return found


def fleet_bars(plan: Plan) -> list[Bar]:
    """Cost and output tokens by pool, each as one stacked bar."""
    total = sum(p.usd_per_hour for p in plan.fleet)
    cost = [(p.usd_per_hour / total if total else 0.0, f"{words.money(p.usd_per_hour)}/h") for p in plan.fleet]
    outputs = [(p.share_output_tokens, words.share(p.share_output_tokens)) for p in plan.fleet]
    shade = shades(plan)
    bars = []
    for name, value, parts in (
        ("Cost", f"{words.money(plan.usd_per_hour)}/h", cost),
        ("Output tokens", "100%", outputs),
    ):
        segments = [
            Segment(p.name, 100 * part, words.kind_of(p.kind), shade[p.name], text)
            for p, (part, text) in zip(plan.fleet, parts, strict=True)
        ]
        bars.append(Bar(name=name, value=value, segments=segments))
    return bars


def cost_bars(plan: Plan) -> list[Bar]:
    """The plan beside its lower bound, the study without least shares, and the single-chip fleets that can."""
    relaxed = plan.without_share_limits.get("usd_per_hour")
    bound = plan.lower_bound_usd_per_hour if math.isfinite(plan.lower_bound_usd_per_hour) else None
    rows = words.able(plan)
    costs = [plan.usd_per_hour, bound, relaxed, *(row.usd_per_hour for row in rows)]
    top = max((c for c in costs if isinstance(c, float) and math.isfinite(c)), default=0.0) or 1.0
    shade, kinds = shades(plan), {p.system: words.kind_of(p.kind) for p in plan.fleet}
    mine = [
        Segment(p.name, 100 * p.usd_per_hour / top, words.kind_of(p.kind), shade[p.name], words.money(p.usd_per_hour))
        for p in plan.fleet
    ]
    note = words.STATUS.get(plan.status, plan.status)
    bars = [Bar(name="This plan", value=f"{words.money(plan.usd_per_hour)}/h", segments=mine, note=note)]

    def add(name: str, cost: object, kind: str, style: str, note: str) -> None:
        if isinstance(cost, (int, float)) and math.isfinite(cost):
            segment = Segment(name, 100 * cost / top, kind, 0, words.money(cost))
            bars.append(Bar(name=name, value=f"{words.money(cost)}/h", segments=[segment], style=style, note=note))

    add("Lower bound", bound, "other", "bound", "queue-free: the least that able deployments cost")
    status = str(plan.without_share_limits.get("status") or "")
    add("Without least shares", relaxed, "other", "", f"the same study, {words.STATUS.get(status, status)}")
    for row in rows:
        add(f"Only {row.system}", row.usd_per_hour, kinds.get(row.system, "other"), "", words.STATUS[row.status])
    return bars


def whiskers(plan: Plan) -> Whiskers | None:
    """Attainment of every class at nominal and low speeds on one axis that ends at 100 %."""
    if not plan.classes:
        return None
    lowest = min(
        min(c.ci[0], c.ci_low[0], c.attainment, c.attainment_low, c.slo.get("attainment", 1.0))
        for c in plan.classes.values()
    )
    start = max(0.0, 1.0 - 1.15 * max(1.0 - lowest, 1e-3))

    def place(value: float) -> float:
        return 98.0 * (value - start) / (1.0 - start)

    ticks = [Tick(place(v), f"{words.digits(100 * v, 6)}%") for v in _linear_ticks(start, 1.0, 6)]
    rows = []
    for name, c in plan.classes.items():
        promised = place(c.slo.get("attainment", 1.0))
        for speeds, at, ci, holds in (
            ("nominal", c.attainment, c.ci, c.holds),
            ("low", c.attainment_low, c.ci_low, c.holds_low),
        ):
            interval = f"{words.attained(ci[0])} to {words.attained(ci[1])}"
            spots = (place(at), place(ci[0]), place(ci[1]), promised)
            rows.append(Whisker(name, speeds, *spots, holds, words.attained(at), interval))
    return Whiskers(ticks, rows)


def cdfs(plan: Plan) -> dict[str, list[Plot]]:
    """Latency distributions of each class: TTFT, TPOT, and E2E where it is promised."""
    found: dict[str, list[Plot]] = {}
    for name, c in plan.classes.items():
        wanted = [k for k in words.TARGETS if k in c.cdf and (k != "e2e_s" or "e2e_s" in c.slo)]
        plots = (cdf_plot(name, c.slo, key, c.cdf.get(key, ()), c.cdf_low.get(key, ())) for key in wanted)
        found[name] = [plot for plot in plots if plot is not None]
    return found


def cdf_plot(
    name: str, slo: Mapping[str, float], key: str, at_nominal: Sequence[float], at_low: Sequence[float]
) -> Plot | None:
    """Share of a class's requests by one of its times, with what was promised; None without any time."""
    nominal, low = _quantiles(at_nominal), _quantiles(at_low)
    values = [x for x, _ in nominal + low]
    if not values:
        return None
    target = slo.get(key)
    left, right = min(values), max([*values, target or 0.0])
    axis = Axis(left / 1.1, max(right * 1.25, left * 3))
    curves = [
        Curve(" ".join(f"{axis.place(x):.2f},{100 - y:.2f}" for x, y in points), style)
        for points, style in ((low, "low-line"), (nominal, "nominal"))
        if points
    ]
    label = words.TARGETS[key]
    promised = "" if target is None else f", promised {words.seconds(target)}"
    return Plot(
        title=f"{label} of {name}",
        alt=f"Share of requests of {name} with {label} up to a time{promised}",
        x_ticks=[Tick(axis.place(v), words.seconds(v)) for v in axis.ticks()],
        y_ticks=[Tick(y, f"{y}%") for y in (0, 25, 50, 75, 100)],
        curves=curves,
        promise=None if target is None else Tick(axis.place(target), f"promised {words.seconds(target)}"),
        level=Tick(100 * slo.get("attainment", 1.0), ""),
    )


def _quantiles(values: Sequence[float]) -> list[tuple[float, float]]:
    """(time, per cent of requests): quantiles are evenly spaced from 0 to 100 %."""
    last = max(len(values) - 1, 1)
    return [(x, 100.0 * i / last) for i, x in enumerate(values) if math.isfinite(x) and x > 0]


def frontiers(plan: Plan) -> list[Frontier]:
    """Cost against promised TPOT, one plot for each class that was varied."""
    names = list(dict.fromkeys(point.class_name for point in plan.frontier))
    found = []
    for name in names:
        points = sorted((p for p in plan.frontier if p.class_name == name), key=lambda p: p.tpot_s)
        plot = _frontier_plot(plan, name, points)
        found.append(Frontier(name, plot, plot is not None and _costs_axis(plan, points).log, points))
    return found


def _frontier_plot(plan: Plan, name: str, points: list[FrontierPoint]) -> Plot | None:
    costs = [(p.tpot_s, p.usd_per_hour) for p in points if p.usd_per_hour is not None]
    proved = [(f.tpot_s, f.usd_per_hour) for f in plan.proved_fleets if _near(f.tpot_s, points)]
    bounds = [(p.tpot_s, p.lower_bound_usd_per_hour) for p in points if p.lower_bound_usd_per_hour is not None]
    own = plan.classes[name].slo.get("tpot_s") if name in plan.classes else None
    if not costs:
        return None
    xs = [p.tpot_s for p in points] + ([own] if own else [])
    across, up = Axis(min(xs) / 1.25, max(xs) * 1.25), _costs_axis(plan, points)

    def line(pairs: Iterable[tuple[float, float]]) -> str:
        return " ".join(f"{across.place(x):.2f},{100 - up.place(y):.2f}" for x, y in pairs)

    marks = [Mark(across.place(x), up.place(y), "bound", f"lower bound {words.money(y)}/h") for x, y in bounds]
    marks += [
        Mark(across.place(x), up.place(y), "fleet", f"proved at {words.seconds(x)}: {words.money(y)}/h")
        for x, y in proved
    ]
    marks += [Mark(across.place(x), up.place(y), "point", f"{words.seconds(x)}: {words.money(y)}/h") for x, y in costs]
    marks += [
        Mark(across.place(p.tpot_s), 0.0, "cannot", f"{words.seconds(p.tpot_s)}: no fleet")
        for p in points
        if p.usd_per_hour is None
    ]
    if own:
        mine = f"this plan: {words.seconds(own)}, {words.money(plan.usd_per_hour)}/h"
        marks.append(Mark(across.place(own), up.place(plan.usd_per_hour), "own", mine))
    return Plot(
        title=f"Cost against the TPOT promised to {name}",
        alt=f"Cost per hour of the fleet for each TPOT promised to {name}, with the lower bound",
        x_ticks=_speed_ticks(across, [p.tpot_s for p in points], own),
        y_ticks=[Tick(up.place(v), words.money(v)) for v in up.ticks()],
        curves=[Curve(line(run), "bound-line") for run in _runs(points, "lower_bound_usd_per_hour")]
        + [Curve(line(run), "cost") for run in _runs(points, "usd_per_hour")],
        marks=marks,
    )


def _near(tpot_s: float, points: list[FrontierPoint]) -> bool:
    """Whether a TPOT lies where promises were tried."""
    return min(p.tpot_s for p in points) / 1.25 <= tpot_s <= max(p.tpot_s for p in points) * 1.25


def _speed_ticks(axis: Axis, tpots: list[float], own: float | None) -> list[Tick]:
    """A tick for each TPOT; on a narrow page those stay that have room, the study's own first."""
    shown: list[float] = []
    for tpot in sorted(tpots, key=lambda t: (t != own, t)):
        if all(abs(axis.place(tpot) - axis.place(other)) > 14 for other in shown):
            shown.append(tpot)
    return [Tick(axis.place(t), words.seconds(t), f"{words.digits(1 / t)}/s", t not in shown) for t in tpots]


def _runs(points: list[FrontierPoint], field: str) -> list[list[tuple[float, float]]]:
    """Stretches of points with a cost: a line stops where there is no fleet."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if (cost := getattr(point, field)) is None:
            runs.append([])
        else:
            runs[-1].append((point.tpot_s, cost))
    return [run for run in runs if len(run) > 1]


class Axis(msgspec.Struct, frozen=True):
    """An axis from ``low`` to ``high``, linear or logarithmic."""

    low: float
    high: float
    log: bool = True

    def place(self, value: float) -> float:
        """Place of a value [%]."""
        if self.log:
            return 100.0 * math.log(value / self.low) / math.log(self.high / self.low)
        return 100.0 * (value - self.low) / (self.high - self.low)

    def ticks(self, most: int = 6) -> list[float]:
        """At most about ``most`` round values; where decades are many, every other one."""
        return _log_ticks(self.low, self.high, most) if self.log else _linear_ticks(self.low, self.high, most)


def _costs_axis(plan: Plan, points: list[FrontierPoint]) -> Axis:
    """Linear from zero, unless the costs spread so far that a logarithm says more."""
    costs = [c for p in points for c in (p.usd_per_hour, p.lower_bound_usd_per_hour) if c is not None]
    costs += [f.usd_per_hour for f in plan.proved_fleets if _near(f.tpot_s, points)]
    low, high = min([*costs, plan.usd_per_hour]), max([*costs, plan.usd_per_hour])
    return Axis(low / 1.4, high * 1.25) if low > 0 and high / low > 4 else Axis(0.0, high * 1.15 or 1.0, log=False)


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for steps, stride in (((1, 2, 5), 1), ((1, 3), 1), ((1,), 1), ((1,), 2), ((1,), 3)):
        decades = range(first, last + 1, stride)
        found = [s * 10.0**d for d in decades for s in steps if low <= s * 10.0**d <= high]
        if len(found) <= most:
            break
    return found


def _linear_ticks(low: float, high: float, most: int) -> list[float]:
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(s * power for s in (1, 2, 2.5, 5, 10) if s * power >= raw * (1 - 1e-9))
    return [i * step for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]

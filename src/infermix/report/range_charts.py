"""Charts of what the answer hangs on, and of cost against vendors and profit against power."""

from __future__ import annotations

import math

import msgspec

from infermix.plan.result import Plan, SwingPoint
from infermix.report import words
from infermix.report.charts import Axis, Curve, Mark, Plot, Tick


class Swing(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of the catalogue: the cost of the best fleet at both ends of its range, placed in percent."""

    id: str
    range: str
    low: float
    high: float
    at_low: str
    at_high: str
    note: str
    """What becomes of the choice."""


class Tornado(msgspec.Struct, frozen=True, kw_only=True):
    """Figures on one axis of cost."""

    ticks: list[Tick]
    base: float
    rows: list[Swing]


def tornado(plan: Plan) -> Tornado | None:
    """The figures that the answer hangs on; None where none was tried."""
    ends = [usd for swing in plan.swings for usd in (swing.usd_at_low, swing.usd_at_high) if usd is not None]
    if not plan.swings or not math.isfinite(plan.usd_per_hour):
        return None
    low, high = min([*ends, plan.usd_per_hour]), max([*ends, plan.usd_per_hour])
    room = 0.08 * (high - low) or 0.05 * high or 1.0
    axis = Axis(low - room, high + room, log=False)
    return Tornado(
        ticks=[Tick(axis.place(v), words.money(v)) for v in axis.ticks(5)],
        base=axis.place(plan.usd_per_hour),
        rows=[_swing(swing, axis, _unit(plan, swing.id)) for swing in plan.swings],
    )


def _swing(swing: SwingPoint, axis: Axis, unit: str) -> Swing:
    spots = [100.0 if usd is None else axis.place(usd) for usd in (swing.usd_at_low, swing.usd_at_high)]
    said = ["no fleet" if u is None else f"{words.money(u)}/h" for u in (swing.usd_at_low, swing.usd_at_high)]
    changes = [end for end, stays in (("low", swing.survives_low), ("high", swing.survives_high)) if not stays]
    return Swing(
        id=swing.id,
        range=f"{words.quantity(swing.low, unit)} to {words.quantity(swing.high, unit)}",
        low=spots[0],
        high=spots[1],
        at_low=said[0],
        at_high=said[1],
        note=f"other systems at its {words.joined(changes)} end" if changes else "the same systems at both ends",
    )


def _unit(plan: Plan, id_: str) -> str:
    """Unit of a figure: the plan's word where it is among the unverified, else by how its name ends."""
    known = next((figure.unit for figure in plan.unverified if figure.id == id_), None)
    endings = {"usd_per_hour": "USD/h", "bytes_per_s": "byte/s", "flop_per_s": "FLOP/s", "_bytes": "byte", "_s": "s"}
    return known or next((unit for ending, unit in endings.items() if id_.endswith(ending)), "1")


def vendor_plot(plan: Plan) -> Plot | None:
    """Cost against the largest share of the spend that one vendor may have; None where that was not tried."""
    points = [p for p in plan.vendor_frontier if p.usd_per_hour is not None]
    if not points:
        return None
    spent: dict[str, float] = {}
    for pool in plan.fleet:
        spent[pool.vendor] = spent.get(pool.vendor, 0.0) + pool.usd_per_hour
    own = max(spent.values(), default=0.0) / (sum(spent.values()) or 1.0)
    shares = [p.max_vendor_share for p in plan.vendor_frontier]
    across = Axis(min([*shares, own]) - 0.04, 1.02, log=False)
    up = Axis(0.0, 1.15 * max([plan.usd_per_hour, *(p.usd_per_hour or 0.0 for p in points)]), log=False)
    spots = sorted((p.max_vendor_share, p.usd_per_hour or 0.0) for p in points)
    marks = [
        Mark(across.place(x), up.place(y), "point", f"at most {words.share(x)}: {words.money(y)}/h") for x, y in spots
    ]
    marks += [
        Mark(across.place(p.max_vendor_share), 0.0, "cannot", f"at most {words.share(p.max_vendor_share)}: no fleet")
        for p in plan.vendor_frontier
        if p.usd_per_hour is None
    ]
    mine = f"this plan: {words.share(own)}, {words.money(plan.usd_per_hour)}/h"
    return Plot(
        title="Cost against the largest share of one vendor",
        alt="Cost per hour of the fleet for each largest share of the spend that one vendor may have",
        x_ticks=[Tick(across.place(v), f"{v:.0%}") for v in across.ticks(6)],
        y_ticks=[Tick(up.place(v), words.money(v)) for v in up.ticks()],
        curves=[Curve(" ".join(f"{across.place(x):.2f},{100 - up.place(y):.2f}" for x, y in spots), "cost")],
        marks=[*marks, Mark(across.place(own), up.place(plan.usd_per_hour), "own", mine)],
    )


def power_plot(plan: Plan) -> Plot | None:
    """Profit against power; None where profit is not maximised."""
    spots = sorted(
        (p.power_mw, p.profit_usd_per_hour) for p in plan.power_frontier if p.profit_usd_per_hour is not None
    )
    if not spots:
        return None
    most = max(p.power_mw for p in plan.power_frontier)
    across = Axis(0.0, 1.05 * most, log=False)
    profits = [y for _, y in spots]
    up = Axis(min(0.0, *profits), 1.15 * max(*profits, 1e-9), log=False)
    return Plot(
        title="Profit against power",
        alt="Profit per hour of the best fleet within each power at the wall",
        x_ticks=[Tick(across.place(v), f"{words.digits(v)} MW") for v in across.ticks(6)],
        y_ticks=[Tick(up.place(v), words.money(v)) for v in up.ticks()],
        curves=[Curve(" ".join(f"{across.place(x):.2f},{100 - up.place(y):.2f}" for x, y in spots), "cost")],
        marks=[
            Mark(across.place(x), up.place(y), "point", f"{words.digits(x)} MW: {words.money(y)}/h") for x, y in spots
        ],
    )

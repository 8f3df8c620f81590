"""The picture of a day: systems at work, what they cost, and what is asked for, slot by slot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec

from infermix.plan.result import Plan, SlotPlan
from infermix.report import words
from infermix.report.charts import Axis, Curve, Plot, Tick, shades

LEGIBLE = 9
"""Ticks of hours that fit below a plot."""


class Layer(msgspec.Struct, frozen=True):
    """One of the parts that a plot stacks: its name, kind of chip, and shade among its kind."""

    name: str
    kind: str
    shade: int


class DayPicture(msgspec.Struct, frozen=True, kw_only=True):
    """The slots of one scenario, or of all scenarios where each is one slot."""

    title: str
    plots: list[Plot]
    """Systems at work, then money, each stacked; then requests of every class."""
    layers: list[list[Layer]]
    """What the first two plots stack, from below."""


def day_pictures(plan: Plan) -> list[DayPicture]:
    """A picture for every scenario; one of all scenarios where a day is not parted; none where there is one slot."""
    scenarios = list(dict.fromkeys(slot.scenario for slot in plan.slots))
    if not plan.slots:
        return []
    if len(scenarios) == len(plan.slots):
        return [_picture(plan, plan.slots, "")]
    return [_picture(plan, [s for s in plan.slots if s.scenario == name], name) for name in scenarios]


def _picture(plan: Plan, slots: Sequence[SlotPlan], scenario: str) -> DayPicture:
    pools, money = pool_layers(plan), money_layers(plan)
    systems = {layer.name: [float(slot.systems.get(layer.name, 0)) for slot in slots] for layer in pools}
    usd = {layer.name: [slot.usd_per_hour.get(layer.name, 0.0) for slot in slots] for layer in money}
    plots = [
        _stacked("Systems at work", "Systems that run each pool, by time of day", slots, pools, systems),
        _stacked("Spend, $ an hour", "What is paid for each system and API, by time of day", slots, money, usd),
        *(_demand(name, slots) for name in slots[0].rates_per_s),
    ]
    chance = f"{scenario}, probability {words.share(slots[0].probability)}" if scenario else ""
    return DayPicture(title=chance, plots=plots, layers=[pools, money])


def pool_layers(plan: Plan) -> list[Layer]:
    """The pools, as the rest of the page colours them."""
    shade = shades(plan)
    return [Layer(p.name, words.kind_of(p.kind), shade[p.name]) for p in plan.fleet]


def money_layers(plan: Plan) -> list[Layer]:
    """Systems in the colour of their first pool, then APIs."""
    shade, found = shades(plan), dict[str, Layer]()
    for pool in plan.fleet:
        found.setdefault(pool.system, Layer(pool.system, words.kind_of(pool.kind), shade[pool.name]))
    rest = dict.fromkeys(name for slot in plan.slots for name in slot.usd_per_hour if name not in found)
    return [*found.values(), *(Layer(name, "other", i % 4) for i, name in enumerate(rest))]


def _stacked(
    title: str, alt: str, slots: Sequence[SlotPlan], layers: Sequence[Layer], values: Mapping[str, Sequence[float]]
) -> Plot:
    edges, total = _edges(slots), [sum(column) for column in zip(*values.values(), strict=True)]
    up, below, curves = Axis(0.0, 1.12 * max(total, default=0.0) or 1.0, log=False), [0.0] * len(slots), []
    for layer in layers:
        above = [b + v for b, v in zip(below, values[layer.name], strict=True)]
        if above != below:
            curves.append(Curve(_band(edges, below, above, up), f"stack {layer.kind} s{layer.shade}"))
        below = above
    whole = all(float(v).is_integer() for row in values.values() for v in row)
    ticks = [tick for tick in _up(up) if not whole or "." not in tick.label]
    return Plot(title=title, alt=alt, x_ticks=_ticks(slots), y_ticks=ticks, curves=curves)


def _demand(name: str, slots: Sequence[SlotPlan]) -> Plot:
    """Requests a second that are asked for, and beside them those that are served, where that is fewer."""
    asked = [slot.rates_per_s.get(name, 0.0) for slot in slots]
    served = [rate * (1.0 - slot.unmet.get(name, 0.0)) for rate, slot in zip(asked, slots, strict=True)]
    up = Axis(0.0, 1.12 * max(asked, default=0.0) or 1.0, log=False)
    edges, zeros = _edges(slots), [0.0] * len(slots)
    curves = [Curve(_band(edges, zeros, asked, up), "steps")]
    if any(s < a * (1 - 1e-6) for s, a in zip(served, asked, strict=True)):
        curves = [Curve(_band(edges, zeros, asked, up), "steps lost"), Curve(_band(edges, zeros, served, up), "steps")]
    return Plot(
        title=f"Requests of {name} a second",
        alt=f"Requests of {name} a second that are asked for, by time of day",
        x_ticks=_ticks(slots),
        y_ticks=_up(up),
        curves=curves,
    )


def _up(axis: Axis) -> list[Tick]:
    return [Tick(axis.place(v), words.digits(v)) for v in axis.ticks(5)]


def _edges(slots: Sequence[SlotPlan]) -> list[float]:
    """Where slots begin, and where the last one ends [%]; scenarios side by side are equally wide."""
    wide = [1.0 if _side_by_side(slots) else slot.hours for slot in slots]
    return [100.0 * sum(wide[:i]) / sum(wide) for i in range(len(wide) + 1)]


def _side_by_side(slots: Sequence[SlotPlan]) -> bool:
    return len({slot.scenario for slot in slots}) == len(slots) > 1 or len(slots) == 1


def _ticks(slots: Sequence[SlotPlan]) -> list[Tick]:
    """Hours at which slots begin, some of them; or the names of scenarios below the middle of each."""
    edges = _edges(slots)
    if _side_by_side(slots):
        middles = [(a + b) / 2 for a, b in pairwise(edges)]
        named = zip(middles, slots, strict=True)
        return [Tick(at, slot.scenario or slot.name, words.share(slot.probability)) for at, slot in named]
    stride = -(-len(slots) // LEGIBLE)
    begins = [sum(slot.hours for slot in slots[:i]) for i in range(len(slots) + 1)]
    kept = [*range(0, len(slots), stride), len(slots)]
    return [Tick(edges[i], f"{begins[i]:g}:00", tight=bool((k % 2) and i < len(slots))) for k, i in enumerate(kept)]


def _band(edges: Sequence[float], below: Sequence[float], above: Sequence[float], up: Axis) -> str:
    """The outline of steps between two heights."""
    tops = [(x, up.place(v)) for i, v in enumerate(above) for x in edges[i : i + 2]]
    bottoms = [(x, up.place(v)) for i, v in enumerate(below) for x in edges[i : i + 2]]
    return " ".join(f"{x:.2f},{100 - y:.2f}" for x, y in [*tops, *reversed(bottoms), tops[0]])

"""HTML pages of ``infermix perf``: one model on one system, and every chip for one model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from infermix import __version__
from infermix.catalog.records import Model
from infermix.errors import InputError
from infermix.explore.chips import WHY_NOT, ChipRow, Chips
from infermix.explore.point import Answer, Ask, Point, other_layouts
from infermix.explore.roofline import Roofline, roofline
from infermix.perf.breakdown import step_parts_s
from infermix.perf.operating import for_groups
from infermix.report import words
from infermix.report.charts import Axis, Bar, Curve, Mark, Segment, Tick
from infermix.report.html import _environment
from infermix.report.labels import Label, Named, place_labels

PARTS = (
    "attention projections", "MLP", "experts", "SRAM", "arithmetic", "KV cache", "logits, windows, states",
    "vocabulary", "collectives", "hops", "drafts", "launches", "synchronisation", "host",
)  # fmt: skip
"""Parts of a step in the order of their colours."""
BOUNDS = {
    "weights": "reading weights",
    "kv": "reading the KV cache",
    "compute": "arithmetic",
    "links": "exchange between chips",
    "latency": "launches and waiting",
}


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """A plot with titles on both axes, lines, marks and names."""

    title: str
    alt: str
    x_title: str
    y_title: str
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    curves: list[Curve]
    marks: list[Mark]
    labels: list[Label]


def write_point(found: Answer, ask: Ask, path: str | Path) -> None:
    """Write what is told about one model on one system as one HTML file.

    Raises
    ------
    InputError
        The file cannot be written, or the extra ``report`` is not installed.
    """
    _write(path, render_point(found, ask))


def write_chips(found: Chips, model: Model, path: str | Path) -> None:
    """Write every chip for one model as one HTML file; raises as ``write_point``."""
    _write(path, render_chips(found, model))


def _write(path: str | Path, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise InputError(f"cannot be written: {fault.strerror}", where=str(path)) from None


def render_point(found: Answer, ask: Ask) -> str:
    """The page of one model on one system as the text of an HTML file."""
    d = found.deployment
    line = roofline(d, ask.load, [p.batch for p in found.points]) if found.points else None
    bars = part_bars(found, ask)
    return _render(
        "perf.html",
        answer=found,
        ask=ask,
        d=d,
        now=found.prediction,
        bounds=BOUNDS,
        parts=[name for name in PARTS if any(s.label == name for bar in bars for s in bar.segments)],
        colours={name: f"part{i}" for i, name in enumerate(PARTS)},
        bars=bars,
        roofline=roofline_chart(line) if line else None,
        curve=curve_chart(found, ask) if found.points else None,
    )


def render_chips(found: Chips, model: Model) -> str:
    """The page of every chip for one model as the text of an HTML file."""
    reasons = {said: [r for r in found.cannot if r.reason_kind == kind] for kind, said in WHY_NOT.items()}
    priced = [r for r in found.rows if r.usd_per_mtok_output is not None]
    return _render(
        "perf_chips.html",
        found=found,
        model=model,
        priced=priced,
        kinds=[kind for kind in words.KINDS if any(words.kind_of(r.kind) == kind for r in priced)],
        reasons={said: rows for said, rows in reasons.items() if rows},
        unpriced=_unpriced(found.rows),
        converted=sorted({r.price_basis for r in priced} - {found.basis}),
        cheapest=min(priced, key=lambda r: r.usd_per_mtok_output or 0.0, default=None),
        fastest=max(found.rows, key=lambda r: r.fastest_tokens_per_s_user or 0.0, default=None),
        soonest=min(found.rows, key=lambda r: r.ttft_s or 0.0, default=None),
        chart=scatter_chart(found, priced) if len(priced) > 1 else None,
    )


def _render(template: str, **context: Any) -> str:
    return _environment().get_template(template).render(words=words, version=__version__, **context)


def _unpriced(rows: Iterable[ChipRow]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for row in rows:
        if row.no_price:
            mend = f" (to convert it: {row.no_price_mend})" if row.no_price_mend else ""
            found.setdefault(row.no_price + mend, []).append(row.chip)
    return found


def part_bars(found: Answer, ask: Ask) -> list[Bar]:
    """Where the time of a step goes at each batch: bars of equal length, parts as shares."""
    grown = for_groups(found.deployment)
    bars = []
    for point in found.points:
        parts = step_parts_s(grown, point.batch, ask.load.context)
        step = sum(parts.values())
        segments = [
            Segment(name, 100 * parts[name] / step, f"part{PARTS.index(name)}", 0, words.seconds(parts[name]))
            for name in PARTS
            if name in parts
        ]
        bars.append(Bar(name=f"Batch {point.batch:,}", value=words.seconds(step), segments=segments))
    return bars


def roofline_chart(line: Roofline) -> Chart:
    """Arithmetic done against arithmetic for each byte: ceilings of the datasheet, and those reached dashed."""
    top = max(c.peak for c in line.ceilings)
    xs = [s.intensity for s in line.spots]
    ridge = top / line.bytes_per_s
    across = Axis(min(*xs, ridge / 2) / 2, max(*xs, 2.5 * ridge))
    up = Axis(min(s.flop_per_s for s in line.spots) / 2.5, 2.2 * top)
    curves, named = [], []
    for c in line.ceilings:
        curves.append(_roof(across, up, line.bytes_per_s, c.peak, "peak-line" if c.used else "other-line"))
        named.append(Named(100.0, up.place(c.peak), f"{c.dtype} {words.quantity(c.peak, 'FLOP/s')}", "ceiling"))
        if c.used:
            curves.append(_roof(across, up, line.reached_bytes_per_s, c.reached, "reached-line"))
    marks = [
        Mark(
            across.place(s.intensity), up.place(s.flop_per_s), "spot prompt" if not s.batch else "spot decode", _spot(s)
        )
        for s in line.spots
    ]
    wanted = sorted(
        line.spots, key=lambda s: (s.batch > 0, s.batch not in (1, max(x.batch for x in line.spots)), s.batch)
    )
    names = [Named(across.place(s.intensity), up.place(s.flop_per_s), s.name) for s in wanted]
    ceilings = [Label(n.x, n.y, n.text, "inside", n.style) for n in _apart(named)]
    return Chart(
        title="Roofline of one chip",
        alt="Arithmetic done in decode steps and in reading a prompt against the ceilings of memory and arithmetic",
        x_title="FLOP for each byte read",
        y_title="FLOP/s of one chip",
        x_ticks=[Tick(across.place(v), words.digits(v)) for v in across.ticks(7)],
        y_ticks=[Tick(up.place(v), words.quantity(v, "FLOP/s").replace("FLOP/s", "")) for v in up.ticks(6)],
        curves=curves,
        marks=marks,
        labels=[*place_labels(names, [(m.x, m.y) for m in marks]), *ceilings],
    )


def _spot(s: Any) -> str:
    return f"{s.name}: {words.quantity(s.flop_per_s, 'FLOP/s')} at {words.digits(s.intensity)} FLOP/byte"


def _apart(names: Sequence[Named]) -> list[Named]:
    """Ceilings at the same height share a label."""
    found: dict[int, Named] = {}
    for n in names:
        key = round(n.y / 3)
        old = found.get(key)
        found[key] = n if old is None else Named(n.x, n.y, f"{old.text.split(' ')[0]}, {n.text}", n.style)
    return list(found.values())


def _roof(across: Axis, up: Axis, bytes_per_s: float, flop_per_s: float, style: str) -> Curve:
    """A slope of bandwidth up to a level of arithmetic, cut where it leaves the plot."""
    start = max(across.low, up.low / bytes_per_s)
    ridge = flop_per_s / bytes_per_s
    corners = [(start, start * bytes_per_s), (ridge, flop_per_s), (across.high, flop_per_s)]
    if ridge <= start:
        corners = [(across.low, flop_per_s), (across.high, flop_per_s)]
    return Curve(_line(across, up, [c for c in corners if c[0] <= across.high * (1 + 1e-9)]), style)


def _line(across: Axis, up: Axis, points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{across.place(x):.2f},{100 - up.place(y):.2f}" for x, y in points)


def curve_chart(found: Answer, ask: Ask) -> Chart:
    """Speed of a user against output of a chip, by batch; other layouts as thin lines."""
    d = found.deployment
    others = [(o.layout, o.chips, pts) for o, pts in other_layouts(d, ask)]
    every = [(d.layout, d.chips, found.points), *others]
    xs = [p.tokens_per_s_user for _, _, pts in every for p in pts]
    ys = [p.tokens_per_s / chips for _, chips, pts in every for p in pts]
    across, up = _axis(min(xs) / 1.1, max(xs) * 1.1), _axis(min(ys) / 1.3, max(ys) * 1.3)

    def line(points: Sequence[Point], chips: int, style: str) -> Curve:
        return Curve(_line(across, up, ((p.tokens_per_s_user, p.tokens_per_s / chips) for p in points)), style)

    spots = [(across.place(p.tokens_per_s_user), up.place(p.tokens_per_s / d.chips), p) for p in found.points]
    marks = [
        Mark(x, y, "spot own" if p.batch == ask.batch else "spot decode", f"batch {p.batch:,}: {_speeds(p)}")
        for x, y, p in spots
    ]
    first, last = found.points[0].batch, found.points[-1].batch
    order = sorted(spots, key=lambda s: (s[2].batch != ask.batch, s[2].batch not in (first, last), s[2].batch))
    named = [
        Named(x, y, f"{d.layout}, batch {p.batch:,}" if p.batch == ask.batch else f"{p.batch:,}") for x, y, p in order
    ]
    ends = [
        (layout, across.place(pts[-1].tokens_per_s_user), up.place(pts[-1].tokens_per_s / n))
        for layout, n, pts in others
    ]
    named += [Named(x, y, layout, "soft") for layout, x, y in ends]
    return Chart(
        title="Speed of a user against output of a chip",
        alt="Tokens a second of one user against tokens a second of a chip, by batch and layout",
        x_title="tokens/s of one user",
        y_title="tokens/s of a chip",
        x_ticks=[Tick(across.place(v), words.digits(v)) for v in across.ticks(6)],
        y_ticks=[Tick(up.place(v), words.digits(v)) for v in up.ticks(6)],
        curves=[*(line(pts, n, "other-line") for _, n, pts in others), line(found.points, d.chips, "peak-line")],
        marks=marks + [Mark(x, y, "spot end", layout) for layout, x, y in ends],
        labels=place_labels(named, [(m.x, m.y) for m in marks]),
    )


def _axis(low: float, high: float) -> Axis:
    """Logarithmic, but linear where a logarithm would have too few round values."""
    return Axis(low, high, log=high / low > 5)


def _speeds(p: Point) -> str:
    return f"{words.digits(p.tokens_per_s_user)} tokens/s of one user, {words.digits(p.tokens_per_s)} of all"


def scatter_chart(found: Chips, priced: Sequence[ChipRow]) -> Chart:
    """Speed of a user against the cost of output: each chip's choices as a line, its row as a mark, the front."""
    lines = found.by_chip.values()
    xs = [p.tokens_per_s_user for line in lines for p in line] + [r.tokens_per_s_user or 1.0 for r in priced]
    ys = [p.usd_per_mtok_output for line in lines for p in line] + [r.usd_per_mtok_output or 1.0 for r in priced]
    across, up = Axis(min(xs) / 1.2, max(xs) * 1.35), Axis(min(ys) / 1.3, max(ys) * 1.3)
    spots = [(across.place(r.tokens_per_s_user or 1.0), up.place(r.usd_per_mtok_output or 1.0), r) for r in priced]
    marks = [Mark(x, y, f"spot {words.kind_of(r.kind)}", _row_title(r)) for x, y, r in spots]
    on_front = {p.chip: p for p in found.front}
    ends = [(across.place(p.tokens_per_s_user), up.place(p.usd_per_mtok_output), p) for p in on_front.values()]
    marks += [
        Mark(x, y, f"spot ring {words.kind_of(p.kind)}", f"{p.chip} at its fastest on the front") for x, y, p in ends
    ]
    named = [Named(x, y, p.chip, "strong") for x, y, p in ends]
    named += [
        Named(x, y, r.chip, "strong" if r.chip in on_front else "") for x, y, r in sorted(spots, key=lambda s: s[1])
    ]
    return Chart(
        title="Speed of a user against cost",
        alt="Tokens a second of one user against dollars per million output tokens, for every chip with a price",
        x_title="tokens/s of one user",
        y_title="$ per million output tokens",
        x_ticks=[Tick(across.place(v), words.digits(v)) for v in across.ticks(7)],
        y_ticks=[Tick(up.place(v), words.money(v)) for v in up.ticks(6)],
        curves=[
            *(
                Curve(_path(across, up, line), f"chip-line {words.kind_of(line[0].kind)}")
                for line in lines
                if len(line) > 1
            ),
            Curve(_path(across, up, found.front), "front-line"),
        ],
        marks=marks,
        labels=place_labels(named, [(m.x, m.y) for m in marks]),
    )


def _path(across: Axis, up: Axis, points: Iterable[Any]) -> str:
    return _line(across, up, ((p.tokens_per_s_user, p.usd_per_mtok_output) for p in points))


def _row_title(r: ChipRow) -> str:
    cost = f"{words.money(r.usd_per_mtok_output)} per million output tokens"
    return f"{r.chip} {r.layout}, batch {r.batch:,}: {words.digits(r.tokens_per_s_user)} tokens/s of one user, {cost}"

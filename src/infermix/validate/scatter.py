"""Measured against predicted on logarithmic axes, as a small SVG picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from infermix.validate.predict import Predicted
from infermix.validate.score import group_of

SIZE, MARGIN = 420.0, 46.0
COLOURS = {"nvidia": "#4c78a8", "other_hbm": "#f58518", "sram": "#54a24b"}
NAMES = {"nvidia": "NVIDIA", "other_hbm": "other HBM", "sram": "SRAM"}
MOST_POINTS = 1500
"""Drawn of all rows, evenly picked."""


def scatter_svg(found: Sequence[Predicted], title: str) -> str:
    """One point a row; the diagonal is a right prediction, thin lines are a factor of 2 off."""
    points = [(p.row.value, p.value, group_of(p.row.chip)) for p in _picked(found)]
    values = [v for m, p, _ in points for v in (m, p)] or [1.0, 10.0]
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)) + 1e-9)
    high = max(high, low + 1)

    def at(value: float) -> float:
        return MARGIN + (math.log10(value) - low) / (high - low) * (SIZE - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{SIZE:g}" height="{SIZE:g}" font-size="11">',
        f'<rect width="{SIZE:g}" height="{SIZE:g}" fill="white"/>',
        f'<text x="{SIZE / 2:g}" y="20" text-anchor="middle" font-size="13">{title}</text>',
    ]
    parts += [_line(at, low, high, factor) for factor in (0.5, 1.0, 2.0)]
    for power in range(low, high + 1):
        x = at(10.0**power)
        parts.append(f'<text x="{x:.1f}" y="{SIZE - MARGIN + 16:g}" text-anchor="middle">1e{power}</text>')
        parts.append(f'<text x="{MARGIN - 6:g}" y="{SIZE - x + 4:.1f}" text-anchor="end">1e{power}</text>')
    for measured, predicted, group in points:
        parts.append(
            f'<circle cx="{at(measured):.1f}" cy="{SIZE - at(predicted):.1f}" r="1.6" fill="{COLOURS[group]}" '
            'fill-opacity="0.5"/>'
        )
    parts += _legend({group for _, _, group in points})
    return "\n".join([*parts, "</svg>", ""])


def _picked(found: Sequence[Predicted]) -> list[Predicted]:
    step = max(1.0, len(found) / MOST_POINTS)
    return [found[int(i * step)] for i in range(int(len(found) / step))]


def _line(at: Callable[[float], float], low: int, high: int, factor: float) -> str:
    x0, x1 = 10.0**low * max(1.0, 1.0 / factor), 10.0**high * min(1.0, 1.0 / factor)
    width = 1 if factor == 1.0 else 0.4
    return (
        f'<line x1="{at(x0):.1f}" y1="{SIZE - at(x0 * factor):.1f}" x2="{at(x1):.1f}" '
        f'y2="{SIZE - at(x1 * factor):.1f}" stroke="#888" stroke-width="{width}"/>'
    )


def _legend(groups: set[str]) -> list[str]:
    parts = [
        f'<text x="{SIZE / 2:g}" y="{SIZE - 8:g}" text-anchor="middle">measured</text>',
        f'<text x="12" y="{SIZE / 2:g}" text-anchor="middle" transform="rotate(-90 12 {SIZE / 2:g})">predicted</text>',
    ]
    for i, group in enumerate(sorted(groups)):
        y = MARGIN + 14 * i
        parts.append(f'<circle cx="{MARGIN + 12:g}" cy="{y:g}" r="4" fill="{COLOURS[group]}"/>')
        parts.append(f'<text x="{MARGIN + 20:g}" y="{y + 4:g}">{NAMES[group]}</text>')
    return parts

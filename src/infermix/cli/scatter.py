"""A chart of characters: speed of a user against the cost of a token."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich.text import Text

from infermix.explore.chips import ChipRow, FrontPoint
from infermix.report import words

KIND_STYLES = {"hbm": "blue", "sram": "yellow", "gddr": "green", "lpddr": "magenta", "other": "cyan"}
_WIDE, _HIGH = 78, 15


def scatter(rows: Sequence[ChipRow], front: Sequence[FrontPoint]) -> list[Text]:
    """Speed of a user against the cost of output, both logarithmic, as characters; empty where little has a price."""
    spots = [(r.tokens_per_s_user or 0.0, r.usd_per_mtok_output or 0.0, r.chip, r.kind, "\u25cf") for r in rows]
    spots += [(p.tokens_per_s_user, p.usd_per_mtok_output, p.chip, p.kind, "\u25c6") for p in front]
    if len(rows) < 3:
        return []
    xs, ys = [math.log10(s[0]) for s in spots], [math.log10(s[1]) for s in spots]
    left, low = min(xs), min(ys)
    across, up = max(max(xs) - left, 1e-9), max(max(ys) - low, 1e-9)
    grid = [[(" ", "")] * (_WIDE + 1) for _ in range(_HIGH + 1)]
    placed = [
        (round((x - left) / across * _WIDE), _HIGH - round((y - low) / up * _HIGH)) for x, y in zip(xs, ys, strict=True)
    ]
    for (column, line), spot in zip(placed, spots, strict=True):
        grid[line][column] = (spot[4], KIND_STYLES[words.kind_of(spot[3])])
    _label(grid, placed, spots, len(rows))
    costs = [10 ** (low + up * (_HIGH - line) / _HIGH) for line in range(_HIGH + 1)]
    lines = [
        Text("$ per million output tokens (\u25cf as in the table, \u25c6 none is faster and cheaper)", style="dim")
    ]
    for line, cells in enumerate(grid):
        mark = words.money(costs[line]) if line % 5 == 0 else ""
        lines.append(Text.assemble((f"{mark:>8} \u2502", "dim"), *cells))
    ends = [f"{words.digits(10 ** (left + across * share))}" for share in (0.0, 0.5, 1.0)]
    lines.append(Text(" " * 9 + "\u2514" + "\u2500" * (_WIDE + 1), style="dim"))
    axis = f"{ends[0]}{ends[1].center(_WIDE + 1 - len(ends[0]) - len(ends[2]))}{ends[2]}"
    return [*lines, Text(f"{'':>10}{axis}", style="dim"), Text(f"{'':>10}tokens/s for each user", style="dim")]


def _label(
    grid: list[list[tuple[str, str]]],
    placed: Sequence[tuple[int, int]],
    spots: Sequence[tuple[float, float, str, str, str]],
    first: int,
) -> None:
    """Names beside marks where there is room: those of the front first, then those of the table."""
    named: set[str] = set()
    for index in (*range(first, len(spots)), *range(first)):
        (column, line), name = placed[index], spots[index][2]
        if name in named:
            continue
        for start in (column + 2, column - 1 - len(name)):
            cells = grid[line][max(0, start - 1) : start + len(name) + 1]
            if start < 0 or start + len(name) > _WIDE + 1 or any(c != " " for c, _ in cells[1:-1]):
                continue
            for offset, letter in enumerate(name):
                grid[line][start + offset] = (letter, "dim")
            named.add(name)
            break

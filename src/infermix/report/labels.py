"""Names beside the marks of a plot, placed so that they do not overlap at any width of the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

WIDE, NARROW = (960.0, 400.0), (290.0, 300.0)
"""Width and height of a plot on a broad page and on a telephone [CSS pixels]."""
LETTER, LINE, GAP = 6.4, 15.0, 9.0
"""Width of a letter, height of a line, and distance of a name from its mark [CSS pixels]."""
SIDES = ("right", "left", "above", "below")

Box = tuple[float, float, float, float]


class Named(msgspec.Struct, frozen=True):
    """A mark that wants its name shown: place [%] from the left and from the bottom."""

    x: float
    y: float
    text: str
    style: str = ""


class Label(msgspec.Struct, frozen=True):
    """A name with the side of its mark that it stands on."""

    x: float
    y: float
    text: str
    side: str
    style: str = ""
    tight: bool = False
    """Whether it has room on a broad page only."""


def place_labels(wanted: Iterable[Named], marks: Sequence[tuple[float, float]]) -> list[Label]:
    """Labels for those that have room, the first asked first: on a narrow page, else on a broad one."""
    names = list(wanted)
    narrow = _fit(names, marks, NARROW, {})
    broad = _fit(names, marks, WIDE, narrow)
    return [
        Label(n.x, n.y, n.text, broad[i], n.style, tight=i not in narrow) for i, n in enumerate(names) if i in broad
    ]


def _fit(
    names: Sequence[Named], marks: Sequence[tuple[float, float]], size: tuple[float, float], held: dict[int, str]
) -> dict[int, str]:
    """Index of a name → side, for those that fit at this size beside those already ``held``."""
    taken = [_box(names[i], side, size) for i, side in held.items()]
    taken += [_around(x, y, size) for x, y in marks]
    found = dict(held)
    for index, name in enumerate(names):
        if index in found:
            continue
        own = _around(name.x, name.y, size)
        for side in SIDES:
            box = _box(name, side, size)
            if _inside(box, size) and not any(_meet(box, other) for other in taken if other != own):
                found[index] = side
                taken.append(box)
                break
    return found


def _box(name: Named, side: str, size: tuple[float, float]) -> Box:
    """Left, bottom, right, top of a name [px]."""
    x, y, wide = name.x / 100 * size[0], name.y / 100 * size[1], LETTER * len(name.text)
    if side in ("right", "left"):
        left = x + GAP if side == "right" else x - GAP - wide
        return left, y - LINE / 2, left + wide, y + LINE / 2
    bottom = y + GAP - 2 if side == "above" else y - GAP + 2 - LINE
    return x - wide / 2, bottom, x + wide / 2, bottom + LINE


def _around(x: float, y: float, size: tuple[float, float]) -> Box:
    return x / 100 * size[0] - 4, y / 100 * size[1] - 4, x / 100 * size[0] + 4, y / 100 * size[1] + 4


def _inside(box: Box, size: tuple[float, float]) -> bool:
    return box[0] >= 0 and box[2] <= size[0] + 4 and box[1] >= 0 and box[3] <= size[1] + 8


def _meet(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

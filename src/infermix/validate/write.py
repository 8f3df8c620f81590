"""Fitted figures into the catalogue's files: value, kind, source and what the fit says of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from infermix.catalog.records import Figure
from infermix.errors import InputError

FOLDERS = {"efficiency": "efficiency", "stacks": "stacks"}


def line_of(name: str, figure: Figure) -> str:
    """A figure as one line of TOML; short times in microseconds.

    >>> line_of("layer_s", Figure(2.4e-05, "s", ("MEAS",), "derived", "2026-11-22", note="n"))
    'layer_s = { value = 24, unit = "us", source = ["MEAS"], kind = "derived", read = "2026-11-22", note = "n" }'
    """
    scale, unit = (1e6, "us") if figure.unit == "s" and figure.value < 1e-2 else (1.0, figure.unit)
    parts = [f"value = {scale * figure.value:.4g}", f'unit = "{unit}"', f"source = [{_quoted(figure.source)}]"]
    parts += [f'kind = "{figure.kind}"', f'read = "{figure.read}"']
    others = {"low": figure.low, "high": figure.high, "believed": figure.believed}
    parts += [f"{part} = {scale * x:.4g}" for part, x in others.items() if x is not None]
    if figure.note:
        parts.append(f'note = "{figure.note}"')
    return f"{name} = {{ {', '.join(parts)} }}"


def _quoted(words: tuple[str, ...]) -> str:
    return ", ".join(f'"{word}"' for word in words)


def write_figures(root: Path, figures: Mapping[tuple[str, str, str], Figure]) -> list[Path]:
    """Put figures into their files below ``root``; each replaces its line, a new one is added. Returns the files."""
    files: dict[Path, list[tuple[str, Figure]]] = {}
    for (part, record, name), figure in figures.items():
        files.setdefault(root / FOLDERS[part] / f"{record}.toml", []).append((name, figure))
    for path, own in files.items():
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as fault:
            raise InputError(f"cannot be read: {fault.strerror}", where=str(path)) from None
        for name, figure in own:
            text = _with_line(text, name, line_of(name, figure))
        path.write_text(text, encoding="utf-8")
    return sorted(files)


def write_chips(root: Path, chips: Mapping[str, tuple[str, ...]]) -> None:
    """Tell in each family's file which chips its figures were fitted to."""
    for family, names in chips.items():
        path = root / FOLDERS["efficiency"] / f"{family}.toml"
        text = re.sub(r"^chips = .*\n", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE)
        text = text.replace("\n\n[figures]", f"\nchips = [{_quoted(names)}]\n\n[figures]", 1)
        path.write_text(text, encoding="utf-8")


def _with_line(text: str, name: str, line: str) -> str:
    pattern = re.compile(rf"^{re.escape(name)} = .*$", re.MULTILINE)
    if pattern.search(text):
        return pattern.sub(lambda _: line, text)
    return text.rstrip("\n") + f"\n{line}\n"


def note_of(rows: int, error: float) -> str:
    """What a fitted figure says of itself."""
    return f"fitted: {rows:,} rows tell of it, median abs. ln error {error:.2f}"

"""Tables of ``infermix calibrate``."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from infermix.catalog.records import Figure
from infermix.validate.calibrate import Summary
from infermix.validate.operators import Fitted
from infermix.validate.score import Score


def print_operators(found: Sequence[Fitted], console: Console) -> None:
    """Print the fitted figures of operators and how far off they are."""
    table = _table("operator", "chip", "dtype", right=("rows", "|ln|"), left=("figures",))
    for f in found:
        figures = ", ".join(f"{name} {_short(name, value)}" for name, value in f.figures.items())
        table.add_row(f.operator, f.chip, f.dtype, f"{f.rows:,}", f"{f.median_abs_log_error:.3f}", figures)
    console.print(table)


def _short(name: str, value: float) -> str:
    return f"{1e6 * value:.3g} us" if name.endswith("_s") else f"{value:.3g}"


def print_calibration(told: Summary, console: Console) -> None:
    """Print figures, and the errors of what they did not see."""
    console.print(f"{told.fitted} figures fitted to {told.rows:,} rows")
    table = _table("held out", "metric", "quality", right=("rows", "cells", "|ln|", "bias", "inside"))
    for words, scores in (("whole models", told.by_model), ("whole chips", told.by_chip)):
        for qualities, kinds in scores.items():
            for kind, score in kinds.items():
                table.add_row(words, kind, qualities, *_numbers(score))
    console.print(table)
    figures = _table("figure", right=("value", "low", "high"), left=("what tells of it",))
    for id_, figure in told.figures.items():
        figures.add_row(id_, *(_value(figure, x) for x in (figure.value, figure.low, figure.high)), _brief(figure.note))
    console.print(figures)


def _value(figure: Figure, value: float | None) -> str:
    if value is None:
        return "-"
    if figure.unit != "s":
        return f"{value:.3g}"
    scale, unit = next(((s, u) for s, u in ((1e6, "us"), (1e3, "ms")) if s * value < 1000), (1.0, "s"))
    return f"{scale * value:.3g} {unit}"


def _brief(note: str) -> str:
    """Rows, and the error or what the ends are.

    >>> _brief("fitted: 1,041 rows tell of it, median abs. ln error 0.08")
    '1,041 rows, |ln| 0.08'
    >>> _brief("held-out models: ends hold nine in ten of 41 rows, measured over predicted speed; widened")
    'nine in ten of 41 rows'
    """
    if found := re.fullmatch(r"fitted: ([\d,]+ rows) tell of it, median abs\. ln error ([\d.]+)", note):
        return f"{found[1]}, |ln| {found[2]}"
    return found[0] if (found := re.search(r"nine in ten of [\d,]+ rows", note)) else note


def _numbers(s: Score) -> tuple[str, ...]:
    parts = (s.median_abs_log_error, s.bias, s.inside)
    return (f"{s.scored:,}", f"{s.cells}", *("-" if x is None else f"{x:.3f}" for x in parts))


def _table(*first: str, right: Sequence[str] = (), left: Sequence[str] = ()) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in first:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", no_wrap=True)
    for name in left:
        table.add_column(name)
    return table

"""Tables of ``infermix validate``."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from infermix.validate.report import Validation
from infermix.validate.score import Score

_GROUPS = {"all": "all", "nvidia": "NVIDIA", "other_hbm": "other HBM", "sram": "SRAM"}


def print_validation(told: Validation, console: Console, *, cells: bool) -> None:
    """Print what a file says of the predictions."""
    o = told.overall
    console.print(
        f"{o.n:,} rows of quality A to C, {o.covered:,} predicted ({_percent(o.covered / o.n if o.n else None)})"
    )
    for reason, count in told.not_covered.items():
        console.print(f"  not covered, {count}: {reason}", markup=False)
    console.print(_scores(told))
    r = told.regret
    console.print(
        f"Decisions: of {r.pairs:,} pairs at least 10% apart the right one is chosen in {_percent(r.right)} "
        f"(unlike chips: {r.pairs_of_chips:,} pairs, {_percent(r.right_of_chips)}); cost regret "
        f"{_percent(r.median_cost_regret)} at the median, {_percent(r.mean_cost_regret)} on average"
    )
    if cells:
        console.print(_cells(told))
    if told.worst:
        console.print(_worst(told))


def _scores(told: Validation) -> Table:
    table = _table("Error", left=3)
    for name in ("rows", "cells", "|ln|", "p90", "bias", "inside", "high/low"):
        table.add_column(name, justify="right")
    for qualities, kinds in told.by_quality.items():
        for kind, groups in kinds.items():
            for group, score in groups.items():
                if score.scored:
                    words = "A and B" if qualities == "AB" else qualities
                    table.add_row(kind, words, _GROUPS[group], *_numbers(score))
    return table


def _numbers(s: Score) -> tuple[str, ...]:
    return (
        f"{s.scored:,}", f"{s.cells:,}", _number(s.median_abs_log_error), _number(s.p90),
        _number(s.bias, signed=True), _percent(s.inside), _number(s.width, digits=2),
    )  # fmt: skip


def _cells(told: Validation) -> Table:
    table = _table("Cell", left=3)
    for name in ("rows", "|ln|", "bias"):
        table.add_column(name, justify="right")
    for c in told.cells:
        table.add_row(
            c.chip, c.model, c.metric, f"{c.n:,}", _number(c.median_abs_log_error), _number(c.bias, signed=True)
        )
    return table


def _worst(told: Validation) -> Table:
    table = _table("Farthest off", left=3)
    for name in ("measured", "predicted"):
        table.add_column(name, justify="right")
    table.add_column("why")
    for w in told.worst:
        table.add_row(w.id, f"{w.chip} {w.model}", w.metric, f"{w.measured:,.4g}", f"{w.predicted:,.4g}", w.why)
    return table


def _table(first: str, *, left: int) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for i in range(left):
        table.add_column(first if i == 0 else "", no_wrap=i != 1)
    return table


def _number(value: float | None, *, signed: bool = False, digits: int = 3) -> str:
    if value is None:
        return "-"
    return f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}%"

"""Output of ``infermix catalog check``: what there is, and one line for each fault."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from infermix.catalog.check.report import Report

_AGES = {"under 3 months": "< 3 mo", "3 to 12 months": "3-12 mo", "over 12 months": "> 12 mo", "undated": "undated"}


def print_report(console: Console, report: Report) -> None:
    """Print counts, warnings and faults; every warning and every fault is one line."""
    console.print(_counts(report))
    for warning in report.warnings:
        console.print(f"warning: {warning.line()}", markup=False, soft_wrap=True)
    for fault in report.faults:
        console.print(fault.line(), markup=False, soft_wrap=True)
    rules = f"{len(report.rules)} rules on {sum(report.counts.by_part.values()):,} figures"
    found = ", ".join(
        _number(len(held), word) for held, word in ((report.faults, "fault"), (report.warnings, "warning"))
    )
    console.print(f"{rules}: {found}, {_number(len(report.excused), 'exception')} with a reason")


def _number(count: int, word: str) -> str:
    return f"{count or 'no'} {word}{'' if count == 1 else 's'}"


def _counts(report: Report) -> Table:
    counts = report.counts
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("figures", no_wrap=True)
    for name in ("records", "all", *counts.by_kind, *(_AGES[age] for age in counts.by_age)):
        table.add_column(name, justify="right", no_wrap=True)
    for part, total in counts.by_part.items():
        kinds, old = counts.kinds_of_part[part].values(), counts.ages_of_part[part].values()
        table.add_row(part, *(f"{count:,}" for count in (counts.records[part], total, *kinds, *old)))
    sums = (*counts.by_kind.values(), *counts.by_age.values())
    whole = sum(counts.records[part] for part in counts.by_part)
    table.add_row("all", *(f"{count:,}" for count in (whole, sum(counts.by_part.values()), *sums)), style="bold")
    return table

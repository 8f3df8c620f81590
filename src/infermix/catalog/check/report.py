"""What a check of the catalogue found."""

from __future__ import annotations

import msgspec

from infermix.catalog.check.fault import Fault


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many figures there are, by kind, by age and by part, and how many records each part has."""

    by_kind: dict[str, int]
    by_age: dict[str, int]
    by_part: dict[str, int]
    records: dict[str, int]
    kinds_of_part: dict[str, dict[str, int]]
    ages_of_part: dict[str, dict[str, int]]


class Excused(msgspec.Struct, frozen=True, kw_only=True):
    """A figure that breaks a rule for a stated reason."""

    rule: str
    figure: str
    value: float
    source: str
    reason: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """Faults (to be mended), warnings (to be known), exceptions made, counts, and what was held against what."""

    root: str
    today: str
    rules: dict[str, str]
    """Name of each rule and its reason."""
    faults: tuple[Fault, ...]
    warnings: tuple[Fault, ...]
    excused: tuple[Excused, ...]
    counts: Counts
    figures: tuple[str, ...]
    """Ids of the figures that the faults name."""

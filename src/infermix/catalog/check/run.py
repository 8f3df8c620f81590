"""Checking the whole catalogue: every rule on every record, all faults at once."""

from __future__ import annotations

import datetime
import inspect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Protocol

from infermix.catalog.check import (
    ages,
    bounds,
    derived,
    grounds,
    links,
    memory,
    money,
    names,
    peaks,
    shapes,
    silicon,
)
from infermix.catalog.check.excuses import EXCUSES, Excuse
from infermix.catalog.check.facts import Facts, read
from infermix.catalog.check.fault import Fault
from infermix.catalog.check.report import Counts, Excused, Report
from infermix.catalog.records import Kind
from infermix.errors import InputError


class Rule(Protocol):
    """A rule's name and docstring are told with its faults."""

    __name__: str

    def __call__(self, facts: Facts, /) -> Iterator[Fault]:
        """Every record that breaks it."""


class DatedRule(Protocol):
    """A rule that hangs on the day."""

    __name__: str

    def __call__(self, facts: Facts, today: datetime.date, /) -> Iterator[Fault]:
        """Every record that breaks it."""


RULES: tuple[Rule, ...] = (
    names.ids_are_plain,
    names.spellings_lead_to_one_record,
    names.references_lead_somewhere,
    names.counts_of_chips_are_whole,
    names.families_are_whole,
    names.no_speed_says_why,
    grounds.sources_exist,
    grounds.kinds_rest_on_their_sources,
    grounds.doubt_says_why,
    grounds.derivations_can_be_followed,
    grounds.records_name_the_sources_of_their_figures,
    bounds.units_belong_to_fields,
    bounds.values_lie_in_their_ranges,
    bounds.magnitudes_are_plausible,
    derived.references_resolve,
    derived.no_figure_is_its_own_ground,
    derived.doubt_is_passed_on,
    derived.systems_follow_from_chips,
    derived.price_multiples_follow,
    derived.derived_figures_follow,
    shapes.counts_follow_from_shape,
    shapes.claims_agree_with_shape,
    shapes.shapes_are_whole,
    shapes.guesses_say_their_range,
    peaks.narrow_rates_are_small_multiples,
    peaks.peaks_fit_on_the_die,
    peaks.peaks_fit_the_power,
    peaks.sisters_on_one_die_agree,
    silicon.dies_fit_the_reticle,
    silicon.sram_fits_on_the_die,
    silicon.transistors_fit_on_the_die,
    silicon.power_fits_the_area,
    silicon.systems_draw_more_than_their_chips,
    memory.parts_explain_capacity_and_bandwidth,
    memory.lpddr_has_a_width,
    memory.sweeps_take_their_time,
    links.links_carry_what_their_name_says,
    links.infinity_fabric_is_made_of_links,
    links.adapters_have_their_rates,
    links.links_do_not_outrun_memory,
    money.offers_have_the_figures_of_their_basis,
    money.power_says_what_it_includes,
    money.power_states_its_basis,
    money.output_costs_no_less_than_input,
    money.token_prices_keep_their_multiple,
    money.rents_repay_the_price,
    money.low_rents_are_low,
    money.systems_cost_more_than_their_chips,
    money.offers_of_a_chip_are_of_one_order,
)
DATED_RULES: tuple[DatedRule, ...] = (
    ages.read_dates_are_past,
    ages.offers_say_when_they_were_seen,
    ages.years_are_plausible,
)
KINDS: tuple[Kind, ...] = ("measured", "vendor", "derived", "press", "unverified")


def check(root: str | Path | Traversable | None = None, *, today: datetime.date | None = None) -> Report:
    """Check the catalogue in the folder ``root``, the packaged one unless given.

    Parameters
    ----------
    root
        Folder with ``chips``, ``systems``, ``models``, ``prices``, ``efficiency`` and ``sources.toml``.
    today
        Day against which ages are told; the current one unless given.

    Raises
    ------
    InputError
        When ``root`` is no catalogue. Faults inside it are reported, not raised.

    >>> check().counts.by_kind["vendor"] > 400
    True
    """
    folder = _folder(root)
    day = today or datetime.datetime.now(tz=datetime.UTC).date()
    facts = read(folder)
    faults, excused = faults_of(facts, day)
    warned = [*ages.old_prices(facts, day), *grounds.unused_sources(facts)]
    warned += _needless(facts, excused)
    faults = sorted([*facts.malformed, *faults], key=lambda fault: (fault.file, fault.record, fault.field, fault.rule))
    return Report(
        root=str(folder),
        today=day.isoformat(),
        rules={**_reasons(RULES), **_reasons(DATED_RULES)},
        faults=tuple(faults),
        warnings=tuple(warned),
        excused=tuple(Excused(**each._asdict()) for each in excused),
        counts=_counts(facts, day),
        figures=tuple(dict.fromkeys(id_ for fault in faults for id_ in fault.figures)),
    )


def _folder(root: str | Path | Traversable | None) -> Traversable:
    if root is None:
        return files("infermix.catalog") / "data"
    folder = Path(root) if isinstance(root, str) else root
    if not folder.is_dir() or not (folder / "sources.toml").is_file():
        raise InputError(
            "no catalogue",
            value=str(root),
            allowed="a folder with sources.toml, chips, systems, models, prices and efficiency",
        )
    return folder


def _reasons(rules: Sequence[Rule | DatedRule]) -> dict[str, str]:
    return {rule.__name__: " ".join((inspect.getdoc(rule) or "").split()) for rule in rules}


def faults_of(facts: Facts, day: datetime.date) -> tuple[list[Fault], list[Excuse]]:
    """What the rules find in well-formed facts: faults that stand, and the exceptions that were needed."""
    found = [fault for rule in RULES for fault in rule(facts)]
    found += [fault for dated in DATED_RULES for fault in dated(facts, day)]
    return _excuse(facts, found)


def _excuse(facts: Facts, found: Iterable[Fault]) -> tuple[list[Fault], list[Excuse]]:
    by_place = {(each.rule, each.figure): each for each in EXCUSES}
    stand, used = [], []
    for fault in found:
        excuse = by_place.get((fault.rule, f"{fault.record}/{fault.field}"))
        if excuse and excuse.covers(facts.figures[excuse.figure].figure.value):
            used.append(excuse)
        else:
            stand.append(fault)
    return stand, list(dict.fromkeys(used))


def _needless(facts: Facts, used: Sequence[Excuse]) -> Iterator[Fault]:
    """Warnings: exceptions for figures that are there and break no rule, or whose source is gone."""
    for excuse in EXCUSES:
        key, _, field = excuse.figure.rpartition("/")
        known = excuse.figure in facts.figures
        sourced = excuse.source in facts.sources or excuse.source.startswith("https://")
        if known and (excuse not in used or not sourced):
            what = (
                "is excused needlessly" if excuse not in used else f"is excused by the unknown source {excuse.source}"
            )
            yield facts.fault(excuse.rule, key, field, what, value=excuse.reason, mend="mend the exception")


def _counts(facts: Facts, day: datetime.date) -> Counts:
    """Figures by part, kind and age; everything named, also where there are none."""
    parts = {part: len(held) for part, held in facts.parts().items()} | {"sources": len(facts.sources)}
    kinds: dict[str, Counter[str]] = {part: Counter() for part in facts.parts()}
    old: dict[str, Counter[str]] = {part: Counter() for part in facts.parts()}
    for place in facts.figures.values():
        part = place.record.partition("/")[0]
        kinds[part][place.figure.kind] += 1
        old[part][ages.bucket(place, day)] += 1
    return Counts(
        by_kind={kind: sum(count[kind] for count in kinds.values()) for kind in KINDS},
        by_age={name: sum(count[name] for count in old.values()) for name in ages.BUCKETS},
        by_part={part: sum(count.values()) for part, count in kinds.items()},
        records=parts,
        kinds_of_part={part: {kind: count[kind] for kind in KINDS} for part, count in kinds.items()},
        ages_of_part={part: {name: count[name] for name in ages.BUCKETS} for part, count in old.items()},
    )

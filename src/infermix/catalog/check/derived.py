"""Figures that were computed from others must follow from them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator

from infermix.catalog.check.facts import Facts, Place
from infermix.catalog.check.fault import Fault, said
from infermix.catalog.records import Figure, System
from infermix.errors import near_miss

DIGITS = 1e-6
"""Derived values are written with ten digits."""
TWO_DECIMALS = 0.005
"""Price multiples are written with two."""
_ID = re.compile(r"\b(?:chips|systems|models|prices|efficiency)/[a-z0-9][a-z0-9.+-]*/[a-z][a-z0-9_]*[a-z0-9]")
_EDGE = re.compile(r"\b(low|high) from (\S+/\S+/[a-z0-9_]+)")
MADE_OF = {
    "power_w": ("vendor_system_power_w", "tdp_w"),
    "rent_usd_per_hour": ("usd_per_hour", "rent_usd_per_hour", "rent_low_usd_per_hour"),
    "capital_usd": ("capital_usd", "vendor_system_price_usd", "chip_price_usd"),
    "operator_cost_usd_per_hour": ("usd_per_hour", "operator_cost_usd_per_hour"),
}
"""From which fields a system's figure may come: money never changes its basis on the way."""


def references_resolve(facts: Facts) -> Iterator[Fault]:
    """An id in ``of`` or in a note that names no figure leaves the reader without the ground it promises."""
    for place in facts.figures.values():
        for id_ in (*place.figure.of, *_ID.findall(place.figure.note)):
            if id_ not in facts.figures and not facts.is_malformed(id_):
                yield facts.fault(
                    "references_resolve",
                    place.record,
                    place.field,
                    "names a figure that is not in the catalogue",
                    value=id_,
                    mend=near_miss(id_, facts.figures) or "mend the id",
                )


def no_figure_is_its_own_ground(facts: Facts) -> Iterator[Fault]:
    """A circle of ``of`` has no figure that anybody read."""
    for place in facts.figures.values():
        if place.id in _below(facts, place.id):
            yield facts.fault(
                "no_figure_is_its_own_ground",
                place.record,
                place.field,
                "is computed from itself",
                value=" ".join(place.figure.of),
                mend="name what it was computed from",
            )


def doubt_is_passed_on(facts: Facts) -> Iterator[Fault]:
    """What is computed from a recalled figure is no better known than that figure."""
    for place in facts.figures.values():
        doubted = [id_ for id_ in _below(facts, place.id) if facts.figures[id_].figure.kind == "unverified"]
        if doubted and place.figure.kind != "unverified":
            yield facts.fault(
                "doubt_is_passed_on",
                place.record,
                place.field,
                f"is computed from the unverified {doubted[0]}",
                value=place.figure.kind,
                allowed="unverified",
                others=(doubted[0],),
            )


def _below(facts: Facts, id_: str) -> list[str]:
    """Ids of the figures that this one hangs on at any depth."""
    seen: dict[str, None] = {}
    ahead = list(facts.figures[id_].figure.of)
    while ahead:
        base = ahead.pop()
        if base in facts.figures and base not in seen:
            seen[base] = None
            ahead += facts.figures[base].figure.of
    return list(seen)


def systems_follow_from_chips(facts: Facts) -> Iterator[Fault]:
    """A system's power and prices are its chips' share (spare chips included) of what ``of`` names, edges likewise."""
    for place in _derived(facts, "systems/"):
        system = facts.systems[place.record.partition("/")[2]]
        yield from _wrong_ground(facts, system, place)
        item = place.figure
        edges = [(edge, id_) for edge, id_ in _EDGE.findall(item.note)]
        for part, ids in (("value", item.of), *((edge, (id_,)) for edge, id_ in edges)):
            stated = getattr(item, part)
            follows = _share(facts, system, ids)
            if follows is None or (stated is not None and math.isclose(stated, follows, rel_tol=DIGITS)):
                continue
            yield facts.fault(
                "systems_follow_from_chips",
                place.record,
                place.field,
                f"the {part} does not follow from {' and '.join(ids)}",
                value="nothing" if stated is None else said(stated, item.unit),
                allowed=said(follows, item.unit),
                mend=f"{_bought(system)} chips are bought",
                others=ids,
            )


def _wrong_ground(facts: Facts, system: System, place: Place) -> Iterator[Fault]:
    allowed = MADE_OF.get(place.field, ())
    for id_ in (*place.figure.of[:1], *(id_ for _, id_ in _EDGE.findall(place.figure.note))):
        base = facts.figures.get(id_)
        if base is None:
            continue
        part, record, name = id_.split("/")
        chip = facts.prices[record].chip if part == "prices" else record
        if chip == system.chip and name in allowed and _same_basis(facts, place.field, part, record):
            continue
        yield facts.fault(
            "systems_follow_from_chips",
            place.record,
            place.field,
            "is computed from a figure of another chip or another kind",
            value=id_,
            allowed=f"{' or '.join(allowed)} of {system.chip}",
            others=(id_,),
        )


def _same_basis(facts: Facts, name: str, part: str, record: str) -> bool:
    want = {"rent_usd_per_hour": "rent", "operator_cost_usd_per_hour": "operator_cost", "capital_usd": "capital"}
    return part != "prices" or facts.prices[record].basis == want.get(name)


def _bought(system: System) -> int:
    return system.chips + system.spare_chips


def _share(facts: Facts, system: System, ids: tuple[str, ...]) -> float | None:
    """The system's share of the figures named, or nothing where they cannot be told."""
    bases = [facts.figures.get(id_) for id_ in ids]
    first = bases[0] if bases else None
    if first is None or None in bases:
        return None
    part, record, name = first.id.split("/")
    if part == "prices":
        return first.figure.value * _bought(system) / facts.prices[record].chips
    if name.startswith("vendor_system_"):
        chips = facts.figures.get(f"{first.record}/vendor_system_chips")
        return first.figure.value * _bought(system) / chips.figure.value if chips and chips.figure.value else None
    return first.figure.value * _bought(system)


def price_multiples_follow(facts: Facts) -> Iterator[Fault]:
    """A price multiple is the price over the standard price of the same model, to two decimals."""
    for place in _derived(facts, "prices/"):
        if place.field != "price_multiple" or len(place.figure.of) != 2:
            continue
        over, under = (facts.figures.get(id_) for id_ in place.figure.of)
        if over and under and under.figure.value:
            ratio = over.figure.value / under.figure.value
            if abs(ratio - place.figure.value) > TWO_DECIMALS:
                yield facts.fault(
                    "price_multiples_follow",
                    place.record,
                    place.field,
                    f"does not follow from {over.field} over {under.field}",
                    value=place.figure,
                    allowed=f"{ratio:.2f}",
                    others=place.figure.of,
                )


def derived_figures_follow(facts: Facts) -> Iterator[Fault]:
    """Any other derived figure is a product, quotient, sum, difference or mean of what ``of`` names.

    Where more happened, the note says it, and people have to follow it.
    """
    for place in _derived(facts, ""):
        if place.record.startswith("systems/") or place.field == "price_multiple" or place.figure.note:
            continue
        values = [facts.figures[id_].figure.value for id_ in place.figure.of if id_ in facts.figures]
        if len(values) == len(place.figure.of) and not _is_made_of(place.figure, values):
            yield facts.fault(
                "derived_figures_follow",
                place.record,
                place.field,
                f"no simple rule makes it of {' and '.join(place.figure.of)}",
                value=place.figure,
                allowed="their product, quotient, sum, difference or mean",
                mend="mend the value, or say in the note how it was computed",
                others=place.figure.of,
            )


def _is_made_of(figure: Figure, values: list[float]) -> bool:
    made = [math.prod(values), sum(values), sum(values) / len(values)]
    for first, second in itertools.permutations(values, 2) if len(values) == 2 else ():
        made += [first - second] + ([first / second] if second else [])
    return any(math.isclose(figure.value, value, rel_tol=TWO_DECIMALS) for value in made)


def _derived(facts: Facts, part: str) -> list[Place]:
    return [place for place in facts.figures.values() if place.figure.of and place.id.startswith(part)]

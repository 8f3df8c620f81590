"""Grounds: what every figure rests on, and whether that is enough for what it claims to be."""

from __future__ import annotations

from collections.abc import Iterator

from infermix.catalog.check.facts import Facts
from infermix.catalog.check.fault import Fault
from infermix.catalog.load import figures_of
from infermix.errors import near_miss

OWN_WORD = frozenset({"M", "IMX", "own"})
"""Sources that nobody else can read: memory, our own judgement, a user's word."""
FROM_SHAPE = ("params", "active_params", "kv_elements_per_token")
"""Derived from the record itself, by the rule ``counts_follow_from_shape``."""


def sources_exist(facts: Facts) -> Iterator[Fault]:
    """A source that is not in sources.toml cannot be looked up."""
    for place in facts.figures.values():
        yield from _unknown(facts, place.record, place.field, place.figure.source)
    for key, record in facts.records():
        if "source" in record.__struct_fields__:
            yield from _unknown(facts, key, "source", getattr(record, "source", ()))


def _unknown(facts: Facts, key: str, name: str, sources: tuple[str, ...]) -> Iterator[Fault]:
    for id_ in sources:
        if id_ not in facts.sources and not facts.is_malformed(f"sources/{id_}"):
            yield facts.fault(
                "sources_exist",
                key,
                name,
                "unknown source",
                value=id_,
                allowed="ids of sources.toml",
                mend=near_miss(id_, facts.sources) or "add the source",
            )
    if not sources:
        yield facts.fault("sources_exist", key, name, "rests on no source", mend="name the source")


def kinds_rest_on_their_sources(facts: Facts) -> Iterator[Fault]:
    """What a vendor said, the press wrote or somebody measured stands where others can read it."""
    for place in facts.figures.values():
        if place.figure.kind in ("vendor", "press", "measured") and OWN_WORD.issuperset(place.figure.source):
            yield facts.fault(
                "kinds_rest_on_their_sources",
                place.record,
                place.field,
                f"is called {place.figure.kind} but rests on {' '.join(place.figure.source)} alone",
                value=place.figure.kind,
                allowed="unverified or derived",
                mend="name the source or the right kind",
            )


def doubt_says_why(facts: Facts) -> Iterator[Fault]:
    """An unverified figure was recalled, or its note says what is doubtful in its source."""
    for place in facts.figures.values():
        item = place.figure
        hangs = any(base in facts.figures and facts.figures[base].figure.kind == "unverified" for base in item.of)
        if item.kind == "unverified" and not item.note and not OWN_WORD & set(item.source) and not hangs:
            yield facts.fault(
                "doubt_says_why",
                place.record,
                place.field,
                "is unverified although its source is one that can be read",
                value=" ".join(item.source),
                mend="say in the note what is doubtful, or give the right kind",
            )


def derivations_can_be_followed(facts: Facts) -> Iterator[Fault]:
    """A derived figure says what it was computed from: ids in ``of``, or words in the note."""
    for place in facts.figures.values():
        item = place.figure
        if item.kind == "derived" and not item.of and not item.note and place.field not in FROM_SHAPE:
            yield facts.fault(
                "derivations_can_be_followed",
                place.record,
                place.field,
                "is derived, but does not say from what",
                value=item,
                mend="give `of`, or say it in the note",
            )


def records_name_the_sources_of_their_figures(facts: Facts) -> Iterator[Fault]:
    """A chip's ``source`` is every source that the record rests on."""
    for id_, chip in facts.chips.items():
        cited = {source: name for name, figure in figures_of(chip).items() for source in figure.source}
        for source, name in cited.items():
            if source not in chip.source:
                yield facts.fault(
                    "records_name_the_sources_of_their_figures",
                    f"chips/{id_}",
                    "source",
                    f"leaves out what {name} rests on",
                    value=" ".join(chip.source),
                    allowed=f"{source} too",
                    others=(f"chips/{id_}/{name}",),
                )


def unused_sources(facts: Facts) -> Iterator[Fault]:
    """Warnings: sources that nothing rests on any more."""
    used = {id_ for place in facts.figures.values() for id_ in place.figure.source}
    used |= {id_ for _, record in facts.records() for id_ in getattr(record, "source", ())}
    for id_ in sorted(facts.sources.keys() - used - OWN_WORD):
        yield facts.fault("unused_sources", f"sources/{id_}", "", "no figure rests on it", mend="leave it out")

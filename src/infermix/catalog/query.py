"""Finding facts by name, and what a figure hangs on."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from infermix.catalog.load import Catalog, figures_of
from infermix.catalog.load import catalog as packaged
from infermix.catalog.records import Chip, Figure, Model, System
from infermix.errors import InputError, near_miss


def find_chip(name: str, catalog: Catalog | None = None) -> Chip:
    """The chip with this id, name or alias (packaged catalogue unless given). Raises ``InputError`` with a near miss.

    >>> find_chip("h200-sxm").vendor
    'NVIDIA'
    """
    return (catalog or packaged()).chips.called(name)


def find_system(name: str, catalog: Catalog | None = None) -> System:
    """The system with this id, name or alias. Raises ``InputError`` with a near miss.

    >>> find_system("h200-x8").chips
    8
    """
    return (catalog or packaged()).systems.called(name)


def find_model(name: str, catalog: Catalog | None = None) -> Model:
    """The model with this id, name or alias. Raises ``InputError`` with a near miss.

    >>> find_model("gpt-oss-120b").experts
    128
    >>> find_model("deepseek-ai/DeepSeek-V3.2").id
    'deepseek-v3.2'
    """
    return (catalog or packaged()).models.called(name)


def shelves(catalog: Catalog) -> dict[str, Mapping[str, msgspec.Struct]]:
    """The catalogue's parts under the names that figure ids begin with."""
    return {
        "chips": catalog.chips,
        "systems": catalog.systems,
        "models": catalog.models,
        "prices": catalog.prices,
        "efficiency": catalog.efficiencies,
        "stacks": catalog.stacks,
    }


def figure_ids(part: str, record: msgspec.Struct) -> list[str]:
    """Ids of the figures of a record that stands in this part of the catalogue.

    >>> figure_ids("systems", packaged().systems["groq3-lpx-rack"])
    []
    """
    id_: str = record.id  # type: ignore[attr-defined]
    return [f"{part}/{id_}/{field}" for field in figures_of(record)]


def figure(catalog: Catalog, id: str) -> Figure:
    """The figure with the id ``part/record/field``. Raises ``InputError`` with a near miss.

    >>> figure(packaged(), "chips/h200-sxm/mem_bytes_per_s").value
    4800000000000.0
    """
    parts = id.split("/")
    if len(parts) != 3:
        raise InputError("not the id of a figure", value=id, allowed="part/record/field, as chips/h200-sxm/mem_bytes")
    part, name, field = parts
    known = shelves(catalog)
    if part not in known:
        raise InputError("unknown part of the catalogue", where=id, value=part, allowed=", ".join(known))
    figures = figures_of(known[part][name])
    if field not in figures:
        mend = near_miss(field, figures) or f"it has {', '.join(figures)}"
        raise InputError("the record has no such figure", where=id, value=field, mend=mend)
    return figures[field]


def roots(catalog: Catalog, id: str) -> tuple[str, ...]:
    """Ids of the figures that ``id`` hangs on in the end: those computed from no other figure.

    >>> roots(packaged(), "systems/h200-x8/rent_usd_per_hour")
    ('prices/rent-nebius-h200-on-demand/usd_per_hour',)
    """
    return tuple(dict.fromkeys(_roots(catalog, id, ())))


def _roots(catalog: Catalog, id: str, above: tuple[str, ...]) -> list[str]:
    if id in above:
        raise InputError("a figure is computed from itself", value=id, where=" of ".join((*above, id)))
    of = figure(catalog, id).of
    if not of:
        return [id]
    return [root for base in of for root in _roots(catalog, base, (*above, id))]

"""Deployments of the packaged catalogue for the tests of step time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from infermix.catalog.load import catalog
from infermix.catalog.records import Chip, Efficiency, Figure, Model, System
from infermix.perf.deployment import Deployment, best_weights

CAT = catalog()

MODELS = tuple(id_ for id_, model in CAT.models.items() if not model.mla_kv_lora)
"""Models without MLA."""

MLA_MODELS = tuple(id_ for id_, model in CAT.models.items() if model.mla_kv_lora)

ALL_SLIDE = tuple(id_ for id_ in MODELS if CAT.models[id_].sliding_layers >= CAT.models[id_].layers)
"""Models without a layer of full attention."""

MODELLED = tuple(id_ for id_ in MODELS if id_ not in ALL_SLIDE)

STAGES = (1, 2, 4, 8, 16, 32, 64)


def is_pipeline(system: System) -> bool:
    """Whether the system's chips hold the weights in SRAM."""
    return CAT.efficiencies[CAT.chips[system.chip].efficiency].machine == "pipeline"


def deploy(system_id: str, model_id: str, **options: Any) -> Deployment:
    """A deployment by names; weights as ``best_weights`` says unless given."""
    return deploy_on(CAT.systems[system_id], CAT.models[model_id], **options)


def deploy_on(system: System, model: Model, **options: Any) -> Deployment:
    """A deployment of records; one stage on SRAM machines unless given."""
    chip = CAT.chips[system.chip]
    efficiency = CAT.efficiencies[chip.efficiency]
    if efficiency.machine == "pipeline":
        options.setdefault("stages", 1)
    options.setdefault("weights", best_weights(model, chip, efficiency))
    return Deployment(model=model, system=system, chip=chip, efficiency=efficiency, **options)


def layouts(system: System, model: Model) -> Iterator[dict[str, int]]:
    """Every TP degree that divides the heads, or stages up to 64."""
    if is_pipeline(system):
        yield from ({"stages": stages} for stages in STAGES)
    else:
        yield from ({"tp": tp} for tp in range(1, system.chips + 1) if model.heads % tp == 0)


def largest_systems() -> list[System]:
    """The largest system of every chip that has one."""
    found: dict[str, System] = {}
    for system in CAT.systems.values():
        if system.chip not in found or system.chips > found[system.chip].chips:
            found[system.chip] = system
    return list(found.values())


def scaled(figure: Figure, factor: float) -> Figure:
    """The figure, larger or smaller."""
    return msgspec.structs.replace(figure, value=figure.value * factor, low=None, high=None)


def with_chip(d: Deployment, **figures: Figure | None) -> Deployment:
    """The deployment on a chip with other figures."""
    chip: Chip = msgspec.structs.replace(d.chip, **figures)
    return msgspec.structs.replace(d, chip=chip)


def with_efficiency(d: Deployment, name: str, factor: float) -> Deployment:
    """The deployment with one figure of its family multiplied."""
    figures = {**d.efficiency.figures, name: scaled(d.efficiency.figures[name], factor)}
    efficiency: Efficiency = msgspec.structs.replace(d.efficiency, figures=figures)
    return msgspec.structs.replace(d, efficiency=efficiency)

"""Which figures of the catalogue an answer hangs on, so that each can be looked up and doubted."""

from __future__ import annotations

from collections.abc import Iterable

from infermix.catalog.load import Catalog
from infermix.catalog.query import figure, roots
from infermix.catalog.records import Chip, Efficiency, Model, System
from infermix.perf.deployment import Deployment
from infermix.perf.model_cost import stored
from infermix.perf.ops import peak_flop_per_s


def of_deployment(d: Deployment) -> list[str]:
    """Ids of the figures that a deployment's speed and memory hang on."""
    lone = [*of_chip(d.chip, d.efficiency, d.system, d.model, d.weights, d.chips), *of_model(d.model)]
    return [*lone, f"chips/{d.chip.id}/hop_s"] if d.pp > 1 and d.chip.hop_s is not None else lone


def of_chip(chip: Chip, efficiency: Efficiency, system: System, model: Model, weights: str, chips: int) -> list[str]:
    """Ids of the figures of a chip and its family, for an instance of so many chips."""
    if efficiency.machine == "pipeline":
        names = ["sram_bytes", *([] if chip.only_models else ["sram_bytes_per_s"]), peak_flop_per_s(chip, "bf16")[1]]
    else:
        peaks = {peak_flop_per_s(chip, dtype)[1] for dtype in (weights, stored(model, weights), "bf16")}
        names = ["mem_bytes", "mem_bytes_per_s", *sorted(peaks)]
        names += ["link_bytes_per_s"] if min(chips, system.chips) > 1 else []
        names += ["scaleout_bytes_per_s"] if chips > system.chips else []
    of_family = [f"efficiency/{efficiency.id}/{name}" for name in efficiency.figures]
    return [f"chips/{chip.id}/{name}" for name in names] + of_family


def of_model(model: Model) -> list[str]:
    """Ids of a model's sizes; those of a closed one are ranges that widen every speed."""
    return [f"models/{model.id}/{name}" for name in ("params", "active_params", "kv_elements_per_token")]


def with_roots(catalog: Catalog, ids: Iterable[str]) -> list[str]:
    """These ids and those that they were computed from, each once."""
    direct = list(dict.fromkeys(ids))
    return list(dict.fromkeys(direct + [root for id_ in direct for root in roots(catalog, id_)]))


def unverified(catalog: Catalog, ids: Iterable[str]) -> list[str]:
    """Those of these figures that nobody looked up."""
    return [id_ for id_ in ids if figure(catalog, id_).kind == "unverified"]

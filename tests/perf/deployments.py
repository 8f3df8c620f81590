"""Deployments of the packaged catalogue for the tests of step time."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog.load import catalog
from infermix.catalog.records import Chip, Efficiency, Figure, Model, System
from infermix.errors import NoAnswer
from infermix.perf.deployment import Deployment, best_weights, check_deployment
from infermix.perf.layouts import TENSOR_PARALLEL, Layout, laid_out, layouts, spanning
from infermix.perf.table import StepTable, refuse_unfit, table_at

CAT = catalog()

WHOLE = bool(os.environ.get("INFERMIX_WHOLE_CATALOGUE"))
"""Whether laws are held to every layout on every system, which takes minutes, or to one for each chip and model."""

MODELS = tuple(sorted(CAT.models))

STAGES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)

TIMES = ("decode_s", "mixed_s", "per_seq_s", "kv_s", "pair_s", "load_s", "latency_s", "issue_interval_s")

ROUNDING = 1e-12


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


def is_pipeline(system: System) -> bool:
    """Whether the system's chips hold the weights in SRAM."""
    return CAT.efficiencies[CAT.chips[system.chip].efficiency].machine == "pipeline"


@cache
def systems_by_chip() -> dict[str, list[System]]:
    """Systems of every chip, smallest first."""
    found: dict[str, list[System]] = {}
    for system in sorted(CAT.systems.values(), key=lambda system: (system.chips, system.id)):
        found.setdefault(system.chip, []).append(system)
    return found


def staged(model: Model, system: System) -> list[Layout]:
    """Layouts with stages in line inside one system."""
    sizes = [n for n in TENSOR_PARALLEL if model.heads % n == 0]
    found = [Layout(tp=tp, pp=pp) for tp in sizes for pp in (2, 3, 4) if tp * pp <= system.chips and pp <= model.layers]
    if not model.experts:
        return found
    return found + [layout._replace(dp=2, ep=2) for layout in found if 2 * layout.tp * layout.pp <= system.chips]


def every_layout(system: System, model: Model) -> list[Deployment]:
    """The model on the system in every layout that is looked at."""
    base = deploy_on(system, model)
    if base.is_pipeline:
        return [msgspec.structs.replace(base, stages=n) for n in STAGES]
    return [laid_out(base, x) for x in layouts(model, system) + staged(model, system) + spanning(model, system)]


@dataclass(frozen=True)
class Run:
    """A deployment that fits, and its step times at a few tokens."""

    d: Deployment
    tokens: Floats
    t: StepTable

    def decode_s(self, context: float) -> Floats:
        """Decode steps of these many sequences with so much context each."""
        return self.t.decode_s + self.tokens * (self.t.per_seq_s + self.t.kv_s * context)

    def __str__(self) -> str:
        return f"{self.d.model.id} on {self.d.name}"


def run(d: Deployment) -> Run | None:
    """Step times where the deployment fits and no figure is missing."""
    try:
        refuse_unfit(check_deployment(d))
    except NoAnswer:
        return None
    even = d.pp * d.dp
    tokens = np.array(sorted({1.0, 2.0, *(float(even * n) for n in (1, 4, 32, 256))}))
    return Run(d, tokens, table_at(d, tokens))


def runs_on(chip_id: str) -> list[Run]:
    """Every model on a chip: in every layout on every system, or in one that fits, another for each model."""
    return list(_all_runs_on(chip_id)) if WHOLE else _some_runs_on(chip_id)


def _all_runs_on(chip_id: str) -> Iterator[Run]:
    for model in CAT.models.values():
        for system in systems_by_chip()[chip_id]:
            yield from filter(None, map(run, every_layout(system, model)))


@cache
def _some_runs_on(chip_id: str) -> list[Run]:
    systems, found = systems_by_chip()[chip_id], []
    for model in CAT.models.values():
        turn = zlib.crc32(f"{chip_id} {model.id}".encode())
        for system in dict.fromkeys((systems[turn % len(systems)].id, systems[-1].id)):
            candidates = every_layout(CAT.systems[system], model)
            first = turn // 7 % len(candidates)
            fit = next(filter(None, map(run, (candidates[first:] + candidates[:first])[:6])), None)
            if fit:
                found.append(fit)
                break
    return found


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


def not_worse(better: StepTable, base: StepTable, said: str) -> None:
    """Raise unless the better machine is nowhere slower and holds no fewer tokens."""
    for name in TIMES:
        faster, slower = np.asarray(getattr(better, name)), np.asarray(getattr(base, name))
        assert (faster <= slower * (1 + ROUNDING)).all(), f"{said}: {name}"
    assert better.blocks >= base.blocks, f"{said}: blocks"

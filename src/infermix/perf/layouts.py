"""Which parallelisms are worth asking about: few, and one of them is usually right."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from infermix.catalog.records import Model, System
from infermix.perf.deployment import Deployment
from infermix.perf.memory import fewest_stages, kv_tokens_left

TENSOR_PARALLEL = (1, 2, 4, 8, 16, 32, 64)
MOST_SYSTEMS = 8
"""Instances over more systems than this are not looked at."""
REPLICA_GROWTH = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)
"""Replicas of SRAM machines are tried at these multiples of the fewest systems that hold the model."""


class Layout(NamedTuple):
    """Chips of an instance by role."""

    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1


def layouts(model: Model, system: System) -> list[Layout]:
    """Layouts inside one system: tensor parallel, and for MoE models with the experts shared out.

    Experts are shared out over the chips of ``tp`` (one batch, whole experts), and over single chips with
    sequences of their own (``dp`` = ``ep``), which keeps the KV cache of few heads or of a latent unreplicated.

    >>> from infermix.catalog.load import catalog
    >>> facts = catalog()
    >>> layouts(facts.models["llama-3.1-8b"], facts.systems["h200-x2"])
    [Layout(tp=1, pp=1, dp=1, ep=1), Layout(tp=2, pp=1, dp=1, ep=1)]
    """
    sizes = [n for n in TENSOR_PARALLEL if n <= system.chips and model.heads % n == 0]
    found = [Layout(tp=n) for n in sizes]
    if model.experts:
        found += [Layout(tp=n, ep=n) for n in sizes if 1 < n <= model.experts]
        found += [Layout(dp=n, ep=n) for n in _groups(model, system.chips)]
    return found


def spanning(model: Model, system: System) -> list[Layout]:
    """Layouts over several systems: layers in line between systems, and experts shared out over all chips."""
    tp = max((n for n in TENSOR_PARALLEL if n <= system.chips and model.heads % n == 0), default=1)
    found = []
    for n in (2, 4, 8):
        if n > MOST_SYSTEMS or tp != system.chips or n > model.layers:
            continue
        found.append(Layout(tp=tp, pp=n))
        if model.experts:
            found += [Layout(tp=tp, pp=n, ep=tp)] if 1 < tp <= model.experts else []
            chips = n * system.chips
            found += [Layout(dp=chips, ep=chips)] if chips <= model.experts else []
    return found


def fitting(base: Deployment) -> list[Deployment]:
    """Deployments like ``base`` in every layout worth asking about that holds the model; over several systems last.

    Empty where none holds it.
    """
    if base.is_pipeline:
        fewest = fewest_stages(base)
        sizes = sorted({round(fewest * growth) for growth in REPLICA_GROWTH}) if fewest else []
        return [msgspec.structs.replace(base, stages=n) for n in sizes]
    inside = [laid_out(base, layout) for layout in layouts(base.model, base.system)]
    found = [d for d in inside if kv_tokens_left(d) > 0]
    if found or base.chip.scaleout_bytes_per_s is None:
        return found
    return [d for d in (laid_out(base, x) for x in spanning(base.model, base.system)) if kv_tokens_left(d) > 0]


def telling(base: Deployment) -> list[Deployment]:
    """Of ``fitting`` the few that span it: the smallest two and the largest of each way to lay the model out."""
    if base.is_pipeline:
        return fitting(base)
    ways: dict[tuple[bool, bool, bool], list[Deployment]] = {}
    for d in fitting(base):
        ways.setdefault((d.pp > 1, d.dp > 1, d.ep > 1), []).append(d)
    found = []
    for (_, _, shared), same in ways.items():
        found += same[-1:] if shared else [*same[:2], *same[2:][-1:]]
    return found


def laid_out(base: Deployment, layout: Layout) -> Deployment:
    """``base`` in this layout."""
    return msgspec.structs.replace(base, **layout._asdict())


def _groups(model: Model, chips: int) -> list[int]:
    return [n for n in (2, 4, 8, 16, 32, 64, 128) if n <= chips and n <= model.experts]

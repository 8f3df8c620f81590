"""Deployment x count → pool → fleet."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog.load import Catalog
from infermix.catalog.query import find_model, find_system
from infermix.errors import InputError, located, near_miss
from infermix.perf.deployment import MAX_BATCHED_TOKENS, MAX_NUM_SEQS, Deployment, Role, best_weights
from infermix.perf.memory import fewest_stages


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Equal instances of one deployment, and the share of each class that the plan sends here."""

    name: str
    deployment: Deployment
    instances: int
    serves: dict[str, float] = {}
    """Class → share of its requests; empty: serves every class."""

    @property
    def systems(self) -> int:
        """Whole systems that the instances take."""
        d = self.deployment
        return -(-self.instances // d.instances_per_system) * d.systems_per_instance


class Fleet(msgspec.Struct, frozen=True):
    """Pools in a fixed order."""

    pools: tuple[Pool, ...]

    def shares(self, class_names: tuple[str, ...]) -> Floats:
        """[class, pool] what the plan sends where; equal shares where a pool states none."""
        rows = [[p.serves.get(c, 0.0) if p.serves else 1.0 for p in self.pools] for c in class_names]
        return np.array(rows, dtype=np.float64).reshape(len(class_names), len(self.pools))

    def resized(self, pool: int, instances: int) -> Fleet:
        """The same fleet with another number of instances in one pool; a pool of none is dropped."""
        pools = [msgspec.structs.replace(p, instances=instances) if i == pool else p for i, p in enumerate(self.pools)]
        return Fleet(tuple(p for p in pools if p.instances > 0))


class PoolRow(msgspec.Struct, frozen=True, forbid_unknown_fields=False, kw_only=True):
    """A pool as study files and plans write it; keys that a plan adds are ignored."""

    system: str
    instances: int
    model: str | None = None
    tp: int | None = None
    pp: int | None = None
    ep: int | None = None
    dp: int | None = None
    stages: int | None = None
    weights: str | None = None
    kv: str = "bf16"
    role: Role = "both"
    max_num_seqs: int = MAX_NUM_SEQS
    max_batched_tokens: int = MAX_BATCHED_TOKENS
    spec: str | None = None
    serves: dict[str, float] = {}
    name: str | None = None


def make_deployment(catalog: Catalog, row: PoolRow, model: str, where: str) -> Deployment:
    """The deployment that a row of a file describes."""
    with located(where):
        system = find_system(row.system, catalog)
        found = find_model(row.model or model, catalog)
    chip = catalog.chips[system.chip]
    if not chip.efficiency:
        raise InputError(
            f"{chip.id} has no step-time model", where=where, value=row.system, allowed="a chip of a known family"
        )
    efficiency = catalog.efficiencies[chip.efficiency]
    if row.spec is not None:
        raise InputError(
            "fleets with speculative decoding are not simulated yet",
            where=where,
            value=row.spec,
            allowed="leave spec out; `infermix perf --spec` tells its speed",
        )
    if row.role != "both":
        raise InputError(
            "pools for prefill or decode alone are not simulated yet", where=where, value=row.role, allowed="both"
        )
    pipeline = efficiency.machine == "pipeline"
    given = (row.pp or 1) * (row.dp or 1)
    made = Deployment(
        model=found,
        system=system,
        chip=chip,
        efficiency=efficiency,
        tp=row.tp if row.tp is not None else 1 if pipeline else max(1, system.chips // given),
        pp=row.pp or 1,
        dp=row.dp or 1,
        ep=row.ep or 1,
        stages=row.stages if row.stages is not None else 1 if pipeline else 0,
        weights=row.weights or best_weights(found, chip, efficiency),
        kv=row.kv,
        role=row.role,
        max_num_seqs=row.max_num_seqs,
        max_batched_tokens=row.max_batched_tokens,
    )
    if not pipeline or row.stages is not None:
        return made
    return msgspec.structs.replace(made, stages=fewest_stages(made) or 1)


def make_fleet(
    catalog: Catalog, rows: Mapping[str, PoolRow], model: str, classes: tuple[str, ...], where: str
) -> Fleet:
    """A fleet from rows by pool name.

    Raises
    ------
    InputError
        Unknown system, model or class, or a count that is not positive; the message names the row.
    """
    pools = []
    for name, row in rows.items():
        here = f"{where}.{name}"
        if row.instances < 1:
            raise InputError("instances must be 1 or more", where=here, value=row.instances)
        for served in row.serves:
            if served not in classes:
                raise InputError(
                    "unknown class in serves",
                    where=here,
                    value=served,
                    allowed=", ".join(classes),
                    mend=near_miss(served, classes),
                )
        pools.append(
            Pool(
                name=name,
                deployment=make_deployment(catalog, row, model, here),
                instances=row.instances,
                serves=row.serves,
            )
        )
    return Fleet(tuple(pools))

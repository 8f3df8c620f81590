"""Deployment x count → pool → fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog.load import Catalog
from infermix.catalog.parse import convert
from infermix.catalog.query import find_model, find_system
from infermix.errors import InputError, located, near_miss
from infermix.perf.deployment import MAX_BATCHED_TOKENS, MAX_NUM_SEQS, Deployment, Role, best_weights
from infermix.perf.measured import within_measured
from infermix.perf.memory import draft_bytes, fewest_stages, weights_bytes
from infermix.perf.pairs import Readiness, readiness
from infermix.perf.specdec import read_speculation
from infermix.perf.stack import find_stack, with_stack
from infermix.units import to_si

GB = to_si(1.0, "GB")


class Autoscale(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a pool follows its load; see "Instances that come and go" in ``docs/design/simulator.md``."""

    least: int
    """Instances that stay."""
    target_inflight: float
    """Requests in flight for each instance that is aimed at."""
    every_s: float
    down_after: int = 1
    """Ticks in a row with too many instances before some drain."""
    start_s: float | None = None
    """From the start of an instance until it takes requests [s]; else weights / ``load_gb_per_s``."""

    def check(self, instances: int, where: str) -> None:
        """Raise InputError for counts and times that cannot be."""
        if not 1 <= self.least <= instances:
            raise InputError(
                "least out of range", where=where, value=self.least, allowed=f"1 to instances ({instances})"
            )
        for name, value in (("target_inflight", self.target_inflight), ("every_s", self.every_s)):
            if not 0 < value < float("inf"):
                raise InputError(f"{name} must be positive and finite", where=where, value=value)
        if self.down_after < 1:
            raise InputError("down_after must be 1 or more", where=where, value=self.down_after)
        if self.start_s is not None and not 0 <= self.start_s < float("inf"):
            raise InputError("start_s must be finite and 0 or more", where=where, value=self.start_s)


class Tier(msgspec.Struct, frozen=True, kw_only=True):
    """KV memory below that of the instance."""

    bytes: float
    bytes_per_s: float
    """Rate at which an instance loads from it."""
    latency_s: float = 0.0


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Equal instances of one deployment, and the share of each class that the plan sends here."""

    name: str
    deployment: Deployment
    instances: int
    serves: dict[str, float] = {}
    """Class → share of its requests; empty: serves every class."""
    prefix_cache: bool = False
    retention_s: float = float("inf")
    """A cached block that nobody has used for longer is not found [s]."""
    host: Tier | None = None
    """DRAM beside each instance."""
    remote: Tier | None = None
    """Storage that the instances share."""
    watermark: float = 0.0
    """Share of the KV blocks that admission leaves free."""
    link_latency_s: float = 0.0
    """Before KV travels between prefill and decode [s]."""
    up: int | None = None
    """Instances up at the start; None: all."""
    autoscale: Autoscale | None = None
    start_s: float = 0.0
    """From the start of an instance until it takes requests [s]."""

    def may_serve(self, class_name: str) -> bool:
        """Whether requests of a class may come here at all."""
        return not self.serves or class_name in self.serves

    @property
    def systems(self) -> int:
        """Whole systems that the instances take."""
        d = self.deployment
        return -(-self.instances // d.instances_per_system) * d.systems_per_instance


class Pair(msgspec.Struct, frozen=True):
    """A prefill pool and a decode pool, how ready such a pair is, and where that is said."""

    prefill: str
    decode: str
    readiness: Readiness
    source: str


class Fleet(msgspec.Struct, frozen=True):
    """Pools in a fixed order."""

    pools: tuple[Pool, ...]

    def shares(self, class_names: tuple[str, ...]) -> Floats:
        """[class, pool] what the plan sends where; equal shares where a pool states none."""
        rows = [[p.serves.get(c, 0.0) if p.serves else 1.0 for p in self.pools] for c in class_names]
        return np.array(rows, dtype=np.float64).reshape(len(class_names), len(self.pools))

    @property
    def pairs(self) -> list[Pair]:
        """Every prefill pool with every decode pool that it may hand over to."""
        by_role = {role: [p for p in self.pools if p.deployment.role == role] for role in ("prefill", "decode")}
        found = []
        for prefill in by_role["prefill"]:
            for decode in by_role["decode"]:
                if _overlap(prefill, decode):
                    told = readiness(prefill.deployment, decode.deployment)
                    found.append(Pair(prefill.name, decode.name, told.readiness, told.source))
        return found

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
    stack: str = "tuned"
    """Serving engine of some date whose overheads count: ``catalog/data/stacks``."""
    serves: dict[str, float] = {}
    name: str | None = None
    prefix_cache: bool = False
    retention_s: float | None = None
    host_kv_gb: float | None = None
    """DRAM for KV beside each instance."""
    host_gb_per_s: float | None = None
    remote_kv_gb: float | None = None
    """Storage for KV that all instances of the pool share."""
    remote_gb_per_s: float | None = None
    """Rate of one instance from it."""
    remote_latency_s: float = 0.0
    watermark: float = 0.0
    link_latency_s: float = 0.0
    up: int | None = None
    autoscale: Autoscale | None = None
    load_gb_per_s: float | None = None
    """Rate at which an instance that starts loads its weights."""


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
        spec=None if row.spec is None else read_speculation(row.spec, f"{where}.spec"),
    )
    with located(f"{where}.stack"):
        made = with_stack(made, find_stack(catalog, row.stack, made))
    if pipeline and row.stages is None:
        made = msgspec.structs.replace(made, stages=fewest_stages(made) or 1)
    return within_measured(made)


def make_fleet(
    catalog: Catalog, rows: Mapping[str, PoolRow], model: str, classes: tuple[str, ...], where: str
) -> Fleet:
    """A fleet from rows by pool name.

    Raises
    ------
    InputError
        Unknown system, model or class, or a count that is not positive; the message names the row.
    """
    pools = tuple(_make_pool(catalog, name, row, model, classes, f"{where}.{name}") for name, row in rows.items())
    _check_roles(pools, classes, where)
    return Fleet(pools)


def plan_rows(rows: Sequence[Any], where: str) -> dict[str, PoolRow]:
    """Rows of a plan's fleet by name; pools of no instances are left out."""
    found = {}
    for i, raw in enumerate(rows):
        row = convert(PoolRow, raw, f"{where}: fleet[{i}]")
        if row.instances > 0:
            found[row.name or f"pool{i}"] = row
    return found


def _make_pool(
    catalog: Catalog, name: str, row: PoolRow, model: str, classes: tuple[str, ...], where: str
) -> Pool:  # fmt: skip
    if row.instances < 1:
        raise InputError("instances must be 1 or more", where=where, value=row.instances)
    for served in row.serves:
        if served not in classes:
            raise InputError(
                "unknown class in serves",
                where=where,
                value=served,
                allowed=", ".join(classes),
                mend=near_miss(served, classes),
            )
    _check_row(row, where)
    deployment = make_deployment(catalog, row, model, where)
    return Pool(
        name=name,
        deployment=deployment,
        instances=row.instances,
        serves=row.serves,
        prefix_cache=row.prefix_cache,
        retention_s=float("inf") if row.retention_s is None else row.retention_s,
        host=_tier("host", row.host_kv_gb, row.host_gb_per_s, 0.0, where),
        remote=_tier("remote", row.remote_kv_gb, row.remote_gb_per_s, row.remote_latency_s, where),
        watermark=row.watermark,
        link_latency_s=row.link_latency_s,
        up=row.up,
        autoscale=row.autoscale,
        start_s=_start_s(row, deployment, where),
    )


def _check_row(row: PoolRow, where: str) -> None:
    """Raise InputError for keys of a row that do not go together."""
    caching = [key for key in ("retention_s", "host_kv_gb", "remote_kv_gb") if getattr(row, key) is not None]
    if row.role == "decode" and (row.prefix_cache or caching):
        what = "a decode pool reads no prompts, so it keeps no prefix cache"
        raise InputError(what, where=where, value=["prefix_cache", *caching][-1], mend="set it on the prefill pool")
    if caching and not row.prefix_cache:
        raise InputError(f"{caching[0]} belongs to a prefix cache", where=where, mend="set prefix_cache = true")
    if row.retention_s is not None and not row.retention_s > 0:
        raise InputError("retention_s must be positive", where=where, value=row.retention_s)
    if row.role == "prefill" and row.spec is not None:
        raise InputError(
            "a prefill pool drafts nothing", where=where, value=row.spec, mend="set spec on the decode pool"
        )
    if not 0 <= row.watermark < 1:
        raise InputError("watermark out of range", where=where, value=row.watermark, allowed="0 to below 1")
    if row.link_latency_s and row.role == "both":
        what = "link_latency_s is for pools of prefill or decode alone"
        raise InputError(what, where=where, value=row.link_latency_s, mend="leave it out")
    for key in ("link_latency_s", "remote_latency_s"):
        if not 0 <= getattr(row, key) < float("inf"):
            raise InputError(f"{key} must be finite and 0 or more", where=where, value=getattr(row, key))
    if row.up is not None and not 0 <= row.up <= row.instances:
        raise InputError("up out of range", where=where, value=row.up, allowed=f"0 to instances ({row.instances})")
    if row.autoscale is not None:
        row.autoscale.check(row.instances, f"{where}.autoscale")


def _tier(name: str, gb: float | None, gb_per_s: float | None, latency_s: float, where: str) -> Tier | None:
    """A tier from its keys: both or neither."""
    if gb is None and gb_per_s is None and not latency_s:
        return None
    for key, value in ((f"{name}_kv_gb", gb), (f"{name}_gb_per_s", gb_per_s)):
        if value is None:
            raise InputError(f"{key} is missing", where=where, mend=f"say {name}_kv_gb and {name}_gb_per_s")
        if not 0 < value < float("inf"):
            raise InputError(f"{key} must be positive and finite", where=where, value=value)
    assert gb is not None and gb_per_s is not None
    return Tier(bytes=gb * GB, bytes_per_s=gb_per_s * GB, latency_s=latency_s)


def _start_s(row: PoolRow, deployment: Deployment, where: str) -> float:
    """From the start of an instance until it takes requests: stated, or weights of an instance over a stated rate [s].

    Zero where neither is stated and the pool does not scale itself: events then say when an instance is up again.
    """
    rate = row.load_gb_per_s
    if rate is not None and not 0 < rate < float("inf"):
        raise InputError("load_gb_per_s must be positive and finite", where=where, value=rate)
    if row.autoscale is not None and row.autoscale.start_s is not None:
        if rate is not None:
            what = "start_s and load_gb_per_s both say how long a start takes"
            raise InputError(what, where=where, value=(row.autoscale.start_s, rate), mend="leave one of them out")
        return row.autoscale.start_s
    if rate is None:
        if row.autoscale is not None:
            what = "how long a start takes is not said"
            raise InputError(what, where=f"{where}.autoscale", mend="say start_s, or load_gb_per_s of the pool")
        return 0.0
    return (weights_bytes(deployment) + draft_bytes(deployment)) / (rate * GB)


def _overlap(a: Pool, b: Pool) -> bool:
    """Whether a class may come to both."""
    return not a.serves or not b.serves or bool(a.serves.keys() & b.serves.keys())


def _check_roles(pools: Sequence[Pool], classes: tuple[str, ...], where: str) -> None:
    """Raise InputError where a prompt that was read has nowhere to go, or a decode pool nobody who sends."""
    prefills, decodes = ([p for p in pools if p.deployment.role == role] for role in ("prefill", "decode"))
    for pool in prefills:
        here = f"{where}.{pool.name}"
        for other in decodes:
            if _overlap(pool, other) and other.deployment.model.id != pool.deployment.model.id:
                what = f"it would hand over to {other.name}, which runs another model"
                mend = "part their classes with serves"
                raise InputError(what, where=here, value=other.deployment.model.id, mend=mend)
        for name in classes:
            if pool.may_serve(name) and not any(other.may_serve(name) for other in decodes):
                mend = 'add a pool with role = "decode"'
                raise InputError("no decode pool takes on what it reads", where=here, value=name, mend=mend)
    for pool in decodes:
        if not any(_overlap(pool, other) for other in prefills):
            mend = 'add a pool with role = "prefill" and the same model'
            raise InputError("no prefill pool hands over to it", where=f"{where}.{pool.name}", mend=mend)

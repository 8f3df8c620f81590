"""What a pool's engines and fleet can do, as fields of ``PoolSpec``: bytes become blocks, rates seconds a token."""

from __future__ import annotations

from typing import Any

from infermix.errors import InputError
from infermix.fleet import Pool, Tier
from infermix.perf import model_cost
from infermix.perf.deployment import Deployment
from infermix.perf.specdec import accepted_variance
from infermix.perf.table import StepTable
from infermix.perf.transfer import network_bytes_per_s
from infermix.sim.state import BOTH, DECODE, PREFILL

ROLES = {"both": BOTH, "prefill": PREFILL, "decode": DECODE}


def engine_fields(pool: Pool, table: StepTable) -> dict[str, Any]:
    """Fields of ``PoolSpec`` beside the step table; those of features that a pool does not use stay as they are.

    Notes
    -----
    A step table spreads context evenly over the ``dp`` groups of an instance: ``kv_s`` is seconds for each token of
    *all* groups, since its rate is that of all ``tp x pp x dp`` chips, and so are ``pair_s`` and ``load_s``. One group
    reads on its own chips, the dp-th part of them, and so takes dp times as long for each token that it has itself.
    Hence an instance with ``ranks`` = dp waits for dp times the largest ``kv_s K + pair_s Q`` of a group; where all
    groups have the same, that is the table's ``kv_s K + pair_s Q`` of all.
    """
    d = pool.deployment
    fields: dict[str, Any] = {
        "role": ROLES[d.role],
        "watermark_blocks": watermark_blocks(pool, table.blocks),
        "ranks": d.dp,
        "start_s": pool.start_s,
        "instances_up": pool.up,
    }
    return fields | _cache(pool, table) | _speculation(d) | _transfer(pool) | _autoscale(pool)


def watermark_blocks(pool: Pool, blocks: int) -> int:
    """KV blocks that admission leaves free, in whole blocks as engines count them."""
    return int(pool.watermark * blocks)


def _cache(pool: Pool, table: StepTable) -> dict[str, Any]:
    if not pool.prefix_cache:
        return {}
    d = pool.deployment
    per_token = model_cost.kv_bytes_per_token(d.model, d.kv)
    fields: dict[str, Any] = {"prefix_cache": True, "retention_s": pool.retention_s}
    for name, tier in (("host", pool.host), ("remote", pool.remote)):
        if tier is not None:
            fields |= _tier(name, tier, per_token, table.block_tokens, pool.name)
    return fields


def _tier(name: str, tier: Tier, bytes_per_token: float, block_tokens: int, where: str) -> dict[str, Any]:
    if not bytes_per_token:
        raise InputError("the model keeps no KV cache that grows with its context", where=where, value=f"{name}_kv_gb")
    return {
        f"{name}_blocks": int(tier.bytes // (bytes_per_token * block_tokens)),
        f"{name}_load_s": bytes_per_token / tier.bytes_per_s,
        f"{name}_latency_s": tier.latency_s,
    }


def _speculation(d: Deployment) -> dict[str, Any]:
    if d.spec is None:
        return {}
    return {
        "accepted_per_step": d.spec.accepted_per_step,
        "accepted_most": d.spec.width,
        "accepted_variance": accepted_variance(d.spec),
    }


def _transfer(pool: Pool) -> dict[str, Any]:
    """A prompt's KV over the pool's own network; windows and states travel once, so they are part of the latency."""
    d = pool.deployment
    if d.role == "both":
        return {}
    rate = network_bytes_per_s(d)
    once_s = model_cost.kv_bytes_per_sequence(d.model, d.kv) / rate
    return {
        "transfer_s_per_token": model_cost.kv_bytes_per_token(d.model, d.kv) / rate,
        "transfer_latency_s": pool.link_latency_s + once_s,
    }


def _autoscale(pool: Pool) -> dict[str, Any]:
    rule = pool.autoscale
    if rule is None:
        return {}
    return {
        "least": rule.least,
        "target_inflight": rule.target_inflight,
        "scale_every_s": rule.every_s,
        "scale_down_after": rule.down_after,
    }


def step_s_per_token(table: StepTable, d: Deployment, context: float) -> float:
    """Seconds for the next token of every sequence of a full batch: a step over the tokens that it gives each."""
    seqs = d.max_num_seqs
    step_s = float(table.decode_s[seqs]) + seqs * (table.per_seq_s + table.kv_s * context)
    return step_s / table.tokens_per_step

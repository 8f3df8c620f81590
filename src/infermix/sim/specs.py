"""A fleet as the arrays and scalars that simulator, emulator and gateway share; loads neither compiler nor kernel."""

from __future__ import annotations

import numpy as np

from infermix.fleet import Fleet, Pool
from infermix.perf.table import StepTable, compile_table
from infermix.sim.engines import engine_fields, step_s_per_token
from infermix.sim.state import PoolSpec
from infermix.workload.requests import Requests


def fleet_specs(fleet: Fleet, requests: Requests, speed: str) -> list[PoolSpec]:
    """The fleet as arrays and scalars, with the modelled speeds that a gateway would know."""
    return specs_at(fleet, requests.class_names, _mean_context(requests), speed)


def specs_at(fleet: Fleet, class_names: tuple[str, ...], context_tokens: float, speed: str) -> list[PoolSpec]:
    """As ``fleet_specs``, for a typical context instead of requests."""
    return [_pool_spec(pool, class_names, context_tokens, _table(pool, speed)) for pool in fleet.pools]


def fleet_pool_spec(pool: Pool, requests: Requests, table: StepTable) -> PoolSpec:
    """One pool as arrays and scalars, with a step table of the caller's choice."""
    return _pool_spec(pool, requests.class_names, _mean_context(requests), table)


def _mean_context(requests: Requests) -> float:
    """Context halfway through the answer of a mean request [tokens]."""
    if not len(requests):
        return 0.0
    return float(np.mean(requests.input_tokens)) + 0.5 * float(np.mean(requests.output_tokens))


def _table(pool: Pool, speed: str) -> StepTable:
    table = compile_table(pool.deployment)
    return table.at_speed(table.low) if speed == "low" else table


def _pool_spec(pool: Pool, class_names: tuple[str, ...], context: float, table: StepTable) -> PoolSpec:
    d = pool.deployment
    return PoolSpec(
        instances=pool.instances,
        decode_s=table.decode_s,
        mixed_s=table.mixed_s,
        per_seq_s=table.per_seq_s,
        kv_s=table.kv_s,
        pair_s=table.pair_s,
        # with a cache, what is found lies in the instance's own memory; tables charge contexts that are kept elsewhere
        load_s=0.0 if pool.prefix_cache else table.load_s,
        block_tokens=table.block_tokens,
        blocks=table.blocks,
        max_num_seqs=d.max_num_seqs,
        max_batched_tokens=d.max_batched_tokens,
        max_context=d.model.max_context,
        serves=np.array([not pool.serves or c in pool.serves for c in class_names]),
        prefill_s_per_token=float(table.mixed_s[-1]) / d.max_batched_tokens + table.pair_s * context,
        step_s=step_s_per_token(table, d, context),
        **engine_fields(pool, table),
    )

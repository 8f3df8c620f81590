"""A model on a system of the catalogue as a start for fits: its step times and KV memory."""

from __future__ import annotations

import msgspec

from infermix.catalog.load import catalog
from infermix.errors import NoAnswer
from infermix.fleet import Pool, PoolRow, make_deployment
from infermix.measure.engine import BLOCK_TOKENS, Engine
from infermix.measure.steps import ScaledSteps
from infermix.perf.table import compile_table
from infermix.sim.specs import fleet_pool_spec
from infermix.sim.state import PoolSpec
from infermix.workload.requests import Requests

KV_FACTORS = (0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)
"""On the KV memory that the catalogue leaves, tried where it fills."""


def catalogue_pool(system: str, model: str, requests: Requests, engine: Engine, where: str) -> PoolSpec:
    """The pool that the catalogue makes of a model on a system with these settings.

    Raises
    ------
    InputError
        Unknown system or model, or one without a step-time model.
    NoAnswer
        The model does not fit.
    """
    row = PoolRow(
        system=system,
        instances=engine.instances,
        max_num_seqs=engine.max_num_seqs,
        max_batched_tokens=engine.max_batched_tokens,
    )
    deployment = make_deployment(catalog(), row, model, where)
    try:
        table = compile_table(deployment)
    except NoAnswer as fault:
        raise NoAnswer(f"{where}: {fault}") from None
    pool = Pool(name=system, deployment=deployment, instances=engine.instances)
    return fleet_pool_spec(pool, requests, table)


def on_system(system: str, model: str, requests: Requests, engine: Engine, where: str) -> tuple[ScaledSteps, Engine]:
    """(the catalogue's step times, the settings with the KV memory that is left beside the weights)."""
    spec = catalogue_pool(system, model, requests, engine, where)
    steps = ScaledSteps(catalogue=spec)
    if engine.kv_tokens is not None:
        return steps, engine
    return steps, msgspec.structs.replace(engine, kv_tokens=spec.blocks * BLOCK_TOKENS)

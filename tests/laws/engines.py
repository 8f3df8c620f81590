"""The two engines behind one call, so that one law serves both."""

from __future__ import annotations

import importlib
import math

import numpy as np

from infermix.route.names import POLICIES
from infermix.route.view import Promises
from infermix.workload.requests import Requests
from tests.naive import policies
from tests.naive.sim import COMPLETED, REFUSED, UNFINISHED, NaivePool, NaiveResult, Policy, simulate

naive_engine = simulate

_STATUS = {0: UNFINISHED, 1: COMPLETED, 2: REFUSED}
_BY_NAME: dict[Policy, str] = {getattr(policies, name): name for name in POLICIES if hasattr(policies, name)}


def kernel_engine(
    requests: Requests,
    pools: list[NaivePool],
    policy: Policy,
    *,
    share: list[list[float]] | None = None,
    until_s: float = math.inf,
    typical_output_tokens: list[float] | None = None,
    promises: Promises | None = None,
    seed: int = 0,
) -> NaiveResult:
    """The compiled simulator. A naive policy stands for the compiled one of its name; others are compiled."""
    run_module = importlib.import_module("infermix.sim.run")
    state = importlib.import_module("infermix.sim.state")
    classes = len(requests.class_names)
    specs = [
        state.PoolSpec(
            instances=pool.instances,
            decode_s=np.array(pool.decode_s, dtype=np.float64),
            mixed_s=np.array(pool.mixed_s, dtype=np.float64),
            per_seq_s=pool.per_seq_s,
            kv_s=pool.kv_s,
            pair_s=pool.pair_s,
            load_s=pool.load_s,
            block_tokens=pool.block_tokens,
            blocks=pool.blocks,
            max_num_seqs=pool.max_num_seqs,
            max_batched_tokens=pool.max_batched_tokens,
            serves=np.array([pool.serves_class(k) for k in range(classes)], dtype=np.bool_),
            prefill_s_per_token=pool.prefill_s_per_token,
            step_s=pool.step_s,
            max_context=pool.max_context,
            usd_per_s=pool.usd_per_s,
        )
        for pool in pools
    ]
    shares = share if share is not None else [[1.0 / len(pools)] * len(pools)] * classes
    typical = typical_output_tokens if typical_output_tokens is not None else [1.0] * classes
    run = run_module.simulate_pools(
        requests,
        specs,
        _BY_NAME.get(policy, policy),
        share=np.array(shares, dtype=np.float64).reshape(classes, len(pools)),
        until_s=until_s,
        typical_output_tokens=np.array(typical, dtype=np.float64),
        promises=promises,
        seed=seed,
    )
    return NaiveResult(
        arrival_s=run.requests.arrival_s.tolist(),
        first_s=run.first_s.tolist(),
        last_s=run.last_s.tolist(),
        instance=run.instance.tolist(),
        status=[_STATUS[code] for code in run.status.tolist()],
        busy_s=run.busy_s.tolist(),
        steps=run.steps.tolist(),
        decode_tokens=run.decode_tokens.tolist(),
        prompt_tokens=run.prompt_tokens.tolist(),
        kv_peak_blocks=run.kv_peak_blocks.tolist(),
        preemptions=run.preemptions.tolist(),
    )

"""The two engines behind one call, so that one law serves both."""

from __future__ import annotations

import importlib
import importlib.util
import math
from dataclasses import fields
from typing import Any

import numpy as np

from infermix.route.names import POLICIES
from infermix.route.view import Promises
from infermix.workload.requests import Requests
from tests.naive import policies
from tests.naive.sim import (
    COMPLETED,
    REFUSED,
    UNFINISHED,
    NaivePool,
    NaiveResult,
    NaiveRules,
    Policy,
    simulate,
)

naive_engine = simulate

_STATUS = {0: UNFINISHED, 1: COMPLETED, 2: REFUSED}
_BY_NAME: dict[Policy, str] = {getattr(policies, name): name for name in POLICIES if hasattr(policies, name)}


def kernel_has_features() -> bool:
    """Whether the compiled simulator knows of engines and fleets."""
    return importlib.util.find_spec("infermix.sim.rules") is not None


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
    rules: NaiveRules | None = None,
) -> NaiveResult:
    """The compiled simulator. A naive policy stands for the compiled one of its name; others are compiled.

    Of the times between tokens only the bins are known: ``gaps`` holds the lower edge of the bin of each.
    """
    run_module = importlib.import_module("infermix.sim.run")
    classes = len(requests.class_names)
    shares = share if share is not None else [[1.0 / len(pools)] * len(pools)] * classes
    typical = typical_output_tokens if typical_output_tokens is not None else [1.0] * classes
    run = run_module.simulate_pools(
        requests,
        [_spec(pool, classes) for pool in pools],
        _BY_NAME.get(policy, policy),
        share=np.array(shares, dtype=np.float64).reshape(classes, len(pools)),
        until_s=until_s,
        typical_output_tokens=np.array(typical, dtype=np.float64),
        promises=promises,
        seed=seed,
        **({} if rules is None else {"rules": _compiled_rules(rules)}),
    )
    features = ("admit_s", "prefill_instance", "hit_tokens", "loaded_tokens", "restarts", "on_s")
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
        gaps=_gaps(run, len(pools), classes),
        **{name: getattr(run, name).tolist() for name in features if hasattr(run, name)},
    )


def _spec(pool: NaivePool, classes: int) -> Any:
    """The pool as the compiled simulator takes it: the same names; what it does not know yet must be at its default."""
    spec = importlib.import_module("infermix.sim.state").PoolSpec
    values = {field.name: getattr(pool, field.name) for field in fields(pool)}
    for name in ("decode_s", "mixed_s"):
        values[name] = np.array(values[name], dtype=np.float64)
    values["serves"] = np.array([pool.serves_class(k) for k in range(classes)], dtype=np.bool_)
    known = {field.name for field in fields(spec)}
    assert all(values[field.name] == field.default for field in fields(pool) if field.name not in known)
    return spec(**{name: value for name, value in values.items() if name in known})


def _compiled_rules(rules: NaiveRules) -> Any:
    """The rules as the compiled simulator takes them: the same names."""
    values = {field.name: getattr(rules, field.name) for field in fields(rules)}
    for name, value in values.items():
        if isinstance(value, list):
            values[name] = np.array(value, dtype=np.float64)
    return importlib.import_module("infermix.sim.rules").FleetRules(**values)


def _gaps(run: Any, pools: int, classes: int) -> dict[tuple[int, int], list[float]]:
    """For each pool and class that has any, the lower edges of the bins."""
    low_s = importlib.import_module("infermix.sim.state").gap_edges_s()[:-1]
    told = {(p, c): np.repeat(low_s, run.gaps[p, c]).tolist() for p in range(pools) for c in range(classes)}
    return {key: times for key, times in told.items() if times}

"""Run a simulation: arrays in, a ``Run`` out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from infermix import jit
from infermix.arrays import Floats
from infermix.fleet import Fleet
from infermix.route.registry import Policy, compiled_policy, find_policy
from infermix.route.view import Ask, FleetView, Promises
from infermix.sim.kernel import close, compiled_run
from infermix.sim.prepare import make_promises, make_state, make_view
from infermix.sim.result import UNFINISHED, Run
from infermix.sim.rules import FleetRules
from infermix.sim.specs import fleet_specs
from infermix.sim.state import INFLIGHT, STARTED, PoolSpec, State
from infermix.sim.stores import with_entries
from infermix.workload.classes import TrafficClass
from infermix.workload.requests import Requests

ARRIVALS_PER_CALL = 200_000
CACHED_ARRIVALS_PER_CALL = 20_000
"""Fewer with a prefix cache, whose entries are made for as many requests at a time."""
_EXAMPLE_ASK = Ask(0, 0, 0, -1, 0.0, 1, 0, 1.0, 0, np.inf, 0.5, -1)

Progress = Callable[[int, int], None]
"""Called with (arrivals simulated, all arrivals)."""


def simulate_pools(
    requests: Requests,
    pools: list[PoolSpec],
    policy: str | Policy,
    *,
    share: Floats | None = None,
    until_s: float = np.inf,
    typical_output_tokens: Floats | None = None,
    promises: Promises | None = None,
    rules: FleetRules | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Run:
    """Simulate requests on pools.

    Parameters
    ----------
    share
        [class, pool] for ``pool_split``; equal shares when left out.
    until_s
        Time at which the simulation stops [s].
    typical_output_tokens
        Mean output per class as a gateway would know it from history; the true means when left out.
    promises
        What each class was promised, for policies that look at it; nothing when left out.
    rules
        What happens to instances and at the gateway; nothing when left out.

    Requests with a parent arrive ``think_s`` after its last token, whenever that is: the arrival times of the result
    are those that came about, inf where the parent never ended.

    An interrupt (Ctrl-C) between batches of arrivals ends the run cleanly: what was simulated until then is returned
    with ``interrupted`` set.
    """
    if typical_output_tokens is None:
        typical_output_tokens = mean_outputs(requests)
    if share is None:
        share = np.full((len(requests.class_names), len(pools)), 1.0 / len(pools))
    state = make_state(requests, pools, typical_output_tokens, seed, rules or FleetRules())
    view = make_view(state, pools, share, promises or make_promises(requests.class_names, {}))
    step, choose = compile_for(state, view, policy)
    clock = time.perf_counter()
    state, arrived, interrupted = _run(state, view, step, choose, until_s, progress)
    close(state, until_s)
    return result_of(requests, state, arrived, interrupted, time.perf_counter() - clock)


def compile_for(state: State, view: FleetView, policy: str | Policy) -> tuple[Callable[..., int], Policy]:
    """(the kernel's ``run``, the policy) as functions for such a state; both come from the disk cache if they can."""
    choice = find_policy(policy) if isinstance(policy, str) else policy
    view_type, ask_type = jit.type_of(view), jit.type_of(_EXAMPLE_ASK)
    seen_type = jit.reference_to(view_type)
    function_type = jit.function_type("int64", seen_type, ask_type)
    step = compiled_run(jit.type_of(state), view_type, function_type)
    if jit.ENABLED:
        close(_without_instances(state), np.inf)
    return step, compiled_policy(choice, seen_type, ask_type)


def _without_instances(state: State) -> State:
    """The same state without instances: compiling on it changes nothing."""
    return state._replace(instances=state.instances[:0])


def _run(
    state: State,
    view: FleetView,
    step: Callable[..., int],
    choose: Policy,
    until_s: float,
    progress: Progress | None,
) -> tuple[State, int, bool]:
    """(the state, how many requests have arrived, whether the run was interrupted)."""
    n, done = len(state.requests), 0
    cached = len(state.cache.stores) > 0
    at_once = CACHED_ARRIVALS_PER_CALL if cached else ARRIVALS_PER_CALL
    deepest = int(state.cache.segments["depth"].max(initial=0))
    try:
        while True:
            last = min(n, done + at_once)
            if cached:
                soon = at_once + int(state.counters[INFLIGHT].sum()) + int(state.clock["due"][0])
                state = state._replace(cache=with_entries(state.cache, deepest, soon))
            reached = step(state, view, choose, done, last, until_s)
            done = reached
            if progress is not None:
                progress(done, n)
            if reached < last or last == n:
                break
    except KeyboardInterrupt:
        return state, done, True
    return state, done, False


def result_of(requests: Requests, state: State, arrived: int, interrupted: bool, kernel_s: float) -> Run:
    """What the state tells of its requests and instances."""
    rows, mine = state.instances, state.requests
    status = np.where(mine["status"] == STARTED, UNFINISHED, mine["status"]).astype(np.int8)
    last_s = mine["last_s"].copy()
    ends = last_s[np.isfinite(last_s)]
    return Run(
        requests=replace(requests, arrival_s=mine["arrival_s"].copy()),
        admit_s=mine["admit_s"].copy(),
        first_s=mine["first_s"].copy(),
        last_s=last_s,
        instance=mine["instance"].copy(),
        status=status,
        pool=rows["pool"].copy(),
        busy_s=rows["busy_s"].copy(),
        steps=rows["steps"].copy(),
        decode_tokens=rows["decode_tokens"].copy(),
        prompt_tokens=rows["prompt_tokens"].copy(),
        kv_peak_blocks=rows["kv_peak_blocks"].copy(),
        preemptions=rows["preemptions"].copy(),
        on_s=rows["on_s"].copy(),
        link_busy_s=rows["link_busy_s"].copy(),
        sent_tokens=rows["sent_tokens"].copy(),
        prefill_instance=_extra(state, "prefill_instance"),
        hit_tokens=_extra(state, "hit"),
        loaded_tokens=_extra(state, "loaded"),
        restarts=_extra(state, "restarts"),
        seq_steps=rows["seq_steps"].copy(),
        gaps=state.gaps,
        arrived=arrived,
        simulated_s=float(ends.max()) if len(ends) else 0.0,
        kernel_s=kernel_s,
        interrupted=interrupted,
    )


def _extra(state: State, name: str) -> npt.NDArray[np.int32]:
    """A column of what only some workloads have; where they have not, one value stands for all."""
    column = state.extras[name]
    if state.clock["wide"][0]:
        return np.asarray(column.copy())
    return np.broadcast_to(column, len(state.requests))


def mean_outputs(requests: Requests) -> Floats:
    """Mean output tokens of each class."""
    classes = len(requests.class_names)
    count = np.bincount(requests.class_id, minlength=classes)
    total = np.bincount(requests.class_id, weights=requests.output_tokens, minlength=classes)
    return np.asarray(total / np.maximum(count, 1), dtype=np.float64)


def simulate_fleet(
    fleet: Fleet,
    requests: Requests,
    policy: str | Policy,
    *,
    speed: str = "nominal",
    until_s: float = np.inf,
    seed: int = 0,
    progress: Progress | None = None,
    classes: Mapping[str, TrafficClass] | None = None,
    usd_per_s: Mapping[str, float] | None = None,
    rules: FleetRules | None = None,
) -> Run:
    """Simulate requests on a fleet at ``nominal`` or ``low`` speed of the step-time intervals.

    ``classes`` and ``usd_per_s`` (pool → price of an instance) are what policies may know of promises and prices;
    ``rules`` say what happens to instances and at the gateway.
    """
    return simulate_pools(
        requests,
        priced_specs(fleet, requests, speed, usd_per_s),
        policy,
        share=fleet.shares(requests.class_names),
        until_s=until_s,
        promises=make_promises(requests.class_names, classes or {}),
        rules=rules,
        seed=seed,
        progress=progress,
    )


def priced_specs(
    fleet: Fleet, requests: Requests, speed: str, usd_per_s: Mapping[str, float] | None = None
) -> list[PoolSpec]:
    """The pools of a fleet for such requests, with the prices that are known."""
    known = usd_per_s or {}
    return [
        replace(spec, usd_per_s=known.get(pool.name, np.nan))
        for pool, spec in zip(fleet.pools, fleet_specs(fleet, requests, speed), strict=True)
    ]

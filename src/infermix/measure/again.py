"""Simulate one pool again and again: what a fit does a thousand times, without asking for the kernel every time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from infermix.sim.kernel import close
from infermix.sim.prepare import make_promises, make_state, make_view
from infermix.sim.result import Run
from infermix.sim.rules import FleetRules
from infermix.sim.run import compile_for, result_of
from infermix.sim.state import PoolSpec
from infermix.workload.requests import Requests

_KERNELS: dict[str, tuple[Callable[..., int], Any]] = {}
"""Policy → the kernel and the policy, compiled: requests and pools of logs all have the same types."""


def simulate_again(requests: Requests, spec: PoolSpec, policy: str) -> Run:
    """As ``sim.run.simulate_pools`` for one pool without a prefix cache and all requests to their end."""
    typical = np.full(len(requests.class_names), float(np.mean(requests.output_tokens)))
    state = make_state(requests, [spec], typical, 0, FleetRules())
    share = np.ones((len(requests.class_names), 1))
    view = make_view(state, [spec], share, make_promises(requests.class_names, {}))
    if policy not in _KERNELS:
        _KERNELS[policy] = compile_for(state, view, policy)
    step, choose = _KERNELS[policy]
    clock = time.perf_counter()
    arrived = step(state, view, choose, 0, len(requests), np.inf)
    close(state, np.inf)
    return result_of(requests, state, arrived, False, time.perf_counter() - clock)

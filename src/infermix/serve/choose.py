"""One decision: what the policy says, and whether a session stays where its cache is. Pure, for gateway and replay."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from infermix import jit
from infermix.route.registry import Policy, compiled_policy
from infermix.route.scorers import predicted_tpot_s, predicted_ttft_s, usd_per_request
from infermix.route.view import Ask, FleetView

LEAST_CACHED_TOKENS = 128
"""Less than that is nowhere at home."""


class Estimate(NamedTuple):
    """What is predicted of a request on an instance."""

    ttft_s: float
    tpot_s: float
    e2e_s: float
    usd: float
    """inf: the price is not known."""


class Chooser(NamedTuple):
    """A policy and the scorers, plain or compiled for one kind of view."""

    policy: Policy
    estimate: Callable[[FleetView, Ask, int], tuple[float, float, float, float]]
    price: Callable[[FleetView, Ask, int], float]
    sticky: bool


def _estimates(view: FleetView, ask: Ask, j: int) -> tuple[float, float, float, float]:
    ttft_s, tpot_s = predicted_ttft_s(view, ask, j), predicted_tpot_s(view, ask, j)
    rest = max(ask.typical_output_tokens - 1.0, 0.0)
    return ttft_s, tpot_s, ttft_s + rest * tpot_s, usd_per_request(view, ask, j)


def _plain_estimates(view: FleetView, ask: Ask, j: int) -> tuple[float, float, float, float]:
    """In Python's own numbers, whatever the columns hold."""
    ttft_s, tpot_s, e2e_s, usd = _estimates(view, ask, j)
    return float(ttft_s), float(tpot_s), float(e2e_s), float(usd)


def _plain_price(view: FleetView, ask: Ask, j: int) -> float:
    return float(usd_per_request(view, ask, j))


def make_chooser(policy: Policy, view: FleetView, ask: Ask, *, sticky: bool) -> Chooser:
    """Compile what there is to compile, now rather than at the first request; ``view`` and ``ask`` are examples."""
    if not jit.ENABLED:
        return Chooser(policy, _plain_estimates, _plain_price, sticky)
    estimates, price = _kernels()
    estimates(view, ask, 0)
    price(view, ask, 0)
    compiled = compiled_policy(policy, jit.type_of(view), jit.type_of(ask))
    return Chooser(compiled, estimates, price, sticky)


@cache
def _kernels() -> tuple[Any, Any]:
    """The scorers as functions that Python may call, compiled once."""
    return jit.kernel(_estimates), jit.outermost(usd_per_request)


def estimate(chooser: Chooser, view: FleetView, ask: Ask, j: int) -> Estimate:
    """What is predicted of the request on instance j."""
    return Estimate(*chooser.estimate(view, ask, j))


def choose(chooser: Chooser, view: FleetView, ask: Ask, home: int) -> int:
    """The instance that takes the request, -1: none.

    ``ask.cached_tokens`` are those that the instance ``home`` has. The policy is asked as if no cache had any; the
    session stays at home where that is predicted to be done no later, and its pool serves the class.
    """
    if not chooser.sticky or home < 0 or ask.cached_tokens < LEAST_CACHED_TOKENS:
        return int(chooser.policy(view, ask))
    anew = ask._replace(cached_tokens=0)
    pick = int(chooser.policy(view, anew))
    if pick < 0 or pick == home or not view.eligible[home] or view.share[ask.class_id, view.pool[home]] <= 0.0:
        return pick
    stays_s = estimate(chooser, view, ask, home).e2e_s
    return home if stays_s <= estimate(chooser, view, anew, pick).e2e_s else pick

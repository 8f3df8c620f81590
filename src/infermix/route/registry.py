"""Policies by name, and the users' own."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from infermix import jit
from infermix.errors import InputError, near_miss
from infermix.route import policies
from infermix.route.view import Ask, FleetView

Policy = Callable[[FleetView, Ask], int]

POLICIES: dict[str, Policy] = {
    "round_robin": policies.round_robin,
    "least_wait": policies.least_wait,
    "pool_split": policies.pool_split,
}


def policy(function: Policy) -> Policy:
    """Decorator: register a policy of one's own under its name, for the simulator and the gateway.

    It must be compilable by Numba: numbers, loops and the arrays of the view.
    """
    compiled = jit.kernel(function, cache=False)
    POLICIES[function.__name__] = compiled
    return compiled


def find_policy(name: str, where: str = "policy") -> Policy:
    """The policy of that name; InputError with the near miss otherwise."""
    if name not in POLICIES:
        raise InputError(
            "unknown policy", where=where, value=name, allowed=", ".join(POLICIES), mend=near_miss(name, POLICIES)
        )
    return POLICIES[name]


@cache
def compiled_policy(choice: Policy, view_type: Any, ask_type: Any) -> Policy:
    """The policy as a value of the one function type that the kernel takes."""
    if not jit.ENABLED:
        return choice
    plain = getattr(choice, "py_func", choice)
    packaged = plain.__module__.startswith("infermix.")
    return jit.compiled(plain, "int64", view_type, ask_type, cache=packaged)

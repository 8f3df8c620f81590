"""A plan of faults: what an emulated server does wrong, to which requests, from when to when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import msgspec

from infermix.catalog.parse import check_keys, convert
from infermix.errors import InputError, near_miss

Kind = Literal["refuse", "429", "500", "cut", "stall", "malformed", "slow_start", "no_metrics"]
KINDS: tuple[str, ...] = get_args(Kind)
IN_STREAM = ("cut", "stall", "malformed")


class Fault(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Table ``[[faults]]``."""

    kind: Kind
    backend: str = "*"
    """An instance, a pool, or * for all."""
    from_s: float = 0.0
    """Since the server began [s]."""
    to_s: float = float("inf")
    every: int = 1
    """Each so many-th request of an instance (refuse, slow_start and no_metrics: all)."""
    after_chunks: int = 3
    """What a stream brings before it is cut, stalls, or has a malformed chunk."""
    stall_s: float = 3600.0
    """How long nothing comes; then the stream goes on."""
    retry_after_s: int = 1
    """What an answer with 429 says."""

    def concerns(self, name: str, pool: str, now_s: float) -> bool:
        """Whether it is on for an instance now."""
        return self.backend in ("*", name, pool) and self.from_s <= now_s < self.to_s


def read_faults(rows: Any, where: str, known: Sequence[str]) -> tuple[Fault, ...]:
    """The faults of a file; ``known`` are the names of instances and pools.

    Raises
    ------
    InputError
        A key, a kind, a name or a number that cannot be.
    """
    if not isinstance(rows, list):
        raise InputError("faults must be a list of tables", where=where, mend="write [[faults]]")
    found = []
    for i, row in enumerate(rows):
        here = f"{where}: faults[{i}]"
        if not isinstance(row, dict):
            raise InputError("a fault must be a table", where=here, value=row)
        check_keys(row, Fault.__struct_fields__, here)
        if row.get("kind") not in KINDS:
            mend = near_miss(str(row.get("kind")), KINDS)
            raise InputError(
                "unknown fault", where=f"{here}.kind", value=row.get("kind"), allowed=", ".join(KINDS), mend=mend
            )
        fault = convert(Fault, row, here)
        _check(fault, here, known)
        found.append(fault)
    return tuple(found)


def _check(fault: Fault, where: str, known: Sequence[str]) -> None:
    if fault.backend != "*" and fault.backend not in known:
        mend = near_miss(fault.backend, known)
        raise InputError(
            "no such backend",
            where=f"{where}.backend",
            value=fault.backend,
            allowed=f"*, {', '.join(known)}",
            mend=mend,
        )
    if not 0 <= fault.from_s < fault.to_s:
        raise InputError("it ends before it begins", where=f"{where}.to_s", value=fault.to_s, allowed="above from_s")
    for name, least in (("every", 1), ("after_chunks", 0), ("stall_s", 0), ("retry_after_s", 0)):
        if getattr(fault, name) < least:
            raise InputError(f"{name} must be {least} or more", where=f"{where}.{name}", value=getattr(fault, name))


class Faults:
    """The faults of one instance, and how many requests it has seen."""

    def __init__(self, plan: Sequence[Fault], name: str, pool: str) -> None:
        self.plan, self.name, self.pool = tuple(plan), name, pool
        self.asked = 0

    def on(self, kind: Kind, now_s: float) -> bool:
        """Whether a fault of the whole instance is on."""
        return any(f.kind == kind and f.concerns(self.name, self.pool, now_s) for f in self.plan)

    def of_next_request(self, now_s: float) -> Fault | None:
        """The fault that the next request meets: of several the first in the plan."""
        self.asked += 1
        of_requests = (f for f in self.plan if f.kind not in ("refuse", "slow_start", "no_metrics"))
        return next(
            (f for f in of_requests if f.concerns(self.name, self.pool, now_s) and self.asked % f.every == 0), None
        )

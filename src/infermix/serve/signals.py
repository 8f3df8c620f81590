"""What a request says beside its prompt: class, session, urgency, promises of its own, in the spellings in use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple
from zlib import crc32

from infermix.serve.config import Budget, GatewayFile, Promise
from infermix.serve.openai import ApiError, Wanted

OBJECTIVE = (b"x-infermix-class", b"x-llm-d-inference-objective", b"x-gateway-inference-objective")
TTFT_MS = (b"x-llm-d-slo-ttft-ms", b"x-slo-ttft-ms")
TPOT_MS = (b"x-llm-d-slo-tpot-ms", b"x-slo-tpot-ms")
DEADLINE_MS = (b"x-infermix-deadline-ms",)
SESSION = (b"x-session-token", b"x-session-id")
_NO_HINTS: dict[str, Any] = {}
TIER_PRIORITY = {"flex": -1, "priority": 1}
"""What a service tier adds to the priority of the class; below 0 a request is shed first."""


class Signals(NamedTuple):
    """Of one request."""

    class_name: str
    session: int
    """-1: none."""
    priority: int
    tier: str
    deadline_in_s: float
    """inf: the request says none."""
    ttft_s: float | None
    tpot_s: float | None
    """Promises of its own; None: those of its class."""


class Known(NamedTuple):
    """What requests may name."""

    classes: dict[str, Promise]
    class_of_model: dict[str, str]
    """Model → the class of its requests that name none."""


def known_names(file: GatewayFile) -> Known:
    """Classes and models of a gateway file."""
    first = next(iter(file.classes))
    own = {promise.model: name for name, promise in reversed(file.classes.items())}
    return Known(file.classes, {model: own.get(model, first) for model in file.models})


def read_signals(headers: Mapping[bytes, bytes], wanted: Wanted, known: Known, budget: Budget | None) -> Signals:
    """Signals of a request.

    Raises
    ------
    ApiError
        404 for a model that no backend has, 400 for a number that is none.
    """
    if wanted.model not in known.class_of_model:
        there = ", ".join(known.class_of_model)
        raise ApiError(
            404, f"the model {wanted.model!r} does not exist; there are: {there}", code="model_not_found", param="model"
        )
    tier = wanted.service_tier or "auto"
    hints = _nvext(wanted) if wanted.nvext else _NO_HINTS
    name = _class_of(headers, wanted.model, known, budget)
    priority = known.classes[name].priority
    priority += TIER_PRIORITY.get(tier, 0) + (budget.priority if budget is not None else 0)
    if wanted.priority is not None:
        priority += wanted.priority
    elif isinstance(said := hints.get("priority"), int):
        priority += said
    deadline_ms = _number(headers, DEADLINE_MS)
    ttft_ms, tpot_ms = _number(headers, TTFT_MS), _number(headers, TPOT_MS)
    return Signals(
        class_name=name,
        session=_session(headers, wanted),
        priority=max(-100, min(100, priority)),
        tier=tier,
        deadline_in_s=float("inf") if deadline_ms is None else deadline_ms / 1000.0,
        ttft_s=_seconds(hints.get("ttft") if ttft_ms is None else ttft_ms),
        tpot_s=_seconds(hints.get("tpot") if tpot_ms is None else tpot_ms),
    )


def _class_of(headers: Mapping[bytes, bytes], model: str, known: Known, budget: Budget | None) -> str:
    """The class that is named, else the key's, else the first one of the model."""
    for header in OBJECTIVE:
        if header in headers:
            said = headers[header].decode("latin-1")
            if said in known.classes:
                return said
    if budget is not None and budget.class_name is not None:
        return budget.class_name
    return known.class_of_model[model]


def _session(headers: Mapping[bytes, bytes], wanted: Wanted) -> int:
    """The conversation as a number, -1 where nothing names it."""
    for header in SESSION:
        if header in headers:
            return crc32(headers[header]) & 0x7FFFFFFF
    key = wanted.prompt_cache_key or wanted.user
    return -1 if not key else crc32(key.encode("utf-8", "surrogatepass")) & 0x7FFFFFFF


def _nvext(wanted: Wanted) -> dict[str, Any]:
    """Targets and hints in Dynamo's spelling."""
    raw = wanted.nvext or {}
    router, hints = raw.get("router"), raw.get("agent_hints")
    router = router if isinstance(router, dict) else {}
    hints = hints if isinstance(hints, dict) else {}
    return {"ttft": router.get("ttft_target"), "tpot": router.get("itl_target"), "priority": hints.get("priority")}


def _seconds(ms: Any) -> float | None:
    return ms / 1000.0 if isinstance(ms, int | float) and not isinstance(ms, bool) and ms > 0 else None


def _number(headers: Mapping[bytes, bytes], names: tuple[bytes, ...]) -> float | None:
    for name in names:
        if name in headers:
            try:
                value = float(headers[name])
            except ValueError:
                value = float("nan")
            if not 0 < value < float("inf"):
                raise ApiError(
                    400, f"{name.decode()} must be a positive number", param=name.decode(), code="invalid_value"
                )
            return value
    return None

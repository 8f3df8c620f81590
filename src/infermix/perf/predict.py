"""Speed of a deployment at one operating point, with its interval and what it is bound by."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from infermix.errors import NoAnswer
from infermix.perf.breakdown import bound_by, step_parts_s
from infermix.perf.deployment import Deployment, check_deployment
from infermix.perf.idle import ttft_s
from infermix.perf.memory import kv_tokens_left
from infermix.perf.table import StepTable, refuse_unfit, table_at


class Prediction(msgspec.Struct, kw_only=True):
    """Speeds at a batch and context; NaN where the model does not fit."""

    ttft_s: float
    """Unloaded."""
    tpot_s: float
    tokens_per_s: float
    """Output of the whole batch, decode only."""
    tokens_per_s_user: float
    chips: int
    fits: bool
    kv_tokens_left: int
    bound: str
    """What takes most of a decode step: weights, kv, compute, links, or latency (launches, synchronisation, host)."""
    parts_s: dict[str, float]
    """Seconds of a decode step by part."""
    low: dict[str, float]
    high: dict[str, float]
    confidence: str
    reason: str


def predict(
    deployment: Deployment, *, batch: int, input_tokens: int, output_tokens: int, cached_tokens: int = 0
) -> Prediction:
    """Predict a decode batch halfway through its outputs, and an unloaded prompt.

    Raises
    ------
    InputError
        The parallelism or a dtype does not go with the machine.
    """
    d, left, context = deployment, 0, input_tokens + output_tokens / 2
    try:
        d = check_deployment(deployment)
        left = kv_tokens_left(d)
        refuse_unfit(d)
        if batch * (input_tokens + output_tokens) > left:
            raise NoAnswer(
                f"{batch} contexts of {input_tokens + output_tokens:,} tokens exceed the {left:,} KV tokens left"
            )
    except NoAnswer as fault:
        return _unfit(d, left, str(fault))
    table = table_at(d, np.array([float(batch)]))
    step = step_s(table, batch, context) / table.tokens_per_step
    first = ttft_s(d, input_tokens, cached_tokens)
    return Prediction(
        ttft_s=first,
        tpot_s=step,
        tokens_per_s=batch / step,
        tokens_per_s_user=1.0 / step,
        chips=d.chips,
        fits=True,
        kv_tokens_left=left,
        bound=bound_by(d, batch, context),
        parts_s=step_parts_s(d, batch, context),
        low=_speeds(step, first, batch, table.low),
        high=_speeds(step, first, batch, table.high),
        confidence=confidence(d),
        reason="",
    )


def step_s(table: StepTable, batch: int, context: float) -> float:
    """Seconds of the decode step that a table of this one batch holds."""
    return float(table.decode_s[0]) + batch * (table.per_seq_s + table.kv_s * context)


def _speeds(step: float, first: float, batch: int, speed: float) -> dict[str, float]:
    return {
        "ttft_s": first / speed,
        "tpot_s": step / speed,
        "tokens_per_s": batch * speed / step,
        "tokens_per_s_user": speed / step,
    }


def confidence(d: Deployment) -> str:
    """What stands behind a prediction, in words."""
    figure = d.efficiency.figures["speed"]
    basis = {"derived": "fitted on this family", "unverified": "no measurement of this family was fitted"}.get(
        figure.kind, figure.kind
    )
    said = [basis]
    if d.is_pipeline:
        said.append("concurrency unvalidated")
    if d.model.closed:
        said.append("the model's shape is a guess")
    return "; ".join(said)


def _unfit(d: Deployment, left: int, reason: str) -> Prediction:
    nan = math.nan
    return Prediction(
        ttft_s=nan, tpot_s=nan, tokens_per_s=nan, tokens_per_s_user=nan, chips=d.chips, fits=False, kv_tokens_left=left,
        bound="", parts_s={}, low={}, high={}, confidence=confidence(d), reason=reason,
    )  # fmt: skip

"""Speed of a deployment at one operating point, with its interval and what it is bound by."""

from __future__ import annotations

import math

import msgspec

from infermix.errors import NoAnswer
from infermix.perf.deployment import Deployment, check_deployment
from infermix.perf.memory import kv_tokens_left
from infermix.perf.model_cost import bytes_read
from infermix.perf.table import StepTable, compile_table, ttft_s


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
    """What takes most of a decode step: weights, kv, or latency (launches, synchronisation, collectives)."""
    low: dict[str, float]
    high: dict[str, float]
    confidence: str
    reason: str


def predict(deployment: Deployment, *, batch: int, input_tokens: int, output_tokens: int) -> Prediction:
    """Predict a decode batch halfway through its outputs, and an unloaded prompt.

    Raises
    ------
    InputError
        The parallelism or a dtype does not go with the machine.
    """
    d = check_deployment(deployment)
    left, context = kv_tokens_left(d), input_tokens + output_tokens / 2
    try:
        table = compile_table(d)
        if batch * (input_tokens + output_tokens) > table.blocks * table.block_tokens:
            raise NoAnswer(
                f"{batch} contexts of {input_tokens + output_tokens:,} tokens exceed the {left:,} KV tokens left"
            )
    except NoAnswer as fault:
        return _unfit(d, left, str(fault))
    step = _step_s(table, batch, context)
    first = ttft_s(d, input_tokens)
    return Prediction(
        ttft_s=first,
        tpot_s=step,
        tokens_per_s=batch / step,
        tokens_per_s_user=1.0 / step,
        chips=d.chips,
        fits=True,
        kv_tokens_left=left,
        bound=_bound(d, table, batch, context),
        low=_speeds(step, first, batch, table.low),
        high=_speeds(step, first, batch, table.high),
        confidence=_confidence(d),
        reason="",
    )


def _step_s(table: StepTable, batch: int, context: float) -> float:
    return float(table.decode_s[batch]) + batch * (table.per_seq_s + table.kv_s * context)


def _speeds(step: float, first: float, batch: int, speed: float) -> dict[str, float]:
    return {
        "ttft_s": first / speed,
        "tpot_s": step / speed,
        "tokens_per_s": batch * speed / step,
        "tokens_per_s_user": speed / step,
    }


def _bound(d: Deployment, table: StepTable, batch: int, context: float) -> str:
    """What takes most of a decode step: reading KV, reading weights, or what does not shrink with faster memory."""
    base = float(table.decode_s[batch])
    weights = min(base, _weights_read_s(d, batch))
    parts = {"kv": batch * table.kv_s * context, "weights": weights, "latency": base - weights}
    return max(parts, key=lambda name: parts[name])


def _weights_read_s(d: Deployment, batch: int) -> float:
    """Seconds to read what a decode step reads of the weights, at the bandwidth that is reached [s]."""
    rate = d.chip.sram_bytes_per_s if d.is_pipeline else d.chip.mem_bytes_per_s
    assert rate is not None
    reached = 1.0 if d.is_pipeline else d.efficiency.figures["gemm_bytes"].value
    return bytes_read(d.model, d.weights, batch) * d.dp / (d.chips * reached * rate.value)


def _confidence(d: Deployment) -> str:
    figure = d.efficiency.figures["speed"]
    basis = {"derived": "fitted on this family", "unverified": "no measurement of this family was fitted"}.get(
        figure.kind, figure.kind
    )
    return f"{basis}; concurrency unvalidated" if d.is_pipeline else basis


def _unfit(d: Deployment, left: int, reason: str) -> Prediction:
    nan = math.nan
    return Prediction(
        ttft_s=nan, tpot_s=nan, tokens_per_s=nan, tokens_per_s_user=nan, chips=d.chips, fits=False, kv_tokens_left=left,
        bound="", low={}, high={}, confidence=_confidence(d), reason=reason,
    )  # fmt: skip

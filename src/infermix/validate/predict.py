"""Every row of a measurement file predicted: value, interval, or the reason for none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import msgspec

from infermix.catalog.load import catalog
from infermix.errors import InfermixError
from infermix.perf.stack import stack_for
from infermix.validate.interval import interval_of, spread_around
from infermix.validate.meaning import Case, case_of
from infermix.validate.outcome import Outcome, outcome_of
from infermix.validate.rows import Row


class Predicted(msgspec.Struct, frozen=True, kw_only=True):
    """A row and what is predicted for it, in the row's unit; NaN where nothing is."""

    row: Row
    value: float = math.nan
    low: float = math.nan
    high: float = math.nan
    reason: str = ""
    """Why nothing is predicted."""
    assumed: tuple[str, ...] = ()
    family: str = ""
    stack: str = ""

    @property
    def covered(self) -> bool:
        """Whether a value is predicted."""
        return not self.reason

    @property
    def error(self) -> float:
        """ln(predicted / measured)."""
        return math.log(self.value / self.row.value) if self.covered else math.nan

    @property
    def inside(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.covered and self.low <= self.row.value <= self.high


def predict_rows(rows: Iterable[Row], done: Callable[[int], None] = lambda _: None) -> list[Predicted]:
    """Predict rows; those of one case share one run of its loop."""
    outcomes: dict[bytes, Outcome] = {}
    found = []
    for i, row in enumerate(rows):
        found.append(predict_row(row, outcomes))
        done(i + 1)
    return found


def predict_row(row: Row, outcomes: dict[bytes, Outcome] | None = None) -> Predicted:
    """Predict one row; ``outcomes`` remembers runs by their case."""
    known = {} if outcomes is None else outcomes
    try:
        case = case_of(row)
        key = msgspec.json.encode(case)
        if key not in known:
            known[key] = outcome_of(case)
        value = metric_of(known[key], row.metric)
    except InfermixError as fault:
        return Predicted(row=row, reason=str(fault))
    if not math.isfinite(value) or value <= 0:
        return Predicted(row=row, reason="an answer of one token has no time per output token")
    return _with_interval(row, case, value)


def _with_interval(row: Row, case: Case, value: float) -> Predicted:
    stack = stack_for(catalog(), case.engine.id, case.deployment)
    low, high = spread_around(value, row.metric, interval_of(case, row.metric, stack))
    return Predicted(
        row=row, value=value, low=low, high=high, assumed=case.assumed, family=case.deployment.efficiency.id,
        stack=case.engine.id,
    )  # fmt: skip


def metric_of(outcome: Outcome, metric: str) -> float:
    """The figure that a row of this metric holds, in its unit."""
    return {
        "ttft_ms": outcome.ttft_s * 1e3,
        "tpot_ms": outcome.tpot_s * 1e3,
        "tok_s_user": 1.0 / outcome.tpot_s if outcome.tpot_s else math.nan,
        "output_tok_s": outcome.output_tokens_per_s,
        "total_tok_s": outcome.total_tokens_per_s,
    }[metric]

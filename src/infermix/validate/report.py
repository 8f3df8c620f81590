"""The answer of ``infermix validate``: scores, cells, rows, regret and the worst rows with their reasons."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from infermix.validate.meaning import case_of, room_tokens
from infermix.validate.predict import Predicted
from infermix.validate.regret import Regret, regret
from infermix.validate.score import GROUPS, Cell, Score, breakdown, cells_of, group_of, score


class Worst(msgspec.Struct, frozen=True, kw_only=True):
    """A row far off, and what may be why."""

    id: str
    source: str
    chip: str
    model: str
    metric: str
    measured: float
    predicted: float
    why: str


class Validation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is told of a file."""

    overall: Score
    groups: dict[str, Score]
    by_quality: dict[str, dict[str, dict[str, Score]]]
    cells: list[Cell]
    regret: Regret
    not_covered: dict[str, int]
    worst: list[Worst]
    found: list[Predicted]


def validation(found: Sequence[Predicted], *, worst: int = 20) -> Validation:
    """Score predicted rows; quality D is left out."""
    kept = [p for p in found if p.row.quality != "D"]
    return Validation(
        overall=score(kept),
        groups={name: score([p for p in kept if group_of(p.row.chip) == name]) for name in GROUPS},
        by_quality=breakdown(kept),
        cells=cells_of(kept),
        regret=regret(kept),
        not_covered=dict(Counter(p.reason for p in kept if not p.covered).most_common()),
        worst=worst_of(kept, worst),
        found=kept,
    )


def record(told: Validation) -> dict[str, Any]:
    """The machine form."""
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(told, found=[]))
    del plain["found"]
    plain["rows"] = [
        {"id": p.row.id, "predicted": p.value, "low": p.low, "high": p.high, "reason": p.reason} for p in told.found
    ]
    return plain


def worst_of(found: Sequence[Predicted], most: int) -> list[Worst]:
    """Rows of quality A and B farthest off, and what may be why."""
    scored = [p for p in found if p.covered and p.row.quality in "AB"]
    repeats = _repeats(scored)
    ranked = sorted(scored, key=lambda p: -abs(p.error))
    return [
        Worst(
            id=p.row.id, source=p.row.source, chip=p.row.chip, model=p.row.model, metric=p.row.metric,
            measured=p.row.value, predicted=p.value, why=_why(p, repeats),
        )
        for p in ranked[:most]
    ]  # fmt: skip


def _fuller(p: Predicted) -> float:
    """KV tokens that all clients of the row need at the end of their answers, over those that fit."""
    case = case_of(p.row)
    return case.clients * (case.input_tokens + case.output_tokens) / max(1.0, room_tokens(case.deployment))


def _configuration(p: Predicted) -> tuple[object, ...]:
    r = p.row
    return (
        r.source, r.chip, r.num_chips, r.model, r.weight_dtype, r.tp, r.pp, r.ep, r.dp, r.scenario,
        r.batch_or_concurrency, r.input_len, r.output_len, r.metric,
    )  # fmt: skip


def _repeats(found: Sequence[Predicted]) -> dict[tuple[object, ...], list[float]]:
    values: dict[tuple[object, ...], list[float]] = {}
    for p in found:
        values.setdefault(_configuration(p), []).append(p.row.value)
    return values


def _why(p: Predicted, repeats: dict[tuple[object, ...], list[float]]) -> str:
    """What is known that may explain the error, most telling first."""
    said, same = [], repeats[_configuration(p)]
    if len(same) > 1 and max(same) > 1.5 * min(same):
        said.append(f"measured {len(same)} times between {min(same):.4g} and {max(same):.4g}")
    if p.row.spec_decode == "unknown":
        said.append("speculative decoding not told")
    if p.assumed:
        said.append(f"not told: {', '.join(p.assumed)}")
    faster = p.error if p.row.metric.endswith("_ms") else -p.error
    if faster > math.log(5) and p.row.metric != "ttft_ms":
        said.append("far faster than memory and arithmetic allow")
    if p.row.metric == "ttft_ms" and p.error < -math.log(3):
        said.append("waits longer than the load explains: a cold start, or a queue in front of the engine")
    if p.row.metric == "ttft_ms" and p.error > math.log(3) and (fuller := _fuller(p)) > 1.0:
        said.append(f"contexts of its clients take {fuller:.1f} times the memory that is left for them")
    if p.row.metric != "ttft_ms" and (p.error < -math.log(2)) == p.row.metric.endswith("_ms"):
        said.append(f"slower than {p.stack} elsewhere on {p.family}")
    return "; ".join(said) or "no reason found"

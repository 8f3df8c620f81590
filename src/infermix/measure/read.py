"""Read a request log with timings. Rows that cannot be used are left out, counted and told by reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from infermix.arrays import Bools, Floats, Ints
from infermix.errors import InputError
from infermix.measure.names import NAMES, find_names
from infermix.measure.records import Columns, read_records
from infermix.measure.timed import Timed
from infermix.workload.requests import make_requests

MILLISECONDS_FROM = 1e11
"""A time of day beyond this many seconds (the year 5138) counts milliseconds."""
MOST_TOKENS = 1_000_000_000
DATED_FROM = 1e9
"""Seconds since 1970 (the year 2001) from which a time says the hour of the day."""
FIRST_HTTP_ERROR = 400
_FINE = {"", "ok", "success", "succeeded", "completed", "complete", "done", "finished", "none", "null", "false", "stop"}
CLOCK_SLACK_S = 1e-3
"""Clocks that were read one after the other may differ by so much."""


def read_timed(path: str | Path, columns: Mapping[str, str] | None = None) -> Timed:
    """Read a log (names in ``measure.names``).

    Raises
    ------
    InputError
        A file that is no log, a column that is missing, or no row that can be used.
    """
    file = Path(path)
    raw, kind, broken = read_records(file)
    names = find_names(list(raw), columns or {}, str(file))
    table = {ours: raw[theirs] for ours, theirs in names.items()}
    times = _times(table)
    signs = [raw[name] for ours in ("status", "error") for name in (*NAMES[ours], names.get(ours)) if name in raw]
    keep, left_out = _usable(table, times, _failed(signs, len(times["arrival"])))
    left_out = broken | left_out
    if not keep.any():
        raise InputError("no row can be used", where=str(file), value=left_out)
    return _made(table, times, keep, file, _kind(kind, names), left_out)


def _kind(kind: str, names: Mapping[str, str]) -> str:
    """What wrote a file, as far as names of columns tell."""
    told = set(names.values())
    if "queued_ts" in told:
        return "vLLM engine"
    if "completionStartTime" in told or "startTime" in told:
        return "LiteLLM"
    if "prompt_tokens" in told and kind == "JSON lines":
        return "OpenAI"
    return kind


def _times(table: Columns) -> dict[str, Floats]:
    """Arrival, TTFT and E2E of every row [s]; NaN where they are not known."""
    day = {name: _clock(table[name]) for name in ("t_s", "queued_s", "first_s", "last_s") if name in table}
    arrival = day["t_s"]
    if "queued_s" in day:
        arrival = arrival + float(np.nanmin(day["queued_s"] - arrival))
    ttft = _took(table, "ttft")
    if ttft is None:
        ttft = day["first_s"] - arrival if "first_s" in day else np.full(len(arrival), np.nan)
    e2e = _took(table, "e2e")
    if e2e is None and "last_s" in day:
        e2e = day["last_s"] - arrival
    if e2e is None:
        tpot = _took(table, "tpot")
        assert tpot is not None
        e2e = ttft + tpot * (_numbers(table["output_tokens"]) - 1.0)
    known = table.get("t_s", [])
    dated = arrival if "queued_s" not in day else _clock(known)
    return {"arrival": arrival, "ttft": ttft, "e2e": e2e, "dated": dated}


def _took(table: Columns, what: str) -> Floats | None:
    """How long something took [s]."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if f"{what}_{unit}" in table:
            return _numbers(table[f"{what}_{unit}"]) * scale
    return None


def _usable(table: Columns, times: Mapping[str, Floats], failed: Bools) -> tuple[Bools, dict[str, int]]:
    """(rows that can be used, reason → rows that cannot)."""
    inputs, outputs = _numbers(table["input_tokens"]), _numbers(table["output_tokens"])
    arrival, ttft, e2e = times["arrival"], times["ttft"], times["e2e"]
    with np.errstate(invalid="ignore"):
        reasons = {
            "failed": failed,
            "no time of arrival": ~np.isfinite(arrival),
            "no number of input tokens": ~((inputs >= 1) & (inputs <= MOST_TOKENS)),
            "no number of output tokens": ~((outputs >= 1) & (outputs <= MOST_TOKENS)),
            "no time of the last token (unfinished)": ~np.isfinite(e2e),
            "first token before the arrival": ttft <= -CLOCK_SLACK_S,
            "last token before the first": e2e < ttft - CLOCK_SLACK_S,
            "no time passed": e2e <= 0.0,
        }
    keep, left_out = np.ones(len(arrival), dtype=np.bool_), {}
    for reason, wrong in reasons.items():
        if count := int(np.count_nonzero(keep & wrong)):
            left_out[reason] = count
        keep &= ~wrong
    return keep, left_out


def _failed(signs: Sequence[Sequence[Any]], rows: int) -> Bools:
    """Rows of which a column says that they failed."""
    failed = np.zeros(rows, dtype=np.bool_)
    for column in signs:
        failed |= np.array([_says_failed(value) for value in column])
    return failed


def _says_failed(sign: object) -> bool:
    """Whether a status or an error says that a request failed.

    >>> [_says_failed(sign) for sign in (None, "", "ok", 200, "503", "timed out: no answer")]
    [False, False, False, False, True, True]
    """
    text = "" if sign is None else str(sign).strip().lower()
    return int(text) >= FIRST_HTTP_ERROR if text.isdigit() else text not in _FINE


def _made(
    table: Columns, times: Mapping[str, Floats], keep: Bools, file: Path, kind: str, left_out: dict[str, int]
) -> Timed:
    order = np.flatnonzero(keep)[np.argsort(times["arrival"][keep], kind="stable")]
    arrival = times["arrival"][order]
    inputs = _numbers(table["input_tokens"])[order].astype(np.int64)
    cached = np.zeros(len(order), np.int64)
    if "cached_tokens" in table:
        held = np.nan_to_num(_numbers(table["cached_tokens"])[order]).astype(np.int64)
        cached = np.clip(held, 0, inputs - 1)
    names, class_id = _classes(table, inputs, order)
    began = float(times["dated"][order[0]])
    requests = make_requests(
        names,
        arrival - arrival[0],
        inputs,
        _numbers(table["output_tokens"])[order].astype(np.int64),
        cached_tokens=cached,
        class_id=class_id,
        where=str(file),
    )
    return Timed(
        requests,
        np.maximum(times["ttft"][order], 1e-9),
        times["e2e"][order],
        source=str(file),
        format=kind,
        left_out=left_out,
        began_unix_s=began if began >= DATED_FROM else float("nan"),
    )


def _classes(table: Columns, inputs: Ints, order: Ints) -> tuple[tuple[str, ...], Ints]:
    """Classes of requests: as the log says, else by model, else thirds by length of the prompt."""
    for name in ("class", "model"):
        if name in table:
            labels = np.array([str(table[name][i]) if table[name][i] is not None else "" for i in order])
            values, codes = np.unique(labels, return_inverse=True)
            if name == "class" or len(values) > 1:
                return tuple(str(value) or "(none)" for value in values), codes
    cuts = np.unique(np.percentile(inputs, (100 / 3, 200 / 3)).astype(np.int64))
    codes = np.searchsorted(cuts, inputs, side="left")
    used, codes = np.unique(codes, return_inverse=True)
    bounds = [0, *cuts.tolist(), int(inputs.max())]
    return tuple(f"prompts of {bounds[i] + 1:,} to {max(bounds[i + 1], bounds[i] + 1):,}" for i in used), codes


def _numbers(values: Sequence[Any]) -> Floats:
    """Numbers, NaN where there is none."""
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _clock(values: Sequence[Any]) -> Floats:
    """Times of day [s], NaN where there is none."""
    return np.array([_moment(value) for value in values], dtype=np.float64)


def _moment(value: Any) -> float:
    """Seconds of a number or date.

    >>> _moment("2026-01-31T12:00:00Z") - _moment("2026-01-31T11:59:59Z"), _moment(1769860800123)
    (1.0, 1769860800.123)
    """
    number = _number(value) if not isinstance(value, datetime) else float("nan")
    if np.isfinite(number):
        return number / 1e3 if number > MILLISECONDS_FROM else number
    try:
        found = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        return float("nan")
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()

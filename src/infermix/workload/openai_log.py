"""Logs of an OpenAI-compatible service, one JSON object a line, as a table of requests.

Understood are lines that hold a response (``created``, ``model``, ``usage``), a request and its
response, an answer of the Batch API (``response.body``), the Responses API (``created_at``,
``usage.input_tokens``), and what LiteLLM logs (``startTime``, ``prompt_tokens``, also inside
``standard_logging_object``). Content is not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from infermix.errors import InputError

_ENVELOPES = ("standard_logging_object", "response", "body", "response_obj")
_TIMES = ("startTime", "start_time", "request_time", "timestamp", "created", "created_at")
_ENDS = ("endTime", "end_time")
_INPUTS, _OUTPUTS = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")
_DETAILS = ("prompt_tokens_details", "input_tokens_details")
_MILLISECONDS_FROM = 1e11
"""A time stamp beyond this many seconds (the year 5138) counts milliseconds."""
_HTTP_ERROR = 400


def is_log(record: dict[str, Any]) -> bool:
    """Whether an object looks like a line of such a log."""
    layers = list(_layers(record))
    named = any(isinstance(layer.get("usage"), dict) or "prompt_tokens" in layer for layer in layers)
    return named or ("response" in record and any(name in layer for layer in layers for name in (*_TIMES, "error")))


def first_record(file: Path) -> dict[str, Any]:
    """The first object of a JSONL file; empty when the first line is none."""
    with file.open("rb") as lines:
        for line in lines:
            if line.strip():
                try:
                    found = msgspec.json.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError):
                    return {}
                return found if isinstance(found, dict) else {}
    return {}


def read_log(file: Path, where: str) -> tuple[dict[str, list[Any]], dict[str, int]]:
    """(columns by our names, repairs) of a log.

    Requests that failed have no lengths; they are left out and counted.

    Raises
    ------
    InputError
        A line that is no JSON object, or an answered request without a time or token counts.
    """
    names = ("t_s", "input_tokens", "output_tokens", "cached_tokens", "service_s", "model", "kind")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    failed = 0
    for number, record in _records(file, where):
        row = _row(record, f"{where}: row {number}")
        if row is None:
            failed += 1
            continue
        for name, value in zip(names, row, strict=True):
            columns[name].append(value)
    return columns, {"failed_requests_left_out": failed} if failed else {}


def _records(file: Path, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                record = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                record = None
            if not isinstance(record, dict):
                text = line[:60].decode("utf-8", "replace").rstrip()
                raise InputError(
                    "not a JSON object", where=f"{where}: row {number}", value=text, allowed="one object a line"
                )
            yield number, record


def _layers(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The object and what it wraps, outermost first."""
    yield record
    for name in _ENVELOPES:
        inner = record.get(name)
        if isinstance(inner, dict):
            yield from _layers(inner)


def _row(record: dict[str, Any], where: str) -> tuple[float, int, int, int, float | None, str, str] | None:
    """Time, tokens, service time, model and class of a line; None for a request that failed."""
    layers = list(_layers(record))
    usage = next((layer["usage"] for layer in layers if isinstance(layer.get("usage"), dict)), None)
    usage = usage or next((layer for layer in layers if any(name in layer for name in _INPUTS)), None)
    if usage is None or _failed(layers):
        if usage is None and not _failed(layers):
            raise InputError(
                "no token counts",
                where=where,
                value=sorted(record)[:8],
                allowed="usage with prompt_tokens and completion_tokens",
                mend="log the usage of streamed answers too (stream_options.include_usage)",
            )
        return None
    start = _time(layers, _TIMES, where)
    if start is None:
        raise InputError("no time", where=where, value=sorted(record)[:8], allowed=f"one of {', '.join(_TIMES)}")
    end = _time(layers, _ENDS, where)
    counts = [_tokens(usage, names, where) for names in (_INPUTS, _OUTPUTS)]
    model, kind = (
        next((layer[name] for layer in layers if isinstance(layer.get(name), str)), "") for name in ("model", "class")
    )
    return start, counts[0], counts[1], _cached(layers, usage, where), None if end is None else end - start, model, kind


def _failed(layers: list[dict[str, Any]]) -> bool:
    for layer in layers:
        code = layer.get("status_code")
        if layer.get("error") or layer.get("status") in ("failure", "failed", "error"):
            return True
        if isinstance(code, int) and code >= _HTTP_ERROR:
            return True
    return False


def _time(layers: list[dict[str, Any]], names: tuple[str, ...], where: str) -> float | None:
    """Seconds since 1970 of the first of these names that is there."""
    for layer in layers:
        for name in names:
            value = layer.get(name)
            if isinstance(value, str):
                return _date(value, f"{where}: {name}")
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                return value / 1e3 if value > _MILLISECONDS_FROM else float(value)
    return None


def _date(text: str, where: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise InputError("not a date", where=where, value=text, allowed="2026-01-31T12:00:00.5Z, or seconds") from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def _tokens(usage: dict[str, Any], names: tuple[str, ...], where: str) -> int:
    value = next((usage[name] for name in names if name in usage), None)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InputError(
            "not a number of tokens", where=f"{where}: usage.{names[0]}", value=value or "nothing", allowed="0 or more"
        )
    return value


def _cached(layers: list[dict[str, Any]], usage: dict[str, Any], where: str) -> int:
    """Cached input tokens; LiteLLM keeps them in ``metadata.usage_object``."""
    places = [usage]
    for layer in layers:
        metadata = layer.get("metadata")
        if isinstance(metadata, dict) and isinstance(metadata.get("usage_object"), dict):
            places.append(metadata["usage_object"])
    for place in places:
        for name in _DETAILS:
            details = place.get(name)
            if isinstance(details, dict) and details.get("cached_tokens") is not None:
                return _tokens(details, ("cached_tokens",), f"{where}: {name}")
    return 0

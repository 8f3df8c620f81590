"""Log files as columns by the file's own names: CSV, Parquet, JSON lines, and results of ``vllm bench serve``.

Lines of an OpenAI-compatible service wrap what counts in ``usage`` and ``response``; they are laid flat, the outermost
first. A line that is no JSON object is counted, not refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from infermix.errors import InputError, near_miss

SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson", ".json")
_WRAPPED = (
    "standard_logging_object", "response", "body", "response_obj", "usage", "metrics", "timings",
    "prompt_tokens_details", "input_tokens_details",
)  # fmt: skip
Columns = dict[str, list[Any]]


class Bench(msgspec.Struct, frozen=True):
    """The lists of a result of ``vllm bench serve --save-result --save-detailed``."""

    input_lens: list[int]
    output_lens: list[int]
    start_times: list[float]
    ttfts: list[float]
    itls: list[list[float]]
    errors: list[str] = []


def read_records(path: Path) -> tuple[Columns, str, dict[str, int]]:
    """(columns, format, reasons → lines that could not be read).

    Raises
    ------
    InputError
        No such file, another kind of file, or nothing in it.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise InputError(
            "unknown kind of log",
            where=str(path),
            value=path.suffix or path.name,
            allowed=", ".join(SUFFIXES),
            mend=near_miss(suffix, SUFFIXES),
        )
    if not path.is_file():
        raise InputError("no such log", where=str(path), mend="check the path")
    broken: dict[str, int] = {}
    if suffix == ".json":
        columns, kind = _bench(path), "vllm bench serve"
    elif suffix in (".jsonl", ".ndjson"):
        columns, broken = _lines(path)
        kind = "JSON lines"
    else:
        columns, kind = _table(path, suffix), suffix[1:]
    if not columns or not len(next(iter(columns.values()))):
        raise InputError("no request in it", where=str(path), value=broken or None)
    return columns, kind, broken


def _table(path: Path, suffix: str) -> Columns:
    import polars as pl

    try:
        frame = pl.read_parquet(path) if suffix == ".parquet" else pl.read_csv(path, infer_schema=False)
    except (pl.exceptions.PolarsError, OSError) as fault:
        said = str(fault).splitlines()[0][:120]
        raise InputError("cannot be read", where=str(path), value=said, allowed=f"a {suffix} table") from None
    return {name: frame[name].to_list() for name in frame.columns if not frame[name].dtype.is_nested()}


def _bench(path: Path) -> Columns:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Bench)
    except (msgspec.DecodeError, UnicodeDecodeError, OSError) as fault:
        raise InputError(
            "not a result with single requests",
            where=str(path),
            value=str(fault),
            allowed="the JSON of vllm bench serve",
            mend="save it with --save-result --save-detailed",
        ) from None
    lengths = {len(found.input_lens), len(found.output_lens), len(found.start_times), len(found.ttfts), len(found.itls)}
    if len(lengths) > 1:
        raise InputError("lists differ in length", where=str(path), value=sorted(lengths))
    return {
        "t_s": list(found.start_times),
        "input_tokens": list(found.input_lens),
        "output_tokens": list(found.output_lens),
        "ttft_s": list(found.ttfts),
        "e2e_s": [first + sum(rest) for first, rest in zip(found.ttfts, found.itls, strict=True)],
        "error": list(found.errors) or [""] * len(found.input_lens),
    }


def _lines(path: Path) -> tuple[Columns, dict[str, int]]:
    rows, broken = [], 0
    with path.open("rb") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                record = msgspec.json.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                record = None
            if isinstance(record, dict):
                rows.append(_flat(record))
            else:
                broken += 1
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}, {"not a JSON object": broken} if broken else {}


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """The plain values of an object and of what it wraps, the outermost first.

    >>> _flat({"created": 5, "usage": {"prompt_tokens": 7, "prompt_tokens_details": {"cached_tokens": 3}}})
    {'created': 5, 'prompt_tokens': 7, 'cached_tokens': 3}
    """
    flat: dict[str, Any] = {}
    for layer in _layers(record):
        for name, value in layer.items():
            if name == "error" and value:
                flat.setdefault(name, "error")
            elif not isinstance(value, (dict, list)) and value is not None:
                flat.setdefault(name, value)
    return flat


def _layers(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield record
    for name in _WRAPPED:
        inner = record.get(name)
        if isinstance(inner, dict):
            yield from _layers(inner)

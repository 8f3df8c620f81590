"""Trace files: which format a file is in, and its columns as checked arrays.

=============  ====================================  =============================================
format         needs                                 also used when there
=============  ====================================  =============================================
infermix       t_s [s], input_tokens, output_tokens  session, cached_tokens or prefix_tokens,
                                                     hash_ids, depth, api_time_s [s]
Azure public   TIMESTAMP (date and time),            (AzurePublicDataset, LLM inference traces)
               ContextTokens, GeneratedTokens
Mooncake       timestamp [ms], input_length,         hash_ids (one id per 512-token block)
               output_length
=============  ====================================  =============================================

Any other file is read with a stated mapping. Polars is imported inside the functions only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints
from infermix.errors import InputError, near_miss

if TYPE_CHECKING:
    import polars as pl

MAX_TOKENS = 1_000_000_000
"""Longest prompt or answer that is believed."""
REQUIRED = ("t_s", "input_tokens", "output_tokens")
OPTIONAL = ("session", "cached_tokens", "hash_ids", "depth", "api_time_s")
_OURS = {name: name for name in REQUIRED + OPTIONAL}
_FORMATS: dict[str, dict[str, str]] = {
    "infermix": _OURS,
    "Azure": {"t_s": "TIMESTAMP", "input_tokens": "ContextTokens", "output_tokens": "GeneratedTokens"},
    "Mooncake": {
        "t_s": "timestamp",
        "input_tokens": "input_length",
        "output_tokens": "output_length",
        "hash_ids": "hash_ids",
    },
}
_ALIASES = {"cached_tokens": "prefix_tokens"}
_SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")
_DATE_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z")


@dataclass(frozen=True)
class Columns:
    """The columns of a file, checked one by one but not against each other; None where the file has none."""

    t_s: Floats
    input: Ints
    output: Ints
    cached: Ints | None = None
    session: npt.NDArray[np.generic] | None = None
    depth: Ints | None = None
    api_time_s: Floats | None = None
    block_start: Ints | None = None
    block_ids: Ints | None = None


def read_columns(file: Path, mapping: Mapping[str, str], where: str) -> Columns:
    """Read and check the columns of a trace file; InputError as ``read_trace`` describes."""
    names, frame = _load(file, mapping, where)
    if frame.height == 0:
        raise InputError("the trace is empty", where=where, allowed="at least one request")
    scale = 1e-3 if names["t_s"] == "timestamp" and "t_s" not in mapping else 1.0

    def tokens(ours: str) -> Ints | None:
        return _whole(frame, names[ours], where) if ours in names else None

    starts, ids = _blocks(frame, names["hash_ids"], where) if "hash_ids" in names else (None, None)
    return Columns(
        t_s=_times(frame, names["t_s"], where) * scale,
        input=_whole(frame, names["input_tokens"], where),
        output=_whole(frame, names["output_tokens"], where),
        cached=tokens("cached_tokens"),
        session=_labels(frame, names["session"], where) if "session" in names else None,
        depth=tokens("depth"),
        api_time_s=_number(frame, names["api_time_s"], where, missing=0.0) if "api_time_s" in names else None,
        block_start=starts,
        block_ids=ids,
    )


def _load(file: Path, mapping: Mapping[str, str], where: str) -> tuple[dict[str, str], pl.DataFrame]:
    import polars as pl

    suffix = file.suffix.lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            "unknown kind of trace file",
            where=where,
            value=file.suffix or file.name,
            allowed=", ".join(_SUFFIXES),
            mend=near_miss(suffix, _SUFFIXES),
        )
    if file.stat().st_size == 0:
        raise InputError("the trace is empty", where=where, allowed="at least one request")
    try:
        if suffix == ".parquet":
            names = _recognise(list(pl.read_parquet_schema(file)), mapping, where)
            return names, pl.read_parquet(file, columns=sorted(set(names.values())))
        if suffix == ".csv":
            header = pl.read_csv(file, n_rows=0, infer_schema=False).columns
            names = _recognise(header, mapping, where)
            return names, pl.read_csv(file, columns=sorted(set(names.values())), infer_schema=False)
        frame = pl.read_ndjson(file, infer_schema_length=None)
        return _recognise(frame.columns, mapping, where), frame
    except pl.exceptions.PolarsError as error:
        raise _unreadable(file, suffix, where, error) from None


def _unreadable(file: Path, suffix: str, where: str, error: Exception) -> InputError:
    """Say which row is broken where that can be found out."""
    import msgspec

    if suffix in (".jsonl", ".ndjson"):
        with file.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    if line.strip():
                        msgspec.json.decode(line, type=dict[str, object])
                except (msgspec.DecodeError, UnicodeDecodeError):
                    text = line[:60].decode("utf-8", "replace").rstrip()
                    return InputError(
                        "not a JSON object", where=f"{where}: row {number}", value=text, allowed="one object a line"
                    )
    return InputError(
        "the file cannot be read",
        where=where,
        value=str(error).splitlines()[0][:120],
        allowed=f"a well-formed {suffix} file",
    )


def _recognise(have: list[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    """Our column name → the file's."""
    if mapping:
        return _mapped(have, mapping, where)
    for known in _FORMATS.values():
        if all(known[name] in have for name in REQUIRED):
            names = {ours: theirs for ours, theirs in known.items() if theirs in have}
            return _with_aliases(names, have) if known is _OURS else names
    closest = max(_FORMATS.values(), key=lambda known: sum(_likeness(known[name], have) for name in REQUIRED))
    missing = [closest[name] for name in REQUIRED if closest[name] not in have]
    hints = " ".join(filter(None, (_hint(name, have) for name in missing)))
    formats = "; ".join(" ".join(known[name] for name in REQUIRED) for known in _FORMATS.values())
    raise InputError(
        f"column {', '.join(missing)} is missing",
        where=where,
        value=have,
        allowed=formats,
        mend=hints or 'name the columns with columns = { t_s = "…", input_tokens = "…", … }',
    )


def _likeness(name: str, have: list[str]) -> int:
    if name in have:
        return 3
    return 2 if name.lower() in {other.lower() for other in have} else int(bool(_hint(name, have)))


def _hint(name: str, have: list[str]) -> str:
    by_lower = {other.lower(): other for other in have}
    same = by_lower.get(name.lower())
    close = f"did you mean {same!r}?" if same else near_miss(name, have)
    return f"{name}: {close}" if close else ""


def _with_aliases(names: dict[str, str], have: list[str]) -> dict[str, str]:
    extra = {ours: theirs for ours, theirs in _ALIASES.items() if ours not in names and theirs in have}
    return names | extra


def _mapped(have: list[str], mapping: Mapping[str, str], where: str) -> dict[str, str]:
    for ours, theirs in mapping.items():
        if ours not in _OURS:
            raise InputError(
                "columns names a column that infermix does not know",
                where=where,
                value=ours,
                allowed=", ".join(_OURS),
                mend=near_miss(ours, _OURS),
            )
        if theirs not in have:
            raise InputError(
                f"column {theirs} (for {ours}) is missing",
                where=where,
                value=have,
                allowed="a column of the file",
                mend=near_miss(theirs, have),
            )
    names = _with_aliases({name: name for name in _OURS if name in have}, have) | dict(mapping)
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise InputError(
            f"column {', '.join(missing)} is missing",
            where=where,
            value=have,
            allowed="columns that name t_s, input_tokens and output_tokens",
            mend=f'add columns = {{ {missing[0]} = "…" }}',
        )
    return names


def _fail(what: str, frame: pl.DataFrame, name: str, row: int, where: str, allowed: str) -> InputError:
    return InputError(
        what,
        where=f"{where}: column {name}, row {row + 1}",
        value=frame[name][row],
        allowed=allowed,
        mend="correct or drop the row",
    )


def _number(frame: pl.DataFrame, name: str, where: str, missing: float | None = None) -> Floats:
    import polars as pl

    column = frame[name]
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
        raise InputError(
            "the column does not hold numbers",
            where=f"{where}: column {name}",
            value=str(column.dtype),
            allowed="numbers",
        )
    if column.dtype == pl.String:
        column = column.str.strip_chars()
    values = column.cast(pl.Float64, strict=False)
    if missing is not None:
        values = values.fill_null(missing).fill_nan(missing)
    array = values.fill_null(float("nan")).to_numpy().astype(np.float64)
    if not np.isfinite(array).all():
        bad = int(np.argmin(np.isfinite(array)))
        raise _fail("not a number", frame, name, bad, where, "a finite number, at least 0")
    if array.min() < 0:
        raise _fail("negative value", frame, name, int(np.argmax(array < 0)), where, "a number, at least 0")
    return array


def _whole(frame: pl.DataFrame, name: str, where: str) -> Ints:
    array = _number(frame, name, where)
    wrong = (array != np.floor(array)) | (array > MAX_TOKENS)
    if wrong.any():
        raise _fail("not a whole number of tokens", frame, name, int(np.argmax(wrong)), where, f"0 to {MAX_TOKENS}")
    return array.astype(np.int64)


def _times(frame: pl.DataFrame, name: str, where: str) -> Floats:
    """Seconds: numbers as they are, dates from the first row on."""
    import polars as pl

    column = frame[name]
    if column.dtype == pl.String and column[0] is not None and column[:1].cast(pl.Float64, strict=False)[0] is None:
        dates = _dates(column)
        if dates is None:
            raise _fail("not a number or date", frame, name, 0, where, "seconds, or 2023-11-16 18:15:46.6805900")
        column = dates
    if not column.dtype.is_temporal():
        return _number(frame, name, where)
    ticks = column.dt.epoch("ns") if column.dtype != pl.Time else column.cast(pl.Int64)
    if ticks.null_count():
        bad = int(ticks.is_null().arg_max() or 0)
        raise _fail("not a date", frame, name, bad, where, "dates as in the first row")
    whole = ticks.to_numpy()
    seconds: Floats = (whole - whole[0]) * 1e-9
    return seconds


def _dates(column: pl.Series) -> pl.Series | None:
    for form in _DATE_FORMATS:
        if column[:1].str.to_datetime(form, time_unit="ns", strict=False)[0] is not None:
            return column.str.to_datetime(form, time_unit="ns", strict=False)
    return None


def _labels(frame: pl.DataFrame, name: str, where: str) -> npt.NDArray[np.generic]:
    """Session labels, of any type that can be told apart."""
    import polars as pl

    column = frame[name]
    if column.null_count():
        raise _fail(
            "a request without a session",
            frame,
            name,
            int(column.is_null().arg_max() or 0),
            where,
            "a number or name in every row",
        )
    return column.cast(pl.String).rank("dense").to_numpy()


def _blocks(frame: pl.DataFrame, name: str, where: str) -> tuple[Ints, Ints]:
    import polars as pl

    column = frame[name]
    if column.dtype == pl.List(pl.Null):
        return np.zeros(frame.height + 1, np.int64), np.zeros(0, np.int64)
    if not (isinstance(column.dtype, pl.List) and column.dtype.inner.is_integer()):
        raise InputError(
            "prefix block ids must be lists of whole numbers",
            where=f"{where}: column {name}",
            value=str(column.dtype),
            allowed="a list of integers in every row",
        )
    counts = column.list.len().fill_null(0).to_numpy().astype(np.int64)
    ids = column.explode().drop_nulls().to_numpy().astype(np.int64)
    if counts.sum() != len(ids):
        raise InputError("a prefix block id is missing", where=f"{where}: column {name}", allowed="no null in a list")
    return np.concatenate(([0], np.cumsum(counts))), ids

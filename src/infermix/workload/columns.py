"""Columns of a trace file as checked arrays. Polars is imported inside the functions only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats, Ints
from infermix.errors import InputError, near_miss
from infermix.workload.bench_result import read_bench
from infermix.workload.formats import OURS, READ, Format, Found, recognise
from infermix.workload.lines import Arrays, read_numbers
from infermix.workload.openai_log import first_record, is_log, read_log

if TYPE_CHECKING:
    import polars as pl

MAX_TOKENS = 1_000_000_000
"""Longest prompt or answer that is believed."""
_LINES = (".jsonl", ".ndjson")
_SUFFIXES = (".csv", ".parquet", *_LINES, ".json")
_DATE_FORMATS = ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M:%S%.f%#z")
Labels = npt.NDArray[np.generic]


@dataclass(frozen=True)
class Columns:
    """The columns of a file, checked one by one but not against each other; None where the file has none."""

    format: Format
    row: Ints
    """Row of the file, from 0."""
    t_s: Floats | None
    input: Ints
    output: Ints
    cached: Ints | None = None
    session: Labels | None = None
    depth: Ints | None = None
    api_time_s: Floats | None = None
    """Service time [s]; NaN where it is not known."""
    model: Labels | None = None
    kind: Labels | None = None
    block_start: Ints | None = None
    block_ids: Ints | None = None
    repairs: tuple[tuple[str, int], ...] = ()

    def take(self, keep: Ints | Bools) -> Columns:
        """Some of the rows."""
        changes: dict[str, Any] = {
            f.name: value[keep]
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), np.ndarray) and f.name not in ("block_start", "block_ids")
        }
        if self.block_start is not None and self.block_ids is not None:
            rows = np.arange(len(self.row))[keep]
            first, counts = self.block_start[rows], np.diff(self.block_start)[rows]
            start = np.concatenate(([0], np.cumsum(counts)))
            changes["block_ids"] = self.block_ids[np.arange(start[-1]) + np.repeat(first - start[:-1], counts)]
            changes["block_start"] = start
        return replace(self, **changes)


def read_columns(file: Path, mapping: Mapping[str, str], where: str) -> Columns:
    """Read and check the columns of a trace file; InputError as ``read_trace`` describes."""
    plain = read_numbers(file, mapping) if file.suffix.lower() in _LINES else None
    if plain is not None and _in_range(plain[1]):
        return _of_numbers(*plain, mapping)
    found, frame, repairs = _load(file, mapping, where)
    if frame.height == 0:
        raise InputError("the trace is empty", where=where, allowed="at least one request")
    names = found.names

    def tokens(ours: str) -> Ints | None:
        return _whole(frame, names[ours], where) if ours in names else None

    def labels(ours: str) -> Labels | None:
        return frame[names[ours]].cast(_string()).fill_null("").to_numpy() if ours in names else None

    starts, ids = _blocks(frame, names["hash_ids"], where) if "hash_ids" in names else (None, None)
    return Columns(
        format=found.format,
        row=np.arange(frame.height),
        t_s=_times(frame, names["t_s"], where) * _unit_s(found, mapping) if "t_s" in names else None,
        input=_whole(frame, names["input_tokens"], where),
        output=_whole(frame, names["output_tokens"], where),
        cached=tokens("cached_tokens"),
        session=_sessions(frame, names["session"], where) if "session" in names else None,
        depth=tokens("depth"),
        api_time_s=_number(frame, names["api_time_s"], where, gaps=True) if "api_time_s" in names else None,
        model=labels("model"),
        kind=labels("kind"),
        block_start=starts,
        block_ids=ids,
        repairs=tuple(repairs.items()),
    )


def _in_range(arrays: Arrays) -> bool:
    """Whether all numbers are such that nothing need be said about them."""
    tokens = (values for name, values in arrays.items() if name not in ("t_s", "ids"))
    in_time = "t_s" not in arrays or bool(arrays["t_s"].min() >= 0)
    return in_time and all(values.min() >= 0 and values.max() <= MAX_TOKENS for values in tokens)


def _of_numbers(found: Found, arrays: Arrays, mapping: Mapping[str, str]) -> Columns:
    t_s, counts = arrays.get("t_s"), arrays.get("id_counts")
    return Columns(
        format=found.format,
        row=np.arange(len(arrays["input_tokens"])),
        t_s=None if t_s is None else t_s * _unit_s(found, mapping),
        input=arrays["input_tokens"],
        output=arrays["output_tokens"],
        cached=arrays.get("cached_tokens"),
        block_start=None if counts is None else np.concatenate(([0], np.cumsum(counts))),
        block_ids=arrays.get("ids"),
    )


def _unit_s(found: Found, mapping: Mapping[str, str]) -> float:
    """Length of the unit of a file's times [s]; where they are named by the user, seconds."""
    return 1.0 if "t_s" in mapping else found.format.seconds


def _string() -> Any:
    import polars as pl

    return pl.String


def columns_of(file: Path, where: str) -> list[str]:
    """Names of the columns of a Parquet or CSV file; empty for other kinds."""
    import polars as pl

    try:
        if file.suffix.lower() == ".parquet":
            return list(pl.read_parquet_schema(file))
        if file.suffix.lower() == ".csv" and file.stat().st_size:
            return pl.read_csv(file, n_rows=0, infer_schema=False).columns
    except pl.exceptions.PolarsError as error:
        raise _unreadable(file, file.suffix.lower(), where, error) from None
    return []


def _load(file: Path, mapping: Mapping[str, str], where: str) -> tuple[Found, pl.DataFrame, dict[str, int]]:
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
    read = read_bench if suffix == ".json" else read_log if suffix in _LINES and is_log(first_record(file)) else None
    if read is not None and not mapping:
        columns, repairs = read(file, where)
        names = {ours: theirs for ours, theirs in READ.columns.items() if theirs in columns}
        return Found(READ, names), pl.DataFrame(columns, strict=False), repairs
    try:
        if suffix in _LINES:
            frame = pl.read_ndjson(file, infer_schema_length=None)
            return recognise(frame.columns, mapping, where), frame, {}
        found = recognise(columns_of(file, where), mapping, where)
        wanted = sorted(set(found.names.values()))
        frame = (
            pl.read_parquet(file, columns=wanted)
            if suffix == ".parquet"
            else pl.read_csv(file, columns=wanted, infer_schema=False)
        )
        return found, frame, {}
    except pl.exceptions.PolarsError as error:
        raise _unreadable(file, suffix, where, error) from None


def _unreadable(file: Path, suffix: str, where: str, error: Exception) -> InputError:
    """Say which row is broken where that can be found out."""
    import msgspec

    if suffix in _LINES:
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


def only(columns: Columns, wanted: Mapping[str, tuple[str, ...]], where: str) -> Columns:
    """The rows whose labels are among those wanted; the others are counted in ``repairs``."""
    keep = np.ones(len(columns.row), bool)
    for name, values in wanted.items():
        labels = getattr(columns, name) if name in ("model", "kind", "session") else None
        if labels is None:
            have = [n for n in ("model", "kind") if getattr(columns, n) is not None]
            raise InputError(
                f"only names {name}, which this trace does not have",
                where=f"{where}: only",
                value=name,
                allowed=", ".join(have) or "nothing",
                mend=f'name its column with columns = {{ {name} = "…" }}' if name in OURS else near_miss(name, have),
            )
        known = sorted({str(x) for x in np.unique(labels)})
        for value in values:
            if value not in known:
                raise InputError(
                    f"no request with this {name}",
                    where=f"{where}: only.{name}",
                    value=value,
                    allowed=", ".join(known[:12]) + (", …" if len(known) > 12 else ""),
                    mend=near_miss(value, known),
                )
        keep &= np.isin(labels.astype(str), values)
    if not keep.any():
        raise InputError("no request is left", where=f"{where}: only", value=dict(wanted), mend="ask for less at once")
    left_out = int(np.count_nonzero(~keep))
    repairs = (*columns.repairs, ("left_out_by_only", left_out)) if left_out else columns.repairs
    return replace(columns.take(keep), repairs=repairs)


def _fail(what: str, frame: pl.DataFrame, name: str, row: int, where: str, allowed: str) -> InputError:
    return InputError(
        what,
        where=f"{where}: column {name}, row {row + 1}",
        value=frame[name][row],
        allowed=allowed,
        mend="correct or drop the row",
    )


def _number(frame: pl.DataFrame, name: str, where: str, *, gaps: bool = False) -> Floats:
    """A column of finite numbers that are not negative; with ``gaps``, NaN where there is none."""
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
    array = column.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy().astype(np.float64)
    fine = np.isfinite(array) | (gaps & np.isnan(array))
    if not fine.all():
        raise _fail("not a number", frame, name, int(np.argmin(fine)), where, "a finite number, at least 0")
    if np.any(array < 0):
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


def _sessions(frame: pl.DataFrame, name: str, where: str) -> Labels:
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

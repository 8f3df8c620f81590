"""Recorded request traces: the table, and reading it from CSV, Parquet, JSONL or JSON.

Formats are recognised by their columns (see ``infermix.workload.formats``); any other file is
read with a stated mapping ``columns = {ours: theirs}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats, Ints, check_equal_lengths
from infermix.errors import InputError, near_miss
from infermix.workload.columns import Columns, only, read_columns

MOONCAKE_BLOCK_TOKENS = 512
"""Tokens of the prompt behind one id of ``hash_ids`` (README of the Mooncake traces)."""

Int32s = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Trace:
    """A recorded trace, one row a request.

    Attributes
    ----------
    t_s
        Arrival [s] after the first request; in a trace of sessions, after the start of the
        request's own session; all 0 in a trace without times.
    input_tokens, cached_tokens, output_tokens
        Prompt length (at least 1), how much of it a prefix cache held (below the input), tokens
        generated (at least 1).
    session
        Session number from 0, or -1 in a trace without sessions. Rows of a session are adjacent
        and in order of time.
    source
        Where the trace came from (the path).
    repairs
        What was changed while reading, and in how many rows; nothing is repaired silently.
    block_start, block_ids
        Prefix block ids of row i: ``block_ids[0][block_start[0][i]:block_start[0][i + 1]]``; empty
        tuples when the trace has none.
    format
        Which format the file was in.
    timed
        Whether the file has times.
    models
        Requests by model, where the file names models.
    service_s
        Recorded time from arrival to the last token [s], NaN where unknown; None in a trace without.
    sub_agent
        Requests of sub-agents, which wait for the last request before them that is none; None in a
        trace without.
    """

    t_s: Floats
    input_tokens: Int32s
    cached_tokens: Int32s
    output_tokens: Int32s
    session: Int32s
    source: str = ""
    repairs: dict[str, int] = field(default_factory=dict)
    block_start: tuple[Ints, ...] = ()
    block_ids: tuple[Ints, ...] = ()
    format: str = ""
    timed: bool = True
    models: dict[str, int] = field(default_factory=dict)
    service_s: Floats | None = None
    sub_agent: Bools | None = None

    def __post_init__(self) -> None:
        check_equal_lengths(self)

    def __len__(self) -> int:
        return len(self.t_s)

    @property
    def has_sessions(self) -> bool:
        """True when times count from the start of each session."""
        return bool(len(self)) and bool(self.session[0] >= 0)

    @property
    def sessions(self) -> int:
        """Number of sessions (0 in a trace without)."""
        return int(self.session[-1]) + 1 if self.has_sessions else 0

    @property
    def span_s(self) -> float:
        """Period of the trace [s]: the last arrival and one mean gap, so that repeating keeps the rate.

        Raises
        ------
        InputError
            If the trace holds sessions (their starts are not recorded) or a single instant.
        """
        if self.has_sessions:
            raise InputError("a trace of sessions has no rate of its own", where=self.source, mend="state rate_per_s")
        if not self.timed:
            raise InputError("the trace has no times", where=self.source, mend="state rate_per_s")
        if len(self) < 2 or not self.t_s[-1] > 0:
            raise InputError(
                "all requests arrive at one instant",
                where=self.source,
                value=len(self),
                allowed="at least two requests at different times",
            )
        return float(self.t_s[-1]) * len(self) / (len(self) - 1)

    @property
    def rate_per_s(self) -> float:
        """Mean rate as recorded [1/s]; errors as for ``span_s``."""
        return len(self) / self.span_s


def read_trace(
    path: str | Path,
    columns: Mapping[str, str] | None = None,
    where: str = "",
    *,
    only: Mapping[str, tuple[str, ...]] | None = None,
    between_s: tuple[float, float] | None = None,
) -> Trace:
    """Read a trace; the same file is parsed once per process.

    Parameters
    ----------
    path
        ``.csv``, ``.parquet``, ``.jsonl`` (``.ndjson``) or ``.json``.
    columns
        Our column name → the file's, for formats that are not recognised.
    where
        What asked for the file, put before error messages (for example ``traffic.chat``).
    only
        ``model`` or ``kind`` → values of which a request must have one; the others are left out
        and counted.
    between_s
        Only what arrived in [from, to) [s] after the first request; the others are counted.

    Cached tokens come from ``cached_tokens`` (or ``prefix_tokens``) when the file has them. With
    ``hash_ids`` they are what an ideal prefix cache of infinite size would hold: of each prompt's
    512-token blocks, the leading run of ids that an earlier request already had. In both cases at
    least one input token stays uncached. A file without either is all uncached.

    In a trace of sessions, times are taken from the first request of each session, also when the
    file counts otherwise. Rows with ``depth`` above 0 are sub-agents on a clock of their own,
    which starts when the answer to the preceding ``depth`` 0 request of the session was complete
    (``api_time_s`` after it); they are put on the session's clock and counted in ``repairs``.

    Raises
    ------
    InputError
        A missing file, unknown suffix, missing column, no rows, times that descend, or a value
        that is negative or not a number; the message names file, column, row (the first row of
        data is row 1) and value.
    """
    file = Path(path)
    name = f"{where}: {file}" if where else str(file)
    try:
        stat = file.stat()
    except OSError:
        near = [p.name for p in sorted(file.parent.glob("*"))] if file.parent.is_dir() else []
        mend = near_miss(file.name, near) or "check the path; it is relative to the study file"
        raise InputError("no such trace", where=name, mend=mend) from None
    if not file.is_file():
        raise InputError("a trace must be a file", where=name, value="folder")
    wanted = tuple(sorted((only or {}).items()))
    version = (stat.st_mtime_ns, stat.st_size)
    return _read(file, tuple(sorted((columns or {}).items())), wanted, between_s, name, version)


@lru_cache(maxsize=8)
def _read(
    file: Path,
    columns: tuple[tuple[str, str], ...],
    wanted: tuple[tuple[str, tuple[str, ...]], ...],
    between_s: tuple[float, float] | None,
    name: str,
    _version: tuple[int, int],
) -> Trace:
    table = read_columns(file, dict(columns), name)
    if wanted:
        table = only(table, dict(wanted), name)
    if table.session is not None:
        if between_s is not None:
            raise InputError(
                "when sessions started is not in the trace, so between_s cannot be told",
                where=name,
                value=between_s,
                mend="leave between_s out",
            )
        trace = _sessions(table, name, str(file))
    else:
        trace = _plain(table, name, str(file), between_s)
    for value in vars(trace).values():
        for array in value if isinstance(value, tuple) else (value,):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
    return trace


def _plain(table: Columns, name: str, source: str, between_s: tuple[float, float] | None) -> Trace:
    repairs = dict(table.repairs)
    table = _ordered(table, name, repairs)
    cached = table.cached
    if cached is None and table.block_start is not None and table.block_ids is not None:
        ideal = known_prefix_blocks(table.block_start, table.block_ids) * MOONCAKE_BLOCK_TOKENS
        cached = np.minimum(ideal, np.maximum(table.input - 1, 0))
    if cached is not None:
        table = replace(table, cached=cached)
    if between_s is not None:
        table = _between(table, between_s, name, repairs)
    lengths, mended = _lengths(table, table.cached)
    t = np.zeros(len(table.row)) if table.t_s is None else table.t_s - table.t_s[0]
    blocks: tuple[tuple[Ints, ...], tuple[Ints, ...]] = ((), ())
    if table.block_start is not None and table.block_ids is not None:
        blocks = ((table.block_start,), (table.block_ids,))
    return Trace(
        t,
        *lengths,
        np.full(len(t), -1, np.int32),
        source,
        repairs | mended,
        *blocks,
        format=table.format.name,
        timed=table.t_s is not None,
        models=_models(table),
        service_s=table.api_time_s,
    )


def _ordered(table: Columns, name: str, repairs: dict[str, int]) -> Columns:
    """Rows in order of time, sorted and counted in formats that may come otherwise."""
    t = table.t_s
    if t is None:
        return table
    late = int(np.count_nonzero(t < np.maximum.accumulate(t)))
    if late and table.format.sorts:
        repairs["put_in_order_of_time"] = late
        return table.take(np.argsort(t, kind="stable"))
    _check_ascending(t, table.row, np.zeros(len(t), np.int64), name)
    return table


def _between(table: Columns, between_s: tuple[float, float], name: str, repairs: dict[str, int]) -> Columns:
    if table.t_s is None:
        raise InputError("the trace has no times", where=f"{name}: between_s", value=between_s, mend="leave it out")
    t = table.t_s - table.t_s[0]
    keep = (t >= between_s[0]) & (t < between_s[1])
    if not keep.any():
        raise InputError(
            "no request in this time", where=f"{name}: between_s", value=between_s, allowed=f"0 to {t[-1]:.6g} s"
        )
    if not keep.all():
        repairs["left_out_by_between_s"] = int(np.count_nonzero(~keep))
    return table.take(keep)


def _models(table: Columns) -> dict[str, int]:
    if table.model is None:
        return {}
    names, counts = np.unique(table.model.astype(str), return_counts=True)
    return {str(name): int(n) for name, n in zip(names, counts, strict=True)}


def _sessions(table: Columns, name: str, source: str) -> Trace:
    assert table.session is not None
    if table.t_s is None:
        raise InputError("a trace of sessions needs times", where=name, mend='add columns = { t_s = "…" }')
    _, first, codes = np.unique(table.session, return_index=True, return_inverse=True)
    session = np.argsort(np.argsort(first))[codes].astype(np.int64)
    order = np.argsort(session, kind="stable")
    t, session, sub = table.t_s[order], session[order], np.zeros(len(order), bool)
    (inputs, cached, outputs), mended = _lengths(table, table.cached)
    repairs = dict(table.repairs) | mended
    service = np.full(len(t), np.nan) if table.api_time_s is None else table.api_time_s[order]
    if table.depth is not None:
        sub = table.depth[order] > 0
        t = _rebase(t, session, sub, np.nan_to_num(service))
        if sub.any():
            repairs["sub_agent_times_put_on_session_clock"] = int(sub.sum())
    _check_ascending(t[~sub], table.row[order][~sub], session[~sub], name)
    by_time = np.lexsort((t, session))
    t, session, order = t[by_time], session[by_time], order[by_time]
    starts = np.flatnonzero(np.diff(session, prepend=-1))
    t = t - t[starts][session]
    return Trace(
        t,
        inputs[order],
        cached[order],
        outputs[order],
        session.astype(np.int32),
        source,
        repairs,
        format=table.format.name,
        models=_models(table),
        service_s=None if table.api_time_s is None else service[by_time],
        sub_agent=None if table.depth is None else sub[by_time],
    )


def _rebase(t: Floats, session: Ints, sub: Bools, api_s: Floats) -> Floats:
    """Put sub-agent rows on the clock of their session: they start after the last main answer before them."""
    main = np.maximum.accumulate(np.where(sub, -1, np.arange(len(t))))
    known = (main >= 0) & (session[main] == session)
    base = np.where(known, t[main] + api_s[main], 0.0)
    return np.where(sub, base + t, t)


def _lengths(table: Columns, cached: Ints | None) -> tuple[tuple[Int32s, Int32s, Int32s], dict[str, int]]:
    repairs: dict[str, int] = {}

    def at_least_one(values: Ints, name: str) -> Ints:
        low = int(np.count_nonzero(values < 1))
        if low:
            repairs[name] = low
        return np.maximum(values, 1)

    failed = "failed_requests_read_as_1_output_token" if table.format.fails else "output_tokens_raised_to_1"
    inputs, outputs = at_least_one(table.input, "input_tokens_raised_to_1"), at_least_one(table.output, failed)
    held = np.zeros_like(inputs) if cached is None else cached
    above = int(np.count_nonzero(held > inputs - 1))
    if above:
        repairs["cached_tokens_lowered_below_input"] = above
    held = np.minimum(held, inputs - 1)
    return (inputs.astype(np.int32), held.astype(np.int32), outputs.astype(np.int32)), repairs


def _check_ascending(t: Floats, row: Ints, session: Ints, name: str) -> None:
    falls = (np.diff(t) < 0) & (np.diff(session) == 0)
    if falls.any():
        at = int(np.argmax(falls)) + 1
        raise InputError(
            "arrival times descend",
            where=f"{name}: row {int(row[at]) + 1}",
            value=float(t[at]),
            allowed=f"at least {float(t[at - 1])!r}, the time before it",
            mend="sort the rows by time (within each session, where there are sessions)",
        )


def known_prefix_blocks(block_start: Ints, block_ids: Ints) -> Ints:
    """Leading blocks of each row that an earlier row already had (ideal prefix cache of infinite size).

    >>> known_prefix_blocks(np.array([0, 2, 5]), np.array([1, 2, 1, 2, 3])).tolist()
    [0, 2]
    """
    n = len(block_start) - 1
    counts = np.diff(block_start)
    row = np.repeat(np.arange(n), counts)
    small = len(block_ids) == 0 or (block_ids.min() >= 0 and block_ids.max() < 4 * len(block_ids))
    codes = block_ids if small else np.unique(block_ids, return_inverse=True)[1]
    first = np.zeros(codes.max(initial=0) + 1, np.int64)
    first[codes[::-1]] = row[::-1]
    unknown = first[codes] >= row
    position = np.arange(len(block_ids)) - np.repeat(block_start[:-1], counts)
    run = counts.copy()
    np.minimum.at(run, row[unknown], position[unknown])
    return run

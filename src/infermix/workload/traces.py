"""Recorded request traces: the table, and reading it from CSV, Parquet or JSONL.

Formats are recognised by their columns (see ``infermix.workload.formats``); any other file is
read with a stated mapping ``columns = {ours: theirs}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints, check_equal_lengths
from infermix.errors import InputError
from infermix.workload.formats import Columns, read_columns

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
        request's own session.
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


def read_trace(path: str | Path, columns: Mapping[str, str] | None = None, where: str = "") -> Trace:
    """Read a trace; the same file is parsed once per process.

    Parameters
    ----------
    path
        ``.csv``, ``.parquet`` or ``.jsonl`` (``.ndjson``).
    columns
        Our column name → the file's, for formats that are not recognised.
    where
        What asked for the file, put before error messages (for example ``traffic.chat``).

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
        raise InputError("no such trace", where=name, mend=_suggest(file.name, near)) from None
    if not file.is_file():
        raise InputError("a trace must be a file", where=name, value="folder")
    return _read(file, tuple(sorted((columns or {}).items())), name, (stat.st_mtime_ns, stat.st_size))


def _suggest(name: str, near: list[str]) -> str:
    from infermix.errors import near_miss

    return near_miss(name, near) or "check the path; it is relative to the study file"


@lru_cache(maxsize=8)
def _read(file: Path, columns: tuple[tuple[str, str], ...], name: str, _version: tuple[int, int]) -> Trace:
    table = read_columns(file, dict(columns), name)
    trace = _sessions(table, name, str(file)) if table.session is not None else _plain(table, name, str(file))
    for value in vars(trace).values():
        for array in value if isinstance(value, tuple) else (value,):
            if isinstance(array, np.ndarray):
                array.setflags(write=False)
    return trace


def _plain(table: Columns, name: str, source: str) -> Trace:
    t = table.t_s
    _check_ascending(t, np.arange(len(t)), np.zeros(len(t), np.int64), name)
    cached, start, ids = table.cached, (), ()
    blocks: tuple[tuple[Ints, ...], tuple[Ints, ...]] = (start, ids)
    if table.block_start is not None and table.block_ids is not None:
        blocks = ((table.block_start,), (table.block_ids,))
        if cached is None:
            ideal = known_prefix_blocks(table.block_start, table.block_ids) * MOONCAKE_BLOCK_TOKENS
            cached = np.minimum(ideal, np.maximum(table.input - 1, 0))
    rows = _lengths(table, cached)
    session = np.full(len(t), -1, np.int32)
    return Trace(t - t[0], *rows[0], session, source, rows[1], *blocks)


def _sessions(table: Columns, name: str, source: str) -> Trace:
    assert table.session is not None
    _, first, codes = np.unique(table.session, return_index=True, return_inverse=True)
    session = np.argsort(np.argsort(first))[codes].astype(np.int64)
    order = np.argsort(session, kind="stable")
    t, session, sub = table.t_s[order], session[order], np.zeros(len(order), bool)
    (inputs, cached, outputs), repairs = _lengths(table, table.cached)
    if table.depth is not None:
        sub = table.depth[order] > 0
        api = np.zeros(len(t)) if table.api_time_s is None else table.api_time_s[order]
        t = _rebase(t, session, sub, api)
        if sub.any():
            repairs["sub_agent_times_put_on_session_clock"] = int(sub.sum())
    _check_ascending(t[~sub], order[~sub], session[~sub], name)
    by_time = np.lexsort((t, session))
    t, session, order = t[by_time], session[by_time], order[by_time]
    starts = np.flatnonzero(np.diff(session, prepend=-1))
    t = t - t[starts][session]
    return Trace(t, inputs[order], cached[order], outputs[order], session.astype(np.int32), source, repairs)


def _rebase(t: Floats, session: Ints, sub: npt.NDArray[np.bool_], api_s: Floats) -> Floats:
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
            repairs[f"{name}_raised_to_1"] = low
        return np.maximum(values, 1)

    inputs, outputs = at_least_one(table.input, "input_tokens"), at_least_one(table.output, "output_tokens")
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
    _, first, codes = np.unique(block_ids, return_index=True, return_inverse=True)
    unknown = row[first][codes] >= row
    position = np.arange(len(block_ids)) - np.repeat(block_start[:-1], counts)
    run = counts.copy()
    np.minimum.at(run, row[unknown], position[unknown])
    return run

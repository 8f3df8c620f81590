"""The table of requests that every simulation consumes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats, Ints, check_equal_lengths
from infermix.errors import InputError

NO_DEADLINE = np.inf


@dataclass(frozen=True)
class Requests:
    """Requests in order of arrival; one row each. Columns that a study does not use hold defaults.

    Attributes
    ----------
    arrival_s
        Time of arrival [s], ascending.
    input_tokens, cached_tokens, output_tokens
        Prompt length, how much of it is already in a prefix cache (always below the input), and
        tokens to generate (at least 1).
    class_id
        Index into ``class_names``.
    model_id, session, parent
        Index of the model; session number (-1: none); row of the parent request (-1: none).
    think_s
        Pause after the previous answer of the session [s]; 0 where unknown.
    priority, deadline_s
        Larger is more urgent; absolute deadline [s] or ``inf``.
    block_ids
        Prefix block ids, ``block_start[i]:block_start[i+1]`` for row i; both empty when unknown.
    block_id_tokens
        Tokens of the prompt behind one id.
    """

    class_names: tuple[str, ...]
    arrival_s: Floats
    input_tokens: npt.NDArray[np.int32]
    cached_tokens: npt.NDArray[np.int32]
    output_tokens: npt.NDArray[np.int32]
    class_id: npt.NDArray[np.int16]
    model_id: npt.NDArray[np.int16]
    session: npt.NDArray[np.int32]
    parent: npt.NDArray[np.int32]
    think_s: npt.NDArray[np.float32]
    priority: npt.NDArray[np.int8]
    deadline_s: Floats
    block_start: tuple[npt.NDArray[np.int64], ...] = ()
    block_ids: tuple[npt.NDArray[np.int64], ...] = ()
    block_id_tokens: int = 512

    def __post_init__(self) -> None:
        check_equal_lengths(self)

    def __len__(self) -> int:
        return len(self.arrival_s)


def make_requests(
    class_names: tuple[str, ...],
    arrival_s: npt.ArrayLike,
    input_tokens: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    *,
    class_id: npt.ArrayLike = 0,
    cached_tokens: npt.ArrayLike = 0,
    session: npt.ArrayLike = -1,
    parent: npt.ArrayLike = -1,
    think_s: npt.ArrayLike = 0.0,
    where: str = "requests",
) -> Requests:
    """Build a validated table; scalars are broadcast without taking memory.

    Raises
    ------
    InputError
        If arrivals descend, a length is not positive, cached is not below input, a parent is not an earlier row, or a
        pause is negative.
    """
    arrival = np.ascontiguousarray(arrival_s, dtype=np.float64)
    n = len(arrival)

    def column(values: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[np.generic]:
        array = np.asarray(values, dtype=dtype)
        return np.broadcast_to(array, n) if array.ndim == 0 else array

    table = Requests(
        class_names=class_names,
        arrival_s=arrival,
        input_tokens=column(input_tokens, np.int32),  # type: ignore[arg-type]
        cached_tokens=column(cached_tokens, np.int32),  # type: ignore[arg-type]
        output_tokens=column(output_tokens, np.int32),  # type: ignore[arg-type]
        class_id=column(class_id, np.int16),  # type: ignore[arg-type]
        model_id=column(0, np.int16),  # type: ignore[arg-type]
        session=column(session, np.int32),  # type: ignore[arg-type]
        parent=column(parent, np.int32),  # type: ignore[arg-type]
        think_s=column(think_s, np.float32),  # type: ignore[arg-type]
        priority=column(0, np.int8),  # type: ignore[arg-type]
        deadline_s=column(NO_DEADLINE, np.float64),  # type: ignore[arg-type]
    )
    _check_rows(table, where)
    return table


def take(requests: Requests, rows: Bools | Ints | slice) -> Requests:
    """Some requests of a table without parents and blocks."""
    columns: dict[str, Any] = {
        name: column[rows] for name, column in vars(requests).items() if isinstance(column, np.ndarray)
    }
    return replace(requests, **columns)


def _check_rows(table: Requests, where: str) -> None:
    """InputError for arrivals that descend or lengths that cannot be."""
    arrival, n = table.arrival_s, len(table)
    if n and np.any(np.diff(arrival) < 0):
        row = int(np.argmax(np.diff(arrival) < 0)) + 1
        at = f"{where} row {row}"
        raise InputError("arrival times descend", where=at, value=float(arrival[row]), mend="sort by time")
    for name, low in (("input_tokens", 1), ("output_tokens", 1), ("cached_tokens", 0)):
        values = getattr(table, name)
        if n and values.min() < low:
            row = int(np.argmax(values < low))
            raise InputError(f"{name} below {low}", where=f"{where} row {row}", value=int(values[row]))
    wrong = (table.parent < -1) | (table.parent >= np.arange(n))
    if wrong.any():
        row = int(np.argmax(wrong))
        allowed = f"-1, or a row before {row}"
        raise InputError(
            "parent out of range", where=f"{where} row {row}", value=int(table.parent[row]), allowed=allowed
        )
    if n and not np.all(table.think_s >= 0.0):
        row = int(np.argmin(table.think_s >= 0.0))
        at = f"{where} row {row}"
        raise InputError("think_s must be 0 or more", where=at, value=float(table.think_s[row]))
    if n and np.any(table.cached_tokens >= table.input_tokens):
        row = int(np.argmax(table.cached_tokens >= table.input_tokens))
        held = int(table.cached_tokens[row])
        raise InputError("cached_tokens not below input_tokens", where=f"{where} row {row}", value=held)

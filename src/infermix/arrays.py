"""Shared names of array types, and the one check that every table makes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import numpy.typing as npt

from infermix.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def check_equal_lengths(table: Any) -> None:
    """Raise InputError unless every array column of a dataclass table has the same length."""
    lengths = {f.name: len(v) for f in fields(table) if isinstance(v := getattr(table, f.name), np.ndarray)}
    if len(set(lengths.values())) > 1:
        raise InputError("columns of a table differ in length", where=type(table).__name__, value=lengths)

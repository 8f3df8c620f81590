"""The one check that every table makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from infermix.arrays import Floats, Ints, check_equal_lengths
from infermix.errors import InputError


@dataclass(frozen=True)
class Table:
    time_s: Floats
    tokens: Ints
    name: str = "not a column"
    extra: list[int] | None = None


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_equal_columns_pass_and_other_fields_do_not_count(rows: int) -> None:
    check_equal_lengths(Table(np.zeros(rows), np.zeros(rows, dtype=np.int64), "x" * 99, [1, 2, 3]))


def test_unequal_columns_are_named_with_their_lengths() -> None:
    with pytest.raises(
        InputError, match=r"^Table: columns of a table differ in length; got {'time_s': 2, 'tokens': 3}$"
    ):
        check_equal_lengths(Table(np.zeros(2), np.zeros(3, dtype=np.int64)))

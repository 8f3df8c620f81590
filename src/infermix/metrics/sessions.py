"""How long whole sessions take."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats


def session_times(session: npt.NDArray[np.integer[Any]], arrival_s: Floats, last_s: Floats) -> tuple[Floats, Bools]:
    """First arrival to last token of each session [s], and whether all of its requests ended.

    Rows without a session (-1) are left out; a session with a request that did not end has NaN.

    >>> times, whole = session_times(np.array([0, 0, -1, 1]), np.arange(4.0), np.array([1.0, 9.0, 3.0, np.nan]))
    >>> times.tolist(), whole.tolist()
    ([9.0, nan], [True, False])
    """
    mine = session >= 0
    names, place = np.unique(session[mine], return_inverse=True)
    first = np.full(len(names), np.inf)
    last = np.full(len(names), -np.inf)
    np.minimum.at(first, place, arrival_s[mine])
    np.maximum.at(last, place, np.where(np.isnan(last_s[mine]), np.inf, last_s[mine]))
    whole = np.isfinite(last)
    return np.where(whole, last - first, np.nan), whole

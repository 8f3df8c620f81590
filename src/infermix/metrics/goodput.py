"""Which requests were served as promised.

Attainment is the share of *offered* requests that meet every target of their class jointly; refused
and unfinished requests are misses.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats


class Targets(Protocol):
    """What a class was promised, such as ``workload.classes.Slo``; None: not promised."""

    @property
    def ttft_s(self) -> float | None:
        """Time to first token [s]."""

    @property
    def ttft_s_per_1k_uncached(self) -> float:
        """Added to it for every 1,000 uncached input tokens [s]."""

    @property
    def tpot_s(self) -> float | None:
        """Time per output token [s]."""

    @property
    def e2e_s(self) -> float | None:
        """Time to last token [s]."""


def meets(slo: Targets, ttft_s: Floats, tpot_s: Floats, e2e_s: Floats, uncached_tokens: npt.NDArray[Any]) -> Bools:
    """Requests that meet every target; all arrays over requests, NaN where a time does not exist.

    TPOT is ignored where it is NaN on a finished request: outputs of one token have none.
    """
    finished = ~np.isnan(e2e_s)
    good = finished
    if slo.ttft_s is not None:
        good = good & (ttft_s <= slo.ttft_s + slo.ttft_s_per_1k_uncached * uncached_tokens / 1000.0)
    if slo.tpot_s is not None:
        good = good & ((tpot_s <= slo.tpot_s) | (finished & np.isnan(tpot_s)))
    if slo.e2e_s is not None:
        good = good & (e2e_s <= slo.e2e_s)
    return np.asarray(good, dtype=np.bool_)

"""Which requests were served as promised.

Attainment is the share of *offered* requests that meet every target of their class jointly; refused
and unfinished requests are misses.
"""

from __future__ import annotations

from infermix.arrays import Bools, Floats
from infermix.workload.classes import Slo


def meets(slo: Slo, ttft_s: Floats, tpot_s: Floats, e2e_s: Floats, uncached_tokens: Floats) -> Bools:
    """Requests that meet every target; all arrays over requests, NaN where a time does not exist.

    TPOT is ignored where it is NaN on a finished request: outputs of one token have none.
    """
    finished = e2e_s == e2e_s
    good = finished
    if slo.ttft_s is not None:
        good = good & (ttft_s <= slo.ttft_s + slo.ttft_s_per_1k_uncached * uncached_tokens / 1000.0)
    if slo.tpot_s is not None:
        good = good & ((tpot_s <= slo.tpot_s) | (finished & (tpot_s != tpot_s)))
    if slo.e2e_s is not None:
        good = good & (e2e_s <= slo.e2e_s)
    return good

"""Collectives inside a scale-up domain."""

from __future__ import annotations

from infermix.arrays import Floats
from infermix.catalog.records import Chip, Efficiency


def all_reduce_s(chip: Chip, efficiency: Efficiency, ranks: int, bytes_each: Floats) -> Floats:
    """``alpha + 2 (n-1)/n bytes / beta``: a ring's volume with a measured start-up time.

    ``beta`` is a fraction of the link rate, above 1 only where switches add up on the way. Figures in the "bus"
    convention of nccl-tests include the factor 2 (n-1)/n in their bandwidth; here it stands apart.
    """
    if ranks == 1:
        return 0.0 * bytes_each
    link = chip.link_bytes_per_s.value if chip.link_bytes_per_s else 0.0
    f = efficiency.figures
    rate = f["allreduce_bytes"].value * link
    if "NVSwitch" not in chip.link:
        rate = min(rate, link)
    return f["allreduce_start_s"].value + 2.0 * (ranks - 1) / ranks * bytes_each / rate

"""Collectives and hops: inside a system over its links, between systems over the network.

Ranks that talk to each other fill systems one after another, so a group of n ranks spans
``ceil(n / chips of a system)`` systems.
"""

from __future__ import annotations

import math

from infermix.arrays import Floats
from infermix.catalog.records import Figure
from infermix.perf.deployment import Deployment


def all_reduce_s(d: Deployment, ranks: int, bytes_each: Floats) -> Floats:
    """``start + 2 (n-1)/n bytes / rate``: a ring's volume with a measured start-up time.

    Over several systems each chip first reduces within its system and then exchanges its share between them.
    Figures in the "bus" convention of nccl-tests include the factor 2 (n-1)/n in their bandwidth; here it stands
    apart.
    """
    if ranks == 1:
        return 0.0 * bytes_each
    systems = spanned(d, ranks)
    inside = ranks / systems
    f = d.efficiency.figures
    seconds = 0.0 * bytes_each
    if inside > 1:
        seconds = f["allreduce_start_s"].value + 2.0 * (inside - 1) / inside * bytes_each / link_rate(
            d, "allreduce_bytes"
        )
    if systems > 1:
        across = 2.0 * (systems - 1) / systems * bytes_each / inside / network_rate(d)
        seconds = seconds + f["internode_start_s"].value + across
    return seconds


def all_to_all_s(d: Deployment, ranks: int, bytes_each: Floats) -> Floats:
    """Seconds in which every rank sends ``bytes_each``, spread evenly over the others: links and network at once."""
    if ranks == 1:
        return 0.0 * bytes_each
    systems = spanned(d, ranks)
    inside = ranks / systems
    f = d.efficiency.figures
    within = f["alltoall_start_s"].value + bytes_each * (inside - 1) / ranks / link_rate(d, "alltoall_bytes")
    if systems == 1:
        return within
    across = f["internode_start_s"].value + bytes_each * (ranks - inside) / ranks / network_rate(d)
    return within + across


def hop_s(d: Deployment, bytes_each: Floats) -> Floats:
    """Seconds to hand activations to the next ``pp`` stage: the slowest hop, between systems where they are spanned."""
    f = d.efficiency.figures
    start = d.chip.hop_s.value if d.chip.hop_s else f["allreduce_start_s"].value
    if d.chips > d.system.chips:
        return max(start, f["internode_start_s"].value) + bytes_each / network_rate(d)
    return start + bytes_each / (d.chip.link_bytes_per_s.value if d.chip.link_bytes_per_s else math.inf)


def spanned(d: Deployment, ranks: int) -> int:
    """Systems over which neighbouring ranks spread."""
    return max(1, math.ceil(ranks / d.system.chips))


def link_rate(d: Deployment, share: str) -> float:
    """Rate of one direction inside a system that a collective reaches [bytes/s].

    A share above 1 holds only where switches add up on the way.
    """
    link = _value(d.chip.link_bytes_per_s)
    rate = d.efficiency.figures[share].value * link
    return rate if "NVSwitch" in d.chip.link else min(rate, link)


def network_rate(d: Deployment) -> float:
    """Rate of one direction between systems that a chip reaches [bytes/s]."""
    return d.efficiency.figures["internode_bytes"].value * _value(d.chip.scaleout_bytes_per_s)


def _value(figure: Figure | None) -> float:
    assert figure is not None  # table.missing_figures refuses before
    return figure.value

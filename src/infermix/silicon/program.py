"""What a chip costs once, how long it takes, and what a second try costs."""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats
from infermix.units import HOURS_PER_WEEK


def design_by_area_usd(node_usd: Floats, area_mm2: Floats, fixed_share: Floats, area_of_node_mm2: Floats) -> Floats:
    """Design cost of a chip from that of its node, part fixed and part with area (E20; Chiplet Actuary).

    Good near the area that the node's cost is stated for.
    """
    return node_usd * (fixed_share + (1 - fixed_share) * area_mm2 / area_of_node_mm2)


def expected_nre_usd(
    nre_usd: Floats, respin_probability: Floats, masks_usd: Floats, spin_usd: Floats
) -> Floats:  # fmt: skip
    """Cost once, with the masks and work of the respin that may come (E21)."""
    return nre_usd + respin_probability * (masks_usd + spin_usd)


def tapeout_hours(unique_transistors: Floats, hours_per_transistor: Floats, base_hours: Floats) -> Floats:
    """Engineering hours to tape-out (ttm-cas)."""
    return base_hours + unique_transistors * hours_per_transistor


def calendar_weeks(hours: Floats, parallel_share: Floats, engineers: Floats, hours_per_week: Floats) -> Floats:
    """Weeks that so many engineers take, of whose work a share can be done side by side (ttm-cas)."""
    return (hours * (1 - parallel_share) + parallel_share * hours / engineers) / hours_per_week


def fab_weeks(base_weeks: Floats, wafers: Floats, wafers_per_hour: Floats) -> Floats:
    """Weeks in the fab: the way of one wafer, then the others at the line's rate (E21)."""
    return base_weeks + wafers / wafers_per_hour / HOURS_PER_WEEK


def osat_weeks(base_weeks: Floats, transistors: Floats, test: Floats, area_mm2: Floats, packaging: Floats) -> Floats:
    """Weeks of test and packaging (ttm-cas): ``test`` weeks a transistor, ``packaging`` weeks a mm2."""
    return base_weeks + transistors * test + area_mm2 * packaging


def tapeout_usd(
    ip_usd: Floats,
    cad_usd_per_week: Floats,
    engineer_weeks: Floats,
    labour_usd_per_week: Floats,
    engineers: Floats,
    weeks: Floats,
    backend_usd_per_gate: Floats,
    gates: Floats,
    package_usd: Floats,
) -> Floats:
    """Cost up to tape-out, masks apart (E20; Moonwalk as ttm-cas uses it)."""
    people = cad_usd_per_week * engineer_weeks + labour_usd_per_week * engineers * weeks
    return ip_usd + people + backend_usd_per_gate * gates + package_usd


def delivery_weeks(steps: tuple[Floats, ...], respin: Floats, respin_weeks: Floats) -> Floats:
    """Weeks from the start to chips in hand; ``respin`` is 1 where the first silicon failed, else 0 (E21)."""
    total = respin * respin_weeks
    for step in steps:
        total = total + step
    return np.asarray(total)

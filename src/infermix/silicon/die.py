"""A die: what its area goes to, what limits it, what it costs and what test lets through."""

from __future__ import annotations

import numpy as np

from infermix.arrays import Floats


def die_usd(wafer_usd: Floats, dies_per_wafer: Floats, yielded: Floats) -> Floats:
    """Cost of a good die before test [USD] (E9).

    >>> round(float(die_usd(np.float64(16988), np.float64(67), np.float64(3) / 4)))
    338
    """
    return wafer_usd / (dies_per_wafer * yielded)


def test_pass(yielded: Floats, coverage: Floats) -> Floats:
    """Share of dies that pass a test which finds ``coverage`` of the bad ones (E9; CATCH)."""
    return 1 - (1 - yielded) * coverage


test_pass.__test__ = False  # type: ignore[attr-defined]


def quality(yielded: Floats, coverage: Floats) -> Floats:
    """Share of passed dies that are good; the others are found when package and memory are lost with them (E9).

    >>> float(quality(np.float64(1) / 2, np.float64(1)))
    1.0
    """
    return yielded / test_pass(yielded, coverage)


def core_mm2(
    sram_bytes: Floats,
    sram_mm2_per_byte: Floats,
    flop_per_s: Floats,
    mac_mm2_s_per_flop: Floats,
    stacks: Floats,
    hbm_phy_mm2: Floats,
    links: Floats,
    link_mm2: Floats,
    fixed_mm2: Floats,
) -> Floats:
    """Area of everything on a die: SRAM, arithmetic, memory and link interfaces, the rest (right side of E10)."""
    memory = sram_bytes * sram_mm2_per_byte + stacks * hbm_phy_mm2
    return memory + flop_per_s * mac_mm2_s_per_flop + links * link_mm2 + fixed_mm2


def die_mm2(used_mm2: Floats, utilisation: Floats, pad_ring_mm: Floats) -> Floats:
    """Area of a die whose core is filled to ``utilisation``, with its pad ring (E10; reallm).

    >>> round(float(die_mm2(np.float64(576.28), np.float64(19) / 20, np.float64(7) / 20)))
    624
    """
    return (np.sqrt(used_mm2 / utilisation) + pad_ring_mm) ** 2


def most_stacks(long_side_mm: Floats, stack_length_mm: Floats) -> Floats:
    """HBM stacks that find shoreline on the two long sides of a die (E14; reallm).

    >>> float(most_stacks(np.float64(33), np.float64(11.87)))
    6.0
    """
    return 2 * np.ceil(long_side_mm / stack_length_mm)


def power_w(
    flop_per_s: Floats,
    joule_per_flop: Floats,
    sram_bytes_per_s: Floats,
    sram_joule_per_byte: Floats,
    hbm_bytes_per_s: Floats,
    hbm_joule_per_byte: Floats,
    link_bytes_per_s: Floats,
    link_joule_per_byte: Floats,
) -> Floats:
    """Power of a chip at work [W]; leakage is inside the energy of a FLOP, which is that of whole chips (E15)."""
    arithmetic = flop_per_s * joule_per_flop
    memory = sram_bytes_per_s * sram_joule_per_byte + hbm_bytes_per_s * hbm_joule_per_byte
    return arithmetic + memory + link_bytes_per_s * link_joule_per_byte

"""The package: interposer, substrate, bonding, and what is thrown away with a bond that fails."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats


class Yields(NamedTuple):
    """Shares that come through: of interposers made, of all bonds of a unit, of bonds to the substrate."""

    interposer: Floats
    bonds: Floats
    substrate: Floats


def bonds(bond_yield: Floats, parts: Floats) -> Floats:
    """Share of units of which every bond holds."""
    return bond_yield**parts


def interposer_loss_usd(interposer_usd: Floats, substrate_usd: Floats, yields: Yields) -> Floats:
    """Interposers and substrates lost for each unit that comes through, chip last (E11; Chiplet Actuary)."""
    through = yields.interposer * yields.bonds * yields.substrate
    return interposer_usd * (1 / through - 1) + substrate_usd * (1 / yields.substrate - 1)


def wasted_usd(parts_usd: Floats, yields: Yields) -> Floats:
    """Good dies and stacks lost for each unit that comes through, HBM included (E11).

    >>> one = np.float64(1)
    >>> round(float(wasted_usd(np.float64(90), Yields(one, 9 * one / 10, one))), 6)
    10.0
    """
    return parts_usd * (1 / (yields.bonds * yields.substrate) - 1)


def substrate_factor(package_mm2: Floats, dies: int, small: Floats, middle: Floats, large: Floats) -> Floats:
    """More layers under several dies: Chiplet Actuary's factors for packages to 17, to 30 and over 30 mm a side."""
    if dies == 1:
        return np.ones(np.shape(package_mm2))
    return np.where(package_mm2 > 30 * 30, large, np.where(package_mm2 > 17 * 17, middle, small))


def unit_usd(parts_usd: Floats, final_yield: Floats) -> Floats:
    """Cost of a unit that passes the last test (E12)."""
    return parts_usd / final_yield


def price_usd(cost_usd: Floats, gross_margin: Floats) -> Floats:
    """Price that leaves this gross margin (E12).

    >>> round(float(price_usd(np.float64(3320), np.float64(22) / 25)))
    27667
    """
    return cost_usd / (1 - gross_margin)

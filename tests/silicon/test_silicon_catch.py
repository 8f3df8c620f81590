"""CATCH's demonstration, computed again to its last printed digit."""

from __future__ import annotations

import numpy as np
import pytest

from infermix.silicon import catch, wafer
from infermix.silicon.papers import published

F = np.float64
LOGIC = {"active": 1, "advanced": 2, "intermediate": 2, "global": 2}
MEMORY = catch.Chip(10, 0, 10, LOGIC, {"ucie": 4, "gpio": 100}, "organic")
CPU = catch.Chip(10, 1, 100, LOGIC, {"ucie": 4, "gpio": 110}, "silicon", (MEMORY,))
GPU = catch.Chip(10, 1, 100, LOGIC, {"ucie": 4, "gpio": 10}, "organic")
SIP = catch.Chip(0, 0, 0, {"substrate": 1, "global": 6}, {}, "silicon", (CPU, GPU))


class TestCatch:
    """CATCH's demonstration: a memory on a CPU, and that beside a GPU, on an interposer."""

    P = published("catch")

    def test_its_printed_cost(self) -> None:
        assert round(catch.unit_usd(SIP, self.P), 5) == 66.18085

    def test_its_parts(self) -> None:
        layers = [catch.layers_usd(chip, "silicon", self.P) for chip in (MEMORY, CPU, GPU, SIP)]
        bonding = [catch.bonding_usd(chip, self.P) for chip in (CPU, SIP)]
        once = catch.once_usd(SIP, self.P) / self.P["units"]
        assert round(once, 3) == 2.072  # 20 mm2 of logic at 100,000 USD, and masks, over a million units
        assert sum(layers) + sum(bonding) + once == pytest.approx(66.18085, abs=5e-6)
        assert bonding[1] == pytest.approx(2 * bonding[0])

    def test_what_asks_for_room(self) -> None:
        """The memory and the GPU hold the most, the CPU and the interposer lie under others, pads bind nowhere."""
        areas = [catch.area_mm2(chip, "silicon", self.P) for chip in (MEMORY, CPU, GPU, SIP)]
        held = [catch.held_mm2(chip, self.P) for chip in (MEMORY, CPU, GPU, SIP)]
        assert (areas[0], areas[2]) == (held[0], held[2])
        assert areas[1] == pytest.approx((np.sqrt(areas[0]) + 0.1 + 0.2) ** 2) and areas[1] > held[1]
        upon = (np.sqrt(areas[1]) + 0.1) ** 2 + (np.sqrt(areas[2]) + 0.1) ** 2
        assert areas[3] == pytest.approx((np.sqrt(upon) + 0.2) ** 2)
        pads = [catch.pads_mm2(chip, "silicon", self.P) for chip in (MEMORY, CPU, GPU, SIP)]
        assert all(pad < area for pad, area in zip(pads, areas, strict=True))

    def test_it_pays_for_no_defect_because_it_tests_nothing(self) -> None:
        """Three units in ten of those 66 USD do not work; tested, as its free tests do, a unit costs 73."""
        assert catch.made(SIP, "silicon", self.P).good == pytest.approx(0.72, abs=0.005)
        tested = published("catch", "tested")
        assert catch.made(SIP, "silicon", tested).good == pytest.approx(1)
        assert catch.unit_usd(SIP, tested) == pytest.approx(73.3, abs=0.05)

    @pytest.mark.parametrize("area", [13.11752, 15.3806, 32.16285, 100.0, 600.0])
    def test_its_count_of_squares_against_squares_that_are_laid_out(self, area: float) -> None:
        found = wafer.squares_from_rim(area, 300, 0.13, 0.1)
        laid = laid_out(area, 149.9, 0.13)
        assert 0.985 * laid <= found <= laid
        side = np.sqrt(F(area))
        exact = float(wafer.dies_grid(side, side, F(300), F(0.13), F(0.1)))
        assert found == pytest.approx(exact, rel=0.01, abs=1)


def laid_out(area: float, radius: float, scribe: float) -> int:
    """Most squares on grids that touch the rim on the left, each square looked at by itself."""
    side = np.sqrt(area)
    pitch, most = side + scribe, 0
    for rows in range(1, int(2 * radius / pitch)):
        left = -np.sqrt(max(radius**2 - ((rows * pitch - scribe) / 2) ** 2, 0))
        x = left + np.arange(int(2 * radius / pitch) + 1) * pitch
        count = int(2 * radius / pitch) + 2
        y = -(rows * pitch - scribe) / 2 + (np.arange(count) - (count - rows) // 2) * pitch
        far_x = np.maximum(x**2, (x + side) ** 2)
        far_y = np.maximum(y**2, (y + side) ** 2)
        most = max(most, int(np.count_nonzero(far_x[:, None] + far_y <= radius**2 + 1e-9)))
    return most

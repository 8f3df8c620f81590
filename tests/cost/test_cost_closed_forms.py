"""Annuities and power against closed forms and the catalogue."""

from __future__ import annotations

from statistics import median

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermix.catalog.load import catalog
from infermix.cost.energy import CHIP_TO_IT, facility_w
from infermix.cost.tco import HOURS_PER_YEAR, annuity_usd_per_hour, energy_usd_per_hour
from infermix.errors import NoAnswer

CAT = catalog()
SERVER_VENDORS = ("NVIDIA", "AMD")


def test_an_annuity_of_round_numbers() -> None:
    assert annuity_usd_per_hour(100.0, 1, 0.0) * HOURS_PER_YEAR == pytest.approx(100.0)
    assert annuity_usd_per_hour(100.0, 1, 0.1) * HOURS_PER_YEAR == pytest.approx(110.0)  # one payment, a year later
    assert annuity_usd_per_hour(1000.0, 2, 0.05) * HOURS_PER_YEAR == pytest.approx(537.8049, abs=1e-4)


@given(capital=st.floats(1.0, 1e8), life=st.integers(1, 20), rate=st.floats(0.001, 0.5, allow_subnormal=False))
def test_payments_of_an_annuity_are_worth_the_capital(capital: float, life: int, rate: float) -> None:
    yearly = annuity_usd_per_hour(capital, life, rate) * HOURS_PER_YEAR
    assert sum(yearly / (1 + rate) ** year for year in range(1, life + 1)) == pytest.approx(capital, rel=1e-9)


@given(capital=st.floats(1.0, 1e8), life=st.floats(0.5, 20.0))
def test_small_interest_meets_straight_line(capital: float, life: float) -> None:
    assert annuity_usd_per_hour(capital, life, 1e-7) == pytest.approx(annuity_usd_per_hour(capital, life, 0), rel=1e-5)


def test_energy() -> None:
    assert energy_usd_per_hour(120_000.0, 0.1) == pytest.approx(12.0)


def test_power_at_the_wall_by_basis() -> None:
    server = CAT.systems["h200-x8"]
    watts = server.power_w.value if server.power_w else 0.0
    assert watts == 10_200

    def wall(basis: str) -> float:
        return facility_w(msgspec.structs.replace(server, power_basis=basis), pue=1.3)

    assert wall("facility") == watts
    assert wall("it") == pytest.approx(1.3 * watts)
    assert wall("chip") == pytest.approx(1.3 * CHIP_TO_IT * watts)


def test_a_system_without_power_is_refused_by_name() -> None:
    with pytest.raises(NoAnswer, match=r"tpu-v5p-x8.*power"):
        facility_w(CAT.systems["tpu-v5p-x8"], 1.2)


def test_chip_to_it_is_the_median_of_the_catalogues_servers() -> None:
    """Eight GPUs in one server that state IT power, over their TDP."""
    ratios = {}
    for server in CAT.systems.values():
        chip = CAT.chips[server.chip]
        if server.chips != 8 or chip.cls != "gpu_hbm" or server.power_basis != "it":
            continue
        if server.power_w is not None and chip.tdp_w is not None:
            ratios[server.id] = server.power_w.value / (8 * chip.tdp_w.value)
    assert len(ratios) >= 5, ratios
    assert median(ratios.values()) == pytest.approx(CHIP_TO_IT, abs=0.05), ratios

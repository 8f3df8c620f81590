"""The cases of the beginnings: sums that the press told, computed from the constants that they hang on."""

from __future__ import annotations

import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.silicon import build, demand, economics
from infermix.silicon.cashflow import lifetime_usd_per_w
from infermix.silicon.chip import real_chips
from infermix.silicon.constants import constants
from infermix.silicon.draw import Draw
from infermix.silicon.serving import training_chips

C = constants()
F = np.float64
BILLION = 1e9
WATTS_PER_GW = 1e9


def v(id_: str) -> np.float64:
    return F(C[id_].value)


class TestBernstein2023:
    """ChatGPT at a tenth of Google's scale."""

    def test_sixteen_billion_a_year_is_a_refresh_of_48_in_three_years(self) -> None:
        found = economics.refreshed_usd_per_year(v("deals/chatgpt/gpus_usd"), v("deals/chatgpt/refresh_years"))
        assert round(float(found) / BILLION, 2) == 16.03

    def test_four_cents_a_query_at_a_tenth_of_googles_queries(self) -> None:
        queries = v("deals/chatgpt/google_queries_per_day") / 10
        found = economics.usd_per_year(queries, v("deals/chatgpt/usd_per_query"), 365)
        assert round(float(found) / BILLION, 1) == 12.4

    def test_queries_that_sixteen_billion_pay_for(self) -> None:
        one = economics.usd_per_year(F(1), v("deals/chatgpt/usd_per_query"), 365)
        assert round(float(16 * BILLION / one) / BILLION, 2) == 1.10

    def test_semianalysis_was_eleven_times_lower(self) -> None:
        query = C["deals/chatgpt/usd_per_query"]
        assert round(query.high / query.low) == 11


def test_a_fleet_of_a100_and_one_of_h100() -> None:
    assert float(v("deals/a100/chips") * v("deals/a100/usd")) / BILLION == 0.25
    price = C["deals/h100/usd"]
    assert [float(v("deals/h100/chips")) * usd / BILLION for usd in (price.low, price.high)] == [1.25, 1.5]


def test_gpt4_on_25_000_a100_in_three_months() -> None:
    assert float(training_chips(280e9, 13e12, 0.34, 95, F(312e12))) == pytest.approx(25_000, rel=0.01)


class TestFabs:
    @pytest.mark.parametrize(
        ("billion", "annual", "each"), [(28, 46_667, 9_333), (20, 33_333, 6_667), (30, 50_000, 10_000)]
    )
    def test_capital_of_a_wafer_written_off_in_five_years(self, billion: float, annual: int, each: int) -> None:
        per_month = F(50_000)
        assert round(billion * BILLION / (50_000 * 12)) == annual
        found = demand.own_wafer_usd(F(billion * BILLION), per_month, v("site/fab/life_years"), F(1))
        assert round(float(found)) == each

    def test_csets_rule_breaks_at_n2(self) -> None:
        consumed = demand.cset_consumed_usd(F(28 * BILLION / 600_000), F(0), v("site/fab/cset_decay"))
        price = float(demand.cset_wafer_usd(consumed, v("site/fab/cset_share")))
        assert price == pytest.approx(47_000, rel=0.01)
        assert price > C["nodes/n2/wafer_usd"].high


class TestPatelOnAGigawattOfRubin:
    def test_passes_of_its_n3_wafers(self) -> None:
        wafers = v("site/rubin/n3_wafers_per_w") * WATTS_PER_GW
        assert round(float(wafers * v("nodes/n3/euv_passes")) / 1e6, 1) == 1.1

    def test_tools(self) -> None:
        yearly = demand.passes_per_tool_year(v("site/euv/passes_per_hour"), v("site/euv/uptime"))
        assert round(float(yearly)) == 591_300
        tools = v("site/rubin/euv_passes_per_w") * WATTS_PER_GW / yearly
        assert round(float(tools), 2) == 3.38
        assert round(1 / float(tools), 3) == 0.296
        assert round(float(v("site/euv/tools_in_2030") / tools)) == 207
        assert round(float(tools * v("site/euv/tool_usd")) / BILLION, 2) == 0.68
        assert round(float(tools * C["site/euv/high_na_tool_usd"].high) / BILLION, 2) == 1.35

    def test_wafers_are_a_thirtieth_of_the_price_of_the_chips(self) -> None:
        wafers_usd = v("site/rubin/n3_wafers_per_w") * WATTS_PER_GW * 20_000
        assert round(float(wafers_usd) / BILLION, 1) == 1.1
        assert float(v("site/rubin/chips_usd_per_w")) * WATTS_PER_GW / BILLION == 35


class TestDeals:
    def test_cerebras_by_the_gigawatt(self) -> None:
        deal = C["deals/cerebras/usd"]
        found = [economics.usd_per_w(F(usd), v("deals/cerebras/watts")) for usd in (deal.low, deal.high)]
        assert [round(float(each) * WATTS_PER_GW / BILLION, 1) for each in found] == [13.3, 26.7]

    def test_ten_gigawatts_at_nvidias_price(self) -> None:
        assert round(float(v("deals/broadcom/watts") * v("site/rubin/chips_usd_per_w")) / BILLION) == 350
        assert round(float(v("deals/amd/watts") * v("site/rubin/chips_usd_per_w")) / BILLION) == 210

    def test_groq_is_forty_times_a_chips_nre(self) -> None:
        assert round(float(v("deals/groq/usd") / v("program/custom_nre_usd"))) == 40


def test_chiplet_clouds_97_times_are_mostly_rent_and_margin() -> None:
    """97 and 18 times against rented GPUs and TPUs, 8.3 and 3.7 against self-made: rent over own cost, 12 and 5.

    Here: what an H100 is rented for, over its parts, its site and its power.
    """
    assert (round(97 / 8.3), round(18 / 3.7)) == (12, 5)
    rent = catalog().systems["h100-x1"].rent_usd_per_hour
    assert rent is not None
    draw = Draw(C)
    unit = float(build.parts(real_chips()["h100-sxm"], draw).total())
    watts = 700 * float(lifetime_usd_per_w(draw)) * C["site/centre/it_over_chip_w"].value
    own = (unit + watts) / (C["site/centre/server_life_years"].value * 8766)
    assert 5 <= rent.value / own <= 12


def test_tpu_v1_a_fleet_that_doubles_unless_a_chip_is_built() -> None:
    """Data centres for 10 billion and more; a chip for hundreds of millions is paid back by a few percent of it."""
    saved = F(10 * BILLION)
    share = economics.break_even_units(F(C["program/custom_nre_usd"].high), F(1), saved, F(0))
    assert float(share) <= 0.1


@pytest.mark.parametrize(
    ("margin", "kappa", "units"),
    [
        (0.50, 1.0, (11.0, 18.4, 36.8)),
        (0.50, 0.6, (26.8, 44.6, 89.3)),
        (0.65, 1.0, (13.8, 23.0, 46.1)),
        (0.65, 0.6, (52.5, 87.5, 175.0)),
    ],
)
def test_break_even_thousands_of_units(margin: float, kappa: float, units: tuple[float, ...]) -> None:
    own = F(6_400 / (1 - margin))
    once = np.array([0.3, 0.5, 1.0]) * BILLION
    found = economics.break_even_units(once, F(kappa), F(40_000), own) / 1e3
    assert found.round(1).tolist() == pytest.approx(units, abs=0.051)
    prices = economics.losing_price_usd(once, F(kappa), own, found * 1e3)
    assert prices.tolist() == pytest.approx([40_000] * 3)


def test_a_chip_that_is_slower_than_it_is_cheap_never_pays() -> None:
    assert float(economics.break_even_units(F(1e9), F(0.3), F(40_000), F(12_800))) == np.inf

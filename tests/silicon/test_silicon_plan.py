"""Designed chips on the market of a plan: they appear beside bought ones, and the choice turns where decide says."""

from __future__ import annotations

from pathlib import Path

import pytest

from infermix.plan.problem import Study, load_study
from infermix.plan.question import ask
from infermix.plan.solve import choose, make_planner
from infermix.silicon.cost import emitted
from infermix.silicon.decide import decide
from infermix.study import plan

EXAMPLES = Path(__file__).parents[2] / "examples" / "silicon"
UNITS, NRE_USD, OWN_USD = 50_000, 400e6, 60_000.0
STUDY = """
name = "own"
model = "llama-3.1-8b"
cost_basis = "own"
[traffic.chat]
profile = "azure-conv-2023"
rate_per_s = {rate}
slo = {{ ttft_s = 2.0, tpot_s = 0.04, attainment = 0.99 }}
[market]
systems = {systems}
own_chips = {chips}
kv = ["bf16"]
{prices}
[cost]
life_years = 4
usd_per_kwh = 0.08
[prove]
seeds = 5
requests_per_class = 1000
"""
DECIDE = """
[need]
units_per_year = 50000
years = 1
[vendor]
price_usd = 60000
power_w = 0
[own]
kappa = {kappa}
unit_usd = {own}
power_w = 0
nre_usd = {nre}
software_usd_per_year = 0
[terms]
discount_rate = 0
[constants]
"program/respin_probability" = 0
"program/tapeout_weeks" = 0
"program/queue_weeks" = 0
"program/osat_weeks" = 0
"program/bringup_weeks" = 0
"nodes/n5/fab_weeks" = 0
"""


def study(
    folder: Path, systems: list[str], prices: dict[str, float], rate: float = 4000.0, chips_each: int = 1
) -> Study:
    text = (EXAMPLES / "cost-hbm.toml").read_text().replace("chips = 8", f"chips = {chips_each}")
    (folder / "hbm.toml").write_text(text)
    (folder / "own-hbm.toml").write_text(emitted(folder / "hbm.toml"))
    (folder / "own-sram.toml").write_text(emitted(EXAMPLES / "cost-own.toml"))
    stated = f"prices = {{ {', '.join(f'{system} = {price}' for system, price in prices.items())} }}" if prices else ""
    chips = '["own-hbm.toml", "own-sram.toml"]'
    names = "[" + ", ".join(f'"{system}"' for system in systems) + "]"
    (folder / "study.toml").write_text(STUDY.format(rate=rate, systems=names, chips=chips, prices=stated))
    return load_study(folder / "study.toml")


def chosen(asked: Study) -> dict[str, int]:
    """Systems of the fleet that plan chooses with simulated capacities."""
    solution = choose(make_planner(ask(asked)))
    assert solution is not None
    found: dict[str, int] = {}
    for choice in solution.choices:
        name = choice.column.option.offer.system.id
        found[name] = found.get(name, 0) + choice.systems
    return found


@pytest.mark.compiled_only
def test_designed_chips_appear_in_a_plan_beside_bought_ones(tmp_path: Path) -> None:
    found = plan(study(tmp_path, ["h200-x8", "own-hbm-x8", "decode-1-x64"], {}, rate=200.0, chips_each=8))
    assert found.status in ("proved", "proved_nominal")
    assert {row.system for row in found.why} == {"h200-x8", "own-hbm-x8", "decode-1-x64"}
    assert any(figure.startswith("chips/own-hbm/") for figure in found.figures) == any(
        pool.system == "own-hbm-x8" for pool in found.fleet
    )


@pytest.mark.compiled_only
def test_the_choice_turns_within_two_percent_of_the_price_that_decide_names(tmp_path: Path) -> None:
    """One system for all: kappa is bought over own systems for the same traffic and promise."""
    bought, own = (sum(chosen(study(tmp_path, [s], {s: 1.0})).values()) for s in ("h200-x1", "own-hbm-x1"))
    kappa = bought / own
    (tmp_path / "decide.toml").write_text(DECIDE.format(kappa=kappa, own=OWN_USD, nre=NRE_USD))
    price = decide(tmp_path / "decide.toml").losing_price_usd
    once = NRE_USD / UNITS
    assert price == pytest.approx((OWN_USD + once) / kappa, rel=1e-6)
    for factor, winner in ((0.98, "h200-x1"), (1.02, "own-hbm-x1")):
        prices = {"h200-x1": price * factor, "own-hbm-x1": OWN_USD + once}
        fleet = chosen(study(tmp_path, list(prices), prices))
        assert max(fleet, key=lambda s: fleet[s] * prices[s]) == winner, (factor, fleet, price)

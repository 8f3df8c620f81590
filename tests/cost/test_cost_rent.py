"""Every way from a catalogue price to dollars by the hour, with the arithmetic done again by hand."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from infermix.catalog.load import catalog
from infermix.catalog.records import System
from infermix.cost.rent import CostBasis, Terms, hourly_price
from infermix.errors import InputError

CAT = catalog()
TERMS: dict[str, Any] = {
    "gross_margin": 0.4, "life_years": 4, "finance_rate": 0.08, "hosting": 0.1, "utilisation": 0.8,
    "usd_per_kwh": 0.08, "pue": 1.25,
}  # fmt: skip


def system(name: str, **changes: Any) -> System:
    return msgspec.structs.replace(CAT.systems[name], **changes)


def rack_by_hand(capital_usd: float, it_kw: float) -> float:
    """What owning costs by the hour under TERMS: 4 years at 8 %, a tenth of hosting, 8 cents a kWh at PUE 1.25."""
    yearly = capital_usd * 0.08 * 1.08**4 / (1.08**4 - 1)
    return float((yearly / 8766 * 1.1 + it_kw * 1.25 * 0.08) / 0.8)


def test_a_rent_stays_as_it_is() -> None:
    price = hourly_price(system("h200-x8"), "rent", Terms(**TERMS))
    assert price.usd_per_hour == 28.0 and price.basis == "rent"
    assert price.figures == ("systems/h200-x8/rent_usd_per_hour",)


def test_an_operators_cost_becomes_a_rent_at_a_margin() -> None:
    price = hourly_price(system("cs3"), "rent", Terms(gross_margin=0.4))
    assert price.usd_per_hour == pytest.approx(41.96 / 0.6, rel=1e-12)
    assert "operator's cost" in price.basis and "40%" in price.basis
    assert price.figures == ("systems/cs3/operator_cost_usd_per_hour",)


def test_capital_becomes_a_rent_through_the_annuity() -> None:
    rack = system("groq-v1-rack")
    assert (rack.power_basis, rack.power_w and rack.power_w.value) == ("it", 27_000)
    price = hourly_price(rack, "rent", Terms(**TERMS))
    assert price.usd_per_hour == pytest.approx(rack_by_hand(1_440_000, 27.0) / 0.6, rel=1e-12)
    assert "capital over 4 years" in price.basis
    assert price.figures == ("systems/groq-v1-rack/capital_usd", "systems/groq-v1-rack/power_w")


def test_owning_takes_the_operators_cost_before_capital_and_capital_before_rent() -> None:
    both = hourly_price(system("cs3"), "own", Terms(**TERMS))
    assert both.usd_per_hour == 41.96 and both.basis == "operator's cost"
    capital = hourly_price(system("groq-v1-rack"), "own", Terms(**TERMS))
    assert capital.usd_per_hour == pytest.approx(rack_by_hand(1_440_000, 27.0), rel=1e-12)
    rented = hourly_price(system("h200-x8", capital_usd=None), "own", Terms(gross_margin=0.25))
    assert rented.usd_per_hour == pytest.approx(21.0) and "from rent less 25%" in rented.basis
    assert rented.figures == ("systems/h200-x8/rent_usd_per_hour",)


def test_a_price_of_the_study_replaces_everything() -> None:
    for basis in ("rent", "own"):
        for name in ("h200-x8", "cs3", "groq-v1-rack", "corsair-x8"):
            price = hourly_price(system(name), basis, Terms(), supplied=12.5)  # type: ignore[arg-type]
            assert (price.usd_per_hour, price.figures) == (12.5, ()) and "stated by the study" in price.basis


def test_an_operators_cost_is_never_taken_as_a_rent() -> None:
    with pytest.raises(InputError, match=r"gross_margin"):
        hourly_price(system("cs3"), "rent", Terms())
    for margin in (0.01, 0.4, 0.7):
        assert hourly_price(system("cs3"), "rent", Terms(gross_margin=margin)).usd_per_hour > 41.96


@pytest.mark.parametrize(
    ("record", "basis", "terms", "must"),
    [
        (system("cs3"), "rent", {}, ["no rent price", "operator_cost_usd_per_hour", "cost.gross_margin"]),
        (system("groq-v1-rack"), "rent", {}, ["no rent price", "capital_usd", "cost.life_years", "cost.usd_per_kwh"]),
        (system("groq-v1-rack"), "rent", {"life_years": 4}, ["cost.usd_per_kwh"]),
        (system("groq-v1-rack"), "rent", {"life_years": 4, "usd_per_kwh": 0.1}, ["cost.gross_margin"]),
        (system("groq-v1-rack"), "own", {"usd_per_kwh": 0.1}, ["no own price", "cost.life_years"]),
        (system("h200-x8", capital_usd=None), "own", {}, ["no own price", "rent_usd_per_hour", "cost.gross_margin"]),
        (system("corsair-x8"), "rent", TERMS, ["no price in the catalogue"]),
        (system("corsair-x8"), "own", TERMS, ["no price in the catalogue"]),
    ],
)
def test_refusals_name_the_system_and_what_to_state(
    record: System, basis: CostBasis, terms: dict[str, Any], must: list[str]
) -> None:
    with pytest.raises(InputError) as told:
        hourly_price(record, basis, Terms(**terms))
    message = str(told.value)
    for part in (*must, f"{record.id}: ", f"[market.prices] {record.id} = USD per hour"):
        assert part in message
    assert "\n" not in message


def test_every_system_of_the_catalogue_has_a_price_or_says_what_is_missing() -> None:
    full = Terms(**TERMS)
    for record in CAT.systems.values():
        for basis in ("rent", "own"):
            has = record.rent_usd_per_hour or record.capital_usd or record.operator_cost_usd_per_hour
            if has:
                assert hourly_price(record, basis, full).usd_per_hour > 0  # type: ignore[arg-type]
            else:
                with pytest.raises(InputError, match=record.id):
                    hourly_price(record, basis, full)  # type: ignore[arg-type]

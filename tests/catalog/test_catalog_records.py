"""The packaged catalogue is whole: every record loads, every figure has a source, derived ones recompute."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import msgspec
import pytest

from infermix.catalog.load import catalog, figures_of
from infermix.catalog.query import figure, roots, shelves
from infermix.catalog.records import SI_UNITS, Figure, System

CAT = catalog()


def every_figure() -> Iterator[tuple[str, Figure]]:
    for part, shelf in shelves(CAT).items():
        for id_, record in shelf.items():
            for name, item in figures_of(record).items():
                yield f"{part}/{id_}/{name}", item


def test_every_record_loads() -> None:
    assert len(list(CAT.chips.values())) >= 100
    assert len(list(CAT.models.values())) >= 39
    assert len(list(CAT.prices.values())) >= 160
    assert len(list(CAT.systems.values())) >= 250
    assert all(source.text for source in CAT.sources.values())


def test_every_figure_has_known_sources_and_the_unit_of_its_field() -> None:
    for id_, item in every_figure():
        assert item.source, id_
        assert all(source in CAT.sources for source in item.source), id_
        assert item.read, id_
        name = id_.rsplit("/", 1)[1]
        if id_.startswith("stacks/"):
            assert item.unit == ("s" if name.endswith("_s") else "1"), id_
        elif not id_.startswith("efficiency/"):
            assert item.unit == SI_UNITS[name], id_


def test_what_nobody_looked_up_is_unverified() -> None:
    for id_, item in every_figure():
        if item.source == ("M",):
            assert item.kind == "unverified", id_
        if item.kind == "unverified":
            assert "M" in item.source or item.note, id_


def test_models_and_texts_name_known_sources() -> None:
    for model in CAT.models.values():
        assert model.source and all(source in CAT.sources for source in model.source)
        assert model.layers == model.moe_layers + model.dense_layers or not model.experts
        assert model.heads % model.kv_heads == 0
    for chip in CAT.chips.values():
        assert chip.source and all(source in CAT.sources for source in chip.source)


def test_figures_of_other_figures_resolve_and_pass_doubt_on() -> None:
    for id_, item in every_figure():
        for base in item.of:
            assert figure(CAT, base)
        doubts = [base for base in roots(CAT, id_) if figure(CAT, base).kind == "unverified"]
        if doubts:
            assert item.kind == "unverified", (id_, doubts)


def _base(system: System, item: Figure) -> float:
    """The system's share of the figures that ``item`` names."""
    bought = system.chips + system.spare_chips
    first = item.of[0].split("/")
    value = figure(CAT, item.of[0]).value
    if first[0] == "prices":
        return value * bought / CAT.prices[first[1]].chips
    if len(item.of) == 2:
        assert item.of[1].endswith("/vendor_system_chips")
        return value * bought / figure(CAT, item.of[1]).value
    return value * bought


@pytest.mark.parametrize("id_", list(CAT.systems))
def test_system_figures_recompute(id_: str) -> None:
    system = CAT.systems[id_]
    assert system.chip in CAT.chips
    for name, item in figures_of(system).items():
        assert math.isclose(_base(system, item), item.value, rel_tol=1e-8), name
        for edge, value in (("low", item.low), ("high", item.high)):
            named = next(
                (word for part in item.note.split("; ") for word in [part] if part.startswith(f"{edge} from ")), ""
            )
            if named:
                source = named.removeprefix(f"{edge} from ").split(",")[0]
                assert value is not None
                again = _base(system, msgspec.structs.replace(item, of=(source,)))
                assert math.isclose(again, value, rel_tol=1e-8), (name, edge)
        if item.low is not None and item.high is not None:
            assert item.low <= item.value <= item.high


def test_price_multiples_recompute() -> None:
    for price in CAT.prices.values():
        if price.price_multiple:
            over, under = (figure(CAT, base).value for base in price.price_multiple.of)
            assert math.isclose(over / under, price.price_multiple.value, abs_tol=0.005), price.id


def test_every_price_states_its_basis() -> None:
    for price in CAT.prices.values():
        assert price.basis in ("rent", "capital", "operator_cost", "api")
        assert (price.capital_usd is not None) == (price.basis == "capital"), price.id
        assert (price.usd_per_hour is not None) == (price.basis in ("rent", "operator_cost")), price.id
        assert not price.chip or price.chip in CAT.chips


def test_a_cost_to_the_operator_is_never_a_rent() -> None:
    assert [p.id for p in CAT.prices.values() if p.basis == "operator_cost"] == ["operator-cost-semianalysis-cs-3"]
    cs3, wse3 = CAT.systems["cs3"], CAT.chips["wse3"]
    assert cs3.rent_usd_per_hour is None and wse3.rent_usd_per_hour is None
    assert cs3.operator_cost_usd_per_hour and cs3.operator_cost_usd_per_hour.value == 41.96
    assert wse3.operator_cost_usd_per_hour and wse3.operator_cost_usd_per_hour.value == 41.96
    assert cs3.capital_usd and (cs3.capital_usd.low, cs3.capital_usd.high) == (1e6, 2e6)
    for system in CAT.systems.values():
        if system.rent_usd_per_hour:
            assert all("operator" not in base for base in system.rent_usd_per_hour.of)


def test_the_groq_rack_serves_fewer_chips_than_it_buys() -> None:
    rack = CAT.systems["groq-v1-rack"]
    assert (rack.chips, rack.spare_chips) == (64, 8)
    assert rack.capital_usd and rack.capital_usd.value == 72 * 20000


@pytest.mark.parametrize("gpu", ["h100", "h200", "b200", "a100-80", "l40s", "mi300x", "mi355x", "gb200"])
def test_rentable_gpus_come_in_four_sizes(gpu: str) -> None:
    rents = [CAT.systems[f"{gpu}-x{n}"].rent_usd_per_hour for n in (1, 2, 4, 8)]
    assert all(rents)
    assert rents[3] and rents[0] and math.isclose(rents[3].value, 8 * rents[0].value)


def test_chips_load_without_heavy_imports() -> None:
    code = (
        "import sys\n"
        "from infermix.catalog.load import catalog\n"
        "chips = catalog().chips\n"
        "chips['h200-sxm'], chips['wse3']\n"
        "assert not {'numba', 'numpy', 'polars'} & set(sys.modules), 'heavy import'\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_a_loaded_record_is_kept() -> None:
    assert CAT.chips["h200-sxm"] is CAT.chips["h200-sxm"]

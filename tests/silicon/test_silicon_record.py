"""A designed chip becomes a record of the catalogue that every other part takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from infermix.catalog.load import catalog, load_own_chip, with_own_chip
from infermix.cli.main import main
from infermix.perf.operating import Load
from infermix.perf.sweep import Refusal, Wish, curves
from infermix.silicon.chip import real_chips
from infermix.silicon.constants import constants
from infermix.silicon.cost import cost, emitted
from infermix.silicon.record import Box, records

EXAMPLES = Path(__file__).parents[2] / "examples" / "silicon"


@pytest.mark.parametrize(
    ("example", "chips", "kind"), [("cost-hbm.toml", 8, "hbm"), ("cost-own.toml", 64, "sram")], ids=["hbm", "sram"]
)
def test_a_designed_chip_is_read_as_a_chip_of_ones_own(example: str, chips: int, kind: str, tmp_path: Path) -> None:
    out = tmp_path / "own.toml"
    with pytest.raises(SystemExit) as left:
        main(["silicon", "cost", str(EXAMPLES / example), "--chip", str(out)])
    assert left.value.code == 0 and out.read_text() == emitted(EXAMPLES / example)
    chip, system = load_own_chip(out)
    found = cost(EXAMPLES / example)
    assert (chip.kind, system.chips) == (kind, chips)
    assert chip.chip_price_usd is not None and found.price_usd is not None
    assert chip.chip_price_usd.value == pytest.approx(found.price_usd)
    assert chip.die_area_m2 is not None and chip.die_area_m2.value == pytest.approx(found.die_mm2 * 1e-6)
    assert system.capital_usd is not None and system.capital_usd.value >= chips * found.price_usd
    facts = with_own_chip(catalog(), chip, system)
    wish = Wish(load=Load(2000, 300))
    told = curves(facts, chip, system, facts.models["llama-3.1-8b"], wish)
    assert not isinstance(told, Refusal) and told[0].tokens_per_s[0] > 10


def test_a_wafer_is_a_system_of_its_own() -> None:
    chip, system = records(real_chips()["wse3"], constants(), Box())
    assert (chip.cls, system.chips, chip.efficiency) == ("wafer", 1, "wafer")

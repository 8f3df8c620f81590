"""The hardware people buy or rent: every chip can be had as a system or says why it cannot be judged."""

from __future__ import annotations

import csv
import math
import os
from collections import defaultdict
from pathlib import Path

import pytest

from infermix.catalog.load import Shelf, canonical, catalog, figures_of
from infermix.catalog.query import figure, find_chip, find_system
from infermix.catalog.records import KINDS_OF_CHIP, Chip, System

CAT = catalog()
SHARED = Path(os.environ.get("INFERMIX_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
MEASURED = SHARED / "measurements.csv"

CLOUD_NAMES = {
    "p4d.24xlarge": "a100-40-x8",
    "p4de.24xlarge": "a100-80-x8",
    "p5.48xlarge": "h100-x8",
    "p5e.48xlarge": "h200-x8",
    "p5en.48xlarge": "h200-x8",
    "p6-b200.48xlarge": "b200-x8",
    "p6-b300.48xlarge": "b300-x8",
    "a3-highgpu-8g": "h100-x8",
    "ND H100 v5": "h100-x8",
    "DGX H100": "h100-x8",
    "HGX H200": "h200-x8",
    "DGX B200": "b200-x8",
    "DGX Spark": "gb10-x1",
    "ct6e-standard-8t": "tpu-v6e-x8",
    "v5p-8": "tpu-v5p-x4",
    "trn1.32xlarge": "trn1-x16",
    "trn2.48xlarge": "trn2-x16",
    "inf2.48xlarge": "inf2-x12",
    "dl2q.24xlarge": "qaic100-std-x8",
    "GB200 NVL72": "gb200-nvl72",
    "CloudMatrix 384": "cloudmatrix-384",
    "SambaRack SN40L-16": "sn40l-rack",
    "GroqRack": "groq-v1-rack",
}


def test_every_chip_has_a_system_or_says_why_not() -> None:
    built = {system.chip for system in CAT.systems.values()}
    for chip in CAT.chips.values():
        assert chip.id in built or chip.no_speed, chip.id
        if chip.no_speed:
            assert chip.no_speed.endswith(".") and chip.no_speed.count(". ") == 0, chip.id


def test_every_chip_that_can_be_judged_has_a_family() -> None:
    for chip in CAT.chips.values():
        assert chip.cls in KINDS_OF_CHIP
        assert not chip.efficiency or chip.efficiency in CAT.efficiencies, chip.id
        assert chip.efficiency or chip.no_speed, chip.id


@pytest.mark.parametrize("id_", [chip.id for chip in CAT.chips.values() if not chip.no_speed and not chip.only_models])
def test_a_chip_with_a_speed_has_the_figures_of_its_machine(id_: str) -> None:
    chip = CAT.chips[id_]
    assert chip.bf16_flop_per_s or chip.fp8_flop_per_s or chip.int8_op_per_s
    if CAT.efficiencies[chip.efficiency].machine == "pipeline":
        assert chip.sram_bytes and chip.sram_bytes_per_s
    else:
        assert chip.mem_bytes and chip.mem_bytes_per_s
    several = [system for system in CAT.systems.values() if system.chip == id_ and system.chips > 1]
    assert chip.link_bytes_per_s or not several


def test_hardwired_chips_name_models_that_there_are() -> None:
    assert CAT.chips["taalas-hc1"].only_models == ("llama-3.1-8b",)
    for chip in CAT.chips.values():
        assert all(model in CAT.models for model in chip.only_models)


@pytest.mark.parametrize("shelf", [CAT.chips, CAT.systems], ids=["chips", "systems"])
def test_no_spelling_hits_two_records(shelf: Shelf[Chip] | Shelf[System]) -> None:
    hits: dict[str, set[str]] = defaultdict(set)
    for spelling, id_ in shelf.spellings():
        hits[spelling].add(id_)
    assert not {spelling: ids for spelling, ids in hits.items() if len(ids) > 1}
    for record in shelf.values():
        aliases = [canonical(alias) for alias in record.aliases]
        assert len(set(aliases)) == len(aliases)
        assert canonical(record.id) not in aliases


def test_every_chip_that_was_measured_is_known() -> None:
    if not MEASURED.exists():
        pytest.skip(f"{MEASURED} is not there; set INFERMIX_SHARED_DATA to the folder of the measurements")
    with MEASURED.open(encoding="utf-8", newline="") as lines:
        spelled = {row["chip"] for row in csv.DictReader(lines)}
    assert len(spelled) >= 20
    for name in spelled:
        chip = find_chip(name)
        assert not chip.no_speed, name
    assert find_chip("A100-40G") != find_chip("A100-80G")
    assert find_chip("H100-SXM-powercap") != find_chip("H100-SXM")
    assert find_chip("GH200").id == "gh200-96"


@pytest.mark.parametrize(("name", "id_"), CLOUD_NAMES.items())
def test_clouds_and_makers_names_are_understood(name: str, id_: str) -> None:
    assert find_system(name).id == id_


def test_what_systems_and_prices_refer_to_is_there() -> None:
    for system in CAT.systems.values():
        assert system.chip in CAT.chips and system.chips >= 1
        for name, item in figures_of(system).items():
            assert item.of, (system.id, name)
            assert all(figure(CAT, base) for base in item.of)
        assert (system.rent_usd_per_hour is None) or system.rent_usd_per_hour.of[0].startswith(("prices/", "chips/"))
    for price in CAT.prices.values():
        assert price.basis == "api" or price.chip in CAT.chips, price.id


def test_rents_look_like_the_offers_of_their_chip() -> None:
    """A system's rent a chip lies within what the offers of that chip span."""
    offers: dict[str, list[float]] = defaultdict(list)
    for price in CAT.prices.values():
        if price.basis == "rent" and price.usd_per_hour:
            offers[price.chip].append(price.usd_per_hour.value / price.chips)
    for system in CAT.systems.values():
        if system.rent_usd_per_hour and offers[system.chip]:
            each = system.rent_usd_per_hour.value / (system.chips + system.spare_chips)
            assert min(offers[system.chip]) * 0.999 <= each <= max(offers[system.chip]) * 1.001, system.id


def test_systems_fit_their_link_domain_or_say_what_they_are() -> None:
    """Chips of one system speak over one scale-up domain; cards behind PCIe and slices of a torus may outnumber it."""
    loose = {"gpu_hbm", "riscv_gddr"}
    for system in CAT.systems.values():
        chip = CAT.chips[system.chip]
        domain = chip.link_domain_chips
        if domain and chip.cls not in loose and system.chips > domain.value:
            assert system.note or "rack" in system.id, system.id
        assert chip.cls != "soc_unified" or system.chips <= 2, system.id


def test_power_is_plausible_for_its_chips() -> None:
    for system in CAT.systems.values():
        chip = CAT.chips[system.chip]
        if system.power_w and chip.tdp_w and chip.kind != "other":
            ratio = system.power_w.value / ((system.chips + system.spare_chips) * chip.tdp_w.value)
            assert 0.95 <= ratio <= 2.6 or system.power_basis != "chip", (system.id, ratio)
            assert ratio <= 3.5, (system.id, ratio)
        assert (system.power_w is None) or system.power_basis in ("chip", "it", "facility")


def test_links_are_one_direction() -> None:
    """NVLink and PCIe rates that the name of the link gives away."""
    each = {"NVLink3": 300e9, "NVLink4": 450e9, "NVLink5": 900e9}
    for chip in CAT.chips.values():
        for name, rate in each.items():
            if name in chip.link and chip.link_bytes_per_s:
                assert math.isclose(chip.link_bytes_per_s.value, rate), chip.id


def test_gpus_come_in_sizes() -> None:
    """Whoever rents out eight of a GPU rents out fewer; AWS leaves out two of its A10G."""
    eights = [
        id_ for id_, system in CAT.systems.items() if id_.endswith("-x8") and CAT.chips[system.chip].kind == "hbm"
    ]
    gpus = [id_[:-3] for id_ in eights if CAT.chips[CAT.systems[id_].chip].cls == "gpu_hbm"]
    assert len(gpus) >= 35
    for prefix in gpus:
        sizes = (1, 4, 8) if prefix == "a10g" else (1, 2, 4, 8)
        assert all(CAT.systems[f"{prefix}-x{n}"].chips == n for n in sizes), prefix

"""Nothing of the background tables was lost on the way into the catalogue."""

from __future__ import annotations

import csv
import math
import os
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from infermix.catalog.load import catalog, figures_of
from infermix.catalog.records import Figure, Price

SHARED = Path(os.environ.get("INFERMIX_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CAT = catalog()
DATA = files("infermix.catalog") / "data"

CHIP = {  # column: field and SI per unit of the column
    "compute_dies": ("compute_dies", 1),
    "die_area_mm2": ("die_area_m2", 1e-6),
    "transistors_b": ("transistors", 1e9),
    "tdp_w": ("tdp_w", 1),
    "bf16_tflops": ("bf16_flop_per_s", 1e12),
    "fp8_tflops": ("fp8_flop_per_s", 1e12),
    "int8_tops": ("int8_op_per_s", 1e12),
    "fp4_tflops": ("fp4_flop_per_s", 1e12),
    "sram_mb": ("sram_bytes", 1e6),
    "sram_bw_tbs": ("sram_bytes_per_s", 1e12),
    "mem_gb": ("mem_bytes", 1e9),
    "mem_bw_tbs": ("mem_bytes_per_s", 1e12),
    "scaleup_gbs_dir": ("link_bytes_per_s", 1e9),
    "scaleup_domain": ("link_domain_chips", 1),
    "hop_latency_us": ("hop_s", 1e-6),
    "scaleout_gbps_per_chip": ("scaleout_bytes_per_s", 1e9 / 8),
    "chips_per_system": ("vendor_system_chips", 1),
    "system_power_kw": ("vendor_system_power_w", 1e3),
    "chip_price_usd": ("chip_price_usd", 1),
    "system_price_usd": ("vendor_system_price_usd", 1),
    "rent_usd_h_low": ("rent_low_usd_per_hour", 1),
    "rent_usd_h_typ": ("rent_usd_per_hour", 1),
}
SAME = {"name": "name", "vendor": "vendor", "cls": "cls", "year": "year", "process_node": "process_node"}
SAME |= {"foundry": "foundry", "mem_type": "mem_type", "scaleup": "link", "confidence": "confidence"}
RESTATED = {"status": "status", "sram_kind": "sram_kind", "mem2": "mem2", "system": "vendor_system", "supply": "supply"}
RESTATED |= {"inference_mapping": "inference_mapping", "measured_notes": "note"}
PRICE = {
    "price_usd_h": "usd_per_hour",
    "capex_usd": "capital_usd",
    "price_in_mtok": "input_usd_per_mtok",
    "price_out_mtok": "output_usd_per_mtok",
    "standard_in": "standard_input_usd_per_mtok",
    "standard_out": "standard_output_usd_per_mtok",
    "price_mult_out": "price_multiple",
    "speed_tok_s": "speed_tokens_per_s",
}
LATER = {  # cells that were blank, and the catalogue fills
    *((chip, "scaleup_gbs_dir") for chip in ("mtia-300", "mtia-400", "mtia-450", "mtia-500", "mtia-v1", "mtia-v2")),
    *((chip, "scaleup_gbs_dir") for chip in ("sn40l", "sn50", "qaic100-std", "qaic100-ultra")),
    *((chip, "scaleup_domain") for chip in ("mtia-300", "mtia-v1", "mtia-v2", "qaic100-std", "qaic100-ultra")),
    *((chip, "fp8_tflops") for chip in ("tpu-8i", "tpu-8t")),
    ("sn50", "chips_per_system"),
    ("rubin-cpx", "fp4_tflops"),
}
LATER_OFFERS = {
    "MI355P",
    "LAMF",
    "GPUNVL",
    "AWSPL",
    "AWSNEU",
    "GTPU",
    "SKYL",
    "HYPER",
    "JARVIS",
    "RPDOC",
    "DBASE",
    "CAPM",
    "SPARK",
    "MFIT",
    "AWP150",
    "HWLUXX",
}
PRICE_TEXT = ("item", "date", "note", "speed_basis", "speed_mult")


@cache
def table(name: str) -> list[dict[str, str]]:
    path = SHARED / f"{name}.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there; set INFERMIX_SHARED_DATA to the folder of the background tables")
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def numbers(text: str) -> set[float]:
    plain = re.sub(r"(?<=\d),(?=\d{3})", "", text).replace("..", " ")
    return {float(word) for word in re.findall(r"\d+(?:\.\d+)?|\.\d+", plain)}


def missing(cell: str, kept: str) -> set[float]:
    """Numbers of a cell that occur nowhere in the record, not even in thousands or thousandths."""
    there = numbers(kept)
    scaled = there | {x * 1000 for x in there} | {x / 1000 for x in there}
    return {x for x in numbers(cell) if not any(math.isclose(x, y) for y in scaled)}


def test_every_number_of_a_chip_is_there_in_si() -> None:
    for row in table("chips"):
        chip = CAT.chips[row["id"].replace("_", "-")]
        for column, (field, scale) in CHIP.items():
            cell = row[column]
            if (chip.id, column) == ("wse3", "rent_usd_h_typ"):
                field = "operator_cost_usd_per_hour"  # noqa: PLW2901
            item: Figure | None = getattr(chip, field)
            if not cell:
                assert item is None or (chip.id, column) in LATER, (chip.id, field)
            elif (chip.id, column) == ("a100-40-sxm", "rent_usd_h_low"):
                assert item is None  # no offer was ever that low
            elif (chip.id, column) == ("rubin-cpx", "fp4_tflops"):
                assert item and item.high == float(cell) * scale and item.kind == "unverified"  # that rate is sparse
            elif (chip.id, column) == ("wse3", "scaleup_domain"):
                assert item is None and cell in chip.note
            elif (chip.id, column) == ("mtia-500", "mem_gb"):
                assert item and (item.low, item.value, item.high) == (384e9, 448e9, 512e9)
            else:
                assert item and math.isclose(item.value, float(cell) * scale), (chip.id, field)


def test_every_text_of_a_chip_is_there() -> None:
    for row in table("chips"):
        chip = CAT.chips[row["id"].replace("_", "-")]
        kept = (DATA / "chips" / f"{chip.id}.toml").read_text(encoding="utf-8")
        for column, field in SAME.items():
            assert getattr(chip, field) == row[column], (chip.id, field)
        for column, field in RESTATED.items():
            assert bool(getattr(chip, field)) == bool(row[column]) or field == "note", (chip.id, field)
            assert not missing(row[column], kept), (chip.id, field, missing(row[column], kept))
        assert not missing(row["estimate_fields"], kept), chip.id
        assert set(re.findall(r"\bS\d+b?\b|\bM\b", row["sources"])) <= set(chip.source)


def test_recalled_chip_figures_are_unverified_and_no_others() -> None:
    for row in table("chips"):
        chip = CAT.chips[row["id"].replace("_", "-")]
        said = row["memory_fields"]
        words = {"prices": "chip_price_usd system_price_usd", "die": "compute_dies die_area_mm2 transistors_b"}
        named = set(re.sub(r"\([^)]*\)", "", " ".join(words.get(w, w) for w in said.split(";"))).split())
        if said.lower().startswith("all"):
            spared = {"bf16_tflops", "fp8_tflops", "int8_tops", "fp4_tflops"} if "peaks" in said else set()
            spared |= {"mem_bw_tbs"} if "but mem" in said or "except mem" in said else set()
            spared |= {"mem_gb"} if "but mem_gb" in said else set()
            named = set(CHIP) - spared
        for column, (field, _) in CHIP.items():
            item = getattr(chip, field)
            looked_up = item and not any(re.fullmatch(r"M|S\d+b?", source) for source in item.source)
            if item and (chip.id, column) not in LATER and not looked_up:
                assert (item.kind == "unverified") == (column in named), (chip.id, field)


def _matches(price: Price, row: dict[str, str]) -> bool:
    figures = figures_of(price)
    expected = {field: float(row[column]) for column, field in PRICE.items() if row[column]}
    if row["tier"] == "range":
        return price.tier.startswith("range") and row["item"] == price.item
    if price.provider != row["provider"].strip("()") or set(expected) != set(figures):
        return False
    tiers = {row["tier"], {"cost not price": "cost to its operator"}.get(row["tier"], "")}
    same = price.item == row["item"] or "(" in row["item"] or price.basis == "operator_cost"
    return same and price.tier in tiers and all(math.isclose(figures[f].value, v) for f, v in expected.items())


def test_every_price_is_there_once() -> None:
    left = dict(CAT.prices)
    for row in table("prices"):
        found = [price for price in left.values() if _matches(price, row)]
        assert found, row
        price = left.pop(found[0].id)
        basis = {"rental": "rent", "capex": "capital", "api": "api"}[row["kind"]]
        assert price.basis == ("operator_cost" if row["tier"] == "cost not price" else basis)
        kept = msgspec.json.encode(price).decode()
        for column in PRICE_TEXT:
            assert not missing(row[column], kept), (price.id, column, missing(row[column], kept))
        assert price.confidence == row["confidence"]
        if "(memory" in row["source"]:
            assert all(item.kind == "unverified" for item in figures_of(price).values())
        cited = {source for item in figures_of(price).values() for source in item.source}
        said = {"S51"} if price.id == "capital-dgx-b200" else set(re.findall(r"\bS\d+b?\b", row["source"]))
        assert said & cited or "(memory" in row["source"]
    for price in left.values():
        assert all(set(item.source) <= LATER_OFFERS for item in figures_of(price).values()), price.id


def test_ranges_without_a_number_keep_both_ends() -> None:
    ends = {"A100-80": (0.8, 3.0), "H100 SXM": (1.99, 5.0), "H200": (2.5, 7.0)}
    ranges = [price for price in CAT.prices.values() if price.tier.startswith("range")]
    assert {price.item for price in ranges} == set(ends)
    for price in ranges:
        item = price.usd_per_hour
        assert item and (item.low, item.high) == ends[price.item] and item.kind == "derived"
        assert math.isclose(item.value, sum(ends[price.item]) / 2)

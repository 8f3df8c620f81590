"""A designed chip as an ordinary record of the catalogue, with a price, for ``perf``, ``simulate`` and ``plan``."""

from __future__ import annotations

from typing import Any

import msgspec

from infermix.catalog.parse import check_keys, convert, record
from infermix.catalog.records import Chip as ChipRecord
from infermix.catalog.records import System as SystemRecord
from infermix.errors import InputError
from infermix.silicon import build, package
from infermix.silicon.chip import Chip
from infermix.silicon.constants import Constants
from infermix.silicon.draw import Draw, exact

FAMILIES = {"asic_hbm": "asic-hbm", "sram_asic": "groq", "wafer": "wafer"}
"""Family whose measured efficiencies a designed chip takes: announced chips with HBM, Groq's, Cerebras's."""
EIGHT_BIT = 2
"""8-bit arithmetic is twice as fast as 16-bit on every chip of the catalogue's last two generations."""
HBM_CHIPS, SRAM_CHIPS = 8, 64
"""Chips of a system: servers of eight, racks of Groq's size."""


class Box(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The system that chips are built into."""

    chips: int | None = None
    usd: float = 0
    """Of everything beside the chips."""


def read_box(said: Any, where: str) -> Box:
    """The ``[system]`` table of a file."""
    if said is None:
        return Box()
    if not isinstance(said, dict):
        raise InputError("not a table", where=where, value=said)
    check_keys(said, Box.__struct_fields__, where)
    box = convert(Box, said, where)
    if box.chips is not None and box.chips < 1:
        raise InputError("chips must be 1 or more", where=f"{where}.chips", value=box.chips)
    if box.usd < 0:
        raise InputError("usd must not be negative", where=f"{where}.usd", value=box.usd)
    return box


def price_usd(chip: Chip, draw: Draw) -> tuple[float, str]:
    """Price of a unit: its parts, with the stated margin where there is one."""
    parts = build.parts(chip, draw).total()
    if chip.gross_margin is None:
        return float(parts), "parts, without a margin"
    return float(package.price_usd(parts, exact(chip.gross_margin))), f"parts at a margin of {chip.gross_margin:.1%}"


def class_of(chip: Chip) -> str:
    """The catalogue's class of such a chip."""
    return "asic_hbm" if chip.stacks else "wafer" if chip.wafer_scale else "sram_asic"


def raw_records(chip: Chip, table: Constants, box: Box, price: float | None = None) -> dict[str, dict[str, Any]]:
    """The ``[chip]`` and ``[system]`` tables of a user's own chip, in the catalogue's units."""
    draw = Draw(table)
    made, run = build.dies(chip, draw), build.speeds(chip, draw)
    watts = chip.tdp_w if chip.tdp_w is not None else None if run.power_w is None else float(run.power_w)
    if watts is None:
        raise InputError("no power is known", where="chip.tdp_w", mend="state it")
    each, basis = (price, "as stated") if price is not None else price_usd(chip, draw)
    kind = class_of(chip)
    count = box.chips or (HBM_CHIPS if chip.stacks else 1 if chip.wafer_scale else SRAM_CHIPS)
    name = chip.id or "-".join("".join(c if c.isalnum() else " " for c in chip.name.lower()).split()) or "own"
    figures = {
        "compute_dies": (chip.dies, "1"),
        "die_area_m2": (float(made.die_mm2) * chip.dies, "mm2"),
        "tdp_w": (watts, "W"),
        "bf16_flop_per_s": (chip.tflops, "TFLOP/s"),
        "fp8_flop_per_s": (EIGHT_BIT * chip.tflops, "TFLOP/s"),
        "int8_op_per_s": (EIGHT_BIT * chip.tflops, "TOP/s"),
        "sram_bytes": (chip.sram_mb, "MB"),
        "sram_bytes_per_s": (float(run.sram_bytes_per_s) / build.TERA, "TB/s"),
        "mem_bytes": (float(run.hbm_bytes) / build.GIGA, "GB"),
        "mem_bytes_per_s": (float(run.hbm_bytes_per_s) / build.TERA, "TB/s"),
        "link_bytes_per_s": (float(run.link_bytes_per_s) / build.GIGA, "GB/s"),
        "link_domain_chips": (count, "chips"),
        "chip_price_usd": (each, "USD"),
    }
    told = {"id": name, "name": chip.name or name, "vendor": "own", "cls": kind, "status": "designed",
            "efficiency": FAMILIES[kind], "process_node": chip.node.upper(), "mem_type": chip.hbm.upper(),
            "note": f"Designed with infermix silicon; price: {basis}."}  # fmt: skip
    power = count * watts * float(draw("site/centre/it_over_chip_w"))
    system = {
        "id": f"{name}-x{count}",
        "chips": count,
        "power_basis": "it",
        "power_w": _figure(power, "W"),
        "capital_usd": _figure(count * each + box.usd, "USD"),
    }
    kept = {key: _figure(*value) for key, value in figures.items() if value[0]}
    return {"chip": {**told, **kept}, "system": system}


def _figure(value: float, unit: str) -> dict[str, Any]:
    return {"value": value, "unit": unit}


def records(chip: Chip, table: Constants, box: Box, price: float | None = None) -> tuple[ChipRecord, SystemRecord]:
    """The chip and its system as records, figures marked as a user's own."""
    raw = raw_records(chip, table, box, price)
    own = {"source": ["own"], "kind": "unverified", "read": ""}
    full = {
        key: {name: {**item, **own} if isinstance(item, dict) else item for name, item in said.items()}
        for key, said in raw.items()
    }
    made = record(ChipRecord, full["chip"], "designed chip")
    shared = {"name": made.name, "vendor": made.vendor, "chip": made.id}
    return made, record(SystemRecord, {**shared, **full["system"]}, "designed system")


def as_toml(raw: dict[str, dict[str, Any]]) -> str:
    """The tables as a file that ``[market] own_chips`` reads."""
    lines = []
    for table, said in raw.items():
        lines.append(f"[{table}]")
        for key, item in said.items():
            if isinstance(item, dict):
                lines.append(f'{key} = {{ value = {item["value"]!r}, unit = "{item["unit"]}" }}')
            else:
                lines.append(f"{key} = {msgspec.json.encode(item).decode()}")
        lines.append("")
    return "\n".join(lines)

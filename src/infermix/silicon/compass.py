"""LLMCompass's area model of GPU-like dies, for its published designs only (Zhang and others, ISCA 2024).

Its areas are counts of transistors over the density of the node, with PHYs that do not shrink. Its caches hold tags
and network too: for scratch-pad SRAM they come out five times too large, so ``die.core_mm2`` is used elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

LARGEST_BANK_BITS, SMALLEST_BANK_BITS = 19, 12
"""Caches are built of banks of 2^19 bytes; the smallest has 2^12."""
BITS_PER_BYTE = 8


class Core(NamedTuple):
    """A core as LLMCompass describes it."""

    sublanes: int
    array_width: int
    array_height: int
    lanes: int
    int32: int
    fp32: int
    fp64: int
    register_files: int
    registers: int
    register_bits: int
    ports: int
    buffer_bytes: int


class Die(NamedTuple):
    """A die as LLMCompass describes it: equal cores and what surrounds them."""

    node: str
    cores: int
    core: Core
    buffer_bytes: int
    memory: str
    memory_units: int
    link: str
    links: int


def cache_mm2(size_bytes: int, bit_mm2: float, p: Mapping[str, float]) -> float:
    """Area of a cache made of banks, with the area efficiency that CACTI gives to a bank."""
    bank: int = min(max(size_bytes, 2**SMALLEST_BANK_BITS), 2**LARGEST_BANK_BITS)
    banks = max(math.ceil(size_bytes / 2**LARGEST_BANK_BITS), 1)
    efficiency = p[f"cache_efficiency_{math.ceil(math.log2(bank))}"]
    return float(banks * bank * BITS_PER_BYTE * bit_mm2 / efficiency)


def registers_mm2(core: Core, density: float, p: Mapping[str, float]) -> float:
    """Area of a sublane's register files: a polynomial in registers, bits and ports at 90 nm, scaled by density."""
    d, w, ports = core.registers, core.register_bits, core.ports
    um2 = p["regfile_c"] + p["regfile_d"] * d + p["regfile_w"] * w + p["regfile_p"] * ports
    um2 += p["regfile_dw"] * d * w + p["regfile_dd"] * d**2 + p["regfile_ww"] * w**2 + p["regfile_pp"] * ports**2
    um2 += p["regfile_dp"] * d * ports + p["regfile_wp"] * w * ports
    return core.register_files * um2 / 10**6 * p["logic_density_90nm"] / density


def core_parts_mm2(die: Die, p: Mapping[str, float]) -> dict[str, float]:
    """Area of one core by part: control, vector units, systolic arrays, registers, buffer."""
    core, density = die.core, p[f"logic_density_{die.node}"]
    fp32 = p["fpu64"] * (p["mantissa32"] / p["mantissa64"]) ** 2
    fp16 = p["fpu64"] * (p["mantissa16"] / p["mantissa64"]) ** 2
    vector = core.int32 * p["int32"] + core.fp32 * fp32 + core.fp64 * p["fpu64"]
    return {
        "control": core.sublanes * core.lanes * p["control"] / density,
        "vector": core.sublanes * vector / density,
        "array": core.sublanes * core.array_width * core.array_height * fp16 / density,
        "registers": core.sublanes * registers_mm2(core, density, p),
        "buffer": cache_mm2(core.buffer_bytes, p[f"sram_bit_{die.node}"], p),
    }


def die_parts_mm2(die: Die, p: Mapping[str, float]) -> dict[str, float]:
    """Area of a die by part: PHYs as they are, controllers and crossbar by density."""
    density = p[f"logic_density_{die.node}"]
    return {
        "cores": die.cores * sum(core_parts_mm2(die, p).values()),
        "crossbar": die.cores * p["crossbar"] / density,
        "buffer": cache_mm2(die.buffer_bytes, p[f"sram_bit_{die.node}"], p),
        "memory_phys": die.memory_units * p[f"{die.memory}_phy"],
        "memory_control": die.memory_units * p[f"{die.memory}_control"] / density,
        "link_phys": die.links * p[f"{die.link}_phy"],
        "link_control": die.links * p[f"{die.link}_control"] / density,
    }


def compute_mm2(die: Die, p: Mapping[str, float]) -> float:
    """Area of all cores with their crossbar."""
    parts = die_parts_mm2(die, p)
    return parts["cores"] + parts["crossbar"]


def io_mm2(die: Die, p: Mapping[str, float]) -> float:
    """Area of the shared buffer, and of memory and link interfaces."""
    return sum(die_parts_mm2(die, p).values()) - compute_mm2(die, p)

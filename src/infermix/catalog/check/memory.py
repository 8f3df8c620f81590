"""Memory: capacity and bandwidth must be those of a whole number of parts of the stated type."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from infermix.catalog.check.facts import Facts
from infermix.catalog.check.fault import Fault, said
from infermix.catalog.records import Chip


class Part(NamedTuple):
    """A kind of memory: the sizes and rates of one stack (HBM) or one 32-bit device (GDDR)."""

    sizes_gbyte: tuple[int, ...]
    least_gbyte_per_s: float
    most_gbyte_per_s: float
    most_parts: int


PARTS = {
    "HBM4E": Part((32, 36, 48, 64), 2000, 4100, 16),
    "HBM4": Part((24, 32, 36, 48, 64), 1500, 3000, 16),
    "HBM3E": Part((16, 24, 36), 720, 1240, 8),
    "HBM3": Part((16, 24), 400, 845, 8),
    "HBM2E": Part((8, 16), 350, 475, 8),
    "HBM2": Part((4, 8), 200, 320, 6),
    "HBM": Part((4, 8, 16, 24, 32, 36, 48, 64), 200, 4100, 16),
    "GDDR7": Part((2, 3, 4), 45, 132, 32),
    "GDDR6X": Part((1, 2), 36, 96, 24),
    "GDDR6": Part((1, 2), 24, 82, 32),
}
"""JEDEC pin rates times width (1,024 bits a stack, 2,048 from HBM4 on; 32 bits a GDDR device, 16 where two share a
channel): HBM2 to 2.5 Gbit/s, HBM2E 3.7, HBM3 6.6, HBM3E 9.7, HBM4 11.7, HBM4E 16; GDDR6 20.5, GDDR6X 24, GDDR7 33.
The least rate is that of the slowest product of the kind. Packages have carried at most 6 HBM2 stacks, 8 until
HBM3E, 16 announced since."""

LPDDR_GBIT_PER_S = {"LPDDR4X": (3.2, 4.3), "LPDDR5X": (6.0, 10.7), "LPDDR5": (5.4, 6.5)}
LPDDR_WIDTHS = tuple(64 * n for n in range(1, 17))
"""Bits: channels of 64 up to the 1,024 of the widest laptop and server packages."""

USABLE = (0.87, 1.08)
"""Vendors switch off up to an eighth of a stack (MI325X, B200); the upper end is GiB counted in GB."""

SWEEP_S = {"HBM": (8e-3, 60e-3), "GDDR": (12e-3, 150e-3), "LPDDR": (50e-3, 2.5), "DDR": (0.2, 30.0)}
"""Seconds to read the whole memory once."""
SRAM_SWEEP_S = {"machine": (0.5e-6, 30e-6), "cache": (0.3e-6, 300e-6)}
_TYPE = re.compile(r"\b(HBM(?:4E|4|3E|3|2E|2)?|GDDR(?:7|6X|6)|LPDDR(?:4X|5X|5)|DDR[45])\b")
_STACKS = re.compile(r"\b(\d+)\s*(?:x\s*(\d+)\s*GB|stacks)")


def type_of(chip: Chip) -> str:
    """Kind of memory as the table names it, such as ``HBM3E``; empty where none is stated.

    >>> from infermix.catalog.load import catalog
    >>> type_of(catalog().chips["h200-sxm"])
    'HBM3E'
    """
    found = _TYPE.search(chip.mem_type.upper())
    return found[1] if found else ""


def parts_explain_capacity_and_bandwidth(facts: Facts) -> Iterator[Fault]:
    """Stacks come in sizes and pin rates: n of them must give the capacity *and* the bandwidth.

    So Gbit taken for GB, both directions counted, or the capacity of a sister chip leave no n that fits.
    """
    for id_, chip in facts.chips.items():
        part = PARTS.get(type_of(chip))
        size, rate = chip.mem_bytes, chip.mem_bytes_per_s
        if part is None or not size or not rate or not size.value or _counts(chip, part):
            continue
        yield facts.fault(
            "parts_explain_capacity_and_bandwidth",
            f"chips/{id_}",
            "mem_bytes_per_s",
            f"no number of {type_of(chip)} parts holds {said(size)} at this rate",
            value=rate,
            allowed=f"n parts of {'/'.join(map(str, part.sizes_gbyte))} GB with {part.least_gbyte_per_s:g} to "
            f"{part.most_gbyte_per_s:g} GB/s each, n up to {part.most_parts}",
            mend="check capacity, bandwidth and mem_type",
            others=(f"chips/{id_}/mem_bytes",),
        )


def _counts(chip: Chip, part: Part) -> list[int]:
    """Numbers of parts that give capacity and bandwidth, of the stated number where there is one."""
    assert chip.mem_bytes and chip.mem_bytes_per_s
    low, high = chip.mem_bytes.low or chip.mem_bytes.value, chip.mem_bytes.high or chip.mem_bytes.value
    rate = chip.mem_bytes_per_s.value / 1e9
    stated = _STACKS.search(chip.mem_type)
    numbers = [int(stated[1])] if stated else range(1, part.most_parts + 1)
    sizes = [int(stated[2])] if stated and stated[2] else part.sizes_gbyte
    return [
        number
        for number in numbers
        if number * part.least_gbyte_per_s <= rate <= number * part.most_gbyte_per_s
        and any(low <= USABLE[1] * number * each * 1e9 and high >= USABLE[0] * number * each * 1e9 for each in sizes)
    ]


def lpddr_has_a_width(facts: Facts) -> Iterator[Fault]:
    """LPDDR runs at its pin rate on a whole number of 64-bit channels."""
    for id_, chip in facts.chips.items():
        pins, rate = LPDDR_GBIT_PER_S.get(type_of(chip)), chip.mem_bytes_per_s
        if not pins or not rate or not rate.value:
            continue
        if not any(pins[0] <= rate.value * 8e-9 / width <= pins[1] for width in LPDDR_WIDTHS):
            yield facts.fault(
                "lpddr_has_a_width",
                f"chips/{id_}",
                "mem_bytes_per_s",
                f"no width of {type_of(chip)} gives this rate",
                value=rate,
                allowed=f"{pins[0]} to {pins[1]} Gbit/s on each of 64 to 1,024 bits",
                mend="GB or Gbit?",
            )


def sweeps_take_their_time(facts: Facts) -> Iterator[Fault]:
    """Capacity over bandwidth is a property of the kind of memory: HBM 8 to 60 ms, SRAM microseconds."""
    for id_, chip in facts.chips.items():
        kind = next((each for each in ("LPDDR", "GDDR", "HBM", "DDR") if each in type_of(chip)), "")
        sram = "machine" if chip.kind == "sram" else "cache"
        for size, rate, name, bounds in (
            (chip.mem_bytes, chip.mem_bytes_per_s, "mem_bytes_per_s", SWEEP_S.get(kind)),
            (chip.sram_bytes, chip.sram_bytes_per_s, "sram_bytes_per_s", SRAM_SWEEP_S[sram]),
        ):
            if not size or not rate or not rate.value or not size.value or bounds is None:
                continue
            took = size.value / rate.value
            if not bounds[0] <= took <= bounds[1]:
                yield facts.fault(
                    "sweeps_take_their_time",
                    f"chips/{id_}",
                    name,
                    f"reading all of {said(size)} takes {said(took, 's')}",
                    value=rate,
                    allowed=f"{said(bounds[0], 's')} to {said(bounds[1], 's')}",
                    mend="check capacity and bandwidth",
                    others=(f"chips/{id_}/{name.removesuffix('_per_s')}",),
                )

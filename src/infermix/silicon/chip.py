"""A chip as its architect describes it, read from a file and held against physics before anything is computed."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Any, Literal

import msgspec

from infermix.catalog.parse import Raw, check_keys, convert, toml
from infermix.errors import InputError, near_miss
from infermix.silicon.constants import Constants
from infermix.units import MM2_PER_CM2

MOST_SPARES = 2000
MOST_DEFECTS_PER_CM2 = 20
LEAST_DEFECTS_PER_MM2 = 10**-4
"""Below a hundredth of a defect a square centimetre a figure was meant for a square millimetre."""


class Real(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is known of a real chip that the catalogue does not list."""

    area_mm2: float | None = None
    tdp_w: float | None = None
    hbm_tb_per_s: float | None = None
    source: str


class Chip(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A packaged chip of one or more equal dies; rates are dense and 16 bit, of the whole package."""

    id: str = ""
    name: str = ""
    node: str
    dies: int = 1
    tflops: float
    sram_mb: float = 0
    sram: Literal["banks", "small"] = "banks"
    """Large banks, or many small ones beside each core."""
    sram_tb_per_s: float | None = None
    """Else it follows from the size, on chips without HBM."""
    hbm: str = ""
    stacks: int = 0
    hbm_tb_per_s: float | None = None
    """Else that of the stacks."""
    links: float = 0
    """Links of 25 GB/s a direction."""
    fixed_mm2: float | None = None
    """Everything else on one die; else ``process/uncore_mm2``."""
    area_mm2: float | None = None
    """Of all dies together, where it is known; else it follows from what they hold."""
    width_mm: float | None = None
    """One side of a die; else 26 mm for dies that fill most of a field, and square below."""
    tdp_w: float | None = None
    cores: int = 0
    cores_needed: int = 0
    """Equal cores on a die, and how many must work; none: every defect kills."""
    harvest: bool = True
    wafer_scale: bool = False
    stitched: bool = False
    package: str = "cowos"
    defects_per_cm2: float | None = None
    test_coverage: float = 1
    gross_margin: float | None = None
    volume_units: float | None = None
    """Units over the life of the chip, on which its cost once is laid."""
    real: Real | None = None

    @property
    def holds_weights(self) -> bool:
        """A machine without HBM reads weights from its SRAM."""
        return not self.stacks


@functools.cache
def real_chips() -> dict[str, Chip]:
    """Chips that exist, as the anchors of this part describe them."""
    file = files("infermix.silicon") / "data" / "chips.toml"
    raw = toml(file.read_text(encoding="utf-8"), str(file))
    return {id_: convert(Chip, {"id": id_, **table}, f"{file}: {id_}") for id_, table in raw.items()}


def anchored() -> set[str]:
    """Nodes of real chips, on which areas and power could be held against something.

    >>> "n4" in anchored(), "n2" in anchored()
    (True, False)
    """
    return {chip.node for chip in real_chips().values()}


def read_chip(raw: Raw, where: str, table: Constants) -> Chip:
    """The chip of a file: ``chip = "h100-sxm"`` with what ``[change]`` says, or a ``[chip]`` table of one's own."""
    said: Any = raw.get("chip")
    changes: Raw = raw.get("change", {})
    if isinstance(said, str):
        known = real_chips()
        if said not in known:
            hint = near_miss(said, known) or "describe it in [chip]"
            place, names = f"{where}: chip", ", ".join(known)
            raise InputError("no description of this chip", where=place, value=said, allowed=names, mend=hint)
        base = {name: value for name in Chip.__struct_fields__ if (value := getattr(known[said], name)) is not None}
        place, said = f"{where}: change", {**base, **changes}
        check_keys(changes, Chip.__struct_fields__, place)
    elif isinstance(said, dict):
        if changes:
            raise InputError("[change] belongs to a chip that is named", where=f"{where}: change")
        place = f"{where}: chip"
        check_keys(said, Chip.__struct_fields__, place)
    else:
        raise InputError("no chip", where=where, mend='state chip = "h100-sxm" or describe one in [chip]')
    chip = convert(Chip, said, place)
    check_chip(chip, place, table)
    return chip


def check_chip(chip: Chip, where: str, table: Constants) -> None:
    """Raise InputError for numbers that cannot be, names without constants, and units that were mistaken."""
    table.known("nodes", chip.node, f"{where}.node")
    if chip.stacks:
        table.known("memory", chip.hbm, f"{where}.hbm")
    if chip.package != "none":
        table.known("packages", chip.package, f"{where}.package")
    for name in ("tflops", "area_mm2", "width_mm", "tdp_w", "volume_units", "dies"):
        value = getattr(chip, name)
        if value is not None and not value > 0:
            raise InputError(f"{name} must be above 0", where=f"{where}.{name}", value=value)
    for name in ("sram_mb", "stacks", "links", "fixed_mm2", "cores", "cores_needed", "sram_tb_per_s", "hbm_tb_per_s"):
        value = getattr(chip, name)
        if value is not None and not value >= 0:
            raise InputError(f"{name} must not be negative", where=f"{where}.{name}", value=value)
    if chip.cores - chip.cores_needed > MOST_SPARES and not chip.wafer_scale:
        least, place = chip.cores - MOST_SPARES, f"{where}.cores_needed"
        raise InputError("more spare cores than a die has", where=place, value=chip.cores_needed,
                         allowed=f"at least {least}", mend="or state wafer_scale = true")  # fmt: skip
    if chip.cores_needed > chip.cores:
        raise InputError("more cores are needed than there are", where=f"{where}.cores_needed",
                         value=chip.cores_needed, allowed=f"at most {chip.cores}")  # fmt: skip
    if chip.gross_margin is not None and not 0 <= chip.gross_margin < 1:
        raise InputError("not a margin", where=f"{where}.gross_margin", value=chip.gross_margin, allowed="0 to below 1")
    if not 0 < chip.test_coverage <= 1:
        raise InputError("not a share", where=f"{where}.test_coverage", value=chip.test_coverage, allowed="0 to 1")
    _check_defects(chip, where)


def _check_defects(chip: Chip, where: str) -> None:
    density = chip.defects_per_cm2
    if density is not None and density > MOST_DEFECTS_PER_CM2:
        raise InputError("more defects than any line has", where=f"{where}.defects_per_cm2", value=density,
                         allowed=f"at most {MOST_DEFECTS_PER_CM2} a cm2")  # fmt: skip
    if density is not None and density < LEAST_DEFECTS_PER_MM2 * MM2_PER_CM2:
        raise InputError(
            "fewer defects than any line has", where=f"{where}.defects_per_cm2", value=density,
            allowed=f"{LEAST_DEFECTS_PER_MM2 * MM2_PER_CM2:g} or more",
            mend=f"was it meant for a mm2? then it is {density * MM2_PER_CM2:g} per cm2" if density > 0 else "",
        )  # fmt: skip

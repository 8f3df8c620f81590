"""What a die cannot be: larger than a field, fuller of HBM than its shore is long, hotter than can be cooled."""

from __future__ import annotations

import msgspec

from infermix.errors import InputError
from infermix.silicon import die
from infermix.silicon.build import dies, speeds
from infermix.silicon.chip import Chip
from infermix.silicon.draw import Draw, exact


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """One limit: what is used of what is allowed."""

    name: str
    used: float
    allowed: float
    unit: str


def limits(chip: Chip, draw: Draw, where: str) -> tuple[Limit, ...]:
    """Hold a chip against its limits; raises InputError for the first that it breaks."""
    made = dies(chip, draw)
    found = []
    if not (chip.wafer_scale or chip.stitched):
        found.append(_field(float(made.die_mm2), float(made.width_mm), float(made.height_mm), draw, where))
    if chip.stacks:
        found.append(_shore(chip, float(max(made.width_mm, made.height_mm)), draw, where))
    watts = chip.tdp_w if chip.tdp_w is not None else speeds(chip, draw).power_w
    if watts is not None:
        found.append(_heat(float(watts), float(made.die_mm2) * chip.dies, draw, where))
    return tuple(found)


def _field(area: float, width: float, height: float, draw: Draw, where: str) -> Limit:
    sides = sorted((float(draw("process/field_width_mm")), float(draw("process/field_height_mm"))))
    allowed = sides[0] * sides[1]
    if any(side > most for side, most in zip(sorted((width, height)), sides, strict=True)):
        raise InputError(
            f"a die of {width:.4g} mm x {height:.4g} mm is larger than one field of the scanner", where=where,
            value=round(area, 1), allowed=f"{sides[0]:g} mm x {sides[1]:g} mm, {allowed:g} mm2",
            mend="state stitched = true or wafer_scale = true, or split it: dies = 2",
        )  # fmt: skip
    return Limit(name="field of the scanner", used=area, allowed=allowed, unit="mm2")


def _shore(chip: Chip, long_side: float, draw: Draw, where: str) -> Limit:
    most = chip.dies * int(die.most_stacks(exact(long_side), draw("memory/stack/length_mm")))
    if chip.stacks > most:
        raise InputError(
            f"more HBM than the shoreline of {chip.dies} x {long_side:.4g} mm holds", where=f"{where}.stacks",
            value=chip.stacks, allowed=f"at most {most}", mend="take fewer stacks, a larger die or more dies",
        )  # fmt: skip
    return Limit(name="HBM on the shoreline", used=chip.stacks, allowed=most, unit="stacks")


def _heat(watts: float, area: float, draw: Draw, where: str) -> Limit:
    density, most = watts / area, float(draw("process/max_w_per_mm2"))
    if density > most:
        raise InputError(
            f"{watts:,.0f} W on {area:,.0f} mm2 is more heat than can be cooled", where=where, value=round(density, 2),
            allowed=f"at most {most:g} W/mm2", mend="take less arithmetic, more area or a newer node",
        )  # fmt: skip
    return Limit(name="power density", used=density, allowed=most, unit="W/mm2")

"""CATCH's chips upon chips, for its published demonstration only (Graening and others, 2025).

A chip is cut from a stack of layers that have prices; it is as large as what it holds, as the pads under it or as the
chips on it, whichever is largest. Two habits of the code are kept, for its figure hangs on them: an interface that
works both ways takes the area of two, and the hours of a machine are multiplied by its uptime, not divided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from infermix.silicon import defects, die, wafer
from infermix.silicon.draw import exact
from infermix.units import DAYS_PER_YEAR, SECONDS_PER_DAY


class Chip(NamedTuple):
    """A chip as CATCH describes it, and the chips that are bonded on it."""

    core_mm2: float
    logic_share: float
    watts: float
    layers: Mapping[str, int]
    cells: Mapping[str, int]
    """Ends of links by kind; a link both ways has two ends on each chip."""
    bonding: str
    """How the chips on it are bonded."""
    on_top: tuple[Chip, ...] = ()


class Made(NamedTuple):
    """A chip with all that is on it: what one costs, and the share that works."""

    usd: float
    good: float


def held_mm2(chip: Chip, p: Mapping[str, float]) -> float:
    """Area of the core and of the cells of its links."""
    return chip.core_mm2 + sum(count * p[f"{cell}_mm2"] for cell, count in chip.cells.items())


def wires(chip: Chip, p: Mapping[str, float]) -> float:
    """Wires of its links."""
    return sum(count * p[f"{cell}_wires"] for cell, count in chip.cells.items())


def pads_mm2(chip: Chip, below: str, p: Mapping[str, float]) -> float:
    """Area of the square of pads under a chip: wires, and as many for ground as for the current of the whole stack."""
    across = p[f"{chip.bonding}_pitch_mm"] / 2
    pad_w = p[f"{chip.bonding}_pad_current"] * math.pi * (across / 2) ** 2 * p["core_voltage"]
    pads = wires(chip, p) + 2 * math.ceil(_stack_w(chip) / pad_w)
    return (math.ceil(math.sqrt(pads)) * p[f"{below}_pitch_mm"]) ** 2


def _stack_w(chip: Chip) -> float:
    return chip.watts + sum(_stack_w(one) for one in chip.on_top)


def area_mm2(chip: Chip, below: str, p: Mapping[str, float]) -> float:
    """Area of a chip that is bonded onto ``below``: the largest of what asks for room."""
    gap, edge = p[f"{chip.bonding}_gap_mm"], p[f"{chip.bonding}_edge_mm"]
    upon = sum((math.sqrt(area_mm2(one, chip.bonding, p)) + gap) ** 2 for one in chip.on_top)
    room = (math.sqrt(upon) + 2 * edge) ** 2 if chip.on_top else 0
    return max(held_mm2(chip, p), pads_mm2(chip, below, p), room)


def layers_usd(chip: Chip, below: str, p: Mapping[str, float]) -> float:
    """Cost of a chip's layers, good or bad: its share of a wafer, more where it fills the scanner's field badly."""
    area = area_mm2(chip, below, p)
    per = wafer.squares_from_rim(area, p["diameter_mm"], p["scribe_mm"], p["edge_mm"])
    circle_mm2 = math.pi * (p["diameter_mm"] / 2) ** 2

    def one(layer: str) -> float:
        flat = die.die_usd(exact(p[f"{layer}_usd_per_mm2"] * circle_mm2), exact(per), exact(1))
        return float(flat * wafer.litho_factor(exact(area), exact(p["field_mm2"]), exact(p[f"{layer}_litho_share"])))

    return sum(count * one(layer) for layer, count in chip.layers.items())


def works(chip: Chip, p: Mapping[str, float]) -> float:
    """Share of a chip's dies of which every layer works (E4, E5)."""

    def one(layer: str) -> float:
        hits = defects.critical(exact(held_mm2(chip, p) * p[f"{layer}_defects"]), exact(p[f"{layer}_critical_share"]))
        return float(defects.negative_binomial(hits, exact(p["clustering"])))

    return math.prod(one(layer) ** count for layer, count in chip.layers.items())


def bonding_usd(chip: Chip, p: Mapping[str, float]) -> float:
    """Cost of placing and bonding what lies on a chip: seconds of two machines and of who tends them."""

    def per_second(machine: str) -> float:
        yearly = p[f"{chip.bonding}_{machine}_usd"] / p["machine_years"] + p["technician_usd_per_year"]
        return yearly * p["uptime"] / (DAYS_PER_YEAR * SECONDS_PER_DAY)

    dies = len(chip.on_top)
    placing = dies * p["place_seconds"] * per_second("place")
    return placing + math.ceil(dies / p[f"{chip.bonding}_bonded_at_once"]) * p["bond_seconds"] * per_second("bond")


def made(chip: Chip, below: str, p: Mapping[str, float]) -> Made:
    """A chip with all on it after both tests: of the die, and of what was put together (E9)."""
    coverage = exact(p["test_coverage"])
    parts = [made(one, chip.bonding, p) for one in chip.on_top]
    bare = exact(works(chip, p))
    usd = layers_usd(chip, below, p) / float(die.test_pass(bare, coverage))
    usd += sum(part.usd for part in parts) + bonding_usd(chip, p)
    bonds = p["align_yield"] ** len(parts) * p["bond_yield"] ** sum(wires(one, p) for one in chip.on_top)
    whole = die.quality(bare, coverage) * math.prod(part.good for part in parts) * bonds
    return Made(usd / float(die.test_pass(whole, coverage)), float(die.quality(whole, coverage)))


def once_usd(chip: Chip, p: Mapping[str, float]) -> float:
    """Design and masks of a chip and of all on it, before they are shared among units."""
    design = chip.core_mm2 * chip.logic_share * p["logic_usd_per_mm2"]
    masks = sum(count * p[f"{layer}_masks_usd"] for layer, count in chip.layers.items())
    return design + masks + sum(once_usd(one, p) for one in chip.on_top)


def unit_usd(chip: Chip, p: Mapping[str, float]) -> float:
    """Cost of a unit with its share of what is paid once."""
    return made(chip, chip.bonding, p).usd + once_usd(chip, p) / p["units"]

"""Silicon: what fits on the area, and what the power of a chip and of its system must have to do with each other."""

from __future__ import annotations

from collections.abc import Iterator

from infermix.catalog.check.facts import Facts
from infermix.catalog.check.fault import Fault, said
from infermix.catalog.check.nodes import RETICLE_M2, node_of, silicon_m2

WATTS_PER_MM2 = (0.02, 1.5)
"""From large, slow arrays (NorthPole 0.09, MTIA v1 0.07) to what liquid cooling takes away (H100 0.86)."""
SYSTEM_OVER_CHIPS = (0.95, 2.6)
"""A system draws its chips' power and that of hosts, network, fans and conversion: 1.0 (SN40L rack) to 2.1 (RNGD)."""


def dies_fit_the_reticle(facts: Facts) -> Iterator[Fault]:
    """A die is exposed in one field of the scanner: so many dies cannot be larger than so many fields.

    Chiplets on base dies count those too, so the ceiling is twice the compute dies; a wafer is no die of this kind.
    """
    for id_, chip in facts.chips.items():
        area, dies = chip.die_area_m2, chip.compute_dies
        if area and dies and chip.cls != "wafer" and area.value > 2 * dies.value * RETICLE_M2:
            yield facts.fault(
                "dies_fit_the_reticle",
                f"chips/{id_}",
                "die_area_m2",
                f"is more than {dies.value:g} dies can have",
                value=area,
                allowed=f"at most {said(2 * dies.value * RETICLE_M2, 'm2')}",
                mend="check the area and the number of dies",
                others=(f"chips/{id_}/compute_dies",),
            )


def sram_fits_on_the_die(facts: Facts) -> Iterator[Fault]:
    """SRAM has a density for each node, and logic needs room beside it: bits written as bytes do not fit."""
    for id_, chip in facts.chips.items():
        node, area, sram = node_of(chip), silicon_m2(chip), chip.sram_bytes
        if node and area and sram and sram.value > (ceiling := 0.6 * node.sram_mbyte * area * 1e12):
            yield facts.fault(
                "sram_fits_on_the_die",
                f"chips/{id_}",
                "sram_bytes",
                f"is more than fits on {said(area, 'm2')} of {chip.process_node} beside logic",
                value=sram,
                allowed=f"at most {said(ceiling, 'byte')}",
                mend="MB or Mbit?",
            )


def transistors_fit_on_the_die(facts: Facts) -> Iterator[Fault]:
    """Transistors have a density for each node; below a twentieth of it an area or a count is wrong."""
    for id_, chip in facts.chips.items():
        node, area, count = node_of(chip), chip.die_area_m2, chip.transistors
        if not node or not area or not count:
            continue
        ceiling = node.transistors_million * 1e12 * area.value
        if not ceiling / 20 <= count.value <= ceiling:
            yield facts.fault(
                "transistors_fit_on_the_die",
                f"chips/{id_}",
                "transistors",
                f"do not belong on {said(area)} of {chip.process_node}",
                value=count,
                allowed=f"{said(ceiling / 20, count.unit)} to {said(ceiling, count.unit)}",
                mend="check the count and the area",
                others=(f"chips/{id_}/die_area_m2",),
            )


def power_fits_the_area(facts: Facts) -> Iterator[Fault]:
    """Heat leaves through the area: more than 1.5 W/mm2 cannot be cooled, and no accelerator idles below 0.02."""
    for id_, chip in facts.chips.items():
        area, power = chip.die_area_m2, chip.tdp_w
        if not area or not power or chip.kind == "other":
            continue
        density = power.value / (area.value * 1e6)
        if not WATTS_PER_MM2[0] <= density <= WATTS_PER_MM2[1]:
            yield facts.fault(
                "power_fits_the_area",
                f"chips/{id_}",
                "tdp_w",
                f"is {density:.2g} W on each mm2",
                value=power,
                allowed=f"{WATTS_PER_MM2[0]} to {WATTS_PER_MM2[1]} W/mm2",
                mend="check the power and the area",
                others=(f"chips/{id_}/die_area_m2",),
            )


def systems_draw_more_than_their_chips(facts: Facts) -> Iterator[Fault]:
    """A system holds its chips, and beside them hosts, network and cooling, which never draw much more than they."""
    for id_, chip in facts.chips.items():
        whole, count, one = chip.vendor_system_power_w, chip.vendor_system_chips, chip.tdp_w
        if not whole or not count or not one:
            continue
        ratio = whole.value / (count.value * one.value)
        if not SYSTEM_OVER_CHIPS[0] <= ratio <= SYSTEM_OVER_CHIPS[1]:
            yield facts.fault(
                "systems_draw_more_than_their_chips",
                f"chips/{id_}",
                "vendor_system_power_w",
                f"is {ratio:.3g} times {count.value:g} x {said(one)}",
                value=whole,
                allowed=f"{SYSTEM_OVER_CHIPS[0]} to {SYSTEM_OVER_CHIPS[1]} times",
                mend="check both powers and the number of chips",
                others=(f"chips/{id_}/tdp_w", f"chips/{id_}/vendor_system_chips"),
            )

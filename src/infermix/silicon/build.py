"""From a description and the constants to areas, yields, parts, power: every number of a unit at once, as arrays."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats
from infermix.silicon import defects, die, package, wafer
from infermix.silicon.chip import Chip
from infermix.silicon.draw import Draw, exact

TERA, MEGA, GIGA = 10**12, 10**6, 10**9


class Area(NamedTuple):
    """What the silicon of a package goes to [mm2]."""

    sram: Floats
    arithmetic: Floats
    hbm_phys: Floats
    links: Floats
    rest: Floats
    spread: Floats
    """Space between blocks and the pad ring."""

    def total(self) -> Floats:
        """All dies together."""
        return self.sram + self.arithmetic + self.hbm_phys + self.links + self.rest + self.spread


class Dies(NamedTuple):
    """Dies on a wafer and what becomes of them."""

    die_mm2: Floats
    width_mm: Floats
    height_mm: Floats
    per_wafer: Floats
    raw_yield: Floats
    good_yield: Floats
    """With harvest, where there are spare cores."""
    wafer_usd: Floats


class Parts(NamedTuple):
    """What a good unit costs, part by part [USD]."""

    logic: Floats
    hbm: Floats
    package: Floats
    lost_parts: Floats
    """Dies and stacks thrown away with a failed bond."""
    lost_packages: Floats
    test: Floats

    def total(self) -> Floats:
        """The bill of materials of a unit (E12)."""
        return self.logic + self.hbm + self.package + self.lost_parts + self.lost_packages + self.test


def area(chip: Chip, draw: Draw) -> Area:
    """Area that the described blocks take on this node (E10)."""
    node = f"nodes/{chip.node}"
    small = "sram_small_mm2_per_byte" if chip.sram == "small" else "sram_mm2_per_byte"
    rest = draw("process/uncore_mm2") if chip.fixed_mm2 is None else exact(chip.fixed_mm2)
    blocks = (
        chip.sram_mb * MEGA * draw(f"{node}/{small}") if chip.sram_mb else exact(0),
        chip.tflops * TERA * draw(f"{node}/mac_mm2_s_per_flop"),
        chip.stacks * draw(f"{node}/hbm_phy_mm2") if chip.stacks else exact(0),
        chip.links * draw("process/link_mm2") if chip.links else exact(0),
        chip.dies * rest,
    )
    used = np.asarray(sum(blocks)) / chip.dies
    ring = 0 * used if chip.wafer_scale else draw("process/pad_ring_mm")
    one = die.die_mm2(used, draw("process/core_utilisation"), ring)
    return Area(*blocks, np.asarray(chip.dies * (one - used)))


def dies(chip: Chip, draw: Draw, harvested: bool = True) -> Dies:
    """Dies per wafer, yields and the wafer's price (E3 to E7)."""
    whole = area(chip, draw).total() if chip.area_mm2 is None else exact(chip.area_mm2)
    one = np.asarray(whole / chip.dies)
    width, height = sides(one, chip, draw)
    node = f"nodes/{chip.node}"
    density = draw(f"{node}/defects_per_mm2") if chip.defects_per_cm2 is None else exact(chip.defects_per_cm2) / 100
    hits = one * density
    raw = defects.negative_binomial(hits, draw("process/clustering"))
    if chip.wafer_scale:
        bad = defects.bad_cores(exact(chip.cores), density, one / max(chip.cores, 1))
        per, good = np.ones(np.shape(one)), np.where(bad <= chip.cores - chip.cores_needed, 1, raw)
    else:
        rest = (width, height, draw("process/wafer_diameter_mm"), draw("process/scribe_mm"), draw("process/edge_mm"))
        per, good = wafer.dies_grid(*rest), raw
        if harvested and chip.harvest and chip.cores:
            good = with_spares(hits, chip, draw)
    return Dies(one, width, height, per, raw, np.asarray(good, dtype=np.float64), draw(f"{node}/wafer_usd"))


def with_spares(hits: Floats, chip: Chip, draw: Draw) -> Floats:
    """Yield of a die that sells with some of its cores off (E6)."""
    share = draw("process/harvest_share")
    rest = defects.negative_binomial(hits * (1 - share), draw("process/clustering"))
    return defects.harvest(hits, share, chip.cores, chip.cores_needed, rest)


def sides(one_mm2: Floats, chip: Chip, draw: Draw) -> tuple[Floats, Floats]:
    """Width and height of a die: as told; as wide as the field where it is large; else square."""
    if chip.width_mm is not None:
        width = np.full(np.shape(one_mm2), chip.width_mm, dtype=np.float64)
    else:
        field = np.inf if chip.wafer_scale or chip.stitched else draw("process/field_width_mm")
        width = np.minimum(np.sqrt(one_mm2), field)
    return width, one_mm2 / width


def parts(chip: Chip, draw: Draw, harvested: bool = True) -> Parts:
    """The bill of materials of a good unit (E9, E11, E12)."""
    made = dies(chip, draw, harvested)
    passed = die.test_pass(made.good_yield, exact(chip.test_coverage))
    one = die.die_usd(made.wafer_usd, made.per_wafer, passed) * (1 + draw("process/test_overhead"))
    hbm = chip.stacks * draw(f"memory/{chip.hbm}/stack_usd") if chip.stacks else 0 * one
    if chip.package == "none":
        return Parts(chip.dies * one, hbm, 0 * one, 0 * one, 0 * one, 0 * one)
    held = f"packages/{chip.package}"
    logic = chip.dies * (one + made.die_mm2 * draw(f"{held}/bump_usd_per_mm2"))
    stack_mm2 = draw("memory/stack/width_mm") * draw("memory/stack/length_mm") if chip.stacks else 0 * one
    interposer_mm2 = draw(f"{held}/interposer_over_dies") * (chip.dies * made.die_mm2 + chip.stacks * stack_mm2)
    interposer = _interposer_usd(interposer_mm2, held, draw)
    substrate = interposer_mm2 * draw(f"{held}/substrate_over_interposer") * draw(f"{held}/substrate_usd_per_mm2")
    escaped = die.quality(made.good_yield, exact(chip.test_coverage)) ** chip.dies
    yields = package.Yields(
        defects.negative_binomial(interposer_mm2 * draw(f"{held}/defects_per_mm2"), draw(f"{held}/clustering")),
        package.bonds(draw(f"{held}/bond_yield"), exact(chip.dies + chip.stacks)) * escaped,
        draw(f"{held}/substrate_bond_yield"),
    )
    return Parts(
        logic=logic,
        hbm=np.asarray(hbm),
        package=interposer + substrate,
        lost_parts=package.wasted_usd(logic + hbm, yields),
        lost_packages=package.interposer_loss_usd(interposer, substrate, yields),
        test=draw(f"{held}/test_usd") + 0 * one,
    )


def _interposer_usd(interposer_mm2: Floats, held: str, draw: Draw) -> Floats:
    """An interposer cut from its wafer as dies are; nothing where the package has none."""
    if not draw.table[f"{held}/interposer_wafer_usd"].high:
        return 0 * interposer_mm2
    side = np.sqrt(interposer_mm2)
    per = wafer.dies_grid(
        side, side, draw("process/wafer_diameter_mm"), draw("process/scribe_mm"), draw("process/edge_mm")
    )
    each: Floats = draw(f"{held}/interposer_wafer_usd") / np.maximum(per, 1)
    return each


class Speeds(NamedTuple):
    """What the chip moves and computes, and the power that takes."""

    flop_per_s: Floats
    sram_bytes_per_s: Floats
    hbm_bytes: Floats
    hbm_bytes_per_s: Floats
    link_bytes_per_s: Floats
    power_w: Floats | None
    """None where the node has no energy of arithmetic."""

    @property
    def bytes_per_flop(self) -> Floats:
        """Of the memory that holds the weights."""
        held: Floats = np.where(self.hbm_bytes_per_s > 0, self.hbm_bytes_per_s, self.sram_bytes_per_s)
        return held / self.flop_per_s


def speeds(chip: Chip, draw: Draw, stated: bool = True) -> Speeds:
    """Rates and power of the chip (E13 to E15); ``stated`` takes bandwidths from the description where it has them."""
    flop = exact(chip.tflops * TERA)
    sram = exact(0)
    if chip.holds_weights:
        sram = chip.sram_mb * MEGA * draw("process/sram_refills_per_s")
        if stated and chip.sram_tb_per_s is not None:
            sram = exact(chip.sram_tb_per_s * TERA)
    hbm = held = exact(0)
    if chip.stacks:
        hbm = chip.stacks * draw(f"memory/{chip.hbm}/stack_bytes_per_s")
        held = chip.stacks * draw(f"memory/{chip.hbm}/stack_bytes")
        if stated and chip.hbm_tb_per_s is not None:
            hbm = exact(chip.hbm_tb_per_s * TERA)
    link = chip.links * draw("process/link_bandwidth")
    return Speeds(flop, np.asarray(sram), np.asarray(held), np.asarray(hbm), link, _power(chip, draw, sram, hbm, link))


def _power(chip: Chip, draw: Draw, sram: Floats, hbm: Floats, link: Floats) -> Floats | None:
    if f"nodes/{chip.node}/joule_per_flop" not in draw.table:
        return None
    array = draw("process/sram_small_pj" if chip.sram == "small" else "process/sram_pj") if chip.holds_weights else sram
    stack = draw(f"memory/{chip.hbm}/energy") if chip.stacks else hbm
    return die.power_w(
        exact(chip.tflops * TERA), draw(f"nodes/{chip.node}/joule_per_flop"), sram, array, hbm, stack, 2 * link,
        draw("process/link_pj"),
    )  # fmt: skip

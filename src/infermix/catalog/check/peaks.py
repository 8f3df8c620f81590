"""Peak arithmetic: sparse rates taken for dense ones show in ratios, in density and beside sister chips."""

from __future__ import annotations

import math
from collections.abc import Iterator

from infermix.catalog.check.facts import Facts
from infermix.catalog.check.fault import Fault, said
from infermix.catalog.check.nodes import node_of, silicon_m2
from infermix.catalog.records import Chip, Figure

PEAKS = {"bf16_flop_per_s": 16, "fp8_flop_per_s": 8, "int8_op_per_s": 8, "fp4_flop_per_s": 4}
PAIRS = (
    ("bf16_flop_per_s", "fp8_flop_per_s"),
    ("fp8_flop_per_s", "fp4_flop_per_s"),
    ("bf16_flop_per_s", "int8_op_per_s"),
    ("int8_op_per_s", "fp4_flop_per_s"),
)
SMALL_FAMILY, MOST_OF_FAMILY = 4, 0.75
RATIO_SLACK = 0.07
"""Published pairs are rounded, or stated at slightly different clocks."""
SISTER_SLACK = 1.3
"""The most by which clocks and enabled cores of one die differ between products."""


def narrow_rates_are_small_multiples(facts: Facts) -> Iterator[Fault]:
    """Halving the width of a multiplier doubles its rate or leaves it: a ratio of 4 is a sparse rate over a dense.

    Where a vendor's family agrees on one of the two, its chips have that one: they share the multiplier.
    """
    for id_, chip in facts.chips.items():
        for wide, narrow in PAIRS:
            ratio = _ratio(chip, wide, narrow)
            if ratio is None or (wide == "int8_op_per_s" and chip.fp8_flop_per_s):
                continue
            usual = _of_family(facts, chip, wide, narrow)
            allowed = (1.0, 2.0) if usual is None else (usual,)
            if not any(_near(ratio, each) for each in allowed):
                doubled = _near(2 * ratio, min(allowed))
                suspect, other = (wide, narrow) if doubled else (narrow, wide)
                yield facts.fault(
                    "narrow_rates_are_small_multiples",
                    f"chips/{id_}",
                    suspect,
                    f"{narrow} is {ratio:.3g} times {wide}",
                    value=getattr(chip, suspect),
                    allowed=" or ".join(f"{each:.3g}" for each in allowed) + (" as in its family" if usual else ""),
                    mend="is one of the two a sparse rate?",
                    others=(f"chips/{id_}/{other}",),
                )


def _ratio(chip: Chip, wide: str, narrow: str) -> float | None:
    over, under = getattr(chip, narrow), getattr(chip, wide)
    return over.value / under.value if over and under and under.value else None


def _near(ratio: float, other: float) -> bool:
    return abs(ratio / other - 1.0) <= RATIO_SLACK


def _of_family(facts: Facts, chip: Chip, wide: str, narrow: str) -> float | None:
    """1 or 2 where at least four, and three quarters of the chip's family have that ratio, else nothing."""
    kin = [c for c in facts.chips.values() if (c.vendor, c.efficiency) == (chip.vendor, chip.efficiency) and c != chip]
    ratios = [ratio for each in kin if (ratio := _ratio(each, wide, narrow))]
    for usual in (1.0, 2.0):
        alike = sum(_near(ratio, usual) for ratio in ratios)
        if alike >= MOST_OF_FAMILY * len(ratios) and alike >= SMALL_FAMILY:
            return usual
    return None


def peaks_fit_on_the_die(facts: Facts) -> Iterator[Fault]:
    """No product of a node has packed more arithmetic on a square millimetre: beyond that a rate counts sparsity."""
    for id_, chip in facts.chips.items():
        node, area = node_of(chip), silicon_m2(chip)
        if node is None or area is None:
            continue
        most = {16: node.bf16_tflop_per_s, 8: node.eight_bit_tflop_per_s, 4: node.four_bit_tflop_per_s}
        for name, bits in PEAKS.items():
            peak: Figure | None = getattr(chip, name)
            ceiling = most[bits] * area * 1e18
            if peak and peak.value > ceiling:
                yield facts.fault(
                    "peaks_fit_on_the_die",
                    f"chips/{id_}",
                    name,
                    f"is more than {chip.process_node} has reached on {said(area, 'm2')}",
                    value=peak,
                    allowed=f"at most {said(ceiling, peak.unit)}",
                    mend="is it a sparse rate, or that of several chips?",
                )


def peaks_fit_the_power(facts: Facts) -> Iterator[Fault]:
    """Each operation of a node costs energy: a peak beyond what its watts have ever paid for counts sparsity."""
    for id_, chip in facts.chips.items():
        node, peak, power = node_of(chip), chip.bf16_flop_per_s, chip.tdp_w
        if node and peak and power and peak.value > node.bf16_tflop_per_s_per_w * 1e12 * power.value:
            yield facts.fault(
                "peaks_fit_the_power",
                f"chips/{id_}",
                "bf16_flop_per_s",
                f"is more than {chip.process_node} has reached on {said(power)}",
                value=peak,
                allowed=f"at most {said(node.bf16_tflop_per_s_per_w * 1e12 * power.value, peak.unit)}",
                mend="check the peak and the power",
                others=(f"chips/{id_}/tdp_w",),
            )


def sisters_on_one_die_agree(facts: Facts) -> Iterator[Fault]:
    """Products cut from one die differ by clock and disabled cores, not by 2: that is NVIDIA's 2:4 sparsity counted."""
    for id_, chip in facts.chips.items():
        sisters = [other for other in facts.chips.values() if other.id != id_ and _same_die(chip, other)]
        for name in PEAKS:
            peak: Figure | None = getattr(chip, name)
            others = [(figure.value, other.id) for other in sisters if (figure := getattr(other, name))]
            if peak and others and peak.value > SISTER_SLACK * max(others)[0]:
                most, sister = max(others)
                yield facts.fault(
                    "sisters_on_one_die_agree",
                    f"chips/{id_}",
                    name,
                    f"is {peak.value / most:.3g} times that of {sister}, which has the same die",
                    value=peak,
                    allowed=f"at most {said(SISTER_SLACK * most, peak.unit)}",
                    mend="is it a sparse rate?",
                    others=(f"chips/{sister}/{name}",),
                )


def _same_die(chip: Chip, other: Chip) -> bool:
    """Same maker, family and node, as many dies, and areas that agree to a hundredth."""
    if not chip.die_area_m2 or not other.die_area_m2 or not chip.process_node:
        return False
    dies = [each.compute_dies.value if each.compute_dies else 1 for each in (chip, other)]
    same = all(getattr(chip, name) == getattr(other, name) for name in ("vendor", "efficiency", "process_node"))
    return same and dies[0] == dies[1] and math.isclose(chip.die_area_m2.value, other.die_area_m2.value, rel_tol=0.01)

"""What silicon of a process node has reached: the ceilings that peaks, SRAM and transistors are held against."""

from __future__ import annotations

import re
from typing import NamedTuple

from infermix.catalog.records import Chip

RETICLE_M2 = 858e-6
"""Largest field of a lithography scanner, 26 mm x 33 mm: no die is larger."""


class Node(NamedTuple):
    """Ceilings per square millimetre of all dies, and per watt. Each is about a quarter above the best product."""

    bf16_tflop_per_s: float
    eight_bit_tflop_per_s: float
    four_bit_tflop_per_s: float
    sram_mbyte: float
    """Density of SRAM macros: bit cell of the node with its periphery [MB/mm2]."""
    transistors_million: float
    bf16_tflop_per_s_per_w: float


NODES: dict[str, Node] = {
    "28nm": Node(0.10, 0.2, 0.4, 0.5, 16, 0.5),
    "16nm": Node(0.35, 1.4, 2.0, 1.2, 45, 1.5),
    "n7": Node(0.60, 1.2, 2.5, 3.2, 100, 3.2),
    "n6": Node(0.75, 1.5, 4.0, 3.2, 115, 3.2),
    "n5": Node(1.90, 3.8, 12.0, 4.0, 175, 3.8),
    "n3": Node(3.00, 12.5, 25.0, 4.3, 300, 5.0),
    "n2": Node(4.00, 16.0, 32.0, 4.8, 350, 7.0),
}
"""Peak density was led by TrueNorth (28 nm), Groq v1 (14 nm), Bow (N7), Blackhole (N6), GB200 and GB300 (N4), and
Rubin at reticle size (N3). SRAM: bit cells of 0.127 (28 nm), 0.07 (16), 0.027 (N7), 0.021 (N5) and 0.0175 (N2) square
micrometres, about half of which a macro keeps. Transistors: the densest products, WSE and large dies of phones'
processors. Arithmetic per watt: Qualcomm AI 100 (N7), Trillium (N5 class), Rubin (N3)."""

_NAMES = (
    (r"28 ?nm", "28nm"),
    (r"\b1[246] ?nm|\b12FF", "16nm"),
    (r"\bN7|\b8N|\b7 ?nm", "n7"),
    (r"\bN6", "n6"),
    (r"\bSF[45]|\b4N|\bN[45]", "n5"),
    (r"\bN3", "n3"),
    (r"\bN2", "n2"),
)


def node_of(chip: Chip) -> Node | None:
    """Ceilings of the chip's node; of the first named where its dies differ, nothing where none is named.

    >>> from infermix.catalog.load import catalog
    >>> node_of(catalog().chips["mi300x"]) is NODES["n5"]
    True
    """
    found = ((match.start(), name) for text, name in _NAMES if (match := re.search(text, chip.process_node)))
    first = min(found, default=None)
    return NODES[first[1]] if first else None


def silicon_m2(chip: Chip) -> float | None:
    """Area of the chip's silicon; where it is not stated, the most that so many dies can have [m2]."""
    if chip.die_area_m2:
        return chip.die_area_m2.value
    return chip.compute_dies.value * RETICLE_M2 if chip.compute_dies else None

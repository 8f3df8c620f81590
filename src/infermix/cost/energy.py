"""Power, from the chip to the wall."""

from __future__ import annotations

from infermix.catalog.records import System
from infermix.errors import NoAnswer

CHIP_TO_IT = 1.8
"""IT power over the chips' TDP: median of the catalogue's eight-GPU servers that state both (a test recomputes it)."""


def facility_w(system: System, pue: float) -> float:
    """Power of a system at the wall [W]: chips, then the server around them, then cooling and losses (``pue``)."""
    if system.power_w is None:
        raise NoAnswer(f"{system.id}: the catalogue has no power figure, so a power limit cannot be checked")
    factor = {"chip": CHIP_TO_IT * pue, "it": pue, "facility": 1.0}[system.power_basis]
    return system.power_w.value * factor

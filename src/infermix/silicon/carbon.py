"""Carbon of a die from the fab's energy, gases and materials (ACT)."""

from __future__ import annotations

from infermix.arrays import Floats


def die_kg(
    area_mm2: Floats,
    kg_per_kwh: Floats,
    kwh_per_mm2: Floats,
    gas_kg_per_mm2: Floats,
    materials_kg_per_mm2: Floats,
    fab_yield: Floats,
) -> Floats:
    """Kilograms of CO2 equivalent of a good die, package apart (section 1.9; ACT)."""
    return area_mm2 * (kg_per_kwh * kwh_per_mm2 + gas_kg_per_mm2 + materials_kg_per_mm2) / fab_yield

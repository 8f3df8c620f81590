"""Magnitudes: what a figure of such a chip can be at all. Bounds are wide, but never a factor of 1,000 wide.

So a slip of a thousand (GB for TB, kW for W, milli for micro) leaves the bounds from wherever it starts.
"""

from __future__ import annotations

from collections.abc import Iterator

from infermix.catalog.check.facts import Facts, Place
from infermix.catalog.check.fault import Fault, said
from infermix.catalog.records import SI_UNITS, Chip

Bounds = tuple[float, float]

OF_CHIP: dict[str, dict[str, Bounds]] = {
    "compute_dies": {"": (1, 64)},
    "die_area_m2": {"": (50e-6, 5000e-6), "wafer": (0.03, 0.0707)},
    "transistors": {"": (2e9, 1.5e12), "wafer": (1e12, 5e13)},
    "tdp_w": {"": (15, 6000), "wafer": (5e3, 1e5)},
    "bf16_flop_per_s": {"hbm": (5e13, 4e16), "": (1e13, 8e15), "wafer": (2e15, 5e17)},
    "fp8_flop_per_s": {"hbm": (1e14, 8e16), "": (2e13, 1.6e16), "wafer": (2e15, 1e18)},
    "int8_op_per_s": {"hbm": (1e14, 8e16), "": (2e13, 1.6e16), "wafer": (2e15, 1e18)},
    "fp4_flop_per_s": {"hbm": (2e14, 1.5e17), "": (4e13, 3.2e16), "wafer": (4e15, 2e18)},
    "sram_bytes": {"hbm": (4e6, 3e9), "lpddr": (2e6, 1.5e9), "": (1e7, 8e9), "wafer": (1e10, 1e12)},
    "sram_bytes_per_s": {"hbm": (1e12, 9e14), "": (5e11, 4e14), "wafer": (2e15, 1e18)},
    "mem_bytes": {"hbm": (8e9, 4e12), "": (8e9, 6e12)},
    "mem_bytes_per_s": {"hbm": (2e11, 1e14), "gddr": (1e11, 8e12), "": (1e10, 5e12)},
    "link_bytes_per_s": {"": (1.2e10, 1e13)},
    "link_domain_chips": {"": (1, 20_000)},
    "hop_s": {"": (1e-7, 5e-5)},
    "scaleout_bytes_per_s": {"": (3e9, 2e12)},
    "vendor_system_chips": {"": (1, 20_000)},
    "chip_price_usd": {"": (400, 3e5), "wafer": (2e5, 1e7)},
    "rent_low_usd_per_hour": {"": (0.1, 60), "wafer": (10, 1000)},
    "rent_usd_per_hour": {"": (0.1, 60), "wafer": (10, 1000)},
    "operator_cost_usd_per_hour": {"": (0.05, 40), "wafer": (5, 1000)},
}
"""Field → kind of chip → lowest and highest SI value; ``""`` stands for the kinds that are not named.

The ends are about a fifth of the least and five times the most that a product of the kind had in 2026.
"""

PER_CHIP_OF_SYSTEM: dict[str, dict[str, Bounds]] = {
    "vendor_system_power_w": {"": (15, 1e4), "wafer": (5e3, 1e5)},
    "vendor_system_price_usd": {"": (400, 4e5), "wafer": (2e5, 1e7)},
    "power_w": {"": (15, 1e4), "wafer": (5e3, 1e5)},
    "rent_usd_per_hour": OF_CHIP["rent_usd_per_hour"],
    "capital_usd": {"": (400, 4e5), "wafer": (2e5, 1e7)},
    "operator_cost_usd_per_hour": OF_CHIP["operator_cost_usd_per_hour"],
    "usd_per_hour": {"": (0.1, 60), "wafer": (5, 1000)},
}
"""Figures of a system or an offer, for each of its chips."""

ELSEWHERE: dict[str, Bounds] = {
    "params": (5e7, 2e13),
    "active_params": (5e7, 5e12),
    "params_claimed": (5e7, 2e13),
    "active_params_claimed": (5e7, 5e12),
    "kv_elements_per_token": (500, 2e7),
    "input_usd_per_mtok": (0.002, 500),
    "output_usd_per_mtok": (0.005, 2500),
    "standard_input_usd_per_mtok": (0.002, 500),
    "standard_output_usd_per_mtok": (0.005, 2500),
    "price_multiple": (0.1, 20),
    "speed_tokens_per_s": (5, 30_000),
}
"""Figures of models and API offers, which span more than a thousand: only gross slips show."""

SHARE: Bounds = (0.01, 1.0)
OF_EFFICIENCY: dict[str, Bounds] = {
    "gemm_flop": SHARE,
    "gemm_flop_fp8": SHARE,
    "gemm_flop_fp4": SHARE,
    "gemm_overlap": (1.0, 10.0),
    "gemm_overlap_narrow": (1.0, 10.0),
    "moe_flop": SHARE,
    "moe_flop_narrow": SHARE,
    "moe_bytes": SHARE,
    "gemm_bytes": SHARE,
    "attention_bytes": SHARE,
    "attention_flop": SHARE,
    "memory_use": (0.3, 1.0),
    "allreduce_bytes": (0.01, 2.0),
    "moe_layer_factor": (0.3, 5.0),
    "narrowest_weight_bits": (1, 32),
    "speed": (0.05, 5.0),
    "speed_moe": (0.05, 5.0),
    "speed_few": (0.05, 10.0),
    "speed_many": (0.05, 10.0),
    "speed_prompt_few": (0.05, 10.0),
    "speed_prompt_many": (0.05, 10.0),
}
OF_STACK: dict[str, Bounds] = {
    "work": (0.001, 2.0),
    "traffic": (0.001, 2.0),
    "launches": (0.1, 100.0),
    "eager_layer_s": (1e-6, 1e-2),
    "host_s": (0.0, 1.0),
    "seq_s": (0.0, 1.0),
    "request_s": (0.0, 10.0),
    "client_s": (0.0, 0.1),
    "speed": (0.05, 10.0),
    "speed_prompt": (0.05, 10.0),
    "speed_few": (0.05, 10.0),
    "speed_many": (0.05, 10.0),
    "speed_prompt_few": (0.05, 10.0),
    "speed_prompt_many": (0.05, 10.0),
}
EVENT_S: Bounds = (1e-8, 1e-2)
"""Times of an efficiency: from a wire on the die to a host that hesitates."""
MAY_BE_NOTHING = {"mem_bytes", "mem_bytes_per_s", "kv_elements_per_token", "head_s", "hop_s", "host_s", "seq_s",
                  "quantise_s", "prompt_layer_s", "prompt_moe_layer_s", "prompt_s"}  # fmt: skip
"""Fields in which 0 means that the thing does not exist."""


def bounds_of(chip: Chip, field: str) -> Bounds | None:
    """Lowest and highest value of a chip's field, where they are stated for it alone."""
    if chip.kind == "other":
        return None
    kinds = OF_CHIP.get(field, {})
    return kinds.get("wafer" if chip.cls == "wafer" else chip.kind, kinds.get(""))


def magnitudes_are_plausible(facts: Facts) -> Iterator[Fault]:
    """A unit misread by a factor of 1,000 gives a chip that does not exist."""
    for place in facts.figures.values():
        bounds = _bounds(facts, place)
        if bounds is None or (place.field in MAY_BE_NOTHING and place.figure.value == 0):
            continue
        parts = (place.figure.value, place.figure.low, place.figure.high)
        lowest, highest = min(x for x in parts if x is not None), max(x for x in parts if x is not None)
        if place.field in MAY_BE_NOTHING or place.figure.low == 0:
            lowest = place.figure.value
        if not bounds[0] <= lowest <= highest <= bounds[1]:
            wrong = lowest if lowest < bounds[0] else highest
            unit = place.figure.unit
            yield facts.fault(
                "magnitudes_are_plausible",
                place.record,
                place.field,
                "is of the wrong magnitude",
                value=said(wrong, unit),
                allowed=f"{said(bounds[0], unit)} to {said(bounds[1], unit)}",
                mend="check the unit",
            )


def _bounds(facts: Facts, place: Place) -> Bounds | None:
    part, _, id_ = place.record.partition("/")
    if part == "stacks":
        return OF_STACK.get(place.field)
    if part == "efficiency":
        return OF_EFFICIENCY.get(place.field) or (EVENT_S if place.figure.unit == "s" else None)
    chips = 1.0
    chip: Chip | None = None
    if part == "chips":
        chip = facts.chips[id_]
        if place.field in PER_CHIP_OF_SYSTEM and place.field.startswith("vendor_system_"):
            if chip.vendor_system_chips is None:
                return None
            chips = chip.vendor_system_chips.value
    elif part == "systems":
        system = facts.systems[id_]
        chip, chips = facts.chips.get(system.chip), system.chips + system.spare_chips
    elif part == "prices":
        offer = facts.prices[id_]
        chip, chips = facts.chips.get(offer.chip), offer.chips
    if chip is None:
        return ELSEWHERE.get(place.field)
    one = bounds_of(chip, place.field) if part == "chips" else None
    if one is None and chip.kind != "other":
        kinds = PER_CHIP_OF_SYSTEM.get(place.field, {})
        one = kinds.get("wafer" if chip.cls == "wafer" else chip.kind, kinds.get(""))
    return (one[0] * chips, one[1] * chips) if one else ELSEWHERE.get(place.field)


def units_belong_to_fields(facts: Facts) -> Iterator[Fault]:
    """After reading, every field stands in its own SI unit."""
    for place in facts.figures.values():
        unit = SI_UNITS.get(place.field)
        if not place.record.startswith(("efficiency/", "stacks/")) and unit != place.figure.unit:
            yield facts.fault(
                "units_belong_to_fields",
                place.record,
                place.field,
                "unit of the wrong kind",
                value=place.figure.unit,
                allowed=unit or "a field of SI_UNITS",
            )


def values_lie_in_their_ranges(facts: Facts) -> Iterator[Fault]:
    """A range that leaves out its own value, or has one end only, says nothing; figures are positive."""
    for place in facts.figures.values():
        item = place.figure
        if item.value < 0 or (item.value == 0 and place.field not in MAY_BE_NOTHING):
            yield facts.fault(
                "values_lie_in_their_ranges",
                place.record,
                place.field,
                "is not positive",
                value=item,
                allowed="above 0",
            )
        low = item.value if item.low is None else item.low
        high = item.value if item.high is None else item.high
        if not low <= item.value <= high:
            yield facts.fault(
                "values_lie_in_their_ranges",
                place.record,
                place.field,
                "value outside its own range",
                value=item,
                allowed=f"{said(low, item.unit)} to {said(high, item.unit)}",
            )

"""What the check claims to catch, it catches on every chip: slips of 1,000 anywhere, of 2 to 8 where physics tells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from importlib.resources import files

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from infermix.catalog.check import bounds, links, memory, peaks, silicon
from infermix.catalog.check.facts import Facts, read
from infermix.catalog.check.fault import Fault
from infermix.catalog.records import SI_UNITS, Chip

FACTS = read(files("infermix.catalog") / "data")
CHIPS = {id_: chip for id_, chip in FACTS.chips.items() if chip.kind != "other"}
COUNTS = {name for name in bounds.OF_CHIP if SI_UNITS[name] in ("1", "chips")}
RATIO = "narrow_rates_are_small_multiples"


def slip(chip: Chip, field: str, factor: float) -> Chip:
    figure = getattr(chip, field)
    ends = {part: end * factor for part in ("value", "low", "high") if (end := getattr(figure, part)) is not None}
    return msgspec.structs.replace(chip, **{field: msgspec.structs.replace(figure, **ends)})


def found(chip: Chip, *rules: Callable[[Facts], object]) -> list[Fault]:
    kin = {id_: other for id_, other in FACTS.chips.items() if other.vendor == chip.vendor} | {chip.id: chip}
    facts = dataclasses.replace(Facts(files=FACTS.files), chips=kin)
    return [fault for rule in rules for fault in rule(facts) if fault.record == f"chips/{chip.id}"]  # type: ignore[attr-defined]


def held(chip: Chip, field: str) -> float:
    figure = getattr(chip, field)
    return figure.value if figure else 0.0


@pytest.mark.parametrize(
    ("field", "ends"),
    [(field, ends) for field, kinds in bounds.OF_CHIP.items() if field not in COUNTS for ends in kinds.values()],
)
def test_no_bounds_are_a_thousand_wide(field: str, ends: tuple[float, float]) -> None:
    assert 0 < ends[0] < ends[1] < 1000 * ends[0]


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(CHIPS)),
    st.sampled_from(sorted(set(bounds.OF_CHIP) - COUNTS)),
    st.sampled_from([1000.0, 0.001]),
)
def test_a_thousand_too_much_or_too_little_is_caught_everywhere(id_: str, field: str, factor: float) -> None:
    chip = CHIPS[id_]
    assume(held(chip, field) and bounds.bounds_of(chip, field))
    (fault,) = [
        fault for fault in found(slip(chip, field, factor), bounds.magnitudes_are_plausible) if fault.field == field
    ]
    assert fault.figures[0] == f"chips/{id_}/{field}"


def doubles(wide: str, narrow: str) -> Callable[[Chip], bool]:
    return lambda chip: bool(held(chip, wide)) and abs(held(chip, narrow) / held(chip, wide) / 2 - 1) < 0.07


def alike_on_one_die(chip: Chip) -> bool:
    peak = held(chip, "bf16_flop_per_s")
    sisters = [other for other in FACTS.chips.values() if other.id != chip.id and peaks._same_die(chip, other)]
    rivals = [held(other, "bf16_flop_per_s") for other in sisters]
    return bool(peak and max(rivals, default=0) and 2 * peak > peaks.SISTER_SLACK * max(rivals))


CLAIMS: list[tuple[str, str, float, Callable[[Facts], object], Callable[[Chip], bool]]] = [
    ("sparse fp8", "fp8_flop_per_s", 2, peaks.narrow_rates_are_small_multiples,
     doubles("bf16_flop_per_s", "fp8_flop_per_s")),
    ("sparse fp4", "fp4_flop_per_s", 2, peaks.narrow_rates_are_small_multiples,
     doubles("fp8_flop_per_s", "fp4_flop_per_s")),
    ("sparse int8", "int8_op_per_s", 2, peaks.narrow_rates_are_small_multiples,
     doubles("bf16_flop_per_s", "int8_op_per_s")),
    ("sparse bf16 beside a sister", "bf16_flop_per_s", 2, peaks.sisters_on_one_die_agree, alike_on_one_die),
    ("both directions", "link_bytes_per_s", 2, links.links_carry_what_their_name_says,
     lambda chip: bool(held(chip, "link_bytes_per_s") and links.stated_rate(chip))),
    ("half a link", "link_bytes_per_s", 0.5, links.links_carry_what_their_name_says,
     lambda chip: bool(held(chip, "link_bytes_per_s") and links.stated_rate(chip))),
    ("bits for bytes of HBM", "mem_bytes_per_s", 8, memory.parts_explain_capacity_and_bandwidth,
     lambda chip: memory.type_of(chip).startswith("HBM") and memory.type_of(chip) != "HBM"
     and bool(held(chip, "mem_bytes_per_s"))),
    ("twice the bandwidth of HBM3E", "mem_bytes_per_s", 2, memory.parts_explain_capacity_and_bandwidth,
     lambda chip: memory.type_of(chip) == "HBM3E" and bool(held(chip, "mem_bytes_per_s"))),
    ("bits for bytes of a network", "scaleout_bytes_per_s", 8, links.adapters_have_their_rates,
     lambda chip: held(chip, "scaleout_bytes_per_s") >= 50e9),
    ("three times a system's power", "vendor_system_power_w", 3, silicon.systems_draw_more_than_their_chips,
     lambda chip: bool(held(chip, "vendor_system_power_w") and held(chip, "tdp_w")
                       and held(chip, "vendor_system_chips"))),
]  # fmt: skip


@pytest.mark.parametrize(("what", "field", "factor", "rule", "applies"), CLAIMS, ids=[claim[0] for claim in CLAIMS])
def test_a_slip_that_physics_tells_is_caught_on_every_chip_it_applies_to(
    what: str, field: str, factor: float, rule: Callable[[Facts], object], applies: Callable[[Chip], bool]
) -> None:
    chips = [chip for chip in CHIPS.values() if applies(chip)]
    assert len(chips) >= 5, what
    missed = [
        chip.id
        for chip in chips
        if not any(f"chips/{chip.id}/{field}" in fault.figures for fault in found(slip(chip, field, factor), rule))
    ]
    assert not missed


def test_counts_have_no_claim() -> None:
    assert {"compute_dies", "link_domain_chips", "vendor_system_chips"} == COUNTS

"""Names: every id, spelling and reference leads to one record, and every chip to a speed or the reason for none."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from infermix.catalog.check.facts import Facts
from infermix.catalog.check.fault import Fault
from infermix.catalog.load import canonical
from infermix.catalog.records import Chip
from infermix.errors import near_miss

_ID = re.compile(r"[a-z0-9]+(?:[.-][a-z0-9]+)*")
OF_MACHINE = {
    "hbm": (
        "gemm_flop", "gemm_flop_fp8", "gemm_flop_fp4", "gemm_bytes", "gemm_overlap", "gemm_overlap_narrow",
        "gemm_floor_s", "quantise_s", "moe_flop", "moe_flop_narrow", "moe_bytes", "attention_bytes", "attention_flop",
        "attention_floor_s", "allreduce_start_s", "allreduce_bytes", "layer_s", "moe_layer_s", "prompt_layer_s",
        "prompt_moe_layer_s", "prompt_s", "host_s", "seq_s", "memory_use", "speed",
    ),
    "pipeline": (
        "layer_s", "moe_layer_factor", "hop_s", "head_s", "offchip_bytes_per_s", "memory_use", "gemm_flop", "speed",
    ),
}  # fmt: skip
"""Figures without which the step time of a machine cannot be computed."""
OF_CHIP = {"hbm": ("mem_bytes", "mem_bytes_per_s"), "pipeline": ("sram_bytes", "sram_bytes_per_s")}
PEAKS = ("bf16_flop_per_s", "fp8_flop_per_s", "int8_op_per_s")


def ids_are_plain(facts: Facts) -> Iterator[Fault]:
    """Ids are lower case with hyphens, so that they can be typed, stand in paths and in figure ids."""
    for key, _ in facts.records():
        id_ = key.partition("/")[2]
        if not _ID.fullmatch(id_):
            yield facts.fault(
                "ids_are_plain", key, "id", "is no plain id", value=id_, allowed="lower case, digits, hyphens, dots"
            )


def spellings_lead_to_one_record(facts: Facts) -> Iterator[Fault]:
    """An id, name or alias that two records of a kind share finds the wrong one for somebody."""
    for part in ("chips", "systems", "models"):
        taken: dict[str, str] = {}
        for id_, record in facts.parts()[part].items():
            name, aliases = getattr(record, "name", ""), getattr(record, "aliases", ())
            for field, text in (("id", id_), ("name", name), *(("aliases", alias) for alias in aliases)):
                other = taken.setdefault(canonical(text), id_)
                if other != id_:
                    yield facts.fault(
                        "spellings_lead_to_one_record",
                        f"{part}/{id_}",
                        field,
                        f"is also a spelling of {part}/{other}",
                        value=text,
                        allowed="one record for each spelling",
                        mend="take it from one of the two",
                    )


def references_lead_somewhere(facts: Facts) -> Iterator[Fault]:
    """Chips of systems and offers, efficiencies of chips, models of hardwired chips exist."""
    links = [(f"systems/{id_}", "chip", system.chip, "chips") for id_, system in facts.systems.items()]
    links += [(f"prices/{id_}", "chip", price.chip, "chips") for id_, price in facts.prices.items() if price.chip]
    links += [
        (f"chips/{id_}", "efficiency", chip.efficiency, "efficiency")
        for id_, chip in facts.chips.items()
        if chip.efficiency
    ]
    links += [
        (f"chips/{id_}", "only_models", m, "models") for id_, chip in facts.chips.items() for m in chip.only_models
    ]
    for key, field, name, part in links:
        known: Mapping[str, object] = facts.parts()[part]
        if name not in known and not facts.is_malformed(f"{part}/{name}"):
            yield facts.fault(
                "references_lead_somewhere",
                key,
                field,
                f"is not in {part}",
                value=name,
                mend=near_miss(name, known) or f"add {part}/{name} or mend the name",
            )


def counts_of_chips_are_whole(facts: Facts) -> Iterator[Fault]:
    """Systems and offers are of one chip or more; spares do not outnumber what they stand by for."""
    for part, held in (("systems", facts.systems), ("prices", facts.prices)):
        for id_, record in held.items():
            chips, spare = record.chips, getattr(record, "spare_chips", 0)
            if chips < 1 or not 0 <= spare <= chips:
                yield facts.fault(
                    "counts_of_chips_are_whole",
                    f"{part}/{id_}",
                    "chips" if chips < 1 else "spare_chips",
                    "is no possible number of chips",
                    value=str(chips if chips < 1 else spare),
                    allowed="1 or more" if chips < 1 else f"0 to {chips}",
                )


def families_are_whole(facts: Facts) -> Iterator[Fault]:
    """A family lacks no figure that the step time of its machine is computed from."""
    for id_, family in facts.efficiency.items():
        for name in OF_MACHINE[family.machine]:
            if name not in family.figures:
                yield facts.fault(
                    "families_are_whole",
                    f"efficiency/{id_}",
                    name,
                    f"is missing for the machine {family.machine}",
                    value="nothing",
                    allowed=", ".join(OF_MACHINE[family.machine]),
                )


def no_speed_says_why(facts: Facts) -> Iterator[Fault]:
    """A chip has a speed or says why not: a missing reason surprises in use, a needless one hides a chip."""
    for id_, chip in facts.chips.items():
        if facts.is_malformed(f"efficiency/{chip.efficiency}"):
            continue
        lacks = _lacks(facts, chip)
        if bool(lacks) != bool(chip.no_speed):
            yield facts.fault(
                "no_speed_says_why",
                f"chips/{id_}",
                "no_speed",
                f"is missing, but the chip lacks {', '.join(lacks)}" if lacks else "is stated, but nothing lacks",
                value=chip.no_speed or "nothing",
                allowed="a reason where an efficiency or figures are missing, else nothing",
            )


def _lacks(facts: Facts, chip: Chip) -> list[str]:
    """What a step time would need and the chip does not have."""
    family = facts.efficiency.get(chip.efficiency)
    if family is None:
        return ["an efficiency"]
    names = [name for name in OF_CHIP[family.machine] if not (item := getattr(chip, name)) or not item.value]
    return names + ([] if any(getattr(chip, name) for name in PEAKS) else ["a peak rate of 8 bits or more"])

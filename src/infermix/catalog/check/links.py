"""Links: rates are per direction, and a link's name says what it can carry."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from infermix.catalog.check.facts import Facts
from infermix.catalog.check.fault import Fault, said
from infermix.catalog.records import Chip

SLACK = 0.03
GBYTE = 1e9


class Rate(NamedTuple):
    """What the text of a link says it carries in one direction [byte/s]."""

    low: float
    high: float
    because: str


GENERATIONS = (
    (r"\bNVLink2\b", 150),
    (r"\bNVLink3\b", 300),
    (r"\bNVLink4\b", 450),
    (r"\bNVLink5\b", 900),
    (r"\bNVLink6\b", 1800),
)
"""GB/s of one chip in one direction: NVLink2 6 links x 25, NVLink3 12 x 25, NVLink4 18 x 25, NVLink5 18 x 50, NVLink6
18 x 100."""
PCIE_LANE = {"3": 1, "4": 2, "5": 4, "6": 8}
"""GB/s of one PCI Express lane in one direction (8, 16, 32, 64 GT/s, encoding not taken off); 16 unless said."""

INFINITY_FABRIC = (50.0, 64.0, 76.8)
"""GB/s of one Infinity Fabric link in one direction on CDNA 2, 3 and 4."""
NIC_GBIT_PER_S = (25, 50, 100, 200, 400, 800)
NEW_NIC_GBIT_PER_S, NEW_NIC_YEAR = (1600, 2400), 2026
"""What network adapters beside one chip add up to; beyond 800 Gbit/s since ConnectX-9 and MI455X, of 2026."""

_PCIE = re.compile(r"^PCI ?e(?:xpress)? ?([3-6])\b(?: x(\d+))?", re.IGNORECASE)
_TIMES = re.compile(r"(\d+)\s*x\s*(?:QSFP-DD\s*)?(\d+)\s*(?:G|GbE)\b")
_FEWER = re.compile(r"\((\d+) in node")
_LANES = re.compile(r"(\d+) C2C links x\s*(\d+) lanes (\d+)G")
_BOTH = re.compile(r"([\d.]+) (GB|TB)/s bidir")
_CUT = re.compile(r"cut to ([\d.]+) GB/s")
_TOTAL = re.compile(r"NeuronLink\S* [^(]*\(([\d.]+) TB/s\)")
_ICI = re.compile(r"\bICI\b[^(]*?([\d.]+) Tb/s")
_LINKS_OF = re.compile(r"(\d+) links x ([\d.]+) GB/s")


def stated_rate(chip: Chip) -> Rate | None:
    """What the chip's link carries in one direction, where its text tells.

    >>> from infermix.catalog.load import catalog
    >>> stated_rate(catalog().chips["h200-sxm"]).because
    'NVLink4 carries 450 GB/s each way'
    """
    text = chip.link
    if cut := _CUT.search(text):
        each = float(cut[1]) * GBYTE / 2
        return _about(each, f"export limits count both directions, so {said(each, 'byte/s')} each way")
    for pattern, rate in GENERATIONS:
        if named := re.search(pattern, text):
            return _about(rate * GBYTE, f"{named[0]} carries {rate} GB/s each way")
    if lanes := _PCIE.search(text):
        rate = PCIE_LANE[lanes[1]] * int(lanes[2] or 16)
        return _about(rate * GBYTE, f"{lanes[0]} carries {rate} GB/s each way")
    if both := _BOTH.search(text):
        each = float(both[1]) * {"GB": GBYTE, "TB": 1e12}[both[2]] / 2
        return _about(each, f"{both[0]} is {said(each, 'byte/s')} each way")
    if both := _TOTAL.search(text) or _ICI.search(text):
        each = float(both[1]) * (1e12 if "NeuronLink" in text else 1e12 / 8) / 2
        return _about(each, f"totals count both directions, so {said(each, 'byte/s')} each way")
    return _counted(text)


def _counted(text: str) -> Rate | None:
    if lanes := _LANES.search(text):
        return _coded(int(lanes[1]) * int(lanes[2]) * int(lanes[3]), lanes[0])
    if links := _LINKS_OF.search(text):
        return _about(int(links[1]) * float(links[2]) * GBYTE, links[0])
    if times := _TIMES.search(text):
        fewer = _FEWER.search(text)
        most = int(times[1]) * int(times[2])
        least = int(fewer[1]) * int(times[2]) if fewer else most
        return Rate(0.88 * least * GBYTE / 8, (1 + SLACK) * most * GBYTE / 8, times[0])
    return None


def _about(rate: float, because: str) -> Rate:
    return Rate((1 - SLACK) * rate, (1 + SLACK) * rate, because)


def _coded(gbit: float, because: str) -> Rate:
    """Raw lane rates lose up to an eighth to coding."""
    return Rate(0.88 * gbit * GBYTE / 8, (1 + SLACK) * gbit * GBYTE / 8, because)


def links_carry_what_their_name_says(facts: Facts) -> Iterator[Fault]:
    """Vendors quote both directions added up, or bits: the name of a link says what goes each way."""
    for id_, chip in facts.chips.items():
        rate, stated = chip.link_bytes_per_s, stated_rate(chip)
        if rate and stated and not stated.low <= rate.value <= stated.high:
            yield facts.fault(
                "links_carry_what_their_name_says",
                f"chips/{id_}",
                "link_bytes_per_s",
                f"is not what {chip.link!r} carries",
                value=rate,
                allowed=f"{said(stated.low, 'byte/s')} to {said(stated.high, 'byte/s')}: {stated.because}",
                mend="rates are per direction, in bytes",
            )


def infinity_fabric_is_made_of_links(facts: Facts) -> Iterator[Fault]:
    """AMD's fabric has one to eight links of 50, 64 or 76.8 GB/s each way; a full mesh has a link to each neighbour."""
    for id_, chip in facts.chips.items():
        rate = chip.link_bytes_per_s
        if not rate or "Infinity Fabric" not in chip.link:
            continue
        stated = re.search(r"(\d+) links", chip.link)
        numbers = [int(stated[1])] if stated else range(1, 9)
        if chip.link_domain_chips and "full mesh" in chip.link:
            numbers = [max(1, int(chip.link_domain_chips.value) - 1)]
        rates = [n * each * GBYTE for n in numbers for each in INFINITY_FABRIC]
        if not any(abs(rate.value / each - 1.0) <= 0.01 for each in rates):
            yield facts.fault(
                "infinity_fabric_is_made_of_links",
                f"chips/{id_}",
                "link_bytes_per_s",
                "is no whole number of links",
                value=rate,
                allowed=f"{'/'.join(map(str, numbers))} links of {'/'.join(map(str, INFINITY_FABRIC))} GB/s",
                mend="rates are per direction",
            )


def adapters_have_their_rates(facts: Facts) -> Iterator[Fault]:
    """Network adapters come in powers of two of Ethernet lanes: another rate is one in bytes taken for bits."""
    for id_, chip in facts.chips.items():
        rate = chip.scaleout_bytes_per_s
        year = re.search(r"\d{4}", chip.year)
        rates = NIC_GBIT_PER_S + (NEW_NIC_GBIT_PER_S if not year or int(year[0]) >= NEW_NIC_YEAR else ())
        if rate and not any(abs(rate.value * 8e-9 / each - 1.0) <= SLACK for each in rates):
            yield facts.fault(
                "adapters_have_their_rates",
                f"chips/{id_}",
                "scaleout_bytes_per_s",
                "no network adapters add up to it",
                value=f"{rate.value * 8e-9:,.4g} Gbit/s",
                allowed=f"{', '.join(map(str, rates))} Gbit/s",
                mend="GB or Gbit?",
            )


def links_do_not_outrun_memory(facts: Facts) -> Iterator[Fault]:
    """What a link carries comes out of memory: no link is faster than half of its chip's fastest memory."""
    for id_, chip in facts.chips.items():
        rates = [rate.value for rate in (chip.mem_bytes_per_s, chip.sram_bytes_per_s) if rate]
        link = chip.link_bytes_per_s
        if link and rates and max(rates) and link.value > 0.8 * max(rates):
            yield facts.fault(
                "links_do_not_outrun_memory",
                f"chips/{id_}",
                "link_bytes_per_s",
                "is nearly as fast as the memory behind it",
                value=link,
                allowed=f"at most {said(0.8 * max(rates), 'byte/s')}",
                mend="GB or Gbit?",
            )

"""Units: the only place where anything is converted. Inside infermix every quantity is SI.

The catalogue keeps the unit that its source used (``TB/s``, ``GB``, ``TFLOP/s``); loading
converts it. Sizes are decimal (GB = 1e9 bytes) unless the unit says GiB.
"""

from __future__ import annotations

from infermix.errors import InputError, near_miss

SECONDS_PER_HOUR = 3600.0
TOKENS_PER_MTOK = 1e6

_SI: dict[str, tuple[str, float]] = {
    "1": ("1", 1.0),
    "chips": ("chips", 1.0),
    "tokens": ("tokens", 1.0),
    "s": ("s", 1.0),
    "ms": ("s", 1e-3),
    "us": ("s", 1e-6),
    "ns": ("s", 1e-9),
    "h": ("s", 3600.0),
    "year": ("s", 365.25 * 24 * 3600.0),
    "byte": ("byte", 1.0),
    "MB": ("byte", 1e6),
    "GB": ("byte", 1e9),
    "MiB": ("byte", 2.0**20),
    "GiB": ("byte", 2.0**30),
    "byte/s": ("byte/s", 1.0),
    "GB/s": ("byte/s", 1e9),
    "TB/s": ("byte/s", 1e12),
    "Gbit/s": ("byte/s", 1e9 / 8),
    "FLOP/s": ("FLOP/s", 1.0),
    "TFLOP/s": ("FLOP/s", 1e12),
    "OP/s": ("OP/s", 1.0),
    "TOP/s": ("OP/s", 1e12),
    "W": ("W", 1.0),
    "kW": ("W", 1e3),
    "MW": ("W", 1e6),
    "m2": ("m2", 1.0),
    "mm2": ("m2", 1e-6),
    "transistors": ("transistors", 1.0),
    "Gtransistors": ("transistors", 1e9),
    "parameters": ("parameters", 1.0),
    "Gparameters": ("parameters", 1e9),
    "USD": ("USD", 1.0),
    "USD/h": ("USD/h", 1.0),
    "USD/Mtok": ("USD/Mtok", 1.0),
    "USD/kWh": ("USD/kWh", 1.0),
    "tokens/s": ("tokens/s", 1.0),
}


def si_unit(unit: str, *, where: str = "") -> str:
    """SI name of a unit.

    >>> si_unit("TB/s")
    'byte/s'
    """
    return _lookup(unit, where)[0]


def to_si(value: float, unit: str, *, where: str = "") -> float:
    """Convert a value from a catalogue unit to SI.

    >>> to_si(4.8, "TB/s")
    4800000000000.0
    """
    return value * _lookup(unit, where)[1]


def _lookup(unit: str, where: str) -> tuple[str, float]:
    try:
        return _SI[unit]
    except KeyError:
        raise InputError(
            "unknown unit", where=where, value=unit, allowed=", ".join(_SI), mend=near_miss(unit, _SI)
        ) from None


_CHIP: dict[str, tuple[str, float]] = {
    "1": ("1", 1.0),
    "mm": ("mm", 1.0),
    "mm2": ("mm2", 1.0),
    "um2": ("mm2", 1e-6),
    "defects/mm2": ("defects/mm2", 1.0),
    "defects/cm2": ("defects/mm2", 1e-2),
    "mm2/MB": ("mm2/byte", 1e-6),
    "mm2/TFLOP/s": ("mm2 s/FLOP", 1e-12),
    "MTr/mm2": ("transistors/mm2", 1e6),
    "MTr": ("transistors", 1e6),
    "W/mm2": ("W/mm2", 1.0),
    "W/TFLOP/s": ("J/FLOP", 1e-12),
    "pJ/byte": ("J/byte", 1e-12),
    "pJ/bit": ("J/byte", 8e-12),
    "USD": ("USD", 1.0),
    "kUSD": ("USD", 1e3),
    "MUSD": ("USD", 1e6),
    "GUSD": ("USD", 1e9),
    "USD/mm2": ("USD/mm2", 1.0),
    "USD/GB": ("USD/byte", 1e-9),
    "USD/W": ("USD/W", 1.0),
    "USD/W/month": ("USD/W/month", 1.0),
    "USD/kWh": ("USD/kWh", 1.0),
    "USD/year": ("USD/year", 1.0),
    "USD/week": ("USD/week", 1.0),
    "GB": ("byte", 1e9),
    "MB": ("byte", 1e6),
    "GB/s": ("byte/s", 1e9),
    "TB/s": ("byte/s", 1e12),
    "GB/s/MB": ("1/s", 1e3),
    "W": ("W", 1.0),
    "GW": ("W", 1e9),
    "weeks": ("weeks", 1.0),
    "months": ("weeks", 365.25 / 12 / 7),
    "years": ("years", 1.0),
    "people": ("people", 1.0),
    "passes": ("passes", 1.0),
    "passes/h": ("passes/h", 1.0),
    "wafers/h": ("wafers/h", 1.0),
    "wafers/month": ("wafers/month", 1.0),
    "units/wafer": ("units/wafer", 1.0),
    "tools/year": ("tools/year", 1.0),
    "USD/(wafer/month)": ("USD/(wafer/month)", 1.0),
    "USD/(wafer/year)": ("USD/(wafer/year)", 1.0),
    "kWh/cm2": ("kWh/mm2", 1e-2),
    "g/cm2": ("kg/mm2", 1e-5),
    "g/kWh": ("kg/kWh", 1e-3),
    "kg": ("kg", 1.0),
    "GUSD/GW": ("USD/W", 1.0),
    "kwafers/GW": ("wafers/W", 1e-6),
    "Mpasses/GW": ("passes/W", 1e-3),
    "FLOP/byte": ("FLOP/byte", 1.0),
    "byte/FLOP": ("byte/FLOP", 1.0),
    "us": ("s", 1e-6),
    "s": ("s", 1.0),
    "A/mm2": ("A/mm2", 1.0),
    "V": ("V", 1.0),
}
"""Units in which the chip trade counts, and what ``silicon`` keeps: mm2, USD, weeks; bytes, watts and joules."""
MONTHS_PER_YEAR = 12
HOURS_PER_FISCAL_YEAR = 8760
WEEKS_PER_YEAR = 365.25 / 7
HOURS_PER_WEEK = 168
DAYS_PER_YEAR = 365
SECONDS_PER_DAY = 86_400
MM2_PER_CM2 = 100
WATTS_PER_GW = 1e9


def to_chip_unit(unit: str, *, where: str = "") -> tuple[str, float]:
    """The unit that ``silicon`` keeps a constant in, and the factor to it.

    >>> to_chip_unit("defects/cm2")
    ('defects/mm2', 0.01)
    """
    try:
        return _CHIP[unit]
    except KeyError:
        raise InputError(
            "unknown unit", where=where, value=unit, allowed=", ".join(_CHIP), mend=near_miss(unit, _CHIP)
        ) from None

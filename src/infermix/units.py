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

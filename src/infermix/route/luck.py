"""Hashes of small numbers, for affinity and draws: whole numbers below 2^32, alike compiled and as plain Python."""

from __future__ import annotations

from infermix.jit import inline

_LOW_32 = 0xFFFFFFFF
_FACTOR = 0x45D9F3B
_STRIDE = 0x1E3779B1
_TO_UNIT = 1.0 / 4294967296.0


@inline
def mixed(x: int) -> int:
    """A one-to-one scramble of 32 bits (two rounds of xor-shift and multiply); products stay below 2^63."""
    x = (x ^ (x >> 16)) * _FACTOR & _LOW_32
    x = (x ^ (x >> 16)) * _FACTOR & _LOW_32
    return x ^ (x >> 16)


@inline
def unit_of(key: int, number: int) -> float:
    """A number in (0, 1) that hangs on both, uniform over keys and over numbers."""
    return (mixed((mixed(key & _LOW_32) + (number + 1) * _STRIDE) & _LOW_32) + 0.5) * _TO_UNIT

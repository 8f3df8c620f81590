"""Units: the traps that cost a factor (bits, GiB, kilo, years), and one line for an unknown unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermix.errors import InputError
from infermix.units import _SI, SECONDS_PER_HOUR, si_unit, to_si

finite = st.floats(-1e12, 1e12)


@pytest.mark.parametrize(
    ("value", "unit", "si", "expected"),
    [
        (80, "GB", "byte", 80e9),
        (80, "GiB", "byte", 85_899_345_920),
        (1, "MiB", "byte", 1_048_576),
        (400, "Gbit/s", "byte/s", 50e9),
        (900, "GB/s", "byte/s", 900e9),
        (21, "TB/s", "byte/s", 21e12),
        (989, "TFLOP/s", "FLOP/s", 989e12),
        (3958, "TOP/s", "OP/s", 3958e12),
        (23, "kW", "W", 23_000),
        (46_225, "mm2", "m2", 0.046225),
        (2.5, "ms", "s", 0.0025),
        (1, "us", "s", 1e-6),
        (1, "year", "s", 31_557_600),
        (1, "h", "s", SECONDS_PER_HOUR),
        (4_000, "Gtransistors", "transistors", 4e12),
        (3.5, "USD/h", "USD/h", 3.5),
    ],
)
def test_known_conversions(value: float, unit: str, si: str, expected: float) -> None:
    assert si_unit(unit) == si
    assert to_si(value, unit) == pytest.approx(expected, rel=1e-15)


@pytest.mark.parametrize("unit", sorted(_SI))
def test_every_si_name_is_a_unit_that_converts_to_itself(unit: str) -> None:
    si = si_unit(unit)
    assert si_unit(si) == si
    assert to_si(1.0, si) == 1.0
    assert to_si(1.0, unit) > 0


@given(finite, finite, st.sampled_from(sorted(_SI)))
def test_converting_keeps_the_order(a: float, b: float, unit: str) -> None:
    low, high = sorted((a, b))
    assert to_si(low, unit) <= to_si(high, unit)


def test_operations_are_not_floating_point_operations() -> None:
    assert si_unit("TOP/s") != si_unit("TFLOP/s")


@pytest.mark.parametrize(
    "convert", [lambda: si_unit("TB/S", where="chips/x.toml"), lambda: to_si(1, "TB/S", where="chips/x.toml")]
)
def test_an_unknown_unit_is_one_line_with_the_near_miss(convert: object) -> None:
    assert callable(convert)
    with pytest.raises(
        InputError, match=r"^chips/x\.toml: unknown unit; got 'TB/S'; allowed: .*; did you mean 'TB/s'\?$"
    ):
        convert()

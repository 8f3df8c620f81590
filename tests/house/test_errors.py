"""One line that says what, where, the value, what is allowed and how to mend it; and the exit codes."""

from __future__ import annotations

import pytest

from infermix.errors import InfermixError, InputError, NoAnswer, near_miss


def test_the_line_says_everything_in_order() -> None:
    fault = InputError(
        "unknown chip", where="study.toml: market", value="h300", allowed="h100, h200", mend="choose one"
    )
    assert str(fault) == "study.toml: market: unknown chip; got 'h300'; allowed: h100, h200; choose one"
    assert (fault.what, fault.where, fault.value) == ("unknown chip", "study.toml: market", "h300")


def test_what_is_not_said_leaves_no_trace() -> None:
    assert str(InputError("empty trace")) == "empty trace"


@pytest.mark.parametrize("value", [0, 0.0, "", False, ()])
def test_a_false_value_is_shown_all_the_same(value: object) -> None:
    assert str(InputError("too small", value=value)) == f"too small; got {value!r}"


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (NoAnswer, 1)])
def test_exit_codes(error: type[InfermixError], code: int) -> None:
    assert issubclass(error, InfermixError)
    assert error.exit_code == code


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("h200x8", "did you mean 'h200-x8'?"),
        ("H200-X8", "did you mean 'h200-x8'?"),
        ("zzz", ""),
        ("", ""),
        ("cs", "did you mean 'cs3'?"),
    ],
)
def test_near_miss(name: str, hint: str) -> None:
    assert near_miss(name, ["h200-x8", "cs3"]) == hint


def test_near_miss_takes_an_iterator_and_knows_nothing_of_nothing() -> None:
    assert near_miss("cs-3", iter(["cs3"])) == "did you mean 'cs3'?"
    assert near_miss("cs-3", []) == ""

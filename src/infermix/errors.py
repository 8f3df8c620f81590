"""Errors: the library raises, only the command line exits.

InfermixError
├── InputError   malformed input                       exit code 2
└── NoAnswer     well formed, but infeasible/unproved  exit code 1
"""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterable, Iterator


class InfermixError(Exception):
    """Base of every error that infermix raises on purpose."""

    exit_code = 2


class InputError(InfermixError):
    """Malformed input, told in one line: what, where, the value, what is allowed, how to mend it."""

    exit_code = 2

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        value: object = None,
        allowed: str = "",
        mend: str = "",
    ) -> None:
        parts = [f"{where}: {what}" if where else what]
        if value is not None:
            parts.append(f"got {value!r}")
        if allowed:
            parts.append(f"allowed: {allowed}")
        if mend:
            parts.append(mend)
        super().__init__("; ".join(parts))
        self.what, self.where, self.value = what, where, value


@contextlib.contextmanager
def located(where: str) -> Iterator[None]:
    """Put a place in front of input errors raised inside.

    >>> with located("study.toml: model"):
    ...     raise InputError("unknown model", value="lama")
    Traceback (most recent call last):
    infermix.errors.InputError: study.toml: model: unknown model; got 'lama'
    """
    try:
        yield
    except InputError as fault:
        raise InputError(str(fault), where=where) from None


class NoAnswer(InfermixError):
    """A well-formed question without a feasible (or proved) answer; the message names what stands in the way."""

    exit_code = 1


def near_miss(name: str, known: Iterable[str]) -> str:
    """Return a hint such as ``did you mean 'h200-x8'?`` (empty when nothing is close).

    >>> near_miss("h200x8", ["h200-x8", "cs3"])
    "did you mean 'h200-x8'?"
    """
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else ""

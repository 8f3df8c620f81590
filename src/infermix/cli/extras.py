"""Parts that are installed on demand: what is missing is said with the command that installs it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from infermix.errors import InputError


@contextlib.contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """Imports inside need the packages of an extra.

    >>> with needs_extra("serve"):
    ...     import no_such_package
    Traceback (most recent call last):
    infermix.errors.InputError: no_such_package is not installed; pip install 'infermix[serve]'
    """
    try:
        yield
    except ModuleNotFoundError as fault:
        raise InputError(f"{fault.name} is not installed", mend=f"pip install 'infermix[{name}]'") from None

"""One line for whoever waits half a minute before the first simulation on a machine."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

LINE = "compiling the simulator's kernels, once: about half a minute"


@contextmanager
def first_compile_said() -> Iterator[None]:
    """Say on stderr that kernels are being compiled, if that is about to happen for the first time."""
    from infermix.compiling import first_compiling

    with first_compiling(_say):
        yield


def _say() -> None:
    """Progress bars, where there is one, put themselves in the place of ``sys.stderr`` and move below the line."""
    sys.stderr.write(LINE + "\n")
    sys.stderr.flush()

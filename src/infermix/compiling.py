"""Whether kernels have been compiled on this machine, and a word at the moment when the first one is about to be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infermix.jit import ENABLED

if ENABLED:
    from numba import config
    from numba.core.event import Listener, install_listener


def any_compiled() -> bool:
    """Whether the folder of compiled kernels (``infermix.jit``) holds one."""
    return any(Path(config.CACHE_DIR).rglob("*.nbi"))


@contextmanager
def first_compiling(say: Callable[[], object]) -> Iterator[None]:
    """Within it, ``say`` is called once if the very first kernel is compiled: just before, from whatever thread."""
    if not ENABLED or any_compiled():
        yield
        return
    with install_listener("numba:compile", _Once(say)):
        yield


if ENABLED:

    class _Once(Listener):  # type: ignore[misc]
        """Numba tells it whenever it begins or ends to compile, one kernel at a time."""

        def __init__(self, say: Callable[[], object]) -> None:
            self._say: Callable[[], object] | None = say

        def on_start(self, event: Any) -> None:  # noqa: ARG002 - Numba's signature
            say, self._say = self._say, None
            if say is not None:
                say()

        def on_end(self, event: Any) -> None:
            pass

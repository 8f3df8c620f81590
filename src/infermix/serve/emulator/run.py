"""The emulator as a process: an event loop until a signal or a time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence

import uvloop

from infermix.errors import InputError
from infermix.serve.emulator.config import Emulated, Setting
from infermix.serve.emulator.server import Emulator

DRAIN_S = 5.0


def run_emulator(
    places: Sequence[Emulated], setting: Setting, ready: Callable[[], None], for_s: float | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, or for so long; ``ready`` is called when every port is open.

    Raises
    ------
    InputError
        A port cannot be had.
    """
    uvloop.run(_serve(places, setting, ready, for_s))


async def _serve(places: Sequence[Emulated], setting: Setting, ready: Callable[[], None], for_s: float | None) -> None:
    emulator = Emulator(places, setting)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        try:
            await emulator.start()
        except OSError as fault:
            raise InputError(f"cannot listen: {fault.strerror}", mend="choose other ports") from None
        ready()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), for_s)
    finally:
        await emulator.stop(DRAIN_S)

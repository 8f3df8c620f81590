"""An alarm clock finer than an event loop's timers, which count milliseconds: Linux' timerfd, watched like a socket.

Where there is none (other systems) the loop's own timers ring, up to a millisecond late.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Protocol

NONBLOCK_CLOEXEC = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
LIBC = ctypes.CDLL(None, use_errno=True)
CLOCK_MONOTONIC, ABSOLUTE = 1, 1
NS_PER_S = 1_000_000_000


class _Spec(ctypes.Structure):
    """``struct itimerspec``: how often it rings again, and when first (both zero: never)."""

    _fields_ = [(name, ctypes.c_long) for name in ("again_s", "again_ns", "s", "ns")]


class LoopAlarm:
    """Rings by the timers of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop, self._ring = loop, ring
        self._timer: asyncio.Handle | None = None

    def time(self) -> float:
        """The clock that it goes by [s]."""
        return self._loop.time()

    def set(self, at_s: float) -> None:
        """Ring then, or at once if that is over; what was set before is forgotten."""
        self.close()
        soon = at_s <= self._loop.time()
        self._timer = self._loop.call_soon(self._ring) if soon else self._loop.call_at(at_s, self._ring)

    def close(self) -> None:
        """Do not ring."""
        if self._timer is not None:
            self._timer.cancel()


class FineAlarm:
    """Rings by a timerfd, within some ten microseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None], clock: Callable[[], float]) -> None:
        self._libc = LIBC
        self._fd = self._libc.timerfd_create(CLOCK_MONOTONIC, NONBLOCK_CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._loop, self._ring, self._clock = loop, ring, clock
        self._spec = _Spec()
        self._place = ctypes.byref(self._spec)
        loop.add_reader(self._fd, self._rings)

    def time(self) -> float:
        """The clock that it goes by [s]."""
        return self._clock()

    def set(self, at_s: float) -> None:
        """Ring then, or at once if that is over; what was set before is forgotten."""
        whole, ns = divmod(max(1, round(at_s * NS_PER_S)), NS_PER_S)
        self._spec.s, self._spec.ns = whole, ns
        self._libc.timerfd_settime(self._fd, ABSOLUTE, self._place, None)

    def close(self) -> None:
        """Never ring again."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _rings(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # it was set anew in the meantime
        self._ring()


class Alarm(Protocol):
    """What a driver needs of one."""

    def time(self) -> float:
        """The clock that it goes by [s]."""

    def set(self, at_s: float) -> None:
        """Ring then, or at once if that is over; what was set before is forgotten."""

    def close(self) -> None:
        """Ring no more."""


def make_alarm(
    loop: asyncio.AbstractEventLoop, ring: Callable[[], None], clock: Callable[[], float]
) -> FineAlarm | LoopAlarm:  # fmt: skip
    """The finest alarm that there is; ``clock`` is the monotonic clock of the system."""
    return FineAlarm(loop, ring, clock) if hasattr(LIBC, "timerfd_create") else LoopAlarm(loop, ring)

"""Requests that wait for a place: the most urgent band first, in it the nearest deadline, then who came first."""

from __future__ import annotations

import asyncio
from bisect import insort
from dataclasses import dataclass, field

from infermix.serve.openai import ApiError


@dataclass(order=True, slots=True)
class _Waiting:
    key: tuple[int, float, int]
    turn: asyncio.Future[None] = field(compare=False)


class Queue:
    """Waiting requests; who wakes asks again whether there is room."""

    def __init__(self, most: int, longest_s: float) -> None:
        self._most, self._longest_s = most, longest_s
        self._waiting: list[_Waiting] = []
        self._count = 0
        self.shed: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def depths(self) -> dict[int, int]:
        """Priority → how many wait."""
        found: dict[int, int] = {}
        for one in self._waiting:
            found[-one.key[0]] = found.get(-one.key[0], 0) + 1
        return found

    def refuse(self, reason: str, message: str, retry_s: int) -> ApiError:
        """The error of a request that is turned away, counted."""
        self.shed[reason] = self.shed.get(reason, 0) + 1
        retry = (b"retry-after", b"%d" % retry_s)
        return ApiError(429, message, code="overloaded", headers=(retry, (b"x-infermix-shed", reason.encode())))

    def enter(self, priority: int, deadline_s: float) -> asyncio.Future[None]:
        """A place in the queue, its turn; ApiError 429 where there is none and nobody in it is less urgent."""
        if priority < 0:
            raise self.refuse("sheddable", "the fleet is full, and this request may be shed", self.retry_s())
        self._count += 1
        mine = _Waiting((-priority, deadline_s, self._count), asyncio.get_running_loop().create_future())
        if len(self._waiting) >= self._most:
            if not self._waiting or self._waiting[-1].key <= mine.key:
                raise self.refuse("queue_full", "the fleet and its queue are full", self.retry_s())
            last = self._waiting.pop()
            if not last.turn.done():
                last.turn.set_exception(self.refuse("displaced", "a more urgent request came", self.retry_s()))
        insort(self._waiting, mine)
        return mine.turn

    async def wait(self, priority: int, deadline_s: float) -> None:
        """Wait for a turn; ApiError 429 if it does not come in time."""
        turn = self.enter(priority, deadline_s)
        try:
            async with asyncio.timeout(self._longest_s):
                await turn
        except TimeoutError:
            raise self.refuse("waited", f"no place became free in {self._longest_s:g} s", self.retry_s()) from None
        finally:
            self._waiting = [one for one in self._waiting if one.turn is not turn]

    def wake(self) -> None:
        """A place has become free: the first in the queue has its turn."""
        for one in self._waiting:
            if not one.turn.done():
                one.turn.set_result(None)
                return

    def retry_s(self) -> int:
        """A guess of when to come again [s]."""
        return max(1, min(30, len(self._waiting) // 20))

"""An engine driven by the clock of an event loop: steps end when they should, tokens are handed on when they are out.

Modelled time never drifts: a step begins when the one before it ended, however late the loop wakes up. A step shorter
than the loop's timers can tell (about a millisecond) comes with its neighbours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from infermix.serve.emulator.engine import accept, end_step, give_up, start_step
from infermix.serve.emulator.state import Engine, Sequence

MOST_STEPS = 64
"""Steps in one go before others get their turn, when the loop has fallen behind."""


class Driver:
    """One engine and its timer."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, on_token: Callable[[Sequence], None]) -> None:
        self.engine, self._loop, self._on_token = engine, loop, on_token
        self._timer: asyncio.Handle | None = None
        self._grown: dict[int, Sequence] = {}
        self.late_s = 0.0
        """How late the last step was seen to have ended [s]."""

    def add(self, sequences: list[Sequence]) -> None:
        """Requests arrive now, together."""
        now_s = self._loop.time()
        self._catch_up(now_s, None)
        for seq in sequences:
            accept(self.engine, seq, now_s)
        if not self.engine.in_step:
            self.stop()
            self._timer = self._loop.call_soon(self._run)

    def drop(self, sequences: list[Sequence]) -> None:
        """Nobody waits for these any more."""
        for seq in sequences:
            give_up(self.engine, seq, self._loop.time())
            self._grown.pop(id(seq), None)

    def stop(self) -> None:
        """No more steps."""
        if self._timer is not None:
            self._timer.cancel()

    def _run(self) -> None:
        """The timer has fired: end what has ended, begin what can begin, set the timer again."""
        self._timer = None
        now_s = self._loop.time()
        all_done = self._catch_up(now_s, MOST_STEPS)
        engine = self.engine
        if all_done and not engine.in_step and not start_step(engine, now_s):
            return
        at_s = engine.step_from_s + engine.step_s if engine.in_step else now_s
        self._timer = self._loop.call_at(at_s, self._run) if at_s > now_s else self._loop.call_soon(self._run)

    def _catch_up(self, now_s: float, most: int | None) -> bool:
        """End the steps that are over, each followed by the next at once; whether none is left."""
        engine, steps = self.engine, 0
        while engine.in_step:
            end_s = engine.step_from_s + engine.step_s
            if end_s > now_s:
                break
            if steps == most:
                return self._hand_on(False)
            steps += 1
            self.late_s = now_s - end_s
            self._grown.update((id(seq), seq) for seq in end_step(engine))
            start_step(engine, end_s)
        return self._hand_on(True)

    def _hand_on(self, all_done: bool) -> bool:
        grown, self._grown = self._grown, {}
        for seq in grown.values():
            self._on_token(seq)
        return all_done

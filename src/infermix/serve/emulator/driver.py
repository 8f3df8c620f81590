"""An engine driven by the clock: steps end when they should, tokens are handed on when they are out.

Modelled time never drifts: a step begins when the one before it ended, however late the alarm rings, and on an idle
engine when the request came, however long it took to read it. Steps that end before the alarm is heard come together.
"""

from __future__ import annotations

from collections.abc import Callable

from infermix.serve.emulator.alarm import Alarm
from infermix.serve.emulator.engine import accept, end_step, give_up, start_step
from infermix.serve.emulator.state import Engine, Sequence

MOST_STEPS = 64
"""Steps in one go before others get their turn, when the loop has fallen behind."""


class Driver:
    """One engine and its alarm."""

    def __init__(
        self, engine: Engine, alarm: Callable[[Callable[[], None]], Alarm], on_token: Callable[[Sequence], None]
    ) -> None:
        self.engine, self._on_token = engine, on_token
        self._alarm = alarm(self._run)
        self._grown: dict[int, Sequence] = {}
        self._free_s = float("-inf")
        """When the engine ended its last step [s]."""
        self.late_s = 0.0
        """How late the last step was seen to have ended [s]."""

    def add(self, sequences: list[Sequence], came_s: float | None = None) -> None:
        """Requests arrive together: now, or a little while ago."""
        now_s = self._alarm.time()
        self._catch_up(now_s, None)
        at_s = now_s if came_s is None or self.engine.in_step else max(came_s, self._free_s)
        for seq in sequences:
            accept(self.engine, seq, at_s)
        if not self.engine.in_step and start_step(self.engine, at_s):
            self._set(now_s)

    def drop(self, sequences: list[Sequence]) -> None:
        """Nobody waits for these any more."""
        for seq in sequences:
            give_up(self.engine, seq, self._alarm.time())
            self._grown.pop(id(seq), None)

    def stop(self) -> None:
        """No more steps."""
        self._alarm.close()

    def _run(self) -> None:
        """The alarm has rung: end what has ended, begin what can begin, set the alarm again."""
        now_s = self._alarm.time()
        all_done = self._catch_up(now_s, MOST_STEPS)
        if all_done and not self.engine.in_step and not start_step(self.engine, now_s):
            return
        self._set(now_s)

    def _set(self, now_s: float) -> None:
        engine = self.engine
        self._alarm.set(engine.step_from_s + engine.step_s if engine.in_step else now_s)

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
            self.late_s, self._free_s = now_s - end_s, end_s
            self._grown.update((id(seq), seq) for seq in end_step(engine))
            start_step(engine, end_s)
        return self._hand_on(True)

    def _hand_on(self, all_done: bool) -> bool:
        grown, self._grown = self._grown, {}
        for seq in grown.values():
            self._on_token(seq)
        return all_done

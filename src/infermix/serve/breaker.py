"""Whether a backend may be asked: breakers that open after failures, and waits that backends themselves ask for."""

from __future__ import annotations

CLOSED, HALF_OPEN, OPEN = 0, 1, 2


class Breaker:
    """Of one backend: closed while it answers, open after failures in a row, half open while one request tries."""

    __slots__ = ("_failures", "_open_s", "_threshold", "fails", "state", "trips", "until_s")

    def __init__(self, failures: int, open_s: float) -> None:
        self._threshold, self._open_s = failures, open_s
        self.state = CLOSED
        self.fails = 0
        """In a row."""
        self.until_s = 0.0
        """Open, or asked to be left alone, until then."""
        self.trips = 0

    def may(self, now_s: float) -> bool:
        """Whether a request may go there now."""
        return now_s >= self.until_s and self.state != HALF_OPEN

    @property
    def restricts(self) -> bool:
        """Whether ``may`` has to be asked at all."""
        return self.state != CLOSED or self.until_s > 0.0

    def takes(self) -> None:
        """A request goes there: the one that tries, if the breaker was open."""
        if self.state == OPEN:
            self.state = HALF_OPEN

    def good(self) -> None:
        """It answered."""
        self.state, self.fails, self.until_s = CLOSED, 0, 0.0

    def bad(self, now_s: float) -> None:
        """It failed."""
        self.fails += 1
        if self.state == HALF_OPEN or self.fails >= self._threshold:
            self.trips += self.state != OPEN
            self.state = OPEN
            self.until_s = now_s + self._open_s

    def released(self) -> None:
        """The request that tried was given up by its client: another may try."""
        if self.state == HALF_OPEN:
            self.state = OPEN

    def leave_alone(self, until_s: float) -> None:
        """It is busy and said until when."""
        if self.state == HALF_OPEN:
            self.state = OPEN
        self.until_s = max(self.until_s, until_s)

"""One try of a request at one backend: held until the first text is there, and handed on as it comes from then on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from infermix.serve.events import Events, Malformed
from infermix.serve.http1 import Reply
from infermix.serve.upstream import Upstream

LONGEST_ANSWER_BYTES = 64 << 20


class Attempt:
    """Listens to a backend. ``fault`` says why there is no answer, or no more of it; empty while all is well."""

    def __init__(self, reply: Reply, events: Events, clock: Callable[[], float], stall_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.reply, self.events, self._clock, self._stall_s = reply, events, clock, stall_s
        self.over: asyncio.Future[None] = loop.create_future()
        self.connection: Upstream | None = None
        self.on_first: Callable[[Attempt], None] = lambda _: None
        """Called once, when the first text is there and the client has got nothing yet."""
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.fault = self.detail = ""
        self.streams = self.relaying = False
        self.held = b""
        self._pieces: list[bytes] = []
        self._bytes = 0
        self.first_s = self.last_s = float("nan")
        self.deadline_s = float("inf")
        """When patience ends; see ``expire``."""
        self.total_s = float("inf")

    @property
    def body(self) -> bytes:
        """An answer that is no stream."""
        return b"".join(self._pieces)

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers are there."""
        self.status, self.headers = status, headers
        self.streams = status == 200 and headers.get(b"content-type", b"").startswith(b"text/event-stream")

    def on_piece(self, data: bytes) -> None:
        """Bytes of the body: events are handed on whole, everything else is kept until it is whole."""
        self.last_s = now_s = self._clock()
        if not self.streams:
            self._pieces.append(data)
            self._bytes += len(data)
            if self._bytes > LONGEST_ANSWER_BYTES:
                self.stop("too long")
            return
        try:
            whole = self.events.feed(data)
        except Malformed:
            self.stop("malformed")
            return
        if self.relaying:
            self.deadline_s = now_s + self._stall_s
            if self.events.error:
                self.stop("error")
            else:
                self.reply.write(whole)
            return
        self.held += whole
        if self.events.error:
            self.stop("error")
        elif self.events.said or self.events.finished or self.events.done:
            self.first_s, self.deadline_s = now_s, now_s + self._stall_s
            self.relaying = True
            self.on_first(self)
            held, self.held = self.held, b""
            self.reply.write(held)
            if self.connection is not None:
                self.connection.pass_on = self.on_chunk

    def on_chunk(self, chunk: bytes, at: int) -> bool:
        """A whole chunk of HTTP, its body from ``at`` on: handed on as it came if it is plain text of the answer."""
        if not self.events.takes(chunk, at):
            return False
        self.last_s = now_s = self._clock()
        self.deadline_s = now_s + self._stall_s
        self.reply.forward(chunk, at)
        return True

    def on_end(self) -> None:
        """The body is whole; of a stream only its events say whether the answer is."""
        if self.streams:
            try:
                whole = self.events.close()
            except Malformed:
                whole = False
            if not whole:
                self.fault = self.fault or "cut"
        elif self.status == 200:
            self.first_s = self.last_s = self._clock()
        self._end()

    def on_fault(self, cause: str) -> None:
        """The connection has failed."""
        self.fault = self.fault or cause
        self._end()

    def stop(self, cause: str) -> None:
        """Give the backend up: nothing more of it is wanted."""
        self.fault = self.fault or cause
        if self.connection is not None:
            self.connection.cancel()
        self._end()

    def expire(self, now_s: float) -> None:
        """Patience has ended."""
        if now_s >= self.total_s:
            self.stop("total")
        elif now_s >= self.deadline_s:
            self.stop("stall" if self.relaying else "first_token")

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

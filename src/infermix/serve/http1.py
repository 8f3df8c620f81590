"""HTTP/1.1 towards clients: strict parsing with limits, keep-alive, requests in order, whole and streamed answers.

What two readers could take for two different things is refused, never guessed at: a length and chunks together,
two lengths, two hosts, an encoding other than ``chunked``.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, cast

import httptools
import msgspec

from infermix.serve.openai import ApiError

LOG = logging.getLogger("infermix.serve")
JSON_TYPE = (b"content-type", b"application/json")
SSE_TYPE = (b"content-type", b"text/event-stream; charset=utf-8")
LINGER_S = 1.0
"""After a refusal what still comes is read and thrown away for so long, so that the refusal arrives."""
Headers = Iterable[tuple[bytes, bytes]]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How much a client may send, and how slowly."""

    max_header_bytes: int = 32_768
    max_body_bytes: int = 16 << 20
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 75.0
    high_water_bytes: int = 65_536
    """Bytes that wait for a slow reader before the sender is asked to pause."""


class Request:
    """A request that was read to its end; names of headers are in lower case."""

    __slots__ = ("body", "came_s", "headers", "keep_alive", "method", "path", "query", "version")

    def __init__(self, method: str, target: bytes, version: str, headers: dict[bytes, bytes], body: bytes) -> None:
        self.method, self.version, self.headers, self.body = method, version, headers, body
        path, _, query = target.partition(b"?")
        self.path, self.query = path.decode("latin-1"), query.decode("latin-1")
        self.keep_alive = True
        self.came_s = time.monotonic()
        """When it was whole."""

    def header(self, name: bytes) -> str:
        """A header's value, empty where there is none."""
        return self.headers.get(name, b"").decode("latin-1")


Handler = Callable[[Request, "Reply"], Coroutine[Any, Any, None]]


class Reply:
    """The answer to one request: whole by ``send``, or by ``start``, ``write`` and ``end``."""

    __slots__ = ("_connection", "_head", "_keep", "_raw", "ended", "gone", "on_pause", "started", "status")

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection, self._keep = connection, request.keep_alive
        self._raw = request.version == "1.0"
        self._head = b""
        self.started = self.ended = self.gone = False
        self.status = 0
        self.on_pause: Callable[[bool], None] | None = None
        """Called with True when the client reads too slowly, and with False when it has caught up."""

    def send(self, status: int, body: bytes, headers: Headers = (JSON_TYPE,)) -> None:
        """Answer as a whole."""
        if self.gone or self.started:
            return
        self.started, self.status = True, status
        head = self._connection.head(status, headers, self._keep)
        self._connection.put(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        self._finish()

    def start(self, status: int, headers: Headers = (SSE_TYPE,), *, flush: bool = False) -> None:
        """Begin a streamed answer; its head leaves with the first piece, or now with ``flush``."""
        if self.gone or self.started:
            return
        self.started, self.status = True, status
        if self._raw:
            self._keep = False
        head = self._connection.head(status, headers, self._keep)
        self._head = head + (b"\r\n" if self._raw else b"transfer-encoding: chunked\r\n\r\n")
        if flush:
            self._connection.put(self._head)
            self._head = b""

    def write(self, data: bytes) -> None:
        """The next piece; it waits in memory where the client reads slowly, see ``on_pause`` and ``drain``."""
        if self.gone or self.ended or not data:
            return
        head, self._head = self._head, b""
        self._connection.put(head + data if self._raw else b"%b%x\r\n%b\r\n" % (head, len(data), data))

    def forward(self, chunk: bytes, at: int) -> None:
        """The next piece as a chunk that is framed already; its body begins at ``at``."""
        transport = self._connection.transport
        if self._raw or self._head or self.gone or self.ended or transport is None or transport.is_closing():
            self.write(chunk[at:-2])
        else:
            transport.write(chunk)

    def end(self, data: bytes = b"") -> None:
        """The last piece."""
        if self.gone or self.ended:
            return
        head, self._head = self._head, b""
        if self._raw:
            self._connection.put(head + data)
        elif data:
            self._connection.put(b"%b%x\r\n%b\r\n0\r\n\r\n" % (head, len(data), data))
        else:
            self._connection.put(head + b"0\r\n\r\n")
        self._finish()

    def abort(self) -> None:
        """Cut the connection: what was sent is not whole, and the client sees that."""
        self.ended = True
        self._connection.abort()

    async def drain(self) -> None:
        """Wait until a slow reader has caught up."""
        await self._connection.drained()

    def _finish(self) -> None:
        self.ended = True
        self._connection.answered(self._keep)


class Connection(asyncio.Protocol):
    """One client: its requests are answered one after the other."""

    def __init__(self, server: Server) -> None:
        self._server, self._limits = server, server.limits
        self._parser = httptools.HttpRequestParser(self)
        self.transport: asyncio.Transport | None = None
        self._waiting: deque[Request] = deque()
        self._task: asyncio.Task[None] | None = None
        self._reply: Reply | None = None
        self._fault: ApiError | None = None
        self._lingers = self._paused = False
        self._room: asyncio.Future[None] | None = None
        self._begin()
        self.deadline_s = server.loop.time() + self._limits.idle_s

    def _begin(self) -> None:
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._header_bytes = self._body_bytes = 0
        self._in_headers, self._in_message = True, False

    def _blame(self, fault: ApiError | None) -> None:
        """Remember the first fault of this client; nothing is read after it."""
        if self._fault is None:
            self._fault = fault

    def _blamed(self) -> ApiError | None:
        return self._fault

    # What the transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client has come."""
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own are no subclass
        self.transport.set_write_buffer_limits(high=self._limits.high_water_bytes)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._server.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The client has left: whoever answers it is stopped."""
        self._server.connections.discard(self)
        self._waiting.clear()
        if self._reply is not None:
            self._reply.gone = True
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes of requests."""
        if self._lingers or self._blamed():
            return
        if not self._in_message:
            self._in_message = True
            self.deadline_s = self._server.loop.time() + self._limits.header_s
        if self._in_headers:
            self._header_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._blame(ApiError(400, "this server does not upgrade connections", code="bad_http"))
        except httptools.HttpParserError as fault:
            self._blame(ApiError(400, f"not HTTP/1.1: {fault}", code="bad_http"))
        if self._in_headers and self._header_bytes > self._limits.max_header_bytes:
            self._blame(_too_many_headers(self._limits))
        blamed = self._blamed()
        if blamed is not None and self._task is None:
            self._refuse(blamed)
        elif self._waiting and self.transport is not None:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self._paused = True
        if self._reply is not None and self._reply.on_pause is not None:
            self._reply.on_pause(True)

    def resume_writing(self) -> None:
        """The client has caught up."""
        self._paused = False
        if self._room is not None and not self._room.done():
            self._room.set_result(None)
        if self._reply is not None and self._reply.on_pause is not None:
            self._reply.on_pause(False)

    # What the parser calls.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_message = True

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        name = name.lower()
        if name in self._headers:
            if name in (b"content-length", b"transfer-encoding", b"host", b"authorization"):
                self._blame(ApiError(400, f"{name.decode()} is said twice", code="bad_http"))
            value = self._headers[name] + b", " + value
        self._headers[name] = value
        self._body_bytes += len(name) + len(value) + 4
        if self._body_bytes > self._limits.max_header_bytes:
            self._blame(_too_many_headers(self._limits))

    def on_headers_complete(self) -> None:
        """All headers are there; what follows is the body."""
        self._in_headers = False
        self._body_bytes = 0
        self._blame(_wrong_head(self._headers, self._target, self._parser, self._limits))
        if self._fault is None and self._headers.get(b"expect", b"").lower() == b"100-continue":
            if self._task is None:
                self.put(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.deadline_s = self._server.loop.time() + self._limits.body_s

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > self._limits.max_body_bytes:
            self._blame(_too_large(self._limits))
        if self._fault is None:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        if self._fault is not None:
            return
        method = self._parser.get_method().decode("latin-1")
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        request = Request(method, self._target, self._parser.get_http_version(), self._headers, body)
        request.keep_alive = self._parser.should_keep_alive()
        self._begin()
        if self._task is None:
            self._answer(request)
        else:
            self._waiting.append(request)

    # Answers.

    def _answer(self, request: Request) -> None:
        self.deadline_s = float("inf")
        reply = self._reply = Reply(self, request)
        self._task = self._server.loop.create_task(self._handle(request, reply))

    async def _handle(self, request: Request, reply: Reply) -> None:
        """Call the handler; whatever it does, the client gets an answer or sees that there is none."""
        try:
            await self._server.handler(request, reply)
        except ApiError as fault:
            self._give_up(reply, fault)
        except asyncio.CancelledError:
            if not reply.ended:
                self.abort()
        except Exception:
            LOG.exception("a request failed")
            self._give_up(reply, ApiError(500, "the server failed", code="internal_error"))
        else:
            if not reply.ended:
                self._give_up(reply, ApiError(500, "the server gave no answer", code="internal_error"))
        finally:
            self._task = self._reply = None
            self._next()

    def _give_up(self, reply: Reply, fault: ApiError) -> None:
        if reply.started:
            reply.abort()
        else:
            reply.send(fault.status, fault.body, (JSON_TYPE, *fault.headers))

    def answered(self, keep: bool) -> None:
        """The current answer has been written."""
        if not keep or self._server.draining:
            self._linger()

    def _next(self) -> None:
        """The next request that waits, or a fault that comes after all that were whole."""
        if self.transport is None or self.transport.is_closing() or self._lingers:
            return
        if self._waiting:
            self._answer(self._waiting.popleft())
        elif self._fault is not None:
            self._refuse(self._fault)
        else:
            if not self._in_message:
                self.deadline_s = self._server.loop.time() + self._limits.idle_s
            self.transport.resume_reading()
            if self._server.draining:
                self.transport.close()

    def _refuse(self, fault: ApiError) -> None:
        self._server.on_refused(fault)
        body = fault.body
        head = self.head(fault.status, (JSON_TYPE, *fault.headers), False)
        self.put(b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body))
        self._linger()

    def _linger(self) -> None:
        """Say that nothing more comes; throw away what still arrives, for a moment."""
        self._lingers = True
        self.deadline_s = self._server.loop.time() + LINGER_S
        transport = self.transport
        if transport is None or transport.is_closing():
            return
        if not self._in_message and self._fault is None:
            transport.close()
            return
        transport.resume_reading()
        if transport.can_write_eof():
            transport.write_eof()

    def head(self, status: int, headers: Headers, keep: bool) -> bytes:
        """Status line and headers but for the one that says how long the body is."""
        keep = keep and not self._server.draining
        lines = [_status_line(status), b"date: ", self._server.date, b"\r\n"]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        if not keep:
            lines.append(b"connection: close\r\n")
        return b"".join(lines)

    def put(self, data: bytes) -> None:
        """Write bytes to the client."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abort()

    async def drained(self) -> None:
        """Wait while the client reads too slowly."""
        while self._paused and self.transport is not None and not self.transport.is_closing():
            self._room = self._server.loop.create_future()
            await self._room

    def is_idle(self) -> bool:
        """Whether nothing is being answered."""
        return self._task is None

    def close(self) -> None:
        """Close after what was written has left."""
        if self.transport is not None:
            self.transport.close()

    def expire(self) -> None:
        """A deadline has passed: refuse what did not come in time, or end an idle connection."""
        if self._lingers or not self._in_message or self._task is not None:
            self.abort() if self._lingers else self.close()
            return
        self._fault = ApiError(408, "the request did not come in time", code="request_timeout")
        self._refuse(self._fault)


class Server:
    """Listens, and knows its connections."""

    def __init__(self, handler: Handler, limits: Limits | None = None) -> None:
        self.handler, self.limits = handler, limits or Limits()
        self.connections: set[Connection] = set()
        self.draining = False
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.date = formatdate(usegmt=True).encode()
        self.on_refused: Callable[[ApiError], None] = lambda _: None
        """Called with every fault of a client that was answered here."""
        self._listeners: list[asyncio.Server] = []
        self._sweeper = self.loop.create_task(self._sweep())

    async def listen(self, host: str, port: int, *, reuse_port: bool = False) -> int:
        """Take connections at an address; returns the port (of its own choice where 0 was asked)."""
        listener = await self.loop.create_server(
            lambda: Connection(self), host, port, reuse_port=reuse_port or None, backlog=4096
        )
        self._listeners.append(listener)
        return int(listener.sockets[0].getsockname()[1])

    async def drain(self, within_s: float) -> int:
        """Take nothing new, let what is under way end, for so long; returns how many were cut."""
        self.draining = True
        for listener in self._listeners:
            listener.close()
        until_s = self.loop.time() + within_s
        while self.connections and self.loop.time() < until_s:
            for connection in [c for c in self.connections if c.is_idle()]:
                connection.close()
            await asyncio.sleep(0.01)
        cut = len(self.connections)
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)
        self._sweeper.cancel()
        return cut

    async def _sweep(self) -> None:
        """Once a second: the date, and connections whose time is up."""
        while True:
            await asyncio.sleep(1.0)
            self.date = formatdate(usegmt=True).encode()
            now_s = self.loop.time()
            for connection in [c for c in self.connections if c.deadline_s < now_s]:
                connection.expire()


_STATUS_LINES: dict[int, bytes] = {}


def _status_line(status: int) -> bytes:
    if status not in _STATUS_LINES:
        known = status in HTTPStatus._value2member_map_
        phrase = HTTPStatus(status).phrase if known else "Status"
        _STATUS_LINES[status] = b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())
    return _STATUS_LINES[status]


def _too_many_headers(limits: Limits) -> ApiError:
    return ApiError(431, f"the headers take more than {limits.max_header_bytes} bytes", code="headers_too_large")


def _too_large(limits: Limits) -> ApiError:
    return ApiError(413, f"the body takes more than {limits.max_body_bytes} bytes", code="body_too_large")


def _wrong_head(
    headers: dict[bytes, bytes], target: bytes, parser: httptools.HttpRequestParser, limits: Limits
) -> ApiError | None:  # fmt: skip
    """Why a request with these headers is refused; None if it is not."""
    length, encoding = headers.get(b"content-length"), headers.get(b"transfer-encoding")
    version = parser.get_http_version()
    if version not in ("1.0", "1.1"):
        return ApiError(505, f"HTTP/{version} is not spoken here", code="bad_http")
    if encoding is not None:
        if length is not None:
            return ApiError(400, "content-length and transfer-encoding together", code="bad_http")
        if encoding.strip().lower() != b"chunked" or version == "1.0":
            return ApiError(501, "transfer-encoding must be chunked, in HTTP/1.1", code="bad_http")
    if length is not None:
        if not length.isdigit():
            return ApiError(400, "content-length is not a number", code="bad_http")
        if len(length) > 18 or int(length) > limits.max_body_bytes:
            return _too_large(limits)
    if version == "1.1" and b"host" not in headers:
        return ApiError(400, "no host header", code="bad_http")
    if b"upgrade" in headers:
        return ApiError(400, "this server does not upgrade connections", code="bad_http")
    if not target.startswith(b"/"):
        return ApiError(400, "the target must be a path", code="bad_http")
    return None

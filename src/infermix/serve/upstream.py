"""Connections to backends: kept alive, one exchange at a time, answers parsed as strictly as requests are."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from functools import partial
from typing import Protocol, cast
from urllib.parse import urlsplit

import httptools

from infermix.errors import InputError
from infermix.serve.config import Backend, GatewayFile
from infermix.serve.http1 import Headers


class Listener(Protocol):
    """Whoever waits for the answer of a backend."""

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:
        """Status and headers are there."""

    def on_piece(self, data: bytes) -> None:
        """Bytes of the body, as they come."""

    def on_end(self) -> None:
        """The body is whole."""

    def on_fault(self, cause: str) -> None:
        """There is no answer, or no more of it."""


HEX = frozenset(b"0123456789abcdefABCDEF")
LONGEST_SIZE_LINE = 8
_SIZES: dict[bytes, int] = {}
"""Size lines of chunks that were met → bytes of their bodies."""


def _size_of(line: bytes) -> int:
    """Bytes of a chunk by its size line; -1 for one that only the parser may read."""
    if not line or len(line) > LONGEST_SIZE_LINE or not HEX.issuperset(line):
        return -1
    if len(_SIZES) > 10_000:
        _SIZES.clear()
    size = _SIZES[line] = int(line, 16)
    return size


class Upstream(asyncio.Protocol):
    """One connection to a backend."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.used = False
        """Whether it has carried an exchange before: the backend may have closed it in the meantime."""
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: dict[bytes, bytes] = {}
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append  # what the parser calls for every piece: no frame of Python's own
        self._head = self._whole = self._reusable = False
        self._answered = self._held = False
        self.pass_on: Callable[[bytes, int], bool] | None = None
        """Who takes a whole chunk as it came, and where its body begins; False: it is to be parsed."""
        self._inside: set[int] = set()
        """Empty while the parser is not inside a chunk; filled and emptied by it without a frame of Python's own."""
        self.on_chunk_header, self.on_chunk_complete = partial(self._inside.add, 0), self._inside.clear
        self._between = False
        """Whether what comes next begins a chunk."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected."""
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.site.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        """The backend has gone: what is under way ends here."""
        self.site.open.discard(self)
        with contextlib.suppress(ValueError):
            self.site.idle.remove(self)
        listener, self._listener = self._listener, None
        if listener is not None:
            if self._head and self._until_close():
                listener.on_end()
            else:
                listener.on_fault("cut" if self._answered else "stale" if self.used else "closed")

    def _until_close(self) -> bool:
        """Whether the body of the answer ends with the connection, having no length and no chunks."""
        return b"content-length" not in self._headers and b"transfer-encoding" not in self._headers

    def send(self, listener: Listener, data: bytes) -> None:
        """Send a request; the listener hears of its answer."""
        assert self._transport is not None
        self._listener = listener
        self._parser = httptools.HttpResponseParser(self)
        self._headers = {}
        self._pieces.clear()
        self._inside.clear()
        self._head = self._whole = self._answered = self._between = False
        self.pass_on = None
        self._transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Bytes of an answer; what is malformed ends the exchange before any of it is handed on.

        A chunk that comes alone and whole leaves the parser as it was, so that it need not see it.
        """
        if self._between and self.pass_on is not None:
            at = data.find(b"\r\n", 1, LONGEST_SIZE_LINE + 2)
            line = data[:at]
            size = _SIZES.get(line) or _size_of(line)
            if 0 < size == len(data) - at - 4 and data.endswith(b"\r\n") and self.pass_on(data, at + 2):
                return
        self._parse(data)

    def _parse(self, data: bytes) -> None:
        """Let the parser see it, and hand on what it found."""
        listener, parser = self._listener, self._parser
        if listener is None or parser is None:
            self.close()  # nobody asked
            return
        self._answered = True
        head_before = self._head
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._listener = self.pass_on = None
            self.close()
            listener.on_fault("malformed")
            return
        self._between = not self._inside and data.endswith(b"\r\n") and b"transfer-encoding" in self._headers
        if self._head and not head_before:
            listener.on_head(parser.get_status_code(), self._headers)
        if self._pieces and self._listener is listener:
            whole = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
            self._pieces.clear()
            listener.on_piece(whole)
        if self._whole and self._listener is listener:
            self._listener = self.pass_on = None
            self._rest()
            listener.on_end()

    def _rest(self) -> None:
        """The exchange is over: wait for another, unless the backend said that it closes."""
        self.used = True
        if self._reusable and self._transport is not None and not self._transport.is_closing():
            self.hold(False)
            self.site.keep(self)
        else:
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Status and headers are there; an interim answer (100) is not the answer."""
        assert self._parser is not None
        if self._parser.get_status_code() >= 200:
            self._head = True
        else:
            self._headers = {}

    def on_message_complete(self) -> None:
        """The answer is whole."""
        self._whole = self._head
        self._reusable = self._parser is not None and self._parser.should_keep_alive()

    def cancel(self) -> None:
        """Nobody waits for the answer any more: closing tells the backend."""
        self._listener = self.pass_on = None
        self.close()

    def hold(self, held: bool) -> None:
        """Read nothing for a while, as the client reads too slowly."""
        if self._transport is None or self._transport.is_closing() or held == self._held:
            return
        self._held = held
        if held:
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    @property
    def usable(self) -> bool:
        """Whether another request may be sent."""
        return self._transport is not None and not self._transport.is_closing()


class Site:
    """A backend's address and its connections."""

    def __init__(self, url: str, key: str | None, most_idle: int, context: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self.host = parts.hostname or ""
        self.port = parts.port or (443 if parts.scheme == "https" else 80)
        base = parts.path.rstrip("/")
        self.base = base.removesuffix("/v1")
        """What comes before ``/v1`` or ``/metrics``."""
        self.idle: list[Upstream] = []
        self.open: set[Upstream] = set()
        self._most_idle = most_idle
        self._context = context
        named = f"[{self.host}]" if ":" in self.host else self.host
        host = named if parts.port is None else f"{named}:{parts.port}"
        bearer = b"" if key is None else b"authorization: Bearer " + key.encode("ascii") + b"\r\n"
        self._head = b"host: " + host.encode("idna" if not host.isascii() else "ascii") + b"\r\n" + bearer

    async def connect(self, within_s: float) -> Upstream:
        """A connection that waits, else a new one; raises OSError or TimeoutError."""
        while self.idle:
            found = self.idle.pop()
            if found.usable:
                return found
        async with asyncio.timeout(within_s):
            loop = asyncio.get_running_loop()
            _, made = await loop.create_connection(
                lambda: Upstream(self), self.host, self.port, ssl=self._context
            )  # fmt: skip
        return made

    def keep(self, connection: Upstream) -> None:
        """Keep a connection for the next request, unless there are plenty."""
        if len(self.idle) < self._most_idle:
            self.idle.append(connection)
        else:
            connection.close()

    def forget(self) -> None:
        """Close what waits: after a failure of the backend its other connections are doubtful as well."""
        for connection in list(self.idle):
            connection.close()
        self.idle.clear()

    def request(self, method: str, path: str, headers: Headers, body: bytes) -> bytes:
        """The bytes of a request."""
        lines = [f"{method} {self.base}{path} HTTP/1.1\r\n".encode("latin-1"), self._head]
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        lines.append(body)
        return b"".join(lines)

    def close(self) -> None:
        """Close every connection."""
        for connection in list(self.open):
            connection.close()


def site_of(backend: Backend, key: str | None, most_idle: int, file: GatewayFile) -> Site:
    """Where a backend of a gateway file is; with https its certificate is verified.

    Raises
    ------
    InputError
        Its ``ca_file`` cannot be read.
    """
    if not backend.url.startswith("https:"):
        return Site(backend.url, key, most_idle)
    path = None if backend.ca_file is None else file.folder / backend.ca_file
    try:
        context = ssl.create_default_context(cafile=path)
    except OSError as fault:
        said = "no certificate in it" if isinstance(fault, ssl.SSLError) else f"cannot be read: {fault.strerror}"
        where = f"{file.path}: backends.{backend.name}.ca_file"
        raise InputError(said, where=where, value=backend.ca_file, allowed="certificates in PEM") from None
    return Site(backend.url, key, most_idle, context)


class Whole:
    """A listener for answers that are wanted as a whole, such as metrics."""

    def __init__(self) -> None:
        self.done: asyncio.Future[tuple[int, bytes]] = asyncio.get_running_loop().create_future()
        self._status, self._pieces = 0, [b""]

    def on_head(self, status: int, headers: dict[bytes, bytes]) -> None:  # noqa: ARG002 - see Listener
        """The status."""
        self._status = status

    def on_piece(self, data: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(data)

    def on_end(self) -> None:
        """All of it is there."""
        if not self.done.done():
            self.done.set_result((self._status, b"".join(self._pieces)))

    def on_fault(self, cause: str) -> None:
        """Nothing will come."""
        if not self.done.done():
            self.done.set_exception(ConnectionError(cause))


async def fetch(site: Site, path: str, within_s: float) -> tuple[int, bytes]:
    """GET a page of a backend: (status, body); raises OSError or TimeoutError."""
    async with asyncio.timeout(within_s):
        connection = await site.connect(within_s)
        listener = Whole()
        connection.send(listener, site.request("GET", path, (), b""))
        try:
            return await listener.done
        except asyncio.CancelledError:
            connection.cancel()
            raise

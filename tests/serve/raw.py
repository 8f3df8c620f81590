"""Bytes to a server and what it answers: tests see what is on the wire, not what a client library makes of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TypeVar

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.serve.http1 import Handler, Limits, Server

T = TypeVar("T")
HOST = b"Host: here\r\n"


def run(what: Callable[[], Awaitable[T]], within_s: float = 30.0) -> T:
    """Run a test's coroutine; uncaught faults of tasks fail it."""
    faults: list[dict[str, object]] = []

    async def inside() -> T:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
        return await asyncio.wait_for(what(), within_s)

    found = asyncio.run(inside())
    assert not faults, faults
    return found


@contextlib.asynccontextmanager
async def serving(handler: Handler, limits: Limits | None = None) -> AsyncIterator[tuple[Server, int]]:
    """A server on a port of its own choice."""
    server = Server(handler, limits)
    port = await server.listen("127.0.0.1", 0)
    try:
        yield server, port
    finally:
        await server.drain(1.0)


async def send(port: int, *pieces: bytes, pause_s: float = 0.002, wait_s: float = 2.0, close: bool = True) -> bytes:
    """What comes back until the server closes; a request without ``close`` leaves when nothing more comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(ConnectionError):
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause_s)
    with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
        while data := await asyncio.wait_for(reader.read(65536), wait_s if close else 0.2):
            answer += data
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


def post(path: str, body: bytes, *headers: bytes, close: bool = True) -> bytes:
    """A request with a body; the server closes after its answer."""
    lines = [f"POST {path} HTTP/1.1\r\n".encode(), HOST, b"Content-Length: %d\r\n" % len(body)]
    lines += [header + b"\r\n" for header in headers] + ([b"Connection: close\r\n"] if close else [])
    return b"".join(lines) + b"\r\n" + body


def status_of(answer: bytes) -> int:
    """The status code of an answer, 0 where there is none."""
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.1 ") else 0


def body_of(answer: bytes) -> bytes:
    """The body of the first answer, chunks put together; AssertionError where it is not whole."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length: ")]
        return rest[: int(length[0][16:])] if length else rest
    whole = b""
    while True:
        size, line, rest = rest.partition(b"\r\n")
        assert line, "the answer is cut"
        if int(size, 16) == 0:
            return whole
        assert rest[int(size, 16) :].startswith(b"\r\n"), "the answer is cut"
        whole, rest = whole + rest[: int(size, 16)], rest[int(size, 16) + 2 :]

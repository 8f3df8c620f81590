"""HTTP/1.1 towards clients: what is answered, what is refused, in which order, and when it stops."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.serve.http1 import Limits, Reply, Request
from tests.serve.raw import HOST, body_of, post, run, send, serving, status_of

CHUNKED = b"Transfer-Encoding: chunked\r\n"
LIMITS = Limits(max_header_bytes=1000, max_body_bytes=2000, header_s=0.5, body_s=0.5, idle_s=0.5)


async def echo(request: Request, reply: Reply) -> None:
    if request.path == "/stream":
        reply.start(200)
        for i in range(3):
            reply.write(b"data: %d\n\n" % i)
            await asyncio.sleep(0.001)
        reply.end()
    elif request.path == "/nothing":
        return
    elif request.path == "/fail":
        raise ValueError("on purpose")
    else:
        reply.send(200, b"[" + request.body + b"]")


def answered(*pieces: bytes, close: bool = True) -> bytes:
    async def ask() -> bytes:
        async with serving(echo, LIMITS) as (_, port):
            return await send(port, *pieces, close=close)

    return run(ask)


def test_a_body_comes_in_any_pieces() -> None:
    whole = post("/", b"hello")
    for cut in (1, 7, len(whole) - 6, len(whole) - 1):
        assert body_of(answered(whole[:cut], whole[cut:])) == b"[hello]"
    assert body_of(answered(*(whole[i : i + 1] for i in range(len(whole))))) == b"[hello]"


def test_chunks_are_put_together() -> None:
    chunked = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    assert body_of(answered(chunked + b"3\r\nabc\r\n", b"2\r\nde\r\n0\r\n\r\n")) == b"[abcde]"


def test_requests_sent_at_once_are_answered_in_order() -> None:
    first = b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\n"
    both = answered(first + post("/", b"two"))
    assert both.index(b"data: 2") < both.index(b"[two]")
    assert both.count(b"HTTP/1.1 200") == 2


def test_http_1_0_gets_a_stream_that_ends_with_the_connection() -> None:
    answer = answered(b"GET /stream HTTP/1.0\r\n\r\n")
    assert b"chunked" not in answer and answer.endswith(b"data: 0\n\ndata: 1\n\ndata: 2\n\n")


REFUSED = {
    "length and chunks": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n"),
    "chunks and length": (400, b"POST / HTTP/1.1\r\n" + HOST + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n"),
    "two lengths": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    "a signed length": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: +3\r\n\r\nabc"),
    "an unknown encoding": (501, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    "chunks in HTTP/1.0": (501, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "bad chunk size": (400, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"),
    "long headers": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 1001 + b"\r\n\r\n"),
    "endless header": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 3000),
    "long body": (413, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 2001\r\n\r\n"),
    "long chunks": (413, b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n7d1\r\n" + b"a" * 2001),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\n" + HOST + HOST + b"\r\n"),
    "upgrade": (400, b"GET / HTTP/1.1\r\n" + HOST + b"Connection: upgrade\r\nUpgrade: h2c\r\n\r\n"),
    "absolute target": (400, b"GET http://there/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    "folded header": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n"),
    "space before colon": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X : a\r\n\r\n"),
    "nonsense": (400, b"\x00\x01\x02\r\n\r\n"),
    "slow headers": (408, b"GET / HTTP/1.1\r\n" + HOST),
    "slow body": (408, b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\n\r\na"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_taken_for_two_things_is_refused(name: str) -> None:
    status, asked = REFUSED[name]
    answer = answered(asked)
    assert status_of(answer) == status
    assert json.loads(body_of(answer))["error"]["message"]
    assert b"connection: close" in answer


def test_a_fault_after_a_whole_request_is_answered_after_it() -> None:
    answer = answered(b"GET /stream HTTP/1.1\r\n" + HOST + b"\r\nNONSENSE\r\n\r\n")
    assert answer.index(b"data: 2") < answer.index(b"HTTP/1.1 400")


@pytest.mark.parametrize("path", ["/nothing", "/fail"])
def test_a_handler_that_fails_is_an_answer(path: str, caplog: pytest.LogCaptureFixture) -> None:
    assert status_of(answered(post(path, b""))) == 500


def test_who_leaves_stops_the_handler() -> None:
    stopped = asyncio.Event()

    async def slow(request: Request, reply: Reply) -> None:
        try:
            await asyncio.sleep(10)
        finally:
            stopped.set()

    async def leave() -> None:
        async with serving(slow) as (server, port):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post("/", b"x"))
            await asyncio.sleep(0.05)
            writer.close()
            await asyncio.wait_for(stopped.wait(), 1.0)
            await asyncio.sleep(0.02)
            assert not server.connections

    run(leave)


def test_a_slow_reader_holds_the_writer() -> None:
    sent = 0

    async def much(request: Request, reply: Reply) -> None:
        nonlocal sent
        reply.start(200)
        for _ in range(1000):
            reply.write(b"x" * 65536)
            sent += 1
            await reply.drain()
        reply.end()

    async def read_slowly() -> None:
        async with serving(much) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post("/", b""))
            await asyncio.sleep(0.3)
            held = sent
            assert held < 500
            total = 0
            while data := await reader.read(1 << 20):
                total += len(data)
            assert sent == 1000 and total > 1000 * 65536
            writer.close()

    run(read_slowly)


def test_draining_lets_what_is_under_way_end() -> None:
    async def slow(request: Request, reply: Reply) -> None:
        await asyncio.sleep(0.2)
        reply.send(200, b"{}")

    async def drain() -> None:
        async with serving(slow) as (server, port):
            asked = asyncio.create_task(send(port, post("/", b"x", close=False)))
            await asyncio.sleep(0.05)
            assert await server.drain(2.0) == 0
            assert status_of(await asked) == 200
            with pytest.raises(OSError, match=r".*"):
                await asyncio.open_connection("127.0.0.1", port)

    run(drain)

"""What comes of a backend's answer, however its bytes are cut: chunks that are passed on as they came are no others."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from infermix.serve.events import Events
from infermix.serve.http1 import Reply
from infermix.serve.learn import REMEMBERED, Lengths
from infermix.serve.relay import Attempt
from infermix.serve.upstream import Site, Upstream

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"%b"},"finish_reason":null}]}\n\n'
LAST = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\ndata: [DONE]\n\n'


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written, self.closed = b"", False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def abort(self) -> None:
        self.closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Client:
    """As much of a connection to a client as a reply needs."""

    def __init__(self) -> None:
        self.transport = Wire()

    def head(self, *_: object) -> bytes:
        return b""

    def put(self, data: bytes) -> None:
        self.transport.write(data)


class Asked:
    """A request of a client, as far as its reply looks at it."""

    keep_alive, version = True, "1.1"


def chunk(body: bytes, form: bytes = b"%x") -> bytes:
    return (form % len(body)) + b"\r\n" + body + b"\r\n"


def unchunked(data: bytes) -> list[bytes]:
    """The chunks of a body, the obvious way."""
    found = []
    while data:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        found.append(data[:size])
        assert data[size : size + 2] == b"\r\n"
        data = data[size + 2 :]
    return found


async def relayed(pieces: list[bytes]) -> tuple[list[bytes], str, int, int]:
    """(chunks that the client got, fault, tokens that were counted, chunks that were passed on as they came)."""
    site = Site("http://127.0.0.1:1", None, 4)
    upstream, client = Upstream(site), Client()
    upstream.connection_made(Wire())
    reply = Reply(client, Asked())  # type: ignore[arg-type]
    attempt = Attempt(reply, Events(), lambda: 0.0, 1.0)
    attempt.connection = upstream
    attempt.on_first = lambda a: a.reply.start(200, (), flush=False)
    upstream.send(attempt, b"")
    passed = 0
    for piece in pieces:
        take = upstream.pass_on

        def counted(data: bytes, at: int, take: Callable[[bytes, int], bool] | None = take) -> bool:
            nonlocal passed
            took = take is not None and take(data, at)
            passed += took
            return took

        if take is not None:
            upstream.pass_on = counted
        upstream.data_received(piece)
        if upstream.pass_on is counted:
            upstream.pass_on = take
    written = client.transport.written.removeprefix(b"transfer-encoding: chunked\r\n\r\n")
    return unchunked(written), attempt.fault, attempt.events.tokens, passed


def run(work: Awaitable[Any]) -> Any:
    async def whole() -> Any:
        return await work

    return asyncio.run(whole())


TEXTS = [b"word %d" % n for n in range(40)]
STREAM = [chunk(EVENT % text) for text in TEXTS]
BODY = b"".join(EVENT % text for text in TEXTS) + LAST


def test_chunks_that_come_one_by_one_are_passed_on_as_they_came() -> None:
    got, fault, tokens, passed = run(relayed([HEAD, *STREAM, chunk(LAST), b"0\r\n\r\n"]))
    assert b"".join(got) == BODY and not fault and tokens == 40
    assert passed == 39, "all but the first text and the end"


@pytest.mark.parametrize("seed", range(60))
def test_however_the_bytes_are_cut_the_client_gets_the_same(seed: int) -> None:
    draw = random.Random(seed)
    forms = [b"%x", b"%X", b"%04x"]
    raw = HEAD + b"".join(chunk(EVENT % text, draw.choice(forms)) for text in TEXTS) + chunk(LAST) + b"0\r\n\r\n"
    whole = raw.split(b"]}\n\n\r\n")
    pieces = [part + b"]}\n\n\r\n" for part in whole[:-1]] + [whole[-1]]
    cut = []
    for piece in pieces:
        if draw.random() < 0.3:
            at = draw.randrange(len(piece) + 1)
            cut += [piece[:at], piece[at:]]
        elif cut and draw.random() < 0.2:
            cut[-1] += piece
        else:
            cut.append(piece)
    got, fault, tokens, _ = run(relayed([piece for piece in cut if piece]))
    assert b"".join(got) == BODY and not fault and tokens == 40


@pytest.mark.parametrize("line", [b"0x4c", b"+4c", b"4_c", b" 4c", b"4c ;x=\r", b"", b"-4c", b"fffffffffffffffff"])
def test_a_size_that_is_none_ends_the_stream_with_a_fault(line: bytes) -> None:
    wrong = line + b"\r\n" + EVENT % b"wrong" + b"\r\n"
    got, fault, _, passed = run(relayed([HEAD, *STREAM[:3], wrong]))
    assert fault == "malformed" and passed == 2
    assert b"wrong" not in b"".join(got)


@pytest.mark.parametrize(
    "body",
    [
        b'data: {"choices":[],"error":{"message":"x"}}\n\n',
        b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\ndata: {"ind\n\n',
        b"data: no JSON\n\n",
        EVENT.replace(b"\n\n", b"\n") % b"a",
    ],
)
def test_what_is_no_plain_event_is_looked_at(body: bytes) -> None:
    _, _, _, passed = run(relayed([HEAD, *STREAM[:3], chunk(body)]))
    assert passed == 2


def test_a_chunk_inside_a_chunk_is_its_text() -> None:
    inner = chunk(EVENT % b"inner")
    outer = chunk(inner + EVENT % b"x")
    at = outer.index(inner)
    _, fault, _, passed = run(relayed([HEAD, *STREAM[:3], outer[:at], inner, outer[at + len(inner) :]]))
    assert passed == 2 and fault == "malformed"


def test_quantiles_of_lengths_are_those_of_the_latest() -> None:
    draw, lengths, all_of_them = random.Random(1), Lengths(100.0), []
    for _ in range(3 * REMEMBERED):
        all_of_them.append(draw.randrange(1, 300))
        lengths.add(all_of_them[-1])
        latest = sorted(all_of_them[-REMEMBERED:])
        assert lengths.quantile(0.9) == latest[-(-9 * len(latest) // 10) - 1]

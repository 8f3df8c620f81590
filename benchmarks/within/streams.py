"""A backend of streams and a client for them, as bare as asyncio allows: what is measured is what stands between."""

from __future__ import annotations

import asyncio
import sys
import time
from dataclasses import dataclass, field

import httptools
import uvloop

CHUNKS = 50
_START = b'{"id":"chatcmpl-0123456789","object":"chat.completion.chunk","created":1700000000,"model":"m","choices":['
TEXT = _START + b'{"index":0,"delta":{"content":" word"},"logprobs":null,"finish_reason":null}]}'
LAST = TEXT.replace(b'"finish_reason":null', b'"finish_reason":"stop"')
USAGE = _START + b'],"usage":{"prompt_tokens":300,"completion_tokens":50,"total_tokens":350}}'


def framed(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(event), event)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PIECES = [framed(TEXT)] * (CHUNKS - 1) + [framed(LAST)]
END = framed(b"[DONE]") + b"0\r\n\r\n"


class Backend(asyncio.Protocol):
    """Answers every request with a stream, at once or a chunk at a time."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self.parser = httptools.HttpRequestParser(self)
        self.loop = asyncio.get_running_loop()
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        usage = framed(USAGE) if b"include_usage" in self.body else b""
        self.body = b""
        self.transport.write(HEAD)
        if not self.every_s:
            for piece in PIECES:
                self.transport.write(piece)
            self.transport.write(usage + END)
            return
        self.left = CHUNKS
        self.next_s = self.loop.time() + self.every_s
        self.usage = usage
        self.loop.call_at(self.next_s, self.tick)

    def tick(self) -> None:
        if self.transport.is_closing():
            return
        self.left -= 1
        self.transport.write(PIECES[CHUNKS - 1 - self.left])
        if self.left:
            self.next_s += self.every_s
            self.loop.call_at(self.next_s, self.tick)
        else:
            self.transport.write(self.usage + END)


async def serve(port: int, every_s: float) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Backend(every_s), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


@dataclass
class Found:
    """What clients measured."""

    ttft_s: list[float] = field(default_factory=list)
    bad: int = 0
    began_s: float = 0.0
    ended_s: float = 0.0

    @property
    def per_s(self) -> float:
        return len(self.ttft_s) / (self.ended_s - self.began_s)

    def ttft_ms(self, share: float) -> float:
        ordered = sorted(self.ttft_s)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] * 1e3


class Client(asyncio.Protocol):
    """Asks again as soon as it is answered."""

    def __init__(self, request: bytes, found: Found, until_s: float, done: asyncio.Future[None]) -> None:
        self.request, self.found, self.until_s, self.done = request, found, until_s, done

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        self.parser = httptools.HttpResponseParser(self)
        self.first_s = 0.0
        self.events, self.whole = 0, False
        self.sent_s = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        if not self.first_s:
            self.first_s = time.perf_counter()
        self.events += body.count(b"data: ")
        self.whole = self.whole or body.endswith(b"data: [DONE]\n\n")

    def on_message_complete(self) -> None:
        now_s = time.perf_counter()
        if self.events < CHUNKS + 1 or not self.whole:
            self.found.bad += 1
        else:
            self.found.ttft_s.append(self.first_s - self.sent_s)
            self.found.ended_s = now_s
        if now_s < self.until_s:
            self.ask()
        else:
            self.transport.close()

    def connection_lost(self, _exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, clients: int, for_s: float, body: bytes, over_s: float = 0.0) -> Found:
    """So many clients for so long; they begin one after the other, spread over ``over_s``."""
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    request = b"%bcontent-length: %d\r\n\r\n%b" % (head, len(body), body)
    loop = asyncio.get_running_loop()
    found = Found(began_s=time.perf_counter())
    until_s = found.began_s + for_s
    ends = []
    for number in range(clients):
        await asyncio.sleep(max(0.0, found.began_s + over_s * number / clients - time.perf_counter()))
        done = loop.create_future()
        await loop.create_connection(lambda done=done: Client(request, found, until_s, done), "127.0.0.1", port)
        ends.append(done)
    await asyncio.gather(*ends)
    return found


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), float(sys.argv[2])))

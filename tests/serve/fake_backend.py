"""Backends that answer at once or by the clock, or fail in a way of one's choice; and a gateway in front of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

from infermix.catalog.load import catalog
from infermix.serve import openai
from infermix.serve.config import read_gateway
from infermix.serve.gateway import Gateway
from infermix.serve.http1 import Reply, Request
from infermix.serve.openai import ApiError
from infermix.serve.pools import pool_specs
from tests.serve.raw import serving


class FakeBackend:
    """Says ``t0 t1 t2 ...`` in so many chunks."""

    def __init__(self, chunks: int = 6, every_s: float = 0.0) -> None:
        self.chunks, self.every_s = chunks, every_s
        self.fault = ""
        self.after = 2
        """Chunks before a fault in the middle."""
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[bytes, bytes]] = []
        self.under_way = 0
        self.left = 0
        """Requests whose client went away."""

    async def handle(self, request: Request, reply: Reply) -> None:
        if request.path == "/metrics":
            if self.fault == "metrics gone":
                raise ApiError(404, "gone")
            waiting, running = 0, self.under_way
            text = f'vllm:num_requests_running{{a="b"}} {running}\nvllm:num_requests_waiting {waiting}\n'
            reply.send(200, text.encode())
            return
        self.asked.append(msgspec.json.decode(request.body))
        self.headers.append(request.headers)
        self.under_way += 1
        try:
            await self._answer(request, reply)
        except asyncio.CancelledError:
            self.left += 1
            raise
        finally:
            self.under_way -= 1

    async def _answer(self, request: Request, reply: Reply) -> None:
        wanted = openai.read_wanted(request.body, request.path)
        count = min(self.chunks, wanted.most_tokens or self.chunks)
        usage = openai.usage_of(max(1, openai.prompt_chars(wanted) // 4), 0, count)
        if self.fault in ("429", "500", "503", "400"):
            retry = ((b"retry-after", b"1"),) if self.fault == "429" else ()
            raise ApiError(int(self.fault), f"fault {self.fault}", headers=retry)
        if self.fault == "close":
            reply.abort()
            return
        if self.fault == "silent":
            await asyncio.sleep(60)
        if not wanted.stream:
            text = "".join(f"t{i} " for i in range(count))
            answer = openai.answer(request.path, "id", 1, wanted.model, [text], ["stop"], usage)
            reply.send(200, msgspec.json.encode(answer))
            return
        reply.start(200, flush=True)
        for i in range(count):
            if self.every_s:
                await asyncio.sleep(self.every_s)
            if i == self.after and self._breaks(reply):
                if self.fault == "stall":
                    await asyncio.sleep(60)
                return
            piece = openai.chunk(request.path, "id", 1, wanted.model, f"t{i} ", role=i == 0)
            reply.write(openai.event(piece))
        reply.write(openai.event(openai.chunk(request.path, "id", 1, wanted.model, None, finish="stop")))
        if wanted.wants_usage:
            reply.write(openai.event(openai.usage_chunk(request.path, "id", 1, wanted.model, usage)))
        reply.end(openai.DONE_EVENT)

    def _breaks(self, reply: Reply) -> bool:
        """A fault in the middle of a stream; True if the stream stops here."""
        if self.fault == "cut":
            reply.abort()
        elif self.fault == "end early":
            reply.end()
        elif self.fault == "half an event":
            reply.write(b'data: {"choices":[{"index":0,"del')
            reply.abort()
        elif self.fault == "bad json":
            reply.write(b'data: {"choices":[{"index":0,"delta"\n\n')
        elif self.fault == "error event":
            reply.write(b'data: {"error":{"message":"out of memory","type":"server_error"}}\n\n')
            reply.end()
        elif self.fault == "bad chunk":
            reply._connection.put(b"zz\r\nnonsense\r\n")
        return self.fault in ("cut", "end early", "half an event", "error event", "stall", "bad chunk")


def config(ports: list[int], **tables: Any) -> dict[str, Any]:
    """A gateway file over backends on these ports, as parsed TOML."""
    gateway = {"scrape_s": 0.0} | tables.pop("gateway", {})
    each = tables.pop("each", {})
    backends = [
        {"url": f"http://127.0.0.1:{port}", "name": f"b{i}", "pool": "p", "model": "m", "ttft_s": 0.01, "tpot_s": 0.001}
        | each
        for i, port in enumerate(ports)
    ]
    return {"gateway": gateway, "backends": backends} | tables


@contextlib.asynccontextmanager
async def fleet(
    backends: list[FakeBackend], environment: dict[str, str] | None = None, **tables: Any
) -> AsyncIterator[tuple[Gateway, int]]:
    """Backends and a gateway in front of them; its port."""
    async with contextlib.AsyncExitStack() as stack:
        ports = [(await stack.enter_async_context(serving(b.handle)))[1] for b in backends]
        file = read_gateway(config(ports, **tables), "gateway.toml")
        gateway = Gateway(file, pool_specs(file, catalog()), environment or {})
        server, port = await stack.enter_async_context(serving(gateway.handle, file.limits.http()))
        server.on_refused = gateway.books.misread
        try:
            yield gateway, port
        finally:
            gateway.close()


CHAT_BODY = msgspec.json.encode({"model": "m", "messages": [{"role": "user", "content": "hello there"}]})
STREAM_BODY = msgspec.json.encode(
    {"model": "m", "stream": True, "messages": [{"role": "user", "content": "hello there"}]}
)

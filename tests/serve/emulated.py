"""Emulated servers inside a test's event loop, on ports of the system's choice, and what clients see of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.catalog.load import catalog
from infermix.fleet import PoolRow, make_fleet
from infermix.serve.config import read_gateway
from infermix.serve.emulator.config import Emulated, Setting
from infermix.serve.emulator.faults import Fault
from infermix.serve.emulator.lengths import Lengths
from infermix.serve.emulator.server import Emulator
from infermix.serve.gateway import Gateway
from infermix.serve.http1 import Server
from infermix.serve.pools import pool_specs
from infermix.sim.specs import specs_at
from infermix.sim.state import PoolSpec
from tests.serve.raw import body_of, post, status_of

MODEL = "llama-3.1-8b"
CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens at now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def a_spec(speed: float = 20.0, **changes: Any) -> PoolSpec:
    """An H100 with a small model, faster than life: a token takes a fraction of a millisecond."""
    fleet = make_fleet(
        catalog(), {"h100": PoolRow(system="h100-x1", instances=1, prefix_cache=True)}, MODEL, (), "test"
    )
    spec = specs_at(fleet, (), 1000.0, "nominal")[0]
    times = {name: getattr(spec, name) / speed for name in ("decode_s", "mixed_s", "per_seq_s", "kv_s", "pair_s")}
    return replace(spec, **times, **changes)


def places(count: int = 1, spec: PoolSpec | None = None, pool: str = "pool") -> list[Emulated]:
    """Instances of one pool."""
    spec = replace(spec or a_spec(), instances=count)
    return [
        Emulated(f"{pool}/{k}", pool, "127.0.0.1", port, MODEL, frozenset({MODEL}), spec)
        for k, port in enumerate(free_ports(count))
    ]


@contextlib.asynccontextmanager
async def emulating(
    ones: list[Emulated] | None = None, *faults: Fault, answers: Lengths | None = None
) -> AsyncIterator[Emulator]:
    """Servers that run."""
    emulator = Emulator(ones or places(), Setting(faults=faults, answers=answers or Lengths(median_tokens=20.0)))
    await emulator.start()
    try:
        yield emulator
    finally:
        await emulator.stop()


@contextlib.asynccontextmanager
async def gateway_before(emulator: Emulator, **limits: Any) -> AsyncIterator[tuple[Gateway, int]]:
    """A gateway in front of emulated servers, in this process."""
    (port,) = free_ports(1)
    backends = [
        {"url": f"http://127.0.0.1:{one.place.port}", "name": one.place.name, "pool": "pool", "model": MODEL}
        | {"system": "h100-x1", "prefix_cache": True}
        for one in emulator.instances
    ]
    listen = {"listen": f"127.0.0.1:{port}", "policy": "round_robin", "sticky": False, "log": os.devnull}
    patience = {"stall_least_s": 20.0, "first_token_s": 20.0, "breaker_s": 0.5} | limits
    file = read_gateway({"gateway": listen, "backends": backends, "limits": patience}, "test.toml")
    gateway = Gateway(file, pool_specs(file, catalog()), {})
    server = Server(gateway.handle, file.limits.http())
    await server.listen("127.0.0.1", port)
    try:
        yield gateway, port
    finally:
        await server.drain(2.0)
        gateway.close()


def chat(text: str = "hello", **more: Any) -> dict[str, Any]:
    """A chat request."""
    return {"model": MODEL, "messages": [{"role": "user", "content": text}], **more}


@dataclass
class Seen:
    """What came of one request."""

    status: int
    body: bytes = b""
    events: list[Any] = field(default_factory=list)
    whole: bool = True
    """Whether the answer ended as HTTP and, if it is a stream, with [DONE]."""
    cut: bool = False
    """Whether HTTP itself shows that it is not whole."""

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """Of a stream: what the first choice said."""
        choices = [choice for event in self.events for choice in event.get("choices", ()) if choice["index"] == 0]
        return "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in choices)


async def ask(port: int, body: dict[str, Any], *headers: bytes, path: str = CHAT, within_s: float = 20.0) -> Seen:
    """Ask and read to the end, however it ends; status 0: no answer."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return Seen(0, whole=False, cut=True)
    answer, broken = b"", False
    try:
        writer.write(post(path, json.dumps(body).encode(), *headers))
        while data := await asyncio.wait_for(reader.read(1 << 16), within_s):
            answer += data
    except (ConnectionError, TimeoutError):
        broken = True
    finally:
        writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return understood(answer, broken)


def understood(answer: bytes, broken: bool = False) -> Seen:
    """What bytes mean."""
    seen = Seen(status_of(answer), whole=not broken and bool(answer), cut=broken or not answer)
    try:
        seen.body = body_of(answer)
    except (AssertionError, ValueError):
        seen.whole, seen.cut = False, True
        return seen
    if b"text/event-stream" not in answer.partition(b"\r\n\r\n")[0]:
        length = answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        seen.cut |= bool(length) and len(seen.body) != int(length)
        seen.whole &= not seen.cut
        return seen
    lines = [line[6:] for line in seen.body.split(b"\n\n") if line.startswith(b"data: ")]
    seen.whole &= bool(lines) and lines[-1] == b"[DONE]"
    for line in lines:
        if line != b"[DONE]":
            try:
                seen.events.append(json.loads(line))
            except ValueError:
                seen.whole = False
    return seen

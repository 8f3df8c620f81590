"""The picker as a process: gRPC for Envoy, HTTP for metrics and health."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.serve.config import GatewayFile
from infermix.serve.epp.picker import Picker
from infermix.serve.epp.service import Service, start_service
from infermix.serve.http1 import Reply, Request, Server
from infermix.serve.meters import Meters
from infermix.serve.openai import ApiError
from infermix.serve.pools import pool_specs
from infermix.serve.prometheus import TEXT_TYPE
from infermix.serve.scrape import scrape_forever

GRACE_S = 5.0


def run_picker(
    file: GatewayFile, listen: str, http: str | None, ready: Callable[[int], None], for_s: float | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, or for so long; ``ready`` is called with the port when it is open.

    Raises
    ------
    InputError
        A port cannot be had.
    """
    picker = Picker(file, pool_specs(file, catalog()))
    asyncio.run(_serve(picker, listen, http, ready, for_s))


async def _serve(
    picker: Picker, listen: str, http: str | None, ready: Callable[[int], None], for_s: float | None
) -> None:
    loop, ended, meters = asyncio.get_running_loop(), asyncio.Event(), Meters()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    service = Service(picker, meters)
    try:
        server, port = await start_service(service, listen)
    except RuntimeError:
        raise InputError("cannot listen", where="--listen", value=listen, mend="choose another port") from None
    beside = None if http is None else await _beside(service, http)

    scraping = loop.create_task(scrape_forever(picker))
    try:
        ready(port)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ended.wait(), for_s)
    finally:
        scraping.cancel()
        await server.stop(GRACE_S)
        if beside is not None:
            await beside.drain(0.0)


async def _beside(service: Service, address: str) -> Server:
    """``/metrics``, ``/healthz`` and ``/readyz``."""

    async def answer(request: Request, reply: Reply) -> None:
        if request.path == "/metrics":
            _bring_up_to_date(service)
            reply.send(200, service.meters.registry.text(), (TEXT_TYPE,))
        elif request.path == "/healthz" or (request.path == "/readyz" and service.ready()):
            reply.send(200, b'{"status":"ok"}')
        elif request.path == "/readyz":
            raise ApiError(503, "no backend may be asked", code="no_backend")
        else:
            raise ApiError(404, f"there is no {request.path}", code="not_found")

    server = Server(answer)
    host, _, port = address.rpartition(":")
    try:
        await server.listen(host.strip("[]"), int(port))
    except (OSError, ValueError):
        raise InputError("cannot listen", where="--http", value=address, allowed="HOST:PORT") from None
    return server


def _bring_up_to_date(service: Service) -> None:
    live, meters, now_s = service.picker.live, service.meters, service.picker.clock()
    for j, backend in enumerate(live.backends):
        chip = backend.system or backend.pool_name
        meters.inflight.of(backend.name, backend.pool_name, chip).set(live.own[j])
        meters.up.of(backend.name).set(live.breakers[j].may(now_s))
        meters.breaker.of(backend.name).set(live.breakers[j].state)

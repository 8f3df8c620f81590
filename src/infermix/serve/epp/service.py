"""The picker as a gRPC service, with its health beside it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from infermix.serve.epp.exchange import Exchange
from infermix.serve.epp.health import asked_service, status
from infermix.serve.epp.picker import Picker
from infermix.serve.meters import Meters

PROCESSOR, HEALTH = "envoy.service.ext_proc.v3.ExternalProcessor", "grpc.health.v1.Health"
WATCH_S = 1.0


class Service:
    """Streams of Envoy's, and who of the fleet is ready."""

    def __init__(self, picker: Picker, meters: Meters) -> None:
        self.picker, self.meters = picker, meters
        self.open = 0
        """Streams that are open now."""

    async def process(self, messages: AsyncIterator[Any], _: Any) -> AsyncIterator[Any]:
        """One request of a client."""
        exchange = Exchange(self.picker)
        self.open += 1
        try:
            async for message in messages:
                began_s, undecided = time.perf_counter(), exchange.picked is None and not exchange.refused
                answers = list(exchange.take(message))
                if undecided:
                    self._count(exchange, time.perf_counter() - began_s)
                for answer in answers:
                    yield answer
        finally:
            self.open -= 1
            if exchange.picked is not None:
                self.picker.left(exchange.picked)

    def _count(self, exchange: Exchange, seconds: float) -> None:
        """A decision was made, or a request was turned away."""
        if exchange.refused in (429, 503):
            self.meters.shed.add("full" if exchange.refused == 429 else "not_ready")
        elif exchange.refused:
            self.meters.refused.add(str(exchange.refused))
        elif exchange.picked is not None:
            backend = self.picker.live.backends[exchange.picked.order[0]]
            policy = self.picker.file.gateway.policy
            self.meters.decisions.add(policy, "pick", backend.system or backend.pool_name)
            self.meters.decision.observe(seconds, policy)

    async def check(self, request: bytes, _: Any) -> bytes:
        """Health, once."""
        return status(asked_service(request), self.ready())

    async def watch(self, request: bytes, _: Any) -> AsyncIterator[bytes]:
        """Health, whenever it changes."""
        last = b""
        while True:
            now = status(asked_service(request), self.ready())
            if now != last:
                yield now
            last = now
            await asyncio.sleep(WATCH_S)

    def ready(self) -> bool:
        """Whether a backend may be asked."""
        now_s = self.picker.clock()
        return any(breaker.may(now_s) for breaker in self.picker.live.breakers)


async def start_service(service: Service, address: str) -> tuple[grpc.aio.Server, int]:
    """Listen at an address; the port is of its own choice where it says 0."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    process = grpc.stream_stream_rpc_method_handler(
        service.process, pb.ProcessingRequest.FromString, pb.ProcessingResponse.SerializeToString
    )
    health = {
        "Check": grpc.unary_unary_rpc_method_handler(service.check),
        "Watch": grpc.unary_stream_rpc_method_handler(service.watch),
    }
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler(PROCESSOR, {"Process": process}),
        grpc.method_handlers_generic_handler(HEALTH, health),
    ))  # fmt: skip
    port = server.add_insecure_port(address)
    await server.start()
    return server, port

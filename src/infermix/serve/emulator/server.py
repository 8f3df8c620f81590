"""The emulated servers: one port for each instance, OpenAI's API and vLLM's metrics on each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence as Row

from infermix.serve.emulator.alarm import make_alarm
from infermix.serve.emulator.answers import Answer, Choice, make_answer
from infermix.serve.emulator.config import Emulated, Setting
from infermix.serve.emulator.driver import Driver
from infermix.serve.emulator.faults import IN_STREAM, Fault, Faults
from infermix.serve.emulator.metrics import EngineMetrics
from infermix.serve.emulator.state import Engine, Sequence, make_engines
from infermix.serve.http1 import JSON_TYPE, Reply, Request, Server
from infermix.serve.openai import CHAT, DONE_EVENT, TEXT, ApiError, models_list, read_wanted
from infermix.serve.prometheus import TEXT_TYPE

MALFORMED = b'data: {"id":"emulated","choices":[{"ind\n\n'
_TICK_S = 0.02


class Instance:
    """One instance behind its port."""

    def __init__(self, place: Emulated, engine: Engine, setting: Setting, began_s: float) -> None:
        self.place, self.setting, self.engine = place, setting, engine
        self.loop = asyncio.get_running_loop()
        self.began_s, self.created = began_s, int(time.time())
        self.faults = Faults(setting.faults, place.name, place.pool)
        self.driver = Driver(engine, lambda ring: make_alarm(self.loop, ring, time.monotonic), self._grew)
        self.metrics = EngineMetrics(engine, place.model)
        self.answers: dict[int, tuple[Answer, Choice]] = {}
        self.server: Server | None = None
        self.number = 0

    def now_s(self) -> float:
        """Since the servers began."""
        return self.loop.time() - self.began_s

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one HTTP request."""
        path = request.path
        if path in (CHAT, TEXT):
            if request.method != "POST":
                raise ApiError(405, f"{path} takes POST", headers=((b"allow", b"POST"),))
            await self._complete(request, reply)
        elif path == "/v1/models":
            reply.send(200, models_list([self.place.model], self.created))
        elif path == "/metrics":
            if self.faults.on("no_metrics", self.now_s()):
                raise ApiError(404, "no metrics for now", code="not_found")
            reply.send(200, self.metrics.registry.text(), (TEXT_TYPE,))
        elif path in ("/health", "/healthz", "/readyz"):
            self._refuse_while_starting()
            reply.send(200, b'{"status":"ok"}')
        else:
            raise ApiError(404, f"there is no {path}", code="not_found")

    def _refuse_while_starting(self) -> None:
        if self.faults.on("slow_start", self.now_s()):
            raise ApiError(503, "the model is loading", code="loading", headers=((b"retry-after", b"1"),))

    async def _complete(self, request: Request, reply: Reply) -> None:
        self._refuse_while_starting()
        fault = self.faults.of_next_request(self.now_s())
        if fault is not None and fault.kind == "429":
            wait = str(fault.retry_after_s).encode()
            raise ApiError(429, "too many requests", code="rate_limit_exceeded", headers=((b"retry-after", wait),))
        if fault is not None and fault.kind == "500":
            raise ApiError(500, "the engine failed", code="internal_error")
        wanted = read_wanted(request.body, request.path)
        if wanted.model not in self.place.names:
            raise ApiError(404, f"the model {wanted.model!r} is not served here", param="model", code="model_not_found")
        self.number += 1
        kind = "chatcmpl" if request.path == CHAT else "cmpl"
        id = f"{kind}-{self.place.port}-{self.number}"
        made = make_answer(wanted, request, self.engine.spec, self.setting.answers, id)
        for choice in made.choices:
            self.answers[id_of(choice)] = (made, choice)
        try:
            in_stream = fault if fault is not None and fault.kind in IN_STREAM else None
            await self._answer(made, reply, in_stream, request.came_s)
        finally:
            self._forget(made)

    async def _answer(self, made: Answer, reply: Reply, fault: Fault | None, came_s: float) -> None:
        if made.wanted.stream:
            reply.start(200)
            pieces = Pieces(reply, fault, self.loop)
            made.write = pieces.write
        self.driver.add(made.sequences, came_s)
        await made.ended
        if made.wanted.stream:
            await pieces.end(made.tail() + DONE_EVENT)
        elif fault is None:
            reply.send(200, made.whole)
        else:
            await self._send_wrong(made.whole, reply, fault)

    async def _send_wrong(self, body: bytes, reply: Reply, fault: Fault) -> None:
        """A whole answer under a fault of streams."""
        if fault.kind == "stall":
            await asyncio.sleep(fault.stall_s)
            reply.send(200, body)
        elif fault.kind == "malformed":
            reply.send(200, body[: len(body) // 2])
        else:
            reply.start(200, (JSON_TYPE,))
            reply.write(body[: len(body) // 2])
            await asyncio.sleep(_TICK_S)
            reply.abort()

    def _grew(self, seq: Sequence) -> None:
        found = self.answers.get(id(seq))
        if found is None:
            return
        made, choice = found
        made.grew(choice)
        if seq.ended:
            del self.answers[id(seq)]
            self.metrics.done(seq, choice.finish, made.wanted.most_tokens)

    def _forget(self, made: Answer) -> None:
        """The client has all, or has left: then the engine stops computing for it."""
        left = [choice for choice in made.choices if self.answers.pop(id_of(choice), None) is not None]
        self.driver.drop([choice.sequence for choice in left])
        for choice in left:
            self.metrics.done(choice.sequence, "abort", None)


def id_of(choice: Choice) -> int:
    """What its sequence is known by."""
    return id(choice.sequence)


class Pieces:
    """A stream on its way out, and what goes wrong with it."""

    def __init__(self, reply: Reply, fault: Fault | None, loop: asyncio.AbstractEventLoop) -> None:
        self.reply, self.fault, self.loop = reply, fault, loop
        self.count = 0
        self.held: list[bytes] | None = None
        self.flowing: asyncio.Future[None] | None = None

    def write(self, piece: bytes) -> None:
        """One chunk; the fault strikes before the chunk after so many."""
        if self.fault is not None and self.count == self.fault.after_chunks:
            self._strike(self.fault)
        self.count += 1
        if self.held is not None:
            self.held.append(piece)
        else:
            self.reply.write(piece)

    async def end(self, last: bytes) -> None:
        """The stream is complete."""
        if self.fault is not None and self.count <= self.fault.after_chunks:
            self._strike(self.fault)
        if self.flowing is not None:
            await self.flowing
        if not self.reply.ended:
            self.reply.end(last)

    def _strike(self, fault: Fault) -> None:
        if fault.kind == "cut":
            self.loop.call_later(_TICK_S, self.reply.abort)
            self.held, self.flowing = [], self.loop.create_future()
        elif fault.kind == "malformed":
            self.reply.write(MALFORMED)
        elif self.held is None:
            self.held, self.flowing = [], self.loop.create_future()
            self.loop.call_later(fault.stall_s, self._flow_again)

    def _flow_again(self) -> None:
        held, self.held = self.held or [], None
        if self.flowing is not None and not self.flowing.done():
            for piece in held:
                self.reply.write(piece)
            self.flowing.set_result(None)


class Emulator:
    """All instances, and the faults that concern their ports."""

    def __init__(self, places: Row[Emulated], setting: Setting) -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        self.setting = setting
        self.instances: list[Instance] = []
        of_pool: dict[str, list[Engine]] = {}
        for place in places:
            if place.pool not in of_pool:
                of_pool[place.pool] = make_engines(place.spec)
            self.instances.append(Instance(place, of_pool[place.pool].pop(0), setting, began_s))
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen at every port."""
        for one in self.instances:
            await self._open(one)
        if any(fault.kind == "refuse" for fault in self.setting.faults):
            self._watch = asyncio.get_running_loop().create_task(self._open_and_close())

    async def stop(self, within_s: float = 0.0) -> None:
        """Let what is under way end, for so long, then close."""
        if self._watch is not None:
            self._watch.cancel()
        await asyncio.gather(*(one.server.drain(within_s) for one in self.instances if one.server is not None))
        for one in self.instances:
            one.driver.stop()

    async def _open(self, one: Instance) -> None:
        if one.faults.on("refuse", one.now_s()):
            return
        server = Server(one.handle, self.setting.limits)
        await server.listen(one.place.host, one.place.port)
        one.server = server

    async def _open_and_close(self) -> None:
        """Ports close while a server refuses connections, and open again."""
        while True:
            await asyncio.sleep(_TICK_S)
            for one in self.instances:
                refuses = one.faults.on("refuse", one.now_s())
                if refuses and one.server is not None:
                    server, one.server = one.server, None
                    await server.drain(0.0)
                elif not refuses and one.server is None:
                    await self._open(one)

"""The gateway: lets a request in, asks the policy, tries backends in its order, and hands the answer on."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Mapping

from infermix.errors import InputError
from infermix.serve.admit import admitted
from infermix.serve.config import GatewayFile
from infermix.serve.events import Events
from infermix.serve.finish import Books
from infermix.serve.homes import Homes, beginning_of
from infermix.serve.http1 import JSON_TYPE, Reply, Request
from infermix.serve.job import USAGE_HEADER, Job, request_id, traceparent
from infermix.serve.keys import Door, read_keys
from infermix.serve.live import Live, Placed
from infermix.serve.openai import CHAT, TEXT, ApiError, models_list, prompt_chars, read_wanted
from infermix.serve.prometheus import TEXT_TYPE
from infermix.serve.queue import Queue
from infermix.serve.relay import Attempt
from infermix.serve.resume import resumed
from infermix.serve.signals import known_names, read_signals
from infermix.serve.upstream import site_of
from infermix.sim.state import PoolSpec

SWEEP_S = 0.05
RETRIED_STATUSES = frozenset({401, 403, 408, 429, 500, 502, 503, 504})
"""Answers of a backend that another one may do better."""
MOST_PATIENT_S = 30.0
"""A backend that asks to be left alone is, for so long at most."""


class Gateway:
    """Everything that one worker holds."""

    def __init__(
        self, file: GatewayFile, specs: list[PoolSpec], environment: Mapping[str, str] = os.environ, worker: int = 0
    ) -> None:
        self.file, self.worker = file, worker
        self.loop = asyncio.get_running_loop()
        self.clock = time.monotonic  # finer than the loop's own, which counts milliseconds; that of requests
        self.live = Live(file, specs)
        self.known = known_names(file)
        self.door = Door(file, read_keys(file, environment))
        most_idle = file.limits.upstream_connections
        self.sites = [site_of(b, _key(b.key_env, environment, file), most_idle, file) for b in self.live.backends]
        self.homes = Homes()
        self.queue = Queue(file.limits.queue_max, file.limits.queue_s)
        self.books = Books(self)
        self.attempts: set[Attempt] = set()
        self.ready = True
        self.started_s = int(time.time())
        self._sweeper = self.loop.create_task(self._sweep())

    async def _sweep(self) -> None:
        """End attempts whose time is up."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now_s = self.clock()
            for attempt in [a for a in self.attempts if now_s >= a.deadline_s or now_s >= a.total_s]:
                attempt.expire(now_s)

    def inherit(self, before: Gateway) -> None:
        """Go on with what the gateway before a reload has learnt."""
        self.door.take_over(before.door)
        names = {b.name: j for j, b in enumerate(before.live.backends)}
        if [b.name for b in self.live.backends] == list(names):
            self.homes = before.homes
        self.live.inherit(before.live, names)
        self.books.inherit(before.books)

    def close(self) -> None:
        """Let go of backends and files."""
        self._sweeper.cancel()
        for site in self.sites:
            site.close()
        self.books.close()

    # Requests.

    async def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request of a client."""
        if request.path in (CHAT, TEXT):
            if request.method != "POST":
                raise ApiError(405, "use POST", code="method_not_allowed", headers=((b"allow", b"POST"),))
            await self._answer(request, reply)
        elif request.method != "GET":
            raise _unknown(request)
        elif request.path == "/v1/models":
            self.door.holder(request.headers.get(b"authorization", b""))
            reply.send(200, models_list(self.file.models, self.started_s))
        elif request.path == "/healthz":
            reply.send(200, b'{"status":"ok"}')
        elif request.path == "/readyz":
            reply.send(*((200, b'{"status":"ready"}') if self.ready else (503, b'{"status":"draining"}')))
        elif request.path == "/metrics":
            reply.send(200, self.books.text(), (TEXT_TYPE,))
        else:
            raise _unknown(request)

    async def _answer(self, request: Request, reply: Reply) -> None:
        try:
            job = self._understood(request, request.came_s)
        except ApiError as fault:
            self.books.refused(request, fault)
            raise
        try:
            await admitted(self, job)
            await self._served(job, reply)
        except ApiError as fault:
            self.books.failed(job, fault, reply)
            raise
        except asyncio.CancelledError:
            self.books.given_up(job)
            raise

    def _understood(self, request: Request, began_s: float) -> Job:
        """Read a request; ApiError for one that is not let in or says what cannot be."""
        holder = self.door.holder(request.headers.get(b"authorization", b""))
        wanted = read_wanted(request.body, request.path)
        signals = read_signals(request.headers, wanted, self.known, holder.budget if holder.id else None)
        chars = prompt_chars(wanted)
        tokens = self.live.tokens_of(wanted.model, chars)
        lengths = self.live.lengths[signals.class_name]
        charged = tokens + min(float(wanted.most_tokens or 1e9), lengths.quantile(0.9))
        holder.charge(charged, began_s)
        beginning = beginning_of(wanted)
        extends = self.file.gateway.usage_extension or request.headers.get(USAGE_HEADER, b"") == b"1"
        return Job(
            request=request, path=request.path, wanted=wanted, signals=signals, holder=holder,
            id=request_id(request), trace=traceparent(request), began_s=began_s, chars=chars, input_tokens=tokens,
            charged=charged, beginning=beginning, home=self.homes.find(beginning, signals.session),
            extends_usage=extends,
        )  # fmt: skip

    # Decisions.

    def place(self, job: Job) -> Placed | None:
        """Ask the policy, among the instances that are marked; None: nobody takes the request."""
        live = self.live
        before_s = time.perf_counter()
        home = job.home
        cached = min(live.tokens_of(job.wanted.model, home.chars), job.input_tokens - 1) if home.chars else 0
        ask = live.ask(job.signals, self.clock(), job.input_tokens, max(cached, 0), job.beginning.prefix)
        instance = live.choose(ask, home.backend)
        job.decision_s = time.perf_counter() - before_s
        self.books.decided(job, ask, home.backend, instance)
        if instance < 0 or not live.view.eligible[instance]:
            return None
        job.placed = live.placed(instance, ask, home.backend, job.signals.class_name)
        return job.placed

    async def _served(self, job: Job, reply: Reply) -> None:
        """Try backends in the order of the policy until one answers, or none is left."""
        tried: set[int] = set()
        for _ in range(self.file.limits.retries + 1):
            if tried:
                self.live.mark(job.wanted.model, job.signals, job.input_tokens, self.clock())
                for instance in tried:
                    self.live.mask(instance)
            placed = self.place(job)
            if placed is None:
                if not tried:
                    raise self.queue.refuse("late", "the request can no longer be in time", 1)
                break
            attempt = await self._tried(job, placed, reply)
            if attempt is None:
                return
            tried.add(placed.instance)
            last = self._why(job, placed, attempt)
        raise last

    async def _tried(self, job: Job, placed: Placed, reply: Reply) -> Attempt | None:
        """One backend: None if the client has its answer (whole, or broken after the first byte)."""
        attempt = await self.asked(job, placed, reply, job.body_for(self.live.backends[placed.instance]))
        j, now_s = placed.instance, self.clock()
        if attempt.relaying:
            if attempt.fault:
                self.live.went_wrong(j, now_s)
                await resumed(self, job, attempt, reply)
            else:
                self.live.went_well(j)
                reply.end()
                self.books.done(job, attempt)
            return None
        if not attempt.fault and attempt.status not in RETRIED_STATUSES and not (attempt.streams):
            self.live.went_well(j)
            self.books.answered(job, attempt, reply)
            return None
        self._blame(j, attempt, now_s)
        self.books.retried(job, placed, attempt)
        return attempt

    def _blame(self, j: int, attempt: Attempt, now_s: float) -> None:
        """A backend that fails is asked less; one that is busy is left alone for as long as it says."""
        if attempt.status == 429:
            said = attempt.headers.get(b"retry-after", b"1")
            wait_s = float(said) if said.isdigit() else 1.0
            self.live.leave_alone(j, now_s + min(wait_s, MOST_PATIENT_S))
            return
        self.live.went_wrong(j, now_s)
        if attempt.fault:
            self.sites[j].forget()

    def _why(self, job: Job, placed: Placed, attempt: Attempt) -> ApiError:
        """What the client is told if no other backend does better."""
        name = self.live.backends[placed.instance].name
        tries = len(job.tries)
        if attempt.status == 429:
            retry = attempt.headers.get(b"retry-after", b"1")
            return ApiError(
                429, f"the backends are busy ({tries} asked)", code="overloaded", headers=((b"retry-after", retry),)
            )
        if attempt.fault in ("first_token", "total"):
            return ApiError(504, f"no answer in time; {tries} asked, last {name}", code="backend_timeout")
        what = f"{attempt.fault}{attempt.detail}" or f"HTTP {attempt.status}"
        return ApiError(502, f"no backend answered; {tries} asked, last {name}: {what}", code="backend_failed")

    async def asked(self, job: Job, placed: Placed, reply: Reply, body: bytes) -> Attempt:
        """Send the request to a backend and wait until there is no more to come of it."""
        attempt = self.attempt(job, placed, reply)
        try:
            for fresh in (False, True):
                await self._sent(job, placed, attempt, body, fresh)
                await attempt.over
                if attempt.fault != "stale":
                    return attempt
                attempt = self.again(attempt, job, placed, reply)
            return attempt
        finally:
            self.attempts.discard(attempt)
            if reply.on_pause is not None:
                reply.on_pause = None
            if not attempt.over.done() or attempt.over.cancelled():
                if attempt.connection is not None:
                    attempt.connection.cancel()
                self.live.was_given_up(placed.instance)
            self.live.left(placed)
            self.queue.wake()

    def attempt(self, job: Job, placed: Placed, reply: Reply) -> Attempt:
        """A listener for the answer, as patient as the file says."""
        limits = self.file.limits
        events = Events(
            strip_usage=not job.wanted.wants_usage,
            keep_text=limits.resume and job.stream,
            extend=(lambda usage: self.books.extension(job, usage)) if job.extends_usage else None,
        )
        stall_s = max(limits.stall_least_s, limits.stall_factor * placed.estimate.tpot_s)
        attempt = Attempt(reply, events, self.clock, stall_s)
        now_s = self.clock()
        attempt.total_s = job.began_s + limits.total_s
        attempt.deadline_s = now_s + limits.first_token_s
        attempt.on_first = lambda first: self._first(job, placed, first)
        self.attempts.add(attempt)
        return attempt

    def again(self, attempt: Attempt, job: Job, placed: Placed, reply: Reply) -> Attempt:
        """The backend had closed a connection that waited: that is no failure, a fresh one is tried."""
        self.attempts.discard(attempt)
        self.sites[placed.instance].forget()
        return self.attempt(job, placed, reply)

    async def _sent(self, job: Job, placed: Placed, attempt: Attempt, body: bytes, fresh: bool) -> None:
        """Connect and send; a failure to connect ends the attempt."""
        site = self.sites[placed.instance]
        if fresh:
            site.forget()
        try:
            connection = await site.connect(self.file.limits.connect_s)
        except ssl.SSLCertVerificationError as fault:
            attempt.detail = f" not trusted ({fault.verify_message})"
            attempt.on_fault("certificate")
            return
        except (OSError, TimeoutError):
            attempt.on_fault("connect")
            return
        attempt.connection = connection
        attempt.reply.on_pause = connection.hold
        self.books.sent(job)
        connection.send(attempt, site.request("POST", job.path, job.headers(), body))

    def _first(self, job: Job, placed: Placed, attempt: Attempt) -> None:
        """The first text is there: the client's answer begins."""
        self.live.first(placed)
        kind = attempt.headers.get(b"content-type", JSON_TYPE[1])
        attempt.reply.start(200, [(b"content-type", kind), (b"cache-control", b"no-cache"), *self.books.headers(job)])


def _unknown(request: Request) -> ApiError:
    known = {CHAT, TEXT, "/v1/models", "/metrics", "/healthz", "/readyz"}
    if request.path in known:
        return ApiError(405, "use GET", code="method_not_allowed", headers=((b"allow", b"GET"),))
    return ApiError(404, f"there is no {request.path[:100]} here", code="not_found")


def _key(name: str | None, environment: Mapping[str, str], file: GatewayFile) -> str | None:
    """A backend's key from the environment; never shown."""
    if name is None:
        return None
    key = environment.get(name, "").strip()
    if not key or not (key.isascii() and key.isprintable()):
        what = "is not set" if not key else "has characters that a header cannot carry"
        raise InputError(f"the variable {name} {what}", where=f"{file.path}: backends.key_env", mend=f"export {name}")
    return key

"""What became of requests: counted, logged, learnt from, and told to the client."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from infermix.route.view import Ask
from infermix.serve.breaker import CLOSED
from infermix.serve.decisions import DecisionLog
from infermix.serve.events import Events
from infermix.serve.http1 import Reply, Request
from infermix.serve.job import Job
from infermix.serve.journal import Journal
from infermix.serve.live import Placed
from infermix.serve.merge import Snapshots
from infermix.serve.meters import Meters, Series
from infermix.serve.money import cost_usd, expected_usd
from infermix.serve.openai import ApiError, Usage
from infermix.serve.otel import Over, open_telemetry
from infermix.serve.relay import Attempt
from infermix.serve.shared import Shared

if TYPE_CHECKING:
    from infermix.serve.gateway import Gateway

FLUSH_S = 0.5
CLIENT_LEFT = 499
_WHOLE = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Books:
    """Metrics and logs of one worker."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway, self._live = gateway, gateway.live
        self.meters = Meters()
        listen, file = gateway.file.gateway, gateway.file
        self._policy = listen.policy
        self._series: dict[tuple[str, int], Series] = {}
        self._snapshots: Snapshots | None = None
        self._shared: Shared | None = None
        self._log = self._journal(listen.log, "log")
        self._observed = self._journal(listen.observe, "observe")
        decisions = self._journal(listen.decisions, "decisions")
        self._decisions = None if decisions is None else DecisionLog(decisions, file, self._live.view)
        self._journals = [j for j in (self._log, self._observed, decisions) if j is not None]
        self._clock_offset_s = time.time() - gateway.clock()
        self._telemetry = open_telemetry(file, self._clock_offset_s) if listen.otel else None
        self.meters.registry.before.append(self._bring_up_to_date)
        self._flusher = gateway.loop.call_later(FLUSH_S, self._flush)
        for j, backend in enumerate(self._live.backends):
            if backend.usd_per_hour is not None:
                self.meters.usd_per_hour.of(backend.name, backend.pool_name, self._chip(j)).set(backend.usd_per_hour)

    def _journal(self, path: str | None, name: str) -> Journal | None:
        if path is None:
            return None
        file, worker = self._gateway.file, self._gateway.worker
        if path != "-":
            path = str(file.folder / path) + (f".{worker}" if worker else "")
        return Journal(path, f"{file.path}: gateway.{name}")

    def _flush(self) -> None:
        for journal in self._journals:
            journal.flush()
        if self._snapshots is not None:
            self._bring_up_to_date()
            self._snapshots.leave(self.meters.registry)
        self._flusher = self._gateway.loop.call_later(FLUSH_S, self._flush)

    def close(self) -> None:
        """Write everything."""
        self._flusher.cancel()
        for journal in self._journals:
            journal.close()
        if self._telemetry is not None:
            self._telemetry.close()

    def join(self, snapshots: Snapshots, shared: Shared | None) -> None:
        """Tell the metrics of all workers as one."""
        self._snapshots, self._shared = snapshots, shared

    def inherit(self, before: Books) -> None:
        """Go on counting where the gateway before a reload has stopped."""
        before_up_to_date = before._bring_up_to_date
        self.meters = before.meters
        self.meters.registry.before = [
            self._bring_up_to_date if f == before_up_to_date else f for f in self.meters.registry.before
        ]

    def text(self) -> bytes:
        """All metrics."""
        if self._snapshots is None:
            return self.meters.registry.text()
        self._bring_up_to_date()
        return self._snapshots.merged(self.meters.registry)

    def _chip(self, j: int) -> str:
        backend = self._live.backends[j]
        return backend.system or backend.provider or backend.engine

    # On the way.

    def decided(self, job: Job, ask: Ask, home: int, pick: int) -> None:
        """A decision was made."""
        self.meters.decision.observe(job.decision_s, self._policy)
        reason = "refused" if pick < 0 else "retry" if job.tries else "home" if pick == home else "policy"
        self.meters.decisions.add(self._policy, reason, self._chip(pick) if pick >= 0 else "")
        if self._decisions is not None:
            at_s = ask.now_s + self._clock_offset_s
            self._decisions.decided(ask, home, pick, self._live.view, at_s, job.signals.class_name)

    def sent(self, job: Job) -> None:
        """A request leaves for a backend."""
        if not job.tries:
            self.meters.overhead.observe(self._gateway.clock() - job.began_s - job.queued_s)
            self.meters.offered.add(job.signals.class_name)
            if self._gateway.file.limits.shed_above is not None:
                self.meters.queue_s.observe(job.queued_s)

    def retried(self, job: Job, placed: Placed, attempt: Attempt) -> None:
        """A backend did not answer, and another is asked."""
        name = self._live.backends[placed.instance].name
        cause = attempt.fault or f"http_{attempt.status}"
        job.tries.append((name, cause))
        self.meters.retries.add(cause)
        self.meters.faults.add(name, cause)

    def headers(self, job: Job) -> list[tuple[bytes, bytes]]:
        """What the answer says of itself: who serves it, the estimate, the price."""
        lines = [
            (b"x-request-id", job.id.encode("latin-1")),
            (b"x-infermix-decision-us", b"%.1f" % (job.decision_s * 1e6)),
        ]
        placed = job.placed
        if placed is not None:
            backend, expected = self._live.backends[placed.instance], placed.estimate
            lines += [
                (b"x-infermix-backend", backend.name.encode()),
                (b"x-infermix-pool", backend.pool_name.encode()),
                (b"x-infermix-chip", self._chip(placed.instance).encode()),
                (b"x-infermix-class", job.signals.class_name.encode()),
                (b"x-infermix-est-ttft-ms", b"%.2f" % (expected.ttft_s * 1e3)),
                (b"x-infermix-est-tpot-ms", b"%.3f" % (expected.tpot_s * 1e3)),
            ]
            usd = expected_usd(self._live, placed)
            if usd is not None:
                lines.append((b"x-infermix-est-cost-usd", b"%.3g" % usd))
        if job.wanted.service_tier is not None:
            lines.append((b"x-infermix-service-tier", job.signals.tier.encode("ascii", "replace")))
        return lines + job.holder.headers(self._gateway.clock())

    def extension(self, job: Job, usage: Usage) -> dict[str, Any]:
        """What a usage says beside tokens."""
        placed = job.placed
        if placed is None:
            return {}
        backend, expected = self._live.backends[placed.instance], placed.estimate
        return {
            "backend": backend.name,
            "pool": backend.pool_name,
            "chip": self._chip(placed.instance),
            "est_ttft_s": expected.ttft_s,
            "est_tpot_s": expected.tpot_s,
            "cost_usd": cost_usd(self._live, placed, *_counts(usage)),
        }

    # At the end.

    def answered(self, job: Job, attempt: Attempt, reply: Reply) -> None:
        """An answer that is no stream: hand it on, with what it says of itself."""
        body, headers = attempt.body, self.headers(job)
        kind = attempt.headers.get(b"content-type", b"application/json")
        if attempt.status == 200:
            attempt.events.usage = _usage_in(body)
            usage = attempt.events.usage
            if usage is not None and job.placed is not None:
                usd = cost_usd(self._live, job.placed, *_counts(usage))
                if usd is not None:
                    headers.append((b"x-infermix-cost-usd", b"%.3g" % usd))
                if job.extends_usage:
                    body = _extended(body, self.extension(job, usage))
        reply.send(attempt.status, body, ((b"content-type", kind), *headers))
        if attempt.status == 200:
            self.done(job, attempt)
        else:
            self._closed(job, attempt.status, {})

    def done(self, job: Job, attempt: Attempt) -> None:
        """An answer is whole."""
        placed = job.placed
        assert placed is not None
        inputs, cached, outputs = _tokens_of(job, attempt.events)
        ttft_s = attempt.first_s - job.began_s
        tpot_s = (attempt.last_s - attempt.first_s) / (outputs - 1) if outputs > 1 else 0.0
        e2e_s = attempt.last_s - job.began_s
        usd = cost_usd(self._live, placed, inputs, cached, outputs)
        self._learn(job, placed, attempt, (inputs, cached, outputs), tpot_s)
        job.holder.settle(job.charged, inputs + outputs)
        self._measure(job, placed, (ttft_s if job.stream else 0.0, tpot_s if job.stream else 0.0, e2e_s))
        series = self._series_of(job, placed)
        series.read.value += inputs - cached
        series.cached.value += cached
        series.written.value += outputs
        if usd is not None:
            self.meters.cost.add(self._chip(placed.instance), job.signals.tier, amount=usd)
        told = {
            "prompt_tokens": inputs, "cached_tokens": cached, "completion_tokens": outputs, "cost_usd": usd,
            "first_s": attempt.first_s if job.stream else None, "last_s": attempt.last_s,
        }  # fmt: skip
        self._closed(job, 200, told)

    def _learn(self, job: Job, placed: Placed, attempt: Attempt, counts: tuple[int, int, int], tpot_s: float) -> None:
        """Lengths, speeds, and where the prompt is now."""
        inputs, _, outputs = counts
        gateway = self._gateway
        exact = attempt.events.usage is not None
        self._live.learn_lengths(job.signals.class_name, job.wanted.model, job.chars if exact else 0, inputs, outputs)
        if job.stream and not job.tries and (job.wanted.n or 1) == 1:
            self._live.learn_speed(placed, attempt.first_s - job.began_s - job.queued_s, tpot_s, outputs)
        gateway.homes.settle(job.beginning, job.signals.session, placed.instance)

    def _series_of(self, job: Job, placed: Placed) -> Series:
        key = (job.signals.class_name, placed.instance)
        found = self._series.get(key)
        if found is None:
            pool = self._live.backends[placed.instance].pool_name
            found = self._series[key] = Series(self.meters, key[0], self._chip(placed.instance), pool)
        return found

    def _measure(self, job: Job, placed: Placed, took: tuple[float, float, float]) -> None:
        """Times, beside what was predicted and promised."""
        ttft_s, tpot_s, e2e_s = took
        name, expected, series = job.signals.class_name, placed.estimate, self._series_of(job, placed)
        series.duration.observe(e2e_s)
        series.predicted_ttft.observe(expected.ttft_s)
        series.predicted_tpot.observe(expected.tpot_s)
        if ttft_s:
            series.ttft.observe(ttft_s)
            series.ttft_error.observe(ttft_s / max(expected.ttft_s, 1e-9))
        if tpot_s:
            series.tpot.observe(tpot_s)
            series.tpot_error.observe(tpot_s / max(expected.tpot_s, 1e-9))
        promise = self._gateway.file.classes[name]
        ttft_most = job.signals.ttft_s or promise.ttft_s
        if ttft_most is not None and job.signals.ttft_s is None:
            ask = placed.ask
            ttft_most += promise.ttft_s_per_1k_uncached * (ask.input_tokens - ask.cached_tokens) / 1000.0
        kept = True
        for what, value, most in (
            ("ttft", ttft_s, ttft_most),
            ("tpot", tpot_s, job.signals.tpot_s or promise.tpot_s),
            ("e2e", e2e_s, promise.e2e_s),
        ):
            if most is not None and value > most:
                self.meters.violations.add(name, what)
                kept = False
        if kept:
            series.kept.value += 1.0

    def failed(self, job: Job, fault: ApiError, reply: Reply) -> None:
        """No backend answered; the client is told by whoever raised."""
        if not job.tries and job.placed is None:
            self.meters.offered.add(job.signals.class_name)
        job.holder.settle(job.charged, 0.0)
        fault.headers = (*fault.headers, *self.headers(job)) if not reply.started else fault.headers
        self._closed(job, fault.status, {"error": fault.code})

    def broken(self, job: Job, attempt: Attempt) -> None:
        """An answer broke after it had begun, and the client was told."""
        placed = job.placed
        if placed is not None:
            self.meters.faults.add(self._live.backends[placed.instance].name, attempt.fault)
        _, _, outputs = _tokens_of(job, attempt.events)
        job.holder.settle(job.charged, job.input_tokens + outputs)
        self._closed(job, 502, {"error": f"midstream_{attempt.fault}", "completion_tokens": outputs})

    def given_up(self, job: Job) -> None:
        """The client left."""
        self.meters.cancelled.add(job.signals.class_name)
        job.holder.settle(job.charged, job.input_tokens)
        self._closed(job, CLIENT_LEFT, {"error": "client_left"})

    def midstream(self, outcome: str) -> None:
        """An answer broke after its first byte: the client was told, or it was resumed."""
        self.meters.midstream.add(outcome)

    def refused(self, request: Request, fault: ApiError) -> None:
        """A request was not understood or not let in."""
        self.meters.refused.add(str(fault.status))
        if self._log is not None:
            self._log.add({"t": time.time(), "refused": fault.status, "code": fault.code, "path": request.path})

    def misread(self, fault: ApiError) -> None:
        """Bytes that were no request."""
        self.meters.refused.add(str(fault.status))

    def _closed(self, job: Job, status: int, told: dict[str, Any]) -> None:
        """The request is over: count it, and write the lines about it."""
        placed, name = job.placed, job.signals.class_name
        backend = self._live.backends[placed.instance] if placed is not None else None
        chip = self._chip(placed.instance) if placed is not None else ""
        served = backend.name if backend is not None else ""
        self.meters.requests.add(job.wanted.model, name, served, chip, job.signals.tier, str(status))
        now_s = self._gateway.clock()
        first_s, last_s = told.pop("first_s", None), told.pop("last_s", now_s)
        offset_s = self._clock_offset_s
        if self._log is not None:
            self._log.add({
                "t": job.began_s + offset_s, "id": job.id, "trace": job.trace[3:35].decode(), "key": job.holder.id,
                "class": name, "model": job.wanted.model, "tier": job.signals.tier, "backend": served, "chip": chip,
                "status": status, "stream": job.stream, "tries": job.tries, "queued_s": round(job.queued_s, 6),
                "decision_us": round(job.decision_s * 1e6, 1), "e2e_s": last_s - job.began_s,
                "ttft_s": None if first_s is None else first_s - job.began_s, **told,
            })  # fmt: skip
        if self._telemetry is not None:
            self._telemetry.over(job, Over(
                status, told.get("error", ""), served, backend.pool_name if backend is not None else "", chip, first_s,
                last_s, told.get("prompt_tokens", job.input_tokens), told.get("cached_tokens", 0),
                told.get("completion_tokens", 0), told.get("cost_usd"),
            ))  # fmt: skip
        if self._observed is not None:
            self._observed.add(_observation(job, status, offset_s, first_s, last_s, told))
        if self._decisions is not None and placed is not None:
            record = {
                "status": status, "class": name, "instance": placed.instance, "began": job.began_s + offset_s,
                "first": None if first_s is None else first_s + offset_s, "last": last_s + offset_s, **told,
            }  # fmt: skip
            self._decisions.done(placed.ask.number, record)

    def _bring_up_to_date(self) -> None:
        """Gauges, before they are read."""
        if self._shared is not None:
            self.meters.lost.of().set(self._shared.lost)
            self.meters.worker_starts.of().set(self._shared.deaths)
        m, live, now_s = self.meters, self._live, self._gateway.clock()
        for j, backend in enumerate(live.backends):
            breaker, seen = live.breakers[j], live.elsewhere[j]
            m.inflight.of(backend.name, backend.pool_name, self._chip(j)).set(live.own[j])
            m.up.of(backend.name).set(float(breaker.state == CLOSED and breaker.may(now_s)))
            m.breaker.of(backend.name).set(breaker.state)
            m.trips.of(backend.name).set(breaker.trips)
            m.correction.of(backend.name, "prefill").set(live.reading[j].value)
            m.correction.of(backend.name, "decode").set(live.writing[j].value)
            if seen.read_s > 0:
                m.age.of(backend.name).set(now_s - seen.read_s)
        for value in m.queue_depth.values.values():
            value.set(0)
        for priority, depth in self._gateway.queue.depths().items():
            m.queue_depth.of(str(priority)).set(depth)
        for reason, count in self._gateway.queue.shed.items():
            m.shed.of(reason).set(count)


def _observation(
    job: Job, status: int, offset_s: float, first_s: float | None, last_s: float, told: dict[str, Any]
) -> dict[str, Any]:  # fmt: skip
    """A line that reads like an answer of an OpenAI-compatible service, with times."""
    inputs, outputs = told.get("prompt_tokens", job.input_tokens), told.get("completion_tokens", 0)
    line: dict[str, Any] = {
        "startTime": job.began_s + offset_s,
        "completionStartTime": None if first_s is None else first_s + offset_s,
        "endTime": last_s + offset_s,
        "model": job.wanted.model,
        "class": job.signals.class_name,
        "status_code": status,
        "prompt_tokens": inputs,
        "completion_tokens": outputs,
        "cached_tokens": told.get("cached_tokens", 0),
    }
    line["usage"] = {
        "prompt_tokens": inputs,
        "completion_tokens": outputs,
        "prompt_tokens_details": {"cached_tokens": line["cached_tokens"]},
    }
    return line


def _counts(usage: Usage) -> tuple[int, int, int]:
    """Input, cached and output tokens."""
    details = usage.prompt_tokens_details
    cached = (details.cached_tokens or 0) if details is not None else 0
    return usage.prompt_tokens, min(cached, usage.prompt_tokens), usage.completion_tokens or 0


def _tokens_of(job: Job, events: Events) -> tuple[int, int, int]:
    """Input, cached and output tokens: as the usage says, else as far as can be told."""
    if events.usage is not None:
        return _counts(events.usage)
    return job.input_tokens, 0, events.tokens


def _usage_in(body: bytes) -> Usage | None:
    """The usage of a whole answer."""
    try:
        return msgspec.json.decode(_WHOLE.decode(body)["usage"], type=Usage)
    except (msgspec.DecodeError, KeyError):
        return None


def _extended(body: bytes, more: dict[str, Any]) -> bytes:
    """A whole answer with more in its usage."""
    top = _WHOLE.decode(body)
    usage = msgspec.json.decode(top["usage"], type=dict[str, Any]) | {"infermix": more}
    top["usage"] = msgspec.Raw(msgspec.json.encode(usage))
    return msgspec.json.encode(top)

"""Requests as OpenTelemetry tells them: a span each and four histograms, under the names of its GenAI conventions.

Where they go is said by OpenTelemetry's own variables (``OTEL_EXPORTER_OTLP_ENDPOINT`` and so on). A span has the
number that the backend was told in ``traceparent``, so that an engine's own spans hang below it. It is made when the
request is over: nothing is done for it while tokens come.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from infermix.errors import InputError
from infermix.serve.config import GatewayFile
from infermix.serve.openai import CHAT

if TYPE_CHECKING:
    from infermix.serve.job import Job

SCOPE = "infermix.serve"
FIRST_ERROR_STATUS = 400
FLUSH_MS = 3000
_BOUNDS = {
    "gen_ai.server.request.duration": tuple(0.01 * 2**k for k in range(14)),
    "gen_ai.server.time_to_first_token": (
        0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
    ),
    "gen_ai.server.time_per_output_token": (
        0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5,
    ),
    "gen_ai.client.token.usage": tuple(4.0**k for k in range(14)),
}  # fmt: skip
"""Edges of the histograms as the conventions have them."""


class Over(NamedTuple):
    """A request that is over."""

    status: int
    error: str
    """Empty where all went well."""
    backend: str
    pool: str
    chip: str
    first_s: float | None
    """Of a stream: when its first token came; with ``last_s`` and ``began_s`` of the job on the gateway's clock."""
    last_s: float
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    cost_usd: float | None


class Telemetry:
    """Tells a tracer and a meter of requests."""

    def __init__(self, file: GatewayFile, providers: tuple[Any, Any, Any], clock_offset_s: float) -> None:
        tracers, meters, self._ids = providers
        self._providers, self._offset_s = (tracers, meters), clock_offset_s
        self._tracer, meter = tracers.get_tracer(SCOPE), meters.get_meter(SCOPE)
        self._histograms = {
            name: meter.create_histogram(
                name, unit="{token}" if "usage" in name else "s", explicit_bucket_boundaries_advisory=list(bounds)
            )
            for name, bounds in _BOUNDS.items()
        }
        host, port = file.address
        self._here = {"server.address": host, "server.port": port}

    def over(self, job: Job, over: Over) -> None:
        """A request that was let in is over."""
        labels = {
            "gen_ai.operation.name": "chat" if job.path == CHAT else "text_completion",
            "gen_ai.provider.name": "infermix",
            "gen_ai.request.model": job.wanted.model,
            "gen_ai.response.model": job.wanted.model,
            **self._here,
            **({"error.type": over.error or str(over.status)} if over.status >= FIRST_ERROR_STATUS else {}),
        }
        self._measure(job, over, labels)
        self._trace(job, over, labels)

    def _measure(self, job: Job, over: Over, labels: dict[str, Any]) -> None:
        told = self._histograms
        told["gen_ai.server.request.duration"].record(over.last_s - job.began_s, labels)
        if over.error:
            return
        if over.first_s is not None:
            told["gen_ai.server.time_to_first_token"].record(over.first_s - job.began_s, labels)
            if over.output_tokens > 1:
                each_s = (over.last_s - over.first_s) / (over.output_tokens - 1)
                told["gen_ai.server.time_per_output_token"].record(each_s, labels)
        for kind, tokens in (("input", over.input_tokens), ("output", over.output_tokens)):
            told["gen_ai.client.token.usage"].record(tokens, labels | {"gen_ai.token.type": kind})

    def _trace(self, job: Job, over: Over, labels: dict[str, Any]) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        _, trace, span, _ = job.trace.split(b"-")
        self._ids.trace, self._ids.span = int(trace, 16), int(span, 16)
        name = f"{labels['gen_ai.operation.name']} {job.wanted.model}"
        made = self._tracer.start_span(
            name, _caller(job), SpanKind.SERVER, labels | _said(job, over), start_time=self._ns(job.began_s)
        )
        if over.first_s is not None:
            made.add_event("gen_ai.first_token", timestamp=self._ns(over.first_s))
        if over.status >= FIRST_ERROR_STATUS:
            made.set_status(Status(StatusCode.ERROR, over.error))
        made.end(self._ns(over.last_s))

    def _ns(self, at_s: float) -> int:
        return round((at_s + self._offset_s) * 1e9)

    def close(self) -> None:
        """Send what is left."""
        for provider in self._providers:
            provider.force_flush(FLUSH_MS)
            provider.shutdown()


def _said(job: Job, over: Over) -> dict[str, Any]:
    """What only the span says."""
    told = {
        "http.response.status_code": over.status,
        "gen_ai.request.max_tokens": job.wanted.most_tokens,
        "gen_ai.usage.input_tokens": over.input_tokens,
        "gen_ai.usage.cache_read.input_tokens": over.cached_tokens,
        "gen_ai.usage.output_tokens": over.output_tokens,
        "infermix.request_id": job.id,
        "infermix.class": job.signals.class_name,
        "infermix.backend": over.backend or None,
        "infermix.pool": over.pool or None,
        "infermix.chip": over.chip or None,
        "infermix.tries": len(job.tries),
        "infermix.queued_s": job.queued_s,
        "infermix.cost_usd": over.cost_usd,
    }
    return {name: value for name, value in told.items() if value is not None}


def _caller(job: Job) -> Any:
    """The caller's span, where the request names one and the trace is the same."""
    from opentelemetry.context import Context
    from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

    parts = job.request.headers.get(b"traceparent", b"").split(b"-")
    _, trace, _, flags = job.trace.split(b"-")
    if len(parts) != 4 or parts[1] != trace:
        return Context()
    caller = SpanContext(int(trace, 16), int(parts[2], 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    return set_span_in_context(NonRecordingSpan(caller), Context())


def open_telemetry(file: GatewayFile, clock_offset_s: float) -> Telemetry:
    """Telemetry for a gateway file that wants it.

    Raises
    ------
    InputError
        The extra is not installed.
    """
    try:
        return Telemetry(file, providers(), clock_offset_s)
    except ModuleNotFoundError as fault:
        raise InputError(
            f"{fault.name} is not installed", where=f"{file.path}: gateway.otel", mend="pip install 'infermix[otel]'"
        ) from None


def providers() -> tuple[Any, Any, Any]:
    """Tracers, meters and the source of spans' numbers, that send by OTLP over HTTP."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    return make_providers(BatchSpanProcessor(OTLPSpanExporter()), PeriodicExportingMetricReader(OTLPMetricExporter()))


def make_providers(processor: Any, reader: Any) -> tuple[Any, Any, Any]:
    """As ``providers``, with other ways out."""
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.id_generator import IdGenerator

    class Given(IdGenerator):  # type: ignore[misc] # an extra, not there when types are checked
        """The numbers that the backend was told."""

        trace = span = 0

        def generate_trace_id(self) -> int:
            return self.trace

        def generate_span_id(self) -> int:
            return self.span

    ids, resource = Given(), Resource.create({"service.name": "infermix"})
    tracers = TracerProvider(id_generator=ids, resource=resource, shutdown_on_exit=False)
    tracers.add_span_processor(processor)
    return tracers, MeterProvider([reader], resource=resource, shutdown_on_exit=False), ids

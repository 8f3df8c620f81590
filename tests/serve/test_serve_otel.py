"""What OpenTelemetry is told: spans below the caller's and above the backend's, histograms, and errors by name."""

from __future__ import annotations

import sys
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.errors import InputError
from infermix.serve import otel
from infermix.serve.openai import CHAT
from tests.serve.fake_backend import CHAT_BODY, STREAM_BODY, FakeBackend, fleet
from tests.serve.raw import post, run, send

CALLER = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
UNSAMPLED = CALLER.replace(b"1c80319c", b"1c80319d")[:-1] + b"0"


def told_of(*requests: tuple[bytes, ...], fault: str = "") -> tuple[list[Any], dict[str, list[Any]], list[bytes]]:
    """Spans, points of each histogram, and the backend's ``traceparent`` of requests, one after another."""
    pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    spans, reader, backend = InMemorySpanExporter(), InMemoryMetricReader(), FakeBackend(every_s=0.001)
    backend.fault = fault
    points: dict[str, list[Any]] = {}

    async def inside() -> None:
        gateway = {"otel": True}
        async with fleet([backend], gateway=gateway, limits={"retries": 0, "stall_least_s": 1.0}) as (_, port):
            for body, *headers in requests:
                await send(port, post(CHAT, body, *headers), wait_s=5.0)
            read = reader.get_metrics_data()
            for one in read.resource_metrics[0].scope_metrics[0].metrics:
                points[one.name] = list(one.data.data_points)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(otel, "providers", lambda: otel.make_providers(SimpleSpanProcessor(spans), reader))
        run(inside)
    return list(spans.get_finished_spans()), points, [headers[b"traceparent"] for headers in backend.headers]


def test_a_span_hangs_between_the_callers_and_the_backends() -> None:
    spans, points, sent = told_of((STREAM_BODY, b"traceparent: " + CALLER), (CHAT_BODY,))
    stream, whole = spans
    assert stream.name == "chat m" and stream.kind.name == "SERVER" and stream.status.is_ok
    assert f"00-{stream.context.trace_id:032x}-{stream.context.span_id:016x}-01".encode() == sent[0]
    assert f"{stream.parent.span_id:016x}".encode() in CALLER and f"{stream.context.trace_id:032x}".encode() in CALLER
    assert (
        whole.parent is None and f"00-{whole.context.trace_id:032x}-{whole.context.span_id:016x}-01" == sent[1].decode()
    )
    told = stream.attributes
    assert told["gen_ai.request.model"] == "m" and told["gen_ai.usage.output_tokens"] == 6
    assert told["infermix.backend"] == "b0" and told["http.response.status_code"] == 200
    (first,) = stream.events
    assert stream.start_time <= first.timestamp <= stream.end_time
    assert points["gen_ai.server.request.duration"][0].count == 2
    assert points["gen_ai.server.time_to_first_token"][0].count == 1
    (each,) = points["gen_ai.server.time_per_output_token"]
    assert each.sum == pytest.approx((stream.end_time - first.timestamp) / 5e9, rel=1e-3)
    usage = {point.attributes["gen_ai.token.type"]: point.sum for point in points["gen_ai.client.token.usage"]}
    assert usage["output"] == 12


def test_who_is_not_sampled_upstream_is_not_here() -> None:
    spans, points, sent = told_of((STREAM_BODY, b"traceparent: " + UNSAMPLED))
    assert not spans and points["gen_ai.server.request.duration"][0].count == 1 and sent[0].endswith(b"-00")


@pytest.mark.parametrize(("fault", "status", "error"), [("500", 502, "backend_failed"), ("cut", 502, "midstream_cut")])
def test_errors_have_their_name(fault: str, status: int, error: str) -> None:
    spans, points, _ = told_of((STREAM_BODY,), fault=fault)
    assert not spans[0].status.is_ok and spans[0].attributes["error.type"] == error
    assert spans[0].attributes["http.response.status_code"] == status
    assert points["gen_ai.server.request.duration"][0].attributes["error.type"] == error
    assert "gen_ai.client.token.usage" not in points


def test_without_the_extra_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("opentelemetry", *(name for name in sys.modules if name.startswith("opentelemetry."))):
        monkeypatch.setitem(sys.modules, name, None)

    async def inside() -> None:
        async with fleet([FakeBackend()], gateway={"otel": True}):
            pass

    with pytest.raises(
        InputError, match=r"gateway\.otel: opentelemetry.* not installed; pip install 'infermix\[otel\]'"
    ):
        run(inside)

"""gRPC's health protocol for the three names that gateways ask: two fields, written by hand."""

from __future__ import annotations

SERVING, NOT_SERVING, SERVICE_UNKNOWN = b"\x08\x01", b"\x08\x02", b"\x08\x03"
LIVE, READY = "liveness", "readiness"
SERVICES = ("", LIVE, READY, "envoy.service.ext_proc.v3.ExternalProcessor")


def asked_service(request: bytes) -> str:
    r"""The service that a ``HealthCheckRequest`` names (field 1, a string).

    >>> asked_service(b"\n\x08liveness"), asked_service(b"")
    ('liveness', '')
    """
    if not request.startswith(b"\n") or len(request) < 2:
        return ""
    return request[2 : 2 + request[1]].decode("utf-8", "replace")


def status(service: str, ready: bool) -> bytes:
    """The ``HealthCheckResponse``: alive is whoever answers, ready who has a backend that may be asked."""
    if service not in SERVICES:
        return SERVICE_UNKNOWN
    return SERVING if ready or service == LIVE else NOT_SERVING

"""One request through Envoy's external processor: what Envoy tells, what it is told.

Buffered: headers are let through, the whole body is answered with a destination. Full duplex: headers wait for the
body, then both go on together; the answer's body passes through and is looked at. Envoy says first which it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.ext_proc.v3 import processing_mode_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb
from google.protobuf import struct_pb2

from infermix.serve.epp.picker import Picked, Picker
from infermix.serve.events import Events, Malformed
from infermix.serve.openai import CHAT, TEXT, ApiError, Usage, error_body

DESTINATION = "x-gateway-destination-endpoint"
SUBSET = "x-gateway-destination-endpoint-subset"
SERVED = "x-gateway-destination-endpoint-served"
LB, SUBSET_HINT, FILTER = "envoy.lb", "envoy.lb.subset_hint", "envoy.filters.http.ext_proc"
DUPLEX = processing_mode_pb2.ProcessingMode.FULL_DUPLEX_STREAMED
PIECE_BYTES = 62_000
"""Bodies are sent back in pieces below 64 KiB."""
LONGEST_ANSWER_BYTES = 8 << 20


class Exchange:
    """From the headers of a request to the end of its answer."""

    def __init__(self, picker: Picker) -> None:
        self.picker = picker
        self.picked: Picked | None = None
        self.refused = 0
        """Status of an answer that the picker gave itself."""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._duplex_in = self._duplex_out = False
        self._events: Events | None = None
        self._answer: list[bytes] = []
        self._headers_wait = False

    def take(self, message: Any) -> Iterator[Any]:
        """What is answered to a message of Envoy's."""
        if message.HasField("protocol_config"):
            self._duplex_in = message.protocol_config.request_body_mode == DUPLEX
            self._duplex_out = message.protocol_config.response_body_mode == DUPLEX
        kind = message.WhichOneof("request")
        if kind == "request_headers":
            yield from self._request_headers(message)
        elif kind == "request_body":
            yield from self._request_body(message)
        elif kind == "request_trailers":
            yield from self._request_trailers()
        elif kind == "response_headers":
            yield self._response_headers(message)
        elif kind == "response_body":
            yield from self._response_body(message.response_body)
        elif kind == "response_trailers":
            self._answer_ends()
            yield pb.ProcessingResponse(response_trailers=pb.TrailersResponse())

    def _request_headers(self, message: Any) -> Iterator[Any]:
        self._headers = headers_of(message.request_headers)
        self._subset = subset_of(message)
        self._headers_wait = self._duplex_in and not message.request_headers.end_of_stream
        if not self._headers_wait:
            yield pb.ProcessingResponse(request_headers=pb.HeadersResponse())

    def _request_body(self, message: Any) -> Iterator[Any]:
        piece = message.request_body.body
        self._size += len(piece)
        if self._size > self.picker.file.limits.max_body_bytes:
            yield self._refuse(ApiError(413, "the body is too large", code="body_too_large"))
            return
        self._body.append(piece)
        if message.request_body.end_of_stream:
            yield from self._decide()

    def _request_trailers(self) -> Iterator[Any]:
        if self._headers_wait:
            yield from self._decide()
        yield pb.ProcessingResponse(request_trailers=pb.TrailersResponse())

    def _decide(self) -> Iterator[Any]:
        """The request is whole: place it, and say where it goes."""
        body, path = b"".join(self._body), self._headers.get(b":path", b"").partition(b"?")[0].decode("latin-1")
        if path in (CHAT, TEXT):
            try:
                self.picked = self.picker.pick(self._headers, path, body, self._subset)
            except ApiError as fault:
                yield self._refuse(fault)
                return
        yield from self._let_go(body)

    def _let_go(self, body: bytes) -> Iterator[Any]:
        """Headers and body go on; to whom, if this is a request that the picker places."""
        picked = self.picked
        changed = picked.body if picked is not None else None
        mutation = None if picked is None else _set_headers(self._destination(picked))
        metadata = None if picked is None else _metadata(self._destination(picked)[DESTINATION])
        if not self._duplex_in:
            common = pb.CommonResponse(header_mutation=mutation)
            if changed is not None:
                common.body_mutation.body = changed
                common.header_mutation.set_headers.append(_header("content-length", str(len(changed))))
            yield pb.ProcessingResponse(request_body=pb.BodyResponse(response=common), dynamic_metadata=metadata)
            return
        if self._headers_wait:
            self._headers_wait = False
            if changed is not None and mutation is not None:
                mutation.set_headers.append(_header("content-length", str(len(changed))))
            common = pb.CommonResponse(header_mutation=mutation)
            yield pb.ProcessingResponse(request_headers=pb.HeadersResponse(response=common), dynamic_metadata=metadata)
        for piece, last in pieces_of(body if changed is None else changed):
            yield pb.ProcessingResponse(request_body=_streamed(piece, last))

    def _destination(self, picked: Picked) -> dict[str, str]:
        return {DESTINATION: ",".join(self.picker.addresses[j] for j in picked.order)}

    def _refuse(self, fault: ApiError) -> Any:
        """Envoy answers the client with an error at once."""
        self.refused = fault.status
        told = {"content-type": "application/json"} | {k.decode(): v.decode() for k, v in fault.headers}
        if fault.status in (429, 503):
            told["x-llm-d-request-dropped-reason"] = fault.code or ""
        body = error_body(fault.status, fault.message, fault.code, fault.param)
        answer = pb.ImmediateResponse(headers=_set_headers(told), body=body, details=fault.code or "")
        answer.status.code = fault.status
        return pb.ProcessingResponse(immediate_response=answer)

    def _response_headers(self, message: Any) -> Any:
        headers = headers_of(message.response_headers)
        told: dict[str, str] = {}
        if self.picked is not None:
            self.picker.answers(self.picked, int(headers.get(b":status", b"0")), served_by(message))
            told = self._told(self.picked)
            if b"text/event-stream" in headers.get(b"content-type", b""):
                self._events = Events()
        mutation = _set_headers(told) if told else None
        if message.response_headers.end_of_stream:
            self._answer_ends()
        common = pb.CommonResponse(header_mutation=mutation)
        return pb.ProcessingResponse(response_headers=pb.HeadersResponse(response=common))

    def _told(self, picked: Picked) -> dict[str, str]:
        """Who serves it, and what was expected."""
        backend = self.picker.live.backends[picked.placed.instance]
        expected = picked.placed.estimate
        told = {"x-infermix-backend": backend.name, "x-infermix-est-ttft-ms": f"{expected.ttft_s * 1e3:.3g}"}
        return told | ({"x-infermix-chip": backend.system} if backend.system else {})

    def _response_body(self, body: Any) -> Iterator[Any]:
        self._look_at(body.body)
        if body.end_of_stream:
            self._answer_ends()
        for piece, last in pieces_of(body.body):
            yield pb.ProcessingResponse(response_body=_streamed(piece, last and body.end_of_stream))

    def _look_at(self, piece: bytes) -> None:
        """When the first text comes, and what the usage is."""
        if self.picked is None:
            return
        if self._events is None:
            self._answer.append(piece)
            self.picker.first(self.picked)
            return
        try:
            self._events.feed(piece)
        except Malformed:
            self._events = Events()
        if self._events.said:
            self.picker.first(self.picked)

    def _answer_ends(self) -> None:
        if self.picked is not None:
            self.picker.ends(self.picked, self._usage())

    def _usage(self) -> Usage | None:
        if self._events is not None:
            return self._events.usage
        whole = b"".join(self._answer)
        if not whole or len(whole) > LONGEST_ANSWER_BYTES:
            return None
        try:
            return msgspec.json.decode(whole, type=_Whole).usage
        except msgspec.DecodeError:
            return None


class _Whole(msgspec.Struct):
    usage: Usage | None = None


def headers_of(message: Any) -> dict[bytes, bytes]:
    """Headers by name in lower case."""
    return {h.key.lower().encode(): h.raw_value or h.value.encode() for h in message.headers.headers}


def subset_of(message: Any) -> frozenset[str] | None:
    """Addresses among which the proxy wants the destination to be; None: it says nothing."""
    if SUBSET_HINT not in message.metadata_context.filter_metadata:
        return None
    hint = message.metadata_context.filter_metadata[SUBSET_HINT].fields
    if SUBSET not in hint:
        return None
    value = hint[SUBSET]
    if value.WhichOneof("kind") == "string_value":
        return frozenset(part.strip() for part in value.string_value.split(",") if part.strip())
    return frozenset(one.string_value for one in value.list_value.values)


def served_by(message: Any) -> str:
    """The address that the answer comes from, as Envoy tells it; empty where it does not."""
    if FILTER in message.attributes:
        told = message.attributes[FILTER].fields
        if "upstream.address" in told:
            return str(told["upstream.address"].string_value)
    if LB in message.metadata_context.filter_metadata:
        told = message.metadata_context.filter_metadata[LB].fields
        if SERVED in told:
            return str(told[SERVED].string_value)
    return ""


def pieces_of(body: bytes) -> Iterator[tuple[bytes, bool]]:
    """Pieces that Envoy takes, and whether each is the last.

    >>> [(len(piece), last) for piece, last in pieces_of(bytes(70_000))]
    [(62000, False), (8000, True)]
    >>> list(pieces_of(b""))
    [(b'', True)]
    """
    for at in range(0, max(len(body), 1), PIECE_BYTES):
        yield body[at : at + PIECE_BYTES], at + PIECE_BYTES >= len(body)


def _streamed(piece: bytes, last: bool) -> Any:
    streamed = pb.StreamedBodyResponse(body=piece, end_of_stream=last)
    return pb.BodyResponse(
        response=pb.CommonResponse(body_mutation=pb.BodyMutation(streamed_response=streamed))
    )  # fmt: skip


def _header(name: str, value: str) -> Any:
    return base_pb2.HeaderValueOption(
        header=base_pb2.HeaderValue(key=name, raw_value=value.encode()),
        append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
    )


def _set_headers(values: dict[str, str]) -> Any:
    return pb.HeaderMutation(set_headers=[_header(name, value) for name, value in values.items()])


def _metadata(destination: str) -> Any:
    metadata = struct_pb2.Struct()
    metadata.update({LB: {DESTINATION: destination}})
    return metadata

"""One request on its way through the gateway: what it asks, how its body reads to a backend, what became of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import msgspec

from infermix.serve.config import Backend
from infermix.serve.homes import Beginning, Home
from infermix.serve.http1 import Headers, Request
from infermix.serve.keys import Holder
from infermix.serve.live import Placed
from infermix.serve.openai import ApiError, Wanted
from infermix.serve.signals import Signals

USAGE_HEADER = b"x-infermix-usage"
Raw = msgspec.Raw
_TOP = msgspec.json.Decoder(dict[str, Raw])
_WITH_USAGE = Raw(b'{"include_usage":true}')


@dataclass(slots=True)
class Job:
    """A request that was understood."""

    request: Request
    path: str
    wanted: Wanted
    signals: Signals
    holder: Holder
    id: str
    trace: bytes
    """W3C ``traceparent`` of the call to the backend."""
    began_s: float
    chars: int
    input_tokens: int
    """Estimated."""
    charged: float
    """Tokens taken from the budget so far."""
    beginning: Beginning
    home: Home
    placed: Placed | None = None
    tries: list[tuple[str, str]] = field(default_factory=list)
    """(backend, why it did not answer)."""
    decision_s: float = 0.0
    queued_s: float = 0.0
    bodies: dict[str, bytes] = field(default_factory=dict)
    extends_usage: bool = False

    @property
    def stream(self) -> bool:
        """Whether the answer is wanted as a stream."""
        return bool(self.wanted.stream)

    def body_for(self, backend: Backend) -> bytes:
        """The body with the backend's name of the model, and a usage at the end of every stream."""
        name = backend.upstream_model
        if name not in self.bodies:
            self.bodies[name] = rewritten(
                self.request.body, {"model": name}, self.stream and not self.wanted.wants_usage
            )
        return self.bodies[name]

    def headers(self) -> Headers:
        """Headers of the call to a backend; nothing of the client's that could be a secret is handed on."""
        accept = b"text/event-stream" if self.stream else b"application/json"
        lines = [(b"content-type", b"application/json"), (b"accept", accept), (b"x-request-id", self.id.encode())]
        lines.append((b"traceparent", self.trace))
        if state := self.request.headers.get(b"tracestate"):
            lines.append((b"tracestate", state))
        return lines


def rewritten(body: bytes, changes: dict[str, Any], ask_usage: bool) -> bytes:
    """A body with some keys changed, all others as they came; a key that is said twice is said once, as it was read.

    >>> rewritten(b'{"model": "a", "model": "b", "n": 1}', {"model": "c"}, False)
    b'{"model":"c","n":1}'
    """
    try:
        top = _TOP.decode(body)
    except msgspec.DecodeError as fault:
        raise ApiError(400, f"the body is not JSON: {fault}", code="invalid_json") from None
    for key, value in changes.items():
        top[key] = Raw(msgspec.json.encode(value))
    if ask_usage:
        options = top.get("stream_options")
        if options is None or bytes(options) == b"null":
            top["stream_options"] = _WITH_USAGE
        else:
            told = msgspec.json.decode(options) | {"include_usage": True}
            top["stream_options"] = Raw(msgspec.json.encode(told))
    return msgspec.json.encode(top)


def continued(body: bytes, text: str) -> bytes:
    """The body of a chat that goes on from the text so far, as vLLM and SGLang understand it."""
    top = _TOP.decode(body)
    messages = msgspec.json.decode(top["messages"], type=list[Raw])
    messages.append(Raw(msgspec.json.encode({"role": "assistant", "content": text})))
    changes: dict[str, Any] = {
        "messages": messages,
        "continue_final_message": True,
        "add_generation_prompt": False,
    }
    return rewritten(body, changes, False)


def request_id(request: Request) -> str:
    """The client's request id where it is a sane one, else a new one."""
    said = request.header(b"x-request-id")
    if said and len(said) <= 128 and said.isascii() and said.isprintable():
        return said
    return f"{random.getrandbits(96):024x}"


def traceparent(request: Request) -> bytes:
    """The client's trace with a span of the gateway's, or a new trace.

    The format is ``00-<32 hex>-<16 hex>-<2 hex>``; all zeros are not valid.
    """
    parts = request.headers.get(b"traceparent", b"").split(b"-")
    span = b"%016x" % (random.getrandbits(64) or 1)
    if len(parts) == 4 and [len(p) for p in parts] == [2, 32, 16, 2] and parts[0] != b"ff" and _is_hex(parts):
        if parts[1].strip(b"0") and parts[2].strip(b"0"):
            return b"-".join((b"00", parts[1], span, parts[3]))
    return b"-".join((b"00", b"%032x" % (random.getrandbits(128) or 1), span, b"01"))


def _is_hex(parts: list[bytes]) -> bool:
    return not b"".join(parts).strip(b"0123456789abcdef")

"""The OpenAI API's shapes: requests as they are read, answers, chunks of streams, errors."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from infermix.errors import InfermixError

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
DONE_EVENT = b"data: [DONE]\n\n"
_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
          405: "invalid_request_error", 413: "invalid_request_error", 429: "rate_limit_error"}  # fmt: skip


class ApiError(InfermixError):
    """A request that is answered with an error: its HTTP status and what the body says."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param, self.headers = status, message, code, param, headers

    @property
    def body(self) -> bytes:
        """The error in OpenAI's shape."""
        return error_body(self.status, self.message, self.code, self.param)


def error_body(status: int, message: str, code: str | None = None, param: str | None = None) -> bytes:
    """An error in OpenAI's shape.

    >>> error_body(404, "no such model", "model_not_found", "model").decode()
    '{"error":{"message":"no such model","type":"not_found_error","param":"model","code":"model_not_found"}}'
    """
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


class Part(msgspec.Struct):
    """A part of a message; other than text counts as nothing."""

    type: str = "text"
    text: str | None = None


class Message(msgspec.Struct):
    """A message of a chat, as far as it is looked at."""

    role: str
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct):
    """What a stream is asked for besides text."""

    include_usage: bool | None = None


class Wanted(msgspec.Struct):
    """A request for an answer, as far as anybody here looks at it; everything else is handed on unread."""

    model: str
    messages: list[Message] | None = None
    prompt: str | list[str | int | list[int]] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    user: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    priority: int | None = None
    ignore_eos: bool | None = None
    tools: msgspec.Raw | None = None
    nvext: dict[str, Any] | None = None

    @property
    def most_tokens(self) -> int | None:
        """Longest answer that is allowed [tokens]."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether a stream shall end with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


_READ = msgspec.json.Decoder(Wanted)
_PATH = re.compile(r" - at `\$\.?([^`]*)`")


def read_wanted(body: bytes, path: str) -> Wanted:
    """Read the body of a request to ``CHAT`` or ``TEXT``.

    Raises
    ------
    ApiError
        400: not UTF-8, not JSON, or a field that cannot be; ``param`` names it.
    """
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError as fault:
            raise ApiError(400, f"the body is not UTF-8: byte {fault.start}", code="invalid_utf8") from None
    try:
        wanted = _READ.decode(body)
    except msgspec.ValidationError as fault:
        found = _PATH.search(str(fault))
        raise ApiError(400, str(fault), param=found[1] if found else None, code="invalid_value") from None
    except (msgspec.DecodeError, RecursionError) as fault:
        raise ApiError(400, f"the body is not JSON: {fault}", code="invalid_json") from None
    _check(wanted, path)
    return wanted


def _check(wanted: Wanted, path: str) -> None:
    """Raise ApiError for what no server could answer."""
    if path == CHAT and not wanted.messages:
        raise ApiError(400, "messages must not be empty", param="messages", code="invalid_value")
    if path == TEXT and wanted.prompt is None:
        raise ApiError(400, "prompt is missing", param="prompt", code="missing_required_parameter")
    for name in ("max_tokens", "max_completion_tokens", "n"):
        value = getattr(wanted, name)
        if value is not None and not 1 <= value <= 2**31 - 1:
            raise ApiError(400, f"{name} must be at least 1 and below 2^31", param=name, code="invalid_value")


def prompt_chars(wanted: Wanted) -> int:
    """Length of the prompt: characters of its texts; a token id counts as four.

    >>> prompt_chars(Wanted("m", messages=[Message("user", "hello"), Message("user", [Part(text="you")])]))
    8
    """
    if wanted.messages is not None:
        return sum(_message_chars(message) for message in wanted.messages)
    prompt = wanted.prompt or ""
    if isinstance(prompt, str):
        return len(prompt)
    return sum(len(x) if isinstance(x, str) else 4 * (len(x) if isinstance(x, list) else 1) for x in prompt)


def _message_chars(message: Message) -> int:
    content = message.content
    if content is None:
        return 0
    return len(content) if isinstance(content, str) else sum(len(part.text or "") for part in content)


class PromptDetails(msgspec.Struct):
    """How much of a prompt was cached."""

    cached_tokens: int | None = 0


class Usage(msgspec.Struct, omit_defaults=True):
    """What an answer took."""

    prompt_tokens: int
    completion_tokens: int | None
    total_tokens: int | None
    prompt_tokens_details: PromptDetails | None = None


def usage_of(prompt_tokens: int, cached_tokens: int, completion_tokens: int) -> Usage:
    """The usage of an answer."""
    total = prompt_tokens + completion_tokens
    return Usage(prompt_tokens, completion_tokens, total, PromptDetails(cached_tokens))


def event(payload: Any) -> bytes:
    r"""One server-sent event.

    >>> event({"a": 1})
    b'data: {"a":1}\n\n'
    """
    return b"data: " + msgspec.json.encode(payload) + b"\n\n"


def chunk(
    path: str, id: str, created: int, model: str, text: str | None, *, index: int = 0, role: bool = False,
    finish: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A chunk of a stream that brings a piece of text, or says why the answer ends."""
    choice: dict[str, Any] = {"index": index}
    if path == CHAT:
        choice["delta"] = ({"role": "assistant"} if role else {}) | ({} if text is None else {"content": text})
    else:
        choice["text"] = text or ""
    choice["logprobs"] = None
    choice["finish_reason"] = finish
    kind = "chat.completion.chunk" if path == CHAT else "text_completion"
    return {"id": id, "object": kind, "created": created, "model": model, "choices": [choice]}


def usage_chunk(path: str, id: str, created: int, model: str, usage: Usage) -> dict[str, Any]:
    """The last chunk of a stream that was asked for its usage."""
    kind = "chat.completion.chunk" if path == CHAT else "text_completion"
    return {"id": id, "object": kind, "created": created, "model": model, "choices": [], "usage": usage}


def answer(
    path: str, id: str, created: int, model: str, texts: list[str], finishes: list[str], usage: Usage
) -> dict[str, Any]:  # fmt: skip
    """A whole answer, one choice for each text."""
    choices = []
    for i, (text, finish) in enumerate(zip(texts, finishes, strict=True)):
        said: dict[str, Any]
        said = {"message": {"role": "assistant", "content": text}} if path == CHAT else {"text": text}
        choices.append({"index": i, **said, "logprobs": None, "finish_reason": finish})
    kind = "chat.completion" if path == CHAT else "text_completion"
    return {"id": id, "object": kind, "created": created, "model": model, "choices": choices, "usage": usage}


def models_list(names: list[str], created: int) -> bytes:
    """The body of ``/v1/models``."""
    rows = [{"id": name, "object": "model", "created": created, "owned_by": "infermix"} for name in names]
    return msgspec.json.encode({"object": "list", "data": rows})

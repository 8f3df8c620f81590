"""Server-sent events of an answer on their way through: only whole ones are handed on, and each is looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from infermix.serve.openai import DONE_EVENT, Usage

Raw = msgspec.Raw


class Delta(msgspec.Struct):
    """What a chunk adds to a chat's message."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: Raw | None = None


class Choice(msgspec.Struct):
    """A choice of a chunk."""

    index: int = 0
    finish_reason: str | None = None
    delta: Delta | None = None
    text: str | None = None

    @property
    def says(self) -> str:
        """Its text."""
        if self.delta is None:
            return self.text or ""
        return self.delta.content or self.delta.reasoning_content or self.delta.reasoning or ""

    @property
    def brings(self) -> bool:
        """Whether it brings something a user waits for: text, or a call."""
        return bool(self.says) or (self.delta is not None and self.delta.tool_calls is not None)


class Chunk(msgspec.Struct):
    """An event that is looked at."""

    choices: list[Choice] = []
    usage: Usage | None = None
    error: Raw | None = None


class Malformed(ValueError):
    """Not an event of an answer."""


_READ = msgspec.json.Decoder(Chunk)
_PLAIN_START, _PLAIN_END = b"data: {", b"]}\n\n"
"""An event that brings text and nothing else ends with its choices; a usage, an error or an end looks otherwise."""
_PLAIN_CHUNK_END = _PLAIN_END + b"\r\n"
_ENDS = (b"\n\n", b"\r\n\r\n")
LONGEST_EVENT_BYTES = 4 << 20


def _parted(whole: bytes) -> tuple[bytes, bytes]:
    """(events up to the last that brings only text, what comes after it)."""
    at = whole.rfind(_PLAIN_END)
    return (b"", whole) if at < 0 else (whole[: at + len(_PLAIN_END)], whole[at + len(_PLAIN_END) :])


class Events:
    """What has come of one stream.

    ``feed`` returns the whole events among what has come and was not handed on yet, checked. A piece of an event
    waits for the rest.
    """

    __slots__ = (
        "_last",
        "_rest",
        "_text",
        "done",
        "error",
        "extend",
        "finished",
        "keep_text",
        "said",
        "strip_usage",
        "tokens",
        "usage",
    )

    def __init__(
        self, *, strip_usage: bool = False, keep_text: bool = False, extend: Callable[[Usage], object] | None = None
    ) -> None:
        self._rest = self._last = b""
        self._text: list[str] = []
        self.strip_usage, self.keep_text, self.extend = strip_usage, keep_text, extend
        self.done = self.error = self.said = False
        """``said``: the first text has come; ``done``: the stream says that it is whole."""
        self.finished = 0
        """Choices that have said why they end."""
        self.tokens = 0
        self.usage: Usage | None = None

    @property
    def text(self) -> str:
        """The text so far, where it is kept."""
        return "".join(self._text)

    @property
    def cut(self) -> bool:
        """Whether a piece of an event is left over."""
        return bool(self._rest.strip())

    def feed(self, data: bytes) -> bytes:
        """Whole events, checked; raises Malformed for what is none."""
        whole = self._rest + data if self._rest else data
        if whole.endswith(b"\n\n"):
            self._rest = b""
        else:
            at = max(place + len(end) if (place := whole.rfind(end)) >= 0 else 0 for end in _ENDS)
            whole, self._rest = whole[:at], whole[at:]
            if len(self._rest) > LONGEST_EVENT_BYTES:
                raise Malformed("an event without end")
        return self._checked(whole) if whole else b""

    def takes(self, chunk: bytes, at: int) -> bool:
        """Whether a chunk of HTTP, its body from ``at`` on, is one event of text alone; it is then counted."""
        if not chunk.startswith(_PLAIN_START, at) or not chunk.endswith(_PLAIN_CHUNK_END):
            return False
        if self._rest or self.keep_text or not self.said or chunk.count(b"\n", at) != 3:
            return False
        self.tokens += 1
        self._last = chunk[at:-2]
        return True

    def _checked(self, whole: bytes) -> bytes:
        """Events before the first text and after the last are looked at; those between only end as they must."""
        if self.keep_text:
            return self._looked_at(whole)
        first = b""
        while not self.said and whole:
            at = whole.find(b"\n\n") + 2
            first += self._looked_at(whole[:at] if at > 1 else whole)
            whole = whole[at:] if at > 1 else b""
        if not whole:
            return first
        if self._is_plain(whole):
            return first + whole if first else whole
        between, last = _parted(whole)
        if between and self._is_plain(between):
            return first + between + self._looked_at(last)
        return first + self._looked_at(whole)

    def _is_plain(self, whole: bytes) -> bool:
        """Whether these events bring text and nothing else, as far as their ends show; they are then counted."""
        if not (whole.startswith(_PLAIN_START) and whole.endswith(_PLAIN_END)):
            return False
        lines = whole.count(b"\n")
        if lines != 2 and lines != 2 * whole.count(_PLAIN_END):
            return False
        self.tokens += lines // 2
        self._last = whole
        return True

    def _looked_at(self, whole: bytes) -> bytes:
        """Read every event."""
        inside = whole
        if whole.endswith(DONE_EVENT):
            self.done = True
            inside = whole[: -len(DONE_EVENT)]
        try:
            chunks = _READ.decode_lines(inside.replace(b"data: ", b""))
        except (msgspec.DecodeError, UnicodeDecodeError):
            chunks = None
        if chunks is None or len(chunks) != inside.count(b"\n\n"):
            chunks = self._one_by_one(inside)
        return self._counted(whole, chunks)

    def close(self) -> bool:
        """Nothing more comes: whether the answer is whole, as far as the stream says so."""
        if not self.done and not self.finished and self._last:
            tokens, last, self._last = self.tokens, self._last, b""
            self._looked_at(last)
            self.tokens = tokens
        return not self.cut and not self.error and (self.done or self.finished > 0)

    def _counted(self, whole: bytes, chunks: list[Chunk]) -> bytes:
        """Take notice of events; what the client did not ask for is left out."""
        ends = False
        for chunk in chunks:
            ends = ends or (chunk.usage is not None and not chunk.choices)
            self.error = self.error or chunk.error is not None
            self.usage = chunk.usage or self.usage
            for choice in chunk.choices:
                self.finished += choice.finish_reason is not None
                self.tokens += choice.brings
                self.said = self.said or choice.brings
                if self.keep_text:
                    self._text.append(choice.says)
        return self._with_usage(whole) if ends and (self.strip_usage or self.extend) else whole

    def _one_by_one(self, whole: bytes) -> list[Chunk]:
        """The slow way: comments, other fields, spaces left out."""
        chunks: list[Chunk] = []
        for line in whole.splitlines():
            name, colon, value = line.partition(b":")
            if not line or (not name and colon):
                continue
            if name == b"data" and value.strip() == b"[DONE]":
                self.done = True
            elif name == b"data":
                try:
                    chunks.append(_READ.decode(value))
                except (msgspec.DecodeError, UnicodeDecodeError) as fault:
                    raise Malformed(str(fault)) from None
            elif name not in (b"event", b"id", b"retry"):
                raise Malformed("a line that is no field")
        return chunks

    def _with_usage(self, whole: bytes) -> bytes:
        """The events with the usage as the client asked for it: left out, or with more in it."""
        events = [one for one in whole.replace(b"\r\n", b"\n").split(b"\n\n") if one]
        return b"".join(self._asked(one) for one in events)

    def _asked(self, one: bytes) -> bytes:
        if one.startswith(b"data: {"):
            chunk = _READ.decode(one[6:])
            if chunk.usage is not None and not chunk.choices:
                return b"" if self.strip_usage else self._extended(one, chunk.usage)
        return one + b"\n\n"

    def _extended(self, one: bytes, usage: Usage) -> bytes:
        payload: dict[str, Any] = msgspec.json.decode(one[6:])
        if self.extend is not None:
            payload["usage"]["infermix"] = self.extend(usage)
        return b"data: " + msgspec.json.encode(payload) + b"\n\n"

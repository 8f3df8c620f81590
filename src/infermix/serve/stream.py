"""A streamed answer: when its first and last tokens came, and what the server counted.

Lines are stamped as they come and understood afterwards, so that reading costs no time while the clock runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

LONGEST_LINE = 1 << 20
DONE = b"[DONE]"
_TEXTS = ("content", "reasoning_content", "reasoning")


@dataclass(frozen=True)
class Answer:
    """What became of a question, on the clock of the endpoint [s].

    Attributes
    ----------
    failure
        Why there is no answer that can be used; empty when there is one.
    chunks
        Pieces of text that came.
    """

    sent_s: float
    first_s: float = float("nan")
    last_s: float = float("nan")
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    chunks: int = 0
    failure: str = ""


class Lines(Protocol):
    """Something to read lines from, such as an HTTP response."""

    def readline(self, limit: int = -1, /) -> bytes:
        """The next line with its end; empty at the end."""


def read_answer(lines: Lines, sent_s: float, clock: Callable[[], float] = time.perf_counter) -> Answer:
    """Read a stream of events to its end."""
    stamped = []
    while line := lines.readline(LONGEST_LINE):
        if line.startswith(b"data:"):
            stamped.append((clock(), line[5:].strip()))
            if stamped[-1][1] == DONE:
                break
    return understood(stamped, sent_s)


def understood(stamped: Iterable[tuple[float, bytes]], sent_s: float) -> Answer:
    """The answer that stamped events tell.

    >>> usage = b'{"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}'
    >>> text = b'{"choices": [{"delta": {"content": "a"}}]}'
    >>> answer = understood([(1.5, text), (2.0, text), (2.1, usage)], 1.0)
    >>> answer.first_s, answer.last_s, answer.input_tokens, answer.output_tokens
    (1.5, 2.0, 9, 2)
    """
    times: list[float] = []
    usage: dict[str, Any] = {}
    for at_s, data in stamped:
        if data == DONE:
            continue
        try:
            event = msgspec.json.decode(data)
        except msgspec.DecodeError:
            return Answer(sent_s, failure="an event that is not JSON")
        if not isinstance(event, dict) or event.get("error"):
            return Answer(sent_s, failure="an error in the stream")
        if _has_text(event):
            times.append(at_s)
        usage = event.get("usage") or usage
    return _answer(times, usage, sent_s)


def _answer(times: list[float], usage: dict[str, Any], sent_s: float) -> Answer:
    inputs, outputs = (usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    if not times:
        return Answer(sent_s, failure="no text came")
    if not isinstance(inputs, int) or not isinstance(outputs, int) or inputs < 1 or outputs < 1:
        return Answer(sent_s, failure="the server counts no tokens (stream_options.include_usage)")
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    held = min(max(cached, 0), inputs - 1) if isinstance(cached, int) else 0
    return Answer(sent_s, times[0], times[-1], inputs, held, outputs, len(times))


def _has_text(event: dict[str, Any]) -> bool:
    """Whether an event brings text of the answer: the first one of a chat often names a role only."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        if choice.get("text") or any(delta.get(name) for name in _TEXTS):
            return True
    return False

"""Where the beginning of a prompt was read last: an estimate of what a backend still has in its prefix cache.

Prompts are known by hashes of their messages, each over all before it; a turn of a conversation begins with the
whole prompt of the turn before. Nothing of the text is kept.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple
from zlib import crc32

from infermix.serve.openai import Part, Wanted

REMEMBERED = 50_000
PREFIX_CHARS = 1024


class Beginning(NamedTuple):
    """What a prompt begins with."""

    keys: tuple[tuple[int, int], ...]
    """(hash, characters) up to the end of each message."""
    prefix: int
    """Hash of the first characters, -1 for a short prompt."""


class Home(NamedTuple):
    """Where a prompt has been before."""

    backend: int
    chars: int
    """Characters of it that were read there."""


NOWHERE = Home(-1, 0)


def beginning_of(wanted: Wanted) -> Beginning:
    """Hashes of a prompt; of one that is not text, nothing is known."""
    if wanted.messages is not None:
        texts = [f"{m.role}\n{_text(m.content)}" for m in wanted.messages]
    elif isinstance(wanted.prompt, str):
        texts = [wanted.prompt]
    else:
        return Beginning((), -1)
    keys, key, chars = [], 0, 0
    for text in texts:
        key = crc32(text.encode("utf-8", "surrogatepass"), key)
        chars += len(text)
        keys.append((key << 32 | chars & 0xFFFFFFFF, chars))
    if chars < PREFIX_CHARS:
        return Beginning(tuple(keys), -1)
    first = "".join(texts) if len(texts[0]) < PREFIX_CHARS else texts[0]
    return Beginning(tuple(keys), crc32(first[:PREFIX_CHARS].encode("utf-8", "surrogatepass")) & 0x7FFFFFFF)


def _text(content: str | list[Part] | None) -> str:
    if isinstance(content, str):
        return content
    return "".join(part.text or "" for part in content or ())


class Homes:
    """Beginnings of prompts and sessions, and the backends that have them; the oldest are forgotten."""

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._of: OrderedDict[int, int] = OrderedDict()
        self._sessions: OrderedDict[int, int] = OrderedDict()
        self._most = remembered

    def find(self, beginning: Beginning, session: int) -> Home:
        """The longest beginning that is known, else the session's last backend."""
        for key, chars in reversed(beginning.keys):
            backend = self._of.get(key)
            if backend is not None:
                return Home(backend, chars)
        return Home(self._sessions.get(session, -1), 0) if session >= 0 else NOWHERE

    def settle(self, beginning: Beginning, session: int, backend: int) -> None:
        """A backend has read this prompt."""
        if beginning.keys:
            for key, _ in {beginning.keys[0], beginning.keys[-1]}:
                self._keep(self._of, key, backend)
        if session >= 0:
            self._keep(self._sessions, session, backend)

    def forget(self, backend: int) -> None:
        """A backend has lost its memory."""
        for table in (self._of, self._sessions):
            for key in [key for key, where in table.items() if where == backend]:
                del table[key]

    def _keep(self, table: OrderedDict[int, int], key: int, backend: int) -> None:
        table[key] = backend
        table.move_to_end(key)
        if len(table) > self._most:
            table.popitem(last=False)

"""Text as emulated engines read and write it: a token is four bytes, so counts are exact and no tokenizer is needed.

A message begins with a token of its own for the role and is filled up to whole tokens. So the prompt of the next turn
begins with exactly the tokens of the last prompt and its answer, and prefix caches find what real ones would find.
"""

from __future__ import annotations

import struct
import zlib
from random import Random

from infermix.serve.openai import ApiError, Message, Wanted

TOKEN_BYTES = 4
_WORDS = (
    "all and any are ask bed big bit box boy bus but buy can car cat cow cry cup cut day dog dry eat egg end eye far "
    "few fly for fun get had has her hit hot how ice ill its job joy key kid law lay let lie lot low man map may men "
    "met mix mud net new nor not now nut off oil old one our out own pay pen put ran raw red rib row run sad saw say "
    "sea see set she sit six sky son sun ten the tie tin toe ton top toy try two use van war was way wet who why win"
)
WORDS = tuple(f"{word} " for word in _WORDS.split())
"""Three letters and a space each: one token."""


def prompts_of(wanted: Wanted) -> list[bytes]:
    """The prompts of a request, four bytes a token."""
    if wanted.messages is not None:
        return [b"".join(map(_message, wanted.messages)) + _header("assistant")]
    prompt = wanted.prompt if wanted.prompt is not None else ""
    if isinstance(prompt, str):
        return [_padded(prompt.encode() or b" ")]
    if prompt and all(isinstance(part, int) for part in prompt):
        return [_of_ids([part for part in prompt if isinstance(part, int)])]
    prompts = [
        _padded(p.encode() or b" ") if isinstance(p, str) else _of_ids(p) for p in prompt if not isinstance(p, int)
    ]
    if not prompts:
        raise ApiError(400, "prompt is empty", param="prompt", code="invalid_value")
    return prompts


def _message(message: Message) -> bytes:
    content = message.content or ""
    text = content if isinstance(content, str) else "".join(part.text or "" for part in content)
    return _header(message.role) + _padded(text.encode())


def _header(role: str) -> bytes:
    return b"\x01" + role.encode()[:3].ljust(3, b"\x00")


def _padded(text: bytes) -> bytes:
    r"""Filled up to whole tokens.

    >>> _padded(b"hello")
    b'hello\x00\x00\x00'
    """
    return text + bytes(-len(text) % TOKEN_BYTES)


def _of_ids(ids: list[int]) -> bytes:
    if not ids:
        raise ApiError(400, "prompt is empty", param="prompt", code="invalid_value")
    return struct.pack(f"<{len(ids)}I", *(number & 0xFFFFFFFF for number in ids))


def answer_text(prompt: bytes, choice: int, tokens: int, seed: int) -> str:
    """What an emulated model answers: the same to the same prompt, whichever instance is asked.

    >>> answer_text(b"why?", 0, 3, 0) == answer_text(b"why?", 0, 5, 0)[:12]
    True
    """
    luck = Random(f"{zlib.crc32(prompt)} {choice} {seed}")
    return "".join(luck.choices(WORDS, k=tokens))


def block_keys(path: bytes, block_tokens: int) -> list[int]:
    """Keys of the full blocks of a path: equal beginnings, equal keys.

    >>> one, two = block_keys(b"aaaabbbbccccdddd", 2), block_keys(b"aaaabbbbxxxxdddd", 2)
    >>> one[0] == two[0], one[1] == two[1]
    (True, False)
    """
    size, above, keys = block_tokens * TOKEN_BYTES, 0, []
    for at in range(0, len(path) - size + 1, size):
        above = hash((above, path[at : at + size]))
        keys.append(above)
    return keys

"""One request of a client: the sequences that an engine makes of it, and the text that goes back as tokens come out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from infermix.serve.emulator.engine import can_finish
from infermix.serve.emulator.lengths import Lengths, answer_tokens, normal_of, read_asked
from infermix.serve.emulator.state import Sequence
from infermix.serve.emulator.text import TOKEN_BYTES, answer_text, block_keys, prompts_of
from infermix.serve.http1 import Request
from infermix.serve.openai import ApiError, Usage, Wanted, answer, chunk, event, usage_chunk, usage_of
from infermix.sim.state import PoolSpec

MOST_CHOICES = 128


@dataclass
class Choice:
    """One answer of several."""

    sequence: Sequence
    text: str
    finish: str
    sent: int = 0
    """Characters that went out."""

    @property
    def ready(self) -> str:
        """Text that is out and has not been sent."""
        return self.text[self.sent : self.sequence.generated * TOKEN_BYTES]


@dataclass
class Answer:
    """What a client waits for."""

    wanted: Wanted
    path: str
    id: str
    created: int
    model: str
    prompts: int
    choices: list[Choice]
    ended: asyncio.Future[None]
    write: Callable[[bytes], None] | None = None
    """None: the answer is sent as a whole."""
    _shapes: dict[int, tuple[bytes, bytes]] = field(default_factory=dict)

    @property
    def sequences(self) -> list[Sequence]:
        """All that the engine computes for it."""
        return [choice.sequence for choice in self.choices]

    @property
    def usage(self) -> Usage:
        """Of prompts that several answers share, one is counted."""
        each = len(self.choices) // self.prompts
        first = self.sequences[::each]
        cached = sum(seq.hit_tokens + seq.loaded_tokens for seq in first)
        return usage_of(sum(seq.input for seq in first), cached, sum(seq.generated for seq in self.sequences))

    @property
    def whole(self) -> bytes:
        """The answer in one piece."""
        texts, finishes = [choice.text for choice in self.choices], [choice.finish for choice in self.choices]
        return msgspec.json.encode(
            answer(self.path, self.id, self.created, self.model, texts, finishes, self.usage)
        )  # fmt: skip

    def grew(self, choice: Choice) -> None:
        """Tokens of a choice have come out."""
        index = self.choices.index(choice) if len(self.choices) > 1 else 0
        if self.write is not None:
            text = choice.ready
            if text:
                first, choice.sent = choice.sent == 0, choice.sent + len(text)
                self.write(self._piece(index, text, first))
            if choice.sequence.ended:
                last = chunk(self.path, self.id, self.created, self.model, None, index=index, finish=choice.finish)
                self.write(event(last))
        if not self.ended.done() and all(seq.ended for seq in self.sequences):
            self.ended.set_result(None)

    def tail(self) -> bytes:
        """The usage, where the stream was asked for it."""
        if not self.wanted.wants_usage:
            return b""
        return event(usage_chunk(self.path, self.id, self.created, self.model, self.usage))

    def _piece(self, index: int, text: str, first: bool) -> bytes:
        """A chunk of the stream; all but the text is made once. The words need no escapes."""
        if first:
            return event(chunk(self.path, self.id, self.created, self.model, text, index=index, role=True))
        if index not in self._shapes:
            made = event(chunk(self.path, self.id, self.created, self.model, "\x01", index=index))
            before, _, after = made.partition(b"\\u0001")
            self._shapes[index] = (before, after)
        before, after = self._shapes[index]
        return before + text.encode() + after


def make_answer(wanted: Wanted, request: Request, spec: PoolSpec, lengths: Lengths, id: str) -> Answer:
    """The answer to a request before its first token.

    Raises
    ------
    ApiError
        400: more than the model's context or the instance's KV memory, or a field that is not emulated.
    """
    asked, each = read_asked(request.body), wanted.n or 1
    prompts = prompts_of(wanted)
    if each * len(prompts) > MOST_CHOICES:
        raise ApiError(400, f"more than {MOST_CHOICES} answers", param="n", code="invalid_value")
    choices = []
    for prompt in prompts:
        for k in range(each):
            tokens, own_end = answer_tokens(lengths, wanted, asked, prompt, k)
            choices.append(_choice(wanted, prompt, k, tokens, own_end, spec, lengths.seed))
    loop = asyncio.get_running_loop()
    created = int(time.time())
    return Answer(wanted, request.path, id, created, wanted.model, len(prompts), choices, loop.create_future())


def _choice(
    wanted: Wanted, prompt: bytes, k: int, tokens: int, own_end: bool, spec: PoolSpec, seed: int
) -> Choice:  # fmt: skip
    size = len(prompt) // TOKEN_BYTES
    room = min(spec.max_context, (spec.blocks - spec.watermark_blocks) * spec.block_tokens)
    if wanted.most_tokens is None:
        tokens = max(1, min(tokens, room - size))
    longest = size + (wanted.most_tokens or tokens)
    if longest > spec.max_context or not can_finish(spec, size, tokens):
        raise ApiError(
            400,
            f"This server's maximum context length is {room} tokens. However, you requested {longest} tokens "
            f"({size} in the messages, {longest - size} in the completion).",
            param="messages" if wanted.messages is not None else "prompt",
            code="context_length_exceeded",
        )
    text = answer_text(prompt, k, tokens, seed)
    cut = _first_stop(text, wanted.stop)
    if cut is not None:
        at, end = cut
        text, tokens, own_end = text[:at], -(-end // TOKEN_BYTES), True
    keys = block_keys(prompt + text.encode()[: TOKEN_BYTES * (tokens - 1)], spec.block_tokens)
    seq = Sequence(size, tokens, keys=keys if spec.prefix_cache else (), priority=wanted.priority or 0)
    seq.z = normal_of(seed, prompt, k) if spec.accepted_most > 1 else 0.0
    return Choice(seq, text, "stop" if own_end else "length")


def _first_stop(text: str, stop: str | list[str] | None) -> tuple[int, int] | None:
    """(Where the first stop sequence begins, where it ends); None: it does not occur."""
    stops = [stop] if isinstance(stop, str) else stop or []
    found = [(text.find(one), len(one)) for one in stops if one and one in text]
    return min(((at, at + size) for at, size in found), key=lambda place: place[1]) if found else None

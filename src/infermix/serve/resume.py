"""An answer that breaks after the first byte: the client is told, or another backend goes on from the text so far."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from infermix.serve.job import continued
from infermix.serve.openai import error_body

if TYPE_CHECKING:
    from infermix.serve.gateway import Gateway
    from infermix.serve.http1 import Reply
    from infermix.serve.job import Job
    from infermix.serve.relay import Attempt


async def resumed(gateway: Gateway, job: Job, broken: Attempt, reply: Reply) -> None:
    """End a stream that broke: by another backend where that is wished for and possible, else by an error event."""
    if gateway.file.limits.resume and _can_go_on(job, broken):
        attempt = await _gone_on(gateway, job, broken, reply)
        if attempt is not None and not attempt.fault and attempt.relaying:
            reply.end()
            gateway.books.midstream("resumed")
            gateway.books.done(job, attempt)
            return
        broken = attempt or broken
    name = gateway.live.backends[job.placed.instance].name if job.placed is not None else "none"
    message = f"the backend {name} failed after the answer had begun: {broken.fault}"
    reply.write(b"data: " + error_body(502, message, "backend_failed_midstream") + b"\n\n")
    reply.end()
    gateway.books.midstream("told")
    gateway.books.broken(job, broken)


def _can_go_on(job: Job, broken: Attempt) -> bool:
    """One choice of plain chat text, and a backend that failed rather than said so."""
    plain = job.wanted.messages is not None and job.wanted.tools is None and (job.wanted.n or 1) == 1
    return plain and bool(broken.events.text) and broken.fault != "total"


async def _gone_on(gateway: Gateway, job: Job, broken: Attempt, reply: Reply) -> Attempt | None:
    """The rest of the answer from another backend; None if there is none."""
    failed = job.placed
    assert failed is not None
    if not gateway.live.mark(job.wanted.model, job.signals, job.input_tokens, gateway.clock()):
        return None
    gateway.live.mask(failed.instance)
    placed = gateway.place(job)
    if placed is None:
        return None
    body = job.body_for(gateway.live.backends[placed.instance])
    left = _tokens_left(job, broken)
    more = continued(body, broken.events.text)
    if left is not None:
        more = _shortened(more, left)
    attempt = await gateway.asked(job, placed, reply, more)
    attempt.events.tokens += broken.events.tokens
    attempt.first_s = broken.first_s
    return attempt


def _tokens_left(job: Job, broken: Attempt) -> int | None:
    most = job.wanted.most_tokens
    return None if most is None else max(1, most - broken.events.tokens)


def _shortened(body: bytes, tokens: int) -> bytes:
    top = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    name = "max_completion_tokens" if "max_completion_tokens" in top else "max_tokens"
    top[name] = msgspec.Raw(b"%d" % tokens)
    return msgspec.json.encode(top)

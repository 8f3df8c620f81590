"""Who may ask the policy now, and who waits: a fleet that is full takes the most urgent first."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infermix.serve.openai import ApiError

if TYPE_CHECKING:
    from infermix.serve.gateway import Gateway
    from infermix.serve.job import Job


async def admitted(gateway: Gateway, job: Job) -> None:
    """Return when there is room, with the instances marked that may take the request.

    Raises
    ------
    ApiError
        429: the request is shed, or has waited too long; 503: no backend can be asked.
    """
    began_s = gateway.clock()
    turn = False
    while not (_room(gateway, job) and (turn or not len(gateway.queue))):
        _check_somebody(gateway, job)
        deadline_s = gateway.clock() + job.signals.deadline_in_s
        await gateway.queue.wait(job.signals.priority, deadline_s)
        turn = True
    job.queued_s = gateway.clock() - began_s


def _room(gateway: Gateway, job: Job) -> bool:
    """Mark the instances that may take the request; whether there is room on them."""
    if not gateway.live.mark(job.wanted.model, job.signals, job.input_tokens, gateway.clock()):
        return False
    full = gateway.file.limits.shed_above
    return full is None or gateway.live.fullness() < full


def _check_somebody(gateway: Gateway, job: Job) -> None:
    """ApiError 503 unless waiting can help: somebody is there and only busy."""
    now_s = gateway.clock()
    live = gateway.live
    served = [j for j, b in enumerate(live.backends) if b.model == job.wanted.model]
    if any(live.breakers[j].may(now_s) and live.own[j] for j in served):
        return
    if job.input_tokens + 1 > max(live.room(j) for j in served):
        raise ApiError(
            400, f"the prompt of some {job.input_tokens:,} tokens fits no backend", code="context_length_exceeded",
            param="messages",
        )  # fmt: skip
    waits = [live.breakers[j].until_s - now_s for j in served]
    retry = max(1, min(30, round(min(waits, default=1.0))))
    raise ApiError(
        503, f"no backend of {job.wanted.model} can be asked now", code="no_backend",
        headers=((b"retry-after", b"%d" % retry),),
    )  # fmt: skip

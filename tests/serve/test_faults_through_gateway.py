"""The plan of faults behind the gateway, every kind, under 64 streams at once.

A fault before the first byte is made good where a healthy backend exists; one after it is told, never hidden: an answer
that ends as if it was whole has all its text. Afterwards nothing is left over.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infermix.serve.breaker import CLOSED, OPEN
from infermix.serve.emulator.faults import Fault
from infermix.serve.emulator.text import answer_text, prompts_of
from infermix.serve.gateway import Gateway
from infermix.serve.openai import Message, Wanted
from tests.nightly import NIGHTLY
from tests.serve.emulated import MODEL, Seen, a_spec, ask, chat, emulating, gateway_before, places
from tests.serve.raw import run

STREAMS = 64
LONG = 10_000 if NIGHTLY else 600
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
TOKENS = 24


def question(k: int, tokens: int = TOKENS) -> dict[str, Any]:
    return chat(f"question {k}", max_tokens=tokens, ignore_eos=True, **STREAM)


def right_answer(k: int) -> str:
    """What every healthy server says to a question."""
    (prompt,) = prompts_of(Wanted(MODEL, messages=[Message("user", f"question {k}")]))
    return answer_text(prompt, 0, TOKENS, 0)


def met(fault: Fault, **limits: Any) -> tuple[list[Seen], list[str], dict[str, float]]:
    """64 streams at once, a third of the fleet under the fault: what came, what should have, what was counted."""

    async def inside() -> tuple[list[Seen], list[str], dict[str, float]]:
        right = [right_answer(k) for k in range(STREAMS)]
        # slow enough that faults strike in mid-stream
        async with emulating(places(3, a_spec(speed=1.0)), fault) as emulator:
            async with gateway_before(emulator, **limits) as (gateway, port):
                seen = await asyncio.gather(*(ask(port, question(k)) for k in range(STREAMS)))
                assert gateway.live.own == [0, 0, 0], "nobody is counted any more"
                assert not gateway.attempts
                counted = {name: sum(v.value for v in family.values.values())
                           for name, family in gateway.books.meters.registry.families.items()}  # fmt: skip
            return seen, right, counted

    return run(inside, 60.0)


def assert_all_well(seen: list[Seen], right: list[str]) -> None:
    assert Counter(one.status for one in seen) == {200: STREAMS}
    for one, text in zip(seen, right, strict=True):
        assert one.whole and one.text == text and one.events[-1]["usage"]["completion_tokens"] == TOKENS


BEFORE_THE_FIRST_BYTE = {
    "refuse": Fault(kind="refuse", backend="pool/1"),
    "slow_start": Fault(kind="slow_start", backend="pool/1"),
    "429": Fault(kind="429", backend="pool/1"),
    "500": Fault(kind="500", backend="pool/1"),
    "500, here and there": Fault(kind="500", backend="pool/1", every=3),
    "cut": Fault(kind="cut", backend="pool/1", after_chunks=0),
    "stall": Fault(kind="stall", backend="pool/1", after_chunks=0, stall_s=60.0),
    "malformed": Fault(kind="malformed", backend="pool/1", after_chunks=0),
    "no metrics": Fault(kind="no_metrics"),
}


@pytest.mark.parametrize("name", BEFORE_THE_FIRST_BYTE)
def test_a_fault_before_the_first_byte_is_made_good(name: str) -> None:
    patience_s = 2.0 if name == "stall" else 20.0
    seen, right, counted = met(BEFORE_THE_FIRST_BYTE[name], retries=4, first_token_s=patience_s)
    assert_all_well(seen, right)
    assert bool(counted["infermix_retries_total"]) == (name != "no metrics"), "the fault was met"


@pytest.mark.parametrize("kind", ["cut", "stall", "malformed"])
def test_a_fault_in_mid_stream_is_told_and_never_hidden(kind: Any) -> None:
    patience: dict[str, Any] = {"stall_least_s": 0.5, "stall_factor": 1.0} if kind == "stall" else {}
    seen, right, counted = met(Fault(kind=kind, backend="pool/1", after_chunks=8, stall_s=60.0), **patience)
    broken = [k for k, one in enumerate(seen) if not one.whole]
    assert 10 < len(broken) < STREAMS and counted["infermix_midstream_failures_total"] == len(broken)
    for k, one in enumerate(seen):
        assert one.status == 200 and right[k].startswith(one.text), "what came is true"
        if one.whole and not any("error" in event for event in one.events):
            assert one.text == right[k], "an answer that looks complete is"
        else:
            assert one.cut or "error" in one.events[-1] or b'"error"' in one.body, "the client sees that it broke"
            assert b"[DONE]" not in one.body


def test_a_stream_that_is_cut_goes_on_elsewhere_when_that_is_asked_for() -> None:
    seen, right, counted = met(Fault(kind="cut", backend="pool/1", after_chunks=2), resume=True)
    assert all(one.whole for one in seen) and counted["infermix_midstream_failures_total"] > 10
    assert all(text[:8] == one.text[:8] for one, text in zip(seen, right, strict=True))


def test_nobody_is_healthy() -> None:
    seen, _, _ = met(Fault(kind="500"))
    assert {one.status for one in seen} <= {502, 503} and len(seen) == STREAMS
    assert all(one.json["error"]["message"] for one in seen)


def test_the_breaker_opens_and_closes() -> None:
    async def inside() -> tuple[int, int]:
        sick = Fault(kind="500", backend="pool/1")
        async with emulating(places(2), sick) as emulator, gateway_before(emulator, **patience) as (gateway, port):
            breaker = gateway.live.breakers[1]
            for k in range(6):
                assert (await ask(port, question(k, 2))).whole, "the other one answers"
            assert breaker.state == OPEN and emulator.instances[1].faults.asked == 3, "it is left alone"
            emulator.instances[1].faults.plan = ()
            while breaker.state != CLOSED:
                assert (await ask(port, question(0, 2))).whole
            before = emulator.instances[1].number
            for _ in range(4):
                await ask(port, question(0, 2))
            return breaker.trips, emulator.instances[1].number - before

    patience: dict[str, Any] = {"breaker_failures": 3, "breaker_s": 2.0}
    assert run(inside, 60.0) == (1, 2), "it opened once, and has its share again"


def test_nothing_is_left_over_after_many_requests() -> None:
    """No task, connection or descriptor more than before, after faults of every kind and clients that leave."""

    async def inside() -> None:
        plan = (
            Fault(kind="cut", every=13), Fault(kind="500", every=11), Fault(kind="429", every=17),
            Fault(kind="malformed", every=19), Fault(kind="cut", every=23, after_chunks=0),
        )  # fmt: skip
        async with emulating(places(3), *plan) as emulator, gateway_before(emulator, retries=4) as (gateway, port):
            await asyncio.gather(*(ask(port, question(k, 4)) for k in range(STREAMS)))
            await calm(gateway)
            tasks, descriptors = len(asyncio.all_tasks()), open_descriptors()
            gate = asyncio.Semaphore(STREAMS)

            async def one(k: int) -> None:
                async with gate:
                    await (leave(port, k) if k % 29 == 0 else ask(port, question(k, 4)))

            await asyncio.gather(*(one(k) for k in range(LONG)))
            await calm(gateway)
            assert (len(asyncio.all_tasks()), open_descriptors()) == (tasks, descriptors)
            assert gateway.live.own == [0, 0, 0] and not gateway.attempts
            assert all(not one.answers and not one.engine.running for one in emulator.instances)
            assert not any(one.engine.memory.taken for one in emulator.instances)

    run(inside, 600.0)


async def leave(port: int, k: int) -> None:
    """Ask and go before the answer is there."""
    task = asyncio.create_task(ask(port, question(k, 400)))
    await asyncio.sleep(0.005)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def calm(gateway: Gateway) -> None:
    """Until nothing is under way, and nothing is kept for later."""
    for _ in range(400):
        if not any(gateway.live.own):
            break
        await asyncio.sleep(0.01)
    for site in gateway.sites:
        site.forget()  # connections that wait for the next request
    await asyncio.sleep(0.3)
    gc.collect()


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))

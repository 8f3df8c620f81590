"""The picker behind a real Envoy."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from infermix.serve.emulator.faults import Fault
from infermix.serve.epp.envoy import Mode, envoy_yaml
from infermix.serve.epp.picker import address_of
from infermix.serve.pools import instances_of
from tests.serve.emulated import MODEL, Seen, a_spec, ask, chat, emulating, free_ports, places
from tests.serve.envoys import Front, envoy, fronted, gateway_of, needs_envoy
from tests.serve.raw import run

pytestmark = needs_envoy
STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
MODES: list[Mode] = ["buffered", "duplex"]
modes = pytest.mark.parametrize("mode", MODES)


async def settled(front: Front) -> None:
    """All picks have been counted to their end."""
    for _ in range(500):
        if not any(front.picker.live.own):
            return
        await asyncio.sleep(0.01)
    raise AssertionError(front.picker.live.own)


@modes
def test_every_request_goes_where_the_picker_says(mode: Mode, tmp_path: Path) -> None:
    async def inside() -> tuple[list[Seen], list[int]]:
        async with emulating(places(3)) as emulator, fronted(emulator, tmp_path, mode=mode) as front:
            one = [chat(f"question {k}", max_tokens=9, **(STREAM if k % 2 else {})) for k in range(12)]
            seen = await asyncio.gather(*(ask(front.port, body) for body in one))
            large = await ask(front.port, chat("long " * 60_000, max_tokens=5))
            assert large.json["usage"]["prompt_tokens"] == 75_002, "a body of several pieces arrives whole"
            assert (await ask(front.port, chat("x"), path="/v1/nothing")).status == 404, "others pass"
            await settled(front)
            return [*seen, large], [one.number for one in emulator.instances]

    seen, numbers = run(inside)
    assert [one.status for one in seen] == [200] * 13 and all(one.whole for one in seen)
    assert sorted(numbers) == [4, 4, 5], "round robin, request by request"


@modes
def test_who_does_not_answer_is_passed_over_and_left_alone(mode: Mode, tmp_path: Path) -> None:
    async def inside() -> tuple[list[Seen], Front, int]:
        dead = Fault(kind="refuse", backend="pool/1")
        patience: dict[str, Any] = {"breaker_failures": 2, "breaker_s": 60.0}
        async with emulating(places(3), dead) as emulator, fronted(emulator, tmp_path, mode=mode, **patience) as front:
            seen = [await ask(front.port, chat(f"question {k}", max_tokens=3, **STREAM)) for k in range(9)]
            tries = front.picker.live.breakers[1].fails
            await settled(front)
            return seen, front, tries

    seen, front, tries = run(inside)
    assert [one.status for one in seen] == [200] * 9 and all(one.whole for one in seen)
    assert tries == 2, "two fallbacks, then its breaker is open"
    assert not front.picker.live.breakers[1].may(front.picker.clock())


@modes
def test_a_full_fleet_answers_429_at_once(mode: Mode, tmp_path: Path) -> None:
    async def inside() -> list[Seen]:
        slow = a_spec(speed=0.2)
        async with (
            emulating(places(2, slow)) as emulator,
            fronted(emulator, tmp_path, mode=mode, max_inflight=2) as front,
        ):
            body = chat("busy", max_tokens=40, ignore_eos=True, **STREAM)
            return await asyncio.gather(*(ask(front.port, body) for _ in range(10)))

    seen = run(inside)
    assert Counter(one.status for one in seen) == {200: 4, 429: 6}
    assert all(one.whole for one in seen if one.status == 200)
    error = next(one for one in seen if one.status == 429).json["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "overloaded")


@modes
def test_nobody_ready_and_bad_requests(mode: Mode, tmp_path: Path) -> None:
    async def inside() -> list[Seen]:
        async with emulating(places(1)) as emulator, fronted(emulator, tmp_path, mode=mode) as front:
            wrong = [await ask(front.port, {**chat(), "model": "other"}), await ask(front.port, {"model": MODEL})]
            front.picker.live.leave_alone(0, front.picker.clock() + 100)
            return [*wrong, await ask(front.port, chat())]

    unknown, empty, unready = run(inside)
    assert (unknown.status, unknown.json["error"]["code"]) == (404, "model_not_found")
    assert (empty.status, empty.json["error"]["param"]) == (400, "messages")
    assert (unready.status, unready.json["error"]["code"]) == (503, "no_backend")


@pytest.mark.parametrize(
    ("mode", "fail_open", "after"), [("buffered", True, {200}), ("buffered", False, {500}), ("duplex", True, {500})]
)
def test_the_picker_is_killed_under_load(mode: Mode, fail_open: bool, after: set[int], tmp_path: Path) -> None:
    """Fail open lets requests through to any backend, but not in full duplex; fail closed refuses them."""

    async def inside() -> tuple[list[Seen], list[Seen]]:
        async with emulating(places(2, a_spec(speed=2.0))) as emulator:
            port, picker_port = free_ports(2)
            file = gateway_of(emulator, port)
            text = envoy_yaml(
                file, [address_of(b) for b in instances_of(file)], [f"127.0.0.1:{picker_port}"],
                mode=mode, fail_open=fail_open,
            )  # fmt: skip
            async with picking(emulator, tmp_path, picker_port) as process, envoy(text, tmp_path, port):
                load = [asyncio.create_task(keep_asking(port, k)) for k in range(8)]
                await asyncio.sleep(0.5)
                os.kill(process.pid, signal.SIGKILL)
                await asyncio.sleep(0.3)
                later = [await ask(port, chat(f"later {k}", max_tokens=3, **STREAM)) for k in range(4)]
                STOP.set()
                return [one for task in load for one in await task], later

    STOP.clear()
    during, later = run(inside, 60.0)
    assert len(during) > 16, "there was load"
    assert {one.status for one in later} == after
    for one in during:
        assert one.status in ({200} | after), "an answer or an error"
        assert one.whole or (after == {500} and one.cut), "nothing is cut where it shall go on, nothing silently"


STOP = asyncio.Event()


async def keep_asking(port: int, client: int) -> list[Seen]:
    seen: list[Seen] = []
    while not STOP.is_set() and len(seen) < 200:
        seen.append(await ask(port, chat(f"load {client} {len(seen)}", max_tokens=20, ignore_eos=True, **STREAM)))
    return seen


@contextlib.asynccontextmanager
async def picking(emulator: Any, folder: Path, port: int) -> Any:
    """``infermix epp`` in a process of its own."""
    rows = "".join(
        f'[[backends]]\nurl = "http://127.0.0.1:{one.place.port}"\nname = "{one.place.name}"\npool = "pool"\n'
        f'model = "{MODEL}"\nsystem = "h100-x1"\n'
        for one in emulator.instances
    )
    (folder / "gateway.toml").write_text(rows)
    command = [sys.executable, "-m", "infermix", "epp", str(folder / "gateway.toml"), "--listen", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    line = await asyncio.to_thread(process.stderr.readline)
    assert line == b"epp: ready at port %d\n" % port, line
    try:
        yield process
    finally:
        process.kill()
        process.stderr.close()
        process.wait()

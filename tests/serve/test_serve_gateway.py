"""The gateway in front of backends that answer, fail and vanish: nothing is lost silently, nothing cut looks whole."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.serve.keys import hash_key
from infermix.serve.openai import CHAT
from tests.nightly import NIGHTLY
from tests.serve.fake_backend import CHAT_BODY, STREAM_BODY, FakeBackend, fleet
from tests.serve.raw import HOST, body_of, post, run, send, status_of

SAID = [f"t{i} " for i in range(6)]
BEFORE_THE_FIRST_BYTE = ("close", "429", "500", "503", "silent")
IN_THE_MIDDLE = ("cut", "end early", "half an event", "error event", "stall", "bad chunk", "bad json")


def patience(fault: str) -> dict[str, dict[str, float]]:
    """Limits that end a wait soon only where the fault is one: elsewhere a slow machine would look like it."""
    first_s, stall_s = 0.8 if fault == "silent" else 20.0, 1.0 if fault == "stall" else 20.0
    limits = {"first_token_s": first_s, "stall_least_s": stall_s, "connect_s": 20.0}
    return {"limits": limits | {"breaker_failures": 3, "breaker_s": 0.3, "retries": 3}}


def texts(answer: bytes) -> list[str]:
    events = [json.loads(e[6:]) for e in body_of(answer).decode().split("\n\n") if e.startswith("data: {")]
    assert not [e for e in events if "error" in e]
    return [c["delta"]["content"] for e in events for c in e["choices"] if c["delta"].get("content")]


def error_in(answer: bytes) -> dict[str, Any]:
    events = [json.loads(e[6:]) for e in body_of(answer).decode().split("\n\n") if e.startswith("data: {")]
    (found,) = [e["error"] for e in events if "error" in e]
    return dict(found)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def ask(port: int, body: bytes = STREAM_BODY, *headers: bytes) -> Any:
    return send(port, post(CHAT, body, *headers), wait_s=5.0)


async def metric(port: int, name: str) -> float:
    """A metric summed over its labels."""
    page = body_of(await send(port, b"GET /metrics HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n")).decode()
    return sum(
        float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith((name + "{", name + " "))
    )


def test_a_stream_and_a_whole_answer_come_through() -> None:
    async def both() -> None:
        backend = FakeBackend()
        async with fleet([backend]) as (_, port):
            stream = await ask(port)
            assert texts(stream) == SAID and body_of(stream).endswith(b"data: [DONE]\n\n")
            assert b"usage" not in body_of(stream)  # the client did not ask for it; the backend was
            assert backend.asked[0]["stream_options"] == {"include_usage": True}
            whole = json.loads(body_of(await ask(port, CHAT_BODY)))
            assert whole["choices"][0]["message"]["content"] == "".join(SAID)
            assert whole["usage"]["completion_tokens"] == 6
            assert await metric(port, "infermix_requests_total") == 2
            assert await metric(port, "infermix_inflight_requests") == 0

    run(both)


def test_a_stream_with_usage_is_handed_on_byte_for_byte() -> None:
    body = json.dumps(json.loads(STREAM_BODY) | {"stream_options": {"include_usage": True}}).encode()

    async def compare() -> None:
        backend = FakeBackend()
        async with fleet([backend]) as (gateway, port):
            direct = await ask(gateway.sites[0].port, body)
            assert body_of(direct) == body_of(await ask(port, body))

    run(compare)


def test_the_answer_says_who_served_it_at_which_price() -> None:
    async def look() -> None:
        async with fleet([FakeBackend()], each={"usd_per_hour": 36.0}) as (_, port):
            answer = await ask(port, CHAT_BODY, b"x-infermix-usage: 1", b"x-request-id: mine")
            head = answer.partition(b"\r\n\r\n")[0]
            for line in (
                b"x-infermix-backend: b0",
                b"x-infermix-est-ttft-ms: ",
                b"x-infermix-cost-usd: ",
                b"x-request-id: mine",
            ):
                assert line in head
            more = json.loads(body_of(answer))["usage"]["infermix"]
            assert more["backend"] == "b0" and more["cost_usd"] > 0

    run(look)


def test_names_of_models_are_mapped_and_unknown_ones_refused() -> None:
    async def map_them() -> None:
        backend = FakeBackend()
        async with fleet([backend], each={"served_as": "org/M"}) as (_, port):
            assert status_of(await ask(port)) == 200
            assert backend.asked[0]["model"] == "org/M"
            wrong = await ask(port, STREAM_BODY.replace(b'"m"', b'"other"'))
            assert status_of(wrong) == 404 and json.loads(body_of(wrong))["error"]["code"] == "model_not_found"
            listed = json.loads(
                body_of(await send(port, b"GET /v1/models HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"))
            )
            assert [m["id"] for m in listed["data"]] == ["m"]

    run(map_them)


@pytest.mark.parametrize("fault", BEFORE_THE_FIRST_BYTE)
def test_faults_before_the_first_byte_are_recovered_under_64_streams(fault: str) -> None:
    async def recover() -> None:
        sick, well = FakeBackend(every_s=0.002), FakeBackend(every_s=0.002)
        sick.fault = fault
        async with fleet([sick, well], **patience(fault)) as (gateway, port):
            answers = await asyncio.gather(*(ask(port) for _ in range(64)))
            assert [a for a in answers if texts(a) != SAID or not body_of(a).endswith(b"[DONE]\n\n")] == []
            assert await metric(port, "infermix_retries_total") > 0
            if fault != "429":
                assert gateway.live.breakers[0].trips == 1
            sick.fault = ""
            await asyncio.sleep(1.1 if fault == "429" else 0.4)
            await asyncio.gather(*(ask(port) for _ in range(8)))
            assert gateway.live.breakers[0].state == 0 and gateway.live.breakers[0].may(gateway.clock())
            assert gateway.live.own == [0, 0]

    run(recover)


@pytest.mark.parametrize("fault", IN_THE_MIDDLE)
def test_faults_in_the_middle_are_told_under_64_streams(fault: str) -> None:
    async def tell() -> None:
        sick, well = FakeBackend(every_s=0.002), FakeBackend(every_s=0.002)
        sick.fault = fault
        async with fleet([sick, well], **patience(fault)) as (gateway, port):
            answers = await asyncio.gather(*(ask(port) for _ in range(64)))
            whole = [a for a in answers if b"[DONE]" in body_of(a)]
            broken = [a for a in answers if b"[DONE]" not in body_of(a)]
            assert whole and broken
            assert all(texts(a) == SAID for a in whole)
            assert all(error_in(a)["code"] == "backend_failed_midstream" for a in broken)
            assert await metric(port, "infermix_midstream_failures_total") == len(broken)
            assert await metric(port, "infermix_requests_total") == 64
            assert gateway.live.own == [0, 0] and not gateway.attempts

    run(tell)


def test_a_broken_stream_goes_on_elsewhere_where_that_is_wished_for() -> None:
    async def resume() -> None:
        sick, well = FakeBackend(), FakeBackend()
        sick.fault = "cut"
        limits = {"limits": {"resume": True, "retries": 1}}
        async with fleet([sick, well], **limits) as (_, port):
            answers = [await ask(port) for _ in range(4)]
            resumed = [a for a in answers if texts(a) != SAID]
            assert resumed and all(texts(a) == SAID[:2] + SAID and body_of(a).endswith(b"[DONE]\n\n") for a in resumed)
            (asked,) = [b for b in well.asked if b.get("continue_final_message")][:1]
            assert asked["messages"][-1] == {"role": "assistant", "content": "t0 t1 "}

    run(resume)


def test_no_backend_is_a_clear_answer() -> None:
    async def none() -> None:
        sick = FakeBackend()
        sick.fault = "500"
        async with fleet([sick], limits={"breaker_failures": 1, "retries": 0}) as (_, port):
            first, second = await ask(port), await ask(port)
            assert status_of(first) == 502 and status_of(second) == 503
            assert b"retry-after: " in second
            assert json.loads(body_of(second))["error"]["code"] == "no_backend"

    run(none)


def test_a_clients_own_fault_is_told_and_blames_nobody() -> None:
    async def blame() -> None:
        backend = FakeBackend()
        backend.fault = "400"
        async with fleet([backend]) as (gateway, port):
            assert status_of(await ask(port)) == 400
            assert gateway.live.breakers[0].fails == 0 and len(backend.asked) == 1

    run(blame)


def test_who_leaves_frees_the_backend() -> None:
    async def leave() -> None:
        backend = FakeBackend(chunks=100, every_s=0.02)
        async with fleet([backend]) as (gateway, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(post(CHAT, STREAM_BODY))
            await reader.readuntil(b"t1 ")
            assert backend.under_way == 1 and gateway.live.own == [1]
            writer.close()
            for _ in range(100):
                await asyncio.sleep(0.01)
                if backend.left:
                    break
            assert backend.left == 1 and gateway.live.own == [0] and not gateway.attempts
            assert await metric(port, "infermix_cancelled_total") == 1

    run(leave)


def test_keys_budgets_and_no_secret_in_any_log(tmp_path: Path) -> None:
    key, other, upstream = "sk-a-key-of-mine-0001", "sk-a-key-of-theirs-02", "sk-upstream-secret-77"
    environment = {"KEYS": f"a:{hash_key(key)},b:{hash_key(other)}", "UP": upstream}
    files = {name: str(tmp_path / name) for name in ("log", "decisions", "observe")}
    tables: dict[str, Any] = {
        "gateway": {"keys_env": "KEYS", **files},
        "keys": {"a": {"requests_per_min": 2}, "b": {"tokens_per_min": 300}},
        "each": {"key_env": "UP"},
    }

    async def let_in() -> bytes:
        backend = FakeBackend()
        everything = b""
        async with fleet([backend], environment, **tables) as (_, port):
            mine, theirs = (b"Authorization: Bearer " + k.encode() for k in (key, other))
            for header in ([], [b"Authorization: Bearer wrong"], [b"Authorization: Basic " + key.encode()]):
                answer = await ask(port, CHAT_BODY, *header)
                assert status_of(answer) == 401 and json.loads(body_of(answer))["error"]["code"] == "invalid_api_key"
            answers = [await ask(port, CHAT_BODY, mine) for _ in range(3)]
            assert [status_of(a) for a in answers] == [200, 200, 429]
            assert b"x-ratelimit-remaining-requests: 1" in answers[0] and b"retry-after: " in answers[2]
            long = CHAT_BODY.replace(b"}]", b'}],"max_tokens":250')
            assert [status_of(await ask(port, long, theirs)) for _ in range(2)] == [200, 200]  # it took far less
            assert backend.headers[0][b"authorization"] == b"Bearer " + upstream.encode()
            everything += b"".join(answers) + await send(
                port, b"GET /metrics HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n"
            )
        return everything

    everything = run(let_in) + b"".join(Path(f).read_bytes() for f in files.values())
    assert all(Path(f).stat().st_size for f in files.values())
    for secret in (key, other, upstream, hash_key(key), "hello there", "t0 t1"):
        shown = everything.replace(b'"content":"t0 t1 t2 t3 t4 t5 "', b"")
        assert secret.encode() not in shown


def test_a_full_fleet_takes_the_most_urgent_first_and_sheds() -> None:
    limits = {"limits": {"shed_above": 0.5, "queue_max": 2, "queue_s": 5.0}}

    async def fill() -> None:
        backend = FakeBackend(chunks=20, every_s=0.02)
        async with fleet([backend], each={"max_num_seqs": 2}, **limits) as (_, port):
            first = asyncio.create_task(ask(port))
            await asyncio.sleep(0.1)
            ends: list[str] = []

            async def wait_for(name: str, priority: int) -> int:
                body = json.dumps(json.loads(STREAM_BODY) | {"priority": priority}).encode()
                answer = await ask(port, body)
                ends.append(name)
                return status_of(answer)

            waiting = [asyncio.create_task(wait_for("low", 0))]
            await asyncio.sleep(0.05)
            waiting.append(asyncio.create_task(wait_for("middle", 1)))
            await asyncio.sleep(0.05)
            waiting.append(asyncio.create_task(wait_for("high", 2)))  # the queue is full: low has to go
            shed = await wait_for("flex", -1)
            assert shed == 429
            assert [await w for w in waiting] == [429, 200, 200]
            assert status_of(await first) == 200
            assert ends == ["low", "flex", "high", "middle"] or ends == ["flex", "low", "high", "middle"]
            assert await metric(port, "infermix_shed_total") == 2

    run(fill)


def test_a_session_stays_where_its_cache_is() -> None:
    async def talk() -> None:
        backends = [FakeBackend() for _ in range(3)]
        async with fleet(backends) as (_, port):
            messages = [{"role": "user", "content": "word " * 2000}]
            for _ in range(6):
                body = json.dumps({"model": "m", "stream": True, "messages": messages}).encode()
                answer = await ask(port, body)
                messages += [
                    {"role": "assistant", "content": "".join(texts(answer))},
                    {"role": "user", "content": "more"},
                ]
            assert sorted(len(b.asked) for b in backends) == [0, 0, 6]

    run(talk)


def test_nothing_leaks_after_many_requests() -> None:
    async def many() -> None:
        backends = [FakeBackend(chunks=2), FakeBackend(chunks=2)]
        async with fleet(backends, limits={"upstream_connections": 8}) as (gateway, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            request = post(CHAT, STREAM_BODY, close=False)

            async def ask_again(times: int) -> None:
                for _ in range(times):
                    writer.write(request)
                    await reader.readuntil(b"0\r\n\r\n")

            await ask_again(50)
            tasks, files = len(asyncio.all_tasks()), open_files()
            await ask_again(10_000 if NIGHTLY else 400)
            assert len(asyncio.all_tasks()) <= tasks and open_files() <= files
            assert sum(len(s.open) for s in gateway.sites) <= 2 and not gateway.attempts
            writer.close()

    run(many, 300.0)

"""Emulated servers over real sockets: OpenAI's shapes, lengths, caches, metrics, and every fault of the plan."""

from __future__ import annotations

import asyncio
import json
import math
import re
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from infermix.serve.emulator.alarm import FineAlarm, LoopAlarm
from infermix.serve.emulator.driver import Driver
from infermix.serve.emulator.engine import accept, end_step, start_step
from infermix.serve.emulator.faults import Fault
from infermix.serve.emulator.state import Sequence, make_engines
from tests.serve.emulated import CHAT, MODEL, TEXT, Seen, a_spec, ask, chat, emulating, gateway_before, places
from tests.serve.raw import body_of, post, run, send

STREAM: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def get(path: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n" % path


def asked(body: dict[str, Any], path: str = CHAT) -> Seen:
    async def inside() -> Seen:
        async with emulating() as emulator:
            return await ask(emulator.instances[0].place.port, body, path=path)

    return run(inside)


def test_a_whole_answer_and_a_stream_say_the_same() -> None:
    whole, stream = asked(chat("hello", max_tokens=12)), asked(chat("hello", max_tokens=12, **STREAM))
    said = whole.json
    assert (whole.status, said["object"], said["model"]) == (200, "chat.completion", MODEL)
    assert said["choices"][0]["message"]["role"] == "assistant"
    assert stream.whole and stream.text == said["choices"][0]["message"]["content"]
    usage = stream.events[-1]["usage"]
    assert usage == said["usage"] and stream.events[-1]["choices"] == []
    assert usage["prompt_tokens"] == 4, "a token for each role, two for hello"
    assert usage["total_tokens"] == 4 + usage["completion_tokens"]
    assert stream.events[0]["choices"][0]["delta"]["role"] == "assistant"
    ends = [event["choices"][0]["finish_reason"] for event in stream.events[:-1]]
    assert ends[-1] == said["choices"][0]["finish_reason"] and set(ends[:-1]) == {None}
    assert {event["id"] for event in stream.events} == {stream.events[0]["id"]}


def test_a_stream_tells_its_usage_only_when_asked() -> None:
    stream = asked(chat(max_tokens=3, stream=True))
    assert stream.whole and all("usage" not in event for event in stream.events)


def test_lengths() -> None:
    full = asked(chat(max_tokens=30, ignore_eos=True)).json
    assert full["usage"]["completion_tokens"] == 30 and full["choices"][0]["finish_reason"] == "length"
    own = asked(chat(emulate_output_tokens=7, max_tokens=30)).json
    assert own["usage"]["completion_tokens"] == 7 and own["choices"][0]["finish_reason"] == "stop"
    cut = asked(chat(emulate_output_tokens=70, max_completion_tokens=30)).json
    assert cut["usage"]["completion_tokens"] == 30 and cut["choices"][0]["finish_reason"] == "length"
    least = asked(chat(emulate_output_tokens=2, min_tokens=9)).json
    assert least["usage"]["completion_tokens"] == 9
    drawn = {asked(chat(f"question {k}")).json["usage"]["completion_tokens"] for k in range(6)}
    assert len(drawn) > 3, "other prompts, other lengths"


@pytest.mark.parametrize("stream", [{}, STREAM])
def test_stop_ends_the_answer_before_the_stop_sequence(stream: dict[str, Any]) -> None:
    text = asked(chat(emulate_output_tokens=30)).json["choices"][0]["message"]["content"]
    stop = text[41:46]
    at = text.index(stop)
    seen = asked(chat(emulate_output_tokens=30, stop=["never said", stop], **stream))
    said = seen.text if stream else seen.json["choices"][0]["message"]["content"]
    assert said == text[:at]
    usage = (seen.events[-1] if stream else seen.json)["usage"]
    assert usage["completion_tokens"] == -(-(at + 5) // 4)


def test_several_answers_and_several_prompts() -> None:
    two = asked(chat(n=2, max_tokens=9)).json
    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert two["choices"][0]["message"] != two["choices"][1]["message"]
    assert two["usage"]["prompt_tokens"] == 4, "the prompt counts once"
    four = asked({"model": MODEL, "prompt": ["one", "seven"], "n": 2, "max_tokens": 5}, TEXT).json
    assert [choice["index"] for choice in four["choices"]] == [0, 1, 2, 3]
    assert four["usage"]["prompt_tokens"] == 1 + 2 and four["object"] == "text_completion"
    ids = asked({"model": MODEL, "prompt": [11, 12, 13], "max_tokens": 5}, TEXT).json
    assert ids["usage"]["prompt_tokens"] == 3
    both = asked(chat(n=2, max_tokens=9, **STREAM))
    assert both.whole and {c["index"] for e in both.events for c in e["choices"]} == {0, 1}
    assert sum(c["finish_reason"] is not None for e in both.events for c in e["choices"]) == 2


def test_the_next_turn_finds_the_last_one_in_the_cache() -> None:
    async def inside() -> tuple[Any, Any]:
        async with emulating() as emulator:
            port = emulator.instances[0].place.port
            turns = [{"role": "system", "content": "be brief " * 40}, {"role": "user", "content": "and now"}]
            first = (await ask(port, {"model": MODEL, "messages": turns, "emulate_output_tokens": 100})).json
            turns += [first["choices"][0]["message"], {"role": "user", "content": "go on"}]
            return first["usage"], (await ask(port, {"model": MODEL, "messages": turns})).json["usage"]

    first, second = run(inside)
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    path = first["total_tokens"] - 1
    assert second["prompt_tokens_details"]["cached_tokens"] == path // 16 * 16, "whole blocks of prompt and answer"


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "invalid_json", None),
        (b'{"model": "x", "messages": [{"role": "user", "content": "\xff"}]}', 400, "invalid_utf8", None),
        (json.dumps(chat()).replace(MODEL, "gpt-9").encode(), 404, "model_not_found", "model"),
        (json.dumps(chat(max_tokens=0)).encode(), 400, "invalid_value", "max_tokens"),
        (json.dumps(chat(logprobs=True)).encode(), 400, "unsupported_parameter", "logprobs"),
        (json.dumps(chat(max_tokens=10**7)).encode(), 400, "context_length_exceeded", "messages"),
        (json.dumps(chat(n=1000)).encode(), 400, "invalid_value", "n"),
    ],
)
def test_what_cannot_be_answered_is_told_in_openais_shape(
    body: bytes, status: int, code: str, param: str | None
) -> None:
    async def inside() -> bytes:
        async with emulating() as emulator:
            return await send(emulator.instances[0].place.port, post(CHAT, body))

    answer = run(inside)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    error = json.loads(body_of(answer))["error"]
    assert (error["code"], error["param"]) == (code, param) and error["message"] and error["type"]


def test_an_answer_without_a_limit_fits_the_context() -> None:
    async def inside() -> Seen:
        async with emulating(places(spec=a_spec(max_context=50))) as emulator:
            return await ask(emulator.instances[0].place.port, chat(emulate_output_tokens=1000))

    assert run(inside).json["usage"]["total_tokens"] == 50


def test_who_leaves_frees_the_place() -> None:
    async def inside() -> None:
        async with emulating(places(spec=a_spec(speed=0.1))) as emulator:
            one = emulator.instances[0]
            _, writer = await asyncio.open_connection("127.0.0.1", one.place.port)
            writer.write(post(CHAT, json.dumps(chat(max_tokens=5000, ignore_eos=True, n=3, **STREAM)).encode()))
            while len(one.engine.running) < 3:
                await asyncio.sleep(0.005)
            gauges = body_of(await send(one.place.port, get(b"/metrics")))
            assert re.search(rb"^vllm:num_requests_running\{[^}]*\} 3$", gauges, re.MULTILINE)
            writer.close()
            while one.engine.running or one.engine.waiting:
                await asyncio.sleep(0.005)
            assert not one.answers and one.engine.memory.taken == 0
            assert b'finished_reason="abort"} 3' in one.metrics.registry.text()

    run(inside)


def test_models_health_and_what_is_not_there() -> None:
    async def inside() -> list[bytes]:
        async with emulating() as emulator:
            port = emulator.instances[0].place.port
            paths = (b"/v1/models", b"/health", b"/nothing", CHAT.encode())
            return [await send(port, get(path)) for path in paths]

    models, health, nothing, wrong = run(inside)
    assert json.loads(body_of(models))["data"][0]["id"] == MODEL
    assert health.startswith(b"HTTP/1.1 200") and nothing.startswith(b"HTTP/1.1 404")
    assert wrong.startswith(b"HTTP/1.1 405") and json.loads(body_of(wrong))["error"]


METRICS = """
cache_config_info generation_tokens_total inter_token_latency_seconds kv_cache_usage_perc
lora_requests_info
num_requests_running num_requests_waiting prefix_cache_hits_total prefix_cache_queries_total prompt_tokens_total
request_decode_time_seconds request_generation_tokens request_inference_time_seconds request_params_max_tokens
request_prefill_time_seconds request_prompt_tokens request_queue_time_seconds request_success_total
request_time_per_output_token_seconds time_to_first_token_seconds gpu_cache_usage_perc gpu_prefix_cache_hit_rate"""


def test_the_metrics_that_routers_read() -> None:
    async def inside() -> str:
        async with emulating() as emulator:
            one = emulator.instances[0]
            for _ in range(2):
                await ask(one.place.port, chat("the same " * 40, emulate_output_tokens=5, max_tokens=9))
            return one.metrics.registry.text().decode()

    text = run(inside)
    told = {name.removesuffix("_count") for name in re.findall(r"^vllm:(\w+)\{", text, re.MULTILINE)}
    assert set(METRICS.split()) <= told
    values = dict(re.findall(r"^vllm:(\w+)\{[^}]*\} (\S+)$", text, re.MULTILINE))
    assert (values["generation_tokens_total"], values["request_generation_tokens_sum"]) == ("10", "10")
    prompt = (9 * 40 + 3) // 4 + 2
    hits = int(values["prefix_cache_hits_total"])
    assert hits == prompt // 16 * 16 and int(values["prefix_cache_queries_total"]) == 2 * prompt
    assert int(values["prompt_tokens_total"]) == 2 * prompt - hits, "what was computed"


# -- faults --------------------------------------------------------------------------------------


def under(fault: Fault, body: dict[str, Any], count: int = 1) -> list[Seen]:
    """What so many requests see, one after the other."""

    async def inside() -> list[Seen]:
        async with emulating(None, fault) as emulator:
            return [await ask(emulator.instances[0].place.port, body) for _ in range(count)]

    return run(inside)


def test_refuse_closes_the_port_for_a_while() -> None:
    async def inside() -> tuple[int, int]:
        async with emulating(None, Fault(kind="refuse", to_s=0.5)) as emulator:
            port = emulator.instances[0].place.port
            first = (await ask(port, chat())).status
            while emulator.instances[0].server is None:
                await asyncio.sleep(0.01)
            return first, (await ask(port, chat(max_tokens=2))).status

    assert run(inside) == (0, 200)


def test_429_and_500_come_before_the_first_byte() -> None:
    third = [seen.status for seen in under(Fault(kind="429", every=3), chat(max_tokens=2, **STREAM), 6)]
    assert third == [200, 200, 429, 200, 200, 429]
    failed = under(Fault(kind="500"), chat())[0]
    assert failed.status == 500 and failed.json["error"]["type"] == "server_error"


@pytest.mark.parametrize("after", [0, 2])
def test_a_cut_stream_is_not_whole(after: int) -> None:
    seen = under(Fault(kind="cut", after_chunks=after), chat(max_tokens=50, ignore_eos=True, **STREAM))[0]
    assert not seen.whole and seen.status == (200 if after else 0)


def test_a_cut_answer_is_not_whole() -> None:
    seen = under(Fault(kind="cut"), chat(max_tokens=5))[0]
    assert seen.status == 200 and not seen.whole


def test_a_stall_is_a_pause() -> None:
    seen = under(Fault(kind="stall", stall_s=0.2), chat(max_tokens=50, ignore_eos=True, **STREAM))[0]
    assert seen.whole and seen.events[-1]["usage"]["completion_tokens"] == 50


def test_a_malformed_chunk_stands_between_good_ones() -> None:
    seen = under(Fault(kind="malformed", after_chunks=1), chat(max_tokens=50, ignore_eos=True, **STREAM))[0]
    assert not seen.whole and seen.body.endswith(b"data: [DONE]\n\n") and len(seen.events) > 2


def test_slow_start_and_metrics_gone() -> None:
    async def inside() -> list[bytes]:
        faults = (Fault(kind="slow_start"), Fault(kind="no_metrics"))
        async with emulating(None, *faults) as emulator:
            port = emulator.instances[0].place.port
            gets = [get(b"/health"), get(b"/metrics")]
            return [await send(port, request) for request in (*gets, post(CHAT, json.dumps(chat()).encode()))]

    health, metrics, answer = run(inside)
    assert health.startswith(b"HTTP/1.1 503") and metrics.startswith(b"HTTP/1.1 404")
    assert answer.startswith(b"HTTP/1.1 503") and b"retry-after" in answer.lower()


# -- the clock -----------------------------------------------------------------------------------


class SlowAlarm:
    """An alarm that rings late."""

    def __init__(self, late_s: float) -> None:
        self.now_s, self.late_s, self.due_s = 100.0, late_s, math.inf
        self.ring: Callable[[], None] = lambda: None

    def of(self, ring: Callable[[], None]) -> SlowAlarm:
        self.ring = ring
        return self

    def time(self) -> float:
        return self.now_s

    def set(self, at_s: float) -> None:
        self.due_s = at_s + self.late_s

    def close(self) -> None:
        self.due_s = math.inf

    def run(self) -> None:
        while self.due_s < math.inf:
            self.now_s, self.due_s = max(self.now_s, self.due_s), math.inf
            self.ring()


@pytest.mark.parametrize("late_s", [0.0, 0.0007, 3.0])
def test_modelled_time_does_not_drift_however_late_timers_fire(late_s: float) -> None:
    alarm, engine = SlowAlarm(late_s), make_engines(a_spec())[0]
    seen: list[int] = []
    driver = Driver(engine, alarm.of, lambda seq: seen.append(seq.generated))
    seq = Sequence(1000, 200)
    driver.add([seq])
    alarm.run()
    plain = make_engines(a_spec())[0]
    alone = Sequence(1000, 200)
    accept(plain, alone, 0.0)
    now_s = 0.0
    while start_step(plain, now_s):
        now_s += plain.step_s
        end_step(plain)
    assert seq.last_s - seq.admit_s == pytest.approx(alone.last_s, rel=1e-9)
    assert seen[-1] == 200 and seen == sorted(seen)
    assert len(seen) == 200 if late_s == 0.0 else len(seen) < 200


def test_a_request_that_took_long_to_read_is_not_late_for_it() -> None:
    alarm, engine = SlowAlarm(0.0), make_engines(a_spec())[0]
    driver = Driver(engine, alarm.of, lambda _: None)
    first, second, third = Sequence(1000, 2), Sequence(1000, 2), Sequence(1000, 2)
    driver.add([first], came_s=99.999)
    assert first.admit_s == 99.999 and alarm.due_s == engine.step_from_s + engine.step_s
    driver.add([second], came_s=99.9995)
    assert second.arrival_s == 100.0, "a step that has begun is not begun again"
    alarm.run()
    ended_s = second.last_s
    alarm.now_s = ended_s + 0.001
    driver.add([third], came_s=ended_s - 1.0)
    assert third.admit_s == ended_s, "not before the engine was free"


@pytest.mark.skipif(sys.platform != "linux", reason="timerfd is Linux'")
def test_an_alarm_rings_between_two_milliseconds_and_when_it_is_over_and_no_more_once_closed() -> None:
    async def inside(kind: Any) -> list[float]:
        loop, rung = asyncio.get_running_loop(), []
        alarm = kind(loop, lambda: rung.append(time.monotonic()))
        for wait_s in (0.0205, 0.0031, -1.0):
            due_s = time.monotonic() + wait_s
            alarm.set(due_s + 5.0)
            alarm.set(due_s)
            while not rung:
                await asyncio.sleep(0)
            assert rung.pop() >= due_s - 1e-6
        alarm.set(time.monotonic() + 0.002)
        alarm.close()
        await asyncio.sleep(0.01)
        return rung

    assert asyncio.run(inside(lambda loop, ring: FineAlarm(loop, ring, time.monotonic))) == []
    assert asyncio.run(inside(LoopAlarm)) == []


def test_instances_of_a_pool_are_apart() -> None:
    async def inside() -> list[int]:
        async with emulating(places(2)) as emulator:
            ports = [one.place.port for one in emulator.instances]
            await asyncio.gather(*(ask(port, chat(emulate_output_tokens=k + 3)) for k, port in enumerate(ports)))
            return [one.engine.totals.generated_tokens for one in emulator.instances]

    assert run(inside) == [3, 4]


def test_the_official_client_works_unchanged_on_emulator_and_gateway() -> None:
    openai = pytest.importorskip("openai")

    def talk(port: int) -> tuple[Any, str, Any]:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
        messages = [{"role": "user", "content": "hello"}]
        whole = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=9)
        events = list(client.chat.completions.create(model=MODEL, messages=messages, max_tokens=9, **STREAM))
        text = "".join(c.delta.content or "" for event in events for c in event.choices)
        with pytest.raises(openai.NotFoundError, match=r"not served here|does not exist"):
            client.chat.completions.create(model="other", messages=messages)
        assert [model.id for model in client.models.list()] == [MODEL]
        assert client.completions.create(model=MODEL, prompt="hi", max_tokens=3).usage.completion_tokens == 3
        client.close()
        return whole, text, events[-1].usage

    async def inside() -> list[tuple[Any, str, Any]]:
        async with emulating() as emulator, gateway_before(emulator) as (_, port):
            return [await asyncio.to_thread(talk, each) for each in (emulator.instances[0].place.port, port)]

    direct, through = run(inside)
    for whole, text, usage in (direct, through):
        assert text == whole.choices[0].message.content and usage == whole.usage
    assert through[1:] == direct[1:]

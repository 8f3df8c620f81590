"""A decision log brings the same picks again and finds one that was changed; others read the request log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.errors import InputError, NoAnswer
from infermix.measure.read import read_timed
from infermix.measure.replay import replay
from infermix.serve.openai import CHAT
from infermix.workload.traces import read_trace
from tests.serve.fake_backend import STREAM_BODY, FakeBackend, fleet
from tests.serve.raw import post, run, send

POLICIES = ["pool_split", "session_affinity", "deadline"]


def serve_some(folder: Path, policy: str, requests: int = 40) -> Path:
    """A gateway's logs of some conversations, one backend failing now and then."""
    files = {name: str(folder / f"{name}.jsonl") for name in ("decisions", "observe")}

    async def some() -> None:
        backends = [FakeBackend(every_s=0.001) for _ in range(3)]
        backends[0].fault = "500"
        classes = {"a": {"model": "m", "ttft_s": 0.5, "tpot_s": 0.01}, "b": {"model": "m"}}
        async with fleet(backends, gateway={"policy": policy, **files}, classes=classes) as (_, port):
            for start in range(0, requests, 8):
                await asyncio.gather(*(_one(port, number) for number in range(start, start + 8)))

    async def _one(port: int, number: int) -> None:
        body = json.loads(STREAM_BODY)
        body["messages"][0]["content"] = f"conversation {number % 3} " * 60
        headers = [b"x-session-id: %d" % (number % 3), b"x-infermix-class: " + (b"a", b"b")[number % 2]]
        if number % 5 == 0:
            headers.append(b"x-slo-ttft-ms: 250")
        await send(port, post(CHAT, json.dumps(body).encode(), *headers))

    run(some)
    return Path(files["decisions"])


@pytest.mark.parametrize("policy", POLICIES)
def test_the_same_picks_come_again(policy: str, tmp_path: Path) -> None:
    found = replay(serve_some(tmp_path, policy))
    assert found["decisions"] > 40  # some were asked again, elsewhere
    assert found["identical"] == found["decisions"]
    assert found["requests"] == 40 and set(found["classes"]) == {"a", "b", "all"}


def test_a_pick_that_was_changed_is_found(tmp_path: Path) -> None:
    from infermix.cli.replay import play_again

    log = serve_some(tmp_path, "least_wait", 16)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    changed = next(line for line in lines[5:] if "pick" in line)
    changed["pick"] = (changed["pick"] + 1) % 3
    log.write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(NoAnswer, match=f"1 decisions differ, the first is request {changed['n']}"):
        play_again(str(log), None, None)


def test_what_is_no_decision_log_is_told(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text('{"a": 1}\n')
    with pytest.raises(InputError, match="not a decision log"):
        replay(log)


def test_the_request_log_is_read_by_backtest_and_by_studies(tmp_path: Path) -> None:
    serve_some(tmp_path, "least_wait")
    log = tmp_path / "observe.jsonl"
    timed = read_timed(log)
    assert len(timed.requests) == 40
    trace = read_trace(log)
    assert len(trace.output_tokens) == 40 and trace.output_tokens.tolist() == [6] * 40
    some = read_trace(log, only={"kind": ("a",)})
    assert len(some.output_tokens) == 20

"""The policy as LiteLLM's routing strategy: against its interface always, against itself where it is installed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.errors import InputError
from infermix.serve.litellm_strategy import TICKET, Picks, route_by
from infermix.serve.openai import ApiError
from tests.serve.fake_backend import FakeBackend
from tests.serve.raw import run, serving

ASKED: list[dict[str, Any]] = [{"role": "user", "content": "hello there"}]
SAID = "t0 t1 t2 t3 t4 t5 "
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)


def written(folder: Path, ports: list[int], policy: str = "least_inflight") -> Path:
    """A gateway file over backends on these ports."""
    lines = [f'[gateway]\npolicy = "{policy}"\n[limits]\nbreaker_failures = 1\nbreaker_s = 60.0\ntotal_s = 600.0']
    for i, port in enumerate(ports):
        lines.append(
            f'[[backends]]\nurl = "http://127.0.0.1:{port}"\nname = "b{i}"\nmodel = "m"\nttft_s = 0.1\ntpot_s = 0.01'
        )
    file = folder / "gateway.toml"
    file.write_text("\n".join(lines))
    return file


def listed(ports: list[int]) -> list[dict[str, Any]]:
    """LiteLLM's deployments of them."""
    params = [{"model": "openai/m", "api_base": f"http://127.0.0.1:{port}/v1", "api_key": "none"} for port in ports]
    return [{"model_name": "m", "litellm_params": one, "model_info": {"id": f"d{i}"}} for i, one in enumerate(params)]


class FakeRouter:
    """What the strategy needs of ``litellm.Router``."""

    def __init__(self, model_list: list[dict[str, Any]]) -> None:
        self.model_list = model_list
        self.strategy: Any = None

    def set_custom_routing_strategy(self, strategy: Any) -> None:
        self.strategy = strategy


@pytest.fixture
def interface(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """LiteLLM's names, and nothing behind them."""
    top = ModuleType("litellm")
    top.callbacks = []  # type: ignore[attr-defined]
    logger, router = ModuleType("litellm.integrations.custom_logger"), ModuleType("litellm.types.router")
    logger.CustomLogger = type("CustomLogger", (), {})  # type: ignore[attr-defined]
    router.CustomRoutingStrategyBase = type("CustomRoutingStrategyBase", (), {})  # type: ignore[attr-defined]
    for module in (top, ModuleType("litellm.integrations"), ModuleType("litellm.types"), logger, router):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return SimpleNamespace(callbacks=top.callbacks)  # type: ignore[attr-defined]


def ended(strategy: Any, request: dict[str, Any], *, well: bool = True, stream: bool = True) -> None:
    """LiteLLM's word that an answer is over: 0.2 s to the first token, 10 tokens a second after it."""
    told = {
        "litellm_params": {"metadata": request["metadata"]}, "stream": stream,
        "completion_start_time": BEGAN + timedelta(seconds=0.2),
    }  # fmt: skip
    usage = {"prompt_tokens": 50, "completion_tokens": 11}
    event = strategy.log_success_event if well else strategy.log_failure_event
    event(told, {"usage": usage}, BEGAN, BEGAN + timedelta(seconds=1.2))


def test_it_counts_learns_and_leaves_alone(interface: SimpleNamespace, tmp_path: Path) -> None:
    router = FakeRouter(listed([9001, 9002, 9003]))
    picks = route_by(router, written(tmp_path, [9001, 9002, 9003]))
    choose = router.strategy.get_available_deployment
    assert interface.callbacks == [router.strategy]
    requests: list[dict[str, Any]] = [{"metadata": {"theirs": 1}} for _ in range(6)]
    took = [choose("m", messages=ASKED, request_kwargs=one)["model_info"]["id"] for one in requests]
    assert sorted(took) == ["d0", "d0", "d1", "d1", "d2", "d2"]  # the fewest in flight
    assert [one["metadata"]["theirs"] for one in requests] == [1] * 6
    assert len({one["metadata"][TICKET] for one in requests}) == 6
    ended(router.strategy, requests[0])
    assert sum(picks.live.own) == 5 and picks.live.lengths["default"].mean < 200.0
    assert picks.live.reading[int(took[0][1])].value > 1.0 and picks.live.writing[int(took[0][1])].value > 1.0
    ended(router.strategy, requests[1], well=False)
    ended(router.strategy, requests[1], well=False)  # told twice, counted once
    assert sum(picks.live.own) == 4
    after = {choose("m", messages=ASKED, request_kwargs={})["model_info"]["id"] for _ in range(6)}
    assert took[1] not in after and len(after) == 2
    with pytest.raises(ApiError, match="does not exist"):
        choose("other", messages=ASKED, request_kwargs={})


def test_a_retry_goes_elsewhere_before_the_failure_is_told(interface: SimpleNamespace, tmp_path: Path) -> None:
    router = FakeRouter(listed([9001, 9002, 9003]))
    picks = route_by(router, written(tmp_path, [9001, 9002, 9003]))
    metadata: dict[str, Any] = {}  # LiteLLM keeps it from try to try
    tries = [{"metadata": metadata} for _ in range(3)]
    took = [
        router.strategy.get_available_deployment("m", ASKED, request_kwargs=one)["model_info"]["id"] for one in tries
    ]
    assert sorted(took) == ["d0", "d1", "d2"] and sum(picks.live.own) == 1
    for late in tries[:2]:
        ended(router.strategy, late, well=False)
    assert sum(picks.live.own) == 1
    with pytest.raises(ApiError, match="no backend of m is ready"):
        router.strategy.get_available_deployment("m", ASKED, request_kwargs={"metadata": metadata})


def test_headers_and_sessions_count(interface: SimpleNamespace, tmp_path: Path) -> None:
    router = FakeRouter(listed([9001, 9002, 9003]))
    route_by(router, written(tmp_path, [9001, 9002, 9003], "session_affinity"))
    for session in ("one", "two", "three", "four"):
        took = set()
        for _ in range(3):
            came = {"proxy_server_request": {"headers": {"X-Session-Id": session}}}
            choice = router.strategy.async_get_available_deployment(model="m", messages=ASKED, request_kwargs=came)
            took.add(asyncio.run(choice)["model_info"]["id"])
            ended(router.strategy, came, stream=False)
        assert len(took) == 1


def test_who_is_never_heard_of_again_is_forgotten(tmp_path: Path) -> None:
    now_s = [0.0]
    picks = Picks(written(tmp_path, [9001]), clock=lambda: now_s[0])
    body = {"model": "m", "messages": ASKED}
    picks.pick({}, body)
    assert picks.live.own == [1] and picks.live.view.queued_tokens[0] > 0
    now_s[0] = 60.0
    picks.pick({}, body)
    assert picks.live.own == [2]
    queued = picks.live.view.queued_tokens[0]
    now_s[0] = 601.0
    picks.pick({}, body)
    assert picks.live.own == [2] and picks.live.view.queued_tokens[0] == queued


def test_a_backend_without_deployment_is_told(interface: SimpleNamespace, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"backends\.b1: no deployment of the router is this backend"):
        route_by(FakeRouter(listed([9001])), written(tmp_path, [9001, 9002]))


def test_without_litellm_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(InputError, match="litellm is not installed; pip install litellm"):
        route_by(FakeRouter([]), tmp_path / "none")


@contextlib.asynccontextmanager
async def backends(count: int) -> AsyncIterator[tuple[list[FakeBackend], list[int]]]:
    ones = [FakeBackend(every_s=0.005) for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        yield ones, [(await stack.enter_async_context(serving(one.handle)))[1] for one in ones]


@pytest.mark.filterwarnings("ignore")  # of theirs
def test_the_real_router(tmp_path: Path) -> None:
    litellm = pytest.importorskip("litellm", reason="LiteLLM is not installed")

    async def text_of(router: Any, **more: Any) -> str:
        answer = await router.acompletion(model="m", messages=ASKED, **more)
        if more:
            return "".join([chunk.choices[0].delta.content or "" async for chunk in answer])
        return str(answer.choices[0].message.content)

    async def inside() -> tuple[list[str], Picks, list[FakeBackend]]:
        async with backends(3) as (ones, ports):
            router = litellm.Router(model_list=listed(ports), num_retries=2, retry_after=0, allowed_fails=100)
            picks = route_by(router, written(tmp_path, ports))
            ones[1].fault = "500"
            streams = [text_of(router, stream=True, stream_options={"include_usage": True}) for _ in range(12)]
            said = await asyncio.gather(*streams, *(text_of(router) for _ in range(6)))
            for _ in range(100):  # what is over is told in the background
                if not picks.under_way:
                    break
                await asyncio.sleep(0.05)
            return list(said), picks, ones

    said, picks, ones = run(inside, 60.0)
    assert said == [SAID] * 18
    assert picks.live.own == [0, 0, 0] and not picks.under_way
    assert not picks.live.breakers[1].may(picks.clock()) and len(ones[1].asked) < 18
    assert len(ones[0].asked) + len(ones[2].asked) == 18
    assert picks.live.reading[0].value != 1.0 and picks.live.lengths["default"].mean < 200.0

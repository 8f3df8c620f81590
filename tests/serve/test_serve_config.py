"""Gateway files and what is made of them: list prices, budgets, signals, what is learnt."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.serve.config import Budget, load_gateway, read_gateway
from infermix.serve.money import billed_usd
from infermix.serve.openai import ApiError, Wanted
from infermix.serve.pools import with_list_prices
from infermix.serve.scrape import NAMES, Load, read_load
from infermix.serve.signals import Signals, known_names, read_signals

API: dict[str, Any] = {"url": "https://api.example/v1", "name": "api", "model": "m", "engine": "openai"}
CLASSES = {"slow": {"model": "m"}, "fast": {"model": "m", "priority": 3}}


def signals(headers: dict[bytes, bytes], budget: Budget | None = None, **wanted: Any) -> Signals:
    file = read_gateway({"backends": [API], "classes": CLASSES}, "file")
    return read_signals(headers, Wanted(model="m", **wanted), known_names(file), budget)


def test_the_example_is_read() -> None:
    file = load_gateway("examples/serve/gateway.toml")
    assert file.pools == ["fast", "cheap"] and file.models == ["gpt-oss-120b"] and file.address == ("127.0.0.1", 8080)


def test_list_prices_come_from_the_catalogue() -> None:
    known = next(p for p in catalog().prices.values() if p.input_usd_per_mtok and p.output_usd_per_mtok)
    file = with_list_prices(read_gateway({"backends": [{**API, "price": known.id}]}, "file"), catalog())
    assert known.input_usd_per_mtok and known.output_usd_per_mtok
    assert billed_usd(file.backends[0], 10**6, 0, 0) == pytest.approx(known.input_usd_per_mtok.value)
    assert billed_usd(file.backends[0], 0, 0, 10**6) == pytest.approx(known.output_usd_per_mtok.value)
    assert file.backends[0].provider == known.provider
    with pytest.raises(InputError, match=r"backends\.api\.price: unknown price; got 'no-such'"):
        with_list_prices(read_gateway({"backends": [{**API, "price": "no-such"}]}, "file"), catalog())


def test_every_spelling_of_a_promise_is_read() -> None:
    assert signals({b"x-slo-ttft-ms": b"250"}).ttft_s == 0.25
    assert signals({b"x-llm-d-slo-tpot-ms": b"5", b"x-slo-tpot-ms": b"9"}).tpot_s == 0.005
    assert signals({}, nvext={"router": {"ttft_target": 100, "itl_target": 4}})[-2:] == (0.1, 0.004)
    assert signals({b"x-infermix-deadline-ms": b"1500"}).deadline_in_s == 1.5
    with pytest.raises(ApiError, match="x-slo-ttft-ms must be a positive number"):
        signals({b"x-slo-ttft-ms": b"soon"})


def test_class_and_priority() -> None:
    assert signals({}).class_name == "slow" and signals({b"x-infermix-class": b"unknown"}).class_name == "slow"
    assert signals({b"x-gateway-inference-objective": b"fast"}).priority == 3
    assert signals({}, Budget(class_name="fast", priority=1), service_tier="priority").priority == 5
    assert signals({}, service_tier="flex").priority == -1
    assert signals({}, nvext={"agent_hints": {"priority": 2}}).priority == 2


def test_conversations_are_the_same_number_in_every_spelling_and_process() -> None:
    said = {signals({b"x-session-id": b"abc"}).session, signals({b"x-session-token": b"abc"}).session}
    said |= {signals({}, prompt_cache_key="abc").session, signals({}, user="abc").session}
    assert len(said) == 1 and said != {-1} and signals({}).session == -1


@pytest.mark.parametrize("engine", NAMES)
def test_metrics_of_each_engine_are_read(engine: str) -> None:
    names = NAMES[engine]
    lines = [b"# HELP x y", names.running + b'{model="a"} 3.0', names.running + b'{model="b"} 1', names.waiting + b" 2"]
    assert read_load(b"\n".join(lines), engine) == Load(4, 2, 0.0)
    assert read_load(b"something_else 1\n", engine) is None

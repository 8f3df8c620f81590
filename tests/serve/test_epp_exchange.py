"""The picker without Envoy: what it answers to each message, subsets, load that is counted, health."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("grpc", reason="the extra [epp] is not installed")
pytest.importorskip("envoy.service.ext_proc.v3", reason="the extra [epp] is not installed")

from envoy.config.core.v3 import base_pb2
from envoy.service.ext_proc.v3 import external_processor_pb2 as pb

from infermix.errors import InputError
from infermix.serve.config import read_gateway
from infermix.serve.epp.exchange import DESTINATION, DUPLEX, SUBSET, SUBSET_HINT, Exchange
from infermix.serve.epp.health import status
from infermix.serve.epp.picker import address_of
from infermix.serve.epp.service import Service, start_service
from infermix.serve.meters import Meters
from infermix.serve.scrape import scrape_forever
from tests.serve.emulated import CHAT, MODEL, a_spec, ask, chat, emulating, places
from tests.serve.envoys import Picker, gateway_of, picker_of
from tests.serve.raw import run


def picker(count: int = 3, **more: Any) -> Picker:
    backends = [
        {
            "url": f"http://127.0.0.1:{9200 + k}",
            "name": f"pool/{k}",
            "pool": "pool",
            "model": MODEL,
            "system": "h100-x1",
        }
        | more.get("backend", {})
        for k in range(count)
    ]
    raw = {"gateway": {"policy": more.get("policy", "round_robin")}, "backends": backends}
    return picker_of(read_gateway(raw | {"limits": more.get("limits", {})}, "test.toml"))


def headers(*, duplex: bool = False, last: bool = False, subset: Any = None, **values: str) -> Any:
    """The first message of a request."""
    message = pb.ProcessingRequest()
    told = {":path": CHAT, ":method": "POST"} | {k.replace("_", "-"): v for k, v in values.items()}
    for name, value in told.items():
        message.request_headers.headers.headers.append(base_pb2.HeaderValue(key=name, raw_value=value.encode()))
    message.request_headers.end_of_stream = last
    if duplex:
        message.protocol_config.request_body_mode = message.protocol_config.response_body_mode = DUPLEX
    if subset is not None:
        message.metadata_context.filter_metadata[SUBSET_HINT].update({SUBSET: subset})
    return message


def body(data: bytes, last: bool = True) -> Any:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=data, end_of_stream=last))


def answers(status_code: str, address: str, *, last: bool = False, kind: str = "text/event-stream") -> Any:
    message = pb.ProcessingRequest()
    for name, value in ((":status", status_code), ("content-type", kind)):
        message.response_headers.headers.headers.append(base_pb2.HeaderValue(key=name, raw_value=value.encode()))
    message.response_headers.end_of_stream = last
    if address:
        message.attributes["envoy.filters.http.ext_proc"].update({"upstream.address": address})
    return message


def piece(data: bytes, last: bool = False) -> Any:
    return pb.ProcessingRequest(response_body=pb.HttpBody(body=data, end_of_stream=last))


def told(exchange: Exchange, *messages: Any) -> list[Any]:
    return [answer for message in messages for answer in exchange.take(message)]


ASK = json.dumps(chat()).encode()


def destination_of(answer: Any) -> list[str]:
    """The addresses, which header and metadata must both say."""
    metadata = answer.dynamic_metadata["envoy.lb"][DESTINATION]
    part = answer.request_body if answer.HasField("request_body") else answer.request_headers
    told = {h.header.key: h.header.raw_value.decode() for h in part.response.header_mutation.set_headers}
    assert told[DESTINATION] == metadata
    return list(metadata.split(","))


def test_buffered_headers_pass_and_the_body_is_answered_with_a_list() -> None:
    first, second = told(Exchange(picker()), headers(), body(ASK))
    assert first.WhichOneof("response") == "request_headers" and not first.request_headers.response.HasField(
        "header_mutation"
    )
    assert destination_of(second) == [f"127.0.0.1:{9200 + k}" for k in range(3)]
    assert not second.request_body.response.HasField("body_mutation"), "the body goes on as it is"


def test_duplex_headers_wait_for_the_body_and_pieces_come_back_whole() -> None:
    exchange, data = Exchange(picker()), json.dumps(chat("long " * 30_000)).encode()
    assert told(exchange, headers(duplex=True), body(data[:100_000], last=False)) == []
    first, *rest = told(exchange, body(data[100_000:]))
    assert len(destination_of(first)) == 3
    pieces = [one.request_body.response.body_mutation.streamed_response for one in rest]
    assert b"".join(one.body for one in pieces) == data and len(pieces) > 1
    assert [one.end_of_stream for one in pieces] == [False] * (len(pieces) - 1) + [True]
    assert max(len(one.body) for one in pieces) < 65_536


def test_requests_without_a_model_pass_untouched() -> None:
    (answer,) = told(Exchange(picker()), headers(last=True))
    assert answer.request_headers.response == pb.CommonResponse()
    _, answer = told(Exchange(picker()), headers(**{":path": "/v1/embeddings"}), body(b"{}"))
    assert not answer.request_body.response.header_mutation.set_headers and not answer.dynamic_metadata.fields


@pytest.mark.parametrize("subset", [["127.0.0.1:9201"], "127.0.0.1:9201"])
def test_the_pick_lies_in_the_subset(subset: Any) -> None:
    for _ in range(4):
        _, answer = told(Exchange(picker()), headers(subset=subset), body(ASK))
        assert destination_of(answer) == ["127.0.0.1:9201"]


@pytest.mark.parametrize("subset", [[], ["10.0.0.1:1"]])
def test_nobody_in_the_subset_is_503(subset: Any) -> None:
    exchange = Exchange(picker())
    _, answer = told(exchange, headers(subset=subset), body(ASK))
    assert answer.immediate_response.status.code == 503 == exchange.refused
    assert json.loads(answer.immediate_response.body)["error"]["code"] == "no_backend"


def test_requests_that_may_be_shed_are_when_the_fleet_is_full() -> None:
    one = picker(1, backend={"max_num_seqs": 2}, limits={"shed_above": 0.5})
    flex = json.dumps(chat(service_tier="flex")).encode()
    assert told(Exchange(one), headers(), body(flex))[1].WhichOneof("response") == "request_body"
    answer = told(Exchange(one), headers(), body(flex))[1].immediate_response
    assert answer.status.code == 429
    names = {h.header.key: h.header.raw_value for h in answer.headers.set_headers}
    assert names["retry-after"] == b"1" and names["x-llm-d-request-dropped-reason"] == b"overloaded"
    assert told(Exchange(one), headers(), body(ASK))[1].WhichOneof("response") == "request_body", "others wait there"


def test_both_spellings_of_the_headers_name_the_class() -> None:
    backends = [
        {"url": f"http://127.0.0.1:{port}", "name": name, "model": MODEL, "system": "h100-x1", "serves": {name: 1.0}}
        for port, name in ((9201, "chat"), (9202, "code"))
    ]
    classes = {name: {"model": MODEL} for name in ("chat", "code")}
    one = picker_of(read_gateway({"backends": backends, "classes": classes}, "test.toml"))
    for name in ("x_gateway_inference_objective", "x_llm_d_inference_objective", "x_infermix_class"):
        _, answer = told(Exchange(one), headers(**{name: "code"}), body(ASK))
        assert destination_of(answer) == ["127.0.0.1:9202"], name


def test_the_body_carries_the_name_that_the_backend_knows() -> None:
    one = picker(2, backend={"served_as": "inner"})
    _, answer = told(Exchange(one), headers(), body(ASK))
    common = answer.request_body.response
    assert json.loads(common.body_mutation.body) == {**chat(), "model": "inner"}
    lengths = [h.header.raw_value for h in common.header_mutation.set_headers if h.header.key == "content-length"]
    assert lengths == [str(len(common.body_mutation.body)).encode()]


def test_a_fallback_moves_the_load_and_blames_who_did_not_answer() -> None:
    one = picker()
    exchange = Exchange(one)
    told(exchange, headers(), body(ASK))
    assert one.live.own == [1, 0, 0]
    (answer,) = told(exchange, answers("200", "127.0.0.1:9202"))
    assert one.live.own == [0, 0, 1]
    assert [breaker.fails for breaker in one.live.breakers] == [1, 1, 0]
    names = {h.header.key: h.header.raw_value for h in answer.response_headers.response.header_mutation.set_headers}
    assert names["x-infermix-backend"] == b"pool/2" and names["x-infermix-chip"] == b"h100-x1"


def test_the_end_of_a_stream_frees_the_place_and_teaches_lengths() -> None:
    one = picker()
    exchange = Exchange(one)
    told(exchange, headers(duplex=True), body(ASK), answers("200", "127.0.0.1:9200"))
    before = one.live.lengths["default"].mean
    text = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":4,"completion_tokens":900,"total_tokens":904}}\n\n'
    (echo,) = told(exchange, piece(text))
    assert echo.response_body.response.body_mutation.streamed_response.body == text
    assert exchange.picked is not None and exchange.picked.first_s >= 0 and one.live.own == [1, 0, 0]
    told(exchange, piece(usage), piece(b"data: [DONE]\n\n", last=True))
    assert one.live.own == [0, 0, 0] and one.live.lengths["default"].mean > before


def test_load_is_counted_while_the_stream_is_open_and_not_after() -> None:
    async def inside() -> None:
        one = picker()
        service = Service(one, Meters())

        async def messages(count: int) -> Any:
            for message in (headers(), body(ASK), answers("200", ""))[:count]:
                yield message

        for count in (1, 2, 3):
            seen = [answer async for answer in service.process(messages(count), None)]
            assert len(seen) == count and one.live.own == [0, 0, 0] and service.open == 0
        assert not any(one.live.view.context_tokens) and not any(one.live.view.queued_tokens)

    run(inside)


def test_health_over_grpc() -> None:
    grpc = pytest.importorskip("grpc")

    async def inside() -> tuple[bytes, ...]:
        one = picker(1)
        server, port = await start_service(Service(one, Meters()), "127.0.0.1:0")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            check = channel.unary_unary("/grpc.health.v1.Health/Check")
            ready = await check(b"\n\x09readiness")
            unknown = await check(b"\n\x05other")
            one.live.leave_alone(0, one.clock() + 100)
            found = (ready, unknown, await check(b"\n\x09readiness"), await check(b"\n\x08liveness"))
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\n\x09readiness")
            first = await watch.read()
            watch.cancel()
        await server.stop(None)
        return (*found, first)

    assert run(inside) == (b"\x08\x01", b"\x08\x03", b"\x08\x02", b"\x08\x01", b"\x08\x02")
    assert status("envoy.service.ext_proc.v3.ExternalProcessor", True) == b"\x08\x01"


def test_backends_that_envoy_cannot_reach_are_told() -> None:
    file = read_gateway({"backends": [{"url": "https://api.example.com", "name": "api", "model": "m"}]}, "test.toml")
    with pytest.raises(InputError, match="without TLS"):
        address_of(file.backends[0])


def test_load_from_elsewhere_shows_in_the_engines_own_metrics() -> None:
    async def inside() -> list[int]:
        async with emulating(places(2, a_spec(speed=0.05))) as emulator:
            one = picker_of(gateway_of(emulator, policy="least_inflight", scrape_s=0.05))
            scraping = asyncio.create_task(scrape_forever(one))
            busy = emulator.instances[0].place.port
            others = [asyncio.create_task(ask(busy, chat(f"{k}", max_tokens=500, ignore_eos=True))) for k in range(4)]
            while one.live.view.inflight[0] < 4:
                await asyncio.sleep(0.02)
            picks = [one.pick({}, CHAT, ASK).order[0] for _ in range(3)]
            for task in (*others, scraping):
                task.cancel()
            await asyncio.gather(*others, scraping, return_exceptions=True)
            return picks

    assert run(inside) == [1, 1, 1]

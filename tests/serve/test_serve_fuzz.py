"""Bytes that are no request, or one that two readers could read differently, never get past the gateway.

A nightly run tries 10,000 cases; ``INFERMIX_FUZZ`` says another number.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.serve.openai import CHAT
from tests.nightly import NIGHTLY
from tests.serve.fake_backend import CHAT_BODY, STREAM_BODY, FakeBackend, fleet
from tests.serve.raw import HOST, body_of, post, run, send, status_of

CASES = int(os.environ.get("INFERMIX_FUZZ", "10000" if NIGHTLY else "400"))
AT_ONCE = 32
LINE = f"POST {CHAT} HTTP/1.1\r\n".encode() + HOST
CHUNKED = LINE + b"Transfer-Encoding: chunked\r\n"
LIMITS = {"max_header_bytes": 4000, "max_body_bytes": 20_000}
Case = tuple[str, bytes, set[int]]
"""(kind, bytes, statuses that may come; 0: no answer, as the request is not whole)."""


def chunked(draw: random.Random, body: bytes) -> bytes:
    whole, at = CHUNKED + b"\r\n", 0
    while at < len(body):
        piece = body[at : at + draw.randint(1, 40)]
        whole, at = whole + b"%x\r\n%b\r\n" % (len(piece), piece), at + len(piece)
    return whole + b"0\r\n\r\n"


def case(draw: random.Random) -> Case:
    body = draw.choice([CHAT_BODY, STREAM_BODY])
    kind = draw.choice(
        ["split", "chunks", "oversized header", "oversized body", "both lengths", "bad chunks", "bad json", "bad utf-8",
         "bad field", "flipped", "cut", "noise"]
    )  # fmt: skip
    if kind == "split":
        return kind, post(CHAT, body, close=False), {200}
    if kind == "chunks":
        return kind, chunked(draw, body), {200}
    if kind == "oversized header":
        return kind, LINE + b"X: " + b"a" * draw.randint(4001, 9000) + b"\r\n\r\n", {431}
    if kind == "oversized body":
        return kind, LINE + b"Content-Length: %d\r\n\r\n" % draw.randint(20_001, 10**20), {413, 400}
    if kind == "both lengths":
        pair = [b"Content-Length: %d\r\n" % len(body), b"Transfer-Encoding: chunked\r\n"]
        draw.shuffle(pair)
        return kind, LINE + b"".join(pair) + b"\r\n" + draw.choice([body, b"0\r\n\r\n" + body]), {400}
    if kind == "bad chunks":
        size = draw.choice([b"zz", b"-5", b"0x5", b"5 5", b"fffffffffffffffff", b"5;\x00"])
        return kind, CHUNKED + b"\r\n" + size + b"\r\n" + body + b"\r\n", {400, 413}
    if kind == "bad json":
        at = draw.randrange(1, len(body) - 1)
        return (
            kind,
            post(CHAT, draw.choice([body[:at], body[at:], b"[]", b"", b"nul", body + b"}"]), close=False),
            {400},
        )
    if kind == "bad utf-8":
        broken = body.replace(b"hello", draw.choice([b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf8\x88\x80\x80"]))
        return kind, post(CHAT, broken, close=False), {400}
    if kind == "bad field":
        wrong = draw.choice([{"messages": 5}, {"messages": []}, {"stream": "yes"}, {"max_tokens": -1}, {"n": 1.5}])
        return kind, post(CHAT, json.dumps(json.loads(body) | wrong).encode(), close=False), {400}
    whole = post(CHAT, body, close=False)
    if kind == "cut":
        return kind, whole[: draw.randrange(1, len(whole) - 1)], {0}
    if kind == "flipped":
        bytes_ = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            bytes_[draw.randrange(len(bytes_))] = draw.randrange(256)
        return kind, bytes(bytes_), {0, 200, 400, 404, 405, 413, 431, 501, 505}
    return kind, bytes(draw.randrange(256) for _ in range(draw.randint(4, 200))), {0, 400}


async def answer_to(port: int, draw: random.Random, data: bytes, whole: bool) -> bytes:
    """The answer to bytes that come in pieces; what is not whole is not waited for."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while data:
            cut = draw.choice([len(data), len(data), draw.randint(1, len(data))])
            writer.write(data[:cut])
            await writer.drain()
            data = data[cut:]
            await asyncio.sleep(0)
        async with asyncio.timeout(5.0 if whole else 0.05):
            while not (answer.endswith(b"0\r\n\r\n") or (b"content-length" in answer and _is_whole(answer))):
                if not (more := await reader.read(65536)):
                    break
                answer += more
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


def _is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    length = [line for line in head.split(b"\r\n") if line.startswith(b"content-length: ")]
    return bool(found) and bool(length) and len(body) >= int(length[0][16:])


@pytest.mark.uncompiled_s(300)
def test_no_bytes_crash_the_gateway_or_reach_a_backend_half_read() -> None:
    wrong: list[tuple[str, bytes, bytes]] = []

    async def some(port: int, seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(CASES // AT_ONCE):
            kind, data, allowed = case(draw)
            answer = await answer_to(port, draw, data, 0 not in allowed)
            status = status_of(answer)
            told = status in (0, 200) or bool(json.loads(body_of(answer))["error"]["message"])
            if status not in allowed or not told:
                wrong.append((kind, data, answer))

    async def fuzz() -> None:
        backend = FakeBackend(chunks=2)
        async with fleet([backend], limits=LIMITS) as (gateway, port):
            await asyncio.gather(*(some(port, seed) for seed in range(AT_ONCE)))
            assert wrong == []
            assert all(set(asked) >= {"model", "messages"} and asked["model"] == "m" for asked in backend.asked)
            assert status_of(await send(port, post(CHAT, CHAT_BODY))) == 200
            await asyncio.sleep(0.05)
            assert gateway.live.own == [0] and not gateway.attempts

    run(fuzz, within_s=300.0)

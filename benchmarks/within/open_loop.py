"""Requests of two classes that arrive at random times, whatever became of those before."""

from __future__ import annotations

import asyncio
import json
import random

HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n"
    "x-infermix-class: {name}\r\ncontent-length: {length}\r\n\r\n"
)
CLASSES = {"coding": (0.3, 12_000, 120), "chat": (0.7, 3_000, 60)}
"""Share of the requests, mean characters of a prompt, mean tokens of an answer."""


async def one(port: int, name: str, chars: int, tokens: int, number: int) -> bool:
    """One stream; whether it came whole."""
    words = f"{number:08d} " * (chars // 9)
    body = json.dumps({
        "model": "gpt-oss-120b", "stream": True, "max_tokens": tokens, "ignore_eos": True,
        "stream_options": {"include_usage": True}, "messages": [{"role": "user", "content": words}],
    })  # fmt: skip
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write((HEAD.format(name=name, length=len(body)) + body).encode())
    answer = await reader.read(-1)
    writer.close()
    return b"data: [DONE]\n\n" in answer and answer.endswith(b"0\r\n\r\n")


async def offered(port: int, requests: int, per_s: float, seed: int = 1) -> int:
    """Offer so many requests; returns how many came whole."""
    draw = random.Random(seed)
    loop = asyncio.get_running_loop()
    at_s, tasks = loop.time(), []
    for number in range(requests):
        at_s += draw.expovariate(per_s)
        name = "coding" if draw.random() < CLASSES["coding"][0] else "chat"
        _, chars, tokens = CLASSES[name]
        await asyncio.sleep(max(0.0, at_s - loop.time()))
        size = (int(chars * draw.uniform(0.5, 1.5)), max(2, int(tokens * draw.uniform(0.3, 1.7))))
        tasks.append(asyncio.create_task(one(port, name, *size, number)))
    return sum(await asyncio.gather(*tasks))

"""The command itself: the official client, workers and backends that are killed, reload, drain, memory."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.serve.openai import CHAT
from tests.serve.fake_backend import STREAM_BODY, FakeBackend
from tests.serve.raw import HOST, body_of, post, run, send, serving, status_of

SAID = "t0 t1 t2 t3 t4 t5 "
MOST_MEMORY_BYTES = 60_000_000
CLIENTS = 24
ASKED_EACH = 5


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def written(path: Path, ports: list[int], listen: int, **gateway: Any) -> Path:
    """A gateway file over backends on these ports."""
    lines = ["[gateway]", f'listen = "127.0.0.1:{listen}"', "scrape_s = 0.2", "drain_s = 3.0"]
    lines += [f"{name} = {json.dumps(value)}" for name, value in gateway.items()]
    lines += ["[limits]", "breaker_failures = 2", "breaker_s = 0.5", "first_token_s = 5.0"]
    for i, port in enumerate(ports):
        lines += ["[[backends]]", f'url = "http://127.0.0.1:{port}"', f'name = "b{i}"', 'pool = "p"', 'model = "m"']
    path.write_text("\n".join(lines))
    return path


@contextlib.contextmanager
def command(file: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """``infermix serve`` in a process of its own, ready."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "infermix", "serve", str(file)], env=environment, stderr=subprocess.PIPE
    )
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.1):
                break
            assert process.poll() is None, process.stderr.read() if process.stderr else ""
            time.sleep(0.05)
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.wait(10)
        if process.stderr:
            process.stderr.close()


@contextlib.asynccontextmanager
async def behind(tmp_path: Path, backends: list[FakeBackend], **gateway: Any) -> AsyncIterator[tuple[Any, int, Path]]:
    """The command in front of backends of this process."""
    async with contextlib.AsyncExitStack() as stack:
        ports = [(await stack.enter_async_context(serving(b.handle)))[1] for b in backends]
        port = free_port()
        file = written(tmp_path / "gateway.toml", ports, port, **gateway)
        with contextlib.ExitStack() as processes:
            process = await asyncio.to_thread(processes.enter_context, command(file, port))
            yield process, port, file


async def page(port: int, path: str = "/metrics") -> str:
    return body_of(await send(port, f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"Connection: close\r\n\r\n")).decode()


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_the_official_client_works_unchanged_in_little_memory(tmp_path: Path) -> None:
    openai = pytest.importorskip("openai")

    def ask(port: int) -> None:
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="any", max_retries=0)
        messages: Any = [{"role": "user", "content": "hello"}]
        whole = client.chat.completions.create(model="m", messages=messages)
        assert whole.choices[0].message.content == SAID and whole.usage.completion_tokens == 6
        stream = client.chat.completions.create(
            model="m", messages=messages, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == SAID
        assert chunks[-1].usage.total_tokens == chunks[-1].usage.prompt_tokens + 6
        text = client.completions.create(model="m", prompt="hello", max_tokens=3)
        assert text.choices[0].text == "t0 t1 t2 "
        assert [m.id for m in client.models.list()] == ["m"]
        with pytest.raises(openai.NotFoundError, match="does not exist"):
            client.chat.completions.create(model="other", messages=messages)

    async def live() -> None:
        async with behind(tmp_path, [FakeBackend()]) as (process, port, _):
            await asyncio.to_thread(ask, port)
            (resident,) = [
                line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmRSS" in line
            ]
            assert int(resident.split()[1]) * 1024 < MOST_MEMORY_BYTES

    run(live, 60.0)


def test_a_worker_and_a_backend_that_are_killed_take_nobody_along(tmp_path: Path) -> None:
    backends = [FakeBackend(chunks=30, every_s=0.02) for _ in range(4)]
    broken: list[bytes] = []
    whole: list[bytes] = []

    async def client(port: int) -> None:
        for _ in range(ASKED_EACH):
            try:
                answer = await send(port, post(CHAT, STREAM_BODY), wait_s=20.0)
            except OSError:
                answer = b""
            (whole if answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") else broken).append(answer)

    async def answered(count: int) -> None:
        while len(whole) < count:
            await asyncio.sleep(0.01)

    async def live() -> None:
        async with behind(tmp_path, backends, workers=3) as (process, port, _):
            await asyncio.sleep(0.5)
            clients = [asyncio.create_task(client(port)) for _ in range(CLIENTS)]
            await answered(CLIENTS // 2)
            before = children(process.pid)
            assert len(before) == 3
            os.kill(before[0], signal.SIGKILL)
            await answered(2 * CLIENTS)
            backends[0].fault = "close"
            await asyncio.gather(*clients)
            await asyncio.sleep(0.8)
            assert len(children(process.pid)) == 3 and process.poll() is None
            metrics = await page(port)
            lost = [line for line in metrics.splitlines() if line.startswith("infermix_worker_lost_requests_total ")]
            counted = float(lost[0].split()[1])
            # who was on the worker saw its connection break; nobody got a part that looks whole
            assert len(whole) + len(broken) == CLIENTS * ASKED_EACH and 0 < len(broken) <= CLIENTS
            assert not [a for a in broken if b"[DONE]" in a]
            assert 0 < counted <= CLIENTS
            answer = await send(port, post(CHAT, STREAM_BODY))
            assert status_of(answer) == 200

    run(live, 120.0)


def test_reload_drain_and_a_faulty_file(tmp_path: Path) -> None:
    backends = [FakeBackend(chunks=20, every_s=0.03), FakeBackend()]

    async def live() -> None:
        async with behind(tmp_path, backends, workers=1) as (process, port, file):
            whole_file = file.read_text()
            under_way = asyncio.create_task(send(port, post(CHAT, STREAM_BODY), wait_s=5.0))
            await asyncio.sleep(0.2)
            file.write_text("nonsense = ")
            process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.2)
            assert await page(port, "/readyz") == '{"status":"ready"}'
            only = whole_file.split("[[backends]]")
            file.write_text("[[backends]]".join([only[0], only[2]]))
            process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.3)
            asked = len(backends[0].asked)
            for _ in range(4):
                assert status_of(await send(port, post(CHAT, STREAM_BODY))) == 200
            assert len(backends[0].asked) == asked and len(backends[1].asked) >= 4
            assert b"[DONE]" in await under_way
            backends[1].every_s = 0.05
            last = asyncio.create_task(send(port, post(CHAT, STREAM_BODY), wait_s=5.0))
            await asyncio.sleep(0.1)
            process.terminate()
            assert b"[DONE]" in await last
            assert await asyncio.to_thread(process.wait, 5) == 0

    run(live, 60.0)


BACKEND = '[[backends]]\nname = "a"\nmodel = "m"\nurl = '
FAULTY = [
    ('[gateway]\npolcy = "a"\n' + BACKEND + '"http://h:1"', "gateway: polcy: unknown key"),
    ("[gateway]\n", "no backends"),
    (BACKEND + '"ftp://h"', "backends[0].url: not the URL of a server"),
    (BACKEND + '"http://u:p@h"', "no credentials in a URL"),
    (BACKEND + '"http://h:1"\nkey_env = "NO_SUCH"', "the variable NO_SUCH is not set"),
    (BACKEND + '"http://h:1"\nsystem = "h100x8"', "did you mean"),
]


@pytest.mark.parametrize(("text", "told"), FAULTY)
def test_a_faulty_file_is_one_line_and_exit_2(
    text: str, told: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from infermix.cli.main import main

    file = tmp_path / "gateway.toml"
    file.write_text(text)
    with pytest.raises(SystemExit) as left:
        main(["serve", str(file), "--listen", f"127.0.0.1:{free_port()}", "--compiled"])
    said = capfd.readouterr().err.strip()
    assert left.value.code == 2 and told in said and "\n" not in said

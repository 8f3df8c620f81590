"""Programs, not fakes: four emulators behind ``infermix serve``, one killed under load, and its decisions."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("httptools", reason="the extra [serve] is not installed")

from infermix.measure.replay import replay
from tests.serve.emulated import MODEL, Seen, ask, chat, free_ports
from tests.serve.raw import run
from tests.serve.test_serve_process import command, page

EMULATORS, EACH = 4, 2
CLIENTS, ASKED_EACH, TOKENS = 24, 3, 40
POOL = 'system = "h100-x1"\nprefix_cache = true\n'
PROMISES = "ttft_s = 2.0\ntpot_s = 0.05\n"


def two_free_ports() -> int:
    """The first of ``EACH`` ports in a row that nobody listens at now."""
    while True:
        (first,) = free_ports(1)
        with contextlib.suppress(OSError), socket.socket() as second:
            second.bind(("127.0.0.1", first + 1))
            return first


@contextlib.contextmanager
def emulators(folder: Path) -> Iterator[tuple[list[subprocess.Popen[bytes]], list[int]]]:
    """Programs of ``EACH`` instances, and the ports of all these."""
    ports, programs = [], []
    with contextlib.ExitStack() as stack:
        for i in range(EMULATORS):
            first = two_free_ports()
            file = folder / f"emulated{i}.toml"
            file.write_text(
                f'model = "{MODEL}"\nlisten = "127.0.0.1:{first}"\n[fleet.p{i}]\n{POOL}instances = {EACH}\n'
            )
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            line = [sys.executable, "-m", "infermix", "emulate", str(file)]
            program = stack.enter_context(subprocess.Popen(line, env=environment, stderr=subprocess.PIPE))
            stack.callback(program.kill)
            programs.append(program)
            ports += range(first, first + EACH)
        for program in programs:
            assert program.stderr is not None
            assert any(b"ready" in line for line in program.stderr)
        yield programs, ports


def gateway_file(folder: Path, ports: list[int], listen: int) -> Path:
    """A plain gateway that predicts on every instance: so many are decided upon at once."""
    lines = ["[gateway]", f'listen = "127.0.0.1:{listen}"', 'policy = "slo_headroom"', 'decisions = "decisions.jsonl"']
    patience = ["connect_s = 30.0", "first_token_s = 30.0", "stall_least_s = 30.0", "breaker_s = 60.0"]
    lines += ["[limits]", "breaker_failures = 2", *patience, f'[classes.c]\nmodel = "{MODEL}"', PROMISES]
    for i, port in enumerate(ports):
        lines += ["[[backends]]", f'url = "http://127.0.0.1:{port}"', f'name = "b{i}"', f'model = "{MODEL}"', POOL]
    file = folder / "gateway.toml"
    file.write_text("\n".join(lines))
    return file


def faults_told(metrics: str, name: str) -> dict[str, float]:
    """Label values of a metric, as text → its value."""
    lines = (line.rpartition(" ") for line in metrics.splitlines() if line.startswith(name + "{"))
    return {labels: float(value) for labels, _, value in lines}


async def offered(port: int, seen: list[Seen], begins_s: float) -> None:
    """A client: one conversation after another, each as a stream."""
    await asyncio.sleep(begins_s)
    for number in range(ASKED_EACH):
        body = chat(f"question {number} of client {id(seen)}", max_tokens=TOKENS, ignore_eos=True, stream=True)
        seen.append(await ask(port, body))


def test_one_of_four_programs_is_killed_under_load(tmp_path: Path) -> None:
    async def load(port: int, victim: subprocess.Popen[bytes]) -> tuple[list[Seen], str]:
        seen: list[Seen] = []
        # not in step: some are always in mid-stream
        clients = [asyncio.create_task(offered(port, seen, 0.01 * k)) for k in range(CLIENTS)]
        while len(seen) < CLIENTS // 2:
            await asyncio.sleep(0.005)
        victim.send_signal(signal.SIGKILL)
        await asyncio.gather(*clients)
        return seen, await page(port)

    (listen,) = free_ports(1)
    with emulators(tmp_path) as (programs, ports):
        file = gateway_file(tmp_path, ports, listen)
        with command(file, listen) as gateway:
            seen, metrics = run(lambda: load(listen, programs[1]), 60.0)
            assert gateway.poll() is None
    whole = [one for one in seen if one.whole]
    told = [one for one in seen if not one.whole and any("error" in event for event in one.events)]
    assert len(seen) == CLIENTS * ASKED_EACH == len(whole) + len(told)  # an answer, or an error event: nothing else
    assert all(len(one.text.split()) == TOKENS for one in whole)
    lost = ('backend="b2"', 'backend="b3"')
    faults = faults_told(metrics, "infermix_backend_faults_total")
    assert faults and all(any(name in labels for name in lost) for labels in faults)
    assert sum(faults_told(metrics, "infermix_midstream_failures_total").values()) == len(told)
    retried = sum(faults_told(metrics, "infermix_retries_total").values())
    assert sum(faults.values()) == retried + len(told) > 0
    up = faults_told(metrics, "infermix_backend_up")
    assert sum(up.values()) >= EACH * (EMULATORS - 1)
    again: dict[str, Any] = replay(tmp_path / "decisions.jsonl")
    assert again["identical"] == again["decisions"] == CLIENTS * ASKED_EACH + retried

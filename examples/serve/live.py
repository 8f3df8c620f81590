"""The whole of it on one machine: a planned fleet emulated, the gateway in front, coding agents and chat users.

    make live                              # or: python examples/serve/live.py [FOLDER_OF_A_PLAN]

Emulates every pool of plan.json (at most four instances of each), starts `infermix serve` before it with the plan's
policy and shares, lets some agents and chat users loose on it for half a minute, and shows what the gateway tells. It
exits 0 only if every class kept its promise, as its clients measured it, and was served where the plan says.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.live import Live

from infermix.plan.export.gateway import toml_value
from infermix.report.live import live_view
from infermix.serve.watch import Reading, fetch, now, read_metrics

PACKAGED = Path(__file__).parent / "live"
FIRST_PORT = 19101
LISTEN = "127.0.0.1:19100"
MOST_INSTANCES = 4
LOAD_S, WARM_S = 40.0, 3.0
AGENTS, CHATS_PER_S = 4, 4.0
AGENT_TOKENS, TURN_TOKENS, AGENT_ANSWER_TOKENS, THINK_S = 24_000, 600, 250, 1.0
CHAT_TOKENS, CHAT_ANSWER_TOKENS = 1_000, 150
SLACK = 0.05
"""So much less than planned may be served where the plan says: the load is small."""
DEPLOYMENT = ("tp", "pp", "ep", "dp", "stages", "weights", "kv", "max_num_seqs", "max_batched_tokens", "spec")


@dataclass
class Tally:
    """What the clients of a class saw."""

    slo: dict[str, float]
    asked: int = 0
    kept: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    pools: Counter[str] = field(default_factory=Counter)

    @property
    def attained(self) -> float:
        """Share of the requests that kept every promise."""
        return self.kept / self.asked if self.asked else 0.0

    def note(self, pool: str, ttft_s: float, tpot_s: float, e2e_s: float, failure: str) -> None:
        """One request more."""
        self.asked += 1
        self.pools[pool] += 1
        if failure:
            self.failed[failure] += 1
            return
        seen = {"ttft_s": ttft_s, "tpot_s": tpot_s, "e2e_s": e2e_s}
        self.kept += all(seen[name] <= self.slo[name] for name in seen if self.slo.get(name))


# -- the fleet -----------------------------------------------------------------------------------


def gateway_file(plan: dict[str, Any]) -> str:
    """Text of a gateway file for the plan's pools, on ports of this machine."""
    policy = plan["policy"] if ":" not in plan["policy"] else "pool_split"
    parts = [f'[gateway]\nlisten = "{LISTEN}"\npolicy = "{policy}"']
    for name, row in plan["classes"].items():
        promise = {"model": plan["fleet"][0]["model"], **{k: v for k, v in row["slo"].items() if v}}
        parts.append(f"[classes.{name}]\n" + _rows(promise))
    port = FIRST_PORT
    for pool in plan["fleet"]:
        each = {name: pool[name] for name in DEPLOYMENT if pool.get(name) is not None}
        each |= {"pool": pool["name"], "system": pool["system"], "model": pool["model"], "serves": pool["serves"]}
        each |= {"prefix_cache": True, "usd_per_hour": pool["usd_per_hour"] / pool["instances"]}
        for k in range(min(pool["instances"], MOST_INSTANCES)):
            place = {"url": f"http://127.0.0.1:{port}", "name": f"{pool['name']}/{k}"}
            parts.append("[[backends]]\n" + _rows(place | each))
            port += 1
    return "\n\n".join(parts) + "\n"


def _rows(rows: dict[str, Any]) -> str:
    return "\n".join(f"{name} = {toml_value(value)}" for name, value in rows.items())


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """An infermix command while it runs."""
    process = subprocess.Popen([sys.executable, "-m", "infermix", *arguments], stderr=subprocess.PIPE)
    try:
        yield process
    finally:
        process.terminate()
        _, said = process.communicate(timeout=30)
        if process.returncode not in (0, -15):
            sys.stderr.write(said.decode())


async def answering(url: str, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody answers there."""
    for _ in range(600):
        with contextlib.suppress(Exception):
            await asyncio.to_thread(fetch, url)
            return
        if process.poll() is not None:
            raise SystemExit(f"live: {' '.join(process.args[3:5])} ended: {process.stderr.read().decode()}")
        await asyncio.sleep(0.1)
    raise SystemExit(f"live: nobody answers at {url}")


# -- clients -------------------------------------------------------------------------------------


async def ask(body: dict[str, Any], class_name: str, session: str) -> tuple[str, float, float, float, str, str]:
    """(pool, TTFT, TPOT, E2E [s], failure, text) of one streamed request."""
    where, sent_s = urlsplit(f"http://{LISTEN}"), time.perf_counter()
    pool, first_s, last_s, tokens, text, done = "", 0.0, 0.0, 0, [], False
    try:
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: live\r\nContent-Length: {len(data)}\r\n"
        head += f"x-infermix-class: {class_name}\r\nx-session-token: {session}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + data)
        status = int((await reader.readline()).split()[1])
        while (line := await reader.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(": ")
            pool = value.strip() if name.lower() == "x-infermix-pool" else pool
        if status != 200:
            writer.close()
            return pool, 0.0, 0.0, 0.0, f"HTTP {status}", ""
        async for event in events(reader):
            if event == b"[DONE]":
                done = True
                continue
            said = json.loads(event)
            piece = "".join(choice["delta"].get("content") or "" for choice in said["choices"])
            if piece:
                last_s = time.perf_counter()
                first_s = first_s or last_s
                text.append(piece)
            tokens = (said.get("usage") or {}).get("completion_tokens", tokens)
        writer.close()
    except (OSError, ValueError, IndexError, asyncio.IncompleteReadError) as fault:
        return pool, 0.0, 0.0, 0.0, type(fault).__name__, ""
    failure = "" if done and first_s and tokens else "the stream was cut"
    tpot_s = (last_s - first_s) / max(tokens - 1, 1)
    return pool, first_s - sent_s, tpot_s, last_s - sent_s, failure, "".join(text)


async def events(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Server-sent events of a chunked answer."""
    rest = b""
    while size := int((await reader.readline()).strip() or b"0", 16):
        rest += (await reader.readexactly(size + 2))[:-2]
        *whole, rest = rest.split(b"\n\n")
        for event in whole:
            yield event.removeprefix(b"data: ")


async def agent(number: int, model: str, class_name: str, tally: Tally, until_s: float) -> None:
    """A coding session: a long context that grows turn by turn, nearly all of it seen before."""
    luck = Random(number)
    messages = [{"role": "system", "content": words(luck, AGENT_TOKENS)}]
    while time.perf_counter() < until_s:
        messages.append({"role": "user", "content": words(luck, TURN_TOKENS)})
        seen = await ask(body_of(model, messages, AGENT_ANSWER_TOKENS), class_name, f"agent-{number}")
        if len(messages) > 2:  # the first turn reads the whole context
            tally.note(*seen[:5])
        messages.append({"role": "assistant", "content": seen[5]})
        await asyncio.sleep(luck.uniform(0.5, 1.5) * THINK_S)


async def chats(model: str, class_name: str, tally: Tally, until_s: float, per_s: float) -> None:
    """Chat users: one question each, at random times."""
    luck, open_ones = Random(class_name), set()
    count = 0
    while time.perf_counter() < until_s:
        count += 1
        messages = [{"role": "user", "content": words(luck, round(luck.uniform(0.2, 1.8) * CHAT_TOKENS))}]
        body = body_of(model, messages, round(luck.uniform(0.3, 1.7) * CHAT_ANSWER_TOKENS))
        task = asyncio.create_task(ask(body, class_name, f"{class_name}-{count}"))
        task.add_done_callback(lambda done: tally.note(*done.result()[:5]))
        open_ones.add(task)
        await asyncio.sleep(luck.expovariate(per_s))
    await asyncio.gather(*open_ones)


def words(luck: Random, tokens: int) -> str:
    """A text of so many tokens, as emulated engines count them."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary = ["".join(luck.choices(letters, k=3)) + " " for _ in range(200)]
    return "".join(luck.choices(vocabulary, k=tokens))


def body_of(model: str, messages: list[dict[str, str]], tokens: int) -> dict[str, Any]:
    """A request whose answer has its full length."""
    more = {"stream": True, "stream_options": {"include_usage": True}, "ignore_eos": True}
    return {"model": model, "messages": messages, "max_tokens": tokens, **more}


# -- the show ------------------------------------------------------------------------------------


async def load(plan: dict[str, Any], fast: str, console: Console) -> dict[str, Tally]:
    """Agents and users at once, and what the gateway tells meanwhile."""
    model = plan["fleet"][0]["model"]
    tallies = {name: Tally(row["slo"]) for name, row in plan["classes"].items()}
    until_s = time.perf_counter() + LOAD_S
    clients = [agent(k, model, fast, tallies[fast], until_s) for k in range(AGENTS)]
    others = [name for name in tallies if name != fast]
    clients += [chats(model, name, tallies[name], until_s, CHATS_PER_S / len(others)) for name in others]
    showing = asyncio.create_task(show(plan, console))
    await asyncio.gather(*clients)
    showing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await showing
    return tallies


async def show(plan: dict[str, Any], console: Console) -> None:
    """A view a second over each other on a terminal, else one every ten seconds."""
    promised = {name: row["slo"].get("attainment", 1.0) for name, row in plan["classes"].items()}
    url, every_s = f"http://{LISTEN}", 1.0 if console.is_terminal else 10.0
    before = await asyncio.to_thread(read)
    with Live(console=console, auto_refresh=False) if console.is_terminal else contextlib.nullcontext() as screen:
        while True:
            await asyncio.sleep(every_s)
            after = await asyncio.to_thread(read)
            view = live_view(now(before, after), promised, url)
            if screen is None:
                console.print(view, "")
            else:
                screen.update(view, refresh=True)
            before = after


def read() -> Reading:
    """The gateway's metrics now."""
    return read_metrics(fetch(f"http://{LISTEN}"), time.monotonic())


def verdict(plan: dict[str, Any], tallies: dict[str, Tally], fast: str) -> tuple[bool, str]:
    """Whether every class kept its promise where the plan serves it, and the figures."""
    lane = {pool["name"] for pool in plan["fleet"] if pool["serves"].get(fast) or not pool["serves"]}
    holds, said = True, []
    for name, tally in tallies.items():
        pools = lane if name == fast else {pool["name"] for pool in plan["fleet"]} - lane
        planned = sum(pool["serves"].get(name, 0.0) for pool in plan["fleet"] if pool["name"] in pools)
        there = sum(tally.pools[pool] for pool in pools) / max(tally.asked, 1)
        wanted = tally.slo.get("attainment", 1.0)
        holds &= tally.asked >= 10 and tally.attained >= wanted and there >= planned - SLACK and planned > 0.5
        targets = ", ".join(
            f"{key[:-2].upper()} ≤ {tally.slo[key]:g} s" for key in ("ttft_s", "tpot_s", "e2e_s") if tally.slo.get(key)
        )
        failed = f", {sum(tally.failed.values())} failed ({', '.join(tally.failed)})" if tally.failed else ""
        said.append(
            f"{name} kept {targets} for {tally.attained:.1%} of {tally.asked} (promised {wanted:.0%}{failed}), "
            f"{there:.0%} on {' and '.join(sorted(pools))} (planned {planned:.0%})"
        )
    return holds, "; ".join(said)


def main(arguments: list[str]) -> int:
    """Exit code: 0 if all holds, 1 if not, 2 for a plan that has no fast class."""
    began_s = time.perf_counter()
    folder = Path(arguments[0]) if arguments else (Path() if Path("plan.json").is_file() else PACKAGED)
    plan = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
    console = Console(width=100 if not sys.stdout.isatty() else None, highlight=False)
    fast = min(plan["classes"], key=lambda name: plan["classes"][name]["slo"].get("tpot_s") or float("inf"))
    if len(plan["classes"]) < 2:
        console.print("live: the plan has one class; make live wants a fast one and another")
        return 2
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "gateway.toml"
        file.write_text(gateway_file(plan), encoding="utf-8")
        console.print(
            f"live: {folder / 'plan.json'}, ${plan['usd_per_hour']:,.0f}/h as planned; starting emulated servers"
        )
        with running("emulate", str(file)) as servers, running("serve", str(file), "--log", os.devnull) as gateway:
            asyncio.run(wait_for_both(servers, gateway))
            console.print(f"live: {AGENTS} agents and {CHATS_PER_S:g} chats a second for {LOAD_S:g} s")
            tallies = asyncio.run(load(plan, fast, console))
    holds, said = verdict(plan, tallies, fast)
    console.print(
        f"live: {'holds' if holds else 'DOES NOT HOLD'}: {said}; {time.perf_counter() - began_s:.0f} s", soft_wrap=True
    )
    return 0 if holds else 1


async def wait_for_both(servers: subprocess.Popen[bytes], gateway: subprocess.Popen[bytes]) -> None:
    """The first emulated server and the gateway answer."""
    await answering(f"http://127.0.0.1:{FIRST_PORT}", servers)
    await answering(f"http://{LISTEN}", gateway)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

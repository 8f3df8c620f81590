"""An OpenAI-compatible server with known step times: continuous batching, standard library only."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

GRACE_S = 0.02
"""With a clock of its own: until clients have read their tokens and asked again."""


@dataclass
class Sequence:
    """A request inside the engine; ``out`` gets one item for every token, then None."""

    prompt: int
    output: int
    generated: int = 0
    out: queue.Queue[int | None] = field(default_factory=queue.Queue)


@dataclass
class Behaviour:
    """What the server does; times in seconds."""

    step_s: float = 0.010
    token_s: float = 0.0005
    max_num_seqs: int = 8
    key: str | None = None
    knows_ignore_eos: bool = True
    counts_tokens: bool = True
    fails_every: int = 0
    """Every so many-th question is answered with HTTP 500."""
    seen: list[dict[str, Any]] = field(default_factory=list)
    own_clock: bool = False
    """Time goes on by ``now_s`` alone: steps last as long as they should however slow the machine is."""
    now_s: float = 0.0


class Engine(threading.Thread):
    """Whole prompts join at the next step; every sequence gets a token from every step."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(daemon=True)
        self.behaviour, self.waiting = behaviour, deque[Sequence]()
        self.wake, self.ended = threading.Condition(), False

    def add(self, sequence: Sequence) -> None:
        with self.wake:
            self.waiting.append(sequence)
            self.wake.notify()

    def stop(self) -> None:
        with self.wake:
            self.ended = True
            self.wake.notify()

    def run(self) -> None:
        running: list[Sequence] = []
        clock = time.perf_counter()
        while True:
            with self.wake:
                while not running and not self.waiting and not self.ended:
                    self.wake.wait()
                    clock = time.perf_counter()
            if self.behaviour.own_clock:
                time.sleep(GRACE_S)
            with self.wake:
                if self.ended:
                    return
                joined = []
                while self.waiting and len(running) + len(joined) < self.behaviour.max_num_seqs:
                    joined.append(self.waiting.popleft())
            tokens = len(running) + sum(one.prompt for one in joined)
            step_s = self.behaviour.step_s + self.behaviour.token_s * tokens
            clock += step_s
            if not self.behaviour.own_clock:
                time.sleep(max(clock - time.perf_counter(), 0.0))
            self.behaviour.now_s += step_s
            running += joined
            for one in running:
                one.generated += 1
                one.out.put(one.generated)
                if one.generated == one.output:
                    one.out.put(None)
            running = [one for one in running if one.generated < one.output]


def _handler(behaviour: Behaviour, engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            if self._let_in():
                self._json(200, {"data": [{"id": "fake"}]})

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if not self._let_in():
                return
            behaviour.seen.append(body)
            if "ignore_eos" in body and not behaviour.knows_ignore_eos:
                self._json(400, {"error": {"message": "unknown field ignore_eos"}})
            elif behaviour.fails_every and len(behaviour.seen) % behaviour.fails_every == 0:
                self._json(500, {"error": {"message": "out of luck"}})
            else:
                self._stream(body)

        def _let_in(self) -> bool:
            good = behaviour.key is None or self.headers.get("Authorization") == f"Bearer {behaviour.key}"
            if not good:
                self._json(401, {"error": {"message": "who are you"}})
            return good

        def _stream(self, body: dict[str, Any]) -> None:
            text = body.get("prompt") or body["messages"][0]["content"]
            sequence = Sequence(len(text.split()), body["max_tokens"])
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self._event({"choices": [{"delta": {"role": "assistant", "content": None}}]})
            engine.add(sequence)
            while (token := sequence.out.get()) is not None:
                self._event({"choices": [{"delta": {"content": f" {token}"}}]})
            if behaviour.counts_tokens:
                usage = {"prompt_tokens": sequence.prompt, "completion_tokens": sequence.output}
                self._event({"choices": [], "usage": usage})
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")

        def _event(self, event: dict[str, Any]) -> None:
            self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

        def _chunk(self, data: bytes) -> None:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

        def _json(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


@contextmanager
def serving(behaviour: Behaviour) -> Iterator[str]:
    """The URL of such a server while it runs."""
    engine = Engine(behaviour)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(behaviour, engine))
    server.daemon_threads = True
    threads = [engine, threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)]
    for thread in threads:
        thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        engine.stop()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()

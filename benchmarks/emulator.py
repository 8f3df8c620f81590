"""An emulated instance under load: whether the wall clock keeps up with modelled time, and at how many chunks a second.

256 streams at once on an emulated H200 with gpt-oss-120b: about 25 ms a step, in each a chunk for every stream. The
time per token that clients see is held against that of the engine's own modelled clock. One process serves, another
one asks; on two cores nothing else should run.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

STREAMS, TOKENS = 256, 150
BOUND = 1.10
"""Measured over modelled time per token."""
PORT = 19400
FILE = f"""
model = "gpt-oss-120b"
listen = "127.0.0.1:{PORT}"
[fleet.cheap]
system = "h200-x1"
instances = 1
"""


async def stream(k: int) -> tuple[float, int]:
    """(time per token [s], chunks) of one stream."""
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    messages = [{"role": "user", "content": f"question {k} " * 20}]
    body = {"model": "gpt-oss-120b", "messages": messages, "max_tokens": TOKENS, "ignore_eos": True, "stream": True}
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n"
    writer.write(head.encode() + data)
    first_s = last_s = 0.0
    chunks = 0
    while piece := await reader.read(1 << 16):
        count = piece.count(b'"content":')
        if count:
            last_s = time.perf_counter()
            first_s = first_s or last_s
            chunks += count
    writer.close()
    return (last_s - first_s) / (TOKENS - 1), chunks


def modelled_s() -> float:
    """Mean time per token by the engine's own modelled clock, from its metrics."""
    text = urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=10).read().decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    name = "vllm:request_time_per_output_token_seconds"
    label = '{model_name="gpt-oss-120b",engine="0"}'
    return float(values[f"{name}_sum{label}"]) / float(values[f"{name}_count{label}"])


async def measure() -> tuple[list[float], int, float]:
    """Times per token, chunks, seconds."""
    began_s = time.perf_counter()
    found = await asyncio.gather(*(stream(k) for k in range(STREAMS)))
    return [tpot_s for tpot_s, _ in found], sum(chunks for _, chunks in found), time.perf_counter() - began_s


def main() -> int:
    """Print the ratio; 1 where it is over its bound."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "emulate.toml"
        file.write_text(FILE, encoding="utf-8")
        server = subprocess.Popen([sys.executable, "-m", "infermix", "emulate", str(file)], stderr=subprocess.PIPE)
        assert server.stderr is not None
        try:
            while b"ready" not in server.stderr.readline():
                pass
            times_s, chunks, span_s = asyncio.run(measure())
            model_s = modelled_s()
        finally:
            server.terminate()
            server.communicate()
    ratio = statistics.median(times_s) / model_s
    print(
        f"{STREAMS} streams: TPOT p50 {statistics.median(times_s) * 1e3:.2f} ms, modelled {model_s * 1e3:.2f} ms, "
        f"ratio {ratio:.3f} (at most {BOUND}); {chunks / span_s:,.0f} chunks/s, {chunks} of {STREAMS * TOKENS}"
    )
    return 0 if ratio <= BOUND else 1


if __name__ == "__main__":
    sys.exit(main())

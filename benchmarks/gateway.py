"""What the gateway costs: streams through it beside the same streams direct, in the same minute.

python benchmarks/gateway.py [--quick] [--compiled] [--peers FOLDER[,FOLDER...]]

Bounds, on two cores that client and backend share with it: one client waits less than 1 ms longer for its first token;
32 clients without pauses reach 0.6 of direct; 256 clients of 10 ms a chunk 0.95, and less than 5 ms more to the first
token; the process stays under 60 MB, with ``--compiled`` under 200 MB. The 256 begin spread over the length of a
stream, as people who do not know of each other do. The same bounds stand for all 256 in step, which a closed loop of
equal streams that begin together keeps for ever: the median waits for 128 others.
``--peers`` names the folders of programs of environments with vllm-router, sglang-router or LiteLLM; those found are
measured beside it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent / "within"))
import streams

NO_BOUND = float("inf")
CELLS = (
    (0.0, 1, 0.0, 0.0, 1.0),
    (0.0, 32, 0.0, 0.6, NO_BOUND),
    (0.01, 256, 0.5, 0.95, 5.0),
    (0.01, 256, 0.0, 0.95, 5.0),
)
"""(seconds a chunk, clients, seconds in which they begin, least share of direct, most added TTFT [ms])."""
COMPILED = "--compiled" in sys.argv
MOST_MB = 200.0 if COMPILED else 60.0
BODY = json.dumps({
    "model": "m", "stream": True,
    "messages": [{"role": "system", "content": "x" * 600}, {"role": "user", "content": "y" * 450}],
}).encode()  # fmt: skip


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return int(place.getsockname()[1])


def ready(port: int, process: subprocess.Popen[bytes], within_s: float = 90.0) -> bool:
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.1)
        else:
            time.sleep(0.5)
            return True
    return False


def started(stack: ExitStack, command: list[str], port: int, *, own: bool = True) -> subprocess.Popen[bytes] | None:
    """A program that listens, or None if it does not come up."""
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    if not own:
        environment.pop("PYTHONPATH", None)
    place = None if own else "/"  # LiteLLM imports from the folder two above
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, cwd=place
    )
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return process if ready(port, process) else None


def gateway(folder: str, backend: int, listen: int) -> list[str]:
    file = Path(folder) / f"{listen}.toml"
    file.write_text(
        f'[gateway]\nlisten = "127.0.0.1:{listen}"\nscrape_s = 0\n[[backends]]\nurl = "http://127.0.0.1:{backend}"\n'
        'name = "b0"\nmodel = "m"\nttft_s = 0.01\ntpot_s = 0.01\n'
    )
    return [sys.executable, "-m", "infermix", "serve", str(file), "--compiled" if COMPILED else "--plain"]


def peers(programs: Path, folder: str, backend: int) -> dict[str, tuple[int, list[str]]]:
    """Other routers that are installed there: name → (port, command)."""
    url, found = f"http://127.0.0.1:{backend}", {}
    ports = [free_port() for _ in range(5)]
    shared = ["--worker-urls", url, "--policy", "round_robin", "--host", "127.0.0.1"]
    if (programs / "vllm-router").exists():
        line = [str(programs / "vllm-router"), *shared, "--port", str(ports[0]), "--prometheus-port", str(ports[1])]
        found["vllm-router"] = (ports[0], line)
    if list(programs.parent.glob("lib/python*/site-packages/sglang_router")):
        line = [str(programs / "python"), "-m", "sglang_router.launch_router", *shared]
        found["sglang-router"] = (ports[2], [*line, "--port", str(ports[2]), "--prometheus-port", str(ports[3])])
    if (programs / "litellm").exists():
        file = Path(folder) / "litellm.yaml"
        params = {"model": "openai/m", "api_base": f"{url}/v1", "api_key": "none"}
        file.write_text(json.dumps({"model_list": [{"model_name": "m", "litellm_params": params}]}))
        found["LiteLLM"] = (ports[4], [str(programs / "litellm"), "--config", str(file), "--port", str(ports[4])])
    return found


def resident_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith("VmRSS"))) * 1024 / 1e6


def processor_s(pid: int) -> float:
    """Processor time of a program and of those it has started [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_s(int(child)) for child in children)


def cell(
    every_s: float, clients: int, over_s: float, for_s: float, programs: list[Path]
) -> list[tuple[str, float, float, float, float, float]]:
    """(name, requests/s, share of direct, added TTFT p50 [ms], processor ms a request, MB) of what stands between."""
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        backend, listen = free_port(), free_port()
        started(stack, [sys.executable, streams.__file__, str(backend), str(every_s)], backend)
        between = {"infermix": (listen, gateway(folder, backend, listen))}
        for place in programs:
            between |= peers(place, folder, backend)
        rows = []
        for name, (port, command) in between.items():
            process = started(stack, command, port, own=name == "infermix")
            if process is None:
                print(f"{name}: does not come up")
                continue
            uvloop.run(streams.load(port, clients, 1.0, BODY))
            shares, added, took, rate = [], [], [], 0.0
            for _ in range(3):  # in turn, so that both meet the same neighbours
                direct = uvloop.run(streams.load(backend, clients, for_s, BODY, over_s))
                before_s = processor_s(process.pid)
                through = uvloop.run(streams.load(port, clients, for_s, BODY, over_s))
                took.append((processor_s(process.pid) - before_s) * 1e3 / len(through.ttft_s))
                assert direct.bad == 0 and through.bad == 0, (direct.bad, through.bad)
                shares.append(through.per_s / direct.per_s)
                added.append(through.ttft_ms(0.5) - direct.ttft_ms(0.5))
                rate = max(rate, through.per_s)
            rows.append((name, rate, sorted(shares)[1], sorted(added)[1], sorted(took)[1], resident_mb(process.pid)))
        return rows


def main() -> int:
    quick = "--quick" in sys.argv
    named = sys.argv[sys.argv.index("--peers") + 1] if "--peers" in sys.argv else ""
    programs = [Path(place) for place in named.split(",") if place]
    failed = False
    print("chunk every  clients          between        requests/s  of direct  added TTFT p50  processor      MB")
    for every_s, clients, over_s, least, most_ms in CELLS:
        for name, rate, share, added_ms, took_ms, mb in cell(every_s, clients, over_s, 2.0 if quick else 5.0, programs):
            over = name == "infermix" and (share < least or added_ms > most_ms or mb > MOST_MB)
            failed = failed or over
            step = "in step" if every_s and not over_s else ""
            told = f"{every_s * 1e3:8.0f} ms  {clients:7d} {step:7s}  {name:13s}  {rate:10.0f}  {share:9.2f}"
            told += f"  {added_ms:11.2f} ms  {took_ms:6.2f} ms  {mb:6.1f}"
            print(told + ("  OVER" if over else ""), flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())

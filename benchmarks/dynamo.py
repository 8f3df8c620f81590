"""The same requests through NVIDIA Dynamo's offline replay and through infermix: times of requests, and speed.

    python benchmarks/dynamo.py --dynamo /path/to/venv/bin/python [--trace FILE] [--requests 1000000] [--prefix-cache]

``--dynamo`` is the Python of an environment with ``ai-dynamo==1.6.1`` (docs/design/agreement.md). Without it nothing
is run. Dynamo's step times are read off single requests first, by ``probe``; ours are the nearest that ``PoolSpec`` can
hold. Speed is measured on ``--requests`` requests of about 1000 tokens in and 200 out that share no prefix, on
``WORKERS`` instances, round robin, each side in a process of its own that reads the same file.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infermix.arrays import Floats, Ints
from infermix.metrics.binned import binned_quantiles
from infermix.sim.result import COMPLETED, Run
from infermix.sim.run import simulate_pools
from infermix.sim.state import PoolSpec, gap_edges_s
from infermix.workload.requests import Requests, make_requests
from infermix.workload.traces import MOONCAKE_BLOCK_TOKENS, Trace, read_trace

ROOT = Path(__file__).parents[1]
TRACE = ROOT.parent / "shared" / "data" / "traces" / "mooncake_conversation.parquet"
WITHIN = Path(__file__).parent / "within" / "dynamo_replay.py"
COLUMNS = ("arrival", "first", "last", "input", "output", "worker", "readmitted")
BLOCK_TOKENS, BLOCKS, MAX_SEQS, MAX_BATCHED_TOKENS = 64, 8192, 256, 2048
CAPACITY = BLOCK_TOKENS * BLOCKS
WORKERS, RATE_PER_S, REQUESTS = 4, 60.0, 1_000_000
PERCENTILES = (0.5, 0.9, 0.99)
SAMPLES = 4000
APART_MS = 1e6


@dataclass(frozen=True)
class Case:
    """A trace on so many instances, its arrivals slowed down ``stretch`` times."""

    title: str
    instances: int
    stretch: float


CASES = (
    Case("4 instances", 4, 1.0),
    Case("1 instance, arrivals four times as slow", 1, 4.0),
    Case("1 instance, overloaded", 1, 1.0),
)


@dataclass(frozen=True)
class Replay:
    """What Dynamo's replay told: its summary, seconds of call and process, its memory, columns of requests."""

    summary: dict[str, Any]
    call_s: float
    process_s: float
    peak_rss_bytes: int
    times: dict[str, Floats]

    @property
    def kernel_s(self) -> float:
        """Its own clock: without reading the trace."""
        return float(self.summary["wall_time_ms"]) / 1e3


@dataclass(frozen=True)
class Steps:
    """Dynamo's step times [ms]: coefficients of 1, n, n² over prompt tokens, and over the share of KV memory read."""

    prefill: Floats
    decode: Floats

    def prefill_ms(self, tokens: Floats) -> Floats:
        """A step that reads so many prompt tokens."""
        return np.asarray(np.polynomial.polynomial.polyval(tokens, self.prefill))

    def decode_ms(self, kv_tokens: Floats) -> Floats:
        """A step whose decoding sequences read so many KV tokens."""
        share = np.minimum(1.0, np.asarray(kv_tokens) / CAPACITY)
        return np.asarray(np.polynomial.polynomial.polyval(share, self.decode))


@dataclass(frozen=True)
class Line:
    """A straight line through the decode times that occur: intercept [ms], slope [ms/token], relative misses."""

    base_ms: float
    kv_ms: float
    rms: float = 0.0
    worst: float = 0.0


@dataclass(frozen=True)
class Bench:
    """Where things are: Dynamo's Python, a folder for files, and whether both sides keep prefixes."""

    python: str
    folder: Path
    prefix_cache: bool

    def replay(self, trace: Path, workers: int, *, router: str = "round_robin", keep: bool = True) -> Replay:
        """Run Dynamo on a file in a process of its own."""
        times = self.folder / "times.bin"
        engine = {
            "block_size": BLOCK_TOKENS,
            "num_gpu_blocks": BLOCKS,
            "max_num_seqs": MAX_SEQS,
            "max_num_batched_tokens": MAX_BATCHED_TOKENS,
            "enable_prefix_caching": self.prefix_cache,
        }
        job = {
            "trace": str(trace), "workers": workers, "router": router, "engine": engine,
            "times": str(times) if keep else None,
        }  # fmt: skip
        process_s, found = timed([self.python, str(WITHIN), json.dumps(job)])
        table = np.fromfile(times).reshape(-1, len(COLUMNS)).T if keep else np.empty((len(COLUMNS), 0))
        columns = dict(zip(COLUMNS, table, strict=True))
        return Replay(found["summary"], found["call_s"], process_s, found["peak_rss_bytes"], columns)


def timed(command: list[str]) -> tuple[float, dict[str, Any]]:
    """(seconds of a process, the JSON object on its last line)."""
    clock = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - clock
    if done.returncode:
        sys.exit(f"{command[0]} failed: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seconds, found


# ---- requests ----


def write_jsonl(path: Path, trace: Trace, stretch: float = 1.0) -> Path:
    """A trace as Mooncake JSONL."""
    ids, start = trace.block_ids[0], trace.block_start[0]
    with path.open("w") as file:
        for row in range(len(trace)):
            line = {
                "timestamp": float(trace.t_s[row]) * 1e3 * stretch,
                "input_length": int(trace.input_tokens[row]),
                "output_length": int(trace.output_tokens[row]),
                "hash_ids": ids[start[row] : start[row + 1]].tolist(),
            }
            file.write(json.dumps(line) + "\n")
    return path


def write_rows(path: Path, at_ms: Floats, inputs: Ints, outputs: Ints) -> Path:
    """Requests that share nothing, as Mooncake JSONL."""
    with path.open("w") as file:
        used = 0
        for at, tokens, answer in zip(at_ms.tolist(), inputs.tolist(), outputs.tolist(), strict=True):
            ids = list(range(used, used := used + -(-tokens // MOONCAKE_BLOCK_TOKENS)))
            line = {"timestamp": at, "input_length": tokens, "output_length": answer, "hash_ids": ids}
            file.write(json.dumps(line) + "\n")
    return path


def write_plain(path: Path, requests: int) -> Path:
    """About 1000 tokens in and 200 out, Poisson arrivals at ``RATE_PER_S``."""
    draw = np.random.default_rng(0)
    at_ms = np.cumsum(draw.exponential(1e3 / RATE_PER_S, requests))
    inputs, outputs = draw.integers(500, 1501, requests), draw.integers(100, 301, requests)
    return write_rows(path, np.asarray(np.round(at_ms - at_ms[0], 3), dtype=np.float64), inputs, outputs)


def read_requests(path: Path) -> Requests:
    """The file as infermix sees it."""
    trace = read_trace(path)
    return make_requests(("all",), trace.t_s, trace.input_tokens, trace.output_tokens)


# ---- step times ----


def probe(bench: Bench) -> tuple[Steps, float]:
    """(step times fitted to single requests far apart, the largest relative miss of the fit)."""
    prompts = np.unique(np.linspace(1, MAX_BATCHED_TOKENS, 60).astype(int))
    longs = np.linspace(1000, 0.95 * CAPACITY, 60).astype(int)
    tokens = np.concatenate([prompts, longs])
    rows = write_rows(
        bench.folder / "probe.jsonl", APART_MS * np.arange(float(len(tokens))), tokens, np.full(len(tokens), 2)
    )
    found = bench.replay(rows, 1).times
    order = np.argsort(found["arrival"])
    first_ms = (found["first"] - found["arrival"])[order][: len(prompts)]
    gap_ms, kv = (found["last"] - found["first"])[order], found["input"][order] + 1.0
    steps = Steps(_parabola(prompts.astype(float), first_ms), _parabola(kv / CAPACITY, gap_ms))
    misses = [steps.prefill_ms(prompts.astype(float)) / first_ms - 1.0, steps.decode_ms(kv) / gap_ms - 1.0]
    return steps, float(np.abs(np.concatenate(misses)).max())


def _parabola(x: Floats, y: Floats) -> Floats:
    return np.asarray(np.polynomial.Polynomial.fit(x, y, 2).convert().coef)


def kv_read(replay: Replay) -> Floats:
    """KV tokens that the decoding sequences of an instance hold, at times spread evenly over the replay."""
    t = replay.times
    pace = (t["output"] - 1.0) / np.maximum(t["last"] - t["first"], 1e-9)
    found = []
    for worker in np.unique(t["worker"]):
        mine = t["worker"] == worker
        first, last = t["first"][mine], t["last"][mine]
        for at in np.linspace(first.min(), last.max(), SAMPLES // len(np.unique(t["worker"]))):
            on = (first <= at) & (at < last)
            found.append(float((t["input"][mine][on] + 1.0 + pace[mine][on] * (at - first[on])).sum()))
    kv = np.array(found)
    return kv[kv > 0]


def line_through(steps: Steps, kv: Floats) -> Line:
    """Least squares over the KV tokens that occur."""
    exact = steps.decode_ms(kv)
    slope, base = np.polyfit(kv, exact, 1)
    miss = (base + slope * kv) / exact - 1.0
    return Line(float(base), float(slope), float(np.sqrt(np.mean(miss**2))), float(np.abs(miss).max()))


def pool_spec(steps: Steps, line: Line, instances: int) -> PoolSpec:
    """The nearest step table of ours.

    Theirs is ``prefill(prompt tokens)``, if the step has any, plus ``decode(KV tokens)``, if a sequence decodes. Ours
    looks tables up by all tokens of the step: ``per_seq_s`` takes out the linear part of those that decode. Ours
    counts the KV tokens that a chunk reads, theirs do not: ``pair_s`` takes out those of a full chunk.
    """
    tokens = np.arange(MAX_BATCHED_TOKENS + 1.0)
    per_token_ms = float(steps.prefill[1])
    return PoolSpec(
        instances=instances,
        decode_s=(line.base_ms + per_token_ms * tokens) / 1e3,
        mixed_s=(line.base_ms + steps.prefill_ms(tokens)) / 1e3,
        per_seq_s=-per_token_ms / 1e3,
        kv_s=line.kv_ms / 1e3,
        pair_s=-line.kv_ms / 1e3 / MAX_BATCHED_TOKENS,
        load_s=0.0,
        block_tokens=BLOCK_TOKENS,
        blocks=BLOCKS,
        max_num_seqs=MAX_SEQS,
        max_batched_tokens=MAX_BATCHED_TOKENS,
        serves=np.array([True]),
        prefill_s_per_token=per_token_ms / 1e3,
        step_s=line.base_ms / 1e3,
        # prefix_cache=... goes here, and the block ids into `read_requests`
    )


# ---- agreement ----


def ours_percentiles(run: Run) -> dict[str, Floats]:
    """TTFT, ITL and E2E [ms] at ``PERCENTILES``."""
    done, at = run.status == COMPLETED, np.array(PERCENTILES)
    itl_s = binned_quantiles(run.gaps.sum(axis=(0, 1)), gap_edges_s(), at)
    return {
        "TTFT": np.quantile(run.ttft_s[done], at) * 1e3,
        "ITL": itl_s * 1e3,
        "E2E": np.quantile(run.e2e_s[done], at) * 1e3,
    }


def their_percentiles(replay: Replay) -> dict[str, Floats]:
    """The same of Dynamo; its ITL as its summary tells it."""
    t, at = replay.times, np.array(PERCENTILES)
    return {
        "TTFT": np.nanquantile(t["first"] - t["arrival"], at),
        "ITL": np.array([replay.summary[f"{name}_itl_ms"] for name in ("median", "p90", "p99")]),
        "E2E": np.nanquantile(t["last"] - t["arrival"], at),
    }


def agree(bench: Bench, steps: Steps, trace: Trace, case: Case) -> None:
    """Print how far the percentiles of one case lie apart."""
    rows = write_jsonl(bench.folder / "trace.jsonl", trace, case.stretch)
    theirs, requests = bench.replay(rows, case.instances), read_requests(rows)
    line = line_through(steps, kv_read(theirs))
    run = simulate_pools(requests, [pool_spec(steps, line, case.instances)], "round_robin")
    their, our = their_percentiles(theirs), ours_percentiles(run)
    span_s = theirs.summary["duration_ms"] / 1e3
    print(f"\n{case.title}: {len(requests):,} requests; decode line: rms miss {line.rms:.1%}, worst {line.worst:.1%}")
    print(f"  done per s: Dynamo {len(requests) / span_s:.4f}, infermix {len(requests) / run.simulated_s:.4f}")
    print(f"  preempted: Dynamo {theirs.times['readmitted'].sum():.0f}, infermix {run.preemptions.sum()}")
    print("        " + "".join(f"{'p' + format(p * 100, 'g'):>30}" for p in PERCENTILES))
    for name in their:
        cells = [f"{a:12.2f} {b:10.2f} {b / a - 1:+6.1%}" for a, b in zip(their[name], our[name], strict=True)]
        print(f"  {name:4} ms" + "".join(cells))


# ---- speed ----


def run_ours(job: dict[str, Any]) -> dict[str, Any]:
    """What a process of infermix alone does: read the file, simulate, say how long the kernel took."""
    steps = Steps(np.array(job["prefill"]), np.array(job["decode"]))
    spec = pool_spec(steps, Line(*job["line"]), WORKERS)
    run = simulate_pools(read_requests(Path(job["rows"])), [spec], "round_robin")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"kernel_s": run.kernel_s, "peak_rss_bytes": peak, "completed": int((run.status == COMPLETED).sum())}


def speed(bench: Bench, steps: Steps, requests: int) -> None:
    """Print requests per second of both, in the kernel and of the whole process."""
    rows = write_plain(bench.folder / "plain.jsonl", requests)
    line = line_through(steps, np.linspace(0.0, 0.5 * CAPACITY, 100))
    job = {
        "rows": str(rows), "prefill": steps.prefill.tolist(), "decode": steps.decode.tolist(),
        "line": [line.base_ms, line.kv_ms],
    }  # fmt: skip
    command = [sys.executable, __file__, "--ours", json.dumps(job)]
    timed(command)  # compiles
    ours_s, ours = timed(command)
    theirs = bench.replay(rows, WORKERS, keep=False)
    print(f"\nspeed: {requests:,} requests, {WORKERS} instances, round robin, {RATE_PER_S:g} requests/s offered")
    print(f"  completed: Dynamo {theirs.summary['completed_requests']:,}, infermix {ours['completed']:,}")
    _ratio("kernel, requests/s", requests / theirs.kernel_s, requests / ours["kernel_s"], "{:,.0f}")
    _ratio("process, requests/s", requests / theirs.process_s, requests / ours_s, "{:,.0f}")
    _ratio("process, s", theirs.process_s, ours_s, "{:.2f}")
    _ratio("peak memory, MB", theirs.peak_rss_bytes / 1e6, ours["peak_rss_bytes"] / 1e6, "{:.0f}")


def _ratio(name: str, theirs: float, ours: float, form: str) -> None:
    show: Callable[[float], str] = form.format
    print(f"  {name:22} Dynamo {show(theirs):>12}   infermix {show(ours):>12}   ratio {ours / theirs:.3g}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dynamo", help="Python of an environment with ai-dynamo")
    parser.add_argument("--trace", type=Path, default=TRACE, help="a trace with block ids (Mooncake)")
    parser.add_argument("--requests", type=int, default=REQUESTS, help="requests of the speed measurement; 0: none")
    parser.add_argument("--prefix-cache", action="store_true", help="keep prefixes (Dynamo's side)")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    told = _arguments()
    if told.ours:
        print(json.dumps(run_ours(json.loads(told.ours))))
        return 0
    if told.dynamo is None:
        print("dynamo: left out, needs --dynamo /path/to/venv/bin/python with ai-dynamo")
        return 0
    if not Path(told.dynamo).is_file():
        sys.exit(f"--dynamo: no such file: {told.dynamo}")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(told.dynamo, Path(folder), told.prefix_cache)
        steps, miss = probe(bench)
        print("prefill [ms] over prompt tokens: " + ", ".join(f"{c:.7g}" for c in steps.prefill))
        print("decode [ms] over the share of KV memory read: " + ", ".join(f"{c:.6g}" for c in steps.decode))
        print(f"largest miss of these fits: {miss:.1e}")
        if told.trace.is_file():
            trace = read_trace(told.trace)
            for case in CASES:
                agree(bench, steps, trace, case)
        else:
            print(f"agreement left out: no {told.trace}")
        if told.requests:
            speed(bench, steps, told.requests)
    return 0


if __name__ == "__main__":
    sys.exit(main())

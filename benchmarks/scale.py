"""How far the simulator goes: requests without end, thousands of instances, seeds side by side, and its first call.

    python benchmarks/scale.py [part ...]

Parts: ``requests`` (1, 10 and 100 million on the 32 instances of examples/mixed-32.toml), ``instances`` (10,000 under
``power_of_two``), ``threads`` (two seeds at once), ``start`` (the first call in a fresh process). All when none is
named. Fails when a figure crosses its bound of ``BOUNDS``.

Requests come window after window, 1,000 tokens in and 200 out in the mean (lognormal, a standard deviation as large).
Load is against what an instance does when a queue never lets it rest. Memory is the peak of a process of its own.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from infermix.fleet import make_fleet
from infermix.plan.problem import load_study
from infermix.plan.question import open_facts
from infermix.sim.run import simulate_pools
from infermix.sim.specs import fleet_specs
from infermix.sim.state import PoolSpec
from infermix.sim.stream import Streamed, simulate_stream
from infermix.workload.requests import Requests
from infermix.workload.windows import WINDOW, Lengths, PlainClass, poisson_windows

STUDY = Path(__file__).parents[1] / "examples" / "mixed-32.toml"
INPUTS, OUTPUTS = Lengths(1000.0), Lengths(200.0)
MILLIONS = (1, 10, 100)
LOAD = 0.7
SAMPLE = 20_000
INSTANCES, SEATS, MANY = 10_000, 64, 5_000_000
WINDOW_OF_MANY = 500_000
"""As many as are on their way, so that moving those costs little."""
THREADS_REQUESTS, TIMES = 3_000_000, 3
LINEAR, PEAK_RSS_BYTES, MANY_PER_S, SPEED_UP, CACHED_S, COMPILED_S = 0.10, 1e9, 300_000.0, 1.8, 2.0, 40.0
BOUNDS = (
    f"seconds a request within {LINEAR:.0%}, peak < {PEAK_RSS_BYTES / 1e9:g} GB; {INSTANCES:,} instances: >= "
    f"{MANY_PER_S:,.0f} requests/s; two threads >= {SPEED_UP} times one; first call < {CACHED_S:g} s from the cache, "
    f"< {COMPILED_S:g} s without"
)


def traffic_of(rate_per_s: float) -> tuple[PlainClass, ...]:
    """The one class of all parts."""
    return (PlainClass("chat", rate_per_s, INPUTS, OUTPUTS),)


def backlog(n: int = SAMPLE) -> Requests:
    """Requests that all wait from the beginning."""
    table = next(poisson_windows(traffic_of(1.0), n, seed=7, window=n))
    return replace(table, arrival_s=np.zeros(n))


def specs_of(factor: float = 1.0, seats: int | None = None) -> list[PoolSpec]:
    """The pools of the study, so many times as large, with so many sequences to an instance."""
    study = load_study(STUDY)
    fleet = make_fleet(open_facts(study), study.fleet, study.model, tuple(study.traffic), study.path)
    specs = fleet_specs(fleet, backlog(), "nominal")
    total = sum(s.instances for s in specs)
    sizes = np.diff(np.rint(np.cumsum([0, *(s.instances for s in specs)]) / total * total * factor)).astype(int)
    return [
        replace(s, instances=int(size), max_num_seqs=seats or s.max_num_seqs)
        for s, size in zip(specs, sizes, strict=True)
    ]


def capacity_per_s(specs: list[PoolSpec]) -> float:
    """Requests that the pools end in a second when nobody ever waits for work [1/s]."""
    table = backlog()

    def of_one(spec: PoolSpec) -> float:
        run = simulate_pools(table, [replace(spec, instances=1)], "round_robin")
        return len(table) / run.simulated_s

    return sum(spec.instances * of_one(spec) for spec in specs)


def stream(specs: list[PoolSpec], policy: str, rate_per_s: float, n: int, seed: int, window: int) -> Streamed:
    """A simulation of n requests."""
    windows = poisson_windows(traffic_of(rate_per_s), n, seed=seed, window=window)
    typical = np.array([OUTPUTS.mean])
    return simulate_stream(windows, specs, policy, typical_output_tokens=typical, seed=seed)


def timed(specs: list[PoolSpec], policy: str, n: int, window: int) -> dict[str, Any]:
    """Figures of one simulation at ``LOAD``; the kernel is compiled before the clock starts."""
    rate = LOAD * capacity_per_s(specs)
    stream(specs, policy, rate, 1000, 1, window)
    clock, busy = time.perf_counter(), time.process_time()
    found = stream(specs, policy, rate, n, 1, window)
    seconds, cpu_s = time.perf_counter() - clock, time.process_time() - busy
    totals, end = found.totals, found.end
    return {
        "requests": n,
        "seconds": seconds,
        "cpu_s": cpu_s,
        "kernel_s": found.kernel_s,
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "completed": totals.completed,
        "rate_per_s": rate,
        "batch": float(end.seq_steps.sum() / max(1, end.steps.sum())),
        "busy": float(end.busy_s.mean() / found.simulated_s),
        "ttft_s": totals.percentiles("ttft_s", 0),
    }


def alone(call: str, **environment: str) -> Any:
    """What a function of this file answers in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--call", call],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    return json.loads(done.stdout)


def call_requests(millions: str) -> dict[str, Any]:
    return timed(specs_of(), "least_wait", int(millions) * 1_000_000, WINDOW)


def call_instances(n: str) -> dict[str, Any]:
    return timed(specs_of(INSTANCES / 32, SEATS), "power_of_two", int(n), WINDOW_OF_MANY)


def call_first(_: str) -> float:
    """Seconds of the first simulation of a process; importing and reading the study stand apart."""
    specs, table = specs_of(), replace(backlog(1), arrival_s=np.zeros(1))
    clock = time.perf_counter()
    simulate_pools(table, specs, "least_wait")
    return time.perf_counter() - clock


def show(row: dict[str, Any]) -> None:
    n, seconds, kernel = row["requests"], row["seconds"], row["kernel_s"]
    print(
        f"  {n:>11,} requests: {seconds:.1f} s, {n / seconds:,.0f}/s ({row['cpu_s']:.1f} s of a core); "
        f"kernel {kernel:.1f} s, {n / kernel:,.0f}/s; peak {row['peak_rss_bytes'] / 1e6:.0f} MB"
    )
    print(
        f"    {row['rate_per_s']:,.0f} a second, {LOAD:.0%} of what the fleet can do; mean batch {row['batch']:.1f}, "
        f"TTFT p50 {row['ttft_s']['p50']:.3f} s, p99 {row['ttft_s']['p99']:.3f} s; completed {row['completed'] / n:.3%}"
    )


def requests() -> list[str]:
    """Millions of requests on 32 instances."""
    print("32 instances, least_wait")
    rows = []
    for millions in MILLIONS:
        rows.append(alone(f"requests {millions}"))
        show(rows[-1])
    each = [row["cpu_s"] / row["requests"] for row in rows]  # on a shared machine the wall clock tells of others
    print(
        f"  seconds of a core for a request, over those of the first: {', '.join(f'{x / each[0]:.3f}' for x in each)}"
    )
    faults = [f"{m} million take {x / each[0]:.2f} times as long each" for m, x in zip(MILLIONS, each, strict=True)
              if x > (1.0 + LINEAR) * each[0]]  # fmt: skip
    return faults + [_memory(row) for row in rows if row["peak_rss_bytes"] >= PEAK_RSS_BYTES]


def _memory(row: dict[str, Any]) -> str:
    return f"{row['requests']:,} requests take {row['peak_rss_bytes'] / 1e6:.0f} MB"


def instances() -> list[str]:
    """Thousands of instances."""
    print(f"{INSTANCES:,} instances with {SEATS} sequences each, power_of_two")
    row = alone(f"instances {MANY}")
    show(row)
    per_s = row["requests"] / row["kernel_s"]
    return [f"{per_s:,.0f} requests/s on {INSTANCES:,} instances"] if per_s < MANY_PER_S else []


def threads() -> list[str]:
    """Two seeds, one after the other and at once."""
    specs = specs_of()
    rate = LOAD * capacity_per_s(specs)

    def one(seed: int) -> None:
        stream(specs, "least_wait", rate, THREADS_REQUESTS, seed, WINDOW)

    stream(specs, "least_wait", rate, 1000, 1, WINDOW)

    def in_turn() -> None:
        one(1)
        one(2)

    def at_once() -> None:
        them = [threading.Thread(target=one, args=(seed,)) for seed in (1, 2)]
        for thread in them:
            thread.start()
        for thread in them:
            thread.join()

    apart_s, both_s = np.inf, np.inf
    for _ in range(TIMES):  # by turns, the best of each: others may be at work on the machine
        apart_s, both_s = min(apart_s, seconds_of(in_turn)), min(both_s, seconds_of(at_once))
    load = f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
    print(f"two seeds of {THREADS_REQUESTS:,} requests: {apart_s:.1f} s one after the other, {both_s:.1f} s at once, "
          f"{apart_s / both_s:.2f} times as fast ({load})")  # fmt: skip
    return [f"two threads {apart_s / both_s:.2f} times one"] if apart_s / both_s < SPEED_UP else []


def seconds_of(work: Callable[[], object]) -> float:
    clock = time.perf_counter()
    work()
    return time.perf_counter() - clock


def start() -> list[str]:
    """The first simulation of a process: with nothing in the cache, and with all."""
    with tempfile.TemporaryDirectory() as folder:
        compiled, cached = (alone("first -", XDG_CACHE_HOME=folder) for _ in range(2))
    print(f"first simulation of a process: {compiled:.1f} s with an empty cache, {cached:.2f} s from the cache")
    faults = [f"first compile {compiled:.1f} s"] if compiled >= COMPILED_S else []
    return faults + ([f"first call {cached:.2f} s"] if cached >= CACHED_S else [])


PARTS: dict[str, Callable[[], list[str]]] = {
    "requests": requests, "instances": instances, "threads": threads, "start": start,
}  # fmt: skip
CALLS: dict[str, Callable[[str], Any]] = {
    "requests": call_requests, "instances": call_instances, "first": call_first,
}  # fmt: skip


def main(names: list[str]) -> int:
    if names[:1] == ["--call"]:
        name, argument = names[1].split()
        print(json.dumps(CALLS[name](argument)))
        return 0
    faults = [fault for name in names or PARTS for fault in PARTS[name]()]
    for fault in faults:
        print(f"over its bound ({BOUNDS}): {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

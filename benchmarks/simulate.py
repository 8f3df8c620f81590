"""A million requests over examples/mixed-32.toml: seconds in the kernel, memory, and how busy the pools are.

    python benchmarks/simulate.py

Drawing the traffic and compiling stand apart from the kernel's time, which is the best of nine runs. Fails
when a bound of ``BOUNDS`` is crossed at the study's own load; ten times that load is printed for comparison.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from infermix.catalog.query import find_model
from infermix.fleet import Fleet, make_fleet
from infermix.plan.problem import Study, load_study
from infermix.plan.question import offered, open_facts
from infermix.sim.result import COMPLETED, Run
from infermix.sim.run import simulate_fleet

STUDY = Path(__file__).parents[1] / "examples" / "mixed-32.toml"
REQUESTS = 1_000_000
RUNS = 9
REQUESTS_PER_S, PEAK_RSS_BYTES, COMPLETED_SHARE = 3e6, 400e6, 0.999
BUSY = (0.6, 0.9)
BOUNDS = (
    f"kernel >= {REQUESTS_PER_S:,.0f} requests/s, peak <= {PEAK_RSS_BYTES / 1e6:g} MB, busy {BUSY}, "
    f"completed >= {COMPLETED_SHARE}"
)


def faster(study: Study, factor: float) -> Study:
    """The study with every class offered so many times as fast."""
    traffic = {
        name: msgspec.structs.replace(cls, rate_per_s=cls.rate_per_s * factor)
        for name, cls in study.traffic.items()
        if cls.rate_per_s is not None
    }
    return msgspec.structs.replace(study, traffic=traffic)


def fleet_of(study: Study) -> Fleet:
    """The fleet that the study fixes."""
    return make_fleet(open_facts(study), study.fleet, study.model, tuple(study.traffic), study.path)


def measure(study: Study, requests: int) -> tuple[float, Run]:
    """(seconds to draw the traffic, the quickest of some runs); the first one compiles before its clock starts."""
    clock = time.perf_counter()
    model = find_model(study.model, open_facts(study))
    drawn = offered(study, model, seed=study.simulate.seed, requests=requests)
    draw_s, fleet = time.perf_counter() - clock, fleet_of(study)
    runs = [simulate_fleet(fleet, drawn.requests, study.simulate.policy) for _ in range(RUNS)]
    return draw_s, min(runs, key=lambda run: run.kernel_s)


def busy_shares(study: Study, run: Run) -> dict[str, float]:
    """Pool → share of time inside steps."""
    return {name: float(run.busy_s[run.pool == p].mean() / run.simulated_s) for p, name in enumerate(study.fleet)}


def peak_rss_bytes(requests: int) -> int:
    """Highest memory of the command line in a process of its own [bytes].

    Asked first, while this process is small: Linux counts the parent's memory to a child that it starts. Compiled
    already: a compiler needs more than the simulation.
    """
    command = [sys.executable, "-m", "infermix", "simulate", str(STUDY), "--requests", str(requests), "--json", "-"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return int(found["peak_rss_bytes"])


def show(title: str, study: Study, requests: int) -> list[str]:
    """Print one load; returns the bounds it crosses."""
    draw_s, run = measure(study, requests)
    completed = float((run.status == COMPLETED).mean())
    busy = busy_shares(study, run)
    print(f"{title}: kernel {run.kernel_s:.3f} s (best of {RUNS}), {requests / run.kernel_s:,.0f} requests/s")
    print(f"  traffic drawn in {draw_s:.2f} s; completed {completed:.3%}; mean batch {_mean_batch(run):.2f}")
    print("  busy: " + ", ".join(f"{name} {share:.1%}" for name, share in busy.items()))
    faults = [f"kernel {run.kernel_s:.3f} s"] if requests / run.kernel_s < REQUESTS_PER_S else []
    faults += [f"completed {completed:.3%}"] if completed < COMPLETED_SHARE else []
    return faults + [f"{name} {share:.1%} busy" for name, share in busy.items() if not BUSY[0] <= share <= BUSY[1]]


def _mean_batch(run: Run) -> float:
    return float(run.seq_steps.sum() / max(1, run.steps.sum()))


def main(requests: int = REQUESTS) -> int:
    peak_rss_bytes(100)
    study, peak = load_study(STUDY), peak_rss_bytes(requests)
    faults = show(f"{requests:,} requests", study, requests)
    print(f"  peak memory of infermix simulate: {peak / 1e6:.0f} MB")
    faults += [f"peak memory {peak / 1e6:.0f} MB"] if peak > PEAK_RSS_BYTES else []
    show("ten times the load", faster(study, 10.0), requests)
    for fault in faults:
        print(f"over its bound ({BOUNDS}): {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())

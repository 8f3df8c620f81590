"""Two measured vLLM runs beside the simulator: calibrated on one half of the requests, compared on the other.

    python benchmarks/measured.py

Reads ``../shared/data/traces`` and prints the tables of docs/design/measured-runs.md. Fails when the median of a
latency of the half that was not fitted is off by more than ``MOST_OFF``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl

from infermix.arrays import Bools, Floats
from infermix.catalog.load import catalog
from infermix.fleet import Pool, PoolRow, make_deployment
from infermix.perf.table import compile_table
from infermix.sim.result import Run
from infermix.sim.run import simulate_pools
from infermix.sim.specs import fleet_pool_spec
from infermix.sim.state import PoolSpec
from infermix.workload.requests import Requests, make_requests

TRACES = Path(__file__).parents[2] / "shared" / "data" / "traces"
MODEL = "llama-3.1-8b"
MOST_OFF = 0.10
ROUNDS = 9
"""Halvings of the step of the search."""
BUDGETS = (2048, 8192)
"""Tokens in a step: vLLM's older and newer defaults."""


BLOCKS = {"RTX4090": tuple(range(2450, 2851, 50)), "RTXPRO6000": ()}
"""KV blocks to try. Only the first run filled its memory; the other one ran into ``max_num_seqs``."""
SYSTEMS = {"RTX4090": "rtx-4090-x1", "RTXPRO6000": "rtx-pro-6000-x1"}
POINTS = (50, 90)
FIRST = 150
"""Requests that are fitted: the first ones to arrive."""


@dataclass(frozen=True)
class Measured:
    """One run of an engine: what came when, on the clock of the engine [s]."""

    name: str
    system: str
    requests: Requests
    scheduled_s: Floats
    first_s: Floats
    last_s: Floats


@dataclass(frozen=True)
class Fit:
    """What was calibrated.

    ``scale``: of the catalogue's times, that of the smallest step (weights and host), of arithmetic, and of reading KV;
    then seconds of the host for each sequence in a step.
    """

    scale: Floats
    max_batched_tokens: int
    max_num_seqs: int
    blocks: int
    error: float
    """Root of the mean squared logarithm of simulated over measured, on the half that was fitted."""


def read_run(file: str, system: str) -> Measured:
    """A measured run; clocks of client and engine are put together by the quickest hand-over between them."""
    table = pl.read_parquet(TRACES / f"vllm_measured_{file}_Llama-3.1-8B.parquet")
    sent, queued, scheduled, first, last = (
        table[name].to_numpy()
        for name in ("arrival_time", "queued_ts", "scheduled_ts", "first_token_ts", "last_token_ts")
    )
    arrival = sent + float((queued - sent).min())
    start = float(arrival[0])
    tokens = (table["input_toks"].to_numpy(), table["output_toks"].to_numpy())
    requests = make_requests(("sharegpt",), arrival - start, *tokens)
    return Measured(file, system, requests, scheduled - start, first - start, last - start)


def times(requests: Requests, first_s: Floats, last_s: Floats) -> dict[str, Floats]:
    """TTFT, TPOT and E2E of every request [s]."""
    return {
        "TTFT": first_s - requests.arrival_s,
        "TPOT": (last_s - first_s) / (requests.output_tokens - 1.0),
        "E2E": last_s - requests.arrival_s,
    }


def catalogue_spec(run: Measured, max_batched_tokens: int, max_num_seqs: int) -> PoolSpec:
    """One instance with the step times of the catalogue."""
    row = PoolRow(system=run.system, instances=1, max_batched_tokens=max_batched_tokens, max_num_seqs=max_num_seqs)
    deployment = make_deployment(catalog(), row, MODEL, run.name)
    pool = Pool(name=run.system, deployment=deployment, instances=1)
    return fleet_pool_spec(pool, run.requests, compile_table(deployment))


def scaled(spec: PoolSpec, scale: Floats) -> PoolSpec:
    """Step times under other efficiencies.

    The smallest step is reading the weights and the host; what larger ones take beyond is arithmetic.
    """
    smallest, arithmetic, kv, seq_s = (float(x) for x in scale)
    least = float(spec.decode_s[1])
    base = smallest * least + arithmetic * (spec.decode_s - least)
    return replace(
        spec,
        decode_s=base,
        mixed_s=base,
        per_seq_s=seq_s,
        kv_s=kv * spec.kv_s,
        pair_s=arithmetic * spec.pair_s,
    )


def simulate(run: Measured, spec: PoolSpec) -> Run:
    """All requests of the run."""
    return simulate_pools(run.requests, [spec], "round_robin")


def error_of(run: Measured, simulated: Run, part: Bools) -> float:
    """Root of the mean squared logarithm of simulated over measured TPOT and E2E of a part of the requests."""
    found = times(run.requests, simulated.first_s, simulated.last_s)
    real = times(run.requests, run.first_s, run.last_s)
    logs = [np.log(found[name][part] / real[name][part]) for name in ("TPOT", "E2E")]
    return float(np.sqrt(np.mean(np.square(logs))))


def most_at_once(run: Measured, part: Bools) -> int:
    """Most sequences that ran at once while a request of the part had its first token."""
    return max(int(((run.scheduled_s <= now) & (run.last_s > now)).sum()) for now in run.first_s[part])


def search(error: Callable[[Floats], float], start: Floats, step: Floats) -> tuple[Floats, float]:
    """The least error that steps along single numbers find, halved where none helps; numbers stay above 0."""
    best, least = start, error(start)
    for _ in range(ROUNDS):
        moved = True
        while moved:
            moved = False
            for i, sign in product(range(len(start)), (1.0, -1.0)):
                tried = best.copy()
                tried[i] = max(best[i] + sign * step[i], 0.0)
                found = error(tried)
                if found < least * (1.0 - 1e-6):
                    best, least, moved = tried, found, True
        step = step / 2.0
    return best, least


def fit(run: Measured, part: Bools, max_batched_tokens: int, blocks: int | None) -> Fit:
    """Calibrate on a part of the requests; all are simulated, since all load the machine."""
    seqs = most_at_once(run, part)
    spec = catalogue_spec(run, max_batched_tokens, seqs)
    spec = replace(spec, blocks=blocks or spec.blocks)

    def error(scale: Floats) -> float:
        return error_of(run, simulate(run, scaled(spec, scale)), part)

    start, step = np.array([1.0, 1.0, 1.0, spec.per_seq_s]), np.array([0.1, 0.1, 0.1, 2e-5])
    scale, least = search(error, start, step)
    return Fit(scale, max_batched_tokens, seqs, spec.blocks, least)


def best_fit(run: Measured, part: Bools) -> list[Fit]:
    """The best fit under each budget of tokens, the better one first."""
    tried = BLOCKS[run.name] or (None,)
    fits = [min((fit(run, part, budget, n) for n in tried), key=lambda f: f.error) for budget in BUDGETS]
    return sorted(fits, key=lambda f: f.error)


def simulate_fit(run: Measured, found: Fit) -> Run:
    """The run as calibrated."""
    spec = catalogue_spec(run, found.max_batched_tokens, found.max_num_seqs)
    return simulate(run, replace(scaled(spec, found.scale), blocks=found.blocks))


def compare(run: Measured, simulated: Run, part: Bools) -> dict[str, float]:
    """Simulated over measured percentiles of a part, less 1; prints them."""
    found = times(run.requests, simulated.first_s, simulated.last_s)
    real = times(run.requests, run.first_s, run.last_s)
    off = {}
    for name in real:
        for point in POINTS:
            ours, theirs = (float(np.percentile(t[name][part], point)) for t in (found, real))
            off[f"{name} p{point}"] = ours / theirs - 1.0
            print(f"| {name} p{point} | {theirs:.4g} s | {ours:.4g} s | {ours / theirs - 1.0:+.1%} |")
    return off


def show_fit(found: Fit) -> None:
    smallest, arithmetic, kv, seq_s = found.scale
    print(
        f"max_batched_tokens {found.max_batched_tokens}, max_num_seqs {found.max_num_seqs}, {found.blocks} KV blocks: "
        f"smallest step x {smallest:.3f}, arithmetic x {arithmetic:.3f}, reading KV x {kv:.3f}, "
        f"{seq_s * 1e6:.1f} us a sequence; error {found.error:.2%}"
    )


def show_behaviour(run: Measured, simulated: Run) -> None:
    """What tells semantics apart: sequences at once, time from scheduling to the first token, first requests."""
    sides = (run.scheduled_s, run.first_s, run.last_s), (simulated.admit_s, simulated.first_s, simulated.last_s)
    for name, (begun, first, last) in zip(("measured", "simulated"), sides, strict=True):
        at_once = float((last - begun).sum() / (last.max() - last.min()))
        print(
            f"{name}: {at_once:.1f} sequences at once, {np.median(first - begun) * 1e3:.0f} ms from being scheduled to "
            f"the first token, the first request {1e3 * (first[0] - begun[0]):.0f} ms"
        )
    print(f"simulated preemptions: {int(simulated.preemptions.sum())}")


def main() -> int:
    if not TRACES.exists():
        print(f"no traces at {TRACES}: nothing to compare")
        return 0
    wrong = []
    for name, system in SYSTEMS.items():
        run = read_run(name, system)
        fitted = np.arange(len(run.requests)) < FIRST
        print(f"\n### {name}\n")
        fits = best_fit(run, fitted)
        for found in fits:
            show_fit(found)
        best = simulate_fit(run, fits[0])
        show_behaviour(run, best)
        print("\n| the other half | measured | simulated | off |\n|---|---|---|---|")
        off = compare(run, best, ~fitted)
        wrong += [f"{name} {key} {x:+.1%}" for key, x in off.items() if key.endswith("p50") and abs(x) > MOST_OFF]
        bare = catalogue_spec(run, fits[0].max_batched_tokens, fits[0].max_num_seqs)
        print("\n| the same, nothing fitted but max_num_seqs | measured | simulated | off |\n|---|---|---|---|")
        compare(run, simulate(run, bare), ~fitted)
    for fault in wrong:
        print(f"off by more than {MOST_OFF:.0%}: {fault}", file=sys.stderr)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

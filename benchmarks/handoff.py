"""A million requests that one pool reads and two others answer: requests a second, against the same fleet without it.

    python benchmarks/handoff.py [requests]

The systems, traffic and policy of examples/mixed-32.toml; prompts are read on one H100, answered on twice the study's
B200 and MI300X, and the KV cache travels between them. Instances and rate are such that every pool is busy most of the
time: of the study's own 12, 8 and 12 the readers would rest 96 % of it. In turns with it goes the same fleet without
roles, whose H100 does no more than any other, so only speeds are compared.

Prints, of the best of ``RUNS`` runs each: seconds in the kernel and requests a second, seconds of the processor (of the
thread, less those of a run that stops at once: preparation and results), completed share, busy share of every pool,
and the ratio of the two. Fails when a bound of ``BOUNDS`` is crossed.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from infermix.catalog.query import find_model
from infermix.fleet import Fleet, make_fleet
from infermix.plan.problem import Study, load_study
from infermix.plan.question import offered, open_facts
from infermix.sim.result import COMPLETED, Run
from infermix.sim.run import simulate_fleet
from infermix.workload.requests import Requests

STUDY = Path(__file__).parents[1] / "examples" / "mixed-32.toml"
REQUESTS = 1_000_000
RUNS = 3
READERS, RATE_PER_S = "hopper", 48.0
INSTANCES = {"hopper": 2, "blackwell": 16, "cdna": 24}
PER_S, COMPLETED_SHARE = 1_000_000.0, 0.999
BUSY = (0.6, 0.9)
BOUNDS = f"P/D >= {PER_S:,.0f} requests/s, busy {BUSY}, completed >= {COMPLETED_SHARE}"


@dataclass(frozen=True)
class Best:
    """The quickest of some runs by the clock, and the least seconds of the processor of any."""

    run: Run
    processor_s: float

    @property
    def per_s(self) -> float:
        """Requests a second in the kernel."""
        return len(self.run.requests) / self.run.kernel_s


def busier(study: Study) -> Study:
    """The study with ``INSTANCES`` under ``RATE_PER_S``."""
    traffic = {name: msgspec.structs.replace(cls, rate_per_s=RATE_PER_S) for name, cls in study.traffic.items()}
    rows = {name: msgspec.structs.replace(row, instances=INSTANCES[name]) for name, row in study.fleet.items()}
    return msgspec.structs.replace(study, traffic=traffic, fleet=rows)


def apart(study: Study) -> Study:
    """The study with prompts read by ``READERS`` and answered by all others."""
    rows = {
        name: msgspec.structs.replace(row, role="prefill" if name == READERS else "decode")
        for name, row in study.fleet.items()
    }
    return msgspec.structs.replace(study, fleet=rows)


def fleet_of(study: Study) -> Fleet:
    """The fleet that the study fixes."""
    return make_fleet(open_facts(study), study.fleet, study.model, tuple(study.traffic), study.path)


def processor_s(study: Study, fleet: Fleet, requests: Requests, until_s: float) -> tuple[float, Run]:
    """(seconds of the processor that one call takes, its run)."""
    clock = time.thread_time()
    run = simulate_fleet(fleet, requests, study.simulate.policy, until_s=until_s)
    return time.thread_time() - clock, run


def measure(studies: list[Study], requests: Requests) -> list[Best]:
    """The quickest run of each study, in turns; the first ones compile, and stop at once."""
    fleets = [fleet_of(study) for study in studies]
    pairs = list(zip(studies, fleets, strict=True))
    for study, fleet in pairs:
        processor_s(study, fleet, requests, 0.0)
    around_s = [processor_s(study, fleet, requests, 0.0)[0] for study, fleet in pairs]
    runs = [[processor_s(study, fleet, requests, np.inf) for study, fleet in pairs] for _ in range(RUNS)]
    return [_best(around, found) for around, found in zip(around_s, zip(*runs, strict=True), strict=True)]


def _best(around_s: float, found: tuple[tuple[float, Run], ...]) -> Best:
    """The least of each, whichever run it was of."""
    return Best(min((run for _, run in found), key=lambda run: run.kernel_s), min(s for s, _ in found) - around_s)


def busy_shares(study: Study, run: Run) -> dict[str, float]:
    """Pool → share of time inside steps."""
    return {name: float(run.busy_s[run.pool == p].mean() / run.simulated_s) for p, name in enumerate(study.fleet)}


def show(title: str, study: Study, best: Best) -> None:
    run, busy, batch = best.run, busy_shares(study, best.run), best.run.seq_steps.sum() / max(1, best.run.steps.sum())
    moved = float(run.sent_tokens.sum() / max(1, run.requests.input_tokens.sum()))
    print(f"{title}: kernel {run.kernel_s:.3f} s (best of {RUNS}), {best.per_s:,.0f} requests/s")
    print(f"  {best.processor_s:.3f} s of the processor, {len(run.requests) / best.processor_s:,.0f} requests/s of it")
    print(f"  completed {completed(run):.3%}; {moved:.1%} of the prompt tokens moved; mean batch {batch:.2f}")
    print("  busy: " + ", ".join(f"{name} {share:.1%}" for name, share in busy.items()))


def completed(run: Run) -> float:
    """Share of the requests."""
    return float((run.status == COMPLETED).mean())


def faults_of(study: Study, best: Best) -> list[str]:
    """The bounds that the run with hand-offs crosses."""
    share = completed(best.run)
    faults = [f"{best.per_s:,.0f} requests/s"] if best.per_s < PER_S else []
    faults += [f"completed {share:.3%}"] if share < COMPLETED_SHARE else []
    busy = busy_shares(study, best.run)
    return faults + [f"{name} {share:.1%} busy" for name, share in busy.items() if not BUSY[0] <= share <= BUSY[1]]


def main(requests: int = REQUESTS) -> int:
    together = busier(load_study(STUDY))
    split = apart(together)
    model = find_model(split.model, open_facts(split))
    drawn = offered(split, model, seed=split.simulate.seed, requests=requests).requests
    plain, handed = measure([together, split], drawn)
    show(f"{requests:,} requests, together", together, plain)
    show(f"{requests:,} requests, prefill and decode apart", split, handed)
    print(f"apart against together: {handed.per_s / plain.per_s:.2f} of the requests/s", end=", ")
    print(f"{handed.processor_s / plain.processor_s:.2f} times the processor's seconds", end="; ")
    print(f"load of the machine {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    faults = faults_of(split, handed)
    for fault in faults:
        print(f"over its bound ({BOUNDS}): {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:2])))

"""Every routing policy on the same requests and the same fleets: attainment, latency, money, turns that came home.

    python benchmarks/policies.py [requests | recorded]

Cases: examples/mixed-32.toml at its own load and at many times that; the fleet that ``infermix plan`` gives
examples/coding-lane.toml, at its load, after failures, with the mix shifted, and half over; recorded agent sessions;
and two recorded hours with the ids of their prompt blocks, one of them synthetic. The last three have their prefix
caches simulated, and are left out where there are no ``TRACES``; ``recorded`` runs them alone.
Prints the figures of docs/design/routing.md.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats
from infermix.catalog.query import find_model
from infermix.fleet import Fleet, make_fleet, plan_rows
from infermix.metrics.goodput import meets
from infermix.plan.problem import Study, load_study, parse_study
from infermix.plan.question import offered, open_facts
from infermix.plan.routing import usd_per_s_of
from infermix.route.names import POLICIES
from infermix.sim.prepare import prefix_keys
from infermix.sim.result import COMPLETED, Run
from infermix.sim.run import simulate_fleet
from infermix.study import plan
from infermix.workload.requests import Requests

ROOT = Path(__file__).parents[1]
TRACES = ROOT.parent / "shared" / "data" / "traces"
REQUESTS = 100_000
AGENTS = {
    "model": "gpt-oss-120b",
    "traffic": {
        "coding": {
            "trace": str(TRACES / "agentic_coding.parquet"),
            "sessions": 400,
            "slo": {"ttft_s": 1.5, "tpot_s": 0.01},
            "value_of_time_usd_per_hour": 60.0,
        }
    },
    "fleet": {
        "hopper": {"system": "h200-x8", "tp": 2, "instances": 8, "kv": "fp8", "prefix_cache": True},
        "blackwell": {"system": "b200-x8", "tp": 1, "instances": 8, "kv": "fp8", "prefix_cache": True},
    },
}
CONVERSATION = {
    "model": "gpt-oss-120b",
    "traffic": {
        "chat": {
            "trace": str(TRACES / "mooncake_conversation.parquet"),
            "slo": {"ttft_s": 2.0, "tpot_s": 0.02},
            "value_of_time_usd_per_hour": 10.0,
        }
    },
    "fleet": {
        "hopper": {"system": "h100-x1", "tp": 1, "instances": 4, "prefix_cache": True},
        "cdna": {"system": "mi300x-x1", "tp": 1, "instances": 2, "prefix_cache": True},
        "blackwell": {"system": "b200-x1", "tp": 1, "instances": 1, "prefix_cache": True},
    },
}
SYNTHETIC = {
    **CONVERSATION,
    "traffic": {
        "chat": {
            "trace": str(TRACES / "mooncake_synthetic.parquet"),
            "slo": {"ttft_s": 2.0, "tpot_s": 0.02},
            "value_of_time_usd_per_hour": 10.0,
        }
    },
}


@dataclass(frozen=True)
class Case:
    """A fleet and the requests that every policy gets."""

    title: str
    study: Study
    fleet: Fleet
    requests: Requests


def faster(study: Study, **factors: float) -> Study:
    """The study with each class offered so many times as fast."""
    traffic = {
        name: msgspec.structs.replace(cls, rate_per_s=(cls.rate_per_s or 0.0) * factors[name])
        for name, cls in study.traffic.items()
    }
    return msgspec.structs.replace(study, traffic=traffic)


def case_of(title: str, study: Study, requests: int | None) -> Case:
    """The study's requests on its own fleet."""
    facts = open_facts(study)
    drawn = offered(study, find_model(study.model, facts), seed=1, requests=requests)
    return Case(title, study, make_fleet(facts, study.fleet, study.model, tuple(study.traffic), title), drawn.requests)


def cases(requests: int) -> Iterator[Case]:
    """Cases whose traffic is drawn."""
    mixed, lane = (load_study(ROOT / "examples" / f"{name}.toml") for name in ("mixed-32", "coding-lane"))
    chat = msgspec.structs.replace(mixed.traffic["chat"], value_of_time_usd_per_hour=10.0)
    mixed = msgspec.structs.replace(mixed, traffic={"chat": chat})
    yield case_of("Thirty-two instances, light load", mixed, requests)
    yield case_of("Thirty-two instances, 40 times the load", faster(mixed, chat=40.0), requests)
    traffic = {
        name: msgspec.structs.replace(lane.traffic[name], value_of_time_usd_per_hour=worth)
        for name, worth in (("coding", 60.0), ("chat", 10.0))
    }
    fleet = plan_rows(msgspec.to_builtins(plan(lane))["fleet"], "plan")
    for pool in fleet.values():  # a share of 0: only requests that spill
        pool.serves.update({name: pool.serves.get(name, 0.0) for name in traffic})
    lane = msgspec.structs.replace(lane, fleet=fleet, traffic=traffic)
    planned = case_of("Coding lane, the load it was planned for", lane, requests)
    yield planned
    yield after_failures(planned)
    shifted = faster(lane, coding=0.5, chat=1.4)
    yield case_of("Coding lane, half the coding, 40 % more chat", shifted, requests)
    yield case_of("Coding lane, half as much again of both", faster(lane, coding=1.5, chat=1.5), requests)


def after_failures(planned: Case) -> Case:
    """Half of the first pool of cheap chips is gone."""
    place = next(p for p, pool in enumerate(planned.fleet.pools) if pool.deployment.system.id != "cs3")
    pool = planned.fleet.pools[place]
    title = f"Coding lane, half of {pool.name} gone"
    return replace(planned, title=title, fleet=planned.fleet.resized(place, pool.instances // 2))


def recorded(requests: int) -> Iterator[Case]:
    """Cases from traces, with prefix caches simulated; none where the traces are not at hand."""
    if not TRACES.exists():
        return
    yield case_of("Recorded agent sessions, 400 at work", parse_study(AGENTS, "agents"), requests)
    yield case_of("Mooncake conversation as recorded", parse_study(CONVERSATION, "conversation"), None)
    yield case_of("Mooncake synthetic as recorded", parse_study(SYNTHETIC, "synthetic"), None)


def home_share(run: Run, keys: npt.NDArray[np.integer]) -> float:
    """Of requests whose key was seen before, the share that went where the last one with that key did."""
    rows = np.flatnonzero((keys >= 0) & (run.instance >= 0))
    rows = rows[np.lexsort((run.requests.arrival_s[rows], keys[rows]))]
    again = keys[rows][1:] == keys[rows][:-1]
    stayed = run.instance[rows][1:] == run.instance[rows][:-1]
    return float(stayed[again].mean()) if again.any() else float("nan")


def attainments(case: Case, run: Run) -> list[float]:
    """Of each class."""
    requests = run.requests
    uncached = requests.input_tokens - requests.cached_tokens
    found = []
    for c, cls in enumerate(case.study.traffic.values()):
        mine = requests.class_id == c
        found.append(float(meets(cls.slo, run.ttft_s[mine], run.tpot_s[mine], run.e2e_s[mine], uncached[mine]).mean()))
    return found


def busy_usd_per_mtok(case: Case, run: Run, usd_per_s: dict[str, float]) -> float:
    """Price of the time that instances worked, over a million output tokens."""
    prices = np.array([usd_per_s.get(pool.name, np.nan) for pool in case.fleet.pools])[run.pool]
    return float((run.busy_s * prices).sum() / run.requests.output_tokens[run.status == COMPLETED].sum() * 1e6)


def row(case: Case, name: str, *, refuse: bool = False) -> str:
    """One line of a table; ``refuse``: classes let the policy refuse what is late."""
    usd = usd_per_s_of(case.study, case.fleet)
    classes = {n: msgspec.structs.replace(cls, refuse_late=refuse) for n, cls in case.study.traffic.items()}
    run = simulate_fleet(case.fleet, case.requests, name, seed=1, classes=classes, usd_per_s=usd)
    keys = prefix_keys(case.requests)
    keys = np.where(keys >= 0, keys, case.requests.session)
    ttft, tpot = (_points(t, 1e3) for t in (run.ttft_s, run.tpot_s))
    met = " / ".join(f"{x:.2%}" for x in attainments(case, run))
    home, cost = home_share(run, keys), busy_usd_per_mtok(case, run, usd)
    times = f"{ttft[0]:,.0f} | {ttft[1]:,.0f} | {tpot[0]:.2f} | {tpot[1]:.2f}"
    came = "" if np.isnan(home) else f"{home:.0%}"
    there = f"{found_share(run):.1%}" if any(pool.prefix_cache for pool in case.fleet.pools) else ""
    return f"| `{name}`{', refusing' if refuse else ''} | {met} | {times} | {cost:.2f} | {came} | {there} |"


def found_share(run: Run) -> float:
    """Of the prompt tokens of completed requests, the share that was found in the instance."""
    done = run.status == COMPLETED
    return float(run.hit_tokens[done].sum() / run.requests.input_tokens[done].sum())


def _points(times: Floats, factor: float) -> tuple[float, float]:
    p50, p99 = np.nanpercentile(times, [50, 99]) * factor
    return float(p50), float(p99)


def main(arguments: list[str]) -> int:
    alone = arguments[:1] == ["recorded"]
    requests = int(arguments[0]) if arguments and not alone else REQUESTS
    for case in chain(() if alone else cases(requests), recorded(requests)):
        classes, n = " / ".join(case.study.traffic), len(case.requests)
        print(f"\n### {case.title}\n\n{n:,} requests.\n")
        times = "TTFT p50 ms | p99 | TPOT p50 ms | p99"
        print(f"| policy | attained: {classes} | {times} | busy USD/Mtok out | home | found |")
        print("|---|---|---|---|---|---|---|---|---|")
        for name in POLICIES:
            print(row(case, name), flush=True)
        print(row(case, "deadline", refuse=True), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

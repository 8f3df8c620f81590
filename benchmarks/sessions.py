"""Recorded coding-agent sessions on replicas that hold more or less KV, with the prefix cache simulated.

    python benchmarks/sessions.py [requests]   # the tables of docs/sessions.md, and the plots in docs/plots
    python benchmarks/sessions.py speed        # a million requests: how fast the simulator is

Reads ``../shared/data/traces/agentic_coding.parquet``.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from html import escape
from itertools import product
from pathlib import Path

import numpy as np

from infermix.arrays import Bools, Floats
from infermix.catalog.load import catalog
from infermix.catalog.query import find_model
from infermix.fleet import Pool, PoolRow, make_deployment
from infermix.perf import model_cost
from infermix.perf.deployment import Deployment
from infermix.perf.table import compile_table
from infermix.report import words
from infermix.report.charts import Axis, Curve, Mark, Plot, Tick
from infermix.sim.result import COMPLETED, REFUSED, Run
from infermix.sim.run import simulate_pools
from infermix.sim.specs import fleet_pool_spec
from infermix.sim.state import PoolSpec
from infermix.workload.arrivals import draw
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.requests import Requests

ROOT = Path(__file__).parents[1]
TRACE = ROOT.parent / "shared" / "data" / "traces" / "agentic_coding.parquet"
IMAGES = ROOT / "docs" / "plots"
REQUESTS = 20_000
SPEED_REQUESTS = 1_000_000
SPEED_BOUND_PER_S = 500_000.0
POLICIES = ("session_affinity", "least_wait", "round_robin")
INSTANCES = 4
HOST_BYTES = 1e12
"""Host memory for KV of an instance [bytes]: an assumption."""
HOST_BYTES_PER_S = 50e9
"""From host memory into one GPU [bytes/s]: an assumption; for SRAM machines the catalogue has their links."""


@dataclass(frozen=True)
class Case:
    """A model, how many sessions are at work, and the replicas to compare."""

    model: str
    sessions: int
    rows: tuple[PoolRow, ...]


def gpus(tp: int) -> PoolRow:
    return PoolRow(system="h200-x8", instances=INSTANCES, tp=tp, kv="fp8")


def wafers(stages: int) -> PoolRow:
    return PoolRow(system="cs3", instances=INSTANCES, stages=stages, kv="fp8")


CASES = (
    Case("llama-3.3-70b", 48, (*(wafers(n) for n in (4, 5, 6, 8, 12)), gpus(4), gpus(8))),
    Case("gpt-oss-120b", 240, (*(wafers(n) for n in (2, 3, 4, 6)), gpus(1), gpus(2))),
)


@dataclass(frozen=True)
class Answer:
    """What came of one replica, policy and tier."""

    name: str
    policy: str
    host: bool
    tokens: int
    """KV tokens that an instance holds."""
    run: Run
    peak: float
    mean: float


def traffic(case: Case, requests: int) -> Requests:
    """Sessions of the trace in a closed loop; what is longer than the model's context is left to be refused."""
    cls = TrafficClass(trace=str(TRACE), sessions=case.sessions, context="refuse", slo=Slo(ttft_s=2.0, tpot_s=0.05))
    most = find_model(case.model, catalog()).max_context
    return draw({"coding": cls}, seed=1, requests=requests, max_context=most).requests


def deployment_of(case: Case, row: PoolRow) -> Deployment:
    return make_deployment(catalog(), row, case.model, case.model)


def spec_of(deployment: Deployment, requests: Requests, *, host: bool) -> PoolSpec:
    """The replica with a prefix cache in its own memory, and one in the memory of its host.

    What lies in the replica's own memory costs no time to bring in; what lies in the host's travels over its links.
    """
    table = compile_table(deployment)
    pool = Pool(name=deployment.name, deployment=deployment, instances=INSTANCES)
    spec = replace(fleet_pool_spec(pool, requests, table), load_s=0.0, prefix_cache=True)
    if not host:
        return spec
    each = model_cost.kv_bytes_per_token(deployment.model, deployment.kv)
    load_s = table.load_s if deployment.is_pipeline else each / (deployment.chips * HOST_BYTES_PER_S)
    return replace(spec, host_blocks=int(HOST_BYTES / each) // spec.block_tokens, host_load_s=load_s)


def answer(case: Case, row: PoolRow, requests: Requests, policy: str, *, host: bool) -> Answer:
    """Simulate one replica under one policy."""
    deployment = deployment_of(case, row)
    spec = spec_of(deployment, requests, host=host)
    run = simulate_pools(requests, [spec], policy)
    held = run.kv_peak_blocks / spec.blocks
    tokens = spec.blocks * spec.block_tokens
    name = f"{row.system} {deployment.layout}"
    return Answer(name, policy, host, tokens, run, float(held.max()), mean_use(run, tokens))


def mean_use(run: Run, tokens: int) -> float:
    """Share of KV tokens that running requests hold, over time and instances; half of the answer counts."""
    r = run.requests
    done = run.status == COMPLETED
    context = (r.input_tokens + 0.5 * r.output_tokens)[done]
    return float((context * (run.last_s - run.admit_s)[done]).sum() / (tokens * len(run.pool) * run.simulated_s))


def known_share(requests: Requests, part: Bools) -> float:
    """Share of the prompt tokens of a part that a cache without limits would have."""
    return float(requests.cached_tokens[part].sum() / requests.input_tokens[part].sum())


def hit_shares(run: Run) -> tuple[float, float]:
    """Shares of the prompt tokens of completed requests that were found in the instance, and loaded from its host."""
    done = run.status == COMPLETED
    total = float(run.requests.input_tokens[done].sum())
    return float(run.hit_tokens[done].sum() / total), float(run.loaded_tokens[done].sum() / total)


def session_s(run: Run, fits: Bools) -> float:
    """Median time from the first request to the last answer of the sessions in a selection of requests [s]."""
    r, last = run.requests, np.nan_to_num(run.last_s)
    count = int(r.session.max()) + 1
    begin, end, whole = np.full(count, np.inf), np.zeros(count), np.ones(count, bool)
    np.minimum.at(begin, r.session, r.arrival_s)
    np.maximum.at(end, r.session, last)
    whole[r.session[~fits]] = False
    return float(np.median((end - begin)[whole & np.isfinite(begin)]))


def points(values: Floats) -> tuple[float, float]:
    """Median and 99th percentile of those that are known."""
    p50, p99 = np.nanpercentile(values, [50, 99])
    return float(p50), float(p99)


HEAD = (
    "| replica | KV tokens | policy | host | found | loaded | KV peak | KV mean | preempted | too long "
    "| TTFT p50 | p99 | TPOT p50 | turn p50 | p99 | session | requests/s |"
)


def line(found: Answer, fits: Bools) -> str:
    """One line of a table."""
    run = found.run
    hit, loaded = hit_shares(run)
    ttft, turn, tpot = points(run.ttft_s), points(run.e2e_s), points(run.tpot_s)
    done, refused = int((run.status == COMPLETED).sum()), int((run.status == REFUSED).sum())
    seconds = [words.seconds(x) for x in (*ttft, tpot[0], *turn)]
    return (
        f"| {found.name} | {found.tokens:,} | `{found.policy}` | {'yes' if found.host else 'no'} | {hit:.1%} | "
        f"{loaded:.1%} | {found.peak:.0%} | {found.mean:.1%} | {int(run.preemptions.sum()):,} | {refused:,} | "
        + " | ".join(seconds)
        + f" | {session_s(run, fits) / 60:.1f} min | {done / run.simulated_s:.2f} |"
    )


def answers(case: Case, requests: Requests) -> Iterator[Answer]:
    """Every replica under every policy, and the first policy with a host tier."""
    for row in case.rows:
        for policy in POLICIES:
            yield answer(case, row, requests, policy, host=False)
        yield answer(case, row, requests, POLICIES[0], host=True)


def show(case: Case, count: int) -> list[Answer]:
    """Print a table; returns what is in it."""
    requests = traffic(case, count)
    lengths = requests.input_tokens.astype(np.int64) + requests.output_tokens
    most = find_model(case.model, catalog()).max_context
    smallest = min(compile_table(deployment_of(case, row)).blocks * 16 for row in case.rows)
    print(f"\n### {case.model}, {case.sessions} sessions at work on {INSTANCES} instances\n")
    print(
        f"{len(requests):,} requests, {int((lengths > most).sum()):,} of them longer than the model's {most:,} tokens; "
        f"of the others' prompts {known_share(requests, lengths <= most):.1%} is known. Session times: sessions whose "
        f"longest request has {smallest:,} tokens at most.\n"
    )
    print(HEAD + "\n|" + "---|" * (HEAD.count("|") - 1))
    found = []
    for one in answers(case, requests):
        print(line(one, lengths <= smallest), flush=True)
        found.append(one)
    return found


def plot(case: Case, found: list[Answer], title: str, value: Callable[[Answer], float], up: Axis) -> Plot:
    """A figure of every replica by the KV tokens that it holds for each session at work.

    A curve for each policy and kind of system; axes of shares are linear, those of times logarithmic.
    """
    x_of = {one.name: one.tokens * INSTANCES / case.sessions for one in found}
    across = Axis(min(x_of.values()) / 1.4, max(x_of.values()) * 1.4)
    curves, marks = [], []
    for policy, system in product(POLICIES, dict.fromkeys(row.system for row in case.rows)):
        mine = [one for one in found if one.policy == policy and not one.host and one.name.startswith(system)]
        mine.sort(key=lambda one: one.tokens)
        spots = [(across.place(x_of[one.name]), up.place(value(one))) for one in mine]
        curves.append(Curve(" ".join(f"{x:.2f},{100 - y:.2f}" for x, y in spots), policy))
        named = policy == POLICIES[0]
        marks += [Mark(x, y, policy, one.name if named else "") for (x, y), one in zip(spots, mine, strict=True)]
    return Plot(
        title=f"{case.model}, {case.sessions} sessions at work: {title}",
        alt=title,
        x_ticks=[Tick(across.place(v), words.tokens(v)) for v in across.ticks()],
        y_ticks=[Tick(up.place(v), words.seconds(v) if up.log else f"{v:.0%}") for v in up.ticks()],
        curves=curves,
        marks=marks,
    )


def write_plots(case: Case, found: list[Answer]) -> None:
    """What the page shows of a case."""
    times = [points(one.run.ttft_s)[0] for one in found]
    share = plot(case, found, "prompt tokens found", lambda one: hit_shares(one.run)[0], Axis(0.0, 1.0, log=False))
    wait = plot(case, found, "median TTFT", lambda one: points(one.run.ttft_s)[0], Axis(min(times) / 2, max(times) * 2))
    for name, chart in (("found", share), ("ttft", wait)):
        (IMAGES / f"sessions-{name}.svg").write_text(svg(chart))


COLOURS = {"session_affinity": "#3a6bc9", "least_wait": "#d9791a", "round_robin": "#7b8490"}
WIDE, HIGH, LEFT, TOP = 640.0, 300.0, 76.0, 44.0


def svg(chart: Plot) -> str:
    """A plot as an SVG that stands alone."""

    def x(at: float) -> float:
        return LEFT + at / 100.0 * WIDE

    def y(at: float) -> float:
        return TOP + (100.0 - at) / 100.0 * HIGH

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDE + 24:g} {TOP + HIGH + 66:g}" role="img"',
        f'font-family="sans-serif" font-size="12" aria-label="{escape(chart.alt)}">',
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        _text(LEFT, 22, chart.title, "start", "#1c2024", 'font-size="15" font-weight="600"'),
        _text(LEFT + WIDE / 2, TOP + HIGH + 38, "KV tokens of the fleet for each session at work", "middle"),
    ]
    for t in chart.x_ticks:
        parts += [_line(x(t.at), y(0), x(t.at), y(100)), _text(x(t.at), y(0) + 18, t.label, "middle")]
    for t in chart.y_ticks:
        parts += [_line(x(0), y(t.at), x(100), y(t.at)), _text(LEFT - 8, y(t.at) + 4, t.label, "end")]
    for curve in chart.curves:
        pairs = (pair.split(",") for pair in curve.points.split())
        spots = " ".join(f"{x(float(a)):.1f},{y(100 - float(b)):.1f}" for a, b in pairs)
        parts.append(f'<polyline points="{spots}" fill="none" stroke="{COLOURS[curve.style]}" stroke-width="2"/>')
    for m in chart.marks:
        parts.append(f'<circle cx="{x(m.x):.1f}" cy="{y(m.y):.1f}" r="3.5" fill="{COLOURS[m.style]}"/>')
        below = m.title.startswith("h200") == (chart.y_ticks[-1].label == "100%")
        at = y(m.y) + (17 if below else -9)
        parts += [_text(x(m.x), at, m.title, "middle", "#1c2024", 'font-size="10"')] if m.title else []
    for i, (name, colour) in enumerate(COLOURS.items()):
        at = LEFT + 150.0 * i
        parts += [_text(at + 12, TOP + HIGH + 60, name, "start")]
        parts += [f'<circle cx="{at:g}" cy="{TOP + HIGH + 56:g}" r="4" fill="{colour}"/>']
    return "\n".join([*parts, "</svg>", ""])


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#e2e3df"/>'


def _text(x: float, y: float, words_: str, anchor: str, colour: str = "#5a626c", more: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" {more}>{escape(words_)}</text>'


def speed() -> int:
    """A million requests under affinity with the cache on: requests a second in the kernel."""
    wrong = False
    for case, row, sessions in ((CASES[0], wafers(8), 800), (CASES[1], gpus(2), 4000)):
        many = replace(case, sessions=sessions)
        requests = traffic(many, SPEED_REQUESTS)
        spec = replace(spec_of(deployment_of(many, row), requests, host=False), instances=64)
        clock = time.process_time()
        runs = [simulate_pools(requests, [spec], POLICIES[0]) for _ in range(3)][1:]
        processor_s = (time.process_time() - clock) / 3
        best = min(run.kernel_s for run in runs)
        per_s, load = len(requests) / best, os.getloadavg()[0]
        print(
            f"{case.model} on 64 x {row.system}: {len(requests):,} requests in {best:.2f} s, {per_s:,.0f} requests/s; "
            f"found {hit_shares(runs[0])[0]:.1%}; {processor_s:.2f} s of the processor with all preparation; "
            f"load of the machine {load:.1f} on {os.cpu_count()} cores"
        )
        wrong |= per_s < SPEED_BOUND_PER_S
    if wrong:
        print(f"under its bound: {SPEED_BOUND_PER_S:,.0f} requests/s", file=sys.stderr)
    return int(wrong)


def main(arguments: list[str]) -> int:
    if not TRACE.exists():
        print(f"no trace at {TRACE}: nothing to replay")
        return 0
    if arguments[:1] == ["speed"]:
        return speed()
    count = int(arguments[0]) if arguments else REQUESTS
    for case in CASES:
        found = show(case, count)
        if case is CASES[0]:
            write_plots(case, found)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""How fast are candidates judged, a day planned, fleets proved? Prints figures and fails beyond their bounds.

python benchmarks/plan.py [candidates | day | frontier ...]
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from infermix.plan.cache import Store, user_store
from infermix.plan.candidates import open_bases, survey
from infermix.plan.evidence import Traffic
from infermix.plan.frontier import frontier as speeds
from infermix.plan.problem import load_study, parse_study
from infermix.plan.prove import prove
from infermix.plan.question import ask
from infermix.plan.run import make_plan
from infermix.plan.solve import make_planner

STUDY = {
    "model": "gpt-oss-120b",
    "traffic": {
        "coding": {"profile": "agentic-coding", "rate_per_s": 20.0, "slo": {"ttft_s": 4.0, "tpot_s": 0.03}},
        "chat": {
            "profile": "azure-conv-2023",
            "model": "llama-3.3-70b",
            "rate_per_s": 100.0,
            "slo": {"ttft_s": 4.0, "tpot_s": 0.08},
        },
        "papers": {"profile": "arxiv-summarisation", "rate_per_s": 60.0, "slo": {"e2e_s": 60.0}},
    },
    "market": {
        "systems": [
            "h100-x8", "h200-x8", "b200-x8", "gb200-nvl72", "l40s-x8", "mi300x-x8", "mi325x-x8", "mi355x-x8",
            "tpu-v5e-x8", "tpu-v6e-x8", "trn2-x16", "inf2-x12", "cs3", "groq-v1-rack",
        ],
        "weights": ["fp8"],
        "spec": ["eagle:1", "eagle:3"],
    },
    "cost": {"gross_margin": 0.4, "life_years": 4, "finance_rate": 0.08, "usd_per_kwh": 0.08, "pue": 1.2},
}  # fmt: skip
LEAST = 100_000
LEAST_PER_S = 50_000.0
EXAMPLES = Path(__file__).parents[1] / "examples"
MOST_GAP = 0.05
MOST_COLD_S = 120.0
MOST_WARM_S = 10.0
FLEETS = 120
LEAST_A_MINUTE = 100.0


def candidates() -> bool:
    """Judge the candidates of a market of fourteen systems three times; the fastest counts."""
    question = ask(parse_study(STUDY, "benchmark"))
    rates, kept, count = [], 0, 0
    for _ in range(3):
        clock = time.perf_counter()
        bases = open_bases(question)
        kept, count = len(survey(question, bases).kept), bases.candidates
        rates.append(count / (time.perf_counter() - clock))
    rate = max(rates)
    print(f"{count:,} candidates on {len(question.offers)} systems, {kept:,} kept, {rate:,.0f} a second")
    return count >= LEAST and rate >= LEAST_PER_S


def day() -> bool:
    """Plan the example of a day with an empty store of capacities, and again with a full one."""
    seconds, plans = [], []
    with TemporaryDirectory() as folder:
        for said in ("from nothing", "with capacities known"):
            made = make_plan(load_study(EXAMPLES / "coding-lane-day.toml"), store=Store(Path(folder)))
            plans.append(made)
            seconds.append(made.plan_s + made.prove_s)
            print(
                f"a day {said}: {made.status}, {made.usd_per_hour:.2f} USD/h, gap {made.gap:.1%}, plan "
                f"{made.plan_s:.1f} s + proof {made.prove_s:.1f} s, {made.rounds} rounds"
            )
    held = all(made.status == "proved" and made.gap < MOST_GAP for made in plans)
    return held and seconds[0] <= MOST_COLD_S and seconds[1] <= MOST_WARM_S


def frontier() -> bool:
    """Prove fleets for cost against speed, capacities known; README's study and the one of the lab."""
    return min(_frontier(EXAMPLES / path) for path in ("coding-lane.toml", "lab/lab.toml"))


def _frontier(path: Path) -> bool:
    """Capacities are kept in the user's store, as those of any plan: one run finds them, the next one counts."""
    question = ask(load_study(path))
    traffic, seconds = Traffic(question), []
    proved = prove(make_planner(question, user_store()), traffic)
    if proved is None:
        return False
    for fleets in (1, FLEETS):
        clock = time.perf_counter()
        found = speeds(make_planner(question, user_store()), proved, lambda _: None, traffic, fleets)
        seconds.append(time.perf_counter() - clock)
    distinct = {tuple(sorted(fleet.pools.items())) for fleet in found.fleets}
    rate = 60.0 * len(found.fleets) / seconds[1]
    best = sum(fleet.best for fleet in found.fleets)
    print(
        f"{path.name}: {len(found.fleets)} fleets proved in {seconds[1]:.1f} s, {rate:.0f} a minute; {len(distinct)} "
        f"differ in instances, {best} on the curve; {question.study.prove.seeds} seeds, at least "
        f"{question.study.prove.requests_per_class:,} requests of each class in each"
    )
    return rate >= LEAST_A_MINUTE


WHAT = {"candidates": candidates, "day": day, "frontier": frontier}


def main() -> int:
    """All of it, or what is named."""
    held = [WHAT[name]() for name in sys.argv[1:] or WHAT]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())

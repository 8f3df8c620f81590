"""How fast are candidates judged? Prints a rate and fails below its bound.

python benchmarks/plan.py
"""

from __future__ import annotations

import sys
import time

from infermix.plan.candidates import open_bases, survey
from infermix.plan.problem import parse_study
from infermix.plan.question import ask

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


def main() -> int:
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
    return 0 if count >= LEAST and rate >= LEAST_PER_S else 1


if __name__ == "__main__":
    sys.exit(main())

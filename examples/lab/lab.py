"""The questions of docs/lab.md, asked one after the other: ``python examples/lab/lab.py [--plans FOLDER]``.

Plans are kept in FOLDER and not made again; tables are printed as they stand on the page.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from infermix.catalog.load import Catalog, catalog
from infermix.catalog.query import find_model
from infermix.cost.rent import Terms
from infermix.explore.chips import compare
from infermix.perf.operating import Load
from infermix.perf.sweep import Wish
from infermix.plan.problem import parse_study
from infermix.plan.question import ask
from infermix.plan.result import Plan
from infermix.study import plan

HERE = Path(__file__).parent
FAST = {"ttft_s": 1.5, "tpot_s": 0.003, "attainment": 0.95}
NVIDIA = ("h200-x8", "b200-x8")
CHIPS = ["h200-sxm", "b200-sxm", "mi355x", "wse3", "groq-lpu-v1", "tpu-v6e", "trainium2", "maia200"]
CONTEXTS = ((1_000, 0, 200), (10_000, 0, 400), (100_000, 96_000, 400))
SPEEDS = (25, 50, 100, 150, 200, 300, 500, 1000, 1500)
STANDARD, FASTER = "api-fireworks-gpt-oss-120b-list", "api-cerebras-gpt-oss-120b-list"
CLOSED = "api-openai-gpt-6-astra-ultrafast"
MTOK_PER_HOUR = 3600 / 1e6


def variants() -> dict[str, dict[str, Any]]:
    """Name → study as TOML would give it."""
    asked = tomllib.loads((HERE / "lab.toml").read_text(encoding="utf-8"))
    free = {key: value for key, value in asked["limits"].items() if key != "min_share_output_tokens"}
    coding = {**asked["traffic"]["coding"], "slo": FAST}
    halved = {name: n // 2 if name in NVIDIA else n for name, n in asked["market"]["supply"].items()}
    return {
        "free choice": {**asked, "limits": free},
        "a tenth on SRAM": asked,
        "agents promised 3 ms": {**asked, "traffic": {**asked["traffic"], "coding": coding}},
        "NVIDIA's supply halved": {**asked, "market": {**asked["market"], "supply": halved}},
    }


def made(name: str, raw: dict[str, Any], folder: Path) -> Plan:
    """A plan, from the folder where it is there."""
    file = folder / f"{name.replace(' ', '-')}.json"
    if not file.exists():
        file.write_bytes(msgspec.json.encode(plan(parse_study(raw, str(HERE / "lab.toml")))))
    return msgspec.json.decode(file.read_bytes(), type=Plan)


def fleet(found: Plan) -> str:
    """Systems of a plan in short."""
    counts: dict[str, int] = {}
    for pool in found.fleet:
        counts[pool.system] = counts.get(pool.system, 0) + pool.systems
    return " + ".join(f"{n} {system}" for system, n in counts.items())


def sram_share(found: Plan, class_name: str | None = None) -> float:
    """Share of output tokens (of a class's requests) on SRAM chips."""
    sram = [pool for pool in found.fleet if pool.kind == "sram"]
    if class_name is None:
        return sum(pool.share_output_tokens for pool in sram)
    return sum(pool.serves.get(class_name, 0.0) for pool in sram)


def turn_s(found: Plan, output: float) -> float:
    """Time of a coding turn of so many tokens at median times [s]."""
    row = found.classes["coding"]
    return row.ttft_s["p50"] + (output - 1) * row.tpot_s["p50"]


def print_plans(plans: dict[str, Plan], output: float) -> None:
    print(f"{'':<24}{'$/h':>6} {'bound':>6}  {'status':<15}{'SRAM':>6}{'agents there':>14}{'a turn':>9}  fleet")
    for name, found in plans.items():
        cells = f"{found.usd_per_hour:>6.0f} {found.lower_bound_usd_per_hour:>6.0f}  {found.status:<15}"
        cells += f"{sram_share(found):>6.1%}{sram_share(found, 'coding'):>14.1%}{turn_s(found, output):>8.2f}s"
        print(f"{name:<24}{cells}  {fleet(found)}")


def print_worth(
    facts: Catalog, plans: dict[str, Plan], tokens: tuple[float, float, float], usd_per_hour: float
) -> None:
    """What faster agents cost and earn: seconds saved, and what markets pay for speed."""
    slow, fast = plans["free choice"], plans["agents promised 3 ms"]
    inputs, cached, output = tokens
    rate = slow.classes["coding"].rate_per_s
    saved_s = turn_s(slow, output) - turn_s(fast, output)
    mtok = rate * (inputs - cached) * MTOK_PER_HOUR, rate * output * MTOK_PER_HOUR
    usual, quick = facts.prices[STANDARD], facts.prices[FASTER]
    bill = [
        i.value * mtok[0] + o.value * mtok[1]
        for i, o in (
            (usual.input_usd_per_mtok, usual.output_usd_per_mtok),
            (quick.input_usd_per_mtok, quick.output_usd_per_mtok),
        )
        if i and o
    ]
    multiple = facts.prices[CLOSED].price_multiple
    print(f"more for the fast fleet             {fast.usd_per_hour - slow.usd_per_hour:>10,.0f} $/h")
    print(f"a turn is shorter by                {saved_s:>10.2f} s, {rate:g} turns a second")
    print(f"worth of that time at ${usd_per_hour:g} an hour   {saved_s * rate * usd_per_hour:>10,.0f} $/h")
    print(f"coding tokens at {STANDARD.split('-')[1]}'s list price {bill[0]:>9,.0f} $/h (cached input free)")
    print(f"more at {FASTER.split('-')[1]}'s                  {bill[1] - bill[0]:>10,.0f} $/h")
    if multiple:
        print(f"more at {multiple.value:g} times the price       {bill[0] * (multiple.value - 1):>13,.0f} $/h")


def print_speeds(facts: Catalog) -> None:
    """The cheapest chip at each speed and context, and the cheapest SRAM chip beside it."""
    terms = Terms(gross_margin=0.4, life_years=4, finance_rate=0.08, usd_per_kwh=0.08)
    model = find_model("gpt-oss-120b", facts)
    for inputs, cached, output in CONTEXTS:
        found = compare(facts, model, Wish(load=Load(inputs, output, cached)), terms=terms, chips=CHIPS)
        print(f"\n{inputs:,} tokens in, {cached:,} of them cached, {output} out; $ per million output tokens")
        print(f"{'tokens/s at least':>18}  {'cheapest':<24}{'best of another kind':<24}")
        for speed in SPEEDS:
            best: dict[str, tuple[float, str]] = {}
            for chip, points in found.by_chip.items():
                able = [p.usd_per_mtok_output for p in points if p.tokens_per_s_user >= speed]
                kind = facts.chips[chip].kind
                if able and (kind not in best or min(able) < best[kind][0]):
                    best[kind] = (min(able), chip)
            cells = [f"{chip} {usd:.2f}" for usd, chip in sorted(best.values())]
            print(f"{speed:>18}  " + "".join(f"{cell:<24}" for cell in cells[:2]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plans", type=Path, default=Path("lab-plans"), help="folder of plans")
    parser.add_argument("--only", choices=("speeds", "plans"), help="a part of it")
    chosen = parser.parse_args()
    facts, raw = catalog(), variants()
    if chosen.only != "plans":
        print_speeds(facts)
    if chosen.only == "speeds":
        return
    chosen.plans.mkdir(exist_ok=True)
    question = ask(parse_study(raw["free choice"], str(HERE / "lab.toml")))
    coding = question.demands[0]
    inputs, cached, output = (float(column.mean()) for column in coding.lengths)
    plans = {name: made(name, study, chosen.plans) for name, study in raw.items()}
    print()
    print_plans(plans, output)
    print()
    print_worth(facts, plans, (inputs, cached, output), coding.cls.value_of_time_usd_per_hour or 0.0)
    print("\ncost by the TPOT promised to agents (simulated capacities, not proved)")
    for point in plans["agents promised 3 ms"].frontier:
        if point.class_name == "coding" and point.usd_per_hour is not None:
            systems = " + ".join(f"{n} {system}" for system, n in point.systems.items())
            print(f"{1e3 * point.tpot_s:>6.1f} ms {point.usd_per_hour:>6.0f} $/h  {systems}")


if __name__ == "__main__":
    main()

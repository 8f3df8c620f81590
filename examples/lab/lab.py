"""The questions of docs/lab.md, asked one after the other: ``python examples/lab/lab.py [--plans FOLDER]``.

Plans are kept in FOLDER and not made again; tables are printed as they stand on the page.
"""

from __future__ import annotations

import argparse
import sys
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
from infermix.plan.cache import user_store
from infermix.plan.evidence import Traffic
from infermix.plan.limits import fleet_cost
from infermix.plan.problem import Study, parse_study
from infermix.plan.prove import prove
from infermix.plan.question import ask
from infermix.plan.solve import lower_bound, make_planner

HERE = Path(__file__).parent
FAST = {"ttft_s": 1.5, "tpot_s": 0.003, "attainment": 0.95}
PROMISED_S = (0.003, 0.006, 0.012)
"""TPOT promised to agents, with SRAM chips by free choice."""
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
    swept = {
        f"agents promised {1e3 * tpot_s:g} ms": {
            **asked,
            "limits": free,
            "traffic": {**asked["traffic"], "coding": {**coding, "slo": {**FAST, "tpot_s": tpot_s}}},
        }
        for tpot_s in PROMISED_S
    }
    return {
        "free choice": {**asked, "limits": free},
        "a tenth on SRAM": asked,
        "the same, NVIDIA halved": {**asked, "market": {**asked["market"], "supply": halved}},
        "free, NVIDIA halved": {**asked, "limits": free, "market": {**asked["market"], "supply": halved}},
        **swept,
    }


class Answer(msgspec.Struct):
    """What a plan says, without its explanations."""

    usd_per_hour: float
    bound_usd_per_hour: float
    status: str
    systems: dict[str, int]
    sram: float
    """Share of output tokens on SRAM chips."""
    agents_there: float
    """Share of coding requests on SRAM chips."""
    turn_s: float
    """A coding turn of mean length at median times."""
    rate_per_s: float
    tokens: tuple[float, float, float]
    """Input, cached and output tokens of a mean coding turn."""


def made(name: str, raw: dict[str, Any], folder: Path) -> Answer:
    """The proved plan of a variant, from the folder where it is there."""
    file = folder / f"{name.replace(' ', '-')}.json"
    if not file.exists():
        file.write_bytes(msgspec.json.encode(answer(parse_study(raw, str(HERE / "lab.toml")))))
    return msgspec.json.decode(file.read_bytes(), type=Answer)


def answer(study: Study) -> Answer:
    """Choose and prove."""
    question = ask(study)
    planner = make_planner(question, user_store())
    bound = lower_bound(planner)
    proved = prove(planner, Traffic(question), lambda said: print(said, file=sys.stderr))
    if proved is None:
        raise SystemExit(f"no fleet: {study.name}")
    pools, tokens = proved.fleet.pools, proved.nominal.output_tokens.sum(axis=0)
    sram = [pool.deployment.chip.kind == "sram" for pool in pools]
    systems: dict[str, int] = {}
    for pool in pools:
        systems[pool.deployment.system.id] = systems.get(pool.deployment.system.id, 0) + pool.systems
    coding = next(demand for demand in question.demands if demand.name == "coding")
    inputs, cached, output = (float(column.mean()) for column in coding.lengths)
    times = proved.nominal.latency["coding"]
    return Answer(
        usd_per_hour=fleet_cost(question, proved.fleet),
        bound_usd_per_hour=bound,
        status=proved.status,
        systems=systems,
        sram=float(tokens[sram].sum() / tokens.sum()),
        agents_there=sum(p.serves.get("coding", 0.0) for p, there in zip(pools, sram, strict=True) if there),
        turn_s=times["ttft_s"]["p50"] + (output - 1) * times["tpot_s"]["p50"],
        rate_per_s=coding.rate_per_s,
        tokens=(inputs, cached, output),
    )


def fleet(found: Answer) -> str:
    """Systems of a plan in short."""
    return " + ".join(f"{n} {system}" for system, n in found.systems.items())


def print_plans(plans: dict[str, Answer]) -> None:
    print(f"\n{'':<23}{'$/h':>5}{'bound':>6}  {'status':<9}{'SRAM':>6}{'agents':>8}{'turn':>8}  fleet")
    for name, found in plans.items():
        cells = f"{found.usd_per_hour:>5.0f}{found.bound_usd_per_hour:>6.0f}  {found.status:<9}"
        cells += f"{found.sram:>6.1%}{found.agents_there:>8.1%}{found.turn_s:>7.2f}s"
        print(f"{name:<23}{cells}  {fleet(found)}")


def print_worth(facts: Catalog, plans: dict[str, Answer], usd_per_hour: float) -> None:
    """What faster agents cost and earn: seconds saved, and what markets pay for speed."""
    slow, fast = plans["free choice"], plans["agents promised 3 ms"]
    inputs, cached, output = fast.tokens
    saved_s = slow.turn_s - fast.turn_s
    mtok = fast.rate_per_s * (inputs - cached) * MTOK_PER_HOUR, fast.rate_per_s * output * MTOK_PER_HOUR
    bills = {}
    for name in (STANDARD, FASTER):
        price = facts.prices[name]
        assert price.input_usd_per_mtok and price.output_usd_per_mtok
        bills[name] = price.input_usd_per_mtok.value * mtok[0] + price.output_usd_per_mtok.value * mtok[1]
    multiple = facts.prices[CLOSED].price_multiple
    assert multiple
    rows = {
        "the fast fleet costs more, $/h": fast.usd_per_hour - slow.usd_per_hour,
        f"time saved, at ${usd_per_hour:g} an hour, $/h": saved_s * fast.rate_per_s * usd_per_hour,
        f"the tokens at {STANDARD}, $/h": bills[STANDARD],
        f"more at {FASTER}, $/h": bills[FASTER] - bills[STANDARD],
        f"more at {multiple.value:g} times the price ({CLOSED}), $/h": bills[STANDARD] * (multiple.value - 1),
    }
    print(f"\nagents: {fast.rate_per_s:g} turns a second, each {saved_s:.2f} s shorter; cached input is not billed")
    for what, value in rows.items():
        print(f"{what:<66}{value:>8,.0f}")


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
    plans = {name: made(name, study, chosen.plans) for name, study in raw.items()}
    print_plans(plans)
    print_worth(facts, plans, raw["free choice"]["traffic"]["coding"]["value_of_time_usd_per_hour"])


if __name__ == "__main__":
    main()

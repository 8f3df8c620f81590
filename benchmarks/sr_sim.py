"""The same traffic planned by vllm-sr-sim's optimiser and by infermix, on the same step times; both simulated here.

    python benchmarks/sr_sim.py [--python /path/to/venv/bin/python]

``--python`` has ``vllm-sr-sim`` (pip install --pre vllm-sr-sim); without the package this says so and ends. Its Azure
CDF, 200 requests a second, P99 of TTFT 500 ms, H100, A100 and A10G at its prices. What is the same, and what is not:
docs/sr-sim.md.
"""

from __future__ import annotations

import argparse
import csv
import importlib.util
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from infermix.rng import uniforms
from infermix.study import plan, simulate

WITHIN = Path(__file__).parent / "within" / "sr_sim_optimise.py"
RATE_PER_S, TTFT_S, ATTAINMENT = 200.0, 0.5, 0.99
REQUESTS, SEEDS, INPUT_SHARE = 60_000, 5, 0.8
SYSTEMS = {"h100": "h100-x1", "a100": "a100-80-x1", "a10g": "a10g-x1"}
MODEL = "llama-3.1-8b"
"""Only its name counts: times, memory and prices are those of the profiles."""
MOST_SEQS, MOST_TOKENS = 512, 8192
READINGS = {
    "prompts cost nothing beside the step": 0.0,
    "every chunk of prompt costs a step": 1.0,
}
"""Its steps read any number of prompts at once at no cost; an engine reads a chunk in a step."""
NEARLY_EXACT = {"median_abs_log_error": 1e-9}


@dataclass(frozen=True)
class Told:
    """A plan and what became of it here."""

    title: str
    gpus: str
    usd_per_hour: float
    attainment: float
    p99_ttft_s: float
    p50_tpot_s: float


def answers(python: str) -> dict[str, Any]:
    """What the other optimiser says, run by its own Python."""
    words = [python, str(WITHIN), str(RATE_PER_S), str(1000 * TTFT_S)]
    return json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)


def lengths(cdf: list[list[float]]) -> np.ndarray:
    """Tokens of each request, drawn from its distribution as its own generator does."""
    u, within = uniforms(1, 0, REQUESTS), uniforms(1, 1, REQUESTS)
    edges, shares = np.array([1, *(t for t, _ in cdf)]), np.array([f for _, f in cdf])
    k = np.minimum(np.searchsorted(shares, u), len(shares) - 1)
    low, high = edges[k], np.maximum(edges[k], edges[k + 1])
    return np.floor(low + within * (high - low + 1)).astype(int).clip(low, high)


def write_trace(path: Path, arrival_s: np.ndarray, tokens: np.ndarray) -> None:
    """A trace: four fifths of the tokens are input, as there."""
    inputs = np.maximum(1, (tokens * INPUT_SHARE).astype(int))
    rows = zip(arrival_s.round(6), inputs, np.maximum(1, tokens - inputs), strict=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["t_s", "input_tokens", "output_tokens"])
        writer.writerows(rows)


def write_steps(folder: Path, profiles: dict[str, dict[str, float]], per_chunk: float) -> str:
    """Step times of its profiles: W for a step, H for each calibrated context read, so many W for a chunk of prompt."""
    tables = []
    for name, profile in profiles.items():
        steps = {
            "step_s": profile["W"], "token_s": per_chunk * profile["W"] / profile["chunk"],
            "seq_s": 0.0, "pair_s": 0.0,
            "kv_s": profile["H"] / profile["calibration_ctx"], "overhead_s": 0.0, "overlap": True,
        }  # fmt: skip
        kv = int(profile["total_kv_blks"] * profile["blk_size"])
        engine = {"max_num_seqs": MOST_SEQS, "max_batched_tokens": MOST_TOKENS, "kv_tokens": kv}
        errors = {"tpot_s": NEARLY_EXACT, "e2e_s": NEARLY_EXACT, "ttft_s": NEARLY_EXACT}
        told = {"steps": steps, "engine": engine, "fit": {"errors": errors}, "check": None}
        (folder / f"{name}.json").write_text(json.dumps(told))
        tables.append(f'[calibration.{name}]\nfile = "{name}.json"\nsystem = "{SYSTEMS[name]}"\n')
    return "\n".join(tables)


def traffic(name: str, rate_per_s: float) -> str:
    slo = f"{{ ttft_s = {TTFT_S}, attainment = {ATTAINMENT} }}"
    return f'[traffic.{name}]\ntrace = "{name}.csv"\nrate_per_s = {rate_per_s}\nslo = {slo}\n'


def head(told: dict[str, Any]) -> str:
    systems = ", ".join(f'"{system}"' for system in SYSTEMS.values())
    prices = ", ".join(f"{SYSTEMS[name]} = {p['cost_per_hr']}" for name, p in told["profiles"].items())
    proof = f'[prove]\nseeds = {SEEDS}\nspeeds = "nominal"\n'
    return f'model = "{MODEL}"\n[market]\nsystems = [{systems}]\nprices = {{ {prices} }}\nkv = ["bf16"]\n{proof}'


def ours(folder: Path, told: dict[str, Any], steps: str, arrival_s: np.ndarray, tokens: np.ndarray) -> Told:
    """Our plan of the whole traffic, proved."""
    write_trace(folder / "all.csv", arrival_s, tokens)
    (folder / "ours.toml").write_text("\n".join([head(told), traffic("all", RATE_PER_S), steps]))
    made = plan(folder / "ours.toml")
    assert made.status != "not_proved", made.status
    row = made.classes["all"]
    gpus = " + ".join(f"{pool.instances} {pool.system}" for pool in made.fleet)
    return Told("infermix", gpus, made.usd_per_hour, row.attainment, row.ttft_s["p99"], row.tpot_s["p50"])


def theirs(
    folder: Path, told: dict[str, Any], steps: str, arrival_s: np.ndarray, tokens: np.ndarray, best: dict[str, Any]
) -> Told:
    """Their plan: two pools by length, with the places that it reserves, prompts compressed where it does that."""
    short = told["b_short"]
    borderline = (tokens > short) & (tokens <= best["gamma"] * short)
    squeezed = borderline & (uniforms(1, 2, len(tokens)) < best["compressed"])
    sent = np.where(squeezed, short, tokens)
    parts = {"short": sent <= short, "long": sent > short}
    tables = [head(told)]
    for place, (name, mine) in enumerate(parts.items()):
        count = best[f"n_{name}"]
        write_trace(folder / f"{name}.csv", arrival_s[mine], sent[mine])
        pool = f'[fleet.{name}]\nsystem = "{SYSTEMS[best[name]]}"\ninstances = {count}\n'
        pool += f"max_num_seqs = {best['slots'][place]}\nserves = {{ {name} = 1.0 }}\n"
        tables += [traffic(name, RATE_PER_S * float(mine.mean())), pool]
    (folder / "theirs.toml").write_text("\n".join([*tables, steps]))
    found = simulate(folder / "theirs.toml", seeds=SEEDS)["classes"]
    share = {name: float(mine.mean()) for name, mine in parts.items()}
    gpus = " + ".join(f"{best[f'n_{name}']} {SYSTEMS[best[name]]}" for name in parts)
    title = "vllm-sr-sim" if best["gamma"] == 1.0 else f"vllm-sr-sim, gamma {best['gamma']:g}"
    return Told(
        title, gpus, best["usd_per_hour"], sum(found[name]["attainment"] * share[name] for name in parts),
        max(found[name]["ttft_s"]["p99"] for name in parts), found["short"]["tpot_s"]["p50"],
    )  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", help="Python of an environment with vllm-sr-sim")
    python = parser.parse_args().python or (sys.executable if importlib.util.find_spec("fleet_sim") else None)
    if python is None:
        print("skipped: vllm-sr-sim is not installed; pip install --pre vllm-sr-sim, or --python of a venv that has it")
        return 0
    told = answers(python)
    tokens = lengths(told["cdf"])
    arrival_s = np.cumsum(-np.log(uniforms(1, 3, REQUESTS)) / RATE_PER_S)
    failed = False
    for reading, per_chunk in READINGS.items():
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            steps = write_steps(folder, told["profiles"], per_chunk)
            rows = [ours(folder, told, steps, arrival_s, tokens)]
            for plans in told["plans"].values():
                best = min(plans, key=lambda p: p["usd_per_hour"])
                rows.append(theirs(folder, told, steps, arrival_s, tokens, best))
        failed |= rows[0].attainment < ATTAINMENT or rows[0].usd_per_hour > min(row.usd_per_hour for row in rows)
        print_rows(reading, rows)
    print(
        "FAILED: ours is dearer, or misses" if failed else "ours is no dearer and keeps the promise, in both readings"
    )
    return int(failed)


def print_rows(reading: str, rows: list[Told]) -> None:
    print(f"\n{reading}")
    print(f"{'':<25}{'GPUs':<34}{'$/h':>8}{'TTFT in 0.5 s':>15}{'P99 TTFT':>11}{'TPOT p50':>10}")
    for row in rows:
        times = f"{row.p99_ttft_s:>9.3f} s{1000 * row.p50_tpot_s:>7.1f} ms"
        print(f"{row.title:<25}{row.gpus:<34}{row.usd_per_hour:>8.2f}{row.attainment:>15.2%}{times}")


if __name__ == "__main__":
    sys.exit(main())

"""What vllm-sr-sim's optimiser answers: run by a Python that has it; prints JSON.

    python sr_sim_optimise.py RATE_PER_S TTFT_MS

For every pair of GPU types: the best plan without compressing prompts (gamma 1), and the best at any gamma, each as
its own simulation verified it.
"""

import json
import sys
from pathlib import Path

import fleet_sim
from fleet_sim.gpu_profiles.profiles import A10G, A100_80GB, H100_80GB
from fleet_sim.optimizer.base import FleetOptimizer

GPUS = {"h100": H100_80GB, "a100": A100_80GB, "a10g": A10G}
B_SHORT, LONG_MAX_CTX = 4096, 65536
CDF = Path(fleet_sim.__file__).parent / "data" / "azure_cdf.json"
FIELDS = ("W", "H", "chunk", "blk_size", "total_kv_blks", "max_slots", "cost_per_hr", "calibration_ctx")


def plan(short, long, gammas, rate_per_s, ttft_ms, cdf):
    optimiser = FleetOptimizer(GPUS[short], GPUS[long], B_SHORT, ttft_ms, LONG_MAX_CTX)
    report = optimiser.optimize(cdf, rate_per_s, gammas, verbose=False)
    found = [row for row in report.simulated if row.slo_met]
    if not found:
        return None
    best = min(found, key=lambda row: row.cost_per_hr)
    return {
        "short": short, "long": long, "gamma": best.gamma, "n_short": best.n_s, "n_long": best.n_l,
        "usd_per_hour": best.cost_per_hr, "p99_ttft_ms": [best.p99_ttft_short_ms, best.p99_ttft_long_ms],
        "slots": [GPUS[short].n_slots(B_SHORT), GPUS[long].n_slots(LONG_MAX_CTX)], "compressed": optimiser.p_c,
    }  # fmt: skip


def main(rate_per_s, ttft_ms):
    raw = json.loads(CDF.read_text())
    cdf = [(int(t), float(f)) for t, f in (raw["cdf"] if isinstance(raw, dict) else raw)]
    every = [round(1.0 + 0.1 * k, 1) for k in range(11)]
    plans = {"gamma 1": [1.0], "any gamma": every}
    told = {
        "profiles": {name: {field: getattr(gpu, field) for field in FIELDS} for name, gpu in GPUS.items()},
        "cdf": cdf,
        "b_short": B_SHORT,
        "plans": {
            name: [p for s in GPUS for long in GPUS if (p := plan(s, long, gammas, rate_per_s, ttft_ms, cdf))]
            for name, gammas in plans.items()
        },
    }
    print(json.dumps(told))


main(float(sys.argv[1]), float(sys.argv[2]))

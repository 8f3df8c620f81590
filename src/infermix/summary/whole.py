"""A simulation in the keys of the command line."""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.errors import InfermixError
from infermix.metrics.timeline import timeline
from infermix.perf.figures import of_deployment, with_roots
from infermix.plan.question import open_facts
from infermix.sim.result import Run
from infermix.summary.classes import COUNTS, class_row
from infermix.summary.pools import laid_on, pool_row, price_of
from infermix.summary.simulation import Part, Simulation, good_requests


def summarise(found: Simulation) -> dict[str, Any]:
    """What a simulation found: counts of all seeds; pools, courses and costs of the first seed at the first speed."""
    first, run = next(iter(found.runs.items()))
    parts = found.parts[first]
    classes = {name: class_row(found, name) for name in run.requests.class_names}
    required = "low" if "low" in found.runs and found.study.prove.speeds == "low" else first
    key = "attainment_low" if required == "low" and "nominal" in found.runs else "attainment"
    pools = {
        pool.name: pool_row(found.study, found.fleet, run, found.served, p) for p, pool in enumerate(found.fleet.pools)
    }
    return {
        "study": found.study.name or Path(found.study.path).stem,
        "model": found.study.model,
        **{name: sum(getattr(part, name) for part in parts) for name in COUNTS},
        "arrived": sum(part.arrived for part in parts),
        "simulated_s": run.simulated_s,
        "kernel_s": run.kernel_s,
        "peak_rss_bytes": peak_rss_bytes(),
        "seed": found.seeds[0],
        "seeds": list(found.seeds),
        "by_seed": [_seed_row(seed, part) for seed, part in zip(found.seeds, parts, strict=True)],
        "policy": found.policy,
        "speeds": list(found.runs),
        "interrupted": found.interrupted,
        "kept_one_in": found.every,
        "classes": classes,
        "pools": pools,
        "over_time": over_time(found, run),
        "clipped": {name: n for name, n in found.drawn.clipped.items() if n},
        "promises_kept": all(row[key] >= row["promised"] for row in classes.values()),
        "usd_per_mtok": _usd_per_mtok(pools),
        "pairs": [msgspec.to_builtins(pair) for pair in found.fleet.pairs],
        **_energy(pools),
        "figures": _figures(found),
    }


def _seed_row(seed: int, part: Part) -> dict[str, Any]:
    """One seed in short."""
    attained = {name: c.good / c.requests if c.requests else None for name, c in part.classes.items()}
    return {"seed": seed, "requests": part.requests, "simulated_s": part.simulated_s, "attainment": attained}


def over_time(found: Simulation, run: Run) -> dict[str, Any]:
    """Class → its course in equal bins between ``edges_s``; attainment is by time of arrival.

    Of a run that was too long to keep, the course of what was kept, times as many as each stands for.
    """
    requests, came, good = run.requests, run.came, good_requests(found.study, run)
    arrivals = requests.arrival_s[came]
    end = max(run.simulated_s, float(arrivals.max()) if len(arrivals) else 0.0)
    classes, edges = {}, np.zeros(0)
    for c, name in enumerate(requests.class_names):
        mine = (requests.class_id == c) & came
        course = timeline(
            requests.arrival_s[mine], run.last_s[mine], run.instance[mine] >= 0, good[mine], end
        )  # fmt: skip
        edges = course.edges_s
        counts = {
            key: getattr(course, key) * found.every for key in ("arrivals_per_s", "completions_per_s", "in_flight")
        }
        columns = counts | {"attainment": course.attainment}
        classes[name] = {key: _finite(column) for key, column in columns.items()}
    return {"edges_s": edges.tolist(), "classes": classes}


def _finite(values: Floats) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]


def _usd_per_mtok(pools: dict[str, dict[str, Any]]) -> dict[str, float] | None:
    """Cost of a million tokens laid on input, on output, or on both; None without prices on the study's basis."""
    if any(row["usd"] is None for row in pools.values()):
        return None
    inputs, outputs = (sum(row["tokens"][name] for row in pools.values()) for name in ("input", "output"))
    return laid_on(sum(row["usd"] for row in pools.values()), inputs, outputs)


def _energy(pools: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Energy of the fleet; None where the power of a pool is not known, with the pools that lack it."""
    unknown = [name for name, row in pools.items() if row["energy_kwh"] is None]
    if unknown:
        return {"energy_kwh": None, "energy_reason": f"no power figure: {', '.join(unknown)}"}
    return {"energy_kwh": {key: sum(row["energy_kwh"][key] for row in pools.values()) for key in ("busy", "always_on")}}


def _figures(found: Simulation) -> list[str]:
    """Ids of the catalogue figures that the fleet's speeds, prices and powers came from."""
    ids = [id_ for pool in found.fleet.pools for id_ in of_deployment(pool.deployment)]
    for pool in found.fleet.pools:
        system = pool.deployment.system
        if system.power_w is not None:
            ids.append(f"systems/{system.id}/power_w")
        try:
            ids += price_of(found.study, pool).figures
        except InfermixError:
            continue
    return with_roots(open_facts(found.study), ids)


def peak_rss_bytes() -> int:
    """Highest memory of this process so far [bytes]; on Linux without what its parent had when it started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next((x for x in status.read_text().splitlines() if x.startswith("VmHWM:")), "")
        if line:
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

"""What each pool and instance did, what it cost, and what power it drew."""

from __future__ import annotations

from typing import Any

import numpy as np

from infermix.cost.energy import facility_w
from infermix.cost.rent import HourlyPrice, hourly_price
from infermix.errors import InfermixError, NoAnswer
from infermix.fleet import Fleet, Pool
from infermix.perf.table import compile_table
from infermix.plan.problem import Study
from infermix.sim.result import Run
from infermix.summary.served import Served, prompt_pool
from infermix.units import SECONDS_PER_HOUR, TOKENS_PER_MTOK

JOULE_PER_KWH = 1000.0 * SECONDS_PER_HOUR


def pool_row(study: Study, fleet: Fleet, run: Run, served: Served, p: int) -> dict[str, Any]:
    """One pool over the whole run; ``by_instance`` has a column for each of its figures."""
    pool, mine = fleet.pools[p], run.pool == p
    tokens, on = _tokens(run, served, p), share_on(run, p)
    blocks, steps = compile_table(pool.deployment).blocks, run.steps[mine].sum()
    return {
        "system": pool.deployment.system.id,
        "deployment": pool.deployment.name,
        "instances": pool.instances,
        "systems": pool.systems,
        "requests": int(served.requests[p]),
        "completed": int(served.completed[p]),
        "busy": float(run.busy_s[mine].mean() / run.simulated_s) if run.simulated_s else 0.0,
        "batch": float(run.seq_steps[mine].sum() / steps) if steps else 0.0,
        "kv_peak": float(run.kv_peak_blocks[mine].max() / blocks),
        "preemptions": int(run.preemptions[mine].sum()),
        "steps": int(steps),
        "tokens": tokens,
        "by_instance": _instances(run, served, p, blocks),
        **_engines(pool, run, p),
        **_money(study, pool, run.simulated_s * on, tokens),
        **_energy(study, pool, run.simulated_s * on, float(run.busy_s[mine].sum()), tokens["output"]),
    }


def share_on(run: Run, p: int) -> float:
    """Share of the run in which the instances of a pool were not down; 1 where none comes or goes."""
    mine = run.pool == p
    whole = run.simulated_s * int(mine.sum())
    return min(1.0, float(run.on_s[mine].sum()) / whole) if whole else 1.0


def _tokens(run: Run, served: Served, p: int) -> dict[str, int]:
    """Tokens of completed requests: a prompt counts where it was read, an answer where it was completed."""
    mine = run.pool == p
    names = {"input": served.input_tokens, "cached": served.cached_tokens, "output": served.output_tokens}
    return {name: int(column[mine].sum()) for name, column in names.items()}


def _engines(pool: Pool, run: Run, p: int) -> dict[str, Any]:
    """What prefix caches found, what links did, who was sent back, and how long instances were on."""
    mine = run.pool == p
    read = (prompt_pool(run) == p) & np.isfinite(run.admit_s)
    inputs = run.requests.input_tokens[read]
    looked_at, seconds = int(inputs.sum(dtype=np.int64)), run.simulated_s

    def share(found: Any) -> float:
        return int(np.minimum(found[read], inputs).sum(dtype=np.int64)) / looked_at if looked_at else 0.0

    tiers = pool.host is not None or pool.remote is not None
    linked = pool.deployment.role != "both"
    return {
        "role": pool.deployment.role,
        "cache_hit_share": share(run.hit_tokens) if pool.prefix_cache else None,
        "loaded_share": share(run.loaded_tokens) if pool.prefix_cache and tiers else None,
        "link_busy": (float(run.link_busy_s[mine].mean()) / seconds if seconds else 0.0) if linked else None,
        "restarts": int(run.restarts[run.request_pool == p].sum()),
        "share_on": share_on(run, p),
        "on_hours": float(run.on_s[mine].sum()) / SECONDS_PER_HOUR,
    }


def _instances(run: Run, served: Served, p: int, blocks: int) -> dict[str, list[Any]]:
    """A column over the instances of a pool for each figure."""
    mine, seconds = run.pool == p, run.simulated_s or 1.0
    requests = served.prompts[mine] if served.prompts[mine].any() else served.answers[mine]
    return {
        "busy": (run.busy_s[mine] / seconds).tolist(),
        "batch": (run.seq_steps[mine] / np.maximum(run.steps[mine], 1)).tolist(),
        "kv_peak": (run.kv_peak_blocks[mine] / blocks).tolist(),
        "preemptions": run.preemptions[mine].tolist(),
        "requests": requests.tolist(),
        "input_tokens": served.input_tokens[mine].tolist(),
        "output_tokens": served.output_tokens[mine].tolist(),
    }


def price_of(study: Study, pool: Pool) -> HourlyPrice:
    """What a system of a pool costs by the hour on the study's basis; InfermixError where that is not known."""
    prices = study.market.prices if study.market else {}
    system = pool.deployment.system
    return hourly_price(system, study.cost_basis, study.cost, prices.get(system.id))


def _money(study: Study, pool: Pool, seconds: float, tokens: dict[str, int]) -> dict[str, Any]:
    """Cost of a pool's systems over the time that they were on, laid on the tokens that it served.

    Rent is for the time that instances are not down; a system that several share costs by the share of them that is on.
    """
    try:
        price = price_of(study, pool)
    except InfermixError as fault:
        return {"usd": None, "usd_per_hour": None, "usd_per_mtok": None, "usd_reason": str(fault)}
    hourly = pool.systems * price.usd_per_hour
    usd = hourly * seconds / SECONDS_PER_HOUR
    return {"usd": usd, "usd_per_hour": hourly, "usd_per_mtok": laid_on(usd, tokens["input"], tokens["output"])}


def laid_on(usd: float, inputs: int, outputs: int) -> dict[str, float] | None:
    """A cost over a million tokens of input, of output, or of both; None where there are none."""
    if not inputs or not outputs or not usd:
        return None
    amounts = {"input": inputs, "output": outputs, "blended": inputs + outputs}
    return {name: usd * TOKENS_PER_MTOK / amount for name, amount in amounts.items()}


def _energy(study: Study, pool: Pool, seconds: float, busy_s: float, outputs: int) -> dict[str, Any]:
    """Energy at the wall: the catalogue's power is taken to be drawn while an instance is inside a step.

    ``busy`` counts that alone, as if idle systems drew nothing; ``always_on`` counts all systems of the pool, whole
    and all the time that their instances were not down. What was drawn lies between the two.
    """
    d = pool.deployment
    try:
        watts = facility_w(d.system, study.cost.pue)
    except NoAnswer as fault:
        return {"energy_kwh": None, "output_tokens_per_joule": None, "energy_reason": str(fault)}
    busy_j = busy_s * watts * d.systems_per_instance / d.instances_per_system
    always_j = pool.systems * watts * seconds
    return {
        "energy_kwh": {"busy": busy_j / JOULE_PER_KWH, "always_on": always_j / JOULE_PER_KWH},
        "output_tokens_per_joule": outputs / busy_j if busy_j else None,
    }

"""The verbs over one study file: simulate, plan, report."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from infermix.catalog.load import Catalog
from infermix.catalog.parse import check_keys, convert, toml
from infermix.catalog.query import find_model
from infermix.cost.rent import hourly_price
from infermix.errors import InfermixError, InputError, located
from infermix.fleet import Fleet, PoolRow, make_fleet
from infermix.metrics.goodput import meets
from infermix.metrics.latency import percentiles
from infermix.perf.figures import of_deployment, with_roots
from infermix.perf.table import compile_table
from infermix.plan.problem import Study, load_study
from infermix.plan.question import offered, open_facts
from infermix.plan.result import Plan
from infermix.sim.result import COMPLETED, REFUSED, UNFINISHED, Run
from infermix.units import SECONDS_PER_HOUR, TOKENS_PER_MTOK
from infermix.workload.arrivals import Drawn
from infermix.workload.classes import Slo, TrafficClass

SPEEDS = ("nominal", "low", "both")
Progress = Callable[[str], None]


def plan(study: str | Path | Study, *, progress: Progress | None = None) -> Plan:
    """Plan a study: the cheapest fleet that keeps every promise, proved by simulation, with the reasons."""
    from infermix.plan.run import make_plan

    return make_plan(_opened(study), progress)


def report(plan: Plan, path: str | Path) -> None:
    """Write a plan as one self-contained HTML page."""
    from infermix.report.html import write_report

    write_report(plan, path)


def workload(profile: str, *, slo: Slo, rate_per_s: float | None = None, sessions: int | None = None) -> TrafficClass:
    """A traffic class from a packaged profile, at a mean rate or with so many sessions at work.

    >>> workload("agentic-coding", slo=Slo(ttft_s=1.5, tpot_s=0.005), sessions=200).profile
    'agentic-coding'
    """
    cls = TrafficClass(profile=profile, slo=slo, rate_per_s=rate_per_s, sessions=sessions)
    cls.check("workload")
    return cls


def simulate(
    study: str | Path | Study,
    *,
    fleet: str | Path | Fleet | None = None,
    instances: int | None = None,
    requests: int | None = None,
    seed: int | None = None,
    policy: str | None = None,
    speeds: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Simulate a study's traffic on a fleet.

    Parameters
    ----------
    fleet
        A ``plan.json``, a TOML with ``[fleet.NAME]`` tables, or a Fleet; else the study's own fleet, else
        ``instances`` of its first system, else what ``plan`` answers.
    policy
        A packaged policy or one registered with ``@im.policy``, or ``FILE.py:FUNCTION``; else the study's.
    requests
        Draw or repeat the traffic to so many requests.
    speeds
        ``nominal``, ``low`` or ``both``; a plan's fleet is simulated at both unless told otherwise.
    """
    opened = _opened(study)
    choose = _policy(opened, policy)
    facts = open_facts(opened)
    used, planned = _fleet(opened, facts, fleet, instances)
    wanted = speeds or ("both" if planned else "nominal")
    if wanted not in SPEEDS:
        raise InputError("unknown speeds", value=wanted, allowed=", ".join(SPEEDS))
    with located(f"{opened.path}: model"):
        model = find_model(opened.model, facts)
    first = opened.simulate.seed if seed is None else seed
    if requests is not None and requests < 1:
        raise InputError("requests must be 1 or more", value=requests)
    minimum = 0 if requests is not None else opened.prove.requests_per_class
    drawn = offered(opened, model, seed=first, requests=requests, min_per_class=minimum)
    runs = {
        s: _run(opened, used, drawn, s, first, choose, progress)
        for s in (("nominal", "low") if wanted == "both" else (wanted,))
    }
    return summarise(opened, used, drawn, runs, seed=first, policy=policy or opened.simulate.policy)


def _opened(study: str | Path | Study) -> Study:
    return study if isinstance(study, Study) else load_study(study)


def _policy(study: Study, name: str | None) -> Any:
    """The policy by that name, as the command line says it, else the study's."""
    from infermix.plan.routing import policy_of
    from infermix.route.registry import find_policy

    return policy_of(study) if name is None else find_policy(name)


def _run(
    study: Study,
    fleet: Fleet,
    drawn: Drawn,
    speed: str,
    seed: int,
    policy: Any,
    progress: Callable[[int, int], None] | None,
) -> Run:
    from infermix.plan.routing import usd_per_s_of
    from infermix.sim.run import simulate_fleet

    return simulate_fleet(
        fleet,
        drawn.requests,
        policy,
        speed=speed,
        seed=seed,
        progress=progress,
        classes=study.traffic,
        usd_per_s=usd_per_s_of(study, fleet),
    )


def _fleet(study: Study, facts: Catalog, fleet: str | Path | Fleet | None, instances: int | None) -> tuple[Fleet, bool]:
    """(the fleet, whether a plan made it)."""
    if isinstance(fleet, Fleet):
        return fleet, False
    classes = tuple(study.traffic)
    if fleet is not None:
        rows, planned = _read_rows(Path(fleet))
        return make_fleet(facts, rows, study.model, classes, str(fleet)), planned
    if study.fleet:
        return make_fleet(facts, study.fleet, study.model, classes, f"{study.path}: fleet"), False
    if instances is not None:
        if study.market is None:
            raise InputError("no systems on the market", where=study.path, mend="add [market] systems, or [fleet.NAME]")
        row = PoolRow(system=study.market.systems[0], instances=instances)
        return make_fleet(facts, {row.system: row}, study.model, classes, "--instances"), False
    made = plan(study)
    return make_fleet(facts, _plan_rows(msgspec.to_builtins(made)["fleet"], "plan"), study.model, classes, "plan"), True


def _read_rows(path: Path) -> tuple[dict[str, PoolRow], bool]:
    """Rows of a plan.json or of a TOML's ``[fleet.NAME]`` tables."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise InputError(
            "cannot be read", where=str(path), allowed="a plan.json, or a TOML with [fleet.NAME] tables"
        ) from None
    if path.suffix == ".json":
        try:
            raw = msgspec.json.decode(text)
        except msgspec.DecodeError as fault:
            raise InputError(f"not valid JSON: {fault}", where=str(path)) from None
        if not isinstance(raw, dict) or not isinstance(raw.get("fleet"), list):
            raise InputError("no fleet in it", where=str(path), allowed='a plan with "fleet": [...]')
        return _plan_rows(raw["fleet"], str(path)), True
    raw = toml(text, str(path))
    if not isinstance(raw.get("fleet"), dict) or not raw["fleet"]:
        raise InputError("no fleet in it", where=str(path), allowed="[fleet.NAME] tables")
    rows = {}
    for name, row in raw["fleet"].items():
        if not isinstance(row, dict):
            raise InputError("a pool must be a table", where=f"{path}: fleet.{name}", value=row)
        check_keys(row, PoolRow.__struct_fields__, f"{path}: fleet.{name}")
        rows[name] = convert(PoolRow, row, f"{path}: fleet.{name}")
    return rows, False


def _plan_rows(rows: list[Any], where: str) -> dict[str, PoolRow]:
    """Rows of a plan's fleet; pools of no instances are left out."""
    found = {}
    for i, raw in enumerate(rows):
        row = convert(PoolRow, raw, f"{where}: fleet[{i}]")
        if row.instances > 0:
            found[row.name or f"pool{i}"] = row
    return found


def summarise(
    study: Study, fleet: Fleet, drawn: Drawn, runs: dict[str, Run], *, seed: int, policy: str
) -> dict[str, Any]:
    """What a simulation found, in the keys of the command line; times and pools are of the first run."""
    run = next(iter(runs.values()))
    counts = {
        name: int((run.status == code).sum())
        for name, code in (("completed", COMPLETED), ("refused", REFUSED), ("unfinished", UNFINISHED))
    }
    classes = {name: _class_row(study, runs, c, name) for c, name in enumerate(run.requests.class_names)}
    required = "low" if "low" in runs and study.prove.speeds == "low" else next(iter(runs))
    key = "attainment_low" if required == "low" and "nominal" in runs else "attainment"
    return {
        "requests": len(run.requests),
        **counts,
        "simulated_s": run.simulated_s,
        "kernel_s": run.kernel_s,
        "peak_rss_bytes": _peak_rss_bytes(),
        "seed": seed,
        "policy": policy,
        "speeds": list(runs),
        "interrupted": run.interrupted,
        "classes": classes,
        "pools": {pool.name: _pool_row(fleet, run, p) for p, pool in enumerate(fleet.pools)},
        "clipped": {name: n for name, n in drawn.clipped.items() if n},
        "promises_kept": all(row[key] >= row["promised"] for row in classes.values()),
        "usd_per_mtok": _usd_per_mtok(study, fleet, run),
        "figures": _figures(study, fleet),
    }


def _figures(study: Study, fleet: Fleet) -> list[str]:
    """Ids of the catalogue figures that the fleet's speeds and prices came from."""
    found = [id_ for pool in fleet.pools for id_ in of_deployment(pool.deployment)]
    prices = study.market.prices if study.market else {}
    for pool in fleet.pools:
        system = pool.deployment.system
        try:
            found += hourly_price(system, study.cost_basis, study.cost, prices.get(system.id)).figures
        except InfermixError:
            continue
    return with_roots(open_facts(study), found)


def _class_row(study: Study, runs: dict[str, Run], c: int, name: str) -> dict[str, Any]:
    slo = study.traffic[name].slo
    row: dict[str, Any] = {"promised": slo.attainment}
    for i, (speed, run) in enumerate(runs.items()):
        suffix = "" if i == 0 else f"_{speed}"
        mine = run.requests.class_id == c
        uncached = (run.requests.input_tokens - run.requests.cached_tokens)[mine]
        times = {"ttft_s": run.ttft_s[mine], "tpot_s": run.tpot_s[mine], "e2e_s": run.e2e_s[mine]}
        good = meets(slo, times["ttft_s"], times["tpot_s"], times["e2e_s"], uncached)
        row |= {f"{key}{suffix}": percentiles(values) for key, values in times.items()}
        row[f"attainment{suffix}"] = float(good.mean()) if len(good) else 0.0
        row[f"goodput_per_s{suffix}"] = float(good.sum() / run.simulated_s) if run.simulated_s else 0.0
        row.setdefault("requests", len(good))
    return row


def _pool_row(fleet: Fleet, run: Run, p: int) -> dict[str, Any]:
    pool, mine = fleet.pools[p], run.pool == p
    done = (run.request_pool == p) & (run.status == COMPLETED)
    blocks = compile_table(pool.deployment).blocks
    steps = run.steps[mine].sum()
    return {
        "system": pool.deployment.system.id,
        "deployment": pool.deployment.name,
        "instances": pool.instances,
        "busy": float(run.busy_s[mine].mean() / run.simulated_s) if run.simulated_s else 0.0,
        "batch": float(run.seq_steps[mine].sum() / steps) if steps else 0.0,
        "kv_peak": float(run.kv_peak_blocks[mine].max() / blocks),
        "preemptions": int(run.preemptions[mine].sum()),
        "tokens": {
            "input": int(run.requests.input_tokens[done].sum()),
            "output": int(run.requests.output_tokens[done].sum()),
        },
    }


def _usd_per_mtok(study: Study, fleet: Fleet, run: Run) -> dict[str, float] | None:
    """Cost of a million tokens laid on input, on output, or on both; None without prices on the study's basis."""
    prices = study.market.prices if study.market else {}
    try:
        hourly = sum(
            p.systems
            * hourly_price(
                p.deployment.system, study.cost_basis, study.cost, prices.get(p.deployment.system.id)
            ).usd_per_hour
            for p in fleet.pools
        )
    except InfermixError:
        return None
    done = run.status == COMPLETED
    tokens = np.array([run.requests.input_tokens[done].sum(), run.requests.output_tokens[done].sum()], dtype=float)
    if not tokens.all() or not run.simulated_s:
        return None
    spent = hourly / SECONDS_PER_HOUR * run.simulated_s * TOKENS_PER_MTOK
    laid_on = {"input": tokens[0], "output": tokens[1], "blended": tokens.sum()}
    return {name: float(spent / amount) for name, amount in laid_on.items()}


def _peak_rss_bytes() -> int:
    """Highest memory of this process so far [bytes]; on Linux without what its parent had when it started it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next((x for x in status.read_text().splitlines() if x.startswith("VmHWM:")), "")
        if line:
            return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024

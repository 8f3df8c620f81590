"""The verbs over one study file: simulate, plan, design, report."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from infermix.catalog.load import Catalog
from infermix.catalog.parse import check_keys, convert, toml
from infermix.catalog.query import find_model
from infermix.errors import InputError, located
from infermix.explore.design_question import Question as DesignQuestion
from infermix.explore.design_question import read_question
from infermix.explore.designs import Candidate, Design
from infermix.explore.designs import design as search
from infermix.fleet import Fleet, PoolRow, make_fleet, plan_rows
from infermix.plan.export.files import made_folder as made_folder
from infermix.plan.problem import Study, load_study
from infermix.plan.question import open_facts
from infermix.plan.quote.result import Quote
from infermix.plan.result import Plan
from infermix.route.names import AUTO, BASE
from infermix.silicon.record import Box, as_toml, raw_records
from infermix.summary.running import run_seeds
from infermix.summary.simulation import Simulation
from infermix.summary.whole import summarise
from infermix.workload.classes import Slo, TrafficClass

SPEEDS = ("nominal", "low", "both")
Progress = Callable[[str], None]


def plan(study: str | Path | Study, *, progress: Progress | None = None, cache: bool = True, frontier: int = 0) -> Plan:
    """Plan a study: the cheapest fleet that keeps every promise, proved by simulation, with the reasons.

    With ``cache``, capacities are read from and written to the user's cache folder; the answer is the same without.
    ``frontier``: how many fleets are proved, at least, for cost against speed.
    """
    from infermix.plan.cache import user_store
    from infermix.plan.run import make_plan

    return make_plan(_opened(study), progress, user_store() if cache else None, frontier)


def write_plan_files(study: str | Path | Study, made: Plan, folder: Path) -> list[str]:
    """Write what leaves a plan beside its ``plan.json``; the names of the files."""
    from infermix.plan.export.files import plan_files, write_files

    opened = _opened(study)
    found = plan_files(made, opened, open_facts(opened), folder)
    write_files(found, folder)
    return list(found)


def quote(study: str | Path | Study, offer: str | Path, *, progress: Progress | None = None) -> Quote:
    """A vendor's offer against a study's traffic: break-even price, odds of being right, what to ask for instead."""
    from infermix.plan.cache import user_store
    from infermix.plan.quote.run import quote as answer

    return answer(_opened(study), offer, progress, user_store())


def design(path: str | Path, *, progress: Progress | None = None) -> Design:
    """Which chip to build: a screen over a space, ``perf`` on what remains, the best in the mixed fleet of a study."""
    say = progress or (lambda _: None)
    asked = read_question(path)
    say("screening and perf")
    with located(str(path)):
        found, _ = search(asked)
    if asked.study is not None:
        say("the best in the fleet")
        _in_the_fleet(asked, found)
    return found


FLEET_SIMULATED = 3
"""Designs whose worth in the fleet is found with simulated capacities; of the others the bound is told."""


def write_designs(path: str | Path, found: Design, folder: str | Path) -> list[Path]:
    """Write the best designs as chips of one's own, for ``[market] own_chips``; raises InputError where that fails."""
    asked = read_question(path)
    if not Path(folder).is_dir():
        raise InputError("no such folder", where=str(folder))
    return [_own_chip(asked, candidate, Path(folder))[0] for candidate in found.candidates]


def _own_chip(asked: DesignQuestion, candidate: Candidate, folder: Path) -> tuple[Path, str]:
    """File and system of one design."""
    raw = raw_records(candidate.chip, asked.table, Box(), candidate.price_usd)
    raw["system"]["capital_usd"]["value"] += raw["system"]["chips"] * asked.money.system_usd_per_chip
    file = folder / f"{candidate.chip.id}.toml"
    file.write_text(as_toml(raw), encoding="utf-8")
    return file, str(raw["system"]["id"])


def _in_the_fleet(asked: DesignQuestion, found: Design) -> None:
    """What a fleet that may buy each of the best designs costs, beside the fleet without."""
    from infermix.plan.marginal import marginal_costs

    study = load_study(asked.study or "")
    with tempfile.TemporaryDirectory() as folder:
        made = [_own_chip(asked, candidate, Path(folder)) for candidate in found.candidates]
        files, systems = [file for file, _ in made], [system for _, system in made]
        cost, bound, each = marginal_costs(study, files, systems, FLEET_SIMULATED)
    found.fleet = {"study": str(asked.study), "usd_per_hour": cost, "bound_usd_per_hour": bound, "each": [
        {**m._asdict(), "design": c.chip.id} for m, c in zip(each, found.candidates, strict=True)
    ]}  # fmt: skip
    for candidate, told in zip(found.candidates, each, strict=True):
        candidate.marginal_usd_per_hour = bound - told.bound_usd_per_hour


def report(found: Plan | Mapping[str, Any], path: str | Path) -> None:
    """Write a plan, or what ``simulate`` found, as one self-contained HTML page."""
    if isinstance(found, Plan):
        from infermix.report.html import write_report

        write_report(found, path)
        return
    from infermix.report.simulation import write_simulation

    write_simulation(found, path)


def workload(profile: str, *, slo: Slo, rate_per_s: float | None = None, sessions: int | None = None) -> TrafficClass:
    """A traffic class from a packaged profile, at a mean rate or with so many sessions at work.

    >>> workload("agentic-coding", slo=Slo(ttft_s=1.5, tpot_s=0.005), sessions=200).profile
    'agentic-coding'
    """
    cls = TrafficClass(profile=profile, slo=slo, rate_per_s=rate_per_s, sessions=sessions)
    cls.check("workload")
    return cls


def simulate(study: str | Path | Study, **choices: Any) -> dict[str, Any]:
    """Simulate a study's traffic on a fleet, in the keys of the command line; choices as in ``simulated``."""
    return summarise(simulated(study, **choices))


def simulated(
    study: str | Path | Study,
    *,
    fleet: str | Path | Fleet | None = None,
    instances: int | None = None,
    requests: int | None = None,
    seed: int | None = None,
    seeds: int = 1,
    policy: str | None = None,
    speeds: str | None = None,
    whole: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Simulation:
    """Simulate a study's traffic on a fleet.

    Parameters
    ----------
    fleet
        A ``plan.json``, a TOML with ``[fleet.NAME]`` tables, or a Fleet; else the study's own fleet, else
        ``instances`` of its first system, else what ``plan`` answers.
    policy
        A packaged policy or one registered with ``@im.policy``, or ``FILE.py:FUNCTION``; else the study's.
    requests
        Draw or repeat the traffic to so many requests, under every seed.
    seed, seeds
        The first seed (the study's unless told), and how many in a row are simulated.
    speeds
        ``nominal``, ``low`` or ``both``; a plan's fleet is simulated at both unless told otherwise.
    whole
        Keep every request of a run, however long; else of more than five million plain ones a part is kept, and
        counts are added up.

    An interrupt (Ctrl-C) ends the runs; what was simulated until then is returned with ``interrupted`` set.
    """
    opened = _opened(study)
    choose = _policy(opened, policy)
    facts = open_facts(opened)
    for name, count in (("requests", requests), ("seeds", seeds)):
        if count is not None and count < 1:
            raise InputError(f"{name} must be 1 or more", value=count)
    used, planned = _fleet(opened, facts, fleet, instances)
    wanted = speeds or ("nominal" if planned is None else "both")
    named = policy or opened.simulate.policy
    if named == AUTO:
        named = planned or BASE
        choose = _policy(opened, named)
    if wanted not in SPEEDS:
        raise InputError("unknown speeds", value=wanted, allowed=", ".join(SPEEDS))
    with located(f"{opened.path}: model"):
        model = find_model(opened.model, facts)
    first = opened.simulate.seed if seed is None else seed
    return run_seeds(
        opened,
        used,
        model,
        seeds=range(first, first + seeds),
        speeds=("nominal", "low") if wanted == "both" else (wanted,),
        policy=choose,
        policy_name=named,
        requests=requests,
        whole=whole,
        progress=progress,
    )


def _opened(study: str | Path | Study) -> Study:
    return study if isinstance(study, Study) else load_study(study)


def _policy(study: Study, name: str | None) -> Any:
    """The policy by that name, as the command line says it, else the study's."""
    from infermix.plan.routing import policy_of
    from infermix.route.registry import find_policy

    return policy_of(study) if name is None else find_policy(name)


def _fleet(
    study: Study, facts: Catalog, fleet: str | Path | Fleet | None, instances: int | None
) -> tuple[Fleet, str | None]:  # fmt: skip
    """(the fleet, the policy of the plan that made it); None where no plan did."""
    if isinstance(fleet, Fleet):
        return fleet, None
    classes = tuple(study.traffic)
    if fleet is not None:
        rows, planned = _read_rows(Path(fleet))
        return make_fleet(facts, rows, study.model, classes, str(fleet)), planned
    if study.fleet:
        return make_fleet(facts, study.fleet, study.model, classes, f"{study.path}: fleet"), None
    if instances is not None:
        if study.market is None:
            raise InputError("no systems on the market", where=study.path, mend="add [market] systems, or [fleet.NAME]")
        row = PoolRow(system=study.market.systems[0], instances=instances)
        return make_fleet(facts, {row.system: row}, study.model, classes, "--instances"), None
    made = plan(study)
    rows = plan_rows(msgspec.to_builtins(made)["fleet"], "plan")
    return make_fleet(facts, rows, study.model, classes, "plan"), made.policy


def _read_rows(path: Path) -> tuple[dict[str, PoolRow], str | None]:
    """Rows of a plan.json, and its policy; or those of a TOML's ``[fleet.NAME]`` tables."""
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
        return plan_rows(raw["fleet"], str(path)), str(raw.get("policy") or BASE)
    raw = toml(text, str(path))
    if not isinstance(raw.get("fleet"), dict) or not raw["fleet"]:
        raise InputError("no fleet in it", where=str(path), allowed="[fleet.NAME] tables")
    rows = {}
    for name, row in raw["fleet"].items():
        if not isinstance(row, dict):
            raise InputError("a pool must be a table", where=f"{path}: fleet.{name}", value=row)
        check_keys(row, PoolRow.__struct_fields__, f"{path}: fleet.{name}")
        rows[name] = convert(PoolRow, row, f"{path}: fleet.{name}")
    return rows, None

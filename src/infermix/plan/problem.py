"""The study file: one TOML describes a question, and every verb reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from infermix.catalog.measured import CalibrationFile
from infermix.catalog.parse import check_keys, convert, toml
from infermix.cost.rent import CostBasis, Terms
from infermix.errors import InputError, near_miss
from infermix.fleet import Autoscale, PoolRow
from infermix.plan.market import ApiRow, ContractRow, Market, PairRow
from infermix.plan.rules import Limits, Objective, Redundancy, Share
from infermix.route.names import AUTO, BASE, check_policy
from infermix.workload.classes import Part, Slo, TrafficClass
from infermix.workload.laws import Arrivals
from infermix.workload.shape import Sine
from infermix.workload.worth import Worth


class Event(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Something that happens to an instance at a stated time."""

    at_s: float
    pool: str
    instance: int
    """Its number within the pool, from 0."""
    what: Literal["fail", "start", "drain"]

    def check(self, where: str) -> None:
        """Raise InputError for a time or a number that cannot be."""
        if not 0 <= self.at_s < float("inf"):
            raise InputError("at_s must be finite and 0 or more", where=f"{where}.at_s", value=self.at_s)
        if self.instance < 0:
            raise InputError("instances count from 0", where=f"{where}.instance", value=self.instance)


class Failures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Instances fail at random, each by itself."""

    mtbf_hours: float
    """Mean time that an instance is up before it fails."""
    repair_s: float
    """From a failure until the instance is started again."""

    def check(self, where: str) -> None:
        """Raise InputError unless both are positive and finite."""
        for name in ("mtbf_hours", "repair_s"):
            value = getattr(self, name)
            if not 0 < value < float("inf"):
                raise InputError(f"{name} must be positive and finite", where=f"{where}.{name}", value=value)


class Simulate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the simulator runs for this study."""

    policy: str = BASE
    """A packaged policy, or ``FILE.py:FUNCTION`` of one's own; ``auto``: the plan tries the packaged ones."""
    seed: int = 1
    stale_s: float = 0.0
    """Time between two readings of the counters that the policy sees; 0: always fresh."""
    resume: bool = False
    """Requests that a failure sends back keep the tokens that they have."""
    events: list[Event] = []
    failures: Failures | None = None

    def check(self, where: str) -> None:
        """Raise InputError for times and numbers that cannot be."""
        if not 0 <= self.stale_s < float("inf"):
            raise InputError("stale_s must be finite and 0 or more", where=f"{where}.stale_s", value=self.stale_s)
        for i, event in enumerate(self.events):
            event.check(f"{where}.events[{i}]")
        if self.failures is not None:
            self.failures.check(f"{where}.failures")


class Prove(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a proof takes: seeds, requests of each class in every seed, and the speeds at which promises must hold."""

    seeds: int = 5
    requests_per_class: int = 10_000
    speeds: Literal["low", "nominal"] = "low"


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A training run that holds whole systems, every day in some hours or always."""

    system: str
    systems: int
    """How many of them it holds."""
    hours: tuple[int, int] | None = None
    """From and to, hours of the day; over midnight where from is later than to."""

    def check(self, where: str) -> None:
        """Raise InputError unless it holds systems, in hours that exist."""
        if self.systems < 1:
            raise InputError(
                "a training run holds systems", where=f"{where}.systems", value=self.systems, allowed=">= 1"
            )
        if self.hours is not None and not (0 <= self.hours[0] < 24 and 0 <= self.hours[1] <= 24):
            raise InputError("no such hours", where=f"{where}.hours", value=self.hours, allowed="from 0-23, to 0-24")
        if self.hours is not None and self.hours[0] == self.hours[1]:
            raise InputError(
                "no hour between them", where=f"{where}.hours", value=self.hours, mend="leave hours out for always"
            )


class Slots(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Equal parts of the day that are planned apart; one: the busiest hour is planned."""

    count: Literal[1, 2, 3, 4, 6, 8, 12, 24] = 1
    usd_per_start: float = 0.0
    """What it costs to start an instance that did not run in the slot before."""
    load_gb_per_s: float | None = None
    """Rate at which an instance that starts loads its weights; meanwhile it serves nothing."""

    def check(self, where: str) -> None:
        """Raise InputError for costs and rates that cannot be."""
        if not 0 <= self.usd_per_start < float("inf"):
            raise InputError("a cost is finite and 0 or more", where=f"{where}.usd_per_start", value=self.usd_per_start)
        if self.load_gb_per_s is not None and not 0 < self.load_gb_per_s < float("inf"):
            raise InputError("must be positive and finite", where=f"{where}.load_gb_per_s", value=self.load_gb_per_s)


class Scenario(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A demand that may come: what is bought or reserved stands before it is known which one comes."""

    probability: float
    factors: dict[str, float] = {}
    """Class → its rates over those of the study."""

    def check(self, where: str) -> None:
        """Raise InputError for probabilities and factors that cannot be."""
        if not 0 < self.probability <= 1:
            raise InputError(
                "a probability lies above 0, up to 1", where=f"{where}.probability", value=self.probability
            )
        for name, factor in self.factors.items():
            if not 0 <= factor < float("inf"):
                raise InputError("a factor is finite and 0 or more", where=f"{where}.factors.{name}", value=factor)


class Study(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A question."""

    model: str
    """Of every class that states no other."""
    traffic: dict[str, TrafficClass]
    cost_basis: CostBasis = "rent"
    name: str = ""
    market: Market | None = None
    cost: Terms = Terms()
    limits: Limits = Limits()
    objective: Objective = Objective()
    slots: Slots = Slots()
    scenarios: dict[str, Scenario] = {}
    simulate: Simulate = Simulate()
    prove: Prove = Prove()
    fleet: dict[str, PoolRow] = {}
    calibration: dict[str, CalibrationFile] = {}
    training: dict[str, Training] = {}
    path: str = ""
    """File it came from; paths inside are relative to its folder."""

    @property
    def base_dir(self) -> Path:
        """Folder that paths in the study are relative to."""
        return Path(self.path).parent


_TABLES: dict[str, type[msgspec.Struct]] = {
    "market": Market, "cost": Terms, "limits": Limits, "objective": Objective, "slots": Slots, "simulate": Simulate,
    "prove": Prove,
}  # fmt: skip


def load_study(path: str | Path) -> Study:
    """Read and check a study file.

    Raises
    ------
    InputError
        One line: the file, the key, the value, what is allowed, how to mend it.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        reason = fault.strerror if isinstance(fault, OSError) else "not UTF-8 text"
        raise InputError(f"cannot be read: {reason}", where=str(path), mend="name a study file (TOML)") from None
    return parse_study(toml(text, str(path)), str(path))


def parse_study(raw: dict[str, Any], path: str) -> Study:
    """A study from parsed TOML."""
    _check_tables(raw, path)
    for name, table in _tables_in(raw, "traffic"):
        convert(TrafficClass, table, f"{path}: traffic.{name}")
    for name, pool in _tables_in(raw, "fleet"):
        convert(PoolRow, pool, f"{path}: fleet.{name}")
    for name, own in _tables_in(raw, "calibration"):
        convert(CalibrationFile, own, f"{path}: calibration.{name}")
    for name, run in _tables_in(raw, "training"):
        convert(Training, run, f"{path}: training.{name}")
    study = convert(Study, {**raw, "path": path}, path)
    if not study.traffic:
        raise InputError("no traffic", where=path, mend="add [traffic.NAME] with profile, trace or mix, and slo")
    for name, cls in study.traffic.items():
        cls.check(f"{path}: traffic.{name}")
        if (cls.profile is not None or cls.mix) and cls.rate_per_s is None and cls.sessions is None:
            what = "a mix" if cls.mix else "a profile"
            raise InputError(f"{what} needs a rate", where=f"{path}: traffic.{name}", mend="add rate_per_s")
    for name, held in study.training.items():
        held.check(f"{path}: training.{name}")
    for key, checked in _checked(study):
        checked.check(f"{path}: {key}")
    _check_scenarios(study, path)
    check_policy(study.simulate.policy, f"{path}: simulate.policy", also=(AUTO,))
    _check_numbers(study, path)
    return study


def _checked(study: Study) -> list[tuple[str, Market | Limits | Slots | Simulate]]:
    """Tables that check themselves."""
    found: list[tuple[str, Market | Limits | Slots | Simulate]] = [
        ("limits", study.limits), ("slots", study.slots), ("simulate", study.simulate),
    ]  # fmt: skip
    return found + ([("market", study.market)] if study.market else [])


def _check_scenarios(study: Study, path: str) -> None:
    """Raise InputError for scenarios of unknown classes, and probabilities above one."""
    for name, scenario in study.scenarios.items():
        scenario.check(f"{path}: scenarios.{name}")
        for cls in scenario.factors:
            if cls not in study.traffic:
                where, known = f"{path}: scenarios.{name}.factors", ", ".join(study.traffic)
                raise InputError(
                    "unknown class", where=where, value=cls, allowed=known, mend=near_miss(cls, study.traffic)
                )
    total = sum(scenario.probability for scenario in study.scenarios.values())
    if total > 1 + 1e-9:
        where = f"{path}: scenarios"
        raise InputError(
            "probabilities sum to more than 1", where=where, value=total, mend="what is left to 1 is the study's own"
        )


def _check_tables(raw: dict[str, Any], path: str) -> None:
    """Unknown keys, with their near misses, table by table."""
    check_keys(raw, tuple(f for f in Study.__struct_fields__ if f != "path"), path)
    for name, table in _TABLES.items():
        if isinstance(raw.get(name), dict):
            check_keys(raw[name], table.__struct_fields__, f"{path}: {name}")
    _check_simulate(raw.get("simulate"), f"{path}: simulate")
    for name, cls in _tables_in(raw, "traffic"):
        check_keys(cls, TrafficClass.__struct_fields__, f"{path}: traffic.{name}")
        for key, struct in (("slo", Slo), ("arrivals", Arrivals), ("shape", Sine), ("worth", Worth)):
            if isinstance(cls.get(key), dict):
                check_keys(cls[key], struct.__struct_fields__, f"{path}: traffic.{name}.{key}")
        for i, part in enumerate(cls["mix"] if isinstance(cls.get("mix"), list) else []):
            if isinstance(part, dict):
                check_keys(part, Part.__struct_fields__, f"{path}: traffic.{name}.mix[{i}]")
    for name, pool in _tables_in(raw, "fleet"):
        check_keys(pool, PoolRow.__struct_fields__, f"{path}: fleet.{name}")
        if isinstance(pool.get("autoscale"), dict):
            check_keys(pool["autoscale"], Autoscale.__struct_fields__, f"{path}: fleet.{name}.autoscale")
    for name, own in _tables_in(raw, "calibration"):
        check_keys(own, CalibrationFile.__struct_fields__, f"{path}: calibration.{name}")
    for name, run in _tables_in(raw, "training"):
        check_keys(run, Training.__struct_fields__, f"{path}: training.{name}")
    for name, made in _tables_in(raw, "scenarios"):
        check_keys(made, Scenario.__struct_fields__, f"{path}: scenarios.{name}")
    _check_market_and_limits(raw, path)


def _check_market_and_limits(raw: dict[str, Any], path: str) -> None:
    """Unknown keys of contracts, APIs, shares and redundancy."""
    market, limits = (raw[key] if isinstance(raw.get(key), dict) else {} for key in ("market", "limits"))
    for key, struct in (("contracts", ContractRow), ("api", ApiRow)):
        for name, row in _tables_in(market, key):
            check_keys(row, struct.__struct_fields__, f"{path}: market.{key}.{name}")
    for i, pair in enumerate(market["pairs"] if isinstance(market.get("pairs"), list) else []):
        if isinstance(pair, dict):
            check_keys(pair, PairRow.__struct_fields__, f"{path}: market.pairs[{i}]")
    if isinstance(limits.get("redundancy"), dict):
        check_keys(limits["redundancy"], Redundancy.__struct_fields__, f"{path}: limits.redundancy")
    for i, share in enumerate(limits["shares"] if isinstance(limits.get("shares"), list) else []):
        if isinstance(share, dict):
            check_keys(share, Share.__struct_fields__, f"{path}: limits.shares[{i}]")


def _check_simulate(table: Any, where: str) -> None:
    """Unknown keys of events and failures."""
    if not isinstance(table, dict):
        return
    if isinstance(table.get("failures"), dict):
        check_keys(table["failures"], Failures.__struct_fields__, f"{where}.failures")
    for i, event in enumerate(table["events"] if isinstance(table.get("events"), list) else []):
        if isinstance(event, dict):
            check_keys(event, Event.__struct_fields__, f"{where}.events[{i}]")


def _tables_in(raw: dict[str, Any], key: str) -> list[tuple[str, dict[str, Any]]]:
    table = raw.get(key)
    return [(k, v) for k, v in table.items() if isinstance(v, dict)] if isinstance(table, dict) else []


def _check_numbers(study: Study, path: str) -> None:
    terms = study.cost
    for key in ("gross_margin", "utilisation"):
        value = getattr(terms, key)
        if value is not None and not 0 <= value <= 1:
            raise InputError("a share must lie between 0 and 1", where=f"{path}: cost.{key}", value=value)
    if terms.gross_margin == 1:
        raise InputError("a margin of 1 leaves no cost", where=f"{path}: cost.gross_margin", value=1, allowed="below 1")
    for key in ("finance_rate", "hosting"):
        if not 0 <= getattr(terms, key) < 10:
            where = f"{path}: cost.{key}"
            raise InputError("out of range", where=where, value=getattr(terms, key), allowed="a share, 0 or more")
    positive: dict[str, float | None] = {
        "cost.life_years": terms.life_years, "cost.usd_per_kwh": terms.usd_per_kwh, "cost.pue": terms.pue,
        "cost.utilisation": terms.utilisation, "prove.seeds": study.prove.seeds,
        "prove.requests_per_class": study.prove.requests_per_class,
    }  # fmt: skip
    for key, value in positive.items():
        if value is not None and not 0 < value < float("inf"):
            raise InputError("must be positive and finite", where=f"{path}: {key}", value=value)

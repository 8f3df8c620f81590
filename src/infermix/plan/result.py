"""What a plan says. Imports neither kernel nor solver: reports and notebooks read it without loading them."""

from __future__ import annotations

import msgspec

SCHEMA_VERSION = 1


class PoolPlan(msgspec.Struct, kw_only=True):
    """A pool of the fleet: what ``simulate --fleet`` reads, and what it costs and carries."""

    name: str
    system: str
    model: str
    tp: int | None
    pp: int | None
    ep: int | None
    dp: int | None
    stages: int | None
    weights: str
    kv: str
    role: str
    max_num_seqs: int
    max_batched_tokens: int
    spec: str | None
    instances: int
    serves: dict[str, float]
    chip: str
    vendor: str
    kind: str
    """Kind of chip: hbm, sram, ..."""
    chips: int
    """Chips of all systems bought."""
    systems: int
    spare_instances: int
    """Further instances that the bought systems could host."""
    usd_per_hour: float
    basis: str
    share_tokens: float
    share_output_tokens: float
    derate: float
    kv_tokens_left: int
    """For each instance."""
    busy: float
    kv_peak: float
    facility_kw: float | None


class ClassPlan(msgspec.Struct, kw_only=True):
    """A class: its promise, and what the simulated fleet did at nominal and low speeds."""

    rate_per_s: float
    slo: dict[str, float]
    requests: int
    attainment: float
    ci: tuple[float, float]
    holds: bool
    attainment_low: float
    ci_low: tuple[float, float]
    holds_low: bool
    ttft_s: dict[str, float]
    tpot_s: dict[str, float]
    e2e_s: dict[str, float]
    ttft_s_low: dict[str, float]
    tpot_s_low: dict[str, float]
    e2e_s_low: dict[str, float]
    clipped_share: float
    """Requests shortened to the model's context, of all."""
    cdf: dict[str, list[float]]
    """ttft_s, tpot_s → quantiles at 0, 1, .. 100 % at nominal speeds."""
    cdf_low: dict[str, list[float]]


class SingleChip(msgspec.Struct, kw_only=True):
    """The cheapest fleet of one system alone, under the same promises, supply and power, without share limits."""

    system: str
    status: str
    """proved, proved_nominal, not_proved, or cannot."""
    usd_per_hour: float | None
    lower_bound_usd_per_hour: float | None
    classes: dict[str, dict[str, float | str | None]]
    """Class → ``usd_per_hour`` of serving it alone (simulated capacities, not proved) or the ``reason`` it cannot."""


class Limit(msgspec.Struct, kw_only=True):
    """A limit: its key in the study, what the fleet uses, and what one more unit is worth."""

    name: str
    used: float
    allowed: float
    binding: bool
    shadow_price: float
    """USD per hour saved by one more ``unit``, by solving again; 0 where it does not bind."""
    unit: str
    dual_usd_per_hour: float | None = None
    """The same of the relaxation in which nothing need be whole; None for limits that are no row of it."""


class EntryPoint(msgspec.Struct, kw_only=True):
    """Where a system that was not chosen would be, by solving again (simulated capacities, not proved)."""

    system: str
    usd_per_hour: float
    """Its price today."""
    entry_usd_per_hour: float | None
    """The highest price at which it enters; None where it would not at any."""
    entry_speed: float | None
    """How many times more its instances must serve to enter at today's price; None beyond 64 times."""


class Alternative(msgspec.Struct, kw_only=True):
    """The cheapest fleet of another set of systems (simulated capacities, not proved)."""

    systems: dict[str, int]
    usd_per_hour: float
    dearer: float
    """Relatively; below nothing where thinning or the solver's gap left something."""


class SwingPoint(msgspec.Struct, kw_only=True):
    """A catalogue figure at both ends of its range, all others as they are."""

    id: str
    low: float
    high: float
    usd_at_low: float | None
    """Cost of the best fleet then; None where there is none."""
    usd_at_high: float | None
    survives_low: bool
    """Whether the same systems are still the answer."""
    survives_high: bool


class Why(msgspec.Struct, kw_only=True):
    """Why a system is in the fleet, or is not."""

    system: str
    chosen: bool
    reason: str


class TrainingPlan(msgspec.Struct, kw_only=True):
    """A training run beside the fleet: the systems it holds, what they cost and draw."""

    name: str
    system: str
    systems: int
    chips: int
    hours: tuple[int, int] | None
    counted: bool
    """Whether it runs in the hour that is planned, so that supply and limits are lowered by it."""
    usd_per_hour: float
    basis: str
    facility_kw: float | None


class FigureUse(msgspec.Struct, kw_only=True):
    """A catalogue figure that the answer hangs on."""

    id: str
    value: float
    unit: str
    kind: str
    low: float | None
    high: float | None
    note: str


class FrontierPoint(msgspec.Struct, kw_only=True):
    """Cost of the fleet if a class were promised another speed."""

    class_name: str
    tpot_s: float
    usd_per_hour: float | None
    lower_bound_usd_per_hour: float | None
    """Queue-free, and systems may be fractions."""
    systems: dict[str, int]
    status: str = "not_proved"
    """``proved`` and ``proved_nominal`` as plans are; ``not_proved``: by simulated capacities alone."""
    held_tpot_s: float | None = None
    """The tightest TPOT that the fleet holds, where it is proved."""


class ProvedFleet(msgspec.Struct, kw_only=True):
    """A fleet that was proved for the frontier: it keeps all else that the study asks for."""

    usd_per_hour: float
    tpot_s: float
    """The tightest TPOT that it holds for the frontier's class."""
    pools: dict[str, int]
    """Pool → instances."""
    systems: dict[str, int]
    status: str
    best: bool
    """None is both faster and no dearer."""


class ContractPlan(msgspec.Struct, kw_only=True):
    """Systems had under a contract."""

    name: str
    system: str
    region: str
    systems: tuple[int, ...]
    """In each slot."""
    usd_per_hour: float
    """Of one system."""
    basis: str
    capital_usd: float
    """Of all systems that are bought."""


class ApiPlan(msgspec.Struct, kw_only=True):
    """What is bought of an API."""

    name: str
    vendor: str
    model: str
    serves: dict[str, float]
    """Class → share of its requests over the day."""
    usd_per_hour: float
    share_output_tokens: float


class SlotPlan(msgspec.Struct, kw_only=True):
    """A slot: its fleet, who is served by what, and the proof."""

    name: str
    hour: int | None
    hours: float
    scenario: str
    probability: float
    status: str
    rates_per_s: dict[str, float]
    """Class → requests a second that are asked for."""
    instances: dict[str, int]
    """Pool → running instances."""
    systems: dict[str, int] = {}
    """Pool → systems that host them."""
    usd_per_hour: dict[str, float] = {}
    """System or API → what is paid for it in this slot, at work or not; starts are not in it."""
    serves: dict[str, dict[str, float]]
    """Class → pool or API → share of its requests."""
    unmet: dict[str, float]
    """Class → share of its requests that is not served."""
    attainment: dict[str, float]
    attainment_low: dict[str, float]


class PairPlan(msgspec.Struct, kw_only=True):
    """A prefill pool that hands over to a decode pool, how ready the vendors' chips are for that, and who says so."""

    prefill: str
    decode: str
    readiness: str
    """shipping, demonstrated or hypothetical."""
    source: str
    transfer_s: dict[str, float] = {}
    """Class → time in which the KV cache of a mean prompt travels when nothing else does."""


class PolicyTrial(msgspec.Struct, kw_only=True):
    """A routing policy on the proved fleet (of a day: of its hardest slot): one seed, where promises must hold."""

    policy: str
    attainment: dict[str, float]
    room: float
    """Of the class with least: lower bound of attainment above the promise, over what the promise allows to miss."""
    breaks: list[str] = []
    """Limits that it breaks."""
    chosen: bool = False


class VendorPoint(msgspec.Struct, kw_only=True):
    """Cost of the fleet if no vendor may have more than a share of the spend (simulated capacities, not proved)."""

    max_vendor_share: float
    usd_per_hour: float | None
    vendor: str
    """The vendor that then has most, and its share."""
    share: float | None
    systems: dict[str, int]


class PowerPoint(msgspec.Struct, kw_only=True):
    """Profit of the best fleet within a power (simulated capacities, not proved)."""

    power_mw: float
    used_mw: float
    profit_usd_per_hour: float | None
    profit_usd_per_mw_hour: float | None
    systems: dict[str, int]


class Plan(msgspec.Struct, kw_only=True):
    """The answer to a study."""

    schema_version: int = SCHEMA_VERSION
    tool_version: str
    study: str
    study_hash: str
    model: str
    cost_basis: str
    policy: str
    """The study's; with ``auto`` the one that was chosen."""
    seeds: tuple[int, ...]
    speeds: str
    """Speeds at which the promises had to hold: low or nominal."""
    status: str
    usd_per_hour: float
    lower_bound_usd_per_hour: float
    gap: float
    fleet: list[PoolPlan]
    serves: dict[str, dict[str, float]]
    classes: dict[str, ClassPlan]
    unmet: dict[str, float]
    minimal: list[dict[str, object]]
    """Pool → what taking one of its instances away breaks."""
    single_chip: list[SingleChip]
    without_share_limits: dict[str, float | str | None]
    limits: list[Limit]
    why: list[Why]
    figures: list[str]
    unverified: list[FigureUse]
    frontier: list[FrontierPoint]
    usd_per_mtok: dict[str, float | None]
    """input, output and blended."""
    assumptions: list[str]
    rounds: int
    training: list[TrainingPlan] = []
    """Training runs; their cost is not part of ``usd_per_hour``."""
    planned_hour: int | None = None
    """Hour of the day that is planned; None where every hour is alike."""
    objective: str = "usd_per_hour"
    """What was minimised, or ``profit_usd_per_hour`` maximised."""
    revenue_usd_per_hour: float = 0.0
    """Worth of what is served, where profit is maximised."""
    profit_usd_per_hour: float | None = None
    profit_bound_usd_per_hour: float | None = None
    """No fleet of deployments that can hold their promises earns more."""
    contracts: list[ContractPlan] = []
    """Where systems are had under contracts."""
    api: list[ApiPlan] = []
    slots: list[SlotPlan] = []
    """Where there are several; ``fleet`` then has every pool at its largest."""
    entries: list[EntryPoint] = []
    next_best: list[Alternative] = []
    swings: list[SwingPoint] = []
    survives: bool = True
    """Whether the same systems are the answer at every end of every figure that was tried."""
    proved_fleets: list[ProvedFleet] = []
    """Fleets that were proved for ``frontier``, the cheapest first."""
    vendor_frontier: list[VendorPoint] = []
    power_frontier: list[PowerPoint] = []
    """Where profit is maximised."""
    pairs: list[PairPlan] = []
    """Where prompts are read on one pool and answered on another; such a request counts in ``serves`` at both."""
    policies: list[PolicyTrial] = []
    """Those that were tried, where the study leaves the choice to the plan."""
    candidates: int = 0
    """Deployments at operating points that were judged."""
    kept: int = 0
    """Those that no other one matches; the bound is taken over them."""
    plan_s: float = 0.0
    prove_s: float = 0.0

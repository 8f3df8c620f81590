"""Plans to be shown: an ordinary one with names that bite, and one that has little to say."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np

from infermix.plan.result import (
    Alternative,
    ApiPlan,
    ClassPlan,
    ContractPlan,
    EntryPoint,
    FigureUse,
    FrontierPoint,
    Limit,
    Plan,
    PoolPlan,
    PowerPoint,
    SingleChip,
    SlotPlan,
    SwingPoint,
    VendorPoint,
    Why,
)

BITE = """<b>&"'[red]"""
"""Means something to HTML and to the terminal's markup; must reach the reader as it stands."""


ONE_MORE = "buying one all the same makes the fleet"


def pool(name: str, kind: str = "hbm", **changes: Any) -> PoolPlan:
    plain = PoolPlan(
        name=name, system=f"system-{kind}", model="gpt-oss-120b", tp=8, pp=1, ep=1, dp=1, stages=None, weights="mxfp4",
        kv="fp8", role="both", max_num_seqs=256, max_batched_tokens=8192, spec=None, instances=2, serves={"chat": 1.0},
        chip=f"chip-{kind}", vendor="Maker", kind=kind, chips=16, systems=2, spare_instances=0, usd_per_hour=60.0,
        basis="rent", share_tokens=0.5, share_output_tokens=0.5, derate=0.9, kv_tokens_left=5_000_000, busy=0.8,
        kv_peak=0.4, facility_kw=20.0,
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def served(**changes: Any) -> ClassPlan:
    times = {"p50": 0.02, "p90": 0.05, "p99": 0.2}
    gaps = {"p50": 0.001, "p90": 0.0021, "p99": 0.004}
    cdf = {"ttft_s": np.geomspace(0.005, 0.7, 101).tolist(), "tpot_s": np.geomspace(0.0005, 0.005, 101).tolist()}
    plain = ClassPlan(
        rate_per_s=12.0, slo={"ttft_s": 1.5, "tpot_s": 0.003, "attainment": 0.95}, requests=51_095, attainment=0.98,
        ci=(0.978, 0.982), holds=True, attainment_low=0.94, ci_low=(0.935, 0.945), holds_low=False, ttft_s=times,
        tpot_s=gaps, e2e_s=times, ttft_s_low=times, tpot_s_low=gaps, e2e_s_low=times, clipped_share=0.3, cdf=cdf,
        cdf_low={key: [2 * x for x in values] for key, values in cdf.items()},
    )  # fmt: skip
    return msgspec.structs.replace(plain, **changes)


def limit(name: str, unit: str, *, used: float = 0.3, allowed: float = 0.5, worth: float = 0.0) -> Limit:
    return Limit(name=name, used=used, allowed=allowed, binding=worth > 0, shadow_price=worth, unit=unit)


def use(id_: str, **changes: Any) -> FigureUse:
    plain = FigureUse(id=id_, value=8e12, unit="byte/s", kind="unverified", low=None, high=None, note="")
    return msgspec.structs.replace(plain, **changes)


def single(system: str, cost: float | None, reason: str = "", status: str = "proved") -> SingleChip:
    classes: dict[str, dict[str, float | str | None]] = {
        f"coding {BITE}": {"usd_per_hour": cost, "reason": reason},
        "chat": {"usd_per_hour": 44.0, "reason": ""},
    }
    return SingleChip(
        system=system, status=status, usd_per_hour=cost, lower_bound_usd_per_hour=cost and 0.9 * cost, classes=classes
    )


def biting_plan() -> Plan:
    """A plan in which every text bites."""
    fast, slow, coding = f"fast {BITE}", "slow", f"coding {BITE}"
    frontier = [
        FrontierPoint(class_name=coding, tpot_s=t, usd_per_hour=c, lower_bound_usd_per_hour=c and 0.8 * c, systems=s)
        for t, c, s in ((0.0012, None, {}), (0.003, 150.0, {"cs3": 2}), (0.006, 120.0, {f"cs3 {BITE}": 1}))
    ]
    return Plan(
        tool_version="0.1.0", study=f"Study {BITE}", study_hash="d2e622a95865e346", model="gpt-oss-120b",
        cost_basis="rent", policy="pool_split", seeds=(1, 2, 3, 4, 5), speeds="nominal", status="proved",
        usd_per_hour=180.0, lower_bound_usd_per_hour=170.0, gap=180.0 / 170.0 - 1.0,
        fleet=[
            pool(fast, "sram", tp=None, pp=None, ep=None, dp=None, stages=3, usd_per_hour=120.0, vendor=f"Wafer {BITE}",
                 serves={coding: 1.0}, spare_instances=1),
            pool(slow),
        ],
        serves={coding: {fast: 1.0}, "chat": {slow: 1.0}},
        classes={coding: served(), "chat": served(slo={"tpot_s": 0.05, "e2e_s": 20.0, "attainment": 0.99})},
        unmet={coding: 0.0, "chat": 0.0},
        minimal=[{"pool": fast, "breaks": [coding]}, {"pool": slow, "breaks": ["chat"]}],
        single_chip=[single("cs3", 250.0), single("h100-x8", None, f"TPOT too long {BITE}", "cannot")],
        without_share_limits={"usd_per_hour": 150.0, "status": "proved", "lower_bound_usd_per_hour": 140.0},
        limits=[
            limit("market.supply.cs3", "system", used=3, allowed=3, worth=12.5),
            limit("limits.power_mw", "0.1 MW"),
            limit("limits.usd_per_hour", "1 %", used=180, allowed=2000),
            limit(f"limits.max_vendor_share (Wafer {BITE})", "1 % point"),
            limit("limits.min_share_output_tokens.sram", "1 % point"),
            limit("limits.of_tomorrow", "piece"),
        ],
        why=[
            Why(system="h100-x8", chosen=False, reason=f"coding: cannot {BITE}; {ONE_MORE} 2.0% dearer"),
            Why(system="cs3", chosen=True, reason="serves 100% of coding; coding: 1,910 USD per million requests"),
        ],
        figures=["chips/a/mem_bytes_per_s", "chips/a/rent_usd_per_hour", f"odd {BITE}"],
        unverified=[
            use("chips/a/mem_bytes_per_s", note=f"guessed {BITE}"),
            use("chips/a/rent_usd_per_hour", value=2.95, unit="USD/h", low=2.0, high=4.0),
            use(f"odd {BITE}", value=0.0, unit="s"),
        ],
        frontier=frontier,
        usd_per_mtok={"input": 0.04, "output": 0.94, "blended": 0.042},
        assumptions=[f"It is assumed {BITE}."],
        rounds=1,
        plan_s=20.0,
        prove_s=10.0,
    )  # fmt: skip


def slot(plan: Plan, hour: int, hours: float, load: float, scenario: str = "") -> SlotPlan:
    """A slot at a share of the day's load; nights leave out a part of the chat."""
    names, unmet = [p.name for p in plan.fleet], 0.2 if load < 0.4 else 0.0
    counts = dict(zip(names, (2, max(1, round(8 * load))), strict=True))
    return SlotPlan(
        name=f"{scenario} {hour}:00".strip(), hour=hour, hours=hours, scenario=scenario, probability=1.0,
        status="proved", rates_per_s=dict.fromkeys(plan.classes, 30.0 * load), instances=counts, systems=counts,
        usd_per_hour={"system-sram": 120.0, "system-hbm": 7.5 * counts[names[1]], f"elsewhere {BITE}": 4.0 * load},
        serves=plan.serves, unmet={"chat": unmet}, attainment=dict.fromkeys(plan.classes, 0.985),
        attainment_low=dict.fromkeys(plan.classes, 0.97),
    )  # fmt: skip


def day_plan(hours: int = 1) -> Plan:
    """A day in slots, with contracts and an API, and everything that explains it."""
    plan, loads = biting_plan(), [0.25, 0.25, 0.3, 0.6, 0.9, 1.0, 0.8, 0.5]
    parts = [slot(plan, h, hours, loads[h * len(loads) // 24]) for h in range(0, 24, hours)]
    figure = "efficiency/cdna/moe_layer_s"
    return msgspec.structs.replace(
        plan,
        slots=parts,
        unmet={"chat": 0.03},
        contracts=[
            ContractPlan(
                name=f"bought {BITE}", system="system-sram", region="", systems=(2,) * len(parts), usd_per_hour=60.0,
                basis="capital over 5 years, power and hosting", capital_usd=4e6,
            ),
            ContractPlan(
                name="by-the-hour", system="system-hbm", region="eu", systems=tuple(s.systems["slow"] for s in parts),
                usd_per_hour=7.5, basis="rent on demand", capital_usd=0.0,
            ),
        ],
        api=[
            ApiPlan(name=f"elsewhere {BITE}", vendor="Seller", model="gpt-oss-120b", serves={"chat": 0.07},
                    usd_per_hour=2.5, share_output_tokens=0.03),
        ],
        entries=[
            EntryPoint(system="h100-x8", usd_per_hour=17.0, entry_usd_per_hour=11.2, entry_speed=1.61),
            EntryPoint(system="mi300x-x8", usd_per_hour=15.0, entry_usd_per_hour=None, entry_speed=None),
        ],
        next_best=[Alternative(systems={"cs3": 2, "h200-x8": 3}, usd_per_hour=184.1, dearer=0.023)],
        swings=[
            SwingPoint(id="chips/a/rent_usd_per_hour", low=2.0, high=4.0, usd_at_low=150.0, usd_at_high=214.0,
                       survives_low=True, survives_high=False),
            SwingPoint(id=figure, low=1e-6, high=4e-5, usd_at_low=176.0, usd_at_high=None, survives_low=True,
                       survives_high=False),
        ],
        survives=False,
        vendor_frontier=[
            VendorPoint(max_vendor_share=most, usd_per_hour=usd, vendor="Maker", share=0.66, systems={"cs3": 2})
            for most, usd in ((0.9, 180.0), (0.7, 191.0), (0.5, None))
        ],
        power_frontier=[
            PowerPoint(power_mw=mw, used_mw=0.9 * mw, profit_usd_per_hour=900 * mw**0.5,
                       profit_usd_per_mw_hour=1000.0, systems={"cs3": 2})
            for mw in (0.1, 0.2, 0.4)
        ],
    )  # fmt: skip


def earning_plan() -> Plan:
    """Profit is maximised."""
    return msgspec.structs.replace(
        day_plan(6),
        objective="profit_usd_per_hour",
        revenue_usd_per_hour=400.0,
        profit_usd_per_hour=220.0,
        profit_bound_usd_per_hour=240.0,
    )


def scenario_plan() -> Plan:
    """Two demands that may come, a day each."""
    plan = day_plan(6)
    parts = [slot(plan, 14, 24.0, load, name) for name, load in (("as stated", 0.5), ("boom", 1.0))]
    return msgspec.structs.replace(plan, slots=parts)


def doubtful_plan() -> Plan:
    """Not proved, costs unknown, no frontier, no unverified figure, nothing to compare with."""
    return msgspec.structs.replace(
        biting_plan(),
        status="not_proved",
        classes={"chat": served(holds=False, attainment=0.2, ci=(0.19, 0.21), holds_low=False, cdf={}, cdf_low={})},
        unmet={"chat": 0.75},
        single_chip=[single("h100-x8", None, "", "cannot"), single("b200-x8", 200.0, "", "not_proved")],
        without_share_limits={"usd_per_hour": None, "status": "infeasible", "lower_bound_usd_per_hour": None},
        usd_per_mtok={"input": None, "output": None, "blended": None},
        fleet=[pool("slow", "quantum", facility_kw=None)],
        minimal=[],
        limits=[],
        unverified=[],
        frontier=[],
        assumptions=[],
    )


def empty_plan() -> Plan:
    """No fleet at all."""
    nothing: dict[str, Any] = {key: [] for key in ("fleet", "single_chip", "why", "minimal", "figures")}
    nothing |= {key: {} for key in ("serves", "classes", "unmet", "without_share_limits", "usd_per_mtok")}
    bounds = {"usd_per_hour": float("nan"), "lower_bound_usd_per_hour": float("inf"), "gap": float("nan")}
    return msgspec.structs.replace(doubtful_plan(), status="infeasible", seeds=(), **nothing, **bounds)

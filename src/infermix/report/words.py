"""Numbers and sentences for people, the same in the terminal and in the HTML report."""

from __future__ import annotations

import math
from collections.abc import Iterable

from infermix.plan.result import ClassPlan, FigureUse, Limit, Plan, PoolPlan, SingleChip

NONE = "\u2013"
STATUS = {
    "proved": "proved",
    "proved_nominal": "proved at nominal speeds only",
    "not_proved": "not proved",
    "infeasible": "infeasible",
    "cannot": "cannot",
}
KINDS = ("hbm", "sram", "gddr", "lpddr", "other")
TARGETS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E"}
_VERBS = {"rent": "Rent", "own": "Buy"}
_LARGE = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""))
_SHELVES = {
    "chips": "chip",
    "systems": "system",
    "models": "model",
    "prices": "price",
    "efficiency": "efficiency of family",
}
_SHORT = {"byte": "B", "byte/s": "B/s", "USD/h": "USD/h"}


def digits(value: float | None, n: int = 3) -> str:
    """A number with ``n`` significant digits at least, never an exponent for everyday sizes.

    >>> digits(233.4), digits(1739.6), digits(0.0425515), digits(12.0)
    ('233', '1,740', '0.0426', '12')
    """
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    rounded = float(f"{value:.{n}g}")
    if abs(rounded) < 1e-6:
        return f"{rounded:.{n}g}"
    places = max(0, n - 1 - math.floor(math.log10(abs(rounded))))
    text = f"{rounded:,.{places}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def money(value: float | None) -> str:
    """Dollars with three significant digits.

    >>> money(233.4), money(0.94)
    ('$233', '$0.94')
    """
    text = digits(value)
    return text if text == NONE else f"${text}"


def share(value: float | None) -> str:
    """A share as a percentage with one decimal.

    >>> share(0.66861), share(1.0)
    ('66.9%', '100.0%')
    """
    return NONE if value is None or not math.isfinite(value) else f"{value * 100:.1f}%"


def attained(value: float) -> str:
    """An attainment: one decimal, two close to 100 %, rounded down so that a miss never reads as none.

    >>> attained(0.98673), attained(0.99992), attained(1.0)
    ('98.6%', '99.99%', '100%')
    """
    if not math.isfinite(value):
        return NONE
    if value >= 1.0:
        return "100%"
    places = 2 if value > 0.995 else 1
    return f"{math.floor(value * 100 * 10**places + 1e-9) / 10**places:.{places}f}%"


def seconds(value: float | None) -> str:
    """A time: milliseconds below 0.1 s, microseconds below 0.1 ms.

    >>> seconds(0.00080718), seconds(0.1548), seconds(2.0), seconds(2.4e-6)
    ('0.807 ms', '0.155 s', '2 s', '2.4 µs')
    """
    if value is None or not math.isfinite(value):
        return NONE
    if value == 0:
        return "0 s"
    scale, unit = (1.0, "s") if value >= 0.1 else (1e3, "ms") if value >= 1e-4 else (1e6, "µs")
    return f"{digits(value * scale)} {unit}"


def tokens(value: float) -> str:
    """A count of tokens with three significant digits.

    >>> tokens(10462480), tokens(56152)
    ('10.5 million', '56,200')
    """
    scale, word = (1e9, " billion") if value >= 1e9 else (1e6, " million") if value >= 1e6 else (1.0, "")
    return f"{digits(value / scale)}{word}"


def quantity(value: float, unit: str) -> str:
    """A catalogue figure in the scale that people use.

    >>> quantity(8e12, "byte/s"), quantity(2.5e15, "FLOP/s"), quantity(3e-6, "s"), quantity(0.8, "1")
    ('8 TB/s', '2.5 PFLOP/s', '3 µs', '0.8')
    """
    if unit == "s":
        return seconds(value)
    if unit == "1":
        return digits(value)
    if unit.startswith("USD") or unit in ("chips", "tokens", "m2"):
        return f"{digits(value)} {unit}"
    scale, prefix = next(((s, p) for s, p in _LARGE if abs(value) >= s * (1 - 1e-9)), (1.0, ""))
    return f"{digits(value / scale)} {prefix}{_SHORT.get(unit, unit)}"


def kind_of(kind: str) -> str:
    """The kind of chip, or ``other`` for one without a colour of its own."""
    return kind if kind in KINDS else "other"


def joined(parts: Iterable[str]) -> str:
    """Words in a sentence.

    >>> joined(["a", "b", "c"])
    'a, b and c'
    """
    words = list(parts)
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def layout(pool: PoolPlan) -> str:
    """How one instance lies on its chips: ``TP 8`` or ``3 stages``, with the dtypes of weights and KV cache."""
    degrees = [("TP", pool.tp), ("PP", pool.pp), ("EP", pool.ep), ("DP", pool.dp)]
    said = [f"{name} {n}" for name, n in degrees if n is not None and (n > 1 or name == "TP")]
    if pool.role != "both":
        said.insert(0, f"{pool.role} only")
    if pool.stages is not None:
        said.append(f"{pool.stages} stage{'s' if pool.stages > 1 else ''}")
    return f"{', '.join(said)}; {pool.weights} weights, {pool.kv} KV"


def promise(cls: ClassPlan) -> str:
    """A promise as a sentence.

    >>> from types import SimpleNamespace
    >>> promise(SimpleNamespace(slo={"ttft_s": 1.5, "tpot_s": 0.003, "attainment": 0.95}))
    '95% of requests with TTFT ≤ 1.5 s and TPOT ≤ 3 ms'
    """
    return f"{digits(cls.slo.get('attainment', 1.0) * 100, 4)}% of requests with {joined(targets(cls).values())}"


def targets(cls: ClassPlan) -> dict[str, str]:
    """Each promised target in words."""
    slope = cls.slo.get("ttft_s_per_1k_uncached", 0.0)
    found = {key: f"{name} ≤ {seconds(cls.slo[key])}" for key, name in TARGETS.items() if cls.slo.get(key) is not None}
    if slope and "ttft_s" in found:
        found["ttft_s"] += f" + {seconds(slope)} per 1,000 uncached tokens"
    return found


def headline(plan: Plan) -> str:
    """What to buy and what it costs an hour."""
    if not plan.fleet:
        return "No fleet was found that serves this traffic."
    systems: dict[str, int] = {}
    for pool in plan.fleet:
        systems[pool.system] = systems.get(pool.system, 0) + pool.systems
    bought = joined(f"{n} \u00d7 {system}" for system, n in systems.items())
    return f"{_VERBS.get(plan.cost_basis, 'Take')} {bought} for {money(plan.usd_per_hour)}/h."


def proof(plan: Plan) -> str:
    """What was proved and how, or what is missing."""
    if not plan.fleet:
        return ""
    ran = f"{len(plan.seeds)} seeds and {sum(c.requests for c in plan.classes.values()):,} simulated requests"
    if plan.status == "proved":
        low = [name for name, c in plan.classes.items() if not c.holds_low]
        also = f"; at low speeds {joined(low)} would miss" if low else " and at low speeds"
        return f"Proved with {ran}: every promise holds at nominal speeds{also}."
    missed = [
        f"{name} reaches {attained(c.attainment)} of the {share(c.slo.get('attainment'))} promised"
        for name, c in plan.classes.items()
        if not c.holds
    ]
    if missed:
        return f"{STATUS.get(plan.status, plan.status).capitalize()} with {ran}: {joined(missed)}."
    missed = [
        f"{name} would reach {attained(c.attainment_low)} of the {share(c.slo.get('attainment'))} promised"
        for name, c in plan.classes.items()
        if not c.holds_low
    ]
    tail = f"; at low speeds {joined(missed)}" if missed else ""
    return f"{STATUS.get(plan.status, plan.status).capitalize()} with {ran}{tail}."


def able(plan: Plan) -> list[SingleChip]:
    """Single-chip fleets that keep every promise, cheapest first."""
    rows = [r for r in plan.single_chip if r.usd_per_hour is not None and r.status.startswith("proved")]
    return sorted(rows, key=lambda row: row.usd_per_hour or 0.0)


def against_single(plan: Plan) -> str:
    """The cost against the best fleet of one kind of system."""
    if not plan.single_chip:
        return ""
    best = next(iter(able(plan)), None)
    if best is None or best.usd_per_hour is None:
        return "No fleet of a single system was found that keeps every promise."
    saved = best.usd_per_hour - plan.usd_per_hour
    if abs(saved) < 5e-4 * best.usd_per_hour:
        return f"The best single-chip fleet ({best.system}) costs the same."
    rank = "cheaper" if saved > 0 else "dearer"
    by = f"{share(abs(saved) / best.usd_per_hour)} ({money(abs(saved))}/h) {rank}"
    proved = "" if best.status == plan.status else f", {STATUS[best.status]}"
    return f"This is {by} than the best single-chip fleet: {best.system} at {money(best.usd_per_hour)}/h{proved}."


def against_bound(plan: Plan) -> str:
    """The gap to the lower bound."""
    if not (math.isfinite(plan.lower_bound_usd_per_hour) and math.isfinite(plan.gap)):
        return "There is no lower bound to compare with."
    bound = f"{money(plan.lower_bound_usd_per_hour)}/h"
    above = f"this one is {share(plan.gap)} above it"
    return f"Any fleet of deployments that can hold these promises costs at least {bound} (queue-free bound); {above}."


def against_shares(plan: Plan) -> str:
    """The cost against the same study without its least shares by kind of chip."""
    if not plan.without_share_limits:
        return ""
    cost, status = plan.without_share_limits.get("usd_per_hour"), str(plan.without_share_limits.get("status") or "")
    if not isinstance(cost, (int, float)):
        return f"Without the least share by kind of chip: {STATUS.get(status, status) or 'no fleet'}."
    saved = plan.usd_per_hour - cost
    if abs(saved) < 5e-4 * max(cost, 1e-9):
        return "The least share by kind of chip costs nothing: without it the fleet would cost the same."
    said = f"{money(abs(saved))}/h {'less' if saved > 0 else 'more'}"
    return (
        f"Without the least share by kind of chip it would cost {money(cost)}/h, {said} ({STATUS.get(status, status)})."
    )


def limit_name(limit: Limit) -> str:
    """A limit in plain words."""
    for prefix, words in _LIMITS.items():
        if limit.name.startswith(prefix):
            return words.format(limit.name.removeprefix(prefix).strip(" .()"))
    return limit.name


_LIMITS = {
    "market.supply.": "supply of {}",
    "limits.power_mw": "power of the facility",
    "limits.usd_per_hour": "budget",
    "limits.max_vendor_share": "largest share of one vendor ({})",
    "limits.min_share_output_tokens": "least share of output tokens on {} chips",
}


def at_least(limit: Limit) -> bool:
    """Whether a limit asks for at least so much."""
    return ".min_" in limit.name


def limit_value(limit: Limit, value: float) -> str:
    """A value of a limit in its unit."""
    if "share" in limit.name:
        return share(value)
    if limit.name.endswith("_mw"):
        return f"{digits(value)} MW"
    if "usd_per_hour" in limit.name:
        return f"{money(value)}/h"
    return f"{digits(value)} system{'' if value == 1 else 's'}" if limit.unit == "system" else digits(value)


def limit_worth(limit: Limit) -> str:
    """What one more unit would save."""
    if not limit.shadow_price:
        return "nothing" if limit.binding else NONE
    return f"{money(limit.shadow_price)}/h per {limit.unit}"


def total_kw(plan: Plan) -> float | None:
    """Power of all pools [kW]; nothing if any is unknown."""
    known = [pool.facility_kw for pool in plan.fleet if pool.facility_kw is not None]
    return sum(known) if len(known) == len(plan.fleet) else None


def breaks(entry: dict[str, object]) -> str:
    """What taking one instance of a pool away breaks."""
    found = entry.get("breaks")
    return joined(map(str, found)) if isinstance(found, (list, tuple)) else str(found)


def by_record(plan: Plan) -> dict[str, list[FigureUse]]:
    """Unverified figures by the chip, system or family that they describe, most figures first."""
    groups: dict[str, list[FigureUse]] = {}
    for figure in plan.unverified:
        groups.setdefault(figure.id.rpartition("/")[0] or figure.id, []).append(figure)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def record_name(record: str) -> str:
    """A record of the catalogue in words.

    >>> record_name("chips/mi355x"), record_name("efficiency/wafer")
    ('chip mi355x', 'efficiency of family wafer')
    """
    shelf, _, name = record.partition("/")
    return f"{_SHELVES[shelf]} {name}" if shelf in _SHELVES and name else record


def spread(figure: FigureUse) -> float:
    """How wide the range of a figure is: high over low, 1 where no range is known."""
    if figure.low is None or figure.high is None or figure.low <= 0:
        return 1.0
    return figure.high / figure.low


def weightiest(plan: Plan, n: int) -> list[FigureUse]:
    """The unverified prices and then the widest ranges: the figures to look up first."""
    ranged = [f for f in plan.unverified if spread(f) > 1.0]
    return sorted(ranged, key=lambda f: ("usd" not in f.id, -spread(f)))[:n]


def figure_range(figure: FigureUse) -> str:
    """The range of a figure, if known."""
    if figure.low is None or figure.high is None:
        return NONE
    return f"{quantity(figure.low, figure.unit)} to {quantity(figure.high, figure.unit)}"

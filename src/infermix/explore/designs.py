"""``infermix silicon design``: which chip to build. A screen over a space, then ``perf`` with real mappings."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from infermix.catalog.load import Catalog, catalog, with_own_chip
from infermix.catalog.records import Efficiency, Figure, Model
from infermix.cost.tco import annuity_usd_per_hour, energy_usd_per_hour
from infermix.errors import InputError, NoAnswer
from infermix.explore.design_question import Question
from infermix.perf.figures import of_model
from infermix.perf.operating import Load, Points
from infermix.perf.sweep import Refusal, Wish, curves
from infermix.silicon import build
from infermix.silicon.chip import Chip, anchored, real_chips
from infermix.silicon.constants import Constants, sources
from infermix.silicon.draw import Draw
from infermix.silicon.ledger import Line, confidence, ledger
from infermix.silicon.limits import limits
from infermix.silicon.record import EIGHT_BIT, FAMILIES, Box, records
from infermix.silicon.space import (
    Designs,
    Screened,
    Work,
    chip_of,
    designs_of,
    finalists,
    screened,
)
from infermix.units import SECONDS_PER_HOUR

LOOKED_AT = 160
"""Designs that ``perf`` looks at."""
SPEEDS = (20.0, 50.0, 100.0, 200.0, 400.0, 800.0)
"""Tokens a second of one user at which SRAM and HBM are compared."""
CONTEXTS = (4_000, 32_000, 100_000)
STEP_MM2 = 50.0
SYNC_S = 1e-6
NEWER = {"n7": "n5", "n6": "n5", "n5": "n3", "n4": "n3", "n3": "n2"}
OLDER = {"n2": "n3", "n3": "n5", "n4": "n7", "n5": "n7", "n6": "n7"}
HULL_SLACK = 0.25


class Candidate(msgspec.Struct, kw_only=True):
    """One design after ``perf``."""

    chip: Chip
    kind: str
    die_mm2: float
    unit_usd: float
    price_usd: float
    power_w: float
    usd_per_hour: float
    usd_per_mtok: dict[str, float | None]
    """By kind of work: output tokens, prompts read beside; null where the promise cannot be held."""
    how: dict[str, str]
    mix_usd_per_mtok: float | None
    regret: float
    """Most that a kind of work costs above the best design for it, as a share."""
    outside: list[str]
    """Where it leaves the hull of real chips that the model was held against."""
    marginal_usd_per_hour: float | None = None
    """What a fleet that may buy it costs less; null where it was not asked."""


class Versus(msgspec.Struct, frozen=True, kw_only=True):
    """The cheapest HBM and SRAM design at one speed and context."""

    model: str
    context_tokens: int
    tokens_per_s_user: float
    hbm_usd_per_mtok: float | None
    sram_usd_per_mtok: float | None


class Worth(msgspec.Struct, frozen=True, kw_only=True):
    """What one change to the best design does to the mix."""

    change: str
    usd_per_mtok: float | None
    against: float | None
    """Share that it is dearer (above 0) or cheaper."""


class Design(msgspec.Struct, kw_only=True):
    """Which chip to build."""

    name: str
    designs: int
    feasible: int
    screen_s: float
    perf_s: float
    looked_at: int
    candidates: list[Candidate]
    """Best first."""
    by_work: dict[str, str]
    """Kind of work → the design that is best for it."""
    versus: list[Versus]
    crossover: dict[str, float | None]
    """Context → speed of a user from which SRAM is cheaper."""
    worth: list[Worth]
    fleet: dict[str, Any]
    ledger: list[Line]
    sources: dict[str, str]
    confidence: str
    assumptions: list[str]
    figures: list[str]
    """Ids of the catalogue's figures: efficiencies of the families, sizes of the models."""


def design(asked: Question) -> tuple[Design, list[Candidate]]:
    """Screen, then ``perf``; all that were looked at stand beside the answer. NoAnswer where no promise is held."""
    families = {id_: catalog().efficiencies[id_] for id_ in FAMILIES.values()}
    begin = time.perf_counter()
    designs = designs_of(asked.space)
    first = screened(asked.space, designs, list(asked.works.values()), asked.money, asked.table, families)
    shares = _shares(asked.works)
    rows = finalists(first, np.array(list(shares.values())), LOOKED_AT)
    screen_s = time.perf_counter() - begin
    if not len(rows):
        raise NoAnswer("no design of the space can be made and holds a promise")
    begin = time.perf_counter()
    found = [_candidate(asked, chip_of(asked.space, designs, int(row), asked.money.gross_margin)) for row in rows]
    ranked = _ranked(found, asked.works, shares)
    best = ranked[0]
    versus = _versus(asked, ranked, designs, first)
    lines = _ledger(asked, best.chip)
    return Design(
        name=asked.name,
        designs=len(designs),
        feasible=int(first.feasible.sum()),
        screen_s=screen_s,
        perf_s=time.perf_counter() - begin,
        looked_at=len(rows),
        candidates=ranked[: asked.top],
        by_work={name: _cheapest(ranked, name) for name in asked.works},
        versus=versus,
        crossover=_crossovers(versus),
        worth=_worths(asked, best, shares),
        fleet={},
        ledger=list(lines),
        sources={id_: sources()[id_].text for line in lines for id_ in line.source},
        confidence=confidence(lines),
        assumptions=_assumptions(asked.space.node),
        figures=_figures(asked, ranked),
    ), ranked


def _shares(works: Mapping[str, tuple[Work, Model]]) -> dict[str, float]:
    total = sum(work.share for work, _ in works.values())
    return {name: work.share / total for name, (work, _) in works.items()}


def _candidate(asked: Question, chip: Chip, family: Efficiency | None = None) -> Candidate:
    """One design by ``perf``, priced from its exact parts."""
    draw = Draw(asked.table)
    unit = float(build.parts(chip, draw).total())
    price = unit / (1 - asked.money.gross_margin)
    watts = float(build.speeds(chip, draw).power_w or 0)
    hourly = _usd_per_hour(asked, price, watts)
    facts, box = catalog(), Box()
    record, system = records(chip, asked.table, box, price)
    facts = with_own_chip(facts, record, system)
    if family is not None:
        facts = _with_family(facts, record.efficiency, family)
    costs, how = {}, {}
    for name, (work, model) in asked.works.items():
        costs[name], how[name] = _cost(facts, record.id, system.id, work, model, hourly / asked.money.load)
    return Candidate(
        chip=chip, kind=record.kind, die_mm2=float(build.dies(chip, draw).die_mm2), unit_usd=unit, price_usd=price,
        power_w=watts, usd_per_hour=hourly, usd_per_mtok=costs, how=how, mix_usd_per_mtok=None, regret=math.inf,
        outside=outside(chip, asked.table),
    )  # fmt: skip


def _usd_per_hour(asked: Question, price: float, watts: float) -> float:
    money, table = asked.money, asked.table
    wall = table["site/centre/it_over_chip_w"].value * table["site/centre/pue"].value
    paid = annuity_usd_per_hour(price + money.system_usd_per_chip, money.life_years, money.finance_rate)
    return paid + energy_usd_per_hour(watts * wall, money.usd_per_kwh)


def _with_family(facts: Catalog, id_: str, family: Efficiency) -> Catalog:
    return replace(facts, efficiencies={**{key: facts.efficiencies[key] for key in facts.efficiencies}, id_: family})


def _cost(
    facts: Catalog, chip: str, system: str, work: Work, model: Model, usd_per_hour: float
) -> tuple[float | None, str]:
    """Dollars for a million output tokens at the cheapest point that holds the promise."""
    load = Load(work.input_tokens, work.output_tokens, work.cached_tokens)
    found = curves(facts, facts.chips[chip], facts.systems[system], model, Wish(load=load))
    if isinstance(found, Refusal):
        return None, found.text
    best = _best(found, work.tokens_per_s_user, work.ttft_s)
    if best is None:
        return None, f"no point gives {work.tokens_per_s_user:g} tokens/s and a first token in {work.ttft_s:g} s"
    chip_s, layout, batch, user = best
    return chip_s / SECONDS_PER_HOUR * usd_per_hour, f"{layout}, batch {batch}, {user:.0f} tokens/s"


def _best(found: Iterable[Points], speed: float, ttft_s: float) -> tuple[float, str, int, float] | None:
    able = [
        (float(curve.chip_s_per_mtok[i]), curve.deployment.layout, int(curve.batch[i]), 1 / float(curve.tpot_s[i]))
        for curve in found
        if curve.ttft_s <= ttft_s
        for i in range(len(curve.batch))
        if curve.tpot_s[i] * speed <= 1
    ]
    return min(able, default=None)


def _ranked(found: list[Candidate], works: Mapping[str, Any], shares: Mapping[str, float]) -> list[Candidate]:
    """With mix and regret, the cheapest mix first; those that cannot hold every promise after, by regret."""
    best = {name: min((c.usd_per_mtok[name] or math.inf for c in found), default=math.inf) for name in works}
    for c in found:
        costs = {name: c.usd_per_mtok[name] for name in works}
        whole = [shares[name] * cost for name, cost in costs.items() if cost is not None]
        c.mix_usd_per_mtok = sum(whole) if len(whole) == len(works) else None
        held = [cost / best[name] - 1 if cost is not None else math.inf for name, cost in costs.items()]
        c.regret = max(held)

    def order(c: Candidate) -> tuple[bool, float, float, str]:
        lost = sum(share for name, share in shares.items() if c.usd_per_mtok[name] is None)
        told = sum(shares[name] * cost for name, cost in c.usd_per_mtok.items() if cost is not None)
        return c.mix_usd_per_mtok is None, lost, told, c.chip.id

    return sorted(found, key=order)


def _cheapest(found: Sequence[Candidate], name: str) -> str:
    able = [(cost, c.chip.id) for c in found if (cost := c.usd_per_mtok[name]) is not None]
    return min(able)[1] if able else ""


def _versus(asked: Question, found: Sequence[Candidate], designs: Designs, first: Screened) -> list[Versus]:
    """The cheapest of some HBM and some SRAM designs at every speed and context, for the model of the largest share."""
    name = max(asked.works, key=lambda key: asked.works[key][0].share)
    work, model = asked.works[name]
    curves_by_kind: dict[str, dict[int, list[tuple[float, list[Points]]]]] = {}
    for kind, chips in _of_both_kinds(asked, found, designs, first).items():
        curves_by_kind[kind] = {context: [] for context in CONTEXTS}
        for chip in chips:
            told = _candidate_facts(asked, chip)
            for context in CONTEXTS:
                cached = round(context * work.cached_tokens / work.input_tokens)
                wish = Wish(load=Load(context, work.output_tokens, cached))
                lines = curves(told[0], told[0].chips[told[1]], told[0].systems[told[2]], model, wish)
                if not isinstance(lines, Refusal):
                    curves_by_kind[kind][context].append((told[3] / asked.money.load, lines))
    return [
        Versus(
            model=model.id, context_tokens=context, tokens_per_s_user=speed,
            hbm_usd_per_mtok=_least(curves_by_kind["hbm"][context], speed, work.ttft_s),
            sram_usd_per_mtok=_least(curves_by_kind["sram"][context], speed, work.ttft_s),
        )
        for context in CONTEXTS
        for speed in SPEEDS
    ]  # fmt: skip


def _of_both_kinds(
    asked: Question, found: Sequence[Candidate], designs: Designs, first: Screened, count: int = 12
) -> dict[str, list[Chip]]:
    """Some designs of either kind: those that ``perf`` found best, else the densest that can be made."""
    chosen = {kind: [c.chip for c in found if c.kind == kind][:count] for kind in ("hbm", "sram")}
    for kind, mask in (("hbm", designs.hbm >= 0), ("sram", designs.hbm < 0)):
        able = np.flatnonzero(mask & first.feasible)
        if len(chosen[kind]) < count and len(able):
            order = np.argsort(-first.mem_bytes_per_s[able] / first.usd_per_hour[able])[:count]
            more = [chip_of(asked.space, designs, int(row), asked.money.gross_margin) for row in able[order]]
            chosen[kind] += more[: count - len(chosen[kind])]
    return chosen


def _candidate_facts(asked: Question, chip: Chip) -> tuple[Catalog, str, str, float]:
    draw = Draw(asked.table)
    price = float(build.parts(chip, draw).total()) / (1 - asked.money.gross_margin)
    watts = float(build.speeds(chip, draw).power_w or 0)
    record, system = records(chip, asked.table, Box(), price)
    return with_own_chip(catalog(), record, system), record.id, system.id, _usd_per_hour(asked, price, watts)


def _least(found: list[tuple[float, list[Points]]], speed: float, ttft_s: float) -> float | None:
    able = [best[0] / SECONDS_PER_HOUR * usd for usd, lines in found if (best := _best(lines, speed, ttft_s))]
    return min(able, default=None)


def _crossovers(versus: Sequence[Versus]) -> dict[str, float | None]:
    """Context → the lowest speed from which SRAM stays cheaper."""
    found: dict[str, float | None] = {}
    for context in CONTEXTS:
        turn = None
        for row in reversed([row for row in versus if row.context_tokens == context]):
            hbm, sram = row.hbm_usd_per_mtok, row.sram_usd_per_mtok
            if sram is None or (hbm is not None and hbm < sram):
                if not (hbm is None and sram is None):
                    break
                continue
            turn = row.tokens_per_s_user
        found[str(context)] = turn
    return found


def _worths(asked: Question, best: Candidate, shares: Mapping[str, float]) -> list[Worth]:
    """What changes to the best design do: 50 mm2 more of each kind, 1 us less synchronisation, the next node."""
    chip, table = best.chip, asked.table
    node = f"nodes/{chip.node}"
    sram = STEP_MM2 / table[f"{node}/sram_mm2_per_byte"].value / build.MEGA
    tflops = STEP_MM2 / table[f"{node}/mac_mm2_s_per_flop"].value / build.TERA
    changes: list[tuple[str, Chip, Efficiency | None]] = [
        ("50 mm2 more of SRAM", _with(chip, sram_mb=chip.sram_mb + sram), None),
        ("50 mm2 more of arithmetic", _with(chip, tflops=chip.tflops + tflops), None),
        ("50 mm2 more of links", _with(chip, links=chip.links + STEP_MM2 / table["process/link_mm2"].value), None),
        ("1 us less synchronisation", chip, _quicker(chip)),
    ]  # fmt: skip
    if chip.stacks:
        more = _with(chip, stacks=chip.stacks + round(STEP_MM2 / table[f"{node}/hbm_phy_mm2"].value))
        changes.insert(2, (f"50 mm2 more of HBM interfaces, {more.stacks - chip.stacks} stacks", more, None))
    others = sorted({NEWER.get(chip.node, ""), OLDER.get(chip.node, "")} - {""})
    changes.extend((f"the same on {other}", _with(chip, node=other), None) for other in others)
    found = []
    for words, changed, family in changes:
        mix = _mix(_candidate(asked, changed, family), shares, best) if _can_be(changed, table) else None
        base = _mix(best, shares, best)
        found.append(Worth(change=words, usd_per_mtok=mix, against=None if mix is None or not base else mix / base - 1))
    return found


def _can_be(chip: Chip, table: Constants) -> bool:
    """Whether it is within a field, the shoreline and what can be cooled."""
    try:
        limits(chip, Draw(table), "")
    except InputError:
        return False
    return True


def _mix(c: Candidate, shares: Mapping[str, float], like: Candidate) -> float | None:
    """Cost of the kinds of work that the best design holds."""
    names = [name for name in shares if like.usd_per_mtok[name] is not None]
    costs = [c.usd_per_mtok[name] for name in names]
    if any(cost is None for cost in costs) or not names:
        return None
    return sum(shares[name] * (cost or 0) for name, cost in zip(names, costs, strict=True)) / sum(
        shares[n] for n in names
    )


def _with(chip: Chip, **changes: Any) -> Chip:
    return msgspec.structs.replace(chip, id=f"{chip.id}-x", **changes)


def _quicker(chip: Chip) -> Efficiency:
    """The chip's family with 1 us less at every layer, or at every exchange between chips."""
    family = catalog().efficiencies[FAMILIES["asic_hbm" if chip.stacks else "sram_asic"]]
    name = "allreduce_start_s" if chip.stacks else "layer_s"
    figure: Figure = family.figures[name]
    quick = msgspec.structs.replace(figure, value=max(figure.value - SYNC_S, 0.0), low=None, high=None)
    return msgspec.structs.replace(family, figures={**family.figures, name: quick})


def outside(chip: Chip, table: Constants) -> list[str]:
    """Where a design leaves the hull of real chips of its kind, a quarter of slack on either side."""
    anchors = [c for c in real_chips().values() if bool(c.stacks) == bool(chip.stacks)]
    mine = _density(chip, table)
    found = []
    for name, value in mine.items():
        known = [_density(anchor, table)[name] for anchor in anchors]
        low, high = min(known) * (1 - HULL_SLACK), max(known) * (1 + HULL_SLACK)
        if not low <= value <= high:
            found.append(f"{name} {value:.3g}, real chips {min(known):.3g} to {max(known):.3g}")
    return found


def _density(chip: Chip, table: Constants) -> dict[str, float]:
    """What a chip is by the die and by the FLOP."""
    draw = Draw(table)
    run, made = build.speeds(chip, draw), build.dies(chip, draw)
    silicon = float(made.die_mm2) * chip.dies
    return {
        "GFLOP/s a mm2": chip.tflops * 1e3 / silicon,
        "SRAM kB a mm2": chip.sram_mb * 1e3 / silicon,
        "bytes per 8-bit FLOP": float(run.bytes_per_flop) / EIGHT_BIT,
    }


def _ledger(asked: Question, chip: Chip) -> tuple[Line, ...]:
    """Constants of the best design's cost of an hour."""
    draw = Draw(asked.table)
    build.parts(chip, draw)
    build.speeds(chip, draw)
    terms = asked.money
    wall = asked.table["site/centre/it_over_chip_w"].value * asked.table["site/centre/pue"].value
    paid = annuity_usd_per_hour(1.0, terms.life_years, terms.finance_rate)

    def hourly(d: Draw) -> Any:
        watts = build.speeds(chip, d).power_w
        price = build.parts(chip, d).total() / (1 - terms.gross_margin) + terms.system_usd_per_chip
        return price * paid + (0 if watts is None else watts) * energy_usd_per_hour(wall, terms.usd_per_kwh)

    return ledger(asked.table, tuple(draw.read), hourly)


def _figures(asked: Question, found: Sequence[Candidate]) -> list[str]:
    """Figures of the catalogue that ``perf`` worked with."""
    families = sorted({FAMILIES["asic_hbm" if c.chip.stacks else "sram_asic"] for c in found})
    of_family = [f"efficiency/{id_}/{name}" for id_ in families for name in catalog().efficiencies[id_].figures]
    models = dict.fromkeys(model.id for _, model in asked.works.values())
    return of_family + [id_ for model in models for id_ in of_model(catalog().models[model])]


def _assumptions(nodes: Sequence[str]) -> list[str]:
    efficiencies = (
        "Designed chips with HBM take the efficiencies of announced chips, which nobody measured; SRAM chips those of "
        "Groq's, calibrated on single users: costs of SRAM under concurrency are arithmetic."
    )
    told = [
        efficiencies,
        "Costs of a token are chip time at the stated load; a fleet that waits for its traffic costs more.",
    ]
    scaled = sorted(set(nodes) - anchored())
    if scaled:
        told.append(f"Areas and power on {', '.join(scaled)} are scaled: no real chip was there to hold them against.")
    return told

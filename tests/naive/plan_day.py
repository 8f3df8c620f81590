"""The slow, obvious twin of the whole planning program: every fleet in every slot, every number under every contract.

Written from the equations of ``docs/design/planner.md``, not from ``infermix.plan.model``; shares its records alone.
What is whole is counted up. What is not (who is served where, who goes without, what is bought of an API) is a linear
program for every such choice. An offer has at most one contract for all day and one by the hour.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from math import ceil
from typing import Any

from infermix.plan.model import Column
from infermix.plan.offers import Api, Contract, Offer
from infermix.plan.question import Demand, Question
from tests.naive.lp import Row, least

EPS = 1e-7
Counts = tuple[int, ...]
"""Instances of each column in a slot."""
Had = dict[str, list[int]]
"""Contract → systems in each slot."""


@dataclass
class Answer:
    """What is compared: output tokens a second unmet by tier, then cost less revenue."""

    unmet: tuple[float, ...]
    loss: float
    cost: float

    def beats(self, other: Answer | None) -> bool:
        """Lexicographically, tier by tier, then in money."""
        if other is None:
            return True
        for mine, theirs in zip(self.unmet, other.unmet, strict=True):
            if abs(mine - theirs) > 1e-5:
                return mine < theirs
        return self.loss < other.loss - 1e-9


def best(question: Question, columns: list[Column], worth: Any = None) -> Answer | None:
    """The best answer of all; ``worth(column or api, demand)`` → (USD a request, requests for one stated)."""
    found: Answer | None = None
    slots = range(len(question.slots))
    fleets = list(_fleets(question, columns))
    for day in product(fleets, repeat=len(slots)):
        for had in _contracts(question, columns, day):
            spent = _spent(question, had)
            if found is not None and worth is None and not question.limits.rationing and spent >= found.loss:
                continue
            if _limits_hold(question, columns, day, had):
                answer = _traffic(question, columns, day, had, spent, worth)
                if answer is not None and answer.beats(found):
                    found = answer
    return found


def systems(column: Column, n: int) -> int:
    """Whole systems that host n instances."""
    d = column.option.deployment
    return n * d.systems_per_instance if d.instances_per_system == 1 else -(-n // d.instances_per_system)


def _fleets(question: Question, columns: list[Column]) -> Iterator[Counts]:
    """Fleets of one slot: an option in one bracket, no more systems of a kind than the market holds."""
    for counts in product(*[[0, *range(max(1, c.least), c.most + 1)] for c in columns]):
        names = [c.option.name for c, n in zip(columns, counts, strict=True) if n]
        if len(set(names)) == len(names):
            yield counts


def _need(columns: list[Column], counts: Counts, offer: Offer) -> int:
    return sum(systems(c, n) for c, n in zip(columns, counts, strict=True) if c.option.offer.key == offer.key)


def _contracts(question: Question, columns: list[Column], day: tuple[Counts, ...]) -> Iterator[Had]:
    """Every way to have the systems that the day takes."""
    choices = []
    for offer in question.offers:
        needs = [_need(columns, counts, offer) for counts in day]
        choices.append(list(_of_offer(question, offer, needs)))
    for picked in product(*choices):
        yield {name: numbers for part in picked for name, numbers in part.items()}


def _of_offer(question: Question, offer: Offer, needs: list[int]) -> Iterator[Had]:
    fixed = [k for k in offer.ways if not k.hourly]
    hourly = [k for k in offer.ways if k.hourly]
    assert len(fixed) <= 1 and len(hourly) <= 1
    slots = question.slots
    for all_day in range(max(needs) + 1) if fixed else [0]:
        had: Had = {k.name: [all_day] * len(slots) for k in fixed}
        there = [0 if k.name in slot.missing else all_day for k in fixed for slot in slots] or [0] * len(slots)
        short = [need - have for need, have in zip(needs, there, strict=True)]
        for k in hourly:
            up = [0.0 if k.name in slot.missing else k.up for slot in slots]
            had[k.name] = [max(0, ceil(x / u - EPS)) if u else 0 for x, u in zip(short, up, strict=True)]
            short = [x - u * n for x, u, n in zip(short, up, had[k.name], strict=True)]
        if all(x <= EPS for x in short):
            yield had


def _of(question: Question) -> list[tuple[Offer, Contract]]:
    return [(offer, k) for offer in question.offers for k in offer.ways]


def _paid(k: Contract, had: list[int], s: int, question: Question) -> float:
    """USD an hour in a slot; a contract is signed when anything is had under it, or beforehand."""
    signed = k.signed or any(had)
    systems_paid = max(had[s], k.least_paid if signed else 0)
    return systems_paid * k.usd_per_hour * (k.deposit if k.name in question.slots[s].missing else 1.0)


def _spent(question: Question, had: Had) -> float:
    slots = enumerate(question.slots)
    return sum(_paid(k, had[k.name], s, question) * slot.weight for s, slot in slots for _, k in _of(question))


def _limits_hold(question: Question, columns: list[Column], day: tuple[Counts, ...], had: Had) -> bool:
    """Limits that depend on what is had alone."""
    limits, slots = question.limits, range(len(question.slots))
    for _, k in _of(question):
        if k.late and any(had[k.name]):
            return False
        if k.supply is not None and max(had[k.name]) > k.supply:
            return False
    for system in {offer.system.id for offer in question.offers}:
        mine = [(offer, k) for offer, k in _of(question) if offer.system.id == system]
        supply = mine[0][0].supply
        if supply is not None and any(sum(had[k.name][s] for _, k in mine) > supply for s in slots):
            return False
    for s in slots:
        watts = sum(had[k.name][s] * (offer.facility_w or 0.0) for offer, k in _of(question))
        if limits.power_mw is not None and watts > limits.power_mw * 1e6 + EPS:
            return False
    capital = sum(had[k.name][0] * k.capital_usd for _, k in _of(question))
    if limits.capital_usd is not None and capital > limits.capital_usd + EPS:
        return False
    return not _dilutes(question) or _none_idle(question, columns, day, had)


def _dilutes(question: Question) -> bool:
    limits = question.limits
    by_vendor = limits.max_vendor_share is not None and limits.vendor_share_of != "output_tokens"
    return by_vendor or any(share.of != "output_tokens" for share in limits.shares)


def _none_idle(question: Question, columns: list[Column], day: tuple[Counts, ...], had: Had) -> bool:
    """Of every offer, all that is had all day runs in some slot."""
    for offer in question.offers:
        all_day = sum(had[k.name][0] for k in offer.ways if not k.hourly)
        if all_day > max(_need(columns, counts, offer) for counts in day):
            return False
    return True


@dataclass
class Text:
    """A linear program while it is written."""

    question: Question
    columns: list[Column]
    day: tuple[Counts, ...]
    names: dict[tuple[Any, ...], int] = field(default_factory=dict)
    upper: list[Row] = field(default_factory=list)
    exact: list[Row] = field(default_factory=list)
    most: dict[int, float] = field(default_factory=dict)

    def v(self, *name: Any) -> int:
        """The number of a variable."""
        return self.names.setdefault(name, len(self.names))


def _traffic(
    question: Question, columns: list[Column], day: tuple[Counts, ...], had: Had, spent: float, worth: Any
) -> Answer | None:
    """The best traffic that a day's fleets can carry."""
    text = Text(question, columns, day)
    worth = worth or (lambda _server, _demand: (0.0, 1.0))
    usd, gain = _variables(text, worth)
    _carry(text)
    _demand(text, worth)
    _budget(text, had)
    _shares(text, had)
    _redundancy(text, worth)
    started = sum(
        question.study.slots.usd_per_start * n * slot.probability / 24.0
        for s, slot in enumerate(question.slots)
        for n in _starts(text, s).values()
    )
    size = len(text.names)
    tiers = sorted({d.cls.tier for d in question.demands}) if question.limits.rationing else []
    unmet = []
    for tier in tiers:
        tokens = [0.0] * size
        for name, i in text.names.items():
            if name[0] == "unmet" and question.demands[name[1]].cls.tier == tier:
                tokens[i] = question.demands[name[1]].mean_output * question.slots[name[2]].weight
        x = least(tokens, text.upper, text.exact, text.most)
        if x is None:
            return None
        unmet.append(sum(a * b for a, b in zip(tokens, x, strict=True)))
        row = {i: w for i, w in enumerate(tokens) if w}
        text.upper.append((row, unmet[-1] + 1e-7 * max(1.0, unmet[-1])))
    x = least([usd.get(i, 0.0) - gain.get(i, 0.0) for i in range(size)], text.upper, text.exact, text.most)
    if x is None:
        return None
    bought = sum(usd.get(i, 0.0) * x[i] for i in range(size))
    earned = sum(gain.get(i, 0.0) * x[i] for i in range(size))
    return Answer(tuple(unmet), spent + started + bought - earned, spent + started + bought)


def _allowed(column: Column, demand: Demand) -> bool:
    offer, model = column.option.offer, column.option.deployment.model.id
    wrong = demand.model is not None and demand.model.id != model
    barred = bool(offer.models) and model not in offer.models
    return not wrong and not barred and (not demand.cls.regions or offer.region in demand.cls.regions)


def _sold(question: Question, api: Api, demand: Demand) -> bool:
    there = not demand.cls.regions or api.region in demand.cls.regions
    slo = demand.cls.slo
    soon = slo.ttft_s is None or api.ttft_s <= slo.ttft_s
    fast = slo.tpot_s is None or 1 / api.tokens_per_s <= slo.tpot_s * (1 + 1e-12)
    return there and soon and fast and api.model.id == (demand.model or question.model).id


def _variables(text: Text, worth: Any) -> tuple[dict[int, float], dict[int, float]]:
    """Variables, what they cost and what they earn [USD/h per request/s]."""
    usd: dict[int, float] = {}
    gain: dict[int, float] = {}
    q = text.question
    for s, slot in enumerate(q.slots):
        for c, demand in enumerate(q.demands):
            for i, column in enumerate(text.columns):
                if text.day[s][i] and column.capacity.get(demand.name, 0.0) > 0 and _allowed(column, demand):
                    v = text.v("rate", c, s, i)
                    gain[v] = worth(column, demand)[0] * 3600 * slot.weight
            for a, api in enumerate(q.apis):
                if _sold(q, api, demand):
                    v = text.v("api", c, s, a)
                    usd[v] = _api_usd(api, demand) * 3600 * slot.weight
                    gain[v] = worth(api, demand)[0] * 3600 * slot.weight
            if _least_served(q, demand) < 1:
                text.most[text.v("unmet", c, s)] = (1 - _least_served(q, demand)) * demand.rate_at(s)
    return usd, gain


def _least_served(question: Question, demand: Demand) -> float:
    if demand.cls.least_served is not None:
        return demand.cls.least_served
    free = question.limits.rationing or question.study.objective.maximise is not None
    return 0.0 if free else 1.0


def _api_usd(api: Api, demand: Demand) -> float:
    inputs, cached, outputs = (float(x.mean()) for x in demand.lengths)
    fresh = (inputs - cached) * api.input_usd_per_mtok + cached * api.cached_usd_per_mtok
    return (fresh + outputs * api.output_usd_per_mtok) / 1e6


def _starts(text: Text, s: int) -> dict[str, int]:
    """Option → instances that did not run in the slot before, under the same scenario, round the day."""
    slots, found = text.question.slots, {}
    mine = [t for t, slot in enumerate(slots) if slot.scenario == slots[s].scenario]
    earlier = mine[mine.index(s) - 1]
    for name in {c.option.name for c in text.columns}:
        now, then = (
            sum(n for c, n in zip(text.columns, text.day[t], strict=True) if c.option.name == name)
            for t in (s, earlier)
        )
        found[name] = max(0, now - then)
    return found


def _loading(text: Text, column: Column, s: int) -> float:
    """Instances of a pool that are lost to loading weights."""
    from infermix.perf.memory import weights_bytes

    rate = text.question.study.slots.load_gb_per_s
    if rate is None:
        return 0.0
    share = weights_bytes(column.option.deployment) / (rate * 1e9) / (text.question.slots[s].hours * 3600)
    return _starts(text, s)[column.option.name] * min(1.0, share)


def _carry(text: Text) -> None:
    """Instances are shared by classes; what an API sells; where systems would dilute shares, pools are used."""
    q = text.question
    for s in range(len(q.slots)):
        for i, column in enumerate(text.columns):
            n = text.day[s][i]
            used = {i2: 1 / text.columns[i].capacity[q.demands[name[1]].name]
                    for name, i2 in text.names.items() if name[0] == "rate" and name[2:] == (s, i)}  # fmt: skip
            if n:
                text.upper.append((used, n - _loading(text, column, s)))
            if n and column.least and _dilutes(q):
                text.upper.append(({v: -x for v, x in used.items()}, 0.45 - 0.5 * n))
        for a, api in enumerate(q.apis):
            tokens = {v: q.demands[name[1]].mean_output for name, v in text.names.items()
                      if name[0] == "api" and name[2:] == (s, a)}  # fmt: skip
            if api.most_tokens_per_s is not None and tokens:
                text.upper.append((tokens, api.most_tokens_per_s))


def _server(text: Text, name: tuple[Any, ...]) -> Any:
    return text.columns[name[3]] if name[0] == "rate" else text.question.apis[name[3]]


def _demand(text: Text, worth: Any) -> None:
    q = text.question
    for c, demand in enumerate(q.demands):
        parts = []
        for s, slot in enumerate(q.slots):
            row = {}
            for name, v in text.names.items():
                if name[0] in ("rate", "api") and name[1:3] == (c, s):
                    row[v] = 1 / worth(_server(text, name), demand)[1]
                if name == ("unmet", c, s):
                    row[v] = 1.0
            parts.append((slot.scenario, slot.hours, row, demand.rate_at(s)))
        if not (demand.cls.deferrable and len(q.slots) > 1):
            text.exact += [(row, rate) for _, _, row, rate in parts]
            continue
        for scenario in {slot.scenario for slot in q.slots}:
            mine = [part for part in parts if part[0] == scenario]
            day = {v: x * hours for _, hours, row, _ in mine for v, x in row.items()}
            text.exact.append((day, sum(hours * rate for _, hours, _, rate in mine)))


def _budget(text: Text, had: Had) -> None:
    q = text.question
    if q.limits.usd_per_hour is None:
        return
    for s in range(len(q.slots)):
        spent = sum(_paid(k, had[k.name], s, q) for _, k in _of(q))
        row = {v: 3600 * _api_usd(q.apis[name[3]], q.demands[name[1]]) for name, v in text.names.items()
               if name[0] == "api" and name[2] == s}  # fmt: skip
        text.upper.append((row, q.limits.usd_per_hour - spent))


def _amounts(text: Text, had: Had, of: str) -> list[tuple[str, str, str, dict[int, float], float]]:
    """(vendor, kind, system, coefficients, constant) of what is shared out."""
    q, found = text.question, []
    for name, v in text.names.items():
        if name[0] == "unmet":
            continue
        demand, weight = q.demands[name[1]], q.slots[name[2]].weight
        if name[0] == "api" and of != "capacity":
            api = q.apis[name[3]]
            each = demand.mean_output if of == "output_tokens" else 3600 * _api_usd(api, demand)
            found.append((api.vendor, "api", api.name, {v: each * weight}, 0.0))
        if name[0] == "rate" and of == "output_tokens":
            offer = text.columns[name[3]].option.offer
            found.append((offer.system.vendor, offer.chip.kind, offer.system.id, {v: demand.mean_output * weight}, 0.0))
    if of == "spend":
        for offer, k in _of(q):
            usd = sum(_paid(k, had[k.name], s, q) * slot.weight for s, slot in enumerate(q.slots))
            found.append((offer.system.vendor, offer.chip.kind, offer.system.id, {}, usd))
    if of == "capacity":
        for s, slot in enumerate(q.slots):
            for column, n in zip(text.columns, text.day[s], strict=True):
                offer = column.option.offer
                rates = [(column.capacity.get(d.name, 0.0) if _allowed(column, d) else 0.0) * d.mean_output
                         for d in q.demands]  # fmt: skip
                mine = n * max(rates) * slot.weight
                found.append((offer.system.vendor, offer.chip.kind, offer.system.id, {}, mine))
    return found


def _at_most(text: Text, amounts: list[Any], mine: list[bool], share: float, sense: float) -> None:
    """Sum of mine <= share of the sum of all (``sense`` 1), or >= (``sense`` -1)."""
    row: dict[int, float] = {}
    constant = 0.0
    for (*_, terms, fixed), is_mine in zip(amounts, mine, strict=True):
        for v, x in terms.items():
            row[v] = row.get(v, 0.0) + sense * x * (is_mine - share)
        constant += sense * fixed * (is_mine - share)
    text.upper.append((row, -constant + EPS))


def _shares(text: Text, had: Had) -> None:
    limits = text.question.limits
    if limits.max_vendor_share is not None:
        amounts = _amounts(text, had, limits.vendor_share_of)
        for vendor in {a[0] for a in amounts}:
            _at_most(text, amounts, [a[0] == vendor for a in amounts], limits.max_vendor_share, 1.0)
    for kind, share in limits.min_share_output_tokens.items():
        amounts = _amounts(text, had, "output_tokens")
        _at_most(text, amounts, [a[1] == kind for a in amounts], share, -1.0)
    for rule in limits.shares:
        amounts = _amounts(text, had, rule.of)
        wanted = (rule.vendor, rule.kind, rule.system)
        mine = [all(w is None or w == have for w, have in zip(wanted, a[:3], strict=True)) for a in amounts]
        if rule.most < 1:
            _at_most(text, amounts, mine, rule.most, 1.0)
        if rule.least > 0:
            _at_most(text, amounts, mine, rule.least, -1.0)


def _redundancy(text: Text, worth: Any) -> None:
    q, kept = text.question, text.question.limits.redundancy
    if kept is None:
        return
    for s in range(len(q.slots)):
        if kept.system:
            for i, column in enumerate(text.columns):
                lost = min(text.day[s][i], column.option.deployment.instances_per_system)
                _after(text, s, kept.system, ("without", i), {i: lost}, "", worth)
        if kept.vendor:
            vendors = {c.option.offer.system.vendor for c in text.columns} | {a.vendor for a in q.apis}
            for vendor in vendors:
                gone = {i: n for i, n in enumerate(text.day[s])
                        if text.columns[i].option.offer.system.vendor == vendor}  # fmt: skip
                _after(text, s, kept.vendor, ("lost", vendor), gone, vendor, worth)


def _after(
    text: Text, s: int, share: float, tag: tuple[Any, ...], lost: dict[int, int], vendor: str, worth: Any
) -> None:
    """A traffic that what is left could carry; of APIs what is bought today."""
    q = text.question
    used: dict[int, dict[int, float]] = {i: {} for i in range(len(text.columns))}
    for c, demand in enumerate(q.demands):
        if demand.cls.deferrable:
            continue
        row: dict[int, float] = {}
        for name, v in list(text.names.items()):
            if name[0] == "rate" and name[1:3] == (c, s):
                again = text.v(*tag, c, s, name[3])
                row[again] = -1.0 / worth(text.columns[name[3]], demand)[1]
                used[name[3]][again] = 1 / text.columns[name[3]].capacity[demand.name]
            if name[0] == "api" and name[1:3] == (c, s) and q.apis[name[3]].vendor != vendor:
                row[v] = -1.0
            if name == ("unmet", c, s):
                row[v] = -share
        text.upper.append((row, -share * demand.rate_at(s)))
    for i, terms in used.items():
        if terms:
            text.upper.append((terms, float(text.day[s][i] - lost.get(i, 0))))

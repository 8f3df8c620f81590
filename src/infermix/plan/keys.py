"""Limits of a question by their key in the study file: read, set, dropped; which way is looser, and by what unit."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NamedTuple

import msgspec

from infermix.plan.offers import Contract
from infermix.plan.question import Question
from infermix.plan.rules import Limits, Redundancy


class Key(NamedTuple):
    """A limit: its key, its value (None where it is a rule without a number), what one more unit of room is."""

    name: str
    value: float | None
    unit: str = ""
    step: float = 0.0
    """What is added to the value to make one unit of room: negative where it is a least."""
    whole: bool = False

    def said(self) -> str:
        """As the study file has it."""
        return self.name if self.value is None else f"{self.name} = {self.value:g}"


_PLAIN: dict[str, tuple[str, float]] = {
    "power_mw": ("0.1 MW", 0.1), "usd_per_hour": ("1 %", 0.01), "capital_usd": ("1 %", 0.01),
    "max_vendor_share": ("1 % point", 0.01),
}  # fmt: skip
"""Unit and step of limits that are numbers; steps of money are shares of it."""


def keys_of(question: Question) -> list[Key]:
    """Every limit of a question: of the market, of the limits table, of classes."""
    found = [
        Key(f"market.supply.{system}", float(supply), "system", 1.0, whole=True)
        for system, supply in {o.system.id: o.supply for o in question.offers}.items()
        if supply is not None
    ]
    for _, contract in question.contracts:
        name = f"market.contracts.{contract.name}"
        if contract.supply is not None:
            found.append(Key(f"{name}.supply", float(contract.supply), "system", 1.0, whole=True))
        found += [Key(f"{name}.delivery", None)] if contract.late else []
    found += [Key(f"market.supports.{o.system.id}", None) for o in question.offers if o.models]
    return found + _of_limits(question.limits) + _of_classes(question)


def _of_limits(limits: Limits) -> list[Key]:
    found = []
    for key, (unit, step) in _PLAIN.items():
        value = getattr(limits, key)
        if value is not None:
            found.append(Key(f"limits.{key}", value, unit, step * value if unit == "1 %" else step))
    point = "1 % point"
    for kind, share in limits.min_share_output_tokens.items():
        found.append(Key(f"limits.min_share_output_tokens.{kind}", share, point, -0.01))
    for i, rule in enumerate(limits.shares):
        found += [Key(f"limits.shares[{i}].least", rule.least, point, -0.01)] if rule.least > 0 else []
        found += [Key(f"limits.shares[{i}].most", rule.most, point, 0.01)] if rule.most < 1 else []
    for what in ("system", "vendor"):
        kept = getattr(limits.redundancy, what, None)
        if kept:
            found.append(Key(f"limits.redundancy.{what}", kept, point, -0.01))
    return found


def _of_classes(question: Question) -> list[Key]:
    found = [Key(f"traffic.{d.name}.regions", None) for d in question.demands if d.cls.regions]
    least = [(d.name, d.cls.least_served) for d in question.demands if d.cls.least_served]
    return found + [Key(f"traffic.{name}.least_served", share, "1 % point", -0.01) for name, share in least]


def one_more(question: Question, key: Key) -> Question:
    """The question with one unit of room more."""
    assert key.value is not None
    return with_value(question, key.name, max(0.0, key.value + key.step))


def without(question: Question, name: str) -> Question:
    """The question without a limit."""
    return with_value(question, name, None)


def with_value(question: Question, name: str, value: float | None) -> Question:
    """The question with another value of a limit; None: without it."""
    table, _, rest = name.partition(".")
    if table == "market":
        return _market(question, rest, value)
    if table == "traffic":
        return _traffic(question, rest, value)
    return question.with_limits(_limits(question.limits, rest, value))


def _market(question: Question, rest: str, value: float | None) -> Question:
    what, _, name = rest.partition(".")
    count = None if value is None else int(value)
    if what == "supply":
        offers = tuple(replace(o, supply=count) if o.system.id == name else o for o in question.offers)
    elif what == "supports":
        offers = tuple(replace(o, models=()) if o.system.id == name else o for o in question.offers)
    else:
        contract, _, field = name.rpartition(".")
        offers = tuple(
            replace(o, contracts=tuple(_loosened(k, field, count) if k.name == contract else k for k in o.contracts))
            for o in question.offers
        )
    return replace(question, offers=offers)


def _loosened(contract: Contract, field: str, count: int | None) -> Contract:
    return replace(contract, late=False) if field == "delivery" else replace(contract, supply=count)


def _traffic(question: Question, rest: str, value: float | None) -> Question:
    name, _, field = rest.rpartition(".")
    change: dict[str, object] = {"regions": []} if field == "regions" else {"least_served": value or 0.0}
    return question.with_demands(
        tuple(
            replace(d, cls=msgspec.structs.replace(d.cls, **change)) if d.name == name else d for d in question.demands
        )
    )


def _limits(limits: Limits, rest: str, value: float | None) -> Limits:
    share = re.fullmatch(r"shares\[(\d+)\]\.(least|most)", rest)
    if share:
        i, field = int(share[1]), share[2]
        free = {"least": 0.0, "most": 1.0}[field]
        rules = list(limits.shares)
        rules[i] = msgspec.structs.replace(rules[i], **{field: free if value is None else min(1.0, value)})
        return msgspec.structs.replace(limits, shares=rules)
    if rest.startswith("min_share_output_tokens."):
        kind = rest.partition(".")[2]
        kept = {k: v for k, v in limits.min_share_output_tokens.items() if k != kind}
        return msgspec.structs.replace(
            limits, min_share_output_tokens=kept if value is None else {**limits.min_share_output_tokens, kind: value}
        )
    if rest.startswith("redundancy."):
        lost = limits.redundancy or Redundancy()
        return msgspec.structs.replace(
            limits, redundancy=msgspec.structs.replace(lost, **{rest.partition(".")[2]: value})
        )
    if rest == "max_vendor_share" and value is not None:
        value = min(1.0, value)
    return msgspec.structs.replace(limits, **{rest: value})

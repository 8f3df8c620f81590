"""What if: the same question with a system at another price or another speed."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from infermix.plan.model import Solution
from infermix.plan.offers import Offer
from infermix.plan.question import Question


def at_price(question: Question, system: str, factor: float) -> Question:
    """The question with every price of a system times a factor."""
    return replace(question, offers=tuple(_priced(o, factor) if o.system.id == system else o for o in question.offers))


def _priced(offer: Offer, factor: float) -> Offer:
    price = msgspec.structs.replace(offer.price, usd_per_hour=offer.price.usd_per_hour * factor)
    contracts = tuple(replace(k, usd_per_hour=k.usd_per_hour * factor) for k in offer.contracts)
    return replace(offer, price=price, contracts=contracts)


def at_speed(question: Question, system: str, factor: float) -> Question:
    """The question with instances of a system that serve a factor more within the same promises."""
    others = tuple((name, f) for name, f in question.faster if name != system)
    return replace(question, faster=(*others, (system, factor)))


def systems_in(question: Question, solution: Solution) -> dict[str, int]:
    """System → most that a solution has of it in any slot, under all contracts; those it has none of are left out."""
    found: dict[str, int] = {}
    for s in range(len(question.slots)):
        counts: dict[str, int] = {}
        for offer, contract in question.contracts:
            counts[offer.system.id] = counts.get(offer.system.id, 0) + solution.had[contract.name][s]
        found |= {name: max(n, found.get(name, 0)) for name, n in counts.items() if n}
    return dict(sorted(found.items()))


def paid_for(question: Question, solution: Solution, system: str) -> float:
    """What a solution pays for a system [USD/h], mean over the slots; take or pay counted as had."""
    return sum(
        solution.had[contract.name][s]
        * contract.usd_per_hour
        * contract.paid_share(contract.name in slot.missing)
        * slot.weight
        for offer, contract in question.contracts
        if offer.system.id == system
        for s, slot in enumerate(question.slots)
    )

"""What a day's fleets cost: the cheapest way to have their systems under the contracts of the market."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import highspy
import numpy as np

from infermix.errors import NoAnswer
from infermix.fleet import Fleet
from infermix.plan.model import Program, Table, cost
from infermix.plan.model.lp import as_highs
from infermix.plan.model.supply import define_contracts, define_delivery, define_supply, define_take_or_pay
from infermix.plan.question import Question


@dataclass(frozen=True)
class Bill:
    """Systems had under each contract in each slot, and what all of it costs by the hour."""

    had: Mapping[str, tuple[int, ...]]
    usd_per_hour: float
    by_offer: Mapping[str, float]
    """Offer → its part of the cost."""


class Need(NamedTuple):
    """Systems of an offer in each slot."""

    offer: str
    systems: tuple[int, ...]


def needs_of(question: Question, fleets: Sequence[Fleet]) -> list[Need]:
    """Systems that the fleets of a day take, slot by slot."""
    found = []
    for offer in question.offers:
        counts = [
            sum(p.systems for p in fleet.pools if offer_key(question, p.name, p.deployment.system.id) == offer.key)
            for fleet in fleets
        ]
        found.append(Need(offer.key, tuple(counts)))
    return found


def offer_key(question: Question, pool: str, system: str) -> str:
    """The offer that a pool's systems come from; a pool in a region says so in its name."""
    mine = [o for o in question.offers if o.system.id == system]
    named = [o for o in mine if o.region and pool.endswith(f"@{o.region}")]
    return (named or mine)[0].key


def bill(question: Question, fleets: Sequence[Fleet]) -> Bill:
    """The cheapest contracts that hold a day's fleets.

    Raises
    ------
    NoAnswer
        The market cannot hold them.
    """
    columns = len(question.demands)
    empty = Table((), np.zeros((0, columns, len(question.slots))), np.zeros((0, columns)), np.zeros((0, columns)))
    program = Program(question, empty)
    define_contracts(program)
    define_delivery(program)
    define_take_or_pay(program)
    define_supply(program)
    for need in needs_of(question, fleets):
        mine = [(f, contract) for f, (offer, contract) in enumerate(program.contracts) if offer.key == need.offer]
        for s, count in enumerate(need.systems):
            missing = question.slots[s].missing
            there = [(program.had[f, s], contract.up) for f, contract in mine if contract.name not in missing]
            program.lp.row(program.at(f"need_{need.offer}", s), there, least=float(count))
    h = as_highs(program.lp, cost(program))
    h.setOptionValue("mip_rel_gap", 0.0)
    h.run()
    if h.getModelStatus() != highspy.HighsModelStatus.kOptimal:
        raise NoAnswer("the market cannot hold the systems of this fleet")
    values = np.asarray(h.getSolution().col_value)
    by_offer: dict[str, float] = {}
    for f, (offer, _) in enumerate(program.contracts):
        usd = sum(
            slot.weight * program.lp.value(program.paid_for(f, s), values) for s, slot in enumerate(question.slots)
        )
        by_offer[offer.key] = by_offer.get(offer.key, 0.0) + usd
    had = {
        contract.name: tuple(round(values[program.had[f, s]]) for s in program.slots)
        for f, (_, contract) in enumerate(program.contracts)
    }
    return Bill(had, sum(by_offer.values()), by_offer)

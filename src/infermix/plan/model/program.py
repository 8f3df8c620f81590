"""The program while it is written: the question, the table, and handles on the variables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from infermix.errors import NoAnswer
from infermix.plan.model.lp import Lp, Terms
from infermix.plan.offers import Api, Contract, Offer
from infermix.plan.question import Demand, Question
from infermix.plan.table import Column, Table
from infermix.units import SECONDS_PER_HOUR


@dataclass
class Program:
    """Variables by (column, slot), (column, class, slot), (contract, slot); numbers of columns, classes and slots."""

    question: Question
    table: Table
    lp: Lp = field(default_factory=Lp)
    instances: dict[tuple[int, int], int] = field(default_factory=dict)
    systems: dict[tuple[str, int], Terms] = field(default_factory=dict)
    """(pool, slot) → whole systems that host its instances."""
    opened: dict[tuple[int, int], int] = field(default_factory=dict)
    """Whether a pool is of this bracket; not there where a column takes any size."""
    rate: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """Requests a second of a class to a column; only where the column can serve it."""
    sent: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    """(class, slot) → (column, variable) of its rates."""
    bought: dict[tuple[int, int, int], int] = field(default_factory=dict)
    """(API, class, slot) → requests a second."""
    unmet: dict[tuple[int, int], int] = field(default_factory=dict)
    """(class, slot) → requests a second that are not served; only where that is allowed."""
    had: dict[tuple[int, int], int] = field(default_factory=dict)
    """Systems had under a contract; one variable for all slots unless the contract is by the hour."""
    paid: dict[tuple[int, int], int] = field(default_factory=dict)
    """Systems paid for, where that may be more than are had."""
    started: dict[tuple[int, int], int] = field(default_factory=dict)
    """(column, slot) → instances that did not run in the slot before; only where that costs something."""
    unserved: list[str] = field(default_factory=list)
    """Classes that nothing can serve: the program is infeasible."""

    @property
    def slots(self) -> range:
        """Numbers of the slots."""
        return range(len(self.question.slots))

    @property
    def contracts(self) -> tuple[tuple[Offer, Contract], ...]:
        """Contracts with their offers, in the order that numbers them."""
        return self.question.contracts

    def columns(self) -> Iterator[tuple[int, Column]]:
        """Columns with their numbers."""
        return enumerate(self.table.columns)

    def at(self, name: str, slot: int) -> str:
        """A name in a slot; slots are named only where there are several."""
        return name if len(self.question.slots) == 1 else f"{name}_s{slot}"

    def of_offer(self, offer: Offer, slot: int) -> Terms:
        """Systems of an offer that host instances in a slot."""
        mine = dict.fromkeys(c.pool for _, c in self.columns() if c.option.offer.key == offer.key)
        return [term for name in mine for term in self.systems[name, slot]]

    def paid_for(self, f: int, slot: int) -> Terms:
        """USD an hour for a contract in a slot: nothing but a deposit where the scenario does not deliver it."""
        contract = self.contracts[f][1]
        share = contract.paid_share(contract.name in self.question.slots[slot].missing)
        return [(self.paid.get((f, slot), self.had[f, slot]), contract.usd_per_hour * share)]

    def spend(self, slot: int) -> list[tuple[str, str, str, Terms]]:
        """(vendor, kind of chip, system, USD an hour) of every contract and API in a slot."""
        found = [
            (offer.system.vendor, offer.chip.kind, offer.system.id, self.paid_for(f, slot))
            for f, (offer, _) in enumerate(self.contracts)
        ]
        for (a, c, s), v in self.bought.items():
            if s == slot:
                api, demand = self.question.apis[a], self.question.demands[c]
                found.append((api.vendor, "api", api.name, [(v, api_usd(api, demand) * SECONDS_PER_HOUR)]))
        return found


def by_pool(program: Program) -> dict[str, list[int]]:
    """Option, and the class that its pool is kept for → the columns of its brackets."""
    found: dict[str, list[int]] = {}
    for i, column in program.columns():
        found.setdefault(column.pool, []).append(i)
    return found


def api_usd(api: Api, demand: Demand) -> float:
    """List price of a mean request of a class [USD]."""
    inputs, cached, outputs = (float(column.mean()) for column in demand.lengths)
    return api.usd_per_request(inputs, cached, outputs)


def facility_w(offer: Offer) -> float:
    """Power at the wall of one system [W]."""
    if offer.facility_w is None:
        raise NoAnswer(f"{offer.system.id}: no power figure, so limits.power_mw cannot be checked")
    return offer.facility_w

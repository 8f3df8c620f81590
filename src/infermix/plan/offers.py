"""What is on the market, resolved: systems with price and power on one basis, and what training holds of them."""

from __future__ import annotations

from dataclasses import dataclass

from infermix.catalog.records import Chip, System
from infermix.cost.rent import HourlyPrice


@dataclass(frozen=True)
class Contract:
    """A way to have systems of an offer."""

    name: str
    usd_per_hour: float
    """Paid for every hour in which a system is had."""
    supply: int | None = None
    hourly: bool = False
    """Whether other numbers may be had in other slots: on demand, not bought or reserved."""


@dataclass(frozen=True)
class Offer:
    """A system on the market.

    ``price`` is that of its cheapest contract, by which options are ranked; ``supply`` counts over all contracts.
    """

    system: System
    chip: Chip
    price: HourlyPrice
    supply: int | None
    facility_w: float | None
    contracts: tuple[Contract, ...] = ()

    @property
    def key(self) -> str:
        """Unique within a study."""
        return self.system.id

    @property
    def ways(self) -> tuple[Contract, ...]:
        """Its contracts; where none is stated, one that lasts all day at its price."""
        return self.contracts or (Contract(self.key, self.price.usd_per_hour),)


@dataclass(frozen=True)
class Reservation:
    """Systems that a training run holds.

    In the slots in which it runs its systems are missing from the supply, and its price and power count against the
    limits.
    """

    name: str
    system: System
    chip: Chip
    systems: int
    hours: tuple[int, int] | None
    price: HourlyPrice
    facility_w: float | None
    slots: tuple[bool, ...]
    """Whether it runs in each slot."""

    @property
    def counted(self) -> bool:
        """Whether it runs in any slot."""
        return any(self.slots)

    @property
    def usd_per_hour(self) -> float:
        """Price of all its systems [USD/h]."""
        return self.systems * self.price.usd_per_hour

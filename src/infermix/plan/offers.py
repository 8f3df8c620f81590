"""What is on the market, resolved: systems with price and power on one basis, and what training holds of them."""

from __future__ import annotations

from dataclasses import dataclass

from infermix.catalog.records import Chip, Model, System
from infermix.cost.rent import HourlyPrice
from infermix.units import TOKENS_PER_MTOK
from infermix.workload.classes import Slo


@dataclass(frozen=True)
class Contract:
    """A way to have systems of an offer."""

    name: str
    usd_per_hour: float
    """Paid for every hour in which a system is had."""
    supply: int | None = None
    hourly: bool = False
    """Whether other numbers may be had in other slots: on demand or spot, not bought or reserved."""
    basis: str = ""
    """How the price came about."""
    figures: tuple[str, ...] = ()
    capital_usd: float = 0.0
    """Paid at the start for a system that is bought."""
    least_paid: int = 0
    """Systems that are paid for, taken or not, once the contract is signed."""
    signed: bool = False
    delivered: float = 1.0
    """Probability that what is ordered comes in time."""
    deposit: float = 0.0
    """Share of its cost that is paid where it does not."""
    late: bool = False
    """Whether it is delivered after it is needed: nothing can be had."""
    up: float = 1.0
    """Share of time in which a system is not being replaced after an interruption."""

    def paid_share(self, missing: bool) -> float:
        """Share of its cost that is paid."""
        return self.deposit if missing else 1.0


@dataclass(frozen=True)
class Api:
    """An endpoint that serves a model at a list price and a speed, without systems of ours."""

    name: str
    vendor: str
    model: Model
    input_usd_per_mtok: float
    cached_usd_per_mtok: float
    output_usd_per_mtok: float
    tokens_per_s: float
    ttft_s: float
    most_tokens_per_s: float | None = None
    region: str = ""
    figures: tuple[str, ...] = ()

    def usd_per_request(self, inputs: float, cached: float, outputs: float) -> float:
        """List price of a request of so many tokens [USD]."""
        paid = (inputs - cached) * self.input_usd_per_mtok + cached * self.cached_usd_per_mtok
        return (paid + outputs * self.output_usd_per_mtok) / TOKENS_PER_MTOK

    def misses(self, slo: Slo) -> str:
        """What of a promise its list speed does not keep; empty where it keeps all."""
        if slo.ttft_s is not None and self.ttft_s > slo.ttft_s:
            return f"TTFT {self.ttft_s:g} s, promised {slo.ttft_s:g} s"
        if slo.tpot_s is not None and 1.0 / self.tokens_per_s > slo.tpot_s * (1 + 1e-12):
            return f"TPOT {1e3 / self.tokens_per_s:.3g} ms, promised {slo.tpot_s * 1e3:g} ms"
        return ""


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
    region: str = ""
    models: tuple[str, ...] = ()
    """Models that it may run; empty: any."""

    @property
    def key(self) -> str:
        """Unique within a study: the system, and its region where that is stated."""
        return f"{self.system.id}@{self.region}" if self.region else self.system.id

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

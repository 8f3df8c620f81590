"""Limits, judged on a fleet as simulated: what is used, what is allowed, what is broken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infermix.arrays import Floats
from infermix.fleet import Fleet, Pool
from infermix.plan.evidence import Evidence
from infermix.plan.offers import Offer
from infermix.plan.question import Question

TOLERANCE = 1e-9


@dataclass(frozen=True)
class LimitUse:
    """One limit: its key in the study, what is used, what is allowed (``at_least``: the other way round)."""

    name: str
    used: float
    allowed: float
    at_least: bool = False

    @property
    def broken(self) -> bool:
        """Whether the fleet breaks it."""
        gap = self.allowed - self.used if self.at_least else self.used - self.allowed
        return gap > TOLERANCE * max(1.0, abs(self.allowed))


def offer_of(question: Question, pool: Pool) -> Offer:
    """The offer that a pool's systems come from."""
    return next(o for o in question.offers if o.system.id == pool.deployment.system.id)


def pool_cost(question: Question, pool: Pool) -> float:
    """Price of the whole systems of a pool [USD/h]."""
    return pool.systems * offer_of(question, pool).price.usd_per_hour


def fleet_cost(question: Question, fleet: Fleet) -> float:
    """Price of a fleet [USD/h]."""
    return sum(pool_cost(question, pool) for pool in fleet.pools)


def broken_limits(question: Question, fleet: Fleet, evidence: Evidence) -> list[str]:
    """Names of the limits that a fleet breaks."""
    return [use.name for use in limit_uses(question, fleet, evidence) if use.broken]


def limit_uses(question: Question, fleet: Fleet, evidence: Evidence) -> list[LimitUse]:
    """Every limit of the study, with what the fleet and the training beside it use of it.

    Shares of vendors and of tokens are the fleet's alone.
    """
    limits, offers = question.limits, [offer_of(question, p) for p in fleet.pools]
    outputs = evidence.output_tokens.sum(axis=0)
    uses = [_supply_use(question, fleet, offer) for offer in question.offers if offer.supply is not None]
    if limits.power_mw is not None:
        watts = sum(p.systems * (o.facility_w or np.nan) for p, o in zip(fleet.pools, offers, strict=True))
        uses.append(LimitUse("limits.power_mw", (watts + question.reserved_w()) / 1e6, limits.power_mw))
    if limits.usd_per_hour is not None:
        spent = fleet_cost(question, fleet) + question.reserved_usd_per_hour()
        uses.append(LimitUse("limits.usd_per_hour", spent, limits.usd_per_hour))
    if limits.max_vendor_share is not None:
        costs = np.array([pool_cost(question, p) for p in fleet.pools])
        amounts = costs if limits.vendor_share_of == "spend" else outputs
        uses.append(
            LimitUse(
                f"limits.max_vendor_share ({_largest_vendor(offers, amounts)})",
                _largest_share(offers, amounts),
                limits.max_vendor_share,
            )
        )
    for kind, share in limits.min_share_output_tokens.items():
        mine = np.array([o.chip.kind == kind for o in offers])
        uses.append(
            LimitUse(
                f"limits.min_share_output_tokens.{kind}",
                float(outputs[mine].sum() / outputs.sum()),
                share,
                at_least=True,
            )
        )
    return uses


def _supply_use(question: Question, fleet: Fleet, offer: Offer) -> LimitUse:
    bought = sum(p.systems for p in fleet.pools if p.deployment.system.id == offer.system.id)
    held = question.reserved_systems(offer.system.id)
    return LimitUse(f"market.supply.{offer.system.id}", bought + held, float(offer.supply or 0))


def _by_vendor(offers: list[Offer], amounts: Floats) -> dict[str, float]:
    totals: dict[str, float] = {}
    for offer, amount in zip(offers, amounts, strict=True):
        totals[offer.system.vendor] = totals.get(offer.system.vendor, 0.0) + float(amount)
    return totals


def _largest_vendor(offers: list[Offer], amounts: Floats) -> str:
    totals = _by_vendor(offers, amounts)
    return max(totals, key=lambda v: totals[v])


def _largest_share(offers: list[Offer], amounts: Floats) -> float:
    totals = _by_vendor(offers, amounts)
    return max(totals.values()) / max(sum(totals.values()), 1e-300)

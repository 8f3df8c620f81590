"""Prompts read on one system, answers written on another: which pairs may be had, and what each part serves.

A pair is no option of its own. Its two parts are options with a role, each with a capacity, a price, power and a
vendor; the program takes whole instances of both, so that what prefill pools of a pair take of a class its decode pools
are sent: the numbers of either follow from throughput. Both parts keep KV in one dtype, for it travels as it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from infermix.errors import InputError, NoAnswer
from infermix.fleet import Fleet
from infermix.perf.deployment import Deployment
from infermix.perf.pairs import KNOWN, UNKNOWN, Readiness
from infermix.perf.transfer import network_bytes_per_s
from infermix.plan.offers import Offer

if TYPE_CHECKING:
    from infermix.plan.candidates import Base
    from infermix.plan.question import Question

RANKS: tuple[Readiness, ...] = ("hypothetical", "demonstrated", "shipping")


class Parts(NamedTuple):
    """An offer that reads prompts and one that answers."""

    prefill: Offer
    decode: Offer

    @property
    def name(self) -> str:
        """Unique within a study."""
        return f"{self.prefill.key} > {self.decode.key}"

    @property
    def readiness(self) -> Readiness:
        """Of the vendors' chips together."""
        return KNOWN.get((self.prefill.chip.vendor, self.decode.chip.vendor), UNKNOWN).readiness


def parts_of(question: Question) -> list[Parts]:
    """Pairs that the study asks for: those that it names, and all that are ready enough where it says so.

    Raises
    ------
    InputError
        Pairs beside something that the program has no equations for.
    """
    market = question.study.market
    if market is None or not (market.pairs or market.pairs_ready):
        return []
    where = f"{question.study.path}: market.{'pairs' if market.pairs else 'pairs_ready'}"
    for said, asked in (("objective.maximise", question.profits), ("limits.redundancy", question.limits.redundancy)):
        if asked:
            raise InputError(f"pairs of prefill and decode do not go with {said}", where=where, mend="leave one out")
    named = {(pair.prefill, pair.decode) for pair in market.pairs}
    least = RANKS.index(market.pairs_ready) if market.pairs_ready else len(RANKS)
    near = [Parts(p, d) for p in question.offers for d in question.offers if p.region == d.region]
    return [
        parts
        for parts in near
        if (parts.prefill.system.id, parts.decode.system.id) in named or RANKS.index(parts.readiness) >= least
    ]


def with_pairs(question: Question, bases: Sequence[Base]) -> tuple[list[Base], dict[str, str]]:
    """The bases of every pair's two parts, and why pairs have none."""
    found: list[Base] = []
    reasons: dict[str, str] = {}
    for parts in parts_of(question):
        mine = {
            role: [b for b in bases if b.offer.key == offer.key and _may(b.deployment, role)]
            for role, offer in (("prefill", parts.prefill), ("decode", parts.decode))
        }
        both = {(b.deployment.model.id, b.deployment.kv) for b in mine["prefill"]}
        both &= {(b.deployment.model.id, b.deployment.kv) for b in mine["decode"]}
        reason = "" if both else "no KV dtype and model that both can have"
        try:
            for deployment in [rows[0].deployment for rows in mine.values() if rows]:
                network_bytes_per_s(deployment)
        except NoAnswer as fault:
            reason = str(fault)
        if reason:
            reasons[parts.name] = reason
            continue
        for role, rows in mine.items():
            found += [_part(b, role, parts) for b in rows if (b.deployment.model.id, b.deployment.kv) in both]
    return found, reasons


def _may(d: Deployment, role: str) -> bool:
    """Whether a deployment may have a role: a prefill pool drafts nothing."""
    return role == "decode" or d.spec is None


def _part(base: Base, role: str, parts: Parts) -> Base:
    d = msgspec.structs.replace(base.deployment, role=role)
    return replace(base, deployment=d, pair=f"{parts.name} {d.kv}")


def stage_shares(fleet: Fleet, class_names: Iterable[str]) -> dict[str, dict[str, float]]:
    """Class → pool → share of its requests whose prompts are read, or answers written, there.

    Pools of a fleet state shares of what is sent, where a request that is handed over is sent twice.
    """
    found = {}
    for name in class_names:
        mine = {pool.name: pool.serves[name] for pool in fleet.pools if name in pool.serves}
        read = sum(pool.serves.get(name, 0.0) for pool in fleet.pools if pool.deployment.role != "decode")
        found[name] = {pool: share / (read or 1.0) for pool, share in mine.items()}
    return found

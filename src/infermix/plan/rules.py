"""Limits and objective of a study file."""

from __future__ import annotations

from typing import Literal

import msgspec

from infermix.catalog.records import KINDS_OF_CHIP
from infermix.errors import InputError, near_miss

Measure = Literal["spend", "capacity", "output_tokens"]
"""What a share is of: money, what instances could yield, or output tokens served."""
KINDS = (*sorted(set(KINDS_OF_CHIP.values())), "api")


class Share(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Least and greatest share of one vendor, kind of chip or system."""

    of: Measure = "output_tokens"
    vendor: str | None = None
    kind: str | None = None
    system: str | None = None
    least: float = 0.0
    most: float = 1.0

    @property
    def member(self) -> str:
        """Whose share it is."""
        return self.vendor or self.kind or self.system or ""

    def check(self, where: str) -> None:
        """Raise InputError unless it names one of the three and a range."""
        named = [name for name in ("vendor", "kind", "system") if getattr(self, name) is not None]
        if len(named) != 1:
            raise InputError("whose share?", where=where, value=named, allowed="one of vendor, kind and system")
        if not 0 <= self.least <= self.most <= 1:
            raise InputError("no such shares", where=where, value=(self.least, self.most), allowed="least <= most <= 1")
        if self.kind is not None:
            check_kind(self.kind, f"{where}.kind")


class Redundancy(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Share of every class that is still served after a loss."""

    system: float | None = None
    """After the loss of any one system."""
    vendor: float | None = None
    """After the loss of any one vendor, the largest included."""


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a plan must respect beside its promises."""

    max_vendor_share: float | None = None
    """Largest share of one vendor, of what ``vendor_share_of`` says."""
    vendor_share_of: Measure = "spend"
    min_share_output_tokens: dict[str, float] = {}
    """Kind of chip (``sram``, ``hbm``, ...) → least share of all output tokens."""
    shares: list[Share] = []
    power_mw: float | None = None
    """At the wall: IT power times ``cost.pue``."""
    usd_per_hour: float | None = None
    capital_usd: float | None = None
    """For systems that are bought."""
    redundancy: Redundancy | None = None
    rationing: bool = False
    """Where supply is short, classes of a higher tier go without first; else a shortage has no answer."""

    @property
    def dilutes(self) -> bool:
        """Whether idle systems of one vendor would make room for another's."""
        measured = [share.of for share in self.shares]
        measured += [self.vendor_share_of] if self.max_vendor_share is not None else []
        return any(of != "output_tokens" for of in measured)

    def check(self, where: str) -> None:
        """Raise InputError for limits that cannot be."""
        shares = {"max_vendor_share": self.max_vendor_share}
        shares |= {f"min_share_output_tokens.{k}": v for k, v in self.min_share_output_tokens.items()}
        if self.redundancy is not None:
            shares |= {f"redundancy.{k}": getattr(self.redundancy, k) for k in ("system", "vendor")}
        for key, value in shares.items():
            if value is not None and not 0 <= value <= 1:
                raise InputError("a share must lie between 0 and 1", where=f"{where}.{key}", value=value)
        for key in ("power_mw", "usd_per_hour", "capital_usd"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise InputError("must be positive and finite", where=f"{where}.{key}", value=value)
        for i, share in enumerate(self.shares):
            share.check(f"{where}.shares[{i}]")
        for kind in self.min_share_output_tokens:
            check_kind(kind, f"{where}.min_share_output_tokens")


class Objective(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is minimised, or maximised instead."""

    minimise: Literal["usd_per_hour"] = "usd_per_hour"
    maximise: Literal["profit_usd_per_hour"] | None = None
    """What the classes' ``worth`` and value of time earn, less cost; requests need not be served."""


def check_kind(kind: str, where: str) -> None:
    """Raise InputError for a kind of chip that does not exist."""
    if kind not in KINDS:
        raise InputError(
            "unknown kind of chip", where=where, value=kind, allowed=", ".join(KINDS), mend=near_miss(kind, KINDS)
        )

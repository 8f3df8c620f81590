"""Traffic classes and what they were promised."""

from __future__ import annotations

import msgspec

from infermix.errors import InputError, near_miss


class Slo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Promise to a class: the share ``attainment`` of *offered* requests meets every target jointly.

    ``ttft_s_per_1k_uncached`` adds to ``ttft_s`` for every 1,000 uncached input tokens; TPOT is
    ignored when the output is one token. A target left out is not promised.
    """

    ttft_s: float | None = None
    ttft_s_per_1k_uncached: float = 0.0
    tpot_s: float | None = None
    e2e_s: float | None = None
    attainment: float = 0.95

    def check(self, where: str) -> None:
        """Raise InputError when a target is not positive or the attainment is not in (0, 1)."""
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"{name} must be positive", where=where, value=value, allowed="seconds > 0")
        if self.ttft_s_per_1k_uncached < 0:
            raise InputError("ttft_s_per_1k_uncached is negative", where=where, value=self.ttft_s_per_1k_uncached)
        if not 0 < self.attainment < 1:
            raise InputError("attainment out of range", where=where, value=self.attainment, allowed="between 0 and 1")
        if self.ttft_s is None and self.tpot_s is None and self.e2e_s is None:
            raise InputError("no target", where=where, allowed="ttft_s, tpot_s, e2e_s", mend="promise at least one")


class TrafficClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One class of a study: where its requests come from, how many a second, and its promise.

    Exactly one of ``profile`` (a packaged profile) and ``trace`` (a file) is given. With a trace
    and no ``rate_per_s`` the traffic is as recorded.
    """

    slo: Slo
    profile: str | None = None
    trace: str | None = None
    rate_per_s: float | None = None
    columns: dict[str, str] = {}
    """For CSV and Parquet traces: our column name → the file's."""
    context: str = "clip"
    """What happens to requests longer than the model's context: ``clip`` or ``refuse``."""

    def check(self, where: str) -> None:
        """Raise InputError unless there is one of profile and trace, and rate, context and promise make sense."""
        if (self.profile is None) == (self.trace is None):
            raise InputError(
                "a class needs a profile or a trace",
                where=where,
                value=self.profile or "neither",
                allowed="exactly one of profile and trace",
            )
        if self.rate_per_s is not None and not 0 < self.rate_per_s < float("inf"):
            raise InputError(
                "rate_per_s must be positive", where=where, value=self.rate_per_s, allowed="requests a second > 0"
            )
        if self.context not in ("clip", "refuse"):
            raise InputError(
                "unknown treatment of long contexts",
                where=f"{where}.context",
                value=self.context,
                allowed="clip, refuse",
                mend=near_miss(self.context, ("clip", "refuse")),
            )
        self.slo.check(f"{where}.slo")

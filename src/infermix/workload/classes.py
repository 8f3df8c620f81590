"""Traffic classes and what they were promised."""

from __future__ import annotations

import msgspec

from infermix.errors import InputError, near_miss
from infermix.workload.laws import Arrivals
from infermix.workload.shape import Shape, check_shape
from infermix.workload.worth import Worth

MIN_PRIORITY, MAX_PRIORITY = -128, 127


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


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One source of a mix and its weight: its share of the requests (of the sessions, in a closed loop)."""

    profile: str | None = None
    trace: str | None = None
    weight: float
    columns: dict[str, str] = {}
    only: dict[str, str | list[str]] = {}
    between_s: tuple[float, float] | None = None
    lengths: str | None = None

    def check(self, where: str) -> None:
        """Raise InputError unless there is one of profile and trace, and the weight is positive."""
        check_source(self.profile, self.trace, where)
        _check_between(self.between_s, where)
        if not 0 < self.weight < float("inf"):
            raise InputError("weight must be positive", where=f"{where}.weight", value=self.weight, allowed="above 0")


class TrafficClass(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One class of a study: where its requests come from, how many a second, and its promise.

    Exactly one of ``profile`` (a packaged profile), ``trace`` (a file) and ``mix`` is given. With a
    trace and no ``rate_per_s`` the traffic is as recorded.
    """

    slo: Slo
    worth: Worth | None = None
    """What serving it brings in, for plans that maximise profit."""
    regions: list[str] = []
    """Where its data may go; empty: anywhere."""
    tier: int = 1
    """Where supply is short, classes of a higher tier go without first."""
    least_served: float | None = None
    """Share of its requests that must be served; None: all, where nothing is rationed and cost is minimised."""
    deferrable: bool = False
    """Whether its requests may wait for a part of the day with room."""
    model: str | None = None
    """Model that serves it; None: the study's."""
    profile: str | None = None
    trace: str | None = None
    mix: list[Part] = []
    """Several profiles and traces, each with its weight."""
    rate_per_s: float | None = None
    """Mean rate [1/s]; with a ``shape`` over the day."""
    sessions: int | None = None
    """So many sessions at work at every moment, instead of a rate."""
    leave_after_s: float = 1800.0
    """With ``sessions``: a longer pause ends the session [s]."""
    arrivals: Arrivals | None = None
    """Law of the times between requests, instead of the recorded one."""
    shape: Shape | None = None
    """How the rate swings over the day."""
    columns: dict[str, str] = {}
    """For tables: our column name → the file's."""
    only: dict[str, str | list[str]] = {}
    """``model`` or ``kind`` of request (ServeGen: category, model, client) → values to keep."""
    between_s: tuple[float, float] | None = None
    """Only this stretch of a trace [s]."""
    lengths: str | None = None
    """ServeGen: the file of length distributions."""
    context: str = "clip"
    """What happens to requests longer than the model's context: ``clip`` or ``refuse``."""
    value_of_time_usd_per_hour: float | None = None
    """What an hour less of waiting for answers is worth, to policies that weigh it [USD/h]."""
    refuse_late: bool = False
    """Whether the policy ``deadline`` may refuse requests that can no longer be in time."""
    priority: int = 0
    """Larger is more urgent: goes first in queues, is preempted last."""
    max_wait_s: float | None = None
    """The gateway refuses what would wait longer on every instance, by its model of their queues [s]."""
    shed_above: float | None = None
    """The gateway refuses while the requests in flight are at least this share of all places in batches."""
    ration_per_s: float | None = None
    """The gateway lets so many through on average [1/s]."""
    ration_burst: float | None = None
    """And so many at once; one where only the rate is stated."""

    def check(self, where: str) -> None:
        """Raise InputError unless source, rate, sessions, law, shape, context and promise go together."""
        self._check_source(where)
        _check_between(self.between_s, where)
        self._check_rate(where)
        if self.arrivals is not None:
            self.arrivals.check(f"{where}.arrivals")
            if self.mix or self.sessions is not None:
                other = "mix" if self.mix else "sessions"
                raise InputError(
                    f"arrivals does not go with {other}",
                    where=f"{where}.arrivals",
                    value=self.arrivals.law,
                    mend="leave one of them out",
                )
        if self.shape is not None:
            check_shape(self.shape, f"{where}.shape")
        if self.context not in ("clip", "refuse"):
            raise InputError(
                "unknown treatment of long contexts",
                where=f"{where}.context",
                value=self.context,
                allowed="clip, refuse",
                mend=near_miss(self.context, ("clip", "refuse")),
            )
        value = self.value_of_time_usd_per_hour
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(
                "value of time must be finite and 0 or more",
                where=f"{where}.value_of_time_usd_per_hour",
                value=value,
                allowed="USD an hour",
            )
        self.slo.check(f"{where}.slo")
        self._check_limits(where)
        self._check_plan(where)

    @property
    def is_limited(self) -> bool:
        """Whether the gateway may turn its requests away."""
        return any(value is not None for value in (self.max_wait_s, self.shed_above, self.ration_per_s))

    def _check_limits(self, where: str) -> None:
        """Raise InputError for a priority or a limit of the gateway that cannot be."""
        if not MIN_PRIORITY <= self.priority <= MAX_PRIORITY:
            allowed = f"{MIN_PRIORITY} to {MAX_PRIORITY}"
            raise InputError("priority out of range", where=f"{where}.priority", value=self.priority, allowed=allowed)
        for name in ("max_wait_s", "shed_above", "ration_per_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} must be positive and finite", where=f"{where}.{name}", value=value)
        burst = self.ration_burst
        if burst is not None and self.ration_per_s is None:
            raise InputError("ration_burst goes with ration_per_s", where=f"{where}.ration_burst", value=burst)
        if burst is not None and not 1 <= burst < float("inf"):
            raise InputError("ration_burst must be 1 or more", where=f"{where}.ration_burst", value=burst)

    def _check_plan(self, where: str) -> None:
        """Raise InputError for what only a plan reads."""
        if self.worth is not None:
            self.worth.check(f"{where}.worth")
        if self.least_served is not None and not 0 <= self.least_served <= 1:
            raise InputError("a share must lie between 0 and 1", where=f"{where}.least_served", value=self.least_served)
        if self.tier < 1:
            raise InputError("tiers count from 1", where=f"{where}.tier", value=self.tier)
        if self.deferrable and self.sessions is not None:
            raise InputError("sessions cannot be deferred", where=f"{where}.deferrable", value=True)

    def _check_source(self, where: str) -> None:
        if not self.mix:
            check_source(self.profile, self.trace, where)
            return
        single = {
            "profile": self.profile,
            "trace": self.trace,
            "columns": self.columns,
            "only": self.only,
            "between_s": self.between_s,
            "lengths": self.lengths,
        }
        for name, value in single.items():
            if value:
                raise InputError(
                    f"{name} does not go with mix", where=f"{where}.{name}", value=value, mend="say it in a part of mix"
                )
        for i, part in enumerate(self.mix):
            part.check(f"{where}.mix[{i}]")

    def _check_rate(self, where: str) -> None:
        rate = self.rate_per_s
        if rate is not None and not 0 < rate < float("inf"):
            raise InputError("rate_per_s must be positive", where=where, value=rate, allowed="requests a second > 0")
        if self.sessions is None:
            if self.shape is not None and rate is None:
                raise InputError(
                    "shape multiplies a mean rate", where=f"{where}.shape", value="no rate_per_s", mend="add rate_per_s"
                )
            return
        if self.sessions < 1:
            raise InputError("sessions must be positive", where=where, value=self.sessions, allowed="1 or more")
        for name, value in (("rate_per_s", rate), ("shape", self.shape)):
            if value is not None:
                raise InputError(
                    f"{name} does not go with sessions, which set the rate",
                    where=f"{where}.{name}",
                    value=value,
                    mend=f"leave {name} or sessions out",
                )
        if not self.leave_after_s > 0:
            raise InputError(
                "leave_after_s must be positive", where=where, value=self.leave_after_s, allowed="seconds > 0"
            )


def check_source(profile: str | None, trace: str | None, where: str) -> None:
    """Raise InputError unless exactly one of the two is given."""
    if (profile is None) == (trace is None):
        raise InputError(
            "a class needs a profile or a trace",
            where=where,
            value=profile or "neither",
            allowed="exactly one of profile and trace, or mix",
        )


def _check_between(between_s: tuple[float, float] | None, where: str) -> None:
    if between_s is not None and not 0 <= between_s[0] < between_s[1]:
        raise InputError(
            "between_s must be two times", where=f"{where}.between_s", value=between_s, allowed="0 <= from < to"
        )

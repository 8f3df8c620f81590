"""Rules of the whole run: instances that come and go, admission at the gateway, old signals."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from infermix.route.view import Ask, FleetView
from tests.naive.policies import wait_s

UP, STARTING, DRAINING, DOWN = "up", "starting", "draining", "down"


@dataclass(frozen=True)
class NaiveRules:
    """What belongs to no pool."""

    events: tuple[tuple[float, int, str], ...] = ()
    """Time, instance, and ``fail``, ``start`` or ``drain``."""
    resume: bool = False
    stale_s: float = 0.0
    ration_per_s: list[float] | None = None
    """By class, as what follows; None and inf: no limit."""
    ration_burst: list[float] | None = None
    shed_above: list[float] | None = None
    max_wait_s: list[float] | None = None


@dataclass
class Life:
    """Whether an instance is up, and for how long it was not down."""

    state: str = UP
    since_s: float = 0.0
    on_s: float = 0.0
    starts: int = 0

    def change(self, state: str, now_s: float) -> None:
        if self.state == DOWN:
            self.since_s = now_s
        elif state == DOWN:
            self.on_s += now_s - self.since_s
        self.state = state

    def total_s(self, end_s: float) -> float:
        """Time not down until the end of the run."""
        return self.on_s + (end_s - self.since_s if self.state != DOWN else 0.0)


@dataclass
class Bucket:
    """Requests that a class may still send."""

    per_s: float
    burst: float
    held: float
    at_s: float = 0.0

    def take(self, now_s: float) -> bool:
        """Whether there was one to be had."""
        self.held = min(self.burst, self.held + self.per_s * (now_s - self.at_s))
        self.at_s = now_s
        if self.held < 1:
            return False
        self.held -= 1
        return True


@dataclass
class Gateway:
    """What is refused before the policy is asked."""

    rules: NaiveRules
    buckets: dict[int, Bucket] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rates, bursts = self.rules.ration_per_s, self.rules.ration_burst
        if rates is not None and bursts is not None:
            for class_id, (rate, burst) in enumerate(zip(rates, bursts, strict=True)):
                if math.isfinite(rate) and math.isfinite(burst):
                    self.buckets[class_id] = Bucket(rate, burst, burst)

    def refuses(self, view: FleetView, ask: Ask) -> bool:
        """Ration, shed, modelled wait; some instance is eligible."""
        bucket = self.buckets.get(ask.class_id)
        if bucket is not None and not bucket.take(ask.now_s):
            return True
        return self.sheds(view, ask) or self.waits_too_long(view, ask)

    def sheds(self, view: FleetView, ask: Ask) -> bool:
        if self.rules.shed_above is None:
            return False
        eligible = [number for number in range(len(view.pool)) if view.eligible[number]]
        inflight = sum(int(view.inflight[number]) for number in eligible)
        places = sum(int(view.max_num_seqs[number]) for number in eligible)
        return inflight >= self.rules.shed_above[ask.class_id] * places

    def waits_too_long(self, view: FleetView, ask: Ask) -> bool:
        if self.rules.max_wait_s is None:
            return False
        limit_s = self.rules.max_wait_s[ask.class_id]
        return not any(
            wait_s(view, ask, number) <= limit_s for number in range(len(view.pool)) if view.eligible[number]
        )


@dataclass
class Autoscaler:
    """Of one pool: how often in a row there were too many."""

    ticks: int = 0
    too_many: int = 0

"""Cost against speed, fleet by fleet, each proved: the tightest TPOT of one class that it holds, and what it costs.

Fleets come from the program at a few promises. One that misses is given more instances, one that holds gives them back;
each is proved at the tightest promise that it holds (``apart``), so none is simulated in vain. Then the neighbours of
the curve are tried, one system more or less in one pool: all of its other pools are simulated already.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from infermix.fleet import Fleet
from infermix.plan.apart import SPEEDS, Apart, Outcome, name_of, tightest
from infermix.plan.evidence import Evidence, Traffic
from infermix.plan.limits import broken_limits, fleet_cost
from infermix.plan.prove import Progress, alone, over_allowed, without
from infermix.plan.question import Question

STEPS = 8
"""Times that a fleet is given more before it is left."""


@dataclass(frozen=True)
class Held:
    """A fleet that keeps the limits and promises of the study, but for the TPOT of one class: that is ``tpot_s``.

    By simulation on all seeds at the speeds that the study asks for; ``low`` says whether at low speeds as well.
    ``whole``: all of its pools together, too, and the looser of the two promises counts.
    """

    fleet: Fleet
    usd_per_hour: float
    tpot_s: float
    low: bool
    whole: bool = False


@dataclass
class Curve:
    """Fleets that were simulated, and what they hold."""

    question: Question
    apart: Apart
    tried: dict[object, Held | None] = field(default_factory=dict)
    """None: another promise or a limit is missed."""

    @property
    def held(self) -> list[Held]:
        """All fleets that hold, the cheapest first, of equals the fastest."""
        found = [held for held in self.tried.values() if held is not None]
        return sorted(found, key=lambda held: (held.usd_per_hour, held.tpot_s))

    @property
    def best(self) -> list[Held]:
        """The fleets than which none is both faster and no dearer."""
        found: list[Held] = []
        for held in self.held:
            if not found or held.tpot_s < found[-1].tpot_s:
                found.append(held)
        return found

    def known(self, fleet: Fleet) -> bool:
        """Whether a fleet was tried."""
        return _key(fleet) in self.tried

    def cheapest(self, tpot_s: float) -> Held | None:
        """The cheapest fleet that holds a promise."""
        return next((held for held in self.held if held.tpot_s <= tpot_s), None)

    def prove(self, fleet: Fleet, *, whole: bool = False) -> tuple[Held | None, list[str], Evidence]:
        """(the fleet if it holds, what else it misses, the last evidence)."""
        question, name = self.question, self.apart.name
        missed: list[str] = []
        outcomes: dict[str, Outcome] = {}
        for speed in dict.fromkeys((question.speed, "nominal")):
            outcomes[speed] = self.apart.outcome(fleet, speed, whole=whole)
            evidence = outcomes[speed].evidence
            missed = [n for n, held in _others_hold(question, evidence, name).items() if not held]
            if speed == "nominal":
                missed += broken_limits(question, fleet, evidence)
            if missed:
                break
        attainment = next(d.cls.slo.attainment for d in question.demands if d.name == name)
        found: Held | None = None
        if not missed:
            tpot_s = max(tightest(outcome.times, attainment) for outcome in outcomes.values())
            if tpot_s < float("inf"):
                low = set(outcomes) == set(SPEEDS)
                found = Held(fleet, fleet_cost(question, fleet), max(tpot_s, self._before(fleet)), low, whole)
        self.tried[_key(fleet)] = found
        return found, missed, evidence

    def _before(self, fleet: Fleet) -> float:
        """The promise that a fleet was found to hold before."""
        known = self.tried.get(_key(fleet))
        return 0.0 if known is None else known.tpot_s

    def confirm(self) -> None:
        """Simulate the fleets of the curve whole, until all of those that are left were."""
        while left := [held for held in self.best if not held.whole]:
            for held in left:
                self.prove(held.fleet, whole=True)

    def settle(self, fleet: Fleet, tpot_s: float) -> None:
        """Give a fleet more until it holds a promise, then take away what it can spare."""
        for _ in range(STEPS):
            held, missed, evidence = self.prove(fleet)
            if held is not None and held.tpot_s <= tpot_s:
                self._thin(held, tpot_s)
                return
            short = [n for n in missed if n in self.question.class_names]
            if missed and not short:
                return
            fleet = _more(self.question, fleet, evidence, short or [self.apart.name])

    def _thin(self, held: Held, tpot_s: float) -> None:
        """Take systems away while the promise is held."""
        for smaller in _fewer(self.question, held.fleet):
            if self.known(smaller):
                continue
            found, _, _ = self.prove(smaller)
            if found is not None and found.tpot_s <= tpot_s:
                self._thin(found, tpot_s)
                return

    def neighbours(self) -> Iterator[Fleet]:
        """Fleets beside those that hold, which were not tried: those of the curve first.

        With a system less in a pool, or with one more where the class is served.
        """
        for held in (*self.best, *self.held):
            larger = _larger(held.fleet)
            serving = [larger[p] for p, pool in enumerate(held.fleet.pools) if self.apart.name in pool.serves]
            yield from (fleet for fleet in (*_fewer(self.question, held.fleet), *serving) if not self.known(fleet))

    def explore(self, fleets: int, progress: Progress) -> None:
        """Try neighbours of the curve until so many fleets hold, or none is left."""
        while len(self.held) < fleets:
            fleet = next(self.neighbours(), None)
            if fleet is None:
                return
            self.prove(fleet)
            if len(self.tried) % 20 == 0:
                progress(f"frontier: {len(self.held)} fleets proved")


def open_curve(question: Question, traffic: Traffic, name: str) -> Curve:
    """A curve without a fleet: cost against the TPOT of a class."""
    return Curve(question, Apart(question, traffic, name))


def _others_hold(question: Question, evidence: Evidence, name: str) -> dict[str, bool]:
    """Class but one → its promise is kept."""
    return {
        d.name: evidence.interval(c)[0] >= d.cls.slo.attainment
        for c, d in enumerate(question.demands)
        if d.name != name
    }


def _key(fleet: Fleet) -> object:
    """Fleets with the same key are the same fleet."""
    return tuple((name_of(pool), pool.instances, tuple(sorted(pool.serves.items()))) for pool in fleet.pools)


def _more(question: Question, fleet: Fleet, evidence: Evidence, short: list[str]) -> Fleet:
    """A system more for the pool that misses most of the classes that fall short; of those alike, the busiest."""
    over = [over_allowed(question, evidence, p, short) for p in range(len(fleet.pools))]
    serving = [p for p, pool in enumerate(fleet.pools) if any(name in pool.serves for name in short)]
    p = max(serving, key=lambda p: (over[p], float(evidence.busy[p])))
    return _larger(fleet)[p]


def _larger(fleet: Fleet) -> list[Fleet]:
    """For every pool the fleet with one system, or one replica over several, more of it."""
    found = []
    for p, pool in enumerate(fleet.pools):
        each = pool.deployment.instances_per_system
        found.append(fleet.resized(p, (pool.instances // each + 1) * each))
    return found


def _fewer(question: Question, fleet: Fleet) -> list[Fleet]:
    """For every pool the fleet with one system less of it, where another one does the same work; most saved first."""
    found = []
    for p, pool in enumerate(fleet.pools):
        fewer = (pool.instances - 1) % pool.deployment.instances_per_system + 1
        if fewer < pool.instances or not alone(fleet, p):
            found.append(without(fleet, p, fewer))
    return sorted(found, key=lambda smaller: fleet_cost(question, smaller))

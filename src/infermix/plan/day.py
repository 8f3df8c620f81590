"""Prove a day: the fleet of every slot on several seeds, at low and at nominal speeds.

The program is solved over the slots that rule (``ruling``); the others take over their pools. The ruling slots are
simulated first; where one misses, the pools that were chosen are mended (``mending``), or, where limits leave no room
for that, derated and chosen anew. Then every other slot is simulated as well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from infermix.fleet import Fleet
from infermix.plan.evidence import Evidence, Traffic, added, holds, one_seed
from infermix.plan.limits import broken_limits
from infermix.plan.mending import Mends, kept_for_later, mends_of
from infermix.plan.model import Solution
from infermix.plan.offered import sent_per_s, slot_question
from infermix.plan.prove import derate, fleet_of, seeds_of
from infermix.plan.question import Question
from infermix.plan.ruling import expanded, ruled_by, with_slots
from infermix.plan.solve import DAY_GAP, Planner, choose, simulate_near, simulated_columns, with_margin
from infermix.plan.tuning import openings, tuned

THREADS = 2
MOST_ROUNDS = 40
Progress = Callable[[str], None]


@dataclass
class SlotProof:
    """The fleet of a slot, the question that it answers, and what simulations of it show."""

    slot: int
    question: Question
    fleet: Fleet
    nominal: Evidence
    low: Evidence
    traffic: Traffic

    @property
    def status(self) -> str:
        """``proved`` at nominal and low speeds, ``proved_nominal`` at nominal ones, else ``not_proved``."""
        if not all(holds(self.question, self.nominal).values()) or broken_limits(
            self.question, self.fleet, self.nominal
        ):
            return "not_proved"
        return "proved" if all(holds(self.question, self.low).values()) else "proved_nominal"


@dataclass
class DayProof:
    """The slots of a day with their fleets; ``status`` is that of the slot with the weakest proof."""

    solution: Solution
    slots: tuple[SlotProof, ...]
    rounds: int
    ruling: Planner
    """The planner of the slots that rule: limits are priced with it."""

    @property
    def status(self) -> str:
        """That of the weakest slot."""
        order = ("not_proved", "proved_nominal", "proved")
        return min((proof.status for proof in self.slots), key=order.index)


def prove_day(planner: Planner, progress: Progress | None = None) -> DayProof | None:
    """Choose, prove every slot, mend; None when the limits conflict."""
    question, say = planner.question, progress or (lambda _: None)
    ruled = ruled_by(question)
    kept = sorted(set(ruled))
    ruling, bench = planner.narrowed(with_slots(question, kept)), _Bench(question)
    ruling.gap, ruling.apart = DAY_GAP, True
    if not ruling.question.limits.rationing and not any(option.pair for option in ruling.short):
        first = openings(ruling.question, ruling.found.kept, ruling.short)
        ruling.short = tuned(ruling.question, first, ruling.capacities, say) or ruling.short
    simulate_near(ruling, say)
    mends: Mends | None = None
    for rounds in range(1, MOST_ROUNDS + 1):
        solution = None if mends is None else mends.solve()
        if mends is None or solution is None:
            chosen = choose(ruling, progress)
            if chosen is None:
                return None
            columns, store = simulated_columns(ruling), ruling.capacities.store
            mends, solution = mends_of(with_margin(ruling), columns, chosen, store)
        say(f"{solution.usd_per_hour:.2f} USD/h, to be proved")
        whole = expanded(question, solution, ruled, kept)
        short = bench.first_short(whole, kept)
        if short is None:
            kept_for_later(mends, ruling.capacities.store)
        if short is None or rounds == MOST_ROUNDS:
            break
        if not _mend(ruling, mends, whole, short, kept.index(ruled[short.slot]), say):
            mends = None
    return DayProof(whole, tuple(bench.proofs(whole, range(len(ruled)))), rounds, ruling)


@dataclass
class _Short:
    """A slot that missed, and what."""

    slot: int
    question: Question
    fleet: Fleet
    evidence: Evidence
    missed: list[str]


def _mend(ruling: Planner, mends: Mends, whole: Solution, short: _Short, slot: int, say: Progress) -> bool:
    """Let the pools that missed count less in their slot; False where a limit was missed, and all is chosen anew."""
    names, where = ", ".join(short.missed), short.question.slots[0].name
    if set(short.missed) <= set(short.question.class_names):
        say(f"{names} missed at {where}: mended" if where else f"{names} missed, mended")
        mends.take_off(slot, whole.at(short.slot), short.question, short.evidence, short.missed)
        return True
    say(f"{names} missed at {where}, capacities derated" if where else f"{names} missed, capacities derated")
    derate(ruling, short.question, short.evidence, short.fleet, whole, short.missed)
    return False


class _Bench:
    """Simulations of slots: traffic is drawn once, and slots that are alike are simulated once."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.seeds = seeds_of(question)
        self._traffic: dict[object, Traffic] = {}
        self._known: dict[object, Evidence] = {}

    def first_short(self, whole: Solution, first: Sequence[int]) -> _Short | None:
        """The first slot that misses something; those that rule are looked at first."""
        rest = [s for s in range(len(self.question.slots)) if s not in first]
        for slots in (first, rest):
            for speed in dict.fromkeys((self.question.speed, "nominal")):
                for s, asked, fleet, evidence in self._evidence(whole, slots, speed):
                    missed = [name for name, held in holds(asked, evidence).items() if not held]
                    if speed == "nominal":
                        missed += broken_limits(asked, fleet, evidence)
                    if missed:
                        return _Short(s, asked, fleet, evidence, missed)
        return None

    def proofs(self, whole: Solution, slots: Sequence[int]) -> list[SlotProof]:
        """Evidence at nominal and low speeds for every slot that is sent something."""
        both = [self._evidence(whole, slots, speed) for speed in ("nominal", "low")]
        return [
            SlotProof(s, asked, fleet, nominal, low, self._traffic[_offered(asked)])
            for (s, asked, fleet, nominal), (_, _, _, low) in zip(*both, strict=True)
        ]

    def _evidence(
        self, whole: Solution, slots: Sequence[int], speed: str
    ) -> list[tuple[int, Question, Fleet, Evidence]]:
        """(slot, its question, its fleet, evidence at a speed), every seed on its own, two at a time."""
        asked = [(s, slot_question(self.question, whole, s)) for s in slots if sent_per_s(whole, s)]
        fleets = [fleet_of(mine, whole, s) for s, mine in asked]
        keys = [(_offered(mine), _pools(fleet), speed) for (_, mine), fleet in zip(asked, fleets, strict=True)]
        new = {key: i for i, key in reversed(list(enumerate(keys))) if key not in self._known}
        jobs = [(i, seed) for i in new.values() for seed in self.seeds]
        for i in new.values():
            self._traffic.setdefault(keys[i][0], Traffic(asked[i][1]))

        def run(job: tuple[int, int]) -> Evidence:
            i, seed = job
            return one_seed(asked[i][1], self._traffic[keys[i][0]], fleets[i], seed, speed)

        with ThreadPoolExecutor(THREADS) as pool:
            parts = dict(zip(jobs, pool.map(run, jobs), strict=True))
        for key, i in new.items():
            self._known[key] = added([parts[i, seed] for seed in self.seeds], self.seeds)
        return [(s, mine, fleet, self._known[key]) for (s, mine), fleet, key in zip(asked, fleets, keys, strict=True)]


def _offered(question: Question) -> object:
    """What a slot's fleet is offered: all that tells its traffic from another slot's."""
    return tuple((d.name, round(d.rate_per_s, 9), d.cls.sessions) for d in question.demands)


def _pools(fleet: Fleet) -> object:
    """All that tells the pools of a fleet from another's of the same study."""
    return tuple((id(p.deployment), p.instances, tuple(sorted(p.serves.items()))) for p in fleet.pools)

"""Prove a day: the fleet of every slot on several seeds, at low and at nominal speeds.

The program is solved over the slots that rule (``ruling``); the others take over their pools. The ruling slots are
simulated first; where one misses, the pools that missed are derated and the program is solved again. Then every
other slot is simulated as well.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from infermix.fleet import Fleet
from infermix.plan.evidence import Evidence, Traffic, added, holds, one_seed
from infermix.plan.limits import broken_limits
from infermix.plan.model import Solution
from infermix.plan.offered import sent_per_s, slot_question
from infermix.plan.prove import MENDS, derate, fleet_of, seeds_of
from infermix.plan.question import Question
from infermix.plan.ruling import expanded, ruled_by, with_slots
from infermix.plan.solve import DAY_GAP, Planner, choose, simulate_near

THREADS = 2
Progress = Callable[[str], None]


@dataclass
class SlotProof:
    """The fleet of a slot, the question that it answers, and what simulations of it show."""

    slot: int
    question: Question
    fleet: Fleet
    nominal: Evidence
    low: Evidence

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
    ruling, known = planner.narrowed(with_slots(question, kept)), _Drawn()
    ruling.gap = DAY_GAP
    simulate_near(ruling, say)
    for rounds in range(1, MENDS + 1):
        solution = choose(ruling, progress)
        if solution is None:
            return None
        say(f"{solution.usd_per_hour:.2f} USD/h, to be proved")
        whole = expanded(question, solution, ruled, kept)
        first = _proofs(question, whole, kept, known)
        if rounds < MENDS and _mended(ruling, whole, first, say, rounds):
            continue
        rest = _proofs(question, whole, [s for s in range(len(question.slots)) if s not in kept], known)
        if rounds == MENDS or not _mended(ruling, whole, rest, say, rounds):
            break
    proofs = sorted([*first, *rest], key=lambda proof: proof.slot)
    return DayProof(whole, tuple(proofs), rounds)


class _Drawn:
    """Traffic by slot, drawn once for all rounds."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[Question, Traffic]] = {}

    def of(self, question: Question, solution: Solution, slot: int) -> tuple[Question, Traffic]:
        mine = slot_question(question, solution, slot)
        known = self._known.get(slot)
        if known is None or _offered(known[0]) != _offered(mine):
            self._known[slot] = known = (mine, Traffic(mine))
        return known


def _offered(question: Question) -> dict[str, float]:
    return {d.name: round(d.rate_per_s, 9) for d in question.demands}


def _proofs(question: Question, solution: Solution, slots: list[int], known: _Drawn) -> list[SlotProof]:
    """Evidence for some slots, every seed of each on its own, two at a time."""
    slots = [s for s in slots if sent_per_s(solution, s)]
    asked = [known.of(question, solution, s) for s in slots]
    fleets = [fleet_of(mine, solution, s) for s, (mine, _) in zip(slots, asked, strict=True)]
    seeds = seeds_of(question)

    def run(job: tuple[int, int]) -> tuple[Evidence, Evidence]:
        i, seed = job
        mine, traffic = asked[i]
        return tuple(one_seed(mine, traffic, fleets[i], seed, speed) for speed in ("nominal", "low"))  # type: ignore[return-value]

    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(run, [(i, seed) for i in range(len(slots)) for seed in seeds]))
    proofs = []
    for i, s in enumerate(slots):
        mine = found[i * len(seeds) : (i + 1) * len(seeds)]
        nominal, low = (added([pair[k] for pair in mine], seeds) for k in (0, 1))
        proofs.append(SlotProof(s, asked[i][0], fleets[i], nominal, low))
    return proofs


def _mended(planner: Planner, solution: Solution, proofs: list[SlotProof], say: Progress, rounds: int) -> bool:
    """Whether some slot missed, and capacities were derated."""
    mended = False
    for proof in proofs:
        evidence = proof.low if planner.question.speed == "low" else proof.nominal
        missed = [name for name, held in holds(proof.question, evidence).items() if not held]
        missed += [name for name, held in holds(proof.question, proof.nominal).items() if not held]
        missed += broken_limits(proof.question, proof.fleet, proof.nominal)
        if missed:
            name = proof.question.slots[0].name
            say(f"proof {rounds}: {', '.join(dict.fromkeys(missed))} missed at {name}, capacities derated")
            derate(planner, proof.question, evidence, proof.fleet, solution, missed)
            mended = True
            break
    return mended

"""At which price, or at which speed, a system that was not chosen would be."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from infermix.plan.model import Solution
from infermix.plan.question import Question
from infermix.plan.whatif import at_price, at_speed, paid_for, systems_in

Solve = Callable[[Question], Solution | None]
STEPS = 12
FASTEST = 64.0
"""A speed beyond this many times the modelled one is not looked for."""
TOLERANCE = 1e-4
"""Of a cost, relatively: what counts as cheaper."""


class Entry(NamedTuple):
    """Factors on price and on speed at which a system enters; None where no such factor was found."""

    price: float | None
    speed: float | None


def entry_of(question: Question, solve: Solve, system: str, base: Solution, *, steps: int = STEPS) -> Entry:
    """Where a system that ``base`` does without would enter, by solving again."""
    return Entry(entry_price(question, solve, system, base, steps), entry_speed(question, solve, system, base, steps))


def entry_price(question: Question, solve: Solve, system: str, base: Solution, steps: int = STEPS) -> float | None:
    """The highest factor on a system's price at which a fleet with it costs no more than the fleet without.

    A fleet that pays a for other things and k for the system at today's price breaks even at (base - a) / k. The best
    fleet at that price breaks even at a higher one, or is no better: after a few fleets none is.
    """
    factor, found = 0.0, None
    for _ in range(steps):
        solution = solve(at_price(question, system, max(factor, 1e-9)))
        if solution is None or system not in systems_in(question, solution):
            return found
        paid = paid_for(question, solution, system)
        others = solution.loss_usd_per_hour - paid * max(factor, 1e-9)
        even = (base.loss_usd_per_hour - others) / paid
        if even <= factor * (1 + TOLERANCE) or even <= 0:
            return found
        factor = found = even
    return found


def entry_speed(question: Question, solve: Solve, system: str, base: Solution, steps: int = STEPS) -> float | None:
    """The lowest factor on what a system's instances serve at which the best fleet has it, and costs less."""

    def enters(factor: float) -> bool:
        solution = solve(at_speed(question, system, factor))
        if solution is None or system not in systems_in(question, solution):
            return False
        return solution.loss_usd_per_hour < base.loss_usd_per_hour - TOLERANCE * abs(base.loss_usd_per_hour)

    if not enters(FASTEST):
        return None
    low, high = 1.0, FASTEST
    for _ in range(steps):
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enters(middle) else (middle, high)
    return high

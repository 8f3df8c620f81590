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
NEAR = 1.15
"""How near the speed is looked for first to what the entry price says."""
SPEED_TOLERANCE = 1e-4
TOLERANCE = 1e-4
"""Of a cost, relatively: what counts as cheaper."""


class Entry(NamedTuple):
    """Factors on price and on speed at which a system enters; None where no such factor was found."""

    price: float | None
    speed: float | None


def entry_of(question: Question, solve: Solve, system: str, base: Solution, *, steps: int = STEPS) -> Entry:
    """Where a system that ``base`` does without would enter, by solving again.

    A system that serves f times as much does for its price what one does at a price divided by f, but for whole
    systems: the speed is looked for about there.
    """
    price = entry_price(question, solve, system, base, steps)
    guess = None if price is None else 1.0 / price
    return Entry(price, entry_speed(question, solve, system, base, steps, guess))


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


def entry_speed(
    question: Question, solve: Solve, system: str, base: Solution, steps: int = STEPS, guess: float | None = None
) -> float | None:
    """The lowest factor on what a system's instances serve at which the best fleet has it, and costs less."""

    def enters(factor: float) -> bool:
        solution = solve(at_speed(question, system, factor))
        if solution is None or system not in systems_in(question, solution):
            return False
        return solution.loss_usd_per_hour < base.loss_usd_per_hour - TOLERANCE * abs(base.loss_usd_per_hour)

    low, high = 1.0, FASTEST
    if guess is not None and 1.0 < guess < FASTEST / NEAR and enters(guess * NEAR):
        high = guess * NEAR
        low = guess / NEAR if guess > NEAR and not enters(guess / NEAR) else 1.0
    elif not enters(FASTEST):
        return None
    for _ in range(steps):
        if high / low < 1 + SPEED_TOLERANCE:
            break
        middle = (low * high) ** 0.5
        low, high = (low, middle) if enters(middle) else (middle, high)
    return high

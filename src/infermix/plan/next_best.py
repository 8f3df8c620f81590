"""The next best plans: the cheapest fleet of every other set of systems, until they cost too much more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from infermix.plan.model import Solution
from infermix.plan.question import Question
from infermix.plan.whatif import systems_in

WITHIN = 0.05
MOST = 3


def next_best(
    question: Question, solve: Callable[[Question], Solution | None], base: Solution, *, within: float = WITHIN,
    most: int = MOST,
) -> list[Solution]:  # fmt: skip
    """Fleets of other systems that cost at most ``within`` more than ``base``, cheapest first."""
    seen = [frozenset(systems_in(question, base))]
    found: list[Solution] = []
    while len(found) < most:
        solution = solve(replace(question, seen=tuple(seen)))
        room = within * abs(base.loss_usd_per_hour)
        if solution is None or solution.loss_usd_per_hour > base.loss_usd_per_hour + room:
            return found
        found.append(solution)
        seen.append(frozenset(systems_in(question, solution)))
    return found

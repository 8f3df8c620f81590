"""Name the limits that conflict: a smallest set that is infeasible together, and the nearest way out."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from infermix.errors import NoAnswer
from infermix.plan import model
from infermix.plan.keys import Key, keys_of, with_value, without
from infermix.plan.model import Column, make_table
from infermix.plan.question import Question
from infermix.plan.solve import Planner, choose, relaxed_columns

FARTHEST = 64.0
"""A limit is loosened up to this many times."""
STEPS = 7
"""Halvings of the interval in which the nearest value lies."""
Feasible = Callable[[Question], bool]


class Conflict(NamedTuple):
    """Limits that cannot all hold, and for each the value nearest to its own at which the others can."""

    needed: list[Key]
    nearest: dict[str, float]


def name_conflict(planner: Planner) -> str:
    """One line that names a smallest set of limits under which no fleet keeps the promises, and the nearest way out.

    Limits are dropped one at a time; those whose return makes the question infeasible again stay in the set. The
    relaxation with optimistic capacities is asked first; if that one is feasible, the simulated capacities are.
    """
    columns = relaxed_columns(planner)
    optimistic = not _solved(planner.question, columns)

    def feasible(question: Question) -> bool:
        return _solved(question, columns) if optimistic else choose(planner.narrowed(question)) is not None

    found = smallest_conflict(planner.question, feasible)
    what = "even with optimistic, queue-free capacities" if optimistic else "with simulated capacities"
    promises = ", ".join(f"{d.name} at {d.rate_per_s:g}/s" for d in planner.question.demands)
    if not found.needed:
        return f"no fleet of these systems keeps the promises ({promises}) {what}"
    names = "; ".join(key.said() for key in found.needed)
    verb = "cannot all hold" if len(found.needed) > 1 else "cannot hold"
    return f"limits conflict {what}: {names} {verb} with the promises to {promises}; {_way_out(found)}"


def smallest_conflict(question: Question, feasible: Feasible) -> Conflict:
    """A set of limits none of which can be left out of the conflict, by leaving out one after the other."""
    needed = keys_of(question)
    for key in list(needed):
        fewer = [k for k in needed if k is not key]
        if not feasible(_only(question, fewer)):
            needed.remove(key)
    alone = _only(question, needed)
    nearest = {key.name: value for key in needed if (value := _nearest(alone, key, feasible)) is not None}
    return Conflict(needed, nearest)


def _only(question: Question, kept: list[Key]) -> Question:
    """The question with only these limits."""
    names = {key.name for key in kept}
    for key in keys_of(question):
        if key.name not in names:
            question = without(question, key.name)
    return question


def _nearest(question: Question, key: Key, feasible: Feasible) -> float | None:
    """The value nearest to a limit's own at which the others can hold; None where it is no number, or none helps."""
    if key.value is None:
        return None
    tight, loose = key.value, _loosest(key)
    if not feasible(with_value(question, key.name, loose)):
        return None
    while (loose - tight > 1) if key.whole else (abs(loose - tight) > abs(_loosest(key) - key.value) / 2**STEPS):
        middle = float(round((tight + loose) / 2)) if key.whole else (tight + loose) / 2
        if feasible(with_value(question, key.name, middle)):
            loose = middle
        else:
            tight = middle
    return loose


def _loosest(key: Key) -> float:
    assert key.value is not None
    if key.step < 0:
        return 0.0
    if key.name.endswith(("max_vendor_share", ".most")):
        return 1.0
    return max(1.0, key.value) * FARTHEST if key.whole else key.value * FARTHEST


def _way_out(found: Conflict) -> str:
    """The nearest relaxation, by relative change."""
    values = {key.name: key.value for key in found.needed if key.value is not None and key.name in found.nearest}
    if not values:
        return "relax one"

    def change(name: str) -> float:
        return abs(found.nearest[name] - values[name]) / max(values[name], 1e-9)

    best = min(values, key=change)
    return f"nearest way out: {best} = {found.nearest[best]:.4g}"


def _solved(question: Question, columns: list[Column]) -> bool:
    try:
        return model.solve(model.build(question, make_table(question, columns))) is not None
    except NoAnswer:
        return False

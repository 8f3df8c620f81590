"""Name the limits that conflict: a smallest set that is infeasible together."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from infermix.errors import NoAnswer
from infermix.plan import model
from infermix.plan.model import Column, make_table
from infermix.plan.question import Question
from infermix.plan.rules import Limits
from infermix.plan.solve import Planner, choose, relaxed_columns


def name_conflict(planner: Planner) -> str:
    """One line that names a smallest set of limits under which no fleet keeps the promises.

    Limits are dropped one at a time; those whose return makes the question infeasible again stay in the set. The
    relaxation with optimistic capacities is asked first; if that one is feasible, the simulated capacities are.
    """
    columns = relaxed_columns(planner)
    optimistic = not _feasible(planner.question, columns)
    needed = limit_names(planner.question)
    for name in list(needed):
        question = _only(planner.question, [n for n in needed if n != name])
        feasible = _feasible(question, columns) if optimistic else choose(planner.narrowed(question)) is not None
        if not feasible:
            needed.remove(name)
    what = "even with optimistic, queue-free capacities" if optimistic else "with simulated capacities"
    promises = ", ".join(f"{d.name} at {d.rate_per_s:g}/s" for d in planner.question.demands)
    if not needed:
        return f"no fleet of these systems keeps the promises ({promises}) {what}"
    return f"limits conflict {what}: {'; '.join(needed)} cannot all hold with the promises to {promises}; relax one"


def limit_names(question: Question) -> list[str]:
    """Limits of a question, as ``key = value``."""
    limits = question.limits
    names = [f"market.supply.{o.system.id} = {o.supply}" for o in question.offers if o.supply is not None]
    for key in ("power_mw", "usd_per_hour", "max_vendor_share"):
        value = getattr(limits, key)
        if value is not None:
            names.append(f"limits.{key} = {value:g}")
    return names + [f"limits.min_share_output_tokens.{k} = {v:g}" for k, v in limits.min_share_output_tokens.items()]


def _only(question: Question, names: list[str]) -> Question:
    """The question with only these limits."""
    kept = {name.split(" = ")[0] for name in names}
    limits = question.limits
    changes = {
        key: getattr(limits, key) if f"limits.{key}" in kept else None
        for key in ("power_mw", "usd_per_hour", "max_vendor_share")
    }
    shares = {k: v for k, v in limits.min_share_output_tokens.items() if f"limits.min_share_output_tokens.{k}" in kept}
    fewer: Limits = msgspec.structs.replace(limits, min_share_output_tokens=shares, **changes)
    offers = tuple(o if f"market.supply.{o.system.id}" in kept else replace(o, supply=None) for o in question.offers)
    return replace(question, limits=fewer, offers=offers)


def _feasible(question: Question, columns: list[Column]) -> bool:
    try:
        return model.solve(model.build(question, make_table(question, columns))) is not None
    except NoAnswer:
        return False

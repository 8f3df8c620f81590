"""What the answer hangs on: the catalogue's figures one by one at the ends of their ranges.

A figure of speed changes the work of a request, so capacities of the systems that it is about are scaled by that
work (queues and batches are not simulated anew); a figure of price changes prices. The program is then solved again.
Figures are ranked by what their range does to the cost of the work alone; those that can do most are asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import msgspec

from infermix.catalog.query import figure
from infermix.errors import InfermixError
from infermix.perf.deployment import Deployment
from infermix.perf.figures import of_deployment
from infermix.perf.table import StepTable, compile_table
from infermix.plan.model import Solution
from infermix.plan.options import Option
from infermix.plan.question import Demand, Question
from infermix.plan.result import SwingPoint
from infermix.plan.whatif import at_price, at_speed, systems_in

ASKED = 4
THREADS = 2
Solve = Callable[[Question], Solution | None]
Effect = dict[str, float]
"""System → factor on its speed, or on its price."""


class _Figure(NamedTuple):
    """A figure with a range: what either end does."""

    id: str
    low: float
    high: float
    price: bool
    at_low: Effect
    at_high: Effect

    @property
    def weight(self) -> float:
        """The most that it changes the work or the price of any system, relatively."""
        changes = [abs(f - 1.0) for effect in (self.at_low, self.at_high) for f in effect.values()]
        return max(changes, default=0.0)


def tornado(
    question: Question, options: Sequence[Option], solve: Solve, base: Solution, asked: int = ASKED
) -> list[SwingPoint]:
    """The figures that can do most, those that change the cost most first."""
    chosen = set(systems_in(question, base))
    figures = [*_of_speed(question, options), *_of_price(question)]
    figures = [f for f in figures if f.weight > 1e-3]
    figures.sort(key=lambda f: (not chosen & {*f.at_low, *f.at_high}, -f.weight, f.id))
    with ThreadPoolExecutor(THREADS) as pool:
        swings = list(pool.map(lambda f: _swing(question, f, solve, chosen), figures[:asked]))
    return sorted(swings, key=lambda swing: -_spread(swing, base.usd_per_hour))


def _spread(swing: SwingPoint, usd: float) -> float:
    ends = [x if x is not None else 1e9 * usd for x in (swing.usd_at_low, swing.usd_at_high)]
    return max(*ends, usd) - min(*ends, usd)


def _swing(question: Question, f: _Figure, solve: Solve, chosen: set[str]) -> SwingPoint:
    costs: list[float | None] = []
    survives = []
    for effect in (f.at_low, f.at_high):
        changed = question
        for system, factor in effect.items():
            changed = (at_price if f.price else at_speed)(changed, system, factor)
        found = solve(changed)
        costs.append(None if found is None else found.usd_per_hour)
        survives.append(found is not None and set(systems_in(question, found)) == chosen)
    return SwingPoint(
        id=f.id,
        low=f.low,
        high=f.high,
        usd_at_low=costs[0],
        usd_at_high=costs[1],
        survives_low=survives[0],
        survives_high=survives[1],
    )


def _of_price(question: Question) -> list[_Figure]:
    found = []
    for offer in question.offers:
        ids = [*offer.price.figures, *(id_ for k in offer.contracts for id_ in k.figures)]
        for id_ in dict.fromkeys(ids):
            f = figure(question.catalog, id_)
            if f.low is not None and f.high is not None and f.unit.startswith("USD") and f.value > 0:
                ends = [{offer.system.id: end / f.value} for end in (f.low, f.high)]
                found.append(_Figure(id_, f.low, f.high, True, ends[0], ends[1]))
    return found


def _of_speed(question: Question, options: Sequence[Option]) -> list[_Figure]:
    """Figures of the deployments that a fleet may hold; one option stands for its system."""
    by_figure: dict[str, list[Option]] = {}
    for option in {o.offer.system.id: o for o in reversed(options)}.values():
        for id_ in of_deployment(option.deployment):
            by_figure.setdefault(id_, []).append(option)
    found = []
    for id_, mine in by_figure.items():
        f = figure(question.catalog, id_)
        if f.low is None or f.high is None or f.low == f.high:
            continue
        ends = [
            {o.offer.system.id: speed_factor(o, question.demands, id_, end) for o in mine} for end in (f.low, f.high)
        ]
        found.append(_Figure(id_, f.low, f.high, False, ends[0], ends[1]))
    return found


def speed_factor(option: Option, demands: Sequence[Demand], id_: str, value: float) -> float:
    """Work of requests with a figure as it is, over that with another value; 1 where the deployment is then none."""
    try:
        changed = compile_table(with_figure(option.deployment, id_, value))
        today = compile_table(option.deployment)
    except InfermixError:
        return 1.0
    before, after = (sum(_work_s(table, option, d) for d in demands) for table in (today, changed))
    return float(before / after)


def _work_s(table: StepTable, option: Option, demand: Demand) -> float:
    """Instance seconds of a mean request in full batches [s]."""
    inputs, cached, outputs = (float(column.mean()) for column in demand.lengths)
    context, chunk = inputs + outputs / 2, option.deployment.max_batched_tokens
    batch = int(max(1, min(option.deployment.max_num_seqs, table.blocks * table.block_tokens // max(context, 1.0))))
    step = table.decode_s[batch] + batch * (table.per_seq_s + table.kv_s * context)
    fresh = inputs - cached
    pairs = fresh * cached + fresh * (fresh + 1) / 2
    first = fresh / chunk * table.mixed_s[chunk] + table.pair_s * pairs + table.load_s * cached
    return float(first + outputs * step / batch / table.tokens_per_step)


def with_figure(deployment: Deployment, id_: str, value: float) -> Deployment:
    """The deployment with another value of one of its figures."""
    part, _, field = id_.split("/")
    if part == "efficiency":
        family = deployment.efficiency
        figures = {**family.figures, field: msgspec.structs.replace(family.figures[field], value=value)}
        return msgspec.structs.replace(deployment, efficiency=msgspec.structs.replace(family, figures=figures))
    key = {"chips": "chip", "systems": "system", "models": "model"}[part]
    record = getattr(deployment, key)
    changed = msgspec.structs.replace(getattr(record, field), value=value)
    return msgspec.structs.replace(deployment, **{key: msgspec.structs.replace(record, **{field: changed})})

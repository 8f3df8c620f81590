"""The shortlist of a day: deployments that the relaxation wants, each at the operating point that holds most.

Queue-free capacities rank layouts, dtypes and speculation well, and operating points badly: the more sequences and the
larger the chunk, the better they look, for what long prompts do to the steps of others is queueing. So points are told
apart by simulation, at one pool size, the most promising first; where even the queue-free capacity of a point is below
what another one holds, it cannot win and is not simulated.

Which deployments are worth that, the program tells in which nothing need be whole: it is solved with queue-free
capacities, those of the deployments that it uses are simulated, and again, until it uses none that was not. What was
simulated counts ``NEAR`` less there, so that what comes near to it is simulated, too.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import msgspec
import numpy as np

from infermix.perf.measured import within_measured
from infermix.plan.capacity import SIZES, Capacities
from infermix.plan.duals import fractional_use
from infermix.plan.model import build
from infermix.plan.options import Kept, Option, able, queue_free_capacity
from infermix.plan.question import Demand, Question
from infermix.plan.table import Column, make_table

CAPS = (512, 256, 128, 64)
CHUNKS = (8192, 4096, 2048, 1024)
"""Batch caps and chunk sizes that are tried beside the point that looks best queue-free."""
DEPLOYMENTS = 2
"""Deployments of a system that are looked at for a class beside the shortlist."""
NEAR = 0.03
"""By how much less a simulated capacity counts while others are looked for."""
MOST_SIZE = 8
"""Instances of the pools in which points are compared; fewer where fewer serve the class."""
UNBOUNDED = 100_000
THREADS = 2
Progress = Callable[[str], None]
Tuned = dict[tuple[str, str], tuple[Option, float]]
"""(deployment, class) → its best operating point, and what an instance then serves [1/s]."""


def openings(question: Question, kept: list[Kept], short: list[Option]) -> list[Option]:
    """The shortlist, and of every class and system the deployments that look cheapest queue-free."""
    found = {option.name: option for option in short}
    offered = {offer.key for offer in question.offers}
    for name in question.class_names:
        shapes: dict[str, set[str]] = {}
        mine = [k for k in kept if name in k.capacity and k.option.offer.key in offered]
        for k in sorted(mine, key=lambda k: (k.option.usd_per_hour / k.capacity[name], k.option.name)):
            seen = shapes.setdefault(k.option.offer.key, set())
            if len(seen) < DEPLOYMENTS and shape(k.option) not in seen:
                seen.add(shape(k.option))
                found[k.option.name] = k.option
    return list(found.values())


def tuned(question: Question, options: list[Option], capacities: Capacities, say: Progress) -> list[Option]:
    """The options that are worth it, at their best points, class by class; none where the relaxation has no answer.

    Not where supply is short, for least cost would serve nothing, nor where the market has pairs, whose parts hold what
    they hold together.
    """
    found: Tuned = {}
    demands = {demand.name: demand for demand in question.demands}
    while True:
        wanted = _wanted(question, options, found)
        if wanted is None:
            return []
        if not wanted:
            break
        say(f"operating points: {', '.join(f'{o.deployment.name} for {name}' for o, name in wanted)}")
        with ThreadPoolExecutor(THREADS) as pool:
            best = list(pool.map(lambda job: best_point(job[0], demands[job[1]], capacities), wanted))
        found |= {(shape(o), name): point for (o, name), point in zip(wanted, best, strict=True)}
    chosen = {point.name: point for point, rate in found.values() if rate > 0.0}
    return list(chosen.values())


def _wanted(question: Question, options: list[Option], found: Tuned) -> list[tuple[Option, str]] | None:
    """(option, class) that the relaxation uses and whose points were not simulated; None where it has no answer."""
    columns = [
        Column(option, 0, UNBOUNDED, {demand.name: _counted(option, demand, found)}, alone=demand.name)
        for option in options
        for demand in question.demands
        if able(option, demand)
    ]
    used = fractional_use(build(question, make_table(question, [c for c in columns if min(c.capacity.values()) > 0.0])))
    if used is None:
        return None
    mine = {(shape(column.option), column.alone): (column.option, column.alone) for column in used}
    return [pair for key, pair in mine.items() if key not in found]


def _counted(option: Option, demand: Demand, found: Tuned) -> float:
    key = (shape(option), demand.name)
    return (1.0 - NEAR) * found[key][1] if key in found else queue_free_capacity(option, demand)


def shape(option: Option) -> str:
    """A deployment without its operating point."""
    d = option.deployment
    parts = (option.offer.key, d.model.id, d.layout, d.stages, d.weights, d.kv, d.spec, d.role)
    return " ".join(str(part) for part in parts)


def best_point(option: Option, demand: Demand, capacities: Capacities) -> tuple[Option, float]:
    """The operating point of a deployment at which an instance serves most of a class, and how much [1/s]."""
    points = {option.name: option}
    for cap in CAPS:
        for chunk in CHUNKS:
            deployment = msgspec.structs.replace(option.deployment, max_num_seqs=cap, max_batched_tokens=chunk)
            point = replace(option, deployment=within_measured(deployment))
            points.setdefault(point.name, point)
    usable = [point for point in points.values() if able(point, demand)]
    bounds = np.array([queue_free_capacity(point, demand) for point in usable])
    size = _size(demand, float(bounds.max()))
    best, most = option, 0.0
    for k in np.argsort(-bounds, kind="stable"):
        if bounds[k] <= most:
            break
        rate = capacities.simulate(usable[k], demand, size)
        if rate > most:
            best, most = usable[k], rate
    return best, most


def _size(demand: Demand, rate: float) -> int:
    """Pool size at which points are compared."""
    return max(size for size in SIZES if size <= max(1.0, min(demand.rate_per_s / rate, MOST_SIZE)))

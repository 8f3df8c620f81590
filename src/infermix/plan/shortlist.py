"""Which options are worth simulating: for each class the best few of every system.

Of instances whose steps take prompts and tokens together, the layouts and operating points with the least *estimated*
cost of a request (``estimate``): queue-free, the largest chunks and batches always look best. Of machines that are
pipelines, and of parts of pairs, the cheapest queue-free ones of a few replica sizes or layouts. This may lose an
optimum that only simulation reveals; the lower bound is taken over every option that no other one matches.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from infermix.arrays import Floats
from infermix.perf.deployment import Deployment
from infermix.plan.candidates import ALL
from infermix.plan.estimate import estimated
from infermix.plan.market import PARTS
from infermix.plan.options import Kept, Option, Options, option_at, usd_per_hour
from infermix.plan.question import Demand, Question

KEPT = 2
"""Layouts simulated of each system for each class, the others than the best one where they come near to it."""
WITHIN = 1.15
"""Cost of a layout that comes near, over that of the best."""
KEPT_REPLICAS = 3
"""Replica sizes of pipelines."""
KEPT_PAIRS = 4
"""Pairs of prefill and decode simulated for each class."""
NEAR = 1.01
"""Points this near to the cheapest are alike: the one with the smallest batch is tried."""


def shortlist(question: Question, found: Options) -> list[Option]:
    """The options that capacities are simulated of, as the program asks for them."""
    chosen: dict[str, Option] = {}
    for demand in question.demands:
        for options in _ranked(found.kept, demand.name).values():
            chosen |= {k.option.name: k.option for k in _few_sizes(options, demand.name)}
        for offer in dict.fromkeys(offer.key for offer in question.offers):
            chosen |= {o.name: o for o in _by_estimate(question, found, offer, demand)}
    return _with_partners(list(chosen.values()))


def _mixes_steps(d: Deployment) -> bool:
    """Whether prompts and tokens share steps, so that chunks and batches decide what tokens wait for."""
    return d.role == "both" and not d.is_pipeline


def _ranked(kept: list[Kept], name: str) -> dict[tuple[str, str, str], list[Kept]]:
    """The others by offer, pair and role, the cheapest queue-free first."""
    mine = [k for k in kept if name in k.capacity]
    pairs = {"", *_best_pairs(mine, name)}
    others = [k for k in mine if k.option.pair in pairs and not _mixes_steps(k.option.deployment)]
    found: dict[tuple[str, str, str], list[Kept]] = {}
    for k in sorted(others, key=lambda k: _usd_per_request(k, name)):
        found.setdefault((k.option.offer.key, k.option.pair, k.option.deployment.role), []).append(k)
    return found


def _best_pairs(kept: list[Kept], name: str) -> list[str]:
    """The pairs whose two parts together are cheapest by queue-free capacity."""
    parts: dict[str, dict[str, float]] = {}
    for k in kept:
        if k.option.pair:
            known = parts.setdefault(k.option.pair, {})
            role, usd = k.option.deployment.role, _usd_per_request(k, name)[0]
            known[role] = min(usd, known.get(role, np.inf))
    whole = {pair: sum(costs.values()) for pair, costs in parts.items() if len(costs) == len(PARTS)}
    return sorted(whole, key=lambda pair: (whole[pair], pair))[:KEPT_PAIRS]


def _usd_per_request(kept: Kept, name: str) -> tuple[float, str]:
    return kept.option.usd_per_hour / kept.capacity[name], kept.option.name


def _few_sizes(ranked: list[Kept], name: str) -> list[Kept]:
    """Of pipelines the best of a few replica sizes, of other parts of pairs that of a few layouts."""
    if not ranked[0].option.deployment.is_pipeline:
        return _least_batches(ranked, name)[:KEPT]
    by_size: dict[int, list[Kept]] = {}
    for k in ranked:
        by_size.setdefault(k.option.deployment.stages, []).append(k)
    sizes = [*by_size][:KEPT_REPLICAS]
    if ranked[0].option.pair and min(by_size) not in sizes:  # a part of a pair is often too large for what it is sent
        sizes.append(min(by_size))
    return [_least_batches(by_size[size], name)[0] for size in sizes]


def _least_batches(ranked: list[Kept], name: str) -> list[Kept]:
    """The cheapest of each layout; of those near to it, the one with the smallest batch."""
    by_layout: dict[str, list[Kept]] = {}
    for k in ranked:
        by_layout.setdefault(k.option.deployment.layout, []).append(k)
    found = []
    for same in by_layout.values():
        near = [k for k in same if _usd_per_request(k, name)[0] <= NEAR * _usd_per_request(same[0], name)[0]]
        found.append(min(near, key=lambda k: k.option.deployment.max_num_seqs))
    return found


def _with_partners(options: list[Option]) -> list[Option]:
    """Every part of a pair with the first option of the other part; those whose other part has none are left out."""
    first: dict[tuple[str, str], Option] = {}
    for option in options:
        if option.pair:
            first.setdefault((option.pair, option.deployment.role), option)
    other = {"prefill": "decode", "decode": "prefill"}
    found = []
    for option in options:
        if not option.pair:
            found.append(option)
        elif partner := first.get((option.pair, other[option.deployment.role])):
            found.append(replace(option, partner=partner))
    return found


def _by_estimate(question: Question, found: Options, offer: str, demand: Demand) -> list[Option]:
    """The best point of each of the ``KEPT`` cheapest layouts; estimates stop where bounds say that no other is."""
    mine = [(b, base) for b, base in enumerate(found.bases.found) if base.offer.key == offer]
    bounds = [
        (base, found.bounds[b, demand.name])
        for b, base in mine
        if _mixes_steps(base.deployment) and (b, demand.name) in found.bounds
    ]
    bounds.sort(key=lambda pair: usd_per_hour(pair[0].offer, pair[0].deployment) / float(pair[1].max()))
    best: dict[str, tuple[float, Option]] = {}
    for base, bound in bounds:
        usd = usd_per_hour(base.offer, base.deployment)
        least = min((cost for cost, _ in best.values()), default=np.inf)
        if usd / float(bound.max()) >= WITHIN * least:
            break
        rate = estimated(base, demand, ALL, bound, within=NEAR, least=usd / (WITHIN * least))
        if rate.max() <= 0.0:
            continue
        cost, layout = usd / float(rate.max()), base.deployment.layout
        if layout not in best or cost < best[layout][0]:
            best[layout] = cost, option_at(question, base, *_least_batch(rate))
    ranked = sorted(best.values(), key=lambda pair: pair[0])[:KEPT]
    return [option for cost, option in ranked if cost <= WITHIN * ranked[0][0]]


def _least_batch(rate: Floats) -> tuple[int, int]:
    """(cap, chunk) near to the best with the smallest batch, and of those the best."""
    cap = int(np.flatnonzero(rate.max(axis=1) * NEAR >= rate.max())[0])
    return cap, int(np.argmax(rate[cap]))

"""Fit step times to measured requests: simulate them, and move the numbers until the times agree.

All requests are simulated, since all load the machine, but the times of only a part of them count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from infermix.arrays import Bools, Floats
from infermix.measure.again import simulate_again
from infermix.measure.engine import Engine
from infermix.measure.score import loss, residuals
from infermix.measure.search import FIRST_STEP, LEAST_STEP, least, polished
from infermix.measure.steps import OwnSteps, Steps
from infermix.measure.timed import Timed, simulated
from infermix.perf.deployment import MAX_NUM_SEQS

BUDGETS = (512, 2048, 8192)
"""Tokens in a step that are tried where they are not stated."""
FINE_STEPS = (0.04, 0.01)
PROMISING = 2
"""Choices of settings that are fitted to the end."""
WORTH = 0.03
"""Share of the loss that a number must take away to join."""
EXPLAINED = 0.001
"""And at least so much of it: errors of half a percent."""


@dataclass(frozen=True)
class Fit:
    """Step times, settings, and the loss that is left on the part that was fitted."""

    steps: Steps
    engine: Engine
    loss: float


def replay(real: Timed, steps: Steps, engine: Engine, policy: str = "least_wait") -> Timed:
    """The same requests, simulated: at their measured arrivals, in a closed loop after the answers before them."""
    requests = real.requests
    if real.closed:
        later = np.where(requests.parent >= 0, steps.overhead_s, 0.0)
        requests = replace(requests, think_s=(requests.think_s + later).astype(np.float32))
    spec = steps.spec(engine, len(requests.class_names))
    return simulated(simulate_again(requests, spec, policy), steps.overhead_s)


def fit(real: Timed, part: Bools, starts: Sequence[Steps], engines: Sequence[Engine], policy: str) -> Fit:
    """The best of every start under every choice of settings.

    Numbers that a start leaves at 0 join one by one, the most helpful first, while each takes ``WORTH`` of the loss
    away: what the measurements do not show stays 0.
    """
    return best_refined(real, part, [rough(real, part, *pair, policy) for pair in product(starts, engines)], policy)


def best_refined(real: Timed, part: Bools, fits: Sequence[Fit], policy: str) -> Fit:
    """The best fit, chosen among the most promising of the rough ones."""
    unlike = {round(found.loss, 6): found for found in fits}.values()
    promising = sorted(unlike, key=lambda found: found.loss)[:PROMISING]
    best = best_of([refined(real, part, one, policy) for one in promising])
    return fitted(real, part, best.steps, best.engine, policy, *FINE_STEPS)


def best_of(fits: Sequence[Fit]) -> Fit:
    """The fit with the least loss, but a limit of sequences must be worth its place, as a number must."""
    best = min(fits, key=lambda found: found.loss)
    freer = [one for one in fits if one.engine.max_num_seqs > best.engine.max_num_seqs]
    other = min(freer, key=lambda found: found.loss, default=best)
    return other if other.loss * (1.0 - WORTH) - EXPLAINED <= best.loss else best


def rough(real: Timed, part: Bools, steps: Steps, engine: Engine, policy: str, first_step: float = 0.4) -> Fit:
    """A quick fit, to choose among settings."""
    return fitted(real, part, steps, engine, policy, first_step, first_step / 2.0)


def refined(real: Timed, part: Bools, found: Fit, policy: str) -> Fit:
    """A fit to the end, with every number that is worth its place."""
    return _widened(real, part, fitted(real, part, found.steps, found.engine, policy, 0.1), policy)


def fitted(
    real: Timed,
    part: Bools,
    steps: Steps,
    engine: Engine,
    policy: str,
    first_step: float = FIRST_STEP,
    last_step: float = LEAST_STEP,
) -> Fit:
    """The numbers of a start moved to where the loss is least; those that are 0 stay 0."""

    def error(numbers: Floats) -> float:
        tried = steps.moved(numbers)
        return loss(replay(real, tried, engine, policy), real, part) + tried.doubt()

    def off(numbers: Floats) -> Floats:
        return residuals(replay(real, steps.moved(numbers), engine, policy), real, part)

    numbers, found = least(error, steps.numbers(), first_step=first_step, last_step=last_step)
    numbers, found = polished(off, error, numbers, found)
    return Fit(steps.moved(numbers), engine, found)


def _widened(real: Timed, part: Bools, found: Fit, policy: str) -> Fit:
    """With every number that is worth its place."""
    small = found.steps.small(float(np.mean(real.requests.input_tokens)))
    while True:
        numbers = found.steps.numbers()
        tried = []
        for i in np.flatnonzero((numbers == 0.0) & (small > 0.0)):
            more = numbers.copy()
            more[i] = small[i]
            tried.append(fitted(real, part, found.steps.moved(more), found.engine, policy, 0.2, 0.1))
        best = min(tried, key=lambda one: one.loss, default=found)
        if best.loss > found.loss * (1.0 - WORTH) - EXPLAINED:
            return found
        found = best


def first_guess(real: Timed, part: Bools, *, overlap: bool) -> OwnSteps:
    """Numbers to start from: the quickest tenth of tokens and of prompts."""
    tpot, ttft = real.tpot_s[part], real.ttft_s[part]
    computed = (real.requests.input_tokens - real.requests.cached_tokens)[part]
    return OwnSteps(step_s=_low(tpot), token_s=_low(ttft / computed), overlap=overlap)


def _low(values: Floats) -> float:
    known = values[np.isfinite(values) & (values > 0.0)]
    return float(np.percentile(known, 10)) if len(known) else 1e-3


def most_at_once(real: Timed, part: Bools) -> int:
    """Most requests that were between their first and last token when one of the part had its first."""
    moments = real.first_s[part]
    begun = np.searchsorted(np.sort(real.first_s), moments, side="right")
    ended = np.searchsorted(np.sort(real.last_s), moments, side="right")
    return int(np.max(begun - ended, initial=1))


def _budgets(most_tokens: int) -> tuple[int, ...]:
    """Budgets that can be told apart where no step has more tokens than this.

    >>> _budgets(1500), _budgets(100)
    ((512, 2048), (512,))
    """
    return BUDGETS[: 1 + sum(tokens < most_tokens for tokens in BUDGETS[:-1])]


def choices(
    real: Timed,
    part: Bools,
    *,
    max_num_seqs: int | None = None,
    max_batched_tokens: int | None = None,
    kv_tokens: int | None = None,
    instances: int = 1,
) -> list[Engine]:
    """Settings to try: those stated, else the sizes of steps that engines use, and as many sequences as were seen."""
    seen = -(-most_at_once(real, part) // instances)
    longest = int(real.requests.input_tokens.max())
    made = [
        Engine(max_num_seqs=n, max_batched_tokens=max(tokens, n), kv_tokens=kv_tokens, instances=instances)
        for n in ((max_num_seqs,) if max_num_seqs is not None else sorted({seen, MAX_NUM_SEQS}))
        for tokens in ((max_batched_tokens,) if max_batched_tokens is not None else _budgets(n * longest))
    ]
    for engine in made:
        engine.check()
    return made

"""Estimated capacity: what an instance serves of a class within its promise, queues and prompts in the way counted.

Queue-free bounds cannot tell operating points apart: larger chunks and batches always look better, for what the
prompts of some do to the tokens of others is queueing. Here an instance under Poisson arrivals is in a steady state:

- a decode step of b sequences takes d(b); a prompt, cut into chunks, makes the steps that it rides in longer by e;
- the machine spends lambda E[e] of its time on prompts, so a token takes d / (1 - lambda E[e]) on the mean, and
  b = lambda x steps a request x that time (Little);
- prompts that came during a step share the next one, as far as its chunk reaches;
- a request of n steps meets a Poisson number of such groups, of size E[e^2] / E[e] as seen by who meets them; it is
  late where they take more than n (TPOT - d), unless even a step with a whole chunk is shorter than promised;
- a prompt waits as in M/G/1 for those before it, with an exponential tail.

The largest lambda at which the promised share is in time is the estimate. It ranks deployments at their operating
points, so that few need be simulated (``shortlist``); no cost, bound or proof hangs on it.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from infermix.arrays import Bools, Floats
from infermix.plan.candidates import Base, Point
from infermix.plan.question import Demand
from infermix.plan.queue_free import TOKENS, Steps

HALVINGS = 7
SETTLED = 3
"""Times that the batch is found anew for a rate."""
LENGTHS = 16
"""Quantiles of a class's lengths that are looked at."""
SPARE = 0.2
"""Share of the allowed misses that stays free, as in simulated capacities."""
FULLEST = 0.98
"""Share of its time that a machine can spend on prompts."""
MANY = 1e6
"""Prompts that a request may meet where nothing is promised on its tokens."""


class Points(NamedTuple):
    """Operating points that are still looked at, one element each: batch cap, chunk, and room for KV tokens."""

    caps: Floats
    chunks: Floats
    kv_tokens: Floats


class State(NamedTuple):
    """An instance at a rate, [point]: seconds of a decode step, between tokens, in a step with a whole chunk."""

    step: Floats
    token: Floats
    longest: Floats
    extra: Floats
    """Seconds by which a prompt makes the steps that it rides in longer, [point, prompt]."""
    together: Floats
    """Prompts that share a step: those that came during the one before."""
    busy: Floats
    """Share of time that prompts take."""
    full: Bools
    """Whether the rate is more than batch, memory or time allow."""


def estimated(
    base: Base, demand: Demand, points: Point, bound: Floats, *, within: float = np.inf, least: float = 0.0
) -> Floats:
    """[cap, chunk] requests a second of an instance, at most ``bound``; 0 where none is in time.

    Points that cannot come to the best one over ``within``, or not to ``least``, are given up early: what they were
    found to hold until then is returned.
    """
    wanted = 1.0 - (1.0 - SPARE) * (1.0 - demand.cls.slo.attainment)
    caps, chunks = np.broadcast_arrays(points.caps[:, None], points.chunks)
    every = Points(caps.ravel(), chunks.ravel(), np.broadcast_to(base.kv_tokens, caps.shape).ravel())
    low, high = np.zeros(bound.size), bound.ravel().copy()
    for _ in range(HALVINGS):
        at = np.flatnonzero((high > 0.0) & (high >= max(least, float(low.max()) / within)))
        if not len(at):
            break
        rate = 0.5 * (low[at] + high[at])
        state = _state(base, demand, Points(*(column[at] for column in every)), rate)
        share = np.where(state.full, 0.0, _starts(state, demand, rate) * _streams(base.steps, state, demand, rate))
        low[at], high[at] = np.where(share >= wanted, rate, low[at]), np.where(share >= wanted, high[at], rate)
    return low.reshape(bound.shape)


def _state(base: Base, demand: Demand, points: Points, rate: Floats) -> State:
    """The batch, and with it the times of steps, that a rate leads to (Little)."""
    steps, prompts, lengths = base.steps, _prompts(demand), _lengths(demand, base.steps.tokens_per_step)
    beside = steps.pair_s * prompts.pairs + steps.kv_s * prompts.inputs + steps.load_s * prompts.cached
    most, of_context = np.minimum(points.caps, points.kv_tokens / prompts.context), steps.kv_s * prompts.context
    whole = _at(steps.mixed_s, points.chunks)
    batch, together = np.ones_like(rate), np.ones_like(rate)
    for _ in range(SETTLED):
        own, decode = batch * (steps.per_seq_s + of_context), _at(steps.decode_s, batch)
        step = decode + own
        extra = _extra_s(steps, prompts.fresh, batch, points.chunks, whole - decode, together) + beside
        mean = extra.mean(axis=-1)
        busy = rate * mean
        token = step / np.maximum(1.0 - busy, 1.0 - FULLEST)
        wanted = rate * float(lengths.mean()) * token
        batch = np.clip(wanted, 1.0, most)
        fit = np.maximum((points.chunks - batch) / prompts.mean, 1.0)
        together = np.clip(rate * (step + together * mean), 1.0, fit)
    return State(step, token, whole + own, extra, together, busy, (busy >= FULLEST) | (wanted > most))


def _extra_s(steps: Steps, fresh: Floats, batch: Floats, chunks: Floats, chunk_s: Floats, together: Floats) -> Floats:
    """[point, prompt] by how much the chunks of a prompt make their steps longer, a whole one by ``chunk_s``.

    Last ones share theirs.
    """
    room, shared = np.maximum(chunks - batch, 1.0)[..., None], together[..., None]
    whole, rest = np.divmod(fresh, room)
    decode = _at(steps.decode_s, batch)[..., None]
    last = _at(steps.mixed_s, np.minimum(shared * rest, room) + batch[..., None]) - decode
    return np.asarray(whole * chunk_s[..., None] + np.where(rest >= 1.0, last / shared, 0.0))


def _first_s(state: State) -> Floats:
    """[point] a mean prompt's time without a queue."""
    return np.asarray(state.extra.mean(axis=-1) + state.step)


def _starts(state: State, demand: Demand, rate: Floats) -> Floats:
    """[point] share of requests whose first token comes in time."""
    slo, first = demand.cls.slo, _first_s(state)
    if slo.ttft_s is None:
        return np.ones_like(rate)
    promised = slo.ttft_s + slo.ttft_s_per_1k_uncached * _prompts(demand).mean / 1000.0
    wait = rate * (state.extra**2).mean(axis=-1) / (2.0 * np.maximum(1.0 - state.busy, 1.0 - FULLEST))
    late = state.busy * np.exp(-np.maximum(promised - first, 0.0) / np.maximum(wait, 1e-9))
    return np.where(first <= promised, 1.0 - late, 0.0)


def _streams(steps: Steps, state: State, demand: Demand, rate: Floats) -> Floats:
    """[point] share of requests whose tokens come in time: few enough prompts of others fall among them."""
    slo, n = demand.cls.slo, _lengths(demand, steps.tokens_per_step)
    tau = np.full((*rate.shape, len(n)), np.inf)
    if slo.tpot_s is not None:
        tau = np.minimum(tau, slo.tpot_s * steps.tokens_per_step)
    if slo.e2e_s is not None:
        tau = np.minimum(tau, (slo.e2e_s - _first_s(state))[..., None] / np.maximum(n, 1.0))
    prompt = state.extra.mean(axis=-1)
    met = state.together * (state.extra**2).mean(axis=-1) / np.maximum(prompt, 1e-12)
    allowed = n * np.maximum(tau - state.step[..., None], 0.0) / np.maximum(met, 1e-12)[..., None]
    mean = (rate * state.token * prompt / np.maximum(met, 1e-12))[..., None] * n
    few = poisson_up_to(np.floor(np.minimum(allowed, MANY)), mean)
    good = np.where(state.longest[..., None] <= tau, 1.0, few)
    return np.asarray(np.where(state.step[..., None] <= tau, good, 0.0).mean(axis=-1))


class Prompts(NamedTuple):
    """Prompts of a class: quantiles of the tokens to compute, and means.

    Of those tokens, of their pairs with tokens of their context, of input and cached tokens, and of the context that
    answers read.
    """

    fresh: Floats
    mean: float
    pairs: float
    inputs: float
    cached: float
    context: float


_SHARES = (np.arange(LENGTHS) + 0.5) / LENGTHS


@lru_cache(maxsize=512)
def _prompts(demand: Demand) -> Prompts:
    inputs, cached, outputs = demand.some_lengths
    fresh, some = inputs - cached, np.quantile(inputs - cached, _SHARES)
    return Prompts(
        fresh=some,
        mean=float(some.mean()),
        pairs=float((fresh * cached + fresh * (fresh + 1) / 2).mean()),
        inputs=float(inputs.mean()),
        cached=float(cached.mean()),
        context=float((inputs + outputs / 2).mean()),
    )


@lru_cache(maxsize=512)
def _lengths(demand: Demand, tokens_per_step: float) -> Floats:
    """Quantiles of the decode steps of a request."""
    return np.asarray(np.quantile((demand.some_lengths[2] - 1.0) / tokens_per_step, _SHARES))


def _at(base_s: Floats, tokens: Floats) -> Floats:
    return np.interp(tokens, TOKENS, base_s)


def poisson_up_to(count: Floats, mean: Floats) -> Floats:
    """P(Poisson(mean) <= count), after Wilson and Hilferty."""
    k = count + 1.0
    z = (np.cbrt(mean / k) - (1.0 - 1.0 / (9.0 * k))) * 3.0 * np.sqrt(k)
    return np.asarray(0.5 * (1.0 - np.tanh(np.sqrt(2.0 / np.pi) * (z + 0.044715 * z**3))))

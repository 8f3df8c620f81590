"""Queue-free capacity: no instance serves more requests a second within its promise, whatever the arrivals.

Over a long time an instance runs N decode or mixed steps a request. Let ``A + B T`` lie below the base time of a
step of T tokens. A step with D decoding sequences, contexts of K tokens and m prompt tokens then lasts at least

    x >= A + d + B_m m + ...,     d = sum over its sequences of w = B + per_seq_s + kv_s x (prompt's context),

so that a request takes at least ``A N + W``, W being what grows with its own work. N is bounded from below by each
of these *rows* on its own:

- **batch**: at most ``max_num_seqs`` sequences decode in a step, N >= steps / max_num_seqs;
- **memory**: their contexts share M KV tokens, N >= KV tokens read / M;
- **chunk**: a step reads at most a chunk of prompts, N >= fresh tokens / chunk;
- **TPOT**: a good request waits for no more than tau = TPOT x tokens per step in a mean step of its own. Weigh those
  waits by w and add up over good requests: sum x d <= tau sum d over all steps. With x >= A + d and
  ``sum d^2 >= (sum d)^2 / N`` follows N >= G / (tau - A), G being the mean of w x steps over good requests.
  Where only the end-to-end time is promised, tau = E2E x (sum of w) / (sum of w x steps).

Rows hold for mixes of classes, too, each with N added up over classes. For TPOT with promises tau_c: with
a_c = tau_c - A and u_c = d_c / a_c, ``sum u_c <= 1 + sum d_c (x - tau_c) / a_c^2`` for every step, since
(sum a_c u_c) (sum u_c / a_c) >= (sum u_c)^2 and 1 - 2 U + U^2 >= 0; summed over steps, the last term is not positive.

A share ``1 - attainment`` of the requests may be late. G leaves out those that matter most, which is more than
any scheduler could do that does not know how long answers become.

Sessions send their next request a pause after the last answer. Their rate is stated at recorded service times; the
longer answers take, the fewer come, down to what the promises allow (``pace``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.perf import dataflow, roofline
from infermix.perf.deployment import Deployment
from infermix.perf.measured import measured_of
from infermix.perf.table import speed_interval, table_at
from infermix.plan.question import Demand

PATIENCE = 10.0
"""Where nothing is promised on it, an answer takes at most so many times what was recorded."""
DENSE = 512
STRIDE = 16
MOST_TOKENS = 8192
TOKENS: Floats = np.concatenate([np.arange(1.0, DENSE + 1), np.arange(DENSE + STRIDE, MOST_TOKENS + 1, STRIDE)])
"""Tokens of a step at which base times are looked at: all up to a batch's, then every sixteenth."""
_REACH: Floats = np.append(TOKENS[1:] - 1.0, TOKENS[-1])
"""Up to so many tokens a step takes at least the time at the grid's point: base times never fall with tokens."""
_TANGENTS = np.array([1, 4, 16, 64, 128, 256, 512]) - 1
"""Points of the grid whose chords give intercepts A."""


@dataclass(frozen=True)
class Work:
    """Mean work of a class's request at so many tokens a step.

    Attributes
    ----------
    steps, reads, bare_reads
        Decode steps, KV tokens that they read, and KV tokens of the prompt's context alone.
    good_steps, good_reads
        The same of steps and ``bare_reads`` without the requests that may be late, those with most left out.
    fresh, cached, inputs, pairs
        Prompt tokens to compute, in the cache, all; and pairs of a computed token with a token of its context.
    context
        Mean prompt tokens + 1.
    """

    steps: float
    reads: float
    bare_reads: float
    good_steps: float
    good_reads: float
    fresh: float
    cached: float
    inputs: float
    pairs: float
    context: float


@lru_cache(maxsize=512)
def work_of(demand: Demand, tokens_per_step: float = 1.0) -> Work:
    """Mean work over the sample of a class."""
    inputs, cached, outputs = demand.lengths
    steps, fresh = (outputs - 1) / tokens_per_step, inputs - cached
    bare = steps * (inputs + 1)
    grown = bare + tokens_per_step * np.maximum(0.0, steps * (steps - 1) / 2)
    late = 1.0 - demand.cls.slo.attainment
    return Work(
        steps=float(steps.mean()),
        reads=float(grown.mean()),
        bare_reads=float(bare.mean()),
        good_steps=_without_most(steps, late),
        good_reads=_without_most(bare, late),
        fresh=float(fresh.mean()),
        cached=float(cached.mean()),
        inputs=float(inputs.mean()),
        pairs=float((fresh * cached + fresh * (fresh + 1) / 2).mean()),
        context=float(inputs.mean()) + 1.0,
    )


def _without_most(values: Floats, share: float) -> float:
    """Mean over all, of which a share, those with most, counts as nothing."""
    left_out = min(len(values), int(share * len(values)) + 1)
    kept = np.partition(values, len(values) - left_out)[: len(values) - left_out]
    return float(kept.sum() / len(values))


@dataclass(frozen=True)
class Steps:
    """Base times of one deployment over ``TOKENS`` and its linear terms, at the speed that counts [s]."""

    decode_s: Floats
    mixed_s: Floats
    per_seq_s: float
    kv_s: float
    pair_s: float
    load_s: float
    tokens_per_step: float
    width: float = 1.0
    """Tokens that a step computes for each sequence: a mixed step verifies its drafts as well."""


def steps_of(d: Deployment, speed: str) -> Steps:
    """Step times of a deployment, measured ones where there are; mixed ones with as few drafts as may be.

    So they are never too long.
    """
    if measured_of(d) is not None:
        return _measured_steps(d, speed)
    machine = dataflow if d.is_pipeline else roofline
    decode = machine.decode_s(d, TOKENS)
    one_stage = not d.is_pipeline and d.pp == 1 and d.spec is None
    mixed = decode + roofline.prompt_launches_s(d) if one_stage else machine.mixed_s(_undrafted(d), TOKENS)
    slower = 1.0 / speed_interval(d)[0] if speed == "low" else 1.0
    return Steps(
        decode_s=slower * decode,
        mixed_s=slower * np.maximum(mixed, 0.0),
        per_seq_s=0.0 if d.is_pipeline else slower * roofline.per_seq_s(d),
        kv_s=slower * machine.kv_s(d),
        pair_s=slower * machine.pair_s(d),
        load_s=slower * dataflow.load_s(d) if d.is_pipeline else 0.0,
        tokens_per_step=d.spec.accepted_per_step if d.spec else 1.0,
        width=float(d.spec.width if d.spec else 1),
    )


def _measured_steps(d: Deployment, speed: str) -> Steps:
    table = table_at(d, TOKENS)
    table = table.at_speed(table.low) if speed == "low" else table
    linear = (table.per_seq_s, table.kv_s, table.pair_s, table.load_s)
    return Steps(table.decode_s, table.mixed_s, *linear, table.tokens_per_step)


def _undrafted(d: Deployment) -> Deployment:
    """The deployment without drafts in steps with a prompt, which only shortens them."""
    return msgspec.structs.replace(d, spec=None)


@dataclass(frozen=True)
class Lines:
    """Lines below the base times: intercepts A [line], slopes for decode tokens [line, cap].

    ``prompt_a`` and ``prompt_b`` [line, chunk] lie below mixed steps up to a chunk, with at least A and the slope of
    the decode tokens.
    """

    a: Floats
    slope: Floats
    prompt_a: Floats
    prompt_b: Floats


def lines_of(steps: Steps, caps: Floats, chunks: Floats) -> Lines:
    """A few lines, each below every base time that a step of these sizes can have."""
    f, g = steps.decode_s, steps.mixed_s
    following = np.minimum(_TANGENTS * 2 + 1, len(TOKENS) - 1)
    width = TOKENS[following] - TOKENS[_TANGENTS]
    chords = [h[_TANGENTS] - TOKENS[_TANGENTS] * (h[following] - h[_TANGENTS]) / width for h in (f, g)]
    a = np.clip(np.minimum(*chords), 0.0, min(float(f[0]), float(g[0])))
    at_cap = np.searchsorted(TOKENS, caps)
    below = np.minimum.accumulate((f[None, :DENSE] - a[:, None]) / TOKENS[:DENSE], axis=1)
    slope = np.maximum(below[:, at_cap], 0.0)
    at_chunk = np.searchsorted(TOKENS, chunks)
    half = np.searchsorted(TOKENS, chunks / 2)
    steep = np.clip(2 * g[half] - g[at_chunk], 0.0, float(g[0]))
    own = _slopes(g, a, at_chunk)
    of_steep = _slopes(g, steep, at_chunk)[np.arange(len(chunks)), np.arange(len(chunks))]
    better = (steep[None, :] >= a[:, None]) & (steep + of_steep * chunks > a[:, None] + own * chunks)
    return Lines(
        a=a,
        slope=slope,
        prompt_a=np.where(better, steep[None, :], a[:, None]),
        prompt_b=np.where(better, of_steep[None, :], own),
    )


def _slopes(g: Floats, a: Floats, at_chunk: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Floats:
    """[line, chunk] largest slope of a line with intercept a that stays below g up to a chunk."""
    rise = g[None, :] - a[:, None]
    below = np.minimum.accumulate(rise / _REACH, axis=1)
    before = below[:, np.maximum(at_chunk - 1, 0)]
    return np.maximum(np.minimum(before, rise[:, at_chunk] / TOKENS[at_chunk]), 0.0)


def seconds_by_row(
    steps: Steps, lines: Lines, demand: Demand, caps: Floats, chunks: Floats, kv_tokens: Floats, role: str = "both"
) -> Floats:
    """Least seconds of an instance that a request takes, [line, row, cap, chunk]; rows: batch, memory, chunk, TPOT.

    ``kv_tokens``: room of the instance, [cap, chunk]. ``inf`` where a promise cannot be kept by any batch.
    """
    w = work_of(demand, steps.tokens_per_step)
    reading, decoding = role != "decode", role != "prefill"
    a = lines.a[:, None, None]
    slope = lines.slope[:, :, None]
    if reading:
        slope = np.minimum(slope, steps.width * lines.prompt_b[:, None, :])
    slope = np.broadcast_to(slope, (len(lines.a), len(caps), len(chunks)))
    fixed, n = np.zeros_like(slope), np.zeros((4, *slope.shape))
    if reading:
        prompts = w.fresh / chunks
        fixed = fixed + ((lines.prompt_a - lines.a[:, None]) * prompts + lines.prompt_b * w.fresh)[:, None, :]
        fixed = fixed + steps.per_seq_s + steps.kv_s * w.inputs + steps.pair_s * w.pairs + steps.load_s * w.cached
        n[2] = prompts
    if decoding:
        fixed = fixed + (slope + steps.per_seq_s) * w.steps + steps.kv_s * w.reads
        n[0] = (w.steps / caps)[:, None]
        n[1] = w.reads / np.maximum(kv_tokens, 1.0)
        n[3] = _tpot_steps(steps, slope + steps.per_seq_s, a, w, demand)
    return np.asarray((fixed[:, None] + a[:, None] * np.moveaxis(n, 0, 1)) * pace(demand))


@lru_cache(maxsize=512)
def pace(demand: Demand) -> float:
    """Least requests of a class that come, over those of its stated rate: sessions that wait longer send fewer.

    The rate of a closed loop is the one at recorded service times. Served as slowly as it was promised, a session takes
    its pauses and the promised times for its requests; what may be late is taken to be as late as that on the mean.
    Where not all of an answer is promised, it may take ten times as long as recorded.
    """
    if demand.cls.sessions is None:
        return 1.0
    cycle, slo = demand.cls.sessions / demand.rate_per_s, demand.cls.slo
    pause = min(float(demand.sample.think_s.mean()), cycle)
    inputs, cached, outputs = demand.lengths
    promised = [] if slo.e2e_s is None else [slo.e2e_s]
    if slo.ttft_s is not None and slo.tpot_s is not None:
        first = slo.ttft_s + slo.ttft_s_per_1k_uncached * float((inputs - cached).mean()) / 1000
        promised.append(first + slo.tpot_s * float((outputs - 1).mean()))
    longest = pause + (min(promised) if promised else PATIENCE * (cycle - pause))
    return min(1.0, cycle / longest)


def _tpot_steps(steps: Steps, weight: Floats, a: Floats, w: Work, demand: Demand) -> Floats:
    """Steps a request that the promised time per token takes at least."""
    slo = demand.cls.slo
    good = weight * w.good_steps + steps.kv_s * w.good_reads
    tau = np.full_like(weight, np.inf)
    if slo.tpot_s is not None:
        tau = np.minimum(tau, slo.tpot_s * steps.tokens_per_step)
    if slo.e2e_s is not None:
        all_weights = weight + steps.kv_s * w.context
        tau = np.minimum(tau, slo.e2e_s * all_weights / np.maximum(good, 1e-300))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(good > 0.0, good / np.maximum(tau - a, 0.0), 0.0)
    return np.asarray(found)

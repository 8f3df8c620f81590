"""What a case comes to: times and throughput of the closed loop on the modelled instance."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import msgspec
import numpy as np

from infermix.arrays import Floats, Ints
from infermix.catalog.load import catalog
from infermix.catalog.records import Stack
from infermix.perf.deployment import Deployment
from infermix.perf.stack import request_s, stack_for, with_stack
from infermix.perf.table import table_at
from infermix.validate.engines import Engine
from infermix.validate.loop import Curve, Rules, Times, run_loop
from infermix.validate.meaning import REQUESTS_PER_CLIENT, Case, room_tokens

SPARE_TOKENS = 64
"""Of a budget for one prompt."""
MOST_REQUESTS = 20_000
_GOLDEN = 0.6180339887498949
_PLASTIC = 0.7548776662466927


class Outcome(NamedTuple):
    """Means over the requests of a case."""

    ttft_s: float
    tpot_s: float
    output_tokens_per_s: float
    """Of all instances."""
    total_tokens_per_s: float


@lru_cache(maxsize=256)
def tokens_grid(most: int) -> Floats:
    """Numbers of tokens at which a curve is computed: each up to 16, then steps of an eighth."""
    grid = [*range(1, 17)]
    while grid[-1] < most:
        grid.append(grid[-1] + max(1, grid[-1] // 8))
    return np.array(grid, dtype=np.float64)


def curve_of(d: Deployment, most: int) -> Curve:
    """Step times of a deployment up to so many tokens."""
    grid = tokens_grid(most)
    table = table_at(d, grid)
    return Curve(grid, table.decode_s, table.mixed_s, table.per_seq_s, table.kv_s, table.pair_s, table.tokens_per_step)


def drawn(nominal: int, shortest: float, count: int, step: float) -> Ints:
    """Lengths between ``shortest`` and 1 of nominal, evenly spread and in an order that repeats nothing."""
    spread = np.mod(0.5 + step * np.arange(count), 1.0)
    lengths: Ints = np.maximum(1, np.rint(nominal * (shortest + (1.0 - shortest) * spread))).astype(np.int64)
    return lengths


def rules_of(d: Deployment, engine: Engine, case: Case) -> Rules:
    """Scheduling of an instance: budgets count for every group of chips that has sequences of its own."""
    room = max(room_tokens(d), float(case.input_tokens + case.output_tokens))
    chunk = engine.chunk_tokens
    if engine.one_prompt:
        chunk = min(chunk, case.input_tokens + -(-case.clients // d.dp) + SPARE_TOKENS)
    return Rules(engine.mixed, chunk * d.dp, max(engine.max_seqs * d.dp, 1), room, engine.reserved)


def outcome_of(case: Case) -> Outcome:
    """Serve the case's requests on the stack that the catalogue has for its engine."""
    return outcome_on(case, stack_for(catalog(), case.engine.id, case.deployment))


def outcome_on(case: Case, stack: Stack | None) -> Outcome:
    """Serve the case's requests on a stack."""
    case = msgspec.structs.replace(
        case,
        deployment=with_stack(case.deployment, stack),
        prefill=with_stack(case.prefill, stack) if case.prefill else None,
    )
    found = _served(case)
    return found._replace(ttft_s=found.ttft_s + request_s(stack, case.clients * case.instances))


def _served(case: Case) -> Outcome:
    d = case.deployment
    requests = max(min(case.requests, MOST_REQUESTS), min(case.clients, MOST_REQUESTS))
    inputs = drawn(case.input_tokens, case.shortest, requests, _GOLDEN)
    outputs = drawn(case.output_tokens, case.shortest, requests, _PLASTIC)
    if case.apart:
        longest = round(case.output_tokens * (1.0 + case.apart))
        outputs = drawn(longest, (1.0 - case.apart) / (1.0 + case.apart), requests, _PLASTIC)
    if case.prefill is not None:
        return _split_outcome(case, inputs, outputs)
    rules = rules_of(d, case.engine, case)
    most = min(rules.chunk_tokens, int(case.clients * case.input_tokens)) + case.clients
    times = run_loop(curve_of(d, most), rules, case.clients, inputs, outputs)
    found = _means(case, times, inputs, outputs)
    waits = balanced_steps(case)
    return found._replace(ttft_s=found.ttft_s + waits * found.tpot_s * _kept(d)) if waits else found


def _kept(d: Deployment) -> float:
    """Tokens of a sequence and step."""
    return d.spec.accepted_per_step if d.spec else 1.0


def balanced_steps(case: Case) -> float:
    """Steps that a prompt waits at the mean until every group of data-parallel attention has one.

    The first to come waits for one for each other group, or until patience ends, the next for what is left.
    """
    most, others = case.engine.balanced_steps, case.deployment.dp - 1
    if not most or not others or (not case.steady and case.requests <= case.clients):
        return 0.0
    each = case.clients * _kept(case.deployment) / case.output_tokens
    if each * most >= others:
        return others / each / 2
    return most * (1.0 + each * most / 2) / (1.0 + each * most)


def _means(case: Case, times: Times, inputs: Ints, outputs: Ints) -> Outcome:
    """Means over all requests; of a steady load without the first round and the last."""
    counted = np.ones(len(inputs), dtype=np.bool_)
    span, done = float(times.last.max()), counted
    if case.steady and len(inputs) > 2 * case.clients:
        counted = np.arange(len(inputs)) >= case.clients
        span = float(times.sent.max())
        done = times.last <= span
    several = counted & (outputs > 1)
    each = (times.last - times.first)[several] / (outputs[several] - 1)
    written, read = float(outputs[done].sum()), float(inputs[done].sum())
    return Outcome(
        float(np.mean((times.first - times.sent)[counted])),
        float(np.mean(each)) if several.any() else float("nan"),
        case.instances * written / span,
        case.instances * (read + written) / span,
    )


def _split_outcome(case: Case, inputs: Ints, outputs: Ints) -> Outcome:
    """Prompts one after the other on their own workers, decoding undisturbed; a balance of the closed loop.

    Clients wait for a worker to read their prompt (``wait``), and then decode in a batch that holds the others:
    wait + output x step(batch) is their cycle, unless the readers cannot keep up.
    """
    assert case.prefill is not None
    mean_in, mean_out = float(inputs.mean()), float(outputs.mean())
    alone, each = _reading_s(case.prefill, case.engine, mean_in)
    served = each / case.prefill_instances
    curve = curve_of(case.deployment, max(2, case.clients))
    batch, step = float(case.clients), 0.0
    for _ in range(_ROUNDS):
        step = float(np.interp(batch, curve.tokens, curve.decode_s)) + batch * (
            curve.per_seq_s + curve.kv_s * (mean_in + mean_out / 2)
        )
        step /= curve.tokens_per_step
        cycle = max(alone + mean_out * step, case.clients * served)
        batch = 0.5 * (batch + min(float(case.clients), max(1.0, case.clients * mean_out * step / cycle)))
    begun = served * (case.clients - 1) / 2 / REQUESTS_PER_CLIENT  # all clients begin together
    wait = cycle - mean_out * step + begun
    rate = case.instances * case.clients / (wait + mean_out * step)
    return Outcome(wait, step, rate * mean_out, rate * (mean_out + mean_in))


_ROUNDS = 30


def _reading_s(d: Deployment, engine: Engine, tokens: float) -> tuple[float, float]:
    """(a lone prompt, each of many) on an instance that only reads prompts [s]."""
    curve = curve_of(d, engine.chunk_tokens * d.dp)
    pairs = curve.pair_s * tokens * tokens / 2
    chunk = float(curve.tokens[-1])
    many = float(curve.mixed_s[-1]) * tokens / chunk + pairs
    lone = float(np.interp(min(tokens * d.dp, chunk), curve.tokens, curve.mixed_s)) * max(1.0, tokens * d.dp / chunk)
    return lone + d.dp * pairs, many

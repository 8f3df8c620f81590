"""A closed loop of clients on one instance, step by step, over a curve of step times.

Each client sends its next request when the last one has answered. A step lasts
``base(T) + per_seq (D + P) + kv K + pair Q`` with T tokens, D decoding sequences, P prompt chunks, K
KV tokens read and Q pairs of a prompt token and its context, as in the step table. Two ways of
scheduling: *mixed* steps decode every running sequence and fill what is left of the token budget
with prompts; *prompts first* pauses decoding while prompts wait.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats, Ints
from infermix.jit import kernel


class Curve(NamedTuple):
    """Step times of an instance at some numbers of tokens [s]."""

    tokens: Floats
    decode_s: Floats
    mixed_s: Floats
    per_seq_s: float
    kv_s: float
    pair_s: float
    tokens_per_step: float


class Rules(NamedTuple):
    """How the engine schedules."""

    mixed: bool
    chunk_tokens: int
    """Most tokens of a step with prompts in it."""
    max_seqs: int
    kv_tokens: float
    """Room for contexts; a request starts when what it reserves fits."""
    reserved: float = 1.0
    """Share of its answer that a request reserves beside its prompt; engines that may take room back reserve less."""


class Times(NamedTuple):
    """When each request was sent, showed its first token and its last [s]."""

    sent: Floats
    first: Floats
    last: Floats


def run_loop(curve: Curve, rules: Rules, clients: int, inputs: Ints, outputs: Ints) -> Times:
    """Serve the requests in order, ``clients`` of them at a time; all clients begin together."""
    n = len(inputs)
    steps = np.maximum(0, np.ceil((outputs - 1) / curve.tokens_per_step)).astype(np.int64)
    ring = int(steps.max()) + 2
    times = Times(np.zeros(n), np.zeros(n), np.zeros(n))
    needs = inputs + np.ceil(rules.reserved * outputs).astype(np.int64)
    _serve(
        *curve[:6], curve.tokens_per_step, rules.mixed, rules.chunk_tokens, rules.max_seqs, float(rules.kv_tokens),
        min(clients, n), inputs, needs, steps, np.full(ring, -1), np.full(n, -1), *times,
    )  # fmt: skip
    return times


@kernel
def _at(tokens: Floats, seconds: Floats, t: float) -> float:
    """Linear between the points of the curve, flat before the first, straight on after the last."""
    last = len(tokens) - 1
    if t <= tokens[0]:
        return float(seconds[0])
    low, high = 0, last
    while high - low > 1:
        middle = (low + high) // 2
        if tokens[middle] <= t:
            low = middle
        else:
            high = middle
    share = (t - tokens[low]) / (tokens[high] - tokens[low])
    return float(seconds[low] + share * (seconds[high] - seconds[low]))


@kernel
def _serve(
    tokens: Floats, decode_s: Floats, mixed_s: Floats, per_seq_s: float, kv_s: float, pair_s: float, kept: float,
    mixed: bool, chunk: int, max_seqs: int, kv_tokens: float,
    clients: int, inputs: Ints, needs: Ints, steps: Ints, ends_at: Ints, follows: Ints,
    sent: Floats, first: Floats, last: Floats,
) -> None:  # fmt: skip
    """The loop itself. ``ends_at[s % ring]`` heads the list (linked by ``follows``) of those that end at step s."""
    n, ring = len(inputs), len(ends_at)
    now, step = 0.0, 0
    arrived, admitted, read = clients, 0, 0  # requests 0..arrived were sent, ..admitted started, ..read read whole
    done, part = 0, 0  # tokens of request ``read`` that are in the cache
    decoding, context, reserved = 0, 0.0, 0.0
    while done < n:
        while (
            admitted < arrived
            and admitted - done < max_seqs
            and (reserved + needs[admitted] <= kv_tokens or admitted == done)
        ):
            reserved += needs[admitted]
            admitted += 1
        prompts = read < admitted
        decodes = decoding if mixed or not prompts else 0
        budget = chunk - decodes
        if budget < 1:
            budget = 1
        length, pieces, pairs, ends = 0, 0, 0.0, 0.0
        begun = read
        while read < admitted and length < budget:
            take = min(inputs[read] - part, budget - length)
            pairs += take * part + 0.5 * take * (take + 1)
            part += take
            ends += part
            length += take
            pieces += 1
            if part < inputs[read]:
                break
            read += 1
            part = 0
        seconds = _at(tokens, mixed_s if length > 0 else decode_s, float(decodes + length))
        seconds += per_seq_s * (decodes + pieces) + pair_s * pairs
        seconds += kv_s * ((context if decodes > 0 else 0.0) + ends)
        now += seconds
        finished = 0
        if decodes > 0:
            step += 1
            context += kept * decodes
            i = ends_at[step % ring]
            ends_at[step % ring] = -1
            while i >= 0:
                last[i] = now
                context -= inputs[i] + 1 + kept * steps[i]
                reserved -= needs[i]
                decoding -= 1
                finished += 1
                i = follows[i]
        for i in range(begun, read):
            first[i] = now
            if steps[i] == 0:
                last[i] = now
                reserved -= needs[i]
                finished += 1
            else:
                at = (step + steps[i]) % ring
                follows[i] = ends_at[at]
                ends_at[at] = i
                decoding += 1
                context += inputs[i] + 1
        done += finished
        while finished > 0 and arrived < n:
            sent[arrived] = now
            arrived += 1
            finished -= 1

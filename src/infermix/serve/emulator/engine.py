"""Continuous batching of one emulated instance, step by step: the rules of ``docs/design/simulator.md``.

The simulator's kernel does the same from event to event, and a test holds both against each other. Nothing here knows a
clock: the caller says when a step starts, and asks again when it has ended.
"""

from __future__ import annotations

import math
from bisect import insort_left, insort_right
from collections.abc import Sequence as Row

from infermix.serve.emulator.memory import (
    Key,
    claim,
    copy_to,
    keep,
    leading,
    leading_in,
    let_go,
    newly_claimed,
    take,
)
from infermix.serve.emulator.state import Engine, Sequence
from infermix.sim.state import PoolSpec


def can_finish(spec: PoolSpec, input_tokens: int, output_tokens: int) -> bool:
    """Whether an instance could ever finish such a request."""
    room = (spec.blocks - spec.watermark_blocks) * spec.block_tokens
    total = input_tokens + output_tokens
    return input_tokens + 1 <= room and total - 1 <= room and total <= spec.max_context


def accept(engine: Engine, seq: Sequence, now_s: float) -> None:
    """A request joins the end of the queue of its priority; it must be one that can finish."""
    seq.arrival_s = now_s
    insort_right(engine.waiting, seq, key=lambda other: -other.priority)


def give_up(engine: Engine, seq: Sequence, now_s: float) -> None:
    """Nobody waits for the answer any more; a sequence that a step computes leaves when the step ends."""
    if seq.ended:
        return
    if seq not in engine.running:
        seq.ended = True
        engine.waiting.remove(seq)
    elif engine.in_step:
        engine.ending.append(seq)
    else:
        seq.ended = True
        _leave(engine, seq, now_s, finished=True)


def start_step(engine: Engine, now_s: float) -> bool:
    """Schedule a step from ``now_s`` on, ``engine.step_s`` long; False: there is nothing to do."""
    while True:
        budget, preempted = _schedule_running(engine, now_s)
        loading_s, loads_s = (0.0, [0.0] * engine.spec.ranks) if preempted else _admit(engine, budget, now_s)
        if any(seq.decoding or seq.chunk for seq in engine.running):
            break
        if not preempted:
            return False
    engine.step_from_s = now_s
    engine.step_s = _seconds(engine, loads_s) + loading_s
    return True


def end_step(engine: Engine) -> list[Sequence]:
    """The step is over; sequences that got tokens, in the order of the batch. Those that have ended are marked."""
    now_s = engine.step_from_s + engine.step_s
    engine.totals.steps += 1
    engine.totals.busy_s += engine.step_s
    engine.step_s = math.nan
    batch = list(engine.running)
    grown = [seq for seq in batch if seq.decoding]
    for seq in grown:
        _decoded(engine, seq, now_s)
    for seq in batch:
        if seq.chunk and _has_read(engine, seq):
            grown.append(seq)
            _yield(engine, seq, 1, now_s)
    for seq in engine.ending:
        if not seq.ended:
            seq.ended = True
            _leave(engine, seq, now_s, finished=True)
    engine.ending.clear()
    return grown


def _schedule_running(engine: Engine, now_s: float) -> tuple[int, bool]:
    """Phase 1: the budget that is left, and whether anything was preempted."""
    budget, preempted, place = engine.spec.max_batched_tokens, False, 0
    running, memory = engine.running, engine.memory
    while place < len(running):
        seq = running[place]
        seq.chunk = 0
        if not seq.decoding:
            seq.chunk = min(seq.prompt - seq.position, budget)
            budget -= seq.chunk
            place += 1
            continue
        lost = False
        while seq.done >= seq.next_block and not lost:
            if memory.free > 0:
                take(memory, 1)
                seq.own += 1
                seq.next_block += _block_every(engine.spec)
                continue
            preempted = True
            victim = _least_urgent(running)
            lost, at = victim is seq, running.index(victim)
            if at < place:
                place -= 1
                budget += 1 if victim.decoding else victim.chunk
            _preempt(engine, victim, now_s)
        if not lost:
            budget -= 1
            place += 1
    return budget, preempted


def _block_every(spec: PoolSpec) -> int:
    """Steps from one new block of a sequence to the next."""
    return math.ceil(spec.block_tokens / spec.accepted_per_step)


def _least_urgent(running: list[Sequence]) -> Sequence:
    """The last of the batch among those with the lowest priority."""
    lowest = min(seq.priority for seq in running)
    return next(seq for seq in reversed(running) if seq.priority == lowest)


def _preempt(engine: Engine, seq: Sequence, now_s: float) -> None:
    """The sequence loses its blocks and waits at the front of its queue to be read anew."""
    engine.totals.preemptions += 1
    _leave(engine, seq, now_s, finished=False)
    seq.decoding = False
    seq.prompt = seq.position = seq.chunk = 0
    insort_left(engine.waiting, seq, key=lambda other: -other.priority)


def _admit(engine: Engine, budget: int, now_s: float) -> tuple[float, list[float]]:
    """Phase 2: the first that cannot be admitted stops it. (Loading from tiers [s], bringing in by group [s])."""
    loading_s = 0.0
    loads_s = [0.0] * engine.spec.ranks
    while engine.waiting and budget > 0 and len(engine.running) < engine.spec.max_num_seqs:
        seq = engine.waiting[0]
        cost_s = _seat_cached(engine, seq, now_s) if engine.spec.prefix_cache else _seat_plain(engine, seq)
        if cost_s is None:
            break
        loading_s += cost_s
        engine.waiting.pop(0)
        members = [0] * engine.spec.ranks
        for other in engine.running:
            members[other.group] += 1
        seq.group = members.index(min(members))
        engine.running.append(seq)
        if engine.spec.prefix_cache or math.isnan(seq.admit_s):
            loads_s[seq.group] += engine.spec.load_s * seq.position
        if math.isnan(seq.admit_s):
            seq.admit_s = now_s
        seq.chunk = min(seq.prompt - seq.position, budget)
        budget -= seq.chunk
    return loading_s, loads_s


def _seat_plain(engine: Engine, seq: Sequence) -> float | None:
    """Without a prefix cache what is cached is there already. Cost of loading [s]; None: no room."""
    spec, memory = engine.spec, engine.memory
    need = -(-seq.context // spec.block_tokens)
    if need + spec.watermark_blocks > memory.free:
        return None
    take(memory, need)
    seq.own, seq.prompt, seq.position = need, seq.context, seq.cached
    return 0.0


def _seat_cached(engine: Engine, seq: Sequence, now_s: float) -> float | None:
    """With a prefix cache: what is found of the prompt here, or in a tier below. Cost of loading [s]; None: no room."""
    spec, memory = engine.spec, engine.memory
    keys = seq.keys[: seq.context // spec.block_tokens]
    here = leading(memory, keys, now_s)
    need = -(-seq.context // spec.block_tokens) - here
    if need + spec.watermark_blocks > memory.free - newly_claimed(memory, seq.keys, now_s):
        return None
    claim(memory, seq.keys, now_s)
    take(memory, need)
    seq.own, seq.matched, seq.prompt = need, here, seq.context
    found, cost_s = _best_tier(engine, keys, here, now_s)
    seq.hit_tokens = min(here * spec.block_tokens, seq.prompt - 1)
    seq.position = min(found * spec.block_tokens, seq.prompt - 1)
    seq.loaded_tokens = seq.position - seq.hit_tokens
    engine.totals.queried_tokens += seq.prompt
    engine.totals.hit_tokens += seq.position
    return cost_s


def _best_tier(engine: Engine, keys: Row[Key], here: int, now_s: float) -> tuple[int, float]:
    """How many leading blocks the admission has with the best tier, and what loading them costs [s]."""
    spec = engine.spec
    best_net_s, best = math.inf, (here, 0.0)
    for tier in (engine.host, engine.remote):
        there = leading_in(tier, keys, now_s) if tier.blocks else 0
        if there > here:
            tokens = (there - here) * spec.block_tokens
            cost_s = tokens * tier.load_s + tier.latency_s
            net_s = cost_s - tokens * spec.prefill_s_per_token
            if net_s < best_net_s:
                best_net_s, best = net_s, (there, cost_s)
    return best if best_net_s <= 0.0 else (here, 0.0)


def _seconds(engine: Engine, group_s: list[float]) -> float:
    """How long the step that is scheduled lasts; ``group_s`` is what groups take already."""
    spec = engine.spec
    tokens = readers = sequences = 0
    for seq in engine.running:
        if seq.decoding:
            tokens += 1
            sequences += 1
            group_s[seq.group] += spec.kv_s * (seq.input + seq.had + seq.rate * seq.done)
        elif seq.chunk:
            m, at = seq.chunk, seq.position
            tokens += m
            readers += 1
            group_s[seq.group] += spec.kv_s * (at + m) + spec.pair_s * (m * at + m * (m + 1) // 2)
    base_s = engine.mixed_s[tokens] if readers else engine.decode_s[tokens]
    return base_s + spec.per_seq_s * (sequences + readers) + spec.ranks * max(group_s)


def _decoded(engine: Engine, seq: Sequence, now_s: float) -> None:
    """A decoding sequence has one step more, and the tokens that it brings."""
    seq.done += 1
    to_come = seq.output - seq.had
    now = to_come if seq.done == seq.steps else min(to_come - 1, math.floor(seq.rate * seq.done))
    gain = seq.had + now - seq.generated
    engine.totals.decode_tokens += gain
    _yield(engine, seq, gain, now_s)


def _has_read(engine: Engine, seq: Sequence) -> bool:
    """A chunk was read; whether the prompt is complete."""
    engine.totals.prompt_tokens += seq.chunk
    seq.position += seq.chunk
    seq.chunk = 0
    if seq.position < seq.prompt:
        return False
    if engine.spec.prefix_cache:
        for key in seq.keys[seq.matched : seq.prompt // engine.spec.block_tokens]:
            keep(engine.memory, key)
            seq.own -= 1
            seq.matched += 1
    return True


def _yield(engine: Engine, seq: Sequence, count: int, now_s: float) -> None:
    if seq.generated == 0:
        seq.first_s = now_s
    seq.generated += count
    engine.totals.generated_tokens += count
    if seq.generated == seq.output:
        seq.last_s = now_s
        seq.ended = True
        _leave(engine, seq, now_s, finished=True)
    elif not seq.decoding:
        _begin_decoding(engine.spec, seq)


def _begin_decoding(spec: PoolSpec, seq: Sequence) -> None:
    """From the next step on it yields tokens, evenly many in every step."""
    a, v = spec.accepted_per_step, spec.accepted_variance
    n = seq.output - seq.generated
    drawn = math.floor(n / a + seq.z * math.sqrt(n * v / a**3) + 0.5)
    seq.steps = min(max(drawn, -(-n // spec.accepted_most)), n)
    seq.rate = math.floor(1024 * n / seq.steps + 0.5) / 1024
    seq.had, seq.done, seq.decoding = seq.generated, 0, True
    written = seq.context - 1
    slack = -(-written // spec.block_tokens) * spec.block_tokens - written
    seq.next_block = min(math.ceil(slack / a), _block_every(spec) - 1)


def _leave(engine: Engine, seq: Sequence, now_s: float, *, finished: bool) -> None:
    """Out of the batch; blocks are given back, with a prefix cache those that are full are kept."""
    engine.running.remove(seq)
    if engine.spec.prefix_cache:
        _keep_full_blocks(engine, seq, now_s, finished)
    engine.memory.taken -= seq.own
    seq.own = seq.matched = 0


def _keep_full_blocks(engine: Engine, seq: Sequence, now_s: float, finished: bool) -> None:
    full = min(seq.in_cache // engine.spec.block_tokens, seq.matched + seq.own)
    known = seq.keys[:full]
    for key in known[seq.matched :]:
        keep(engine.memory, key)
        seq.own -= 1
    unknown = [object() for _ in range(full - len(known))] if finished else []
    for key in unknown:
        keep(engine.memory, key)
        seq.own -= 1
    let_go(engine.memory, seq.keys, unknown, now_s)
    if finished:
        for tier in (engine.host, engine.remote):
            copy_to(tier, [*unknown, *reversed(known)], seq.keys, now_s)

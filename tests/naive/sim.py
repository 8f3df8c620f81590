"""The slow, obvious twin of the simulator: objects, step by step, a heap of events.

Reads like ``docs/design/simulator.md`` and shares nothing with ``infermix.sim``. It asserts its
invariants while it runs.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from infermix import rng
from infermix.route.view import Ask, FleetView, Promises
from infermix.workload.requests import Requests

Policy = Callable[[FleetView, Ask], int]

COMPLETED, REFUSED, UNFINISHED = "completed", "refused", "unfinished"
STEP_ENDS, ARRIVES = 0, 1  # at equal times: ends first, then arrivals (then starts)


@dataclass
class NaivePool:
    """Equal instances and one step table."""

    instances: int
    decode_s: list[float]
    mixed_s: list[float]
    per_seq_s: float
    kv_s: float
    pair_s: float
    load_s: float
    block_tokens: int
    blocks: int
    max_num_seqs: int
    max_batched_tokens: int
    serves: set[int] | None
    prefill_s_per_token: float
    step_s: float
    max_context: int = 10**9
    usd_per_s: float = math.nan

    def step_line(self) -> tuple[float, float]:
        """Base and slope of the decode step over the batch: least squares of relative errors at powers of two."""
        most = self.max_num_seqs
        batches = sorted({2**k for k in range(20) if 2**k <= most} | {most})
        times = [self.decode_s[n] + self.per_seq_s * n for n in batches]
        if most == 1:
            return times[0], 0.0
        weights = [1.0 / t**2 for t in times]
        w, wn = sum(weights), sum(u * n for u, n in zip(weights, batches, strict=True))
        wnn = sum(u * n * n for u, n in zip(weights, batches, strict=True))
        wt = sum(u * t for u, t in zip(weights, times, strict=True))
        wnt = sum(u * n * t for u, n, t in zip(weights, batches, times, strict=True))
        slope = (w * wnt - wn * wt) / (w * wnn - wn * wn)
        return (wt - slope * wn) / w, slope

    def serves_class(self, class_id: int) -> bool:
        return self.serves is None or class_id in self.serves

    def capacity_tokens(self) -> int:
        return self.blocks * self.block_tokens

    def blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.block_tokens)


@dataclass
class NaiveResult:
    """One entry for each request, then one entry for each instance.

    ``arrival_s`` holds the arrival times that came about: those of the table, but for requests with a parent.
    """

    arrival_s: list[float]
    first_s: list[float]
    last_s: list[float]
    instance: list[int]
    status: list[str]
    busy_s: list[float]
    steps: list[int]
    decode_tokens: list[int]
    prompt_tokens: list[int]
    kv_peak_blocks: list[int]
    preemptions: list[int]


@dataclass
class Request:
    """What arrives, and what became of it."""

    row: int
    class_id: int
    arrival_s: float
    input: int
    cached: int
    output: int
    parent: int = -1
    think_s: float = 0.0
    first_s: float = math.nan
    last_s: float = math.nan
    instance: int = -1
    status: str = UNFINISHED


@dataclass(eq=False)
class Sequence:
    """A request that an instance has accepted."""

    request: Request
    generated: int = 0
    blocks: int = 0
    prompt: int = 0
    """Tokens to read before it can decode: the input, and after a preemption what it generated."""
    position: int = 0
    """How many tokens of the prompt are in the KV cache."""
    was_admitted: bool = False

    def context(self) -> int:
        return self.request.input + self.generated

    def rest(self) -> int:
        return self.prompt - self.position

    def reading(self) -> bool:
        return self.rest() > 0


@dataclass
class Step:
    """What is computed together."""

    decoding: list[Sequence] = field(default_factory=list)
    chunks: list[tuple[Sequence, int]] = field(default_factory=list)
    cached_brought_in: int = 0

    def tokens(self) -> int:
        return len(self.decoding) + sum(m for _, m in self.chunks)

    def seconds(self, pool: NaivePool) -> float:
        kv = sum(seq.context() for seq in self.decoding) + sum(seq.position + m for seq, m in self.chunks)
        pairs = sum(m * seq.position + m * (m + 1) // 2 for seq, m in self.chunks)
        base = pool.mixed_s[self.tokens()] if self.chunks else pool.decode_s[self.tokens()]
        sequences = len(self.decoding) + len(self.chunks)
        return (
            base
            + pool.per_seq_s * sequences
            + pool.kv_s * kv
            + pool.pair_s * pairs
            + pool.load_s * self.cached_brought_in
        )


@dataclass
class Instance:
    """A queue, a batch, KV blocks; it never sees another instance."""

    number: int
    pool_number: int
    pool: NaivePool
    waiting: list[Sequence] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)
    free_blocks: int = 0
    step: Step | None = None
    step_s: float = 0.0
    finished: list[Request] = field(default_factory=list)
    """Requests that the last step finished, in the order of the step."""
    # counters that a policy sees
    inflight: int = 0
    queued_tokens: int = 0
    context_tokens: int = 0
    # what comes out
    busy_s: float = 0.0
    steps: int = 0
    decode_tokens: int = 0
    prompt_tokens: int = 0
    kv_peak_blocks: int = 0
    preemptions: int = 0
    # for the checks only
    lost_tokens: int = 0
    finished_tokens: int = 0

    # -- arrival ---------------------------------------------------------------------------

    def accept(self, request: Request) -> bool:
        """Join the end of the queue; False: it could never finish here."""
        total = request.input + request.output
        if total - 1 > self.pool.capacity_tokens() or total > self.pool.max_context:
            return False
        self.waiting.append(Sequence(request))
        self.inflight += 1
        self.queued_tokens += request.input - request.cached
        self.context_tokens += request.input
        return True

    # -- one step --------------------------------------------------------------------------

    def start_step(self) -> bool:
        """Schedule a step; False: there is nothing to do."""
        assert self.step is None
        while True:
            step = Step()
            budget, preempted = self.schedule_running(step, self.pool.max_batched_tokens)
            if not preempted:
                self.admit_waiting(step, budget)
            if step.decoding or step.chunks:
                break
            assert not self.running
            if not preempted:
                return False
        self.step = step
        self.step_s = step.seconds(self.pool)
        self.kv_peak_blocks = max(self.kv_peak_blocks, self.pool.blocks - self.free_blocks)
        return True

    def schedule_running(self, step: Step, budget: int) -> tuple[int, bool]:
        """Phase 1: the budget that is left, and whether anything was preempted."""
        preempted = False
        place = 0
        while place < len(self.running):
            seq = self.running[place]
            if seq.reading():
                chunk = min(seq.rest(), budget)
                if chunk > 0:
                    step.chunks.append((seq, chunk))
                    budget -= chunk
            else:
                need = self.pool.blocks_for(seq.context())
                while seq.blocks < need and place < len(self.running):
                    if self.free_blocks > 0:
                        self.free_blocks -= 1
                        seq.blocks += 1
                    else:
                        self.preempt(self.running.pop())
                        preempted = True
                if place == len(self.running):  # it was the last itself
                    break
                assert budget > 0, "a decoding sequence always finds budget"
                step.decoding.append(seq)
                budget -= 1
            place += 1
        return budget, preempted

    def preempt(self, seq: Sequence) -> None:
        in_cache = seq.position if seq.reading() else seq.context() - 1
        self.lost_tokens += in_cache - seq.request.cached
        self.queued_tokens += seq.context() - seq.request.cached - seq.rest()
        self.free_blocks += seq.blocks
        seq.blocks = 0
        seq.prompt = seq.position = 0
        self.waiting.insert(0, seq)
        self.preemptions += 1

    def admit_waiting(self, step: Step, budget: int) -> None:
        """Phase 2: first in, first out; the first that cannot be admitted stops it."""
        while self.waiting and budget > 0 and len(self.running) < self.pool.max_num_seqs:
            seq = self.waiting[0]
            need = self.pool.blocks_for(seq.context())
            if need > self.free_blocks:
                break
            self.waiting.pop(0)
            self.running.append(seq)
            self.free_blocks -= need
            seq.blocks = need
            seq.prompt = seq.context()
            seq.position = seq.request.cached
            if not seq.was_admitted:
                seq.was_admitted = True
                step.cached_brought_in += seq.request.cached
            chunk = min(seq.rest(), budget)
            step.chunks.append((seq, chunk))
            budget -= chunk

    def end_step(self, now_s: float) -> None:
        step = self.step
        assert step is not None
        self.step = None
        self.finished = []
        self.steps += 1
        self.busy_s += self.step_s
        for seq in step.decoding:
            self.decode_tokens += 1
            self.yield_token(seq, now_s)
        for seq, chunk in step.chunks:
            self.prompt_tokens += chunk
            self.queued_tokens -= chunk
            seq.position += chunk
            if not seq.reading():
                self.yield_token(seq, now_s)

    def yield_token(self, seq: Sequence, now_s: float) -> None:
        request = seq.request
        seq.generated += 1
        if seq.generated == 1:
            request.first_s = now_s
        if seq.generated == request.output:
            request.last_s = now_s
            request.status = COMPLETED
            self.finished.append(request)
            self.free_blocks += seq.blocks
            seq.blocks = 0
            self.running.remove(seq)
            self.inflight -= 1
            self.context_tokens -= request.input
            self.finished_tokens += request.input + request.output - 1 - request.cached

    # -- checks ----------------------------------------------------------------------------

    def check(self) -> None:
        assert self.free_blocks >= 0
        assert self.free_blocks + sum(seq.blocks for seq in self.running) == self.pool.blocks
        assert all(seq.blocks == 0 for seq in self.waiting)
        assert len(self.running) <= self.pool.max_num_seqs
        assert self.inflight == len(self.waiting) + len(self.running)
        everyone = self.waiting + self.running
        assert self.context_tokens == sum(seq.request.input for seq in everyone)
        queued = sum(seq.context() - seq.request.cached for seq in self.waiting)
        assert self.queued_tokens == queued + sum(seq.rest() for seq in self.running)
        assert (self.step is not None) == bool(everyone), "idle only when there is nothing in flight"
        if self.step is not None:
            assert 1 <= self.step.tokens() <= self.pool.max_batched_tokens
            assert len(self.step.decoding) + len(self.step.chunks) == len(self.running)
            unfinished = [seq for seq, chunk in self.step.chunks if seq.rest() > chunk]
            assert all(seq is self.running[-1] for seq in unfinished), "only the last reads on after this step"

    def check_end(self) -> None:
        assert self.free_blocks == self.pool.blocks
        assert self.queued_tokens == self.context_tokens == self.inflight == 0
        assert self.decode_tokens + self.prompt_tokens - self.lost_tokens == self.finished_tokens


def simulate(
    requests: Requests,
    pools: list[NaivePool],
    policy: Policy,
    *,
    share: list[list[float]] | None = None,
    until_s: float = math.inf,
    typical_output_tokens: list[float] | None = None,
    promises: Promises | None = None,
    seed: int = 0,
) -> NaiveResult:
    """Run all requests. Without ``share`` every pool has an equal one; without ``typical_output_tokens`` it is 1."""
    classes = len(requests.class_names)
    if share is None:
        share = [[1.0 / len(pools)] * len(pools) for _ in range(classes)]
    if typical_output_tokens is None:
        typical_output_tokens = [1.0] * classes
    for pool in pools:
        assert 1 <= pool.max_num_seqs <= pool.max_batched_tokens
        assert len(pool.decode_s) == len(pool.mixed_s) == pool.max_batched_tokens + 1

    if promises is None:
        never, nothing = np.full(classes, math.inf), np.zeros(classes)
        promises = Promises(never, nothing, never, never, nothing, np.zeros(classes, dtype=np.bool_))
    lines = [pool.step_line() for pool in pools]
    instances: list[Instance] = []
    for number, pool in enumerate(pools):
        for _ in range(pool.instances):
            instances.append(Instance(len(instances), number, pool, free_blocks=pool.blocks))
    parents = [int(parent) for parent in requests.parent]
    table = [
        Request(
            row=row,
            class_id=int(requests.class_id[row]),
            arrival_s=math.inf if parents[row] >= 0 else float(requests.arrival_s[row]),
            input=int(requests.input_tokens[row]),
            cached=int(requests.cached_tokens[row]),
            output=int(requests.output_tokens[row]),
            parent=parents[row],
            think_s=float(requests.think_s[row]),
        )
        for row in range(len(requests))
    ]
    children: list[list[Request]] = [[] for _ in table]
    for request in table:
        assert request.parent < request.row, "a parent is an earlier row"
        if request.parent >= 0:
            children[request.parent].append(request)
    sent = [[0] * len(pools) for _ in range(classes)]

    def arrive(request: Request) -> None:
        eligible = [
            one.pool.serves_class(request.class_id)
            and request.input + 1 <= one.pool.capacity_tokens()
            and request.input + 1 <= one.pool.max_context
            for one in instances
        ]
        view = FleetView(
            pool=np.array([one.pool_number for one in instances], dtype=np.int64),
            eligible=np.array(eligible, dtype=np.bool_),
            inflight=np.array([one.inflight for one in instances], dtype=np.int64),
            waiting=np.array([len(one.waiting) for one in instances], dtype=np.int64),
            running=np.array([len(one.running) for one in instances], dtype=np.int64),
            queued_tokens=np.array([one.queued_tokens for one in instances], dtype=np.int64),
            context_tokens=np.array([one.context_tokens for one in instances], dtype=np.int64),
            max_num_seqs=np.array([one.pool.max_num_seqs for one in instances], dtype=np.int64),
            role=np.zeros(len(instances), dtype=np.int64),
            prefill_s_per_token=np.array([one.pool.prefill_s_per_token for one in instances], dtype=np.float64),
            step_s=np.array([one.pool.step_s for one in instances], dtype=np.float64),
            age_s=np.zeros(len(instances), dtype=np.float64),
            share=np.array(share, dtype=np.float64),
            sent=np.array(sent, dtype=np.int64),
            kv_capacity_tokens=np.array([one.pool.capacity_tokens() for one in instances], dtype=np.int64),
            step_base_s=np.array([lines[one.pool_number][0] for one in instances], dtype=np.float64),
            step_per_seq_s=np.array([lines[one.pool_number][1] for one in instances], dtype=np.float64),
            step_per_kv_s=np.array([one.pool.kv_s for one in instances], dtype=np.float64),
            usd_per_s=np.array([one.pool.usd_per_s for one in instances], dtype=np.float64),
            **promises._asdict(),
        )
        ask = Ask(
            number=request.row,
            class_id=request.class_id,
            model_id=int(requests.model_id[request.row]),
            session=int(requests.session[request.row]),
            now_s=request.arrival_s,
            input_tokens=request.input,
            cached_tokens=request.cached,
            typical_output_tokens=float(typical_output_tokens[request.class_id]),
            priority=int(requests.priority[request.row]),
            deadline_s=float(requests.deadline_s[request.row]),
            u=float(rng.u01(seed, 0, request.row)),
        )
        answer = policy(view, ask)
        request.status = REFUSED
        if answer < 0 or not any(eligible):
            return
        assert eligible[answer], "a policy must choose an eligible instance"
        chosen = instances[answer]
        sent[request.class_id][chosen.pool_number] += 1
        if chosen.accept(request):
            request.instance = chosen.number
            request.status = UNFINISHED

    events: list[tuple[float, int, int]] = [
        (request.arrival_s, ARRIVES, request.row) for request in table if request.parent < 0
    ]
    heapq.heapify(events)

    def release_children(parent: Request, now_s: float) -> None:
        """The parent has its last token, or has arrived and was refused, just now."""
        for child in children[parent.row]:
            assert child.arrival_s == math.inf, "a parent ends once"
            child.arrival_s = now_s + child.think_s
            heapq.heappush(events, (child.arrival_s, ARRIVES, child.row))

    clock = -math.inf
    while events and events[0][0] <= until_s:
        now_s = events[0][0]
        assert now_s >= clock, "the clock never goes back"
        clock = now_s
        touched: set[int] = set()
        while events and events[0][0] == now_s:
            _, kind, number = heapq.heappop(events)
            if kind == STEP_ENDS:
                instances[number].end_step(now_s)
                for request in instances[number].finished:
                    release_children(request, now_s)
                touched.add(number)
            else:
                arrive(table[number])
                if table[number].status == REFUSED:
                    release_children(table[number], now_s)
                touched.add(table[number].instance)
        for one in instances if now_s < until_s else ():
            if one.step is None and one.start_step():
                heapq.heappush(events, (now_s + one.step_s, STEP_ENDS, one.number))
                assert one.number in touched, "idle with work until now"
            if one.number in touched:
                one.check()
    if not events and clock < until_s:
        for one in instances:
            one.check_end()
        assert all(request.status != UNFINISHED for request in table)

    return NaiveResult(
        arrival_s=[request.arrival_s for request in table],
        first_s=[request.first_s for request in table],
        last_s=[request.last_s for request in table],
        instance=[request.instance for request in table],
        status=[request.status for request in table],
        busy_s=[one.busy_s for one in instances],
        steps=[one.steps for one in instances],
        decode_tokens=[one.decode_tokens for one in instances],
        prompt_tokens=[one.prompt_tokens for one in instances],
        kv_peak_blocks=[one.kv_peak_blocks for one in instances],
        preemptions=[one.preemptions for one in instances],
    )

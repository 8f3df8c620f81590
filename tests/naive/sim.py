"""The slow, obvious twin of the simulator: objects, step by step, a heap of events.

Reads like ``docs/design/simulator.md`` and shares nothing with ``infermix.sim``. It asserts its invariants while it
runs. This file holds the order of events and what the gateway does; an instance is in ``engine.py``, its KV blocks in
``cache.py``, which requests begin alike in ``paths.py``, the rules of the whole run in ``fleet_rules.py``.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from infermix import rng
from infermix.arrays import Ints
from infermix.route.view import Ask, FleetView, Promises
from infermix.workload.requests import Requests
from tests.naive.cache import Memory, Tier
from tests.naive.engine import Instance
from tests.naive.fleet_rules import DOWN, DRAINING, STARTING, UP, Autoscaler, Gateway, Life, NaiveRules
from tests.naive.paths import paths_of
from tests.naive.things import (
    BOTH,
    COMPLETED,
    DECODE,
    PREFILL,
    REFUSED,
    UNFINISHED,
    NaivePool,
    Request,
    Sequence,
)

__all__ = [
    "BOTH",
    "COMPLETED",
    "DECODE",
    "PREFILL",
    "REFUSED",
    "UNFINISHED",
    "NaivePool",
    "NaiveResult",
    "NaiveRules",
    "Policy",
    "simulate",
]

Policy = Callable[[FleetView, Ask], int]

STEP_ENDS, READING, FLEET_EVENT, HAS_STARTED, TICK, ROW = range(6)
"""The order of what happens at equal times; steps that start come last."""

COUNTERS = ("inflight", "waiting", "running", "queued_tokens", "context_tokens")


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
    admit_s: list[float] = field(default_factory=list)
    """From here on for each request again."""
    prefill_instance: list[int] = field(default_factory=list)
    hit_tokens: list[int] = field(default_factory=list)
    loaded_tokens: list[int] = field(default_factory=list)
    restarts: list[int] = field(default_factory=list)
    on_s: list[float] = field(default_factory=list)
    """For each instance."""
    gaps: dict[tuple[int, int], list[float]] = field(default_factory=dict)
    """Times between tokens, by pool and class."""


@dataclass
class HandOff:
    """A sequence whose prompt has been read, on its way to where it decodes."""

    sequence: Sequence
    source: Instance
    source_failures: int
    target: Instance | None = None
    target_failures: int = 0

    def source_is_there(self) -> bool:
        return self.source.failures == self.source_failures


@dataclass
class Simulation:
    """All requests, all instances, and the clock."""

    requests: Requests
    pools: list[NaivePool]
    policy: Policy
    share: list[list[float]]
    until_s: float
    typical: list[float]
    promises: Promises
    seed: int
    rules: NaiveRules
    instances: list[Instance] = field(default_factory=list)
    table: list[Request] = field(default_factory=list)
    children: list[list[Request]] = field(default_factory=list)
    sent: list[list[int]] = field(default_factory=list)
    events: list[tuple[float, int, int, int]] = field(default_factory=list)
    """Time, kind, number of what it is about, and for some the count that tells whether it still holds."""
    pending: dict[int, Callable[[Request, float], None]] = field(default_factory=dict)
    """What the event of a row is; a row has one at a time."""
    handoffs: dict[int, HandOff] = field(default_factory=dict)
    readings: int = 0
    reading_s: float = 0.0
    counters: dict[str, Ints] = field(default_factory=dict)
    """As they were at the last reading."""
    ended: int = 0
    """Requests that have been completed or refused."""
    end_s: float = 0.0
    """The last end of any of them."""

    def __post_init__(self) -> None:
        self.gateway = Gateway(self.rules)
        self.scalers = [Autoscaler() for _ in self.pools]
        self.lines = [pool.step_line() for pool in self.pools]
        self.sent = [[0] * len(self.pools) for _ in self.requests.class_names]
        for number, pool in enumerate(self.pools):
            pool.check()
            self.build_pool(number, pool)
        self.build_table()
        for request in self.table:
            if request.parent < 0:
                self.push_row(request, request.arrival_s, self.arrive)
        if self.rules.stale_s > 0:
            heapq.heappush(self.events, (0.0, READING, 0, 0))
        for number, (time_s, _, _) in enumerate(self.rules.events):
            heapq.heappush(self.events, (time_s, FLEET_EVENT, number, 0))
        for number, pool in enumerate(self.pools):
            if pool.autoscales():
                heapq.heappush(self.events, (pool.scale_every_s, TICK, number, 0))

    def build_pool(self, number: int, pool: NaivePool) -> None:
        remote = Tier(pool.remote_blocks, pool.retention_s)
        up = pool.instances if pool.instances_up is None else pool.instances_up
        for place in range(pool.instances):
            self.instances.append(
                Instance(
                    number=len(self.instances),
                    pool_number=number,
                    pool=pool,
                    memory=Memory(pool.blocks, pool.retention_s),
                    host=Tier(pool.host_blocks, pool.retention_s),
                    remote=remote,
                    life=Life(UP if place < up else DOWN),
                )
            )

    def build_table(self) -> None:
        requests = self.requests
        paths = paths_of(requests) if any(pool.prefix_cache for pool in self.pools) else None
        random = any(pool.accepted_variance > 0 for pool in self.pools)
        for row in range(len(requests)):
            parent = int(requests.parent[row])
            assert parent < row, "a parent is an earlier row"
            self.table.append(
                Request(
                    row=row,
                    class_id=int(requests.class_id[row]),
                    arrival_s=math.inf if parent >= 0 else float(requests.arrival_s[row]),
                    input=int(requests.input_tokens[row]),
                    cached=int(requests.cached_tokens[row]),
                    output=int(requests.output_tokens[row]),
                    parent=parent,
                    think_s=float(requests.think_s[row]),
                    priority=int(requests.priority[row]),
                    z=normal_number(self.seed, row) if random else 0.0,
                    path=paths[row] if paths is not None else None,
                )
            )
            self.children.append([])
            if parent >= 0:
                self.children[parent].append(self.table[row])

    # -- the clock -------------------------------------------------------------------------

    def run(self) -> None:
        clock = -math.inf
        while not self.all_ended() and self.events and self.events[0][0] <= self.until_s:
            now_s = self.events[0][0]
            assert now_s >= clock, "the clock never goes back"
            clock = now_s
            while self.events and self.events[0][0] == now_s:
                self.happen(heapq.heappop(self.events))
            if now_s < self.until_s:
                self.start_steps(now_s)
        if self.all_ended():
            for one in self.instances:
                one.check_end()
        else:
            assert math.isfinite(self.until_s)
            self.end_s = self.until_s

    def all_ended(self) -> bool:
        return self.ended == len(self.table)

    def happen(self, event: tuple[float, int, int, int]) -> None:
        now_s, kind, number, count = event
        if kind == STEP_ENDS:
            if self.instances[number].step is not None and self.instances[number].steps_begun == count:
                self.end_step(self.instances[number], now_s)
        elif kind == READING:
            self.read_counters(now_s)
        elif kind == FLEET_EVENT:
            _, instance, what = self.rules.events[number]
            {"fail": self.fail, "drain": self.drain, "start": self.start}[what](self.instances[instance], now_s)
        elif kind == HAS_STARTED:
            life = self.instances[number].life
            if life.state == STARTING and life.starts == count:
                life.change(UP, now_s)
        elif kind == TICK:
            self.scale(number, now_s)
        else:
            self.pending.pop(number)(self.table[number], now_s)

    def start_steps(self, now_s: float) -> None:
        for one in self.instances:
            if one.step is None and one.start_step(now_s):
                heapq.heappush(self.events, (now_s + one.step_s, STEP_ENDS, one.number, one.steps_begun))
            one.check()

    def end_step(self, one: Instance, now_s: float) -> None:
        one.end_step(now_s)
        for request in one.finished:
            self.has_ended(request, now_s)
        for seq in one.read:
            self.handoffs[seq.request.row] = HandOff(seq, one, one.failures)
            self.push_row(seq.request, now_s, self.hand_off)
        one.down_when_drained(now_s)

    def push_row(self, request: Request, time_s: float, what: Callable[[Request, float], None]) -> None:
        assert request.row not in self.pending, "one event of a row at a time"
        self.pending[request.row] = what
        heapq.heappush(self.events, (time_s, ROW, request.row, 0))

    def has_ended(self, parent: Request, now_s: float) -> None:
        """It has its last token, or was refused, just now: its children have their times."""
        self.ended += 1
        self.end_s = max(self.end_s, now_s)
        for child in self.children[parent.row]:
            assert child.arrival_s == math.inf, "a parent ends once"
            child.arrival_s = now_s + child.think_s
            self.push_row(child, child.arrival_s, self.arrive)

    # -- requests --------------------------------------------------------------------------

    def arrive(self, request: Request, now_s: float) -> None:
        """For the first time."""
        self.route(request, now_s, new=True)

    def arrive_anew(self, request: Request, now_s: float) -> None:
        """A failure has sent it back."""
        self.route(request, now_s, new=False)

    def route(self, request: Request, now_s: float, *, new: bool) -> None:
        eligible = [one.life.state == UP and self.may_begin(request, one.pool) for one in self.instances]
        chosen = self.choose(request, now_s, eligible, request.cached, new=new)
        if chosen is not None and chosen.accept(request):
            request.instance = chosen.number
        else:
            self.refuse(request, now_s)

    def may_begin(self, request: Request, pool: NaivePool) -> bool:
        """Whether a pool takes a request that has no KV anywhere."""
        decodes = any(other.role == DECODE and other.takes(request) for other in self.pools)
        return pool.takes(request) and (pool.role == BOTH or (pool.role == PREFILL and decodes))

    def hand_off(self, request: Request, now_s: float) -> None:
        """Its prompt has been read: who decodes it?"""
        handoff = self.handoffs[request.row]
        source = handoff.source
        request.instance, request.prefill_instance = -1, source.number
        eligible = [
            one.life.state == UP and one.pool.role == DECODE and one.pool.takes(request) for one in self.instances
        ]
        target = self.choose(request, now_s, eligible, request.input, new=False)
        if target is None or not target.expect(request):
            del self.handoffs[request.row]
            self.leave_source(handoff, now_s)
            self.refuse(request, now_s)
            return
        request.instance = target.number
        handoff.target, handoff.target_failures = target, target.failures
        token_s = max(source.pool.transfer_s_per_token, target.pool.transfer_s_per_token)
        latency_s = max(source.pool.transfer_latency_s, target.pool.transfer_latency_s)
        start_s = max(now_s, source.link_free_s, target.link_free_s)
        tokens = handoff.sequence.context() - 1
        source.link_free_s = target.link_free_s = start_s + latency_s + tokens * token_s
        self.push_row(request, source.link_free_s, self.deliver)

    def deliver(self, request: Request, now_s: float) -> None:
        """The transfer is over."""
        handoff = self.handoffs.pop(request.row)
        target, generated = handoff.target, handoff.sequence.generated
        assert target is not None
        self.leave_source(handoff, now_s)
        if target.failures == handoff.target_failures:
            assert target.life.state in (UP, DRAINING)
            target.receive(request, generated)
        else:
            self.send_back(request, generated, now_s)

    def leave_source(self, handoff: HandOff, now_s: float) -> None:
        if handoff.source_is_there():
            handoff.source.let_go(handoff.sequence, now_s)
            handoff.source.down_when_drained(now_s)

    def refuse(self, request: Request, now_s: float) -> None:
        request.status = REFUSED
        request.instance = -1
        self.has_ended(request, now_s)

    def send_back(self, request: Request, generated: int, now_s: float) -> None:
        request.begin_again(generated, self.rules.resume)
        self.push_row(request, now_s, self.arrive_anew)

    # -- the gateway -----------------------------------------------------------------------

    def choose(
        self, request: Request, now_s: float, eligible: list[bool], cached: int, *, new: bool
    ) -> Instance | None:
        """The instance that the policy names; None: refused."""
        view, ask = self.view(eligible, now_s), self.ask(request, now_s, cached)
        if new and any(eligible) and self.gateway.refuses(view, ask):
            return None
        answer = self.policy(view, ask)
        if answer < 0 or not any(eligible):
            return None
        assert eligible[answer], "a policy must choose an eligible instance"
        chosen = self.instances[answer]
        self.sent[request.class_id][chosen.pool_number] += 1
        return chosen

    def live_counters(self) -> dict[str, Ints]:
        rows = [
            (one.inflight(), one.waiting_count(), len(one.running), one.queued_tokens(), one.context_tokens())
            for one in self.instances
        ]
        return {name: np.array([row[k] for row in rows], dtype=np.int64) for k, name in enumerate(COUNTERS)}

    def read_counters(self, now_s: float) -> None:
        self.counters, self.reading_s = self.live_counters(), now_s
        self.readings += 1
        heapq.heappush(self.events, (self.readings * self.rules.stale_s, READING, 0, 0))

    def view(self, eligible: list[bool], now_s: float) -> FleetView:
        ones, stale = self.instances, self.rules.stale_s > 0
        seen = self.counters if stale else self.live_counters()
        return FleetView(
            pool=np.array([one.pool_number for one in ones], dtype=np.int64),
            eligible=np.array(eligible, dtype=np.bool_),
            inflight=seen["inflight"],
            waiting=seen["waiting"],
            running=seen["running"],
            queued_tokens=seen["queued_tokens"],
            context_tokens=seen["context_tokens"],
            max_num_seqs=np.array([one.pool.max_num_seqs for one in ones], dtype=np.int64),
            role=np.array([one.pool.role for one in ones], dtype=np.int64),
            prefill_s_per_token=np.array([one.pool.prefill_s_per_token for one in ones], dtype=np.float64),
            step_s=np.array([one.pool.step_s for one in ones], dtype=np.float64),
            age_s=np.full(len(ones), now_s - self.reading_s if stale else 0.0),
            share=np.array(self.share, dtype=np.float64),
            sent=np.array(self.sent, dtype=np.int64),
            kv_capacity_tokens=np.array([one.pool.capacity_tokens() for one in ones], dtype=np.int64),
            step_base_s=np.array([self.lines[one.pool_number][0] for one in ones], dtype=np.float64),
            step_per_seq_s=np.array([self.lines[one.pool_number][1] for one in ones], dtype=np.float64),
            step_per_kv_s=np.array([one.pool.kv_s for one in ones], dtype=np.float64),
            usd_per_s=np.array([one.pool.usd_per_s for one in ones], dtype=np.float64),
            **self.promises._asdict(),
        )

    def ask(self, request: Request, now_s: float, cached: int) -> Ask:
        row = request.row
        return Ask(
            number=row,
            class_id=request.class_id,
            model_id=int(self.requests.model_id[row]),
            session=int(self.requests.session[row]),
            now_s=now_s,
            input_tokens=request.input,
            cached_tokens=cached,
            typical_output_tokens=float(self.typical[request.class_id]),
            priority=request.priority,
            deadline_s=float(self.requests.deadline_s[row]),
            u=float(rng.u01(self.seed, 0, row)),
        )

    # -- instances that come and go ----------------------------------------------------------

    def fail(self, one: Instance, now_s: float) -> None:
        if one.life.state != DOWN:
            for seq in one.fail(now_s):
                self.send_back(seq.request, seq.generated, now_s)

    def drain(self, one: Instance, now_s: float) -> None:
        if one.life.state == UP:
            one.life.change(DRAINING, now_s)
            one.down_when_drained(now_s)

    def start(self, one: Instance, now_s: float) -> None:
        if one.life.state == DRAINING:
            one.life.change(UP, now_s)
        elif one.life.state == DOWN:
            one.life.change(STARTING, now_s)
            one.life.starts += 1
            heapq.heappush(self.events, (now_s + one.pool.start_s, HAS_STARTED, one.number, one.life.starts))

    def scale(self, pool_number: int, now_s: float) -> None:
        pool, scaler = self.pools[pool_number], self.scalers[pool_number]
        scaler.ticks += 1
        heapq.heappush(self.events, ((scaler.ticks + 1) * pool.scale_every_s, TICK, pool_number, 0))
        ones = [one for one in self.instances if one.pool_number == pool_number]
        inflight = sum(one.inflight() for one in ones if one.life.state != DOWN)
        wanted = min(max(math.ceil(inflight / pool.target_inflight), pool.least), pool.instances)
        there = sum(one.life.state in (UP, STARTING) for one in ones)
        scaler.too_many = scaler.too_many + 1 if there > wanted else 0
        if there < wanted:
            draining = [one for one in ones if one.life.state == DRAINING]
            down = [one for one in ones if one.life.state == DOWN]
            for one in [*draining, *down][: wanted - there]:
                self.start(one, now_s)
        elif scaler.too_many >= pool.scale_down_after and there > wanted:
            scaler.too_many = 0
            up = [one for one in ones if one.life.state == UP]
            for one in [*reversed(up)][: there - wanted]:
                self.drain(one, now_s)

    # -- what comes out --------------------------------------------------------------------

    def result(self) -> NaiveResult:
        gaps: dict[tuple[int, int], list[float]] = {}
        for one in self.instances:
            for class_id, times in one.gaps.items():
                gaps.setdefault((one.pool_number, class_id), []).extend(times)
        return NaiveResult(
            arrival_s=[request.arrival_s for request in self.table],
            first_s=[request.first_s for request in self.table],
            last_s=[request.last_s for request in self.table],
            instance=[request.instance for request in self.table],
            status=[request.status for request in self.table],
            busy_s=[one.busy_s for one in self.instances],
            steps=[one.steps for one in self.instances],
            decode_tokens=[one.decode_tokens for one in self.instances],
            prompt_tokens=[one.prompt_tokens for one in self.instances],
            kv_peak_blocks=[one.kv_peak_blocks for one in self.instances],
            preemptions=[one.preemptions for one in self.instances],
            admit_s=[request.admit_s for request in self.table],
            prefill_instance=[request.prefill_instance for request in self.table],
            hit_tokens=[request.hit_tokens for request in self.table],
            loaded_tokens=[request.loaded_tokens for request in self.table],
            restarts=[request.restarts for request in self.table],
            on_s=[one.life.total_s(self.end_s) for one in self.instances],
            gaps=gaps,
        )


def normal_number(seed: int, row: int) -> float:
    """The normal number of a request."""
    u1, u2 = float(rng.u01(seed, 1, row)), float(rng.u01(seed, 2, row))
    return math.sqrt(-2.0 * math.log(u1)) * math.cos(2.0 * math.pi * u2)


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
    rules: NaiveRules | None = None,
) -> NaiveResult:
    """Run all requests. Without ``share`` every pool has an equal one; without ``typical_output_tokens`` it is 1."""
    classes = len(requests.class_names)
    never, nothing = np.full(classes, math.inf), np.zeros(classes)
    simulation = Simulation(
        requests=requests,
        pools=pools,
        policy=policy,
        share=share if share is not None else [[1.0 / len(pools)] * len(pools) for _ in range(classes)],
        until_s=until_s,
        typical=typical_output_tokens if typical_output_tokens is not None else [1.0] * classes,
        promises=promises or Promises(never, nothing, never, never, nothing, np.zeros(classes, dtype=np.bool_)),
        seed=seed,
        rules=rules or NaiveRules(),
    )
    simulation.run()
    return simulation.result()

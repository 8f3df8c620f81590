"""One instance: a queue, a batch, KV blocks. It never sees another instance."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from tests.naive.cache import Key, Memory, Tier, unique_key
from tests.naive.fleet_rules import DOWN, DRAINING, UP, Life
from tests.naive.things import COMPLETED, PREFILL, NaivePool, Request, Sequence, Step, Stretch


@dataclass
class Instance:
    """A queue, a batch, KV blocks, a link; up or not."""

    number: int
    pool_number: int
    pool: NaivePool
    memory: Memory
    host: Tier
    remote: Tier
    """One for all instances of the pool."""
    life: Life
    waiting: list[Sequence] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)
    leaving: list[Sequence] = field(default_factory=list)
    """Their prompts are read; their blocks are taken until another instance has their KV."""
    coming: list[Request] = field(default_factory=list)
    """On their way from other instances."""
    link_free_s: float = -math.inf
    failures: int = 0
    step: Step | None = None
    step_s: float = 0.0
    steps_begun: int = 0
    finished: list[Request] = field(default_factory=list)
    """Requests that the last step finished, in the order of the step."""
    read: list[Sequence] = field(default_factory=list)
    """Sequences that the last step made leave."""
    # what comes out
    busy_s: float = 0.0
    steps: int = 0
    decode_tokens: int = 0
    prompt_tokens: int = 0
    kv_peak_blocks: int = 0
    preemptions: int = 0
    gaps: dict[int, list[float]] = field(default_factory=dict)
    """Times between tokens, by class."""
    # for the checks only
    computed_and_gone: int = 0
    """Tokens computed for sequences that are no longer in the batch."""

    # -- counters that a policy sees ---------------------------------------------------------

    def inflight(self) -> int:
        return len(self.waiting) + len(self.running) + len(self.coming)

    def waiting_count(self) -> int:
        return len(self.waiting) + len(self.coming)

    def queued_tokens(self) -> int:
        return sum(seq.queued for seq in self.waiting + self.running)

    def context_tokens(self) -> int:
        here = [seq.request for seq in self.waiting + self.running]
        return sum(request.input for request in here + self.coming)

    # -- arrival ---------------------------------------------------------------------------

    def accept(self, request: Request) -> bool:
        """Join the end of the queue; False: it could never finish here."""
        if not self.pool.can_finish(request):
            return False
        seq = Sequence(request, request.cached, request.kept)
        seq.queued = seq.context() - seq.cached
        if self.pool.prefix_cache:
            assert request.path is not None
            seq.keys = [("shared", node) for node in request.path.keys(self.pool.block_tokens)]
        self.join(seq)
        return True

    def join(self, seq: Sequence) -> None:
        """The end of the queue of its priority."""
        urgent = [other for other in self.waiting if other.request.priority >= seq.request.priority]
        self.waiting = [*urgent, seq, *self.waiting[len(urgent) :]]

    def join_first(self, seq: Sequence) -> None:
        """The front of the queue of its priority."""
        urgent = [other for other in self.waiting if other.request.priority > seq.request.priority]
        self.waiting = [*urgent, seq, *self.waiting[len(urgent) :]]

    def expect(self, request: Request) -> bool:
        """A request whose prompt has been read elsewhere is sent here; False: it could never finish here."""
        if not self.pool.can_finish(request):
            return False
        self.coming.append(request)
        return True

    def receive(self, request: Request, generated: int) -> None:
        """Its KV is here."""
        self.coming.remove(request)
        self.join(Sequence(request, cached=0, generated=generated, ready=True))

    # -- one step --------------------------------------------------------------------------

    def start_step(self, now_s: float) -> bool:
        """Schedule a step; False: there is nothing to do."""
        assert self.step is None
        while True:
            step = Step(now_s)
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
        self.steps_begun += 1
        self.kv_peak_blocks = max(self.kv_peak_blocks, self.pool.blocks - self.memory.free())
        return True

    def schedule_running(self, step: Step, budget: int) -> tuple[int, bool]:
        """Phase 1: the budget that is left, and whether anything was preempted."""
        preempted = False
        place = 0
        while place < len(self.running):
            seq = self.running[place]
            if seq.stretch is None:
                chunk = min(seq.rest(), budget)
                if chunk > 0:
                    step.chunks.append((seq, chunk))
                    budget -= chunk
                place += 1
                continue
            need, lost = seq.stretch.blocks_needed(), False
            while seq.held() < need and not lost:
                if self.memory.free() > 0:
                    self.memory.take(1)
                    seq.own += 1
                    continue
                preempted = True
                victim = self.least_urgent()
                lost = victim is seq
                if self.running.index(victim) < place:
                    place -= 1
                budget += step.without(victim)
                self.preempt(victim, step.start_s)
            if not lost:
                assert budget > 0, "a decoding sequence always finds budget"
                step.decoding.append(seq)
                budget -= 1
                place += 1
        return budget, preempted

    def least_urgent(self) -> Sequence:
        """The last of the running list among those with the lowest priority."""
        lowest = min(seq.request.priority for seq in self.running)
        return [seq for seq in self.running if seq.request.priority == lowest][-1]

    def preempt(self, seq: Sequence, now_s: float) -> None:
        self.running.remove(seq)
        self.preemptions += 1
        self.computed_and_gone += seq.in_cache() - seq.began_with
        self.release(seq, now_s, finished=False)
        seq.ready = False
        seq.stretch = None
        seq.queued = seq.context() - seq.cached
        seq.prompt = seq.position = 0
        self.join_first(seq)

    def admit_waiting(self, step: Step, budget: int) -> None:
        """Phase 2: the first that cannot be admitted stops it."""
        while self.waiting and budget > 0 and len(self.running) < self.pool.max_num_seqs:
            seq = self.waiting[0]
            admitted = self.admit_cached(seq, step) if self.pool.prefix_cache else self.admit_plain(seq, step)
            if not admitted:
                break
            if math.isnan(seq.request.admit_s):
                seq.request.admit_s = step.start_s
            self.waiting.pop(0)
            members = [sum(other.group == group for other in self.running) for group in range(self.pool.ranks)]
            seq.group = members.index(min(members))
            self.running.append(seq)
            seq.was_admitted = True
            if seq.ready:
                seq.stretch = Stretch.begin(self.pool, seq.request, seq.generated)
                seq.began_with = seq.in_cache()
                step.decoding.append(seq)
                budget -= 1
            else:
                seq.began_with = seq.position
                seq.queued = seq.rest()
                chunk = min(seq.rest(), budget)
                step.chunks.append((seq, chunk))
                budget -= chunk

    def admit_plain(self, seq: Sequence, step: Step) -> bool:
        """Without a prefix cache: what is cached is there already."""
        need = self.pool.blocks_for(seq.context())
        if need + self.pool.watermark_blocks > self.memory.free():
            return False
        self.memory.take(need)
        seq.own = need
        if not seq.ready:
            seq.prompt = seq.context()
            seq.position = seq.cached
            if not seq.was_admitted:
                step.brought_in.append((seq, seq.cached))
        return True

    def admit_cached(self, seq: Sequence, step: Step) -> bool:
        """With a prefix cache: what is found of the prompt here, or in a tier below."""
        now_s, prompt, keys = step.start_s, seq.context(), seq.prompt_keys(self.pool)
        here = self.memory.leading(keys, now_s)
        need = self.pool.blocks_for(prompt) - here
        newly_protected = sum(self.memory.fresh(key, now_s) and not self.memory.protected(key) for key in seq.keys)
        if need + self.pool.watermark_blocks > self.memory.free() - newly_protected:
            return False
        self.memory.forget(seq.keys, now_s)
        self.memory.claims[seq.request.row] = seq.keys
        self.memory.take(need)
        seq.own, seq.matched, seq.prompt = need, here, prompt
        found, cost_s = self.best_tier(keys, here, now_s)
        step.loading_s += cost_s
        hit = min(here * self.pool.block_tokens, prompt - 1)
        seq.position = min(found * self.pool.block_tokens, prompt - 1)
        seq.request.hit_tokens = hit
        seq.request.loaded_tokens = seq.position - hit
        step.brought_in.append((seq, seq.position))
        return True

    def best_tier(self, keys: list[Key], here: int, now_s: float) -> tuple[int, float]:
        """How many leading blocks the admission has with the best tier, and the cost of loading them [s]."""
        pool = self.pool
        best_net_s, best = math.inf, (here, 0.0)
        for tier, load_s, latency_s in (
            (self.host, pool.host_load_s, pool.host_latency_s),
            (self.remote, pool.remote_load_s, pool.remote_latency_s),
        ):
            there = tier.leading(keys, now_s)
            if there > here:
                tokens = (there - here) * pool.block_tokens
                cost_s = tokens * load_s + latency_s
                net_s = cost_s - tokens * pool.prefill_s_per_token
                if net_s < best_net_s:
                    best_net_s, best = net_s, (there, cost_s)
        return best if best_net_s <= 0 else (here, 0.0)

    # -- its end ---------------------------------------------------------------------------

    def end_step(self, now_s: float) -> None:
        step = self.step
        assert step is not None
        self.step = None
        self.finished, self.read = [], []
        self.steps += 1
        self.busy_s += self.step_s
        for seq in step.decoding:
            assert seq.stretch is not None
            before = seq.stretch.gained()
            seq.stretch.done += 1
            gain = seq.stretch.gained() - before
            self.decode_tokens += gain
            self.yield_tokens(seq, gain, now_s)
        for seq, chunk in step.chunks:
            self.prompt_tokens += chunk
            seq.queued -= chunk
            seq.position += chunk
            if seq.rest() == 0:
                self.end_prompt(seq)
                self.yield_tokens(seq, 1, now_s)

    def end_prompt(self, seq: Sequence) -> None:
        """Own blocks that hold shared full blocks of the prompt become cached ones."""
        if self.pool.prefix_cache:
            for key in seq.prompt_keys(self.pool)[seq.matched :]:
                self.memory.keep(key)
                seq.own -= 1
                seq.matched += 1

    def yield_tokens(self, seq: Sequence, count: int, now_s: float) -> None:
        request = seq.request
        if seq.generated == 0:
            request.first_s = now_s
        else:
            self.gaps.setdefault(request.class_id, []).append(now_s - request.token_s)
        request.token_s = now_s
        seq.generated += count
        if seq.generated == request.output:
            request.last_s = now_s
            request.status = COMPLETED
            self.finished.append(request)
            self.running.remove(seq)
            self.computed_and_gone += seq.context() - 1 - seq.began_with
            self.release(seq, now_s, finished=True)
        elif self.pool.role == PREFILL:
            self.read.append(seq)
            self.running.remove(seq)
            self.computed_and_gone += seq.context() - 1 - seq.began_with
            self.leaving.append(seq)
        elif seq.stretch is None:
            seq.stretch = Stretch.begin(self.pool, request, seq.generated)

    def let_go(self, seq: Sequence, now_s: float) -> None:
        """Its KV is elsewhere, or nobody wants it."""
        self.leaving.remove(seq)
        self.release(seq, now_s, finished=True)

    def release(self, seq: Sequence, now_s: float, *, finished: bool) -> None:
        """Give back its blocks; with a prefix cache keep those that are full."""
        if self.pool.prefix_cache:
            in_cache = seq.context() - 1 if finished else seq.in_cache()
            full = min(in_cache // self.pool.block_tokens, seq.held())
            shared = seq.keys[:full]
            for key in shared[seq.matched :]:
                self.memory.keep(key)
                seq.own -= 1
            unshared = [unique_key() for _ in range(full - len(shared))] if finished else []
            for key in unshared:
                self.memory.keep(key)
                seq.own -= 1
            del self.memory.claims[seq.request.row]
            self.memory.release([*unshared, *reversed(seq.keys)], now_s)
            if finished:
                copies = [*[unique_key() for _ in unshared], *reversed(shared)]
                self.host.put(copies, seq.keys, now_s)
                self.remote.put(copies, seq.keys, now_s)
        self.memory.give_back(seq.own)
        seq.own = seq.matched = 0

    # -- coming and going --------------------------------------------------------------------

    def fail(self, now_s: float) -> list[Sequence]:
        """All is lost; who was running, then who waited."""
        if self.step is not None:
            self.busy_s += now_s - self.step.start_s
            self.step = None
        self.computed_and_gone += sum(seq.in_cache() - seq.began_with for seq in self.running)
        everyone = self.running + self.waiting
        self.running, self.waiting, self.leaving, self.coming = [], [], [], []
        self.failures += 1
        self.go_down(now_s)
        return everyone

    def go_down(self, now_s: float) -> None:
        """Off: nothing is remembered."""
        self.memory.clear()
        self.host.clear()
        self.life.change(DOWN, now_s)

    def down_when_drained(self, now_s: float) -> None:
        if self.life.state == DRAINING and self.inflight() == 0 and not self.leaving:
            self.go_down(now_s)

    # -- checks ----------------------------------------------------------------------------

    def check(self) -> None:
        self.memory.check()
        everyone = self.waiting + self.running
        assert self.memory.taken == sum(seq.own for seq in self.running + self.leaving)
        assert set(self.memory.claims) <= {seq.request.row for seq in self.running + self.leaving}
        assert all(seq.own == seq.matched == 0 for seq in self.waiting)
        assert all(seq.queued == seq.context() - seq.cached for seq in self.waiting if not seq.ready)
        assert all(seq.queued == (0 if seq.stretch else seq.rest()) for seq in self.running)
        assert len(self.running) <= self.pool.max_num_seqs
        priorities = [seq.request.priority for seq in self.waiting]
        assert priorities == sorted(priorities, reverse=True)
        assert not everyone or self.life.state in (UP, DRAINING)
        if self.step is None:
            assert not self.running
            assert not self.waiting or self.leaving, "idle only with nothing in flight, or no block to be had"
        else:
            assert 1 <= self.step.tokens() <= self.pool.max_batched_tokens
            chunks = len(self.step.chunks)
            assert len(self.step.decoding) + chunks == len(self.running)
            unfinished = [seq for seq, chunk in self.step.chunks if seq.rest() > chunk]
            assert all(seq is self.running[-1] for seq in unfinished), "only the last reads on after this step"
        busy_with = sum(seq.in_cache() - seq.began_with for seq in self.running)
        assert self.decode_tokens + self.prompt_tokens == self.computed_and_gone + busy_with

    def check_end(self) -> None:
        self.check()
        assert self.inflight() == self.queued_tokens() == self.context_tokens() == 0
        assert self.memory.taken == 0
        assert self.memory.free() == self.pool.blocks

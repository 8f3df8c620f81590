"""The real fleet as the policy sees it: the only mutable state of a gateway's decisions.

Counters are the gateway's own, exact; what the backends' own metrics say is used for load that comes from elsewhere,
as long as it is fresh. Modelled speeds are corrected by the running ratio of measured to modelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from infermix import jit
from infermix.arrays import Floats, Ints
from infermix.rng import u01
from infermix.route.at_once import AT_ONCE, MANY
from infermix.route.registry import find_policy
from infermix.route.view import Ask, FleetView
from infermix.serve.breaker import Breaker
from infermix.serve.choose import Chooser, Estimate, choose, estimate, make_chooser
from infermix.serve.config import Backend, GatewayFile, Promise
from infermix.serve.learn import Lengths, Running
from infermix.serve.pools import instances_of
from infermix.serve.shared import Shared
from infermix.serve.signals import Signals
from infermix.sim.prepare import known_columns, make_promises
from infermix.sim.state import PoolSpec
from infermix.workload.classes import Slo, TrafficClass

CHARS_PER_TOKEN = 4.0
"""Until usages have told better."""
FRESH_PERIODS = 3.0
"""Metrics older than so many periods count no more."""
CORRECTED = ("step_s", "step_base_s", "step_per_seq_s", "step_per_kv_s")
LEAST_TOKENS_TIMED = 8


@dataclass(slots=True)
class Placed:
    """A request on an instance."""

    instance: int
    ask: Ask
    estimate: Estimate
    first_seen: bool = False


@dataclass(slots=True)
class Elsewhere:
    """Load of an instance that others sent, by its own metrics."""

    read_s: float = -np.inf
    inflight: int = 0
    """What is counted."""
    latest: int = 0
    kv_use: float = 0.0


class Live:
    """Counters, breakers and what was learnt, for all instances."""

    def __init__(self, file: GatewayFile, specs: list[PoolSpec]) -> None:
        self.file, self.specs = file, specs
        self.backends: list[Backend] = instances_of(file)
        self.classes = list(file.classes)
        n = len(self.backends)
        columns = known_columns(specs, _shares(file), _promises(file))
        columns["usd_per_s"] = _prices(self.backends, columns, file)
        self._modelled = {name: np.asarray(columns[name]).tolist() for name in (*CORRECTED, "prefill_s_per_token")}
        columns |= {name: np.zeros(n, dtype=np.int64) for name in _COUNTERS}
        view = FleetView(eligible=np.zeros(n, dtype=np.bool_), age_s=np.zeros(n), **columns)
        self._at_once = not jit.ENABLED and n >= MANY and file.gateway.policy in AT_ONCE
        self._in_lists = not jit.ENABLED and not self._at_once
        self.view = as_lists(view) if self._in_lists else view
        self.own = [0] * n
        """Requests in flight that this gateway sent."""
        self.elsewhere = [Elsewhere() for _ in range(n)]
        self.breakers = [Breaker(file.limits.breaker_failures, file.limits.breaker_s) for _ in range(n)]
        self.reading, self.writing = [Running(1.0) for _ in range(n)], [Running(1.0) for _ in range(n)]
        self.lengths = {name: Lengths(promise.typical_output_tokens) for name, promise in file.classes.items()}
        self.chars = {model: Running(CHARS_PER_TOKEN, 16.0) for model in file.models}
        self.number = 0
        self.chooser = self._chooser()
        self._bases: dict[tuple[str, int], Any] = {}
        self._room = [s.blocks * s.block_tokens for s in specs for _ in range(s.instances)]
        self._least_room = min(self._room)
        self._limited = [j for j, b in enumerate(self.backends) if b.max_inflight is not None]
        self._troubled: set[int] = set()
        """Instances whose breakers have to be asked."""
        self._outside: set[int] = set()
        """Instances with load from elsewhere."""
        self._luck: list[float] = []
        self._shared: Shared | None = None
        self._worker = 0
        self._queued, self._context = [0] * n, [0] * n
        self._others: Any = [[0] * n] * 3
        """What other workers have: [counter][instance]."""

    def _chooser(self) -> Chooser:
        listen = self.file.gateway
        policy = find_policy(listen.policy, f"{self.file.path}: gateway.policy", self.file.folder)
        if self._at_once:
            policy = AT_ONCE[listen.policy]
        elif not jit.ENABLED:
            policy = getattr(policy, "py_func", policy)
        example = Ask(0, 0, 0, -1, 0.0, 1, 0, 1.0, 0, np.inf, 0.5, -1)
        return make_chooser(policy, self.view, example, sticky=listen.sticky)

    def share(self, shared: Shared, worker: int) -> None:
        """Count what other workers have on the instances, too."""
        self._shared, self._worker = shared, worker

    def inherit(self, before: Live, names: dict[str, int]) -> None:
        """Take over what was learnt of classes, models and backends (name → place before) that are still there."""
        self.number = before.number
        self.lengths |= {name: before.lengths[name] for name in self.lengths if name in before.lengths}
        self.chars |= {name: before.chars[name] for name in self.chars if name in before.chars}
        for j, backend in enumerate(self.backends):
            i = names.get(backend.name)
            if i is not None and before.backends[i] == backend:
                self.reading[j], self.writing[j] = before.reading[i], before.writing[i]
                self.breakers[j] = before.breakers[i]
                self._correct(j)
                if self.breakers[j].restricts:
                    self._troubled.add(j)

    # What a request asks.

    def tokens_of(self, model: str, chars: int) -> int:
        """Tokens of a text of so many characters, by what usages have told."""
        return max(1, round(chars / self.chars[model].value))

    def ask(self, signals: Signals, now_s: float, input_tokens: int, cached_tokens: int, prefix: int) -> Ask:
        """What the policy is told of a request; promises of its own take the place of its class's."""
        number = self.number
        self.number += 1
        c = self.classes.index(signals.class_name)
        if signals.ttft_s is not None or signals.tpot_s is not None:
            c = self._own_promises(c, signals)
        return Ask(
            number, c, 0, signals.session, now_s, input_tokens, min(cached_tokens, input_tokens - 1),
            self.lengths[signals.class_name].mean, signals.priority, now_s + signals.deadline_in_s,
            self._u(number), prefix,
        )  # fmt: skip

    def _u(self, number: int) -> float:
        """The request's number drawn by lot, as the simulator draws it; drawn many at a time."""
        place = number % _DRAWN
        if place == 0 or not self._luck:
            first = number - place
            self._luck = u01(self.file.gateway.seed, 0, np.arange(first, first + _DRAWN)).tolist()
        return self._luck[place]

    def _own_promises(self, c: int, signals: Signals) -> int:
        """The class row after the last: a copy of the class's with other targets; returns its number."""
        view, own = self.view, len(self.classes)
        for name in ("slo_ttft_s", "slo_ttft_s_per_token", "slo_tpot_s", "slo_e2e_s", "delay_usd_per_s", "refuse_late"):
            column = getattr(view, name)
            column[own] = column[c]
        view.share[own], view.sent[own] = view.share[c], view.sent[c]
        if signals.ttft_s is not None:
            view.slo_ttft_s[own], view.slo_ttft_s_per_token[own] = signals.ttft_s, 0.0
        if signals.tpot_s is not None:
            view.slo_tpot_s[own] = signals.tpot_s
        return own

    # Decisions.

    def mark(self, model: str, signals: Signals, input_tokens: int, now_s: float) -> bool:
        """Set the mask of instances that may take a request; False if there is none."""
        c = self.classes.index(signals.class_name)
        base = self._bases.get((model, c))
        if base is None:
            served = [b.model == model and (not b.serves or self.classes[c] in b.serves) for b in self.backends]
            base = self._bases[model, c] = served if self._in_lists else np.array(served)
        eligible = self.view.eligible
        eligible[:] = base
        for j in self._troubled:
            if not self.breakers[j].may(now_s):
                eligible[j] = False
        for j in self._limited:
            if self.own[j] >= (self.backends[j].max_inflight or 0):
                eligible[j] = False
        if input_tokens + 1 > self._least_room:
            for j, room in enumerate(self._room):
                if input_tokens + 1 > room:
                    eligible[j] = False
        self._age(now_s)
        if self._shared is not None:
            self._see_others(self._shared)
        return self.anybody()

    def anybody(self) -> bool:
        """Whether any instance is marked."""
        eligible = self.view.eligible
        return any(eligible) if self._in_lists else bool(eligible.any())

    def _see_others(self, shared: Shared) -> None:
        """What the other workers have by now."""
        total = shared.total()
        others = total - shared.counters[self._worker]
        if not self._in_lists:
            self._others = others
            self._show_all(total)
        elif (rows := others.tolist()) != self._others:
            self._others = rows
            for j in range(len(self.backends)):
                self._show(j)

    def _show_all(self, total: Ints) -> None:
        """As ``_show`` for every instance at once; ``total`` [counter, instance] is of all workers, this one too."""
        view, (inflight, queued, context) = self.view, total
        for j in self._outside:
            inflight[j] += self.elsewhere[j].inflight
        waiting = np.maximum(inflight - view.max_num_seqs, 0)
        view.queued_tokens[:], view.context_tokens[:] = queued, context
        view.inflight[:], view.waiting[:], view.running[:] = inflight, waiting, inflight - waiting

    def went_well(self, instance: int) -> None:
        """It answered."""
        self.breakers[instance].good()
        self._troubled.discard(instance)

    def went_wrong(self, instance: int, now_s: float) -> None:
        """It failed."""
        self.breakers[instance].bad(now_s)
        self._troubled.add(instance)

    def was_given_up(self, instance: int) -> None:
        """The client left before it could answer."""
        self.breakers[instance].released()

    def leave_alone(self, instance: int, until_s: float) -> None:
        """It said that it is busy until then."""
        self.breakers[instance].leave_alone(until_s)
        self._troubled.add(instance)

    def mask(self, instance: int) -> None:
        """It was tried: the policy is asked again without it."""
        self.view.eligible[instance] = False

    def choose(self, ask: Ask, home: int) -> int:
        """The policy's choice among those that are marked, -1: nobody."""
        return choose(self.chooser, self.view, ask, home)

    def placed(self, instance: int, ask: Ask, home: int, class_name: str) -> Placed:
        """The instance takes the request: count it, and say what is expected."""
        if instance != home and self.chooser.sticky:
            ask = ask._replace(cached_tokens=0)
        expected = estimate(self.chooser, self.view, ask, instance)
        view = self.view
        view.sent[self.classes.index(class_name), view.pool[instance]] += 1
        self.breakers[instance].takes()
        self.own[instance] += 1
        self._queued[instance] += ask.input_tokens - ask.cached_tokens
        self._context[instance] += ask.input_tokens
        self._count(instance)
        return Placed(instance, ask, expected)

    def _count(self, j: int) -> None:
        """Bring the counters of an instance up to date, for the policy and for the other workers."""
        if self._shared is not None:
            self._shared.write(self._worker, j, self.own[j], self._queued[j], self._context[j])
        self._show(j)

    def _show(self, j: int) -> None:
        """What the policy sees of an instance's load."""
        view, others = self.view, self._others
        inflight = self.own[j] + others[0][j] + self.elsewhere[j].inflight
        view.queued_tokens[j] = self._queued[j] + others[1][j]
        view.context_tokens[j] = self._context[j] + others[2][j]
        waiting = max(0, inflight - int(view.max_num_seqs[j]))
        view.inflight[j], view.waiting[j], view.running[j] = inflight, waiting, inflight - waiting

    def first(self, placed: Placed) -> None:
        """Its prompt has been read: the first token is there."""
        if not placed.first_seen:
            placed.first_seen = True
            self._queued[placed.instance] -= placed.ask.input_tokens - placed.ask.cached_tokens
            self._count(placed.instance)

    def left(self, placed: Placed) -> None:
        """It is not there any more, whatever became of it."""
        self.first(placed)
        j = placed.instance
        self.own[j] -= 1
        self._context[j] -= placed.ask.input_tokens
        self._count(j)

    # What is learnt.

    def learn_lengths(self, class_name: str, model: str, chars: int, input_tokens: int, output_tokens: int) -> None:
        """What a usage tells of the class's answers and of the model's tokens."""
        self.lengths[class_name].add(output_tokens)
        if chars >= 64 and input_tokens > 0:
            self.chars[model].add(chars / input_tokens)

    def learn_speed(self, placed: Placed, ttft_s: float, tpot_s: float, output_tokens: int) -> None:
        """How fast the instance was, beside what was expected of it as corrected so far."""
        j, expected = placed.instance, placed.estimate
        if expected.ttft_s > 0.0 and ttft_s > 0.0:
            self.reading[j].add(self.reading[j].value * ttft_s / expected.ttft_s)
        if expected.tpot_s > 0.0 and tpot_s > 0.0 and output_tokens >= LEAST_TOKENS_TIMED:
            self.writing[j].add(self.writing[j].value * tpot_s / expected.tpot_s)
        self._correct(j)

    def _correct(self, j: int) -> None:
        """The view shows modelled speeds times what was measured over modelled."""
        self.view.prefill_s_per_token[j] = self._modelled["prefill_s_per_token"][j] * self.reading[j].value
        for name in CORRECTED:
            getattr(self.view, name)[j] = self._modelled[name][j] * self.writing[j].value

    def scraped(self, j: int, running: int, waiting: int, kv_use: float, now_s: float) -> None:
        """What an instance says itself: what it has more than this gateway sent comes from elsewhere.

        Requests end while the metrics travel, so that only what two readings in a row show is believed.
        """
        seen = self.elsewhere[j]
        more = max(0, running + waiting - self.own[j] - int(self._others[0][j]))
        seen.inflight, seen.latest = min(more, seen.latest), more
        seen.read_s, seen.kv_use = now_s, kv_use
        if seen.inflight:
            self._outside.add(j)
        self._count(j)

    def _age(self, now_s: float) -> None:
        """Forget metrics that are old; counters are then the gateway's own alone."""
        if not self._outside:
            return
        fresh_s = FRESH_PERIODS * self.file.gateway.scrape_s
        for j in list(self._outside):
            seen = self.elsewhere[j]
            if now_s - seen.read_s > fresh_s:
                seen.inflight = seen.latest = 0
                self._count(j)
            self.view.age_s[j] = now_s - seen.read_s if seen.inflight else 0.0
            if not seen.inflight:
                self._outside.discard(j)

    def room(self, instance: int) -> int:
        """KV tokens that an instance holds."""
        return self._room[instance]

    def fullness(self) -> float:
        """Requests in flight over places in batches, of the instances that are marked."""
        view = self.view
        marked = np.asarray(view.eligible)
        seats, taken = (int(np.asarray(column)[marked].sum()) for column in (view.max_num_seqs, view.inflight))
        return taken / seats if seats else 1.0


_DRAWN = 256
_COUNTERS = ("inflight", "waiting", "running", "queued_tokens", "context_tokens")


def as_lists(view: FleetView) -> FleetView:
    """The same view with lists, which plain Python reads several times as fast as arrays."""
    return view._replace(**{
        name: column.tolist() for name, column in view._asdict().items() if column.ndim == 1
    })  # fmt: skip


def _shares(file: GatewayFile) -> Floats:
    """[class, pool] shares of the plan, and a row for requests with promises of their own."""
    rows = []
    for name in file.classes:
        row = []
        for pool in file.pools:
            backend = next(b for b in file.backends if b.pool_name == pool)
            serves = backend.serves.get(name, 0.0) if backend.serves else 1.0
            row.append(serves if backend.model == file.classes[name].model else 0.0)
        rows.append(row)
    return np.array([*rows, [0.0] * len(file.pools)])


def _promises(file: GatewayFile) -> Any:
    """Promises of the classes, and a row for requests with promises of their own."""
    classes = {name: _traffic(promise) for name, promise in file.classes.items()}
    return make_promises((*classes, ""), classes)


def _traffic(promise: Promise) -> TrafficClass:
    """The class as the simulator has it, without its traffic."""
    return TrafficClass(
        slo=Slo(
            ttft_s=promise.ttft_s,
            ttft_s_per_1k_uncached=promise.ttft_s_per_1k_uncached,
            tpot_s=promise.tpot_s,
            e2e_s=promise.e2e_s,
            attainment=promise.attainment,
        ),
        value_of_time_usd_per_hour=promise.value_of_time_usd_per_hour,
        refuse_late=promise.refuse_late,
        priority=promise.priority,
    )


def _prices(backends: list[Backend], columns: dict[str, Any], file: GatewayFile) -> Floats:
    """USD a second: the instance's own price, or that at which a typical request costs what its tokens cost."""
    prices = np.array(columns["usd_per_s"], dtype=np.float64)
    mean_in = sum(c.typical_input_tokens for c in file.classes.values()) / len(file.classes)
    mean_out = sum(c.typical_output_tokens for c in file.classes.values()) / len(file.classes)
    for j, backend in enumerate(backends):
        if backend.usd_per_hour is None and backend.usd_per_mtok_output is not None:
            usd = (mean_in * (backend.usd_per_mtok_input or 0.0) + mean_out * backend.usd_per_mtok_output) * 1e-6
            reading_s = mean_in * columns["prefill_s_per_token"][j]
            prices[j] = usd / (reading_s + mean_out * columns["step_s"][j] / columns["max_num_seqs"][j])
    return prices

"""Random small cases: pools, requests and plans in which no two events fall together by chance."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, TypeAlias

from hypothesis import strategies as st

from infermix.route.view import Ask, FleetView
from infermix.workload.requests import Requests, make_requests
from tests.naive.policies import least_wait, pool_split, round_robin
from tests.naive.sim import NaivePool, NaiveResult, Policy

Engine: TypeAlias = Callable[..., NaiveResult]


def by_all_counters(view: FleetView, ask: Ask) -> int:
    """A policy that leans on every number it is shown: one wrong counter sends requests elsewhere.

    Plain loops and numbers only, so that it can also be compiled.
    """
    best, best_score = -1, -1.0
    for j in range(len(view.pool)):
        if not view.eligible[j]:
            continue
        mixed = 1 + 3 * view.inflight[j] + 5 * view.waiting[j] + 11 * view.running[j] + 17 * view.queued_tokens[j]
        mixed += 23 * view.context_tokens[j] + 31 * view.max_num_seqs[j] + 41 * j + 43 * view.role[j]
        mixed += 47 * ask.number + 53 * ask.class_id + 59 * ask.model_id + 61 * ask.session + 67 * ask.priority
        mixed += 71 * ask.input_tokens + 73 * ask.cached_tokens
        for pool in range(view.share.shape[1]):
            mixed += (79 + 2 * pool) * view.sent[ask.class_id, pool]
        score = (mixed * 7919) % 1009 + ask.u + view.age_s[j]
        score += 100.0 * view.prefill_s_per_token[j] + 10.0 * view.step_s[j] + ask.typical_output_tokens
        score += view.share[ask.class_id, view.pool[j]]
        if score > best_score:
            best, best_score = j, score
    return best


POLICIES: list[Policy] = [round_robin, least_wait, pool_split]


@dataclass(frozen=True)
class Case:
    """Everything that one simulation takes, but for the policy."""

    requests: Requests
    pools: list[NaivePool]
    share: list[list[float]]
    typical: list[float]

    def run(self, engine: Engine, policy: Policy, *, until_s: float = math.inf, seed: int = 0) -> NaiveResult:
        return engine(
            self.requests,
            self.pools,
            policy,
            share=self.share,
            until_s=until_s,
            typical_output_tokens=self.typical,
            seed=seed,
        )

    def pool_of(self, instance: int) -> NaivePool:
        owners = [pool for pool in self.pools for _ in range(pool.instances)]
        return owners[instance]

    def instances(self) -> int:
        return sum(pool.instances for pool in self.pools)

    def rows_of(self, run: NaiveResult, instance: int) -> list[int]:
        return [row for row, where in enumerate(run.instance) if where == instance]


def with_columns(requests: Requests, **columns: Any) -> Requests:
    """The same requests with some columns replaced."""
    kept: dict[str, Any] = {
        "arrival_s": requests.arrival_s,
        "input_tokens": requests.input_tokens,
        "output_tokens": requests.output_tokens,
        "cached_tokens": requests.cached_tokens,
        "class_id": requests.class_id,
        "session": requests.session,
        "parent": requests.parent,
        "think_s": requests.think_s,
    }
    kept.update(columns)
    return make_requests(requests.class_names, **kept)


OPEN: dict[str, Any] = {"session": -1, "parent": -1, "think_s": 0.0}
"""Columns of requests that come at the times of the table."""


def scaled(pool: NaivePool, factor: float) -> NaivePool:
    """The pool with every time multiplied."""
    return replace(
        pool,
        decode_s=[factor * t for t in pool.decode_s],
        mixed_s=[factor * t for t in pool.mixed_s],
        per_seq_s=factor * pool.per_seq_s,
        kv_s=factor * pool.kv_s,
        pair_s=factor * pool.pair_s,
        load_s=factor * pool.load_s,
        prefill_s_per_token=factor * pool.prefill_s_per_token,
        step_s=factor * pool.step_s,
    )


def random_table(luck: Random, tokens: int) -> tuple[list[float], list[float]]:
    """Step durations that increase with the tokens; a mixed step is never shorter than a decode step."""
    decode, mixed = [], []
    d, extra = luck.uniform(0.005, 0.02), luck.choice([0.0, luck.uniform(0.0, 0.01)])
    for _ in range(tokens + 1):
        decode.append(d)
        mixed.append(d + extra)
        d += luck.uniform(1e-5, 1e-3)
        extra += luck.uniform(0.0, 2e-4)
    return decode, mixed


@st.composite
def cases(draw: st.DrawFn, *, ample_kv: bool = False, serve_all: bool = False) -> Case:
    """1 to 3 pools of 1 to 3 instances, up to 40 requests of 1 to 3 classes.

    KV memory is a little more than the longest request needs (sometimes less: refusals), so full
    batches run out of it; ``ample_kv`` gives every instance room for all requests at once.
    """
    luck = Random(draw(st.integers(0, 2**32 - 1)))
    classes = draw(st.integers(1, 3))
    count = draw(st.one_of(st.integers(1, 40), st.integers(25, 40)))
    longest = draw(st.sampled_from([30, 12, 60]))
    outputs = draw(st.sampled_from([24, 8, 40, 1]))
    inputs = [luck.randint(1, longest) for _ in range(count)]
    cached = [luck.choice([0, luck.randrange(tokens)]) for tokens in inputs]
    output = [luck.randint(1, outputs) for _ in range(count)]
    class_id = [luck.randrange(classes) for _ in range(count)]
    mean_gap = draw(st.sampled_from([0.002, 0.01, 0.1]))
    now, arrival = 0.0, []
    for _ in range(count):
        now += luck.expovariate(1.0 / mean_gap)
        arrival.append(now)
    requests = make_requests(
        tuple(f"class{k}" for k in range(classes)),
        arrival,
        inputs,
        output,
        cached_tokens=cached,
        class_id=class_id,
    )

    pools = []
    for _ in range(draw(st.integers(1, 3))):
        seats = draw(st.integers(1, 6))
        budget = seats + draw(st.sampled_from([0, 3, 10, 40]))
        block = draw(st.sampled_from([1, 2, 4, 8, 16]))
        need = -(-(longest + outputs) // block)
        blocks = need * 64 if ample_kv else max(1, need + draw(st.sampled_from([-1, 0, 0, 1, 2])) * max(1, need // 4))
        if not ample_kv and draw(st.integers(0, 5)) == 0:
            blocks = max(1, need // 2)
        decode, mixed = random_table(luck, budget)
        some = {k for k in range(classes) if luck.random() < 0.7}
        pools.append(
            NaivePool(
                instances=draw(st.integers(1, 3)),
                decode_s=decode,
                mixed_s=mixed,
                per_seq_s=luck.choice([0.0, luck.uniform(1e-5, 1e-3)]),
                kv_s=luck.choice([0.0, luck.uniform(1e-6, 1e-4)]),
                pair_s=luck.choice([0.0, luck.uniform(1e-7, 1e-5)]),
                load_s=luck.choice([0.0, luck.uniform(1e-6, 1e-4)]),
                block_tokens=block,
                blocks=blocks,
                max_num_seqs=seats,
                max_batched_tokens=budget,
                serves=None if serve_all or draw(st.booleans()) else some,
                prefill_s_per_token=luck.uniform(1e-4, 1e-3),
                step_s=luck.uniform(0.01, 0.03),
                max_context=10**9 if ample_kv else draw(st.sampled_from([10**9, longest + outputs, max(2, longest)])),
            )
        )
    share = [[luck.choice([0.0, luck.random(), luck.random()]) for _ in pools] for _ in range(classes)]
    typical = [luck.uniform(1.0, outputs + 1.0) for _ in range(classes)]
    return Case(requests, pools, share, typical)


@st.composite
def closed_cases(draw: st.DrawFn, *, chains: bool = False, max_sessions: int = 6) -> Case:
    """A case in which most requests have a parent: chains and forks among open arrivals; no pause, some, or equal ones.

    ``chains``: only sessions that wait for their last answer before they ask again, and nothing else.
    """
    case = draw(cases())
    luck = Random(draw(st.integers(0, 2**32 - 1)))
    sessions = draw(st.integers(1, max_sessions))
    open_part = 0.0 if chains else draw(st.sampled_from([0.0, 0.1, 0.5]))
    fork_part = 0.0 if chains else draw(st.sampled_from([0.0, 0.2, 0.8]))
    no_pause = draw(st.sampled_from([0.2, 0.0, 0.6, 1.0]))
    mean_s = draw(st.sampled_from([0.02, 0.001, 0.3]))
    rows: list[list[int]] = [[] for _ in range(sessions)]
    session, parent, think_s = [], [], []
    for row in range(len(case.requests)):
        mine = luck.randrange(sessions)
        if luck.random() < open_part:
            session.append(luck.choice([-1, sessions + row]))
            parent.append(-1)
        else:
            session.append(mine)
            parent.append(
                -1 if not rows[mine] else luck.choice(rows[mine]) if luck.random() < fork_part else rows[mine][-1]
            )
            rows[mine].append(row)
        think_s.append(0.0 if luck.random() < no_pause else luck.choice([mean_s, luck.expovariate(1.0 / mean_s)]))
    requests = with_columns(case.requests, session=session, parent=parent, think_s=think_s)
    return Case(requests, case.pools, case.share, case.typical)


def policies() -> st.SearchStrategy[Policy]:
    """One of the three policies that both engines have."""
    return st.sampled_from(POLICIES)

"""Random small cases in which named features of engines and fleets are switched on, each so that it matters.

Little KV memory, several sessions over few instances, beginnings that are shared; no two events fall together by
chance. A case is a function of a number and of the set of features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from infermix.workload.requests import Requests, make_requests
from tests.laws.engines import naive_engine
from tests.laws.strategies import Case, Engine, random_table
from tests.naive.policies import least_wait
from tests.naive.sim import BOTH, DECODE, PREFILL, NaivePool, NaiveResult, NaiveRules, Policy

FEATURES = (
    "priority",
    "sessions",
    "ids",
    "tiers",
    "retention",
    "apart",
    "speculation",
    "ranks",
    "failures",
    "resume",
    "scaling",
    "admission",
    "stale",
    "closed",
)
PAIRS = list(combinations(FEATURES, 2))
CACHING = {"sessions", "ids", "tiers", "retention"}
"""Any of these switches the prefix cache on."""


@dataclass(frozen=True)
class FeatureCase(Case):
    """Everything that one simulation takes, but for the policy."""

    rules: NaiveRules = field(default_factory=NaiveRules)

    def run(self, engine: Engine, policy: Policy, *, until_s: float = math.inf, seed: int = 0) -> NaiveResult:
        return engine(
            self.requests,
            self.pools,
            policy,
            share=self.share,
            until_s=until_s,
            typical_output_tokens=self.typical,
            seed=seed,
            rules=self.rules,
        )


@dataclass
class Rows:
    """Columns of a table as they are drawn."""

    input_tokens: list[int] = field(default_factory=list)
    output_tokens: list[int] = field(default_factory=list)
    cached_tokens: list[int] = field(default_factory=list)
    class_id: list[int] = field(default_factory=list)
    session: list[int] = field(default_factory=list)
    parent: list[int] = field(default_factory=list)

    def add(self, prompt: int, output: int, cached: int, class_id: int, session: int, parent: int) -> None:
        self.input_tokens.append(prompt)
        self.output_tokens.append(output)
        self.cached_tokens.append(cached)
        self.class_id.append(class_id)
        self.session.append(session)
        self.parent.append(parent)

    def path(self, row: int) -> int:
        return self.input_tokens[row] + self.output_tokens[row] - 1


def feature_cases(features: frozenset[str]) -> st.SearchStrategy[FeatureCase]:
    """Cases with these features."""
    return st.integers(0, 2**32 - 1).map(lambda number: random_case(number, features))


def random_case(number: int, features: frozenset[str]) -> FeatureCase:
    """The case of that number."""
    luck = Random(number)
    requests = random_requests(luck, features)
    longest = int((requests.input_tokens + requests.output_tokens).max())
    pools = random_pools(luck, features, longest, len(requests.class_names))
    classes = len(requests.class_names)
    share = [[luck.choice([0.0, luck.random(), luck.random()]) for _ in pools] for _ in range(classes)]
    case = FeatureCase(requests, pools, share, [luck.uniform(1.0, 15.0) for _ in range(classes)])
    if features & {"failures", "resume", "scaling", "admission", "stale"}:
        undisturbed = case.run(naive_engine, least_wait)
        end_s = max([t for t in undisturbed.last_s if t == t], default=1.0)
        case = with_rules(luck, case, features, end_s)
    return case


# -- requests -----------------------------------------------------------------------------------


def random_requests(luck: Random, features: frozenset[str]) -> Requests:
    """Up to 40 of 1 to 3 classes, so close to each other that instances are busy."""
    classes = luck.randint(1, 3)
    count = luck.choice([luck.randint(2, 12), luck.randint(15, 40)])
    rows = session_rows(luck, count, classes) if talks(luck, features) else plain_rows(luck, count, classes, features)
    mean_gap_s = luck.choice([0.001, 0.005, 0.03])
    arrival = np.cumsum([luck.expovariate(1.0 / mean_gap_s) for _ in range(count)])
    mean_think_s = luck.choice([0.0, 0.02, 0.3])
    think = [luck.choice([0.0, luck.expovariate(1.0)]) * mean_think_s for _ in range(count)]
    names = tuple(f"class{k}" for k in range(classes))
    documents = random_ids(luck, rows) if "ids" in features else {}
    no_two_alike(rows)
    columns: dict[str, Any] = dict(vars(rows))
    requests = make_requests(names, arrival, columns.pop("input_tokens"), columns.pop("output_tokens"), **columns)
    if "priority" in features:
        urgency = luck.choice([[0, 1], [-1, 0, 0, 0, 5], [0, 1, 2, 3]])
        documents["priority"] = np.array([luck.choice(urgency) for _ in range(count)], dtype=np.int8)
    return replace(requests, think_s=np.array(think, dtype=np.float32), **documents)


def no_two_alike(rows: Rows) -> None:
    """Prompts of different lengths: those that come together to two equal instances do not keep step."""
    taken: set[int] = set()
    for row, prompt in enumerate(rows.input_tokens):
        rows.input_tokens[row] = next(
            length for length in range(prompt, prompt + len(taken) + 1) if length not in taken
        )
        taken.add(rows.input_tokens[row])


def talks(luck: Random, features: frozenset[str]) -> bool:
    """Whether beginnings are shared by sessions and classes."""
    return "sessions" in features or ("ids" not in features and bool(features & CACHING))


def plain_rows(luck: Random, count: int, classes: int, features: frozenset[str]) -> Rows:
    """Requests that come on their own; with ``closed`` most follow others."""
    rows = Rows()
    longest, outputs = luck.choice([12, 30, 60]), luck.choice([2, 8, 24, 40])
    of_session: list[list[int]] = [[] for _ in range(luck.randint(1, 6))]
    alone = luck.choice([0.0, 0.2])
    for row in range(count):
        prompt = luck.randint(1, longest)
        cached = luck.choice([0, luck.randrange(prompt)])
        session, parent = -1, -1
        if "closed" in features and luck.random() >= alone:
            session = luck.randrange(len(of_session))
            earlier = of_session[session]
            parent = -1 if not earlier else luck.choice([earlier[-1], luck.choice(earlier)])
            earlier.append(row)
        rows.add(prompt, luck.randint(1, outputs), cached, luck.randrange(classes), session, parent)
    return rows


def session_rows(luck: Random, count: int, classes: int) -> Rows:
    """Turns of a few sessions, which share all or a part of what came before; forks; turns that do not say whose child
    they are; and requests without a session that begin as their class does."""
    rows = Rows()
    of_session: list[list[int]] = [[] for _ in range(luck.randint(1, 5))]
    outputs, longest = luck.choice([3, 10, 30]), luck.choice([40, 90])
    forks, alone, unlinked = luck.choice([0.0, 0.3]), luck.choice([0.0, 0.2, 1.0]), luck.choice([0.0, 0.2, 1.0])
    common = luck.choice([0, 7, 16, 25])
    for row in range(count):
        output, session = luck.randint(1, outputs), luck.randrange(len(of_session))
        if luck.random() < alone:
            cached = luck.choice([0, common, luck.randint(0, common)])
            rows.add(cached + luck.randint(1, 15), output, cached, luck.randrange(classes), -1, -1)
            continue
        if of_session[session] and rows.path(of_session[session][-1]) >= longest:
            of_session.append([])
            session = len(of_session) - 1
        earlier = of_session[session]
        parent, before = -1, earlier[-1] if earlier else -1
        if luck.random() < unlinked:
            elsewhere = luck.randrange(row) if row else -1
            if luck.random() < 0.2 and elsewhere not in earlier:
                parent = elsewhere
        elif earlier:
            parent = before = luck.choice(earlier) if luck.random() < forks else before
        path = rows.path(before) if before >= 0 else luck.choice([0, common])
        cached = luck.choice([path, path, luck.randint(0, path), path - path % 4])
        class_id = rows.class_id[before] if before >= 0 else luck.randrange(classes)
        rows.add(cached + luck.randint(1, 15), output, cached, class_id, session, parent)
        earlier.append(row)
    return rows


def random_ids(luck: Random, rows: Rows) -> dict[str, Any]:
    """Documents of which prompts begin with a part, then go on by themselves; some ids of blocks that are not whole.

    A prompt takes the length that its ids need, and some more.
    """
    size = luck.choice([1, 3, 4, 5, 8])
    most = max(1, 60 // size)
    documents = [[luck.randrange(4) for _ in range(most)] for _ in range(luck.randint(1, 4))]
    starts, ids = [0], list[int]()
    for row in range(len(rows.input_tokens)):
        mine = luck.choice(documents)[: luck.randint(0, most)]
        mine = mine + [luck.randrange(10**6) for _ in range(luck.choice([0, 1]))]
        if luck.random() < 0.3:
            mine = mine[: luck.randint(0, 2)]
        prompt = len(mine) * size + luck.choice([0, luck.randint(0, size)])
        rows.input_tokens[row] = max(prompt, 1)
        rows.cached_tokens[row] = min(rows.cached_tokens[row], rows.input_tokens[row] - 1)
        extra = [7] if luck.random() < 0.2 else []
        ids += mine + extra
        starts.append(len(ids))
    return {
        "block_start": (np.array(starts, dtype=np.int64),),
        "block_ids": (np.array(ids, dtype=np.int64),),
        "block_id_tokens": size,
    }


# -- pools --------------------------------------------------------------------------------------


def random_pools(luck: Random, features: frozenset[str], longest: int, classes: int) -> list[NaivePool]:
    """One to three; prefill and decode apart need two at least."""
    if "apart" not in features:
        roles = [BOTH] * luck.choice([1, 1, 2])
    else:
        roles = luck.choice([[PREFILL, DECODE], [DECODE, PREFILL], [PREFILL, DECODE, DECODE], [PREFILL, BOTH, DECODE]])
    return [random_pool(luck, features, longest, classes, role) for role in roles]


def random_pool(luck: Random, features: frozenset[str], longest: int, classes: int, role: int) -> NaivePool:
    """Memory for one to three of the longest requests, seldom for not even one."""
    seats = luck.choice([1, 2, 3, 4, 5, 6, 6])
    budget = seats + luck.choice([0, 3, 10, 40])
    block = luck.choice([1, 2, 4, 8])
    need = -(-longest // block)
    watermark = luck.choice([0, 1, need // 4]) if "priority" in features else 0
    blocks = watermark + max(
        1, luck.choice([need - 1, need, need, need + 1, need + need // 4, need + need // 2, 2 * need])
    )
    decode, mixed = random_table(luck, budget)
    some = {k for k in range(classes) if luck.random() < 0.8}
    pool = NaivePool(
        instances=luck.randint(1, 3),
        decode_s=decode,
        mixed_s=mixed,
        per_seq_s=luck.choice([0.0, luck.uniform(1e-5, 1e-3)]),
        kv_s=luck.uniform(1e-6, 1e-4),
        pair_s=luck.choice([0.0, luck.uniform(1e-7, 1e-5)]),
        load_s=luck.choice([0.0, luck.uniform(1e-6, 1e-4)]),
        block_tokens=block,
        blocks=blocks,
        max_num_seqs=seats,
        max_batched_tokens=budget,
        serves=None if luck.random() < 0.8 else some,
        prefill_s_per_token=luck.uniform(1e-4, 1e-3),
        step_s=luck.uniform(0.01, 0.03),
        max_context=luck.choice([10**9, 10**9, longest]),
        watermark_blocks=watermark,
        role=role,
    )
    changes: dict[str, Any] = {}
    for name in FEATURES:
        if name in features and name in OF_POOLS:
            changes |= OF_POOLS[name](luck, pool)
    if features & CACHING and role != DECODE and (luck.random() < 0.9 or "tiers" in features):
        changes["prefix_cache"] = True
    return replace(pool, **changes)


def _tiers(luck: Random, pool: NaivePool) -> dict[str, Any]:
    if pool.role == DECODE:
        return {}
    sizes = [0, pool.blocks // 2, pool.blocks, 4 * pool.blocks, 4 * pool.blocks]
    rate = pool.prefill_s_per_token
    return {
        "host_blocks": luck.choice(sizes),
        "host_load_s": luck.uniform(0.0, 1.2) * rate,
        "host_latency_s": luck.choice([0.0, luck.uniform(0.0, 10 * rate)]),
        "remote_blocks": luck.choice(sizes),
        "remote_load_s": luck.uniform(0.0, 1.2) * rate,
        "remote_latency_s": luck.choice([0.0, luck.uniform(0.0, 10 * rate)]),
    }


def _retention(luck: Random, pool: NaivePool) -> dict[str, Any]:
    return {"retention_s": luck.choice([luck.uniform(0.0, 0.05), luck.uniform(0.05, 0.5)])}


def _apart(luck: Random, pool: NaivePool) -> dict[str, Any]:
    return {
        "transfer_s_per_token": luck.choice([0.0, luck.uniform(1e-6, 1e-4), luck.uniform(1e-4, 2e-3)]),
        "transfer_latency_s": luck.choice([0.0, luck.uniform(1e-4, 1e-2)]),
    }


def _speculation(luck: Random, pool: NaivePool) -> dict[str, Any]:
    accepted = luck.choice([1.0, luck.uniform(1.0, 2.0), luck.uniform(1.0, 5.0)])
    if pool.role == DECODE and accepted >= pool.block_tokens > 1:
        accepted = luck.uniform(1.0, pool.block_tokens - 0.5)
    return {
        "accepted_per_step": accepted,
        "accepted_variance": luck.choice([0.0, luck.uniform(0.0, 3.0)]),
        "accepted_most": math.ceil(accepted) + luck.randint(0, 3),
    }


def _ranks(luck: Random, pool: NaivePool) -> dict[str, Any]:
    return {"ranks": luck.randint(2, 4), "kv_s": luck.uniform(1e-5, 3e-4)}


def _coming_and_going(luck: Random, pool: NaivePool) -> dict[str, Any]:
    return {
        "start_s": luck.choice([0.0, luck.uniform(0.001, 0.2)]),
        "instances_up": luck.choice([None, None, luck.randint(0, pool.instances)]),
    }


OF_POOLS: dict[str, Callable[[Random, NaivePool], dict[str, Any]]] = {
    "tiers": _tiers,
    "retention": _retention,
    "apart": _apart,
    "speculation": _speculation,
    "ranks": _ranks,
    "failures": _coming_and_going,
    "resume": _coming_and_going,
}


# -- rules --------------------------------------------------------------------------------------


def with_rules(luck: Random, case: FeatureCase, features: frozenset[str], end_s: float) -> FeatureCase:
    """The rules of the run; ``end_s`` is when it would end without them."""
    classes = len(case.share)
    rules = NaiveRules(resume="resume" in features)
    if features & {"failures", "resume"}:
        rules = replace(rules, events=random_events(luck, case.instances(), end_s))
    if "admission" in features:
        rules = replace(rules, **random_admission(luck, classes, len(case.requests), end_s))
    if "stale" in features:
        rules = replace(rules, stale_s=luck.uniform(0.002, 0.3) * end_s)
    pools = case.pools
    if "scaling" in features:
        pools = [scaling(luck, pool, end_s) if luck.random() < 0.9 else pool for pool in pools]
    return replace(case, pools=pools, rules=rules)


def random_events(luck: Random, instances: int, end_s: float) -> tuple[tuple[float, int, str], ...]:
    """Failures, most of them mended some time later; drains and starts here and there."""
    events = []
    for _ in range(luck.randint(1, 8)):
        time_s, one = luck.uniform(0.0, 1.2) * end_s, luck.randrange(instances)
        what = luck.choice(["fail", "fail", "drain", "start"])
        events.append((time_s, one, what))
        if what != "start" and luck.random() < 0.8:
            events.append((time_s + luck.expovariate(8.0 / end_s), one, "start"))
    return tuple(sorted(events))


def random_admission(luck: Random, classes: int, count: int, end_s: float) -> dict[str, Any]:
    """Some of the three limits, for all classes or for some."""

    def by_class(least: float, most: float) -> list[float]:
        return [luck.choice([math.inf, *[luck.uniform(least, most)] * 3]) for _ in range(classes)]

    limits: dict[str, Any] = {}
    wanted = luck.choice([["ration"], ["shed"], ["wait"], ["ration", "shed"], ["ration", "shed", "wait"]])
    if "ration" in wanted:
        limits["ration_per_s"] = [luck.uniform(0.2, 1.0) * count / end_s for _ in range(classes)]
        limits["ration_burst"] = [luck.choice([0.5, 1.0, luck.uniform(1.0, 5.0)]) for _ in range(classes)]
    if "shed" in wanted:
        limits["shed_above"] = by_class(0.2, 2.0)
    if "wait" in wanted:
        limits["max_wait_s"] = by_class(0.0, 0.1)
    return limits


def scaling(luck: Random, pool: NaivePool, end_s: float) -> NaivePool:
    """An autoscaled pool, mostly with more instances than it begins with."""
    instances = pool.instances + luck.randint(0, 2)
    return replace(
        pool,
        instances=instances,
        instances_up=luck.choice([None, 1, luck.randint(0, instances)]),
        start_s=luck.choice([0.0, luck.uniform(0.0, 0.1) * end_s]),
        least=luck.randint(0, instances),
        target_inflight=luck.choice([1.0, 2.0, luck.uniform(0.5, 6.0)]),
        scale_every_s=luck.uniform(0.01, 0.2) * end_s,
        scale_down_after=luck.randint(1, 3),
    )

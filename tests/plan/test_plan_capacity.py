"""Capacities: the queue-free bound is one, pooling helps, mixes hold at most what was proposed."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.fleet import Pool
from infermix.plan.capacity import Capacities, mix_factor
from infermix.plan.options import Option, queue_free_capacity, refuse
from infermix.plan.question import Demand, Question, ask
from infermix.sim.run import simulate_pools
from infermix.sim.specs import fleet_pool_spec
from infermix.workload.requests import make_requests
from tests.nightly import examples
from tests.plan.questions import CHAT, offer, option, study

LAYOUTS: tuple[tuple[str, dict[str, int]], ...] = (
    ("h100-x1", {}), ("l40s-x1", {}), ("mi300x-x4", {"tp": 2}), ("tpu-v6e-x8", {"tp": 8}), ("cs3", {"stages": 2}),
    ("groq-v1-rack", {"stages": 4}),
)  # fmt: skip
TWO = {
    "chat": CHAT,
    "code": {"profile": "azure-code-2023", "rate_per_s": 5.0, "slo": {"ttft_s": 3.0, "attainment": 0.9}},
}


def sample(lengths: list[tuple[int, float, int]], repeat: int) -> Demand:
    """A class of (input, cached share, output), all at time 0: the instance never waits for an arrival."""
    rows = np.array([(i, int(share * (i - 1)), o) for i, share, o in lengths] * repeat)
    requests = make_requests(("chat",), np.zeros(len(rows)), rows[:, 0], rows[:, 2], cached_tokens=rows[:, 1])
    return Demand(name="chat", cls=study().traffic["chat"], rate_per_s=1.0, sample=requests)


request = st.tuples(st.integers(1, 6000), st.sampled_from((0.0, 0.5, 0.95)), st.integers(1, 400))


@given(
    layout=st.sampled_from(LAYOUTS),
    seqs=st.sampled_from((1, 8, 64, 256)),
    chunk=st.sampled_from((512, 2048, 8192)),
    lengths=st.lists(request, min_size=1, max_size=6),
)
@settings(max_examples=examples(60), deadline=None, derandomize=True)
def test_no_instance_is_faster_than_the_queue_free_bound(
    layout: tuple[str, dict[str, Any]], seqs: int, chunk: int, lengths: list[tuple[int, float, int]]
) -> None:
    of = option(offer(layout[0], 1.0), **layout[1], max_num_seqs=seqs, max_batched_tokens=chunk)
    demand = sample(lengths, 600 // len(lengths))
    pool = Pool(name="pool", deployment=of.deployment, instances=1)
    run = simulate_pools(demand.sample, [fleet_pool_spec(pool, demand.sample, of.table)], "least_wait")
    assert (run.status == 1).all()
    bound = queue_free_capacity(of, demand)
    assert len(demand.sample) / run.simulated_s <= bound * (1 + 1e-9)


def test_the_bound_is_not_idle_talk() -> None:
    """With long answers and a full batch an instance comes near it."""
    of = option(offer("h100-x1", 1.0), max_num_seqs=64)
    demand = sample([(100, 0.0, 400)], 3200)
    pool = Pool(name="pool", deployment=of.deployment, instances=1)
    run = simulate_pools(demand.sample, [fleet_pool_spec(pool, demand.sample, of.table)], "least_wait")
    assert 3200 / run.simulated_s >= 0.9 * queue_free_capacity(of, demand)


@cache
def chat() -> tuple[Question, Option, Demand]:
    asked = ask(study(traffic=TWO))
    found = option(offer("h100-x1", 1.0), max_num_seqs=256, max_batched_tokens=2048)
    found = Option(found.offer, found.deployment, "low")
    return asked, found, asked.demands[0]


def test_capacities_grow_with_the_pool() -> None:
    _, of, demand = chat()
    assert refuse(of, demand) is None
    capacities = Capacities()
    bound = capacities.per_instance(of, demand, 1)
    assert not capacities.known(of, demand, 1)
    per_instance = [capacities.simulate(of, demand, size) for size in (1, 2, 4, 8)]
    for smaller, larger in pairwise(per_instance):
        assert larger >= 0.95 * smaller
    assert per_instance[0] > 0 and max(per_instance) <= bound
    assert capacities.known(of, demand, 8) and capacities.per_instance(of, demand, 8) == per_instance[-1]
    assert capacities.best_known(of, demand) == max(per_instance)
    assert Capacities().simulate(of, demand, 2) == per_instance[1], "the same luck gives the same capacity"


def test_a_tighter_promise_never_raises_a_capacity() -> None:
    found = []
    for tpot in (0.04, 0.06, 0.2):
        asked = ask(study(traffic={"chat": {**CHAT, "slo": {**CHAT["slo"], "tpot_s": tpot}}}))
        found.append(Capacities().simulate(chat()[1], asked.demands[0], 1))
    assert found == sorted(found)


def test_mix_factor_is_a_share() -> None:
    asked, of, _ = chat()
    demands = list(asked.demands)
    capacities = Capacities()
    alone = {d.name: capacities.simulate(of, d, 2) for d in demands}
    little = {name: 0.1 * rate for name, rate in alone.items()}
    assert mix_factor(of, demands, little, 2) == 1.0
    far_too_much = {name: 5.0 * 2 * rate for name, rate in alone.items()}
    assert 0 <= mix_factor(of, demands, far_too_much, 2) < 0.3
    proposed = {name: 0.5 * 2 * rate for name, rate in alone.items()}
    assert 0.3 < mix_factor(of, demands, proposed, 2) <= 1.0


@pytest.mark.parametrize(
    ("slo", "must"),
    [({"tpot_s": 1e-4}, "TPOT"), ({"ttft_s": 1e-3}, "TTFT"), ({"e2e_s": 0.05}, "E2E")],
)
def test_refusals_say_what_is_missed_and_by_how_much(slo: dict[str, float], must: str) -> None:
    asked = ask(study(traffic={"chat": {**CHAT, "slo": slo}}))
    told = refuse(chat()[1], asked.demands[0])
    assert told is not None and told.excess > 1
    assert told.reason.startswith(f"tp1: {must} ") and "even alone, promised" in told.reason


def test_what_does_not_fit_into_memory_is_refused() -> None:
    of = option(offer("l40s-x1", 1.0), kv="bf16")
    room = of.table.blocks * of.table.block_tokens
    told = refuse(of, sample([(room + 1, 0.0, 1)] * 300 + [(10, 0.0, 1)] * 300, 1))
    assert told is not None and "only 50% of requests fit" in told.reason and f"{room:,} KV tokens" in told.reason

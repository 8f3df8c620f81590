"""Random views and asks, and what a request would see of a fleet that is built by hand."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
from hypothesis import strategies as st

from infermix import jit
from infermix.route.registry import Policy, compiled_policy
from infermix.route.view import Ask, FleetView


def make_view(n: int = 3, classes: int = 1, pools: int = 1, **columns: Any) -> FleetView:
    """Equal idle instances; whole columns may be replaced."""
    ints, floats = (lambda x: np.full(n, x, dtype=np.int64)), (lambda x: np.full(n, x, dtype=np.float64))
    each = lambda x: np.full(classes, x, dtype=np.float64)  # noqa: E731
    plain = {
        "pool": np.arange(n, dtype=np.int64) * pools // n, "eligible": np.ones(n, dtype=np.bool_),
        "inflight": ints(0), "waiting": ints(0), "running": ints(0), "queued_tokens": ints(0),
        "context_tokens": ints(0), "max_num_seqs": ints(8), "role": ints(0),
        "prefill_s_per_token": floats(1e-4), "step_s": floats(0.02), "age_s": floats(0.0),
        "share": np.full((classes, pools), 1.0 / pools), "sent": np.zeros((classes, pools), dtype=np.int64),
        "kv_capacity_tokens": ints(100_000), "step_base_s": floats(0.01), "step_per_seq_s": floats(1e-3),
        "step_per_kv_s": floats(1e-7), "usd_per_s": floats(1e-3),
        "slo_ttft_s": each(np.inf), "slo_ttft_s_per_token": each(0.0), "slo_tpot_s": each(np.inf),
        "slo_e2e_s": each(np.inf), "delay_usd_per_s": each(0.0), "refuse_late": np.zeros(classes, dtype=np.bool_),
    }  # fmt: skip
    given = {name: np.asarray(value, dtype=plain[name].dtype) for name, value in columns.items()}
    return FleetView(**{**plain, **given})


def make_ask(number: int = 0, **fields: Any) -> Ask:
    plain = Ask(number, 0, 0, -1, 0.0, 1000, 0, 100.0, 0, np.inf, 0.5, -1)
    return plain._replace(**fields)


@st.composite
def views(draw: st.DrawFn, least: int = 1, most: int = 8) -> FleetView:
    """1 to 8 instances, or as said, in 1 to 3 pools; those of a pool differ in counters only, if at all."""
    luck = Random(draw(st.integers(0, 2**32 - 1)))
    n, pools, classes = draw(st.integers(least, most)), draw(st.integers(1, 3)), 2
    pool = sorted(luck.randrange(pools) for _ in range(n))
    empty = draw(st.booleans())

    def by_pool(value: Any) -> list[Any]:
        drawn = [value() for _ in range(pools)]
        return [drawn[p] for p in pool]

    def target(low: float, high: float) -> list[float]:
        return [luck.choice([np.inf, luck.uniform(low, high)]) for _ in range(classes)]

    inflight = [0 if empty else luck.choice([0, luck.randint(0, 12)]) for _ in range(n)]
    return make_view(
        n, classes, pools, pool=pool, eligible=[luck.random() < 0.8 for _ in range(n)], inflight=inflight,
        context_tokens=[k * luck.randint(100, 4000) for k in inflight],
        queued_tokens=[luck.choice([0, luck.randint(0, 5000)]) if k else 0 for k in inflight],
        max_num_seqs=by_pool(lambda: luck.randint(1, 8)),
        kv_capacity_tokens=by_pool(lambda: luck.randint(2000, 40_000)),
        prefill_s_per_token=by_pool(lambda: luck.uniform(1e-5, 1e-3)), step_s=by_pool(lambda: luck.uniform(0.01, 0.05)),
        step_base_s=by_pool(lambda: luck.uniform(0.005, 0.03)), step_per_seq_s=by_pool(lambda: luck.uniform(0, 2e-3)),
        step_per_kv_s=by_pool(lambda: luck.uniform(0, 1e-6)),
        usd_per_s=by_pool(lambda: luck.choice([np.nan, luck.uniform(1e-4, 1e-2), luck.uniform(1e-4, 1e-2)])),
        share=[[luck.choice([0.0, luck.random(), luck.random()]) for _ in range(pools)] for _ in range(classes)],
        sent=[[luck.randint(0, 20) for _ in range(pools)] for _ in range(classes)],
        slo_ttft_s=target(0.1, 5.0), slo_ttft_s_per_token=[luck.choice([0.0, 1e-4]) for _ in range(classes)],
        slo_tpot_s=target(0.01, 0.1), slo_e2e_s=target(1.0, 20.0),
        delay_usd_per_s=[luck.choice([0.0, luck.uniform(1e-5, 1e-1)]) for _ in range(classes)],
        refuse_late=[luck.random() < 0.5 for _ in range(classes)],
    )  # fmt: skip


@st.composite
def asks(draw: st.DrawFn) -> Ask:
    luck = Random(draw(st.integers(0, 2**32 - 1)))
    tokens = luck.randint(1, 4000)
    now = luck.uniform(0.0, 100.0)
    return make_ask(
        luck.randint(0, 1000), class_id=luck.randint(0, 1), now_s=now, input_tokens=tokens,
        cached_tokens=luck.choice([0, luck.randrange(tokens)]), session=luck.choice([-1, luck.randint(0, 2**31 - 1)]),
        typical_output_tokens=luck.choice([1.0, luck.uniform(1.0, 600.0)]), u=luck.random() or 0.5,
        deadline_s=luck.choice([np.inf, now + luck.uniform(0.0, 10.0)]),
        prefix=luck.choice([-1, luck.randint(0, 2**31 - 1)]),
    )  # fmt: skip


def ready(policy: Policy) -> Policy:
    """The policy as simulator and gateway call it: compiled for their views."""
    return compiled_policy(policy, jit.type_of(make_view()), jit.type_of(make_ask()))


def without(view: FleetView, *masked: int) -> FleetView:
    eligible = view.eligible.copy()
    eligible[list(masked)] = False
    return view._replace(eligible=eligible)

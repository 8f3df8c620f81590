"""Whole runs under every policy: the compiled simulator does what the twin does, and spilling loses nobody."""

from __future__ import annotations

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.route.names import POLICIES
from infermix.route.view import Promises
from tests.laws.engines import kernel_engine, naive_engine
from tests.laws.strategies import Case, cases, with_columns
from tests.naive import policies as naive
from tests.naive.sim import NaiveResult
from tests.nightly import examples

every = pytest.mark.parametrize("name", POLICIES)


def dressed(case: Case, luck: Random) -> tuple[Case, Promises]:
    """The case with prices, sessions and promises, some of them near what its pools can do."""
    classes, n = len(case.requests.class_names), len(case.requests)

    def target(low: float, high: float) -> list[float]:
        return [luck.choice([math.inf, luck.uniform(low, high)]) for _ in range(classes)]

    promises = Promises(
        slo_ttft_s=np.array(target(0.05, 1.0)),
        slo_ttft_s_per_token=np.array([luck.choice([0.0, 1e-3]) for _ in range(classes)]),
        slo_tpot_s=np.array(target(0.01, 0.1)),
        slo_e2e_s=np.array(target(0.1, 2.0)),
        delay_usd_per_s=np.array([luck.choice([0.0, luck.uniform(1e-4, 1e-1)]) for _ in range(classes)]),
        refuse_late=np.array([luck.random() < 0.5 for _ in range(classes)]),
    )
    pools = [replace(pool, usd_per_s=luck.choice([math.nan, luck.uniform(1e-4, 1e-2)])) for pool in case.pools]
    sessions = [luck.choice([-1, luck.randrange(6)]) for _ in range(n)]
    return replace(case, pools=pools, requests=with_columns(case.requests, session=sessions)), promises


def run(engine: object, case: Case, name: str, promises: Promises) -> NaiveResult:
    found: NaiveResult = engine(  # type: ignore[operator]
        case.requests, case.pools, getattr(naive, name), share=case.share,
        typical_output_tokens=case.typical, promises=promises, seed=3,
    )  # fmt: skip
    return found


@every
@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(case=cases(), seed=st.integers(0, 2**32 - 1))
def test_a_run_is_the_twins(name: str, case: Case, seed: int) -> None:
    case, promises = dressed(case, Random(seed))
    kernel, twin = (run(engine, case, name, promises) for engine in (kernel_engine, naive_engine))
    assert kernel.instance == twin.instance and kernel.status == twin.status
    assert kernel.last_s == pytest.approx(twin.last_s, rel=1e-9, nan_ok=True)


@settings(max_examples=examples(60), deadline=None, derandomize=True)
@given(case=cases(ample_kv=True, serve_all=True), seed=st.integers(0, 2**32 - 1))
def test_spilling_and_splitting_lose_nobody(case: Case, seed: int) -> None:
    case, promises = dressed(case, Random(seed))
    found = run(kernel_engine, case, "pool_split_spill", promises)
    assert all(status == "completed" for status in found.status)
    assert all(0 <= instance < case.instances() for instance in found.instance)

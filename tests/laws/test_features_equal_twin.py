"""L27: the compiled kernel does what the twin does with engines and fleets, for every pair of features.

300 cases in a normal run; 2,000 with INFERMIX_NIGHTLY=1.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from tests.laws.engines import kernel_engine, kernel_has_features, naive_engine
from tests.laws.feature_cases import FEATURES, PAIRS, FeatureCase, random_case
from tests.laws.strategies import POLICIES, by_all_counters
from tests.laws.test_kernel_equals_twin import assert_same
from tests.naive.sim import NaiveResult, Policy
from tests.nightly import NIGHTLY

pytestmark = pytest.mark.skipif(not kernel_has_features(), reason="the kernel does not know them")

CASES = 2000 if NIGHTLY else 300
ROUTES: list[Policy] = [*POLICIES, by_all_counters, by_all_counters]
COLUMNS = ("prefill_instance", "hit_tokens", "loaded_tokens", "restarts")


def assert_all_same(kernel: NaiveResult, twin: NaiveResult) -> None:
    """What there was before, and the columns of engines and fleets."""
    assert_same(kernel, twin)
    late = max([t for t in twin.last_s if t == t], default=0.0)
    for name in ("admit_s", "on_s"):
        expected = pytest.approx(getattr(twin, name), rel=1e-9, abs=1e-9 * late, nan_ok=True)
        assert getattr(kernel, name) == expected, name
    for name in COLUMNS:
        assert getattr(kernel, name) == getattr(twin, name), name
    assert_same_gaps(kernel, twin)


def assert_same_gaps(kernel: NaiveResult, twin: NaiveResult) -> None:
    """As many times between tokens in every bin; one that is at an edge may lie on either side of it."""
    inner = importlib.import_module("infermix.sim.state").gap_edges_s()[1:-1]
    assert set(kernel.gaps) == set(twin.gaps)
    for key, times in twin.gaps.items():
        binned, told = np.sort(kernel.gaps[key]), np.sort(times)
        assert len(binned) == len(told), key
        below = np.searchsorted(binned, inner)  # its bins begin at edges
        least, most = (np.searchsorted(told, inner * (1 + slip)) for slip in (-1e-9, 1e-9))
        assert np.all((least <= below) & (below <= most)), key


def compared(number: int, features: frozenset[str]) -> None:
    case, policy = random_case(number, features), ROUTES[number % len(ROUTES)]
    twin = case.run(naive_engine, policy, seed=number)
    assert_all_same(case.run(kernel_engine, policy, seed=number), twin)
    if number % 3 == 0:
        cut_short(case, policy, number, twin)


def cut_short(case: FeatureCase, policy: Policy, number: int, whole: NaiveResult) -> None:
    """The same where the run ends before all is done."""
    until_s = (0.1 + number % 7 / 8) * max([t for t in whole.last_s if t == t], default=1.0)
    kernel, twin = (case.run(engine, policy, until_s=until_s, seed=number) for engine in (kernel_engine, naive_engine))
    assert_all_same(kernel, twin)


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_pairs(pair: tuple[str, str]) -> None:
    place = PAIRS.index(pair)
    for number in range(place, CASES - CASES // 10, len(PAIRS)):
        compared(number, frozenset(pair))


@pytest.mark.parametrize("part", range(6))
def test_everything_at_once(part: int) -> None:
    for number in range(part, CASES // 10, 6):
        compared(number, frozenset(FEATURES) - ({"ids"} if number % 2 else set()))

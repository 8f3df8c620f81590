"""Counter-based randomness: known values, a twin in plain integers, uniformity, independence, the open interval."""

from __future__ import annotations

from itertools import combinations
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermix.rng import _mix, u01, uniforms

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
N = 100_000
counters = st.integers(0, MASK)
keys = st.integers(-(2**70), 2**70)


def mix(z: int) -> int:
    """Output function of SplitMix64 in Python's integers."""
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
    return z ^ z >> 31


def unmix(z: int) -> int:
    """The state whose output is ``z``."""
    for shift, factor in ((31, 0x94D049BB133111EB), (27, 0xBF58476D1CE4E5B9)):
        z = unshift(z, shift) * pow(factor, -1, 2**64) & MASK
    return unshift(z, 30)


def unshift(z: int, shift: int) -> int:
    x = z
    for _ in range(64 // shift):
        x = z ^ x >> shift
    return x


def key(seed: int, stream: int) -> int:
    return mix(mix((seed + GOLDEN) & MASK) ^ stream * GOLDEN & MASK)


def index_of(seed: int, stream: int, bits: int) -> int:
    """The counter at which a stream gives these 64 bits."""
    return ((unmix(bits) - key(seed, stream)) * pow(GOLDEN, -1, 2**64) - 1) & MASK


def test_published_outputs_of_splitmix64_with_seed_1234567() -> None:
    states = np.array([(1234567 + i * GOLDEN) & MASK for i in (1, 2, 3)], dtype=np.uint64)
    assert _mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@pytest.mark.parametrize(
    ("seed", "stream", "index", "value"),
    [
        (0, 0, 0, 0.3380524541955055),
        (1, 0, 0, 0.43274492759272126),
        (0, 1, 0, 0.11260056966858051),
        (0, 0, 1, 0.26913027122639993),
        (1, 2, 3, 0.09962522673782032),
        (42, 7, 1000000, 0.9345970467379694),
        (-1, 5, 1099511627776, 0.4399383542819067),
        (18446744073709551615, 5, 1099511627776, 0.4399383542819067),
    ],
)
def test_golden_numbers(seed: int, stream: int, index: int, value: float) -> None:
    assert u01(seed, stream, index) == pytest.approx(value, rel=0, abs=1e-15)


@given(keys, keys, counters)
def test_equals_the_twin_in_plain_integers(seed: int, stream: int, index: int) -> None:
    bits = mix((key(seed & MASK, stream & MASK) + (index + 1) * GOLDEN) & MASK)
    assert u01(seed, stream, index) == pytest.approx(bits / 2**64, rel=0, abs=2.0**-51)


@given(keys, keys, st.lists(counters, max_size=5))
def test_an_array_gives_what_its_elements_give(seed: int, stream: int, index: list[int]) -> None:
    together = u01(seed, stream, np.array(index, dtype=np.uint64))
    assert together.tolist() == [u01(seed, stream, i) for i in index]


def test_shapes() -> None:
    assert np.ndim(u01(1, 2, 3)) == 0
    assert u01(1, 2, np.arange(6).reshape(2, 3)).shape == (2, 3)
    assert uniforms(1, 2, 0).shape == (0,)
    assert uniforms(1, 2, 4).tolist() == u01(1, 2, np.arange(4)).tolist()


@pytest.mark.parametrize("bits", [0, MASK, MASK - (1 << 11), 1 << 63], ids=["zero", "ones", "below ones", "half"])
def test_the_interval_is_open_at_both_ends(bits: int) -> None:
    index = index_of(7, 3, bits)
    assert mix((key(7, 3) + (index + 1) * GOLDEN) & MASK) == bits
    assert 0.0 < u01(7, 3, index) < 1.0


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 0), (0, 1), (2**63, 5), (-1, -1)])
def test_uniform_by_kolmogorov_and_smirnov(seed: int, stream: int) -> None:
    u = np.sort(uniforms(seed, stream, N))
    rank = np.arange(N) / N
    distance = max(np.max(u - rank), np.max(rank + 1 / N - u))
    assert distance * sqrt(N) < 1.95  # exceeded once in a thousand streams


def test_neighbours_in_a_stream_are_uncorrelated() -> None:
    u = uniforms(1, 1, N)
    for lag in (1, 2, 3, 64):
        assert abs(np.corrcoef(u[:-lag], u[lag:])[0, 1]) * sqrt(N) < 4


def test_streams_and_seeds_are_independent() -> None:
    columns = [uniforms(seed, stream, N) for seed, stream in ((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (0, 2**32))]
    for a, b in combinations(columns, 2):
        assert abs(np.corrcoef(a, b)[0, 1]) * sqrt(N) < 4
        cells = np.histogram2d(a, b, bins=8, range=[[0, 1], [0, 1]])[0]
        chi2 = float(np.sum((cells - N / 64) ** 2) / (N / 64))
        assert chi2 < 63 + 5 * sqrt(2 * 63)


def test_streams_do_not_overlap() -> None:
    drawn = np.concatenate([uniforms(seed, stream, 1000) for seed in range(5) for stream in range(5)])
    assert len(np.unique(drawn)) == drawn.size

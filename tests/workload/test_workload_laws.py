"""Laws of arrivals and shapes of a day: mean rate, coefficient of variation, stationarity, and bad input."""

from __future__ import annotations

from math import gamma

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.errors import InputError
from infermix.workload.arrivals import draw
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.laws import Arrivals, gamma_variates, index_of_dispersion, law_arrivals, unit_gaps, weibull_shape
from infermix.workload.shape import Shape, Sine, by_hour, hours_of, peak_hours
from tests.nightly import examples

SLO = Slo(ttft_s=1.0)
LAWS = [("poisson", 1.0), ("gamma", 0.3), ("gamma", 2.0), ("gamma", 5.0), ("weibull", 0.5), ("weibull", 3.0)]


def law(name: str, cv: float) -> Arrivals:
    return Arrivals(law=name, cv=cv)  # type: ignore[arg-type]


def gaps(of: Arrivals, n: int, seed: int = 1) -> np.ndarray:
    return unit_gaps(np.full(n, of.law == "weibull"), np.full(n, of.shape), seed, 77, np.arange(n))


@pytest.mark.parametrize(("name", "cv"), LAWS)
def test_gaps_have_mean_one_and_the_cv_stated(name: str, cv: float) -> None:
    n = 400_000
    x = gaps(law(name, cv), n)
    assert x.mean() == pytest.approx(1.0, abs=4 * cv / np.sqrt(n))
    assert x.std() == pytest.approx(cv, rel=0.05 if cv > 2 else 0.01)
    assert np.all(x >= 0)


@pytest.mark.parametrize("shape", [0.05, 0.7, 1.0, 3.5, 60.0])
def test_gamma_variates_have_the_moments_of_their_shape(shape: float) -> None:
    n = 200_000
    x = gamma_variates(np.full(n, shape), 3, 5, np.arange(n))
    assert x.mean() == pytest.approx(shape, abs=5 * np.sqrt(shape / n))
    assert (x**2).mean() == pytest.approx(shape * (shape + 1), rel=0.05)
    below = np.mean(x < np.median(gamma_variates(np.full(n, shape), 4, 5, np.arange(n))))
    assert below == pytest.approx(0.5, abs=0.005)


def test_exponential_gaps_have_the_quantiles_of_an_exponential() -> None:
    x = gaps(law("gamma", 1.0), 200_000)
    assert np.quantile(x, (0.1, 0.5, 0.9, 0.99)) == pytest.approx(-np.log1p(-np.array([0.1, 0.5, 0.9, 0.99])), rel=0.03)


def test_variates_hang_on_their_counter_alone() -> None:
    shape = np.array([0.3, 2.0, 7.0, 0.9])
    all_four = gamma_variates(shape, 1, 2, np.array([5, 6, 7, 8]))
    assert gamma_variates(shape[[2, 0]], 1, 2, np.array([7, 5])).tolist() == all_four[[2, 0]].tolist()
    assert gamma_variates(shape, 2, 2, np.array([5, 6, 7, 8])).tolist() != all_four.tolist()


@given(st.floats(0.05, 8.0))
@settings(max_examples=examples(40))
def test_the_weibull_shape_has_the_cv_asked_for(cv: float) -> None:
    k = weibull_shape(cv)
    assert gamma(1 + 2 / k) / gamma(1 + 1 / k) ** 2 - 1 == pytest.approx(cv * cv, rel=1e-6)


@pytest.mark.parametrize(("name", "cv"), LAWS)
@pytest.mark.parametrize("horizon", [0.2, 20.0])
def test_the_mean_rate_holds_over_any_horizon(name: str, cv: float, horizon: float) -> None:
    """A process that started with a fresh gap would be wrong over short horizons."""
    counts = [len(law_arrivals(law(name, cv), 5.0, horizon, seed, 8, 9)) for seed in range(800)]
    error = np.std(counts) / np.sqrt(len(counts))
    assert abs(np.mean(counts) - 5.0 * horizon) < 3.5 * error


def test_a_longer_horizon_only_adds_arrivals() -> None:
    short, long = (law_arrivals(law("gamma", 3.0), 9.0, h, 1, 8, 9) for h in (100.0, 9000.0))
    assert long[: len(short)].tolist() == short.tolist() and len(long) > 50 * len(short)


@pytest.mark.parametrize(("name", "cv"), [("gamma", 0.4), ("gamma", 3.0), ("weibull", 2.0)])
def test_a_class_with_a_law_is_as_bursty_as_stated(name: str, cv: float) -> None:
    cls = TrafficClass(slo=SLO, profile="azure-conv-2023", rate_per_s=20.0, arrivals=law(name, cv))
    drawn = draw({"a": cls}, seed=1, horizon_s=10_000.0)
    t = drawn.requests.arrival_s
    assert np.diff(t).std() / np.diff(t).mean() == pytest.approx(cv, rel=0.06)
    assert index_of_dispersion(t, 10.0) == pytest.approx(cv * cv, rel=0.25)
    assert len(t) == pytest.approx(200_000, abs=4 * cv * np.sqrt(200_000))
    plain = draw({"a": TrafficClass(slo=SLO, profile="azure-conv-2023", rate_per_s=20.0)}, seed=1, horizon_s=10_000.0)
    n = min(len(t), len(plain.requests))
    assert drawn.requests.input_tokens[:n].tolist() == plain.requests.input_tokens[:n].tolist()


def test_dispersion_of_known_counts() -> None:
    t = np.repeat(np.arange(40) + 0.5, np.tile([1, 3], 20))
    assert index_of_dispersion(t, 1.0, 40.0) == pytest.approx(1.0 / 2.0, rel=0.1)
    assert np.isnan(index_of_dispersion(t, 10.0)) and np.isnan(index_of_dispersion(np.zeros(0), 1.0))


def test_hours_of_shapes() -> None:
    assert by_hour(None).tolist() == [1.0] * 24
    assert by_hour([1.0, 0.0, 2.0]).tolist() == [1.0] * 8 + [0.0] * 8 + [2.0] * 8
    sine = by_hour(Sine(peak_to_mean=1.5, peak_hour=20))
    assert (int(sine.argmax()), sine.max(), sine.mean()) == (20, pytest.approx(1.5), pytest.approx(1.0))
    assert sine.min() == pytest.approx(0.5)


DAY = [0.25] * 8 + [2.0] * 8 + [0.75] * 8


@pytest.mark.parametrize("shape", [DAY, [0.25, 2.0, 0.75]])
def test_requests_follow_the_shape_and_keep_the_mean(shape: Shape) -> None:
    cls = TrafficClass(slo=SLO, profile="azure-conv-2023", rate_per_s=3.0, shape=shape)
    t = draw({"a": cls}, seed=1, horizon_s=2 * 86_400.0).requests.arrival_s
    counts = np.histogram(t, 6, (0, 2 * 86_400.0))[0]
    expected = 3.0 * 28_800.0 * np.array([0.25, 2.0, 0.75] * 2)
    assert counts == pytest.approx(expected, abs=5 * 1.1 * np.sqrt(expected.max()))
    assert len(t) == pytest.approx(3.0 * 2 * 86_400, rel=0.01)


def test_time_starts_at_an_hour_and_may_stay_in_it() -> None:
    cls = TrafficClass(slo=SLO, profile="azure-conv-2023", rate_per_s=6.0, shape=DAY)

    def count(horizon_s: float, hour: float, hold: bool) -> int:
        return len(draw({"a": cls}, seed=1, horizon_s=horizon_s, start_hour=hour, hold_hour=hold).requests)

    assert count(3600.0, 9.0, False) == pytest.approx(2.0 * 6 * 3600, rel=0.03)
    assert count(7200.0, 15.0, False) == pytest.approx((2.0 + 0.75) * 6 * 3600, rel=0.03)
    assert count(7200.0, 15.0, True) == pytest.approx(2 * 2.0 * 6 * 3600, rel=0.03)
    assert count(7200.0, 0.0, True) == pytest.approx(2 * 0.25 * 6 * 3600, rel=0.05)


@given(st.integers(0, 2**32), st.floats(10.0, 200_000.0), st.floats(0.0, 24.0))
@settings(max_examples=20, deadline=None)
def test_shaped_arrivals_lie_in_the_horizon_in_order(seed: int, horizon: float, hour: float) -> None:
    cls = TrafficClass(slo=SLO, profile="azure-code-2023", rate_per_s=0.05, shape=[0.0, 1.0, 0.0, 3.0])
    t = draw({"a": cls}, seed=seed, horizon_s=horizon, start_hour=hour).requests.arrival_s
    assert np.all(np.diff(t) >= 0) and np.all((t >= 0) & (t < horizon))
    hours = (t / 3600 + hour) % 24
    asleep = (hours < 6 - 1e-6) & (hours > 1e-6) | (hours < 18 - 1e-6) & (hours > 12 + 1e-6)
    assert not asleep.any()


def test_the_busiest_hour_weighs_the_classes() -> None:
    shapes: dict[str, Shape | None] = {"a": [3.0, 1.0], "b": [1.0, 3.0], "c": None}
    assert peak_hours(shapes, {"a": 2.0, "b": 1.0, "c": 9.0}) == list(range(12))
    assert peak_hours(shapes, {"a": 1.0, "b": 2.0, "c": 9.0}) == list(range(12, 24))
    assert len(peak_hours(shapes, {"a": 1.0, "b": 1.0, "c": 0.0})) == 24


def test_hours_over_midnight() -> None:
    assert hours_of((8, 10)) == {8, 9} and hours_of((23, 1)) == {23, 0}
    assert hours_of((0, 24)) == hours_of(None) == frozenset(range(24))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"arrivals": law("poisson", 2.0)}, [r"traffic.a.arrivals.cv", "Poisson", "2.0", 'law = "gamma"']),
        ({"arrivals": law("gamma", 0.0)}, ["cv out of range", "0.01 to 30"]),
        ({"arrivals": law("gamma", 99.0)}, ["cv out of range", "99.0"]),
        ({"shape": Sine(peak_to_mean=2.5)}, ["shape.peak_to_mean", "2.5", "1 to 2", "24 numbers"]),
        ({"shape": Sine(peak_to_mean=1.5, peak_hour=24)}, ["shape.peak_hour", "24", "0 to 23"]),
        ({"shape": [1.0] * 5}, ["traffic.a.shape", "5 numbers"]),
        ({"shape": [0.0, 0.0]}, ["not all 0"]),
        ({"shape": []}, ["0 numbers"]),
        ({"shape": [1.0, -1.0]}, ["must not be negative", "-1.0"]),
        ({"shape": [1.0, 2.0], "rate_per_s": None}, ["shape multiplies a mean rate", "add rate_per_s"]),
        ({"profile": "agentic-coding", "arrivals": law("gamma", 2.0)}, ["profile of sessions", "agentic-coding"]),
    ],
)
def test_bad_laws_and_shapes(change: dict[str, object], words: list[str]) -> None:
    base: dict[str, object] = {"slo": SLO, "profile": "azure-conv-2023", "rate_per_s": 1.0}
    with pytest.raises(InputError) as caught:
        draw({"a": TrafficClass(**{**base, **change})}, seed=1, horizon_s=10.0)  # type: ignore[arg-type]
    assert [word for word in words if word not in str(caught.value)] == []


def test_an_hour_without_requests_cannot_be_planned() -> None:
    cls = TrafficClass(slo=SLO, profile="azure-conv-2023", rate_per_s=1.0, shape=[0.0, 1.0])
    with pytest.raises(InputError, match=r"traffic\.a\.shape: no request comes in the hour that is planned; got 3"):
        draw({"a": cls}, seed=1, horizon_s=10.0, start_hour=3, hold_hour=True)

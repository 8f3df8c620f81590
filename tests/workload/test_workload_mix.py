"""Mixes: shares of requests, streams of their own, and what does not go with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from infermix.errors import InputError
from infermix.workload.arrivals import draw
from infermix.workload.classes import Part, Slo, TrafficClass
from infermix.workload.laws import Arrivals
from infermix.workload.shape import Sine

SLO = Slo(ttft_s=1.0)
LONG, SHORT = Part(profile="mooncake-conversation", weight=3.0), Part(profile="azure-code-2023", weight=1.0)


def test_weights_are_shares_of_the_requests(tmp_path: Path) -> None:
    rows = "".join(f"{i * 0.5},7,7\n" for i in range(100))
    (tmp_path / "t.csv").write_text("t_s,input_tokens,output_tokens\n" + rows)
    mix = [Part(trace="t.csv", weight=1.0), Part(profile="azure-conv-2023", weight=4.0)]
    drawn = draw({"a": TrafficClass(slo=SLO, mix=mix, rate_per_s=10.0)}, seed=1, horizon_s=4000.0, base_dir=tmp_path)
    table = drawn.requests
    of_trace = (table.input_tokens == 7) & (table.output_tokens == 7)
    assert of_trace.mean() == pytest.approx(0.2, abs=0.01)
    assert len(table) == pytest.approx(40_000, rel=0.03) and drawn.rates_per_s["a"] == pytest.approx(10.0)
    assert np.all(np.diff(table.arrival_s) >= 0)


def test_two_parts_of_one_profile_have_different_luck() -> None:
    mix = [Part(profile="azure-conv-2023", weight=1.0)] * 2
    table = draw({"a": TrafficClass(slo=SLO, mix=mix, rate_per_s=20.0)}, seed=1, horizon_s=200.0).requests
    assert len(np.unique(table.arrival_s)) == len(table)


def test_a_mix_may_have_a_shape() -> None:
    cls = TrafficClass(slo=SLO, mix=[LONG, SHORT], rate_per_s=2.0, shape=Sine(peak_to_mean=1.9, peak_hour=12))
    t = draw({"a": cls}, seed=1, horizon_s=86_400.0).requests.arrival_s
    night, noon = np.histogram(t, [0, 3600, 12 * 3600, 13 * 3600])[0][[0, 2]]
    assert noon / 3600 == pytest.approx(3.8, rel=0.15) and night / 3600 == pytest.approx(0.2, abs=0.15)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rate_per_s": None}, ["a mix needs rate_per_s"]),
        ({"profile": "azure-conv-2023"}, ["profile does not go with mix", "traffic.a.profile"]),
        ({"only": {"model": "x"}}, ["only does not go with mix"]),
        ({"arrivals": Arrivals(law="gamma", cv=2.0)}, ["arrivals does not go with mix"]),
        ({"mix": [Part(profile="azure-conv-2023", weight=0.0)]}, ["traffic.a.mix[0].weight", "must be positive"]),
        ({"mix": [LONG, Part(weight=1.0)]}, ["traffic.a.mix[1]", "needs a profile or a trace"]),
        ({"mix": [Part(profile="azure-con-2023", weight=1.0)]}, ["traffic.a.mix[0]", "did you mean 'azure-conv-2023'"]),
        ({"mix": [Part(trace="x.csv", weight=1.0, between_s=(5.0, 5.0))]}, ["mix[0].between_s", "from < to"]),
        ({"mix": [Part(trace="gone.csv", weight=1.0)]}, ["traffic.a.mix[0]", "no such trace"]),
    ],
)
def test_bad_mixes(change: dict[str, object], words: list[str]) -> None:
    base: dict[str, object] = {"slo": SLO, "mix": [LONG, SHORT], "rate_per_s": 1.0}
    with pytest.raises(InputError) as caught:
        draw({"a": TrafficClass(**{**base, **change})}, seed=1, horizon_s=9.0)  # type: ignore[arg-type]
    assert [word for word in words if word not in str(caught.value)] == []

"""Priorities of classes come with their requests."""

from __future__ import annotations

import numpy as np

from infermix.workload.arrivals import draw
from infermix.workload.classes import Slo, TrafficClass


def test_requests_have_the_priority_of_their_class() -> None:
    plain = TrafficClass(profile="azure-conv-2023", rate_per_s=10.0, slo=Slo(ttft_s=1.0))
    urgent = TrafficClass(profile="azure-conv-2023", rate_per_s=5.0, slo=Slo(ttft_s=1.0), priority=-3)
    found = draw({"a": plain, "b": urgent}, seed=1, requests=300).requests
    assert np.array_equal(found.priority, np.where(found.class_id == 1, -3, 0)) and set(found.class_id) == {0, 1}
    assert not draw({"a": plain}, seed=1, requests=30).requests.priority.any()

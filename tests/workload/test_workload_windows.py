"""Windows of plain requests: the same rows whatever the windows, and the laws that were asked for."""

from __future__ import annotations

import numpy as np
import pytest

from infermix.errors import InputError
from infermix.workload.requests import Requests
from infermix.workload.windows import Lengths, PlainClass, poisson_windows

CLASSES = (
    PlainClass("chat", 30.0, Lengths(1000.0, 1.0), Lengths(200.0, 0.5)),
    PlainClass("code", 10.0, Lengths(4000.0, 0.2, most=4096), Lengths(50.0, 0.0)),
)
COLUMNS = ("arrival_s", "input_tokens", "output_tokens", "class_id")


def joined(windows: list[Requests]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([getattr(w, name) for w in windows]) for name in COLUMNS}


@pytest.mark.parametrize("window", [1, 7, 1000, 2999, 3000, 10_000])
def test_the_same_bits_whatever_the_windows(window: int) -> None:
    whole = joined(list(poisson_windows(CLASSES, 3000, seed=3, window=3000)))
    found = joined(list(poisson_windows(CLASSES, 3000, seed=3, window=window)))
    for name in COLUMNS:
        assert np.array_equal(found[name], whole[name])
    others = joined(list(poisson_windows(CLASSES, 3000, seed=4, window=window)))
    assert not np.array_equal(others["input_tokens"], whole["input_tokens"])


def test_rates_and_lengths_are_those_asked_for() -> None:
    n = 400_000
    found = joined(list(poisson_windows(CLASSES, n, seed=5)))
    gaps = np.diff(found["arrival_s"], prepend=0.0)
    assert gaps.mean() == pytest.approx(1 / 40.0, rel=0.01) and gaps.std() == pytest.approx(gaps.mean(), rel=0.01)
    chat = found["class_id"] == 0
    assert chat.mean() == pytest.approx(0.75, abs=0.004)
    inputs, outputs = found["input_tokens"].astype(float), found["output_tokens"].astype(float)
    assert inputs[chat].mean() == pytest.approx(1000, rel=0.01) and inputs[chat].std() == pytest.approx(1000, rel=0.05)
    assert outputs[chat].mean() == pytest.approx(200, rel=0.01) and outputs[chat].std() == pytest.approx(100, rel=0.03)
    assert abs(np.corrcoef(inputs[chat], outputs[chat])[0, 1]) < 0.01
    assert inputs[~chat].max() == 4096 and np.all(outputs[~chat] == 50)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="lengths out of range"):
        Lengths(0.0)
    for classes, window in (((), 10), (CLASSES, 0)):
        with pytest.raises(InputError, match="must be positive"):
            next(poisson_windows(classes, 10, seed=1, window=window))
    assert list(poisson_windows(CLASSES, 0, seed=1)) == []

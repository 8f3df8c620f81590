"""Two measured vLLM runs: step times fitted to the first half of the requests tell the second half."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
TRACES = Path(os.environ.get("INFERMIX_SHARED_DATA", REPOSITORY.parent / "shared" / "data")) / "traces"

FITS = {
    "RTX4090": (np.array([0.800, 0.889, 0.897, 0.0]), 8192, 50, 2600),
    "RTXPRO6000": (np.array([1.141, 0.969, 0.994, 0.0]), 2048, 128, 33445),
}
"""The better fit of each run in docs/design/measured-runs.md."""


@pytest.fixture(scope="module")
def measured() -> ModuleType:
    """``benchmarks/measured.py`` as a module, reading the traces that are at hand."""
    pytest.importorskip("polars", reason="polars reads the runs")
    if not TRACES.is_dir():
        pytest.skip(f"no measured runs at {TRACES}; set INFERMIX_SHARED_DATA to the folder that holds traces/")
    spec = importlib.util.spec_from_file_location("measured", REPOSITORY / "benchmarks" / "measured.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    module.TRACES = TRACES  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize("name", FITS)
def test_medians_of_the_half_that_was_not_fitted_are_met(measured: ModuleType, name: str) -> None:
    run = measured.read_run(name, measured.SYSTEMS[name])
    simulated = measured.simulate_fit(run, measured.Fit(*FITS[name], error=0.0))
    rest = np.arange(len(run.requests)) >= measured.FIRST
    off = measured.compare(run, simulated, rest)
    assert all(abs(x) < 0.1 for x in off.values()), off


def test_the_fitted_half_alone_moves_the_error(measured: ModuleType) -> None:
    """Times of the other half do not enter what is minimised, nor the settings that are read off."""
    run = measured.read_run("RTXPRO6000", measured.SYSTEMS["RTXPRO6000"])
    simulated = measured.simulate_fit(run, measured.Fit(*FITS["RTXPRO6000"], error=0.0))
    part = np.arange(len(run.requests)) < measured.FIRST
    slower = measured.replace(run, last_s=np.where(part, run.last_s, run.last_s + 100.0))
    assert measured.error_of(slower, simulated, part) == measured.error_of(run, simulated, part)
    assert measured.most_at_once(run, part) == 128

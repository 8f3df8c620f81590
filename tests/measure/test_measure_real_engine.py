"""A real engine on the CPU: its times follow from the step times that are fitted to it.

Not part of the tests everywhere: the engine and its model are 200 MB and no dependency of infermix.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from infermix.measure.calibration import calibrate
from infermix.measure.probed import timed_probe
from infermix.serve.endpoint import served_models
from infermix.serve.probe import Grid, make_levels, probe

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "cpu_engine.py"
GRID = Grid(clients=(1, 2, 4), prompts=(16, 96), answers=(12, 36), each=2, rounds=3)


@pytest.fixture(scope="module")
def cpu_engine() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cpu_engine", PROGRAM)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    if reason := module.why_not():
        pytest.skip(reason)
    return module


@pytest.mark.compiled_only
def test_medians_of_a_real_engine_are_met_within_15_percent(cpu_engine: ModuleType) -> None:
    """About two minutes; on the processor clock of the engine, so that other programs hardly count."""
    with cpu_engine.engine() as endpoint:
        found = probe(endpoint, served_models(endpoint)[0], make_levels(GRID))
    told = calibrate(timed_probe(found))
    for part in ("fit", "check"):
        errors = told[part]["errors"]
        assert max(abs(errors[name]["bias"]) for name in ("ttft_s", "tpot_s")) < 0.15, errors

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
from infermix.serve.probe import Grid, Probe, make_levels, probe

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "cpu_engine.py"
MOST_OFF = 0.15
GRID = Grid(clients=(1, 2, 4), prompts=(16, 96), answers=(12, 36), each=2, rounds=4)


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


def unlike(found: Probe) -> float:
    """How much longer the slowest round of a concurrency took than its quickest one."""
    took: dict[tuple[int, bool], dict[int, float]] = {}
    for at, _, answer in found.answers:
        level = found.levels[at]
        laps = took.setdefault((level.clients, level.check), {})
        laps[level.lap] = laps.get(level.lap, 0.0) + answer.last_s - answer.sent_s
    return max(max(laps.values()) / min(laps.values()) - 1.0 for laps in took.values())


@pytest.mark.compiled_only
def test_means_of_a_real_engine_are_met_within_15_percent(cpu_engine: ModuleType) -> None:
    """About two minutes; on the processor clock of the engine, and only where its rounds agree with each other."""
    with cpu_engine.engine() as endpoint:
        found = probe(endpoint, served_models(endpoint)[0], make_levels(GRID))
    if (spread := unlike(found)) > MOST_OFF:
        pytest.skip(f"the same questions took up to {spread:.0%} longer in one round than in another: a busy machine")
    told = calibrate(timed_probe(found))
    off = {level["name"]: [level[name]["mean"]["off"] for name in ("ttft_s", "tpot_s")] for level in told["levels"]}
    assert all(abs(x) < MOST_OFF for means in off.values() for x in means), off

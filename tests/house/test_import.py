"""What importing infermix costs: nothing but itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

NUMBERS = {"msgspec", "numpy"}
TABLES_AND_COMPILER = {"numba", "pandas", "polars", "pyarrow", "scipy"}
SOLVERS = {"highspy", "linopy"}
WEB = {"httptools", "httpx", "starlette", "uvicorn", "uvloop"}
FACES = {"click", "jinja2", "plotly", "rich"}
HEAVY = NUMBERS | TABLES_AND_COMPILER | SOLVERS | WEB | FACES


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after ``code``."""
    program = f"{code}\nimport sys\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(run.stdout.split())


def test_importing_infermix_loads_nothing_heavy() -> None:
    assert not loaded_by("import infermix") & HEAVY


def test_the_probe_sees_what_is_loaded() -> None:
    assert loaded_by("import numpy") & HEAVY == {"numpy"}


@pytest.mark.parametrize("name", ["catalog", "Slo", "Deployment", "compile_table"])
def test_facts_and_step_times_load_neither_compiler_nor_solver_nor_web(name: str) -> None:
    found = loaded_by(f"import infermix\ninfermix.{name}")
    assert not found & (HEAVY - NUMBERS)

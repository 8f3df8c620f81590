"""A new part of the house joins the import contracts that are meant for it."""

from __future__ import annotations

import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
CONFIG: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]

SOURCES = {
    "compiled code sees arrays only: no catalog, no msgspec, no pandas": [
        *(f"sim.{name}" for name in ("kernel", "batch", "kv", "step", "heap")),
        *(f"route.{name}" for name in ("policies", "scorers", "admit")),
    ],
    "heavy extras stay in their corner": [
        *("catalog", "workload", "perf", "fleet", "route", "sim", "metrics"),
    ],
    "numba enters by one door": [
        *("catalog", "workload", "perf", "fleet", "route", "sim", "metrics", "cost", "plan", "report", "study", "cli"),
        *("silicon", "serve", "explore", "validate", "measure"),
    ],
    "parts that start fast never reach numba, even through others": [
        *("catalog", "workload", "perf", "cost", "fleet", "metrics", "sim.result", "plan.result"),
    ],
}


def exists(part: str) -> bool:
    return find_spec(f"infermix.{part}") is not None


@pytest.mark.parametrize("name", SOURCES)
def test_a_contract_covers_every_part_that_exists(name: str) -> None:
    contract = next(c for c in CONFIG["contracts"] if c["name"] == name)
    assert set(contract["source_modules"]) >= {f"infermix.{part}" for part in SOURCES[name] if exists(part)}


def test_serve_has_its_own_contract_once_it_exists() -> None:
    sources = {module for c in CONFIG["contracts"] for module in c.get("source_modules", ())}
    forbidden = {
        m
        for c in CONFIG["contracts"]
        if "infermix.serve" in c.get("source_modules", ())
        for m in c["forbidden_modules"]
    }
    assert not exists("serve") or (
        "infermix.serve" in sources and {"infermix.sim.kernel", "infermix.plan"} <= forbidden
    )

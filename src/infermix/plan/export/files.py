"""One folder with everything that leaves the planner."""

from __future__ import annotations

import re
from pathlib import Path

from infermix.catalog.load import Catalog
from infermix.errors import InputError
from infermix.plan.export.bill import bill_of_materials
from infermix.plan.export.gateway import gateway_toml
from infermix.plan.export.sketch import MARK, sketch
from infermix.plan.problem import Study
from infermix.plan.result import Plan


def plan_files(plan: Plan, study: Study, facts: Catalog, folder: Path) -> dict[str, str]:
    """Name of each file beside ``plan.json`` → its text."""
    found = {
        "gateway.toml": gateway_toml(plan, study, facts, folder),
        "bill-of-materials.csv": bill_of_materials(plan, study, facts),
    }
    return found | {f"deploy/{_file_name(pool.name)}.sh": sketch(pool, facts) for pool in plan.fleet}


def _file_name(pool: str) -> str:
    return re.sub(r"[^A-Za-z0-9._+-]+", "-", pool)


def made_folder(path: str | Path) -> Path:
    """The folder, made where it is missing; asked before a plan that could not be written.

    Raises
    ------
    InputError
        It cannot be made, or is a file.
    """
    folder = Path(path)
    try:
        (folder / "deploy").mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(
            f"cannot be written: {fault.strerror}", where=str(path), mend="name a folder of your own"
        ) from None
    return folder


def write_files(found: dict[str, str], folder: Path) -> None:
    """Write them; sketches of pools that an earlier plan had are removed.

    Raises
    ------
    InputError
        One of them cannot be written.
    """
    try:
        for old in (folder / "deploy").glob("*.sh"):
            if MARK in old.read_text(encoding="utf-8", errors="replace"):
                old.unlink()
        for name, text in found.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as fault:
        raise InputError(f"cannot be written: {fault.strerror}", where=str(folder)) from None

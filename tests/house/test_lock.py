"""The lock files: pinned, hashed, in step with the project, and bound to no place."""

from __future__ import annotations

import re
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS = PROJECT["project"]["optional-dependencies"]
PLAN = [*PROJECT["project"]["dependencies"], *EXTRAS["report"], *PROJECT["dependency-groups"]["build"]]
WANTED = {"requirements.lock": PLAN, "requirements-dev.lock": [*PLAN, *EXTRAS["serve"], *EXTRAS["epp"], *EXTRAS["dev"]]}


def pins(name: str) -> list[Requirement]:
    text = (ROOT / name).read_text(encoding="utf-8")
    return [Requirement(line.removesuffix("\\").strip()) for line in re.findall(r"^[a-z].*$", text, re.MULTILINE)]


@pytest.mark.parametrize("name", WANTED)
def test_every_pin_is_exact_and_hashed_and_names_no_place(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text
    blocks = re.split(r"^(?=[a-z])", text, flags=re.MULTILINE)[1:]
    assert len(blocks) == len(pins(name)) > 10
    assert all("--hash=sha256:" in block for block in blocks)
    assert all(re.fullmatch(r"==[^*,]+", str(pin.specifier)) for pin in pins(name))


@pytest.mark.parametrize("name", WANTED)
def test_the_pins_meet_what_the_project_asks(name: str) -> None:
    locked = pins(name)
    for want in map(Requirement, WANTED[name]):
        mine = [pin for pin in locked if canonicalize_name(pin.name) == canonicalize_name(want.name)]
        assert mine, f"{want} is not locked; run make lock"
        versions = [next(iter(pin.specifier)).version for pin in mine]
        assert all(want.specifier.contains(version) for version in versions), (
            f"{want}: locked {versions}; run make lock"
        )


def test_both_files_agree() -> None:
    plan, dev = ({str(pin) for pin in pins(name)} for name in WANTED)
    assert plan <= dev


def test_nothing_is_asked_for_twice() -> None:
    names = [Requirement(line).name for line in chain(PLAN, EXTRAS["serve"], EXTRAS["epp"], EXTRAS["dev"])]
    assert len(set(names)) == len(names)

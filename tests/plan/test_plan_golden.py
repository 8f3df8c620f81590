"""Each group of equations as text, on a program of four columns.

``INFERMIX_GOLDEN=write`` writes the files anew; read the difference before it is kept.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infermix.plan import model
from infermix.plan.model import Column, Program, build, make_table
from infermix.plan.model.lp import Terms, as_highs
from infermix.plan.problem import Limits
from infermix.plan.question import Question
from tests.plan.questions import demand, offer, option, question

FOLDER = Path(__file__).parents[1] / "golden" / "plan"
GROUPS = [name for name, _ in inspect.getmembers(sys.modules[build.__module__], inspect.isfunction)
          if name.startswith("define_")]  # fmt: skip
FIRST = ("define_pools", "define_rates", "define_contracts")
"""Groups that make the variables of the others."""


def asked() -> Question:
    limits = Limits(
        max_vendor_share=0.75, vendor_share_of="spend", min_share_output_tokens={"sram": 0.25}, power_mw=0.5,
        usd_per_hour=100.0,
    )  # fmt: skip
    offers = [offer("h100-x8", 24.0, supply=5, facility_w=12_000.0), offer("cs3", 64.0, supply=8, facility_w=24_000.0)]
    return question(offers, [demand("chat", 40.0, 200), demand("code", 10.0, 50)], limits, forced="cs3")


def columns(of: Question) -> list[Column]:
    gpu, sram = of.offers
    return [
        Column(option(gpu, tp=2), 1, 1, {"chat": 8.0, "code": 4.0}),
        Column(option(gpu, tp=2), 2, 3, {"chat": 10.0, "code": 5.0}),
        Column(option(gpu, tp=8), 0, 512, {"chat": 32.0}),
        Column(option(sram, stages=2), 4, 7, {"code": 16.0}),
    ]


def text(program: Program, path: Path, first: int = 0, objective: Terms | None = None) -> str:
    """The program as HiGHS writes it, with our names, without the rows before ``first``."""
    as_highs(program.lp, objective or []).writeModel(str(path))
    lines, row = [], -1
    for line in path.read_text().splitlines():
        _, colon, rest = line.partition(":")
        if not colon or line.startswith(" obj"):
            lines.append(line)
            continue
        row += 1
        if row >= first:
            lines.append(f" {program.lp.row_names[row]}:{rest}")
    return re.sub(r"\bc(\d+)\b", lambda m: program.lp.names[int(m[1])], "\n".join(lines) + "\n")


def define(name: str) -> Callable[[Program], None]:
    found: Callable[[Program], None] = getattr(sys.modules[build.__module__], name)
    return found


def group(name: str, path: Path, question: Question) -> str:
    program = Program(question, make_table(question, columns(question)))
    before = 0
    for needed in FIRST if name not in FIRST else FIRST[: FIRST.index(name)]:
        define(needed)(program)
        before = len(program.lp.row_names)
    define(name)(program)
    return text(program, path, before)


def compare(found: str, golden: Path) -> None:
    if os.environ.get("INFERMIX_GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text(), f"{golden} differs; INFERMIX_GOLDEN=write writes it anew"


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_alone(name: str, tmp_path: Path) -> None:
    compare(group(name, tmp_path / "model.lp", asked()), FOLDER / f"{name}.lp")


def test_the_whole_program_with_its_objective(tmp_path: Path) -> None:
    question = asked()
    program = model.build(question, make_table(question, columns(question)))
    compare(text(program, tmp_path / "model.lp", 0, model.cost(program)), FOLDER / "whole.lp")


def test_every_group_has_its_file_and_every_file_its_group() -> None:
    assert {path.stem for path in FOLDER.glob("*.lp")} == {*GROUPS, "whole"}


def test_build_calls_every_group() -> None:
    source = inspect.getsource(build)
    assert all(f"{name}(program)" in source for name in GROUPS)


def test_the_output_tokens_of_a_vendor(tmp_path: Path) -> None:
    """The other reading of a vendor's share: of tokens, not of spend."""
    question = asked()
    question = question.with_limits(Limits(max_vendor_share=0.75, vendor_share_of="output_tokens"))
    program = Program(question, make_table(question, columns(question)))
    for name in (*FIRST, "define_vendor_share"):
        define(name)(program)
    lines = text(program, tmp_path / "model.lp").splitlines()
    (nvidia,) = (line for line in lines if "vendor_NVIDIA:" in line)
    assert "+50 rate_chat_0" in nvidia and "+12.5 rate_code_0" in nvidia and "-37.5 rate_code_3" in nvidia

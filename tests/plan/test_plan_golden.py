"""Each group of equations as text, on a program of four columns.

``INFERMIX_GOLDEN=write`` writes the files anew; read the difference before it is kept.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from infermix.plan import model
from infermix.plan.model import Column, Program, build, make_table
from infermix.plan.model.lp import Terms, as_highs
from infermix.plan.offers import Api, Contract
from infermix.plan.problem import Slots
from infermix.plan.question import Question
from infermix.plan.rules import Limits, Redundancy, Share
from infermix.plan.slots import Slot
from tests.plan.questions import CAT, MODEL, demand, offer, option, question

FOLDER = Path(__file__).parents[1] / "golden" / "plan"
GROUPS = [name for name, _ in inspect.getmembers(sys.modules[build.__module__], inspect.isfunction)
          if name.startswith("define_")]  # fmt: skip
FIRST = ("define_pools", "define_rates", "define_starts", "define_api", "define_unmet", "define_contracts")
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


def full() -> Question:
    """Two slots, contracts of every kind, an API: what the groups that ``asked`` leaves empty are about."""
    contracts = (
        Contract("taken", 20.0, supply=4, capital_usd=3e5, least_paid=2),
        Contract("spot", 9.0, supply=6, hourly=True, up=0.9),
        Contract("late", 5.0, late=True),
    )
    gpu, sram = asked().offers
    house = Api("house", "Somebody", CAT.models[MODEL], 1.0, 0.25, 4.0, 50.0, 0.5, most_tokens_per_s=500.0)
    chat = demand("chat", 40.0, 200, rates_per_s=(40.0, 10.0))
    waits = demand("code", 10.0, 50, cls=msgspec.structs.replace(chat.cls, deferrable=True), rates_per_s=(10.0, 2.0))
    limits = Limits(
        shares=[Share(of="capacity", vendor="NVIDIA", least=0.2, most=0.8)], capital_usd=1e6, rationing=True,
        redundancy=Redundancy(system=0.9, vendor=0.5), usd_per_hour=100.0,
    )  # fmt: skip
    slots = Slots(count=2, usd_per_start=3.0, load_gb_per_s=2.0)
    return question(
        [replace(gpu, contracts=contracts), sram], [chat, waits], limits, apis=(house,), seen=(frozenset({"cs3"}),),
        study=msgspec.structs.replace(asked().study, slots=slots),
        slots=(Slot("00:00", 0, 12.0), Slot("12:00", 12, 12.0)),
    )  # fmt: skip


def split(of: Question) -> list[Column]:
    """Prompts on one system, answers on the other."""
    gpu, sram = of.offers
    return [
        Column(option(gpu, tp=2, role="prefill"), 1, 3, {"chat": 10.0}),
        Column(option(gpu, tp=2, role="decode"), 1, 3, {"chat": 6.0}),
        Column(option(sram, stages=2), 1, 2, {"chat": 16.0}),
    ]


def two_pairs(of: Question) -> list[Column]:
    """Prompts on one system and answers on the other, either way."""
    gpu, sram = of.offers
    made = [(option(gpu, tp=2, role="prefill"), "a"), (option(sram, stages=2, role="decode"), "a")]
    made += [(option(sram, stages=2, role="prefill"), "b"), (option(gpu, tp=2, role="decode"), "b")]
    return [Column(replace(part, pair=name), 1, 3, {"chat": 10.0}) for part, name in made]


FULL = (
    "define_starts", "define_capacity", "define_api", "define_unmet", "define_demand", "define_deferrable",
    "define_contracts", "define_delivery", "define_take_or_pay", "define_hosting", "define_no_idle_systems",
    "define_capital", "define_shares", "define_system_loss", "define_vendor_loss", "define_budget",
    "define_other_systems",
)  # fmt: skip
"""Groups written for the full question; the others for the plain one."""
COLUMNS = {"define_handover": split, "define_one_pair": two_pairs}
"""Columns of the groups that say something of roles only."""


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


def group(name: str, path: Path) -> str:
    question = full() if name in FULL else asked()
    program = Program(question, make_table(question, COLUMNS.get(name, columns)(question)))
    before = 0
    for needed in FIRST if name not in FIRST else FIRST[: FIRST.index(name)]:
        define(needed)(program)
        before = len(program.lp.row_names)
    variables = len(program.lp.names)
    define(name)(program)
    assert len(program.lp.row_names) > before or len(program.lp.names) > variables, "a golden file of nothing"
    return text(program, path, before)


def compare(found: str, golden: Path) -> None:
    if os.environ.get("INFERMIX_GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text(), f"{golden} differs; INFERMIX_GOLDEN=write writes it anew"


@pytest.mark.parametrize("name", GROUPS)
def test_a_group_alone(name: str, tmp_path: Path) -> None:
    compare(group(name, tmp_path / "model.lp"), FOLDER / f"{name}.lp")


def test_the_whole_program_with_its_objective(tmp_path: Path) -> None:
    question = asked()
    program = model.build(question, make_table(question, columns(question)))
    compare(text(program, tmp_path / "model.lp", 0, model.cost(program)), FOLDER / "whole.lp")


def test_the_whole_program_with_everything(tmp_path: Path) -> None:
    question = full()
    program = model.build(question, make_table(question, columns(question)))
    compare(text(program, tmp_path / "model.lp", 0, model.cost(program)), FOLDER / "whole_day.lp")


def test_every_group_has_its_file_and_every_file_its_group() -> None:
    assert {path.stem for path in FOLDER.glob("*.lp")} == {*GROUPS, "whole", "whole_day"}


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

"""What a search over designs is asked with: a space, a mix of work, terms of money, and a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from infermix.catalog.load import catalog
from infermix.catalog.parse import Raw, check_keys, convert
from infermix.catalog.query import find_model
from infermix.catalog.records import Model
from infermix.errors import InputError, located
from infermix.silicon.constants import Constants
from infermix.silicon.cost import read, seed_of
from infermix.silicon.space import Money, Space, Work, designs_of

KEYS = ("name", "constants", "seed", "space", "work", "money", "fleet", "top")
TOP = 20


class Question(NamedTuple):
    """A file, read and checked."""

    name: str
    space: Space
    works: dict[str, tuple[Work, Model]]
    money: Money
    table: Constants
    study: Path | None
    top: int
    seed: int


def read_question(path: str | Path) -> Question:
    """The space, the mix and the terms of a file. Raises InputError for files that cannot be."""
    raw, table = read(path, KEYS)
    where = str(path)
    for key in ("space", "work", "money"):
        if not isinstance(raw.get(key), dict):
            raise InputError(f"the [{key}] table is missing", where=where, allowed="[space], [work.NAME] and [money]")
    space: Space = _struct(Space, raw["space"], f"{where}: space")
    _check_space(space, table, f"{where}: space")
    works = {name: _work(said, f"{where}: work.{name}") for name, said in raw["work"].items()}
    money: Money = _struct(Money, raw["money"], f"{where}: money")
    if not 0 <= money.gross_margin < 1 or not 0 < money.load <= 1 or not money.life_years > 0:
        raise InputError("not terms of money", where=f"{where}: money", allowed="a margin below 1, a load above 0 to 1")
    fleet: Raw = raw.get("fleet", {})
    check_keys(fleet, ("study",), f"{where}: fleet")
    study = Path(path).parent / str(fleet["study"]) if "study" in fleet else None
    top = raw.get("top", TOP)
    if not isinstance(top, int) or not 1 <= top <= TOP:
        raise InputError("top must be 1 to 20", where=f"{where}: top", value=top)
    return Question(str(raw.get("name", "")), space, works, money, table, study, top, seed_of(raw, where))


def _struct(type_: Any, said: Any, where: str) -> Any:
    if not isinstance(said, dict):
        raise InputError("not a table", where=where, value=said)
    check_keys(said, type_.__struct_fields__, where)
    for name, value in said.items():
        for number in value if isinstance(value, list) else [value]:
            if isinstance(number, (int, float)) and number < 0:
                raise InputError(f"{name} must not be negative", where=f"{where}.{name}", value=number)
    return convert(type_, said, where)


def _work(said: Any, where: str) -> tuple[Work, Model]:
    work: Work = _struct(Work, said, where)
    if work.input_tokens < 1 or work.output_tokens < 1 or work.cached_tokens > work.input_tokens:
        raise InputError(
            "not a request", where=where, allowed="input and output of 1 or more, cached at most the input"
        )
    with located(where):
        return work, find_model(work.model, catalog())


def _check_space(space: Space, table: Constants, where: str) -> None:
    for node in space.node:
        table.known("nodes", node, f"{where}.node")
        for name in ("joule_per_flop", "mac_mm2_s_per_flop", "sram_mm2_per_byte", "hbm_phy_mm2"):
            with located(f"{where}.node"):
                table[f"nodes/{node}/{name}"]
    for hbm in space.hbm:
        table.known("memory", hbm, f"{where}.hbm")
    if any(stacks > 0 for stacks in space.stacks) and not space.hbm:
        raise InputError("of which memory?", where=f"{where}.hbm", allowed=", ".join(table.shelves("memory")))
    if any(not 0 <= spare < 1 for spare in space.spare_share):
        raise InputError(
            "not a share of cores", where=f"{where}.spare_share", value=space.spare_share, allowed="0 to 1"
        )
    if not len(designs_of(space)):
        raise InputError("the space is empty", where=where, mend="state values for every key")

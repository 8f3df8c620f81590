"""Rows of a file become pools; whole systems are counted."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.errors import InputError
from infermix.fleet import Fleet, PoolRow, make_fleet
from infermix.perf.table import compile_table

CAT = catalog()


def fleet(model: str = "llama-3.1-8b", classes: tuple[str, ...] = ("chat",), **rows: dict[str, Any]) -> Fleet:
    pools = {name: msgspec.convert(row, PoolRow) for name, row in rows.items()}
    return make_fleet(CAT, pools, model, classes, "f.toml: fleet")


def refusal(**row: Any) -> str:
    with pytest.raises(InputError) as told:
        fleet(a={"system": "h100-x8", "instances": 1, **row})
    return str(told.value)


def test_faults_are_told_with_the_row() -> None:
    unknown = refusal(system="h100x8")
    assert "'h100x8'" in unknown and "did you mean 'h100-x8'?" in unknown
    served = refusal(serves={"chta": 1.0})
    assert "f.toml: fleet.a" in served and "'chta'" in served and "did you mean 'chat'?" in served
    for count in (0, -1):
        assert f"f.toml: fleet.a: instances must be 1 or more; got {count}" in refusal(instances=count)
    assert "f.toml: fleet.a.spec: not a form of speculative decoding; got 'eagle'" in refusal(spec="eagle")
    assert "did you mean 'llama-3.1-8b'?" in refusal(model="llama-3.1-9b")


def test_stages_default_to_the_fewest_that_fit() -> None:
    found = fleet(a={"instances": 1, "system": "cs3", "model": "gpt-oss-120b"})
    assert found.pools[0].deployment.stages == 2


@pytest.mark.parametrize(
    ("row", "must"),
    [
        ({"system": "h100-x8", "tp": 3}, "tp must divide the attention heads; got 3"),
        ({"system": "h100-x8", "tp": 4, "dp": 3}, "tp x pp x dp does not fill whole systems; got 12"),
        ({"system": "h100-x8", "tp": 8, "pp": 33}, "pp exceeds the layers; got 33"),
        ({"system": "h100-x8", "tp": 8, "ep": 8}, "ep is for models with experts; got 8"),
        ({"system": "h100-x8", "tp": -1}, "tp, pp, dp and ep must be 1 or more"),
        ({"system": "h100-x8", "stages": 2}, "stages is for SRAM machines"),
        ({"system": "cs3", "stages": 0}, "stages missing"),
        ({"system": "h100-x8", "weights": "fp3"}, "unknown weight dtype; got 'fp3'"),
        ({"system": "h100-x8", "kv": "fp3"}, "unknown KV dtype; got 'fp3'"),
        ({"system": "h100-x8", "max_num_seqs": 9000}, "max_num_seqs out of range; got 9000"),
    ],
)
def test_layouts_that_do_not_go_with_the_machine(row: dict[str, Any], must: str) -> None:
    made = fleet(a={"instances": 1, **row})
    with pytest.raises(InputError) as told:
        compile_table(made.pools[0].deployment)
    assert must in str(told.value) and f"llama-3.1-8b on {row['system']}" in str(told.value)


@pytest.mark.parametrize(
    ("row", "systems"),
    [
        ({"system": "h100-x8", "tp": 1, "instances": 8}, 1),
        ({"system": "h100-x8", "tp": 1, "instances": 9}, 2),
        ({"system": "h100-x8", "tp": 4, "instances": 3}, 2),
        ({"system": "h100-x8", "tp": 2, "dp": 2, "instances": 2}, 1),
        ({"system": "h100-x8", "instances": 3}, 3),
        ({"system": "h100-x8", "dp": 8, "instances": 3}, 3),
        ({"system": "h100-x1", "instances": 5}, 5),
        ({"system": "cs3", "stages": 4, "instances": 3}, 12),
        ({"system": "h100-x8", "tp": 8, "pp": 2, "instances": 3}, 6),
        ({"system": "h100-x8", "tp": 16, "instances": 2}, 4),
        ({"system": "h100-x8", "tp": 2, "pp": 2, "instances": 3}, 2),
    ],
)
def test_money_is_spent_on_whole_systems(row: dict[str, Any], systems: int) -> None:
    pool = fleet(a=row).pools[0]
    assert pool.systems == systems
    d = pool.deployment
    chips = d.stages * d.system.chips if d.is_pipeline else d.tp * d.pp * d.dp
    assert d.chips == chips and systems * d.system.chips >= pool.instances * chips


def test_a_row_without_layout_takes_the_whole_system() -> None:
    d = fleet(a={"system": "h100-x8", "instances": 1}).pools[0].deployment
    assert (d.tp, d.dp, d.stages) == (8, 1, 0)
    d = fleet(a={"system": "h100-x8", "dp": 4, "instances": 1}).pools[0].deployment
    assert (d.tp, d.dp) == (2, 4)
    d = fleet(a={"system": "h100-x8", "pp": 2, "instances": 1}).pools[0].deployment
    assert (d.tp, d.pp, d.dp, d.ep) == (4, 2, 1, 1)
    d = fleet(model="gpt-oss-120b", a={"system": "h100-x8", "dp": 8, "ep": 8, "instances": 1}).pools[0].deployment
    assert (d.tp, d.pp, d.dp, d.ep) == (1, 1, 8, 8)


def test_shares_are_by_class_and_pool() -> None:
    row: dict[str, Any] = {"system": "h100-x1", "instances": 1}
    made = fleet(classes=("chat", "code"), a={**row, "serves": {"chat": 0.25}}, b={**row, "serves": {"code": 1}}, c=row)
    assert np.array_equal(made.shares(("chat", "code")), [[0.25, 0.0, 1.0], [0.0, 1.0, 1.0]])


def test_resized_drops_a_pool_of_none() -> None:
    row: dict[str, Any] = {"system": "h100-x1", "instances": 2}
    made = fleet(a=row, b=row)
    assert [p.instances for p in made.resized(1, 5).pools] == [2, 5]
    assert [p.name for p in made.resized(0, 0).pools] == ["b"] and len(made.pools) == 2

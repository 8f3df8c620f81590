"""Block ids of a trace stay with its requests; copies of the trace and classes have ids of their own."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest

from infermix.catalog.load import catalog
from infermix.fleet import PoolRow, make_fleet
from infermix.sim.paths import paths_of
from infermix.sim.run import simulate_fleet
from infermix.workload.arrivals import draw
from infermix.workload.classes import Slo, TrafficClass
from infermix.workload.laws import Arrivals
from infermix.workload.requests import Requests
from infermix.workload.rows import Rows, joined, without_parents

SLO = Slo(ttft_s=1.0)
IDS = [[0, 1], [0, 1, 2], [0, 1], [0, 9, 2, 8], []]
"""Of five requests, 10 s apart."""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    rows = [
        {"timestamp": 10_000 * i, "input_length": 512 * len(ids) + 100, "output_length": 5, "hash_ids": ids}
        for i, ids in enumerate(IDS)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def ids_of(requests: Requests, row: int) -> list[int]:
    start, end = requests.block_start[0][row : row + 2]
    return [int(i) for i in requests.block_ids[0][start:end]]


def same_as(requests: Requests, rows: list[int], ids: list[list[int]]) -> bool:
    """Whether the ids of some rows are those given, by other numbers."""
    pairs = {
        (a, b) for row, there in zip(rows, ids, strict=True) for a, b in zip(ids_of(requests, row), there, strict=True)
    }
    return len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def test_a_trace_as_recorded_keeps_its_ids(trace: Path) -> None:
    found = draw({"a": TrafficClass(trace="m.jsonl", slo=SLO)}, seed=1, base_dir=trace).requests
    assert len(found) == 5 and found.block_id_tokens == 512
    assert same_as(found, [0, 1, 2, 3, 4], IDS)
    shared = paths_of(found).shared
    assert shared.tolist() == [1024, 1024, 1024, 512, 0]


def test_a_round_played_again_is_of_other_users(trace: Path) -> None:
    found = draw({"a": TrafficClass(trace="m.jsonl", slo=SLO)}, seed=1, requests=10, base_dir=trace).requests
    assert len(found) == len(found.block_start[0]) - 1 == 10
    assert same_as(found, [0, 1, 2, 3, 4], IDS) and same_as(found, [5, 6, 7, 8, 9], IDS)
    first, second = ({i for row in rows for i in ids_of(found, row)} for rows in (range(5), range(5, 10)))
    assert not first & second


@pytest.mark.parametrize("law", [None, Arrivals()])
def test_every_copy_has_ids_of_its_own(trace: Path, law: Arrivals | None) -> None:
    """At ten times the rate: requests share their first block with the few of their own copy, not with the others'."""
    cls = TrafficClass(trace="m.jsonl", slo=SLO, rate_per_s=1.0, arrivals=law)
    found = draw({"a": cls}, seed=1, requests=400, base_dir=trace).requests
    firsts = [ids_of(found, row)[0] for row in range(len(found)) if ids_of(found, row)]
    counts = np.unique(firsts, return_counts=True)[1]
    assert counts.max() == 4 and len(counts) > 70
    assert set(np.diff(found.block_start[0])) == {0, 2, 3, 4}


def test_classes_have_ids_of_their_own(trace: Path) -> None:
    cls = TrafficClass(trace="m.jsonl", slo=SLO)
    found = draw({"a": cls, "b": cls}, seed=1, base_dir=trace).requests
    by_class = [{i for row in np.flatnonzero(found.class_id == c) for i in ids_of(found, row)} for c in (0, 1)]
    assert len(by_class[0]) == len(by_class[1]) == 5 and not by_class[0] & by_class[1]


def test_where_a_class_has_none_nobody_has(trace: Path) -> None:
    drawn = TrafficClass(profile="azure-conv-2023", rate_per_s=1.0, slo=SLO)
    mixed = draw({"a": TrafficClass(trace="m.jsonl", slo=SLO), "b": drawn}, seed=1, base_dir=trace).requests
    assert mixed.block_ids == mixed.block_start == () and len(np.unique(mixed.class_id)) == 2


def test_sources_without_rows_do_not_matter() -> None:
    none = np.zeros(0, np.int32)
    assert joined([Rows(np.zeros(0), none, none, none, without_parents(0))]).blocks is None


def test_a_prefix_cache_finds_what_the_trace_shares(trace: Path) -> None:
    """Alone on one instance: every request finds the blocks that one before it had, as an ideal cache would."""
    requests = draw({"a": TrafficClass(trace="m.jsonl", slo=SLO)}, seed=1, base_dir=trace).requests
    rows = {"one": msgspec.convert({"system": "h100-x1", "instances": 1, "prefix_cache": True}, PoolRow)}
    run = simulate_fleet(make_fleet(catalog(), rows, "llama-3.1-8b", ("a",), "f"), requests, "least_wait")
    assert run.hit_tokens.tolist() == requests.cached_tokens.tolist() == [0, 1024, 1024, 512, 0]

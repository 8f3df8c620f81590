"""The tree of what requests share, against their paths token by token."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.sim.paths import Paths, paths_of
from infermix.workload.closed import ClosedLoop
from infermix.workload.requests import Requests, make_requests
from infermix.workload.rows import in_order
from infermix.workload.traces import read_trace
from infermix.workload.turns import stretches
from tests.naive import paths as naive
from tests.naive.tables import KINDS, random_requests
from tests.nightly import examples

SHARED = Path(os.environ.get("INFERMIX_SHARED_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))


def table(rows: list[tuple[int, int, int, int, int]]) -> Requests:
    """Requests of one class from (input, output, cached, session, parent)."""
    columns = np.array(rows).T
    return make_requests(
        ("a",), np.arange(len(rows)), columns[0], columns[1], cached_tokens=columns[2], session=columns[3],
        parent=columns[4],
    )  # fmt: skip


def pieces(paths: Paths) -> list[tuple[int, int, int]]:
    rows = paths.segments
    return list(zip(rows["parent"].tolist(), rows["from_tokens"].tolist(), rows["to_tokens"].tolist(), strict=True))


def test_a_session_that_only_grows_is_one_segment() -> None:
    found = paths_of(table([(10, 5, 0, 0, -1), (30, 5, 14, 0, 0), (60, 5, 34, 0, 1), (100, 5, 60, 0, 2)]))
    assert pieces(found) == [(-1, 0, 60)]
    assert found.segment.tolist() == [0, 0, 0, 0]
    assert found.shared.tolist() == [14, 34, 60, 60]


def test_it_is_cut_where_a_second_child_attaches() -> None:
    found = paths_of(table([(10, 5, 0, 0, -1), (30, 5, 14, 0, 0), (60, 5, 34, 0, 1), (40, 5, 20, 0, 1)]))
    assert pieces(found) == [(-1, 0, 20), (0, 20, 34)]
    assert found.segment.tolist() == [0, 1, 1, 0]
    twice = paths_of(table([(10, 5, 0, 0, -1), (30, 5, 14, 0, 0), (60, 5, 14, 0, 0), (70, 1, 64, 0, 2)]))
    assert pieces(twice) == [(-1, 0, 14), (0, 14, 64)], "two at the same place cut there, too"


def test_a_child_that_shares_less_than_its_parent_attaches_further_up() -> None:
    found = paths_of(table([(10, 5, 0, 0, -1), (30, 5, 14, 0, 0), (60, 5, 6, 0, 1), (70, 5, 14, 0, 1)]))
    assert pieces(found) == [(-1, 0, 6), (0, 6, 14)]
    assert found.segment.tolist() == [1, 1, 0, 1]
    assert found.shared.tolist() == [14, 14, 6, 14]


def test_cached_tokens_reach_at_most_to_the_end_of_the_parents_path() -> None:
    found = paths_of(table([(10, 5, 0, 0, -1), (90, 5, 80, 0, 0)]))
    assert pieces(found) == [(-1, 0, 14)]


def test_a_beginning_of_a_class_is_cut_at_every_length() -> None:
    found = paths_of(table([(50, 5, 20, -1, -1), (50, 5, 10, -1, -1), (50, 5, 0, -1, -1), (50, 5, 30, -1, -1)]))
    assert pieces(found) == [(-1, 0, 10), (0, 10, 20)], "nobody else has what comes after in the longest"
    assert found.segment.tolist() == [1, 0, -1, 1]
    assert found.shared.tolist() == [20, 10, 0, 20]


def test_lengths_of_a_beginning_are_rounded_down_to_four_in_each_octave() -> None:
    cached = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 19, 20, 1023, 1024, 1279, 1280, 99_999, 2**30]
    rounded = [1, 2, 3, 4, 5, 6, 7, 8, 8, 10, 12, 12, 14, 16, 16, 20, 896, 1024, 1024, 1280, 98_304, 2**30]
    rows = [(2**30 + 1, 1, tokens, -1, -1) for tokens in cached for _ in range(2)]
    assert paths_of(table(rows)).shared[::2].tolist() == rounded
    assert [naive.rounded_down(tokens) for tokens in cached] == rounded
    assert naive.rounded_down(0) == 0


def test_a_parent_in_another_session_shares_nothing_by_itself() -> None:
    found = paths_of(table([(50, 5, 0, 0, -1), (50, 5, 20, 1, 0), (50, 5, 20, -1, -1), (50, 5, 20, -1, 2)]))
    assert found.shared.tolist() == [0, 0, 20, 20], "a session shares nothing with those without one"
    assert pieces(found) == [(-1, 0, 20)]


def test_without_a_parent_the_last_row_of_the_session_says_what_is_shared_and_all_cuts() -> None:
    rows = [(10, 5, 9, 0, -1), (50, 5, 40, 1, -1), (30, 5, 20, 0, -1), (60, 5, 34, 0, 1), (70, 5, 60, 0, 3)]
    found = paths_of(table(rows))
    assert pieces(found) == [(-1, 0, 14), (0, 14, 34), (1, 34, 60)], "the first of a session finds nothing"
    assert found.shared.tolist() == [14, 0, 34, 60, 60]
    assert found.segment.tolist() == [0, -1, 1, 2, 2]


def test_nobody_shares_and_nobody_is_there() -> None:
    assert paths_of(table([(50, 5, 20, 0, -1)])).segment.tolist() == [-1]
    empty = paths_of(make_requests(("a",), [], [], []))
    assert len(empty.segments) == len(empty.segment) == len(empty.shared) == 0


def test_ids_count_as_whole_blocks_and_cut_at_every_end() -> None:
    plain = table([(8, 9, 0, 0, -1), (13, 5, 4, 0, 0), (12, 5, 4, 0, 1), (3, 5, 1, 0, 2)])
    ids = np.array([1, 2, 1, 2, 3, 4, 1, 2, 3, 1])
    found = paths_of(replace(plain, block_start=(np.array([0, 2, 6, 9, 10]),), block_ids=(ids,), block_id_tokens=4))
    assert pieces(found) == [(-1, 0, 8), (0, 8, 12)]
    assert found.segment.tolist() == [0, 1, 1, -1]
    assert found.depth.tolist() == [1, 2, 2, 0]


def follows_its_parent(requests: Requests, row: int) -> bool:
    """Whether the request goes on with the conversation of its parent."""
    parent, session = int(requests.parent[row]), int(requests.session[row])
    return parent >= 0 and session >= 0 and int(requests.session[parent]) == session


def keeps_order(requests: Requests, row: int) -> bool:
    """Whether all of its session that share what came before in it come after the turn that they share it with."""
    turns = np.flatnonzero(requests.session == requests.session[row])[1:]
    return all(follows_its_parent(requests, int(turn)) or requests.cached_tokens[turn] == 0 for turn in turns)


def naive_chains(requests: Requests, paths: list[naive.Path]) -> list[list[int]]:
    """Of every request the segments of its shared path, each by the node of its last token."""
    rows_at: dict[int, list[int]] = {}
    for row, path in enumerate(paths):
        for node in path.nodes[: path.shared]:
            rows_at.setdefault(node, []).append(row)

    def goes_on(node: int, k: int) -> int:
        """The node with which the segment of the k-th token goes on; -1 where it ends."""
        groups: dict[int, list[int]] = {}
        for row in rows_at[node]:
            groups.setdefault(paths[row].nodes[k] if k < len(paths[row].nodes) else -2 - row, []).append(row)
        many = [other for other, rows in groups.items() if len(rows) > 1]
        if len(many) != 1 or len(groups) > 2:
            return -1
        left = [rows[0] for other, rows in groups.items() if other != many[0]]
        child = min(groups[many[0]])  # the first that has it, from which the others have it
        if left and requests.block_ids:
            return -1
        if left and not (follows_its_parent(requests, child) and keeps_order(requests, child)):
            return -1
        return many[0] if left in ([], [int(requests.parent[child])]) else -1

    chains = []
    for path in paths:
        chain = [node for k, node in enumerate(path.nodes[: path.shared], 1) if goes_on(node, k) < 0]
        if path.shared and path.nodes[path.shared - 1] not in chain[-1:]:
            node, k = path.nodes[path.shared - 1], path.shared
            while (further := goes_on(node, k)) >= 0:
                node, k = further, k + 1
            chain.append(node)
        chains.append(chain)
    return chains


def check(requests: Requests) -> None:
    found, paths = paths_of(requests), naive.paths_of(requests)
    assert found.shared.tolist() == [path.shared for path in paths]
    depth_of = {node: k for path in paths for k, node in enumerate(path.nodes, 1)}
    rows = found.segments
    node_of: dict[int, int] = {}
    assert np.all(rows["parent"] < np.arange(len(rows)))
    chains = naive_chains(requests, paths)
    for row, chain in enumerate(chains):
        at = int(found.segment[row])
        for node in reversed(chain):
            assert node_of.setdefault(at, node) == node and rows["to_tokens"][at] == depth_of[node]
            above = int(rows["parent"][at])
            assert rows["from_tokens"][at] == (rows["to_tokens"][above] if above >= 0 else 0)
            assert rows["depth"][at] == (rows["depth"][above] if above >= 0 else 0) + 1
            at = above
        assert at == -1
    assert len(node_of) == len(rows) == len(set(node_of.values())), "every segment is on a path, and only once"
    assert found.depth.tolist() == [len(chain) for chain in chains]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=examples(150), deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 14))
def test_segments_are_those_of_the_paths_token_by_token(kind: str, seed: int, n: int) -> None:
    check(random_requests(np.random.default_rng(seed), n, kind))


def recorded(name: str) -> Path:
    folder = SHARED / "traces"
    if not folder.is_dir():
        pytest.skip(f"no recorded traces in {folder}; set INFERMIX_SHARED_DATA to the folder that holds traces/")
    return folder / name


def test_recorded_ids_share_what_a_trie_of_them_shares() -> None:
    trace = read_trace(recorded("mooncake_conversation.parquet"))
    plain = make_requests(("a",), trace.t_s, trace.input_tokens, trace.output_tokens)
    found = paths_of(replace(plain, block_start=trace.block_start, block_ids=trace.block_ids))
    seen: dict[tuple[int, ...], int] = {}
    rows = []
    for row in range(len(trace)):
        start, end = trace.block_start[0][row : row + 2]
        ids = tuple(trace.block_ids[0][start : min(end, start + trace.input_tokens[row] // 512)].tolist())
        rows.append(ids)
        for k in range(1, len(ids) + 1):
            seen[ids[:k]] = seen.get(ids[:k], 0) + 1
    wanted = [512 * sum(seen[ids[:k]] > 1 for k in range(1, len(ids) + 1)) for ids in rows]
    assert found.shared.tolist() == wanted
    assert 0.2 < found.shared.sum() / trace.input_tokens.sum() < 0.9


@pytest.mark.compiled_only
def test_recorded_sessions_played_a_million_times_are_cut_at_once() -> None:
    work = stretches(read_trace(recorded("agentic_coding.parquet")), 3600.0)
    rows = ClosedLoop(work, 300, 1).rows(1e6 / 300 / work.rate_per_s, 1)
    order = np.argsort(rows.arrival_s, kind="stable")
    assert rows.parent is not None
    requests = make_requests(
        ("a",), rows.arrival_s[order], rows.input_tokens[order], rows.output_tokens[order],
        cached_tokens=rows.cached_tokens[order], session=rows.session[order], parent=in_order(rows.parent, order),
    )  # fmt: skip
    found = paths_of(requests)
    assert len(requests) > 900_000
    assert len(found.segments) < 0.2 * len(requests), "a session that grows is few segments"
    path = requests.input_tokens + requests.output_tokens - 1
    assert np.all(found.shared <= path) and np.all(found.shared <= found.segments["to_tokens"][found.segment])

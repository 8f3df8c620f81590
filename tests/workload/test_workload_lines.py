"""JSON lines of plain numbers are read straight into arrays; nobody can tell but by the clock."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infermix.errors import InputError
from infermix.workload import columns, lines
from infermix.workload.columns import Columns, read_columns
from infermix.workload.lines import read_numbers
from infermix.workload.traces import known_prefix_blocks

ROW: dict[str, Any] = {"timestamp": 5, "input_length": 700, "output_length": 3, "hash_ids": [4, 9]}
OWN: dict[str, Any] = {"t_s": 1.5, "input_tokens": 7, "output_tokens": 3, "cached_tokens": 2}


def text(*rows: dict[str, Any] | str) -> str:
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def less(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


PLAIN = {
    "mooncake": text(ROW, ROW | {"timestamp": 6.25, "hash_ids": []}, ROW | {"timestamp": 1e3}),
    "without ids": text(*[less(ROW, "hash_ids")] * 2),
    "ids in no line": text(*[ROW | {"hash_ids": []}] * 2),
    "ids left out later": text(ROW, less(ROW, "hash_ids"), ROW),
    "no end of the last line": text(ROW, ROW).rstrip(),
    "ends as on Windows": text(ROW, ROW).replace("\n", "\r\n"),
    "another order of keys": text(ROW, dict(reversed(ROW.items()))),
    "keys that nobody uses": text(ROW | {"chat": "ü", "x": [{"y": None}]}, ROW | {"chat": 3}, ROW),
    "ours": text(OWN, OWN | {"t_s": 2}),
    "ours without times": text(*[less(OWN, "t_s")] * 3),
    "vidur": text({"num_prefill_tokens": 3, "num_decode_tokens": 4, "arrived_at": 0.1}),
    "zero tokens": text(ROW | {"output_length": 0, "input_length": 0}),
}
OTHER = {
    "blank lines": text(ROW, "\n", ROW, "  \n"),
    "a key that comes later": text(less(ROW, "hash_ids"), ROW),
    "another key that comes later": text(ROW, ROW | {"x": 1}),
    "a number in quotes": text(ROW, ROW | {"input_length": "7"}),
    "whole numbers written otherwise": text(ROW, ROW | {"input_length": 7.0}),
    "half a token": text(ROW, ROW | {"output_length": 1.5}),
    "too many tokens": text(ROW, ROW | {"output_length": 1_000_000_001}),
    "very many tokens": text(ROW, ROW | {"output_length": 1 << 80}),
    "negative": text(ROW, ROW | {"input_length": -1}),
    "negative time": text(ROW | {"timestamp": -3}),
    "no length": text(ROW, less(ROW, "input_length")),
    "no value": text(ROW, ROW | {"timestamp": None}),
    "no ids": text(ROW, ROW | {"hash_ids": None}),
    "an id that is none": text(ROW, ROW | {"hash_ids": [1, None]}),
    "an id that is text": text(ROW, ROW | {"hash_ids": ["a"]}),
    "dates": text(*[less(ROW, "timestamp") | {"timestamp": f"2024-01-01 00:00:0{s}"} for s in (1, 3)]),
    "sessions": text(OWN | {"session": "a"}, OWN | {"session": "b"}),
    "no object": text(ROW, "[1]\n"),
    "broken": text(ROW, ROW, '{"timestamp": 1,\n'),
    "broken at once": "{oops\n",
    "two in a line": text(json.dumps(ROW), ROW),
    "one in two lines": text(ROW, json.dumps(ROW, indent=1).replace("\n", "", 3) + "\n"),
    "not text": text(ROW, '{"timestamp": "\udcff"}\n'),
    "a strange table": text({"a": 1}),
    "a log": text({"created": 1, "model": "m", "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
}


def found(file: Path, mapping: dict[str, str]) -> Columns | str:
    try:
        return read_columns(file, mapping, "traffic.chat: trace")
    except InputError as fault:
        return str(fault)


def check_same(file: Path, monkeypatch: pytest.MonkeyPatch, mapping: dict[str, str] | None = None) -> None:
    """The same columns, bit for bit, or the same message, as by way of a table."""
    quick = found(file, mapping or {})
    with monkeypatch.context() as patch:
        patch.setattr(columns, "read_numbers", lambda *_: None)
        table = found(file, mapping or {})
    if isinstance(quick, str) or isinstance(table, str):
        assert quick == table
        return
    for name in (f.name for f in fields(Columns)):
        a, b = getattr(quick, name), getattr(table, name)
        assert type(a) is type(b), name
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            a, b = str(a.tolist()), str(b.tolist())
        assert a == b, name


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("chunk", [1, 100, 1 << 18])
def test_plain_lines_are_the_same(name: str, chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_CHUNK_BYTES", chunk)
    file = tmp_path / "m.jsonl"
    file.write_bytes(PLAIN[name].encode())
    assert read_numbers(file, {}) is not None
    check_same(file, monkeypatch)


@pytest.mark.parametrize("name", OTHER)
def test_other_lines_are_left_to_the_table(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.ndjson"
    file.write_bytes(OTHER[name].encode("utf-8", "surrogateescape"))
    plain = read_numbers(file, {})
    assert plain is None or not columns._in_range(plain[1])
    check_same(file, monkeypatch)


@pytest.mark.parametrize(
    "mapping",
    [
        {"t_s": "timestamp", "input_tokens": "input_length", "output_tokens": "output_length"},
        {"input_tokens": "input_length", "output_tokens": "input_length"},
        {"input_tokens": "input_lenght", "output_tokens": "output_length"},
        {"input_tokens": "input_length", "output_tokens": "output_length", "session": "timestamp"},
    ],
)
def test_stated_columns_are_the_same(mapping: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "m.jsonl"
    file.write_text(text(ROW, ROW))
    check_same(file, monkeypatch, mapping)


@given(st.lists(st.lists(st.integers(-(1 << 62), 1 << 62) | st.integers(0, 9), max_size=4, unique=True), max_size=9))
def test_prefixes_of_any_ids_against_the_obvious_loop(rows: list[list[int]]) -> None:
    seen: set[int] = set()
    runs = []
    for ids in rows:
        runs.append(next((i for i, block in enumerate(ids) if block not in seen), len(ids)))
        seen |= set(ids)
    start = np.cumsum([0] + [len(ids) for ids in rows])
    flat = np.array([block for ids in rows for block in ids], dtype=np.int64)
    assert known_prefix_blocks(start, flat).tolist() == runs

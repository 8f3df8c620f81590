"""Small tables of requests that share much, drawn at random."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from infermix.workload.requests import Requests, make_requests

KINDS = ("sessions", "chains", "ids")


def random_requests(random: np.random.Generator, n: int, kind: str) -> Requests:
    """``sessions`` go on from any turn and some classes begin alike, ``chains`` mostly grow, ``ids`` have block ids."""
    session = random.integers(-1 if kind == "sessions" else 0, max(1, n // 3), n)
    parent, inputs, cached = np.full(n, -1), np.zeros(n, int), np.zeros(n, int)
    outputs = random.integers(1, 12, n)
    for row in range(n):
        parent[row] = _parent(random, session, row, 0.85 if kind == "chains" else 0.3)
        follows = parent[row] >= 0 and session[parent[row]] == session[row] >= 0
        path = int(inputs[parent[row]] + outputs[parent[row]] - 1) if follows else 0
        if follows and random.random() < 0.7:
            cached[row] = max(path - int(random.integers(0, 5)), 0)
        elif random.random() < 0.7:
            cached[row] = random.integers(0, max(path, 15) + 4)
        inputs[row] = cached[row] + random.integers(1, 14)
    table = make_requests(
        ("a", "b"), np.arange(n), inputs, outputs, class_id=random.integers(0, 2, n), cached_tokens=cached,
        session=session, parent=parent,
    )  # fmt: skip
    return _with_ids(random, table) if kind == "ids" else table


def _parent(random: np.random.Generator, session: np.ndarray, row: int, latest: float) -> int:
    before = np.flatnonzero(session[:row] == session[row])
    if len(before) and random.random() < 0.85:
        return int(before[-1] if random.random() < latest else random.choice(before))
    return int(random.integers(0, row)) if row and random.random() < 0.2 else -1


def _with_ids(random: np.random.Generator, table: Requests) -> Requests:
    """The same prompts with ids, some with fewer or more of them than whole blocks, or none."""
    each = int(random.integers(1, 7))
    prompts: list[list[int]] = []
    for tokens in table.input_tokens.tolist():
        old = prompts[int(random.integers(len(prompts)))] if prompts and random.random() < 0.85 else []
        begin = old[: int(random.integers(0, len(old) + 1))]
        fresh = random.integers(-4, 4, -(-tokens // each)).tolist()
        prompts.append((begin + fresh)[: len(fresh) - int(random.random() < 0.2)])
    start = np.concatenate([[0], np.cumsum([len(ids) for ids in prompts])]).astype(np.int64)
    flat = np.array([id for ids in prompts for id in ids], dtype=np.int64)
    return replace(table, block_start=(start,), block_ids=(flat,), block_id_tokens=each)

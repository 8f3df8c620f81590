"""Fewer or more sessions at work than a sample of a closed loop has: whole places are taken, or taken again.

A sample of N sessions is N chains: a place holds one session after the other, and every request but
the first of a place waits for an answer on it. Requests are never torn out of their chain, so that in the
simulator the pace of a session still follows from the answers that the fleet gives.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from infermix.arrays import Ints
from infermix.workload.requests import Requests

COPY_SHIFT_S = 7.3
"""A place that is taken again begins so much later each time, so that copies do not walk in step [s]."""


def places_of(requests: Requests) -> Ints:
    """Place of every request of a closed loop, numbered from 0.

    A session belongs to the place of the session that one of its requests waited for; sessions that waited for
    none began the chain.
    """
    session, parent = requests.session.astype(np.int64), requests.parent
    before = np.arange(int(session.max(initial=-1)) + 1)
    waited = np.flatnonzero(parent >= 0)
    mother = session[parent[waited]]
    other = mother != session[waited]
    before[session[waited[other]]] = mother[other]
    while True:
        further = before[before]
        if np.array_equal(further, before):
            break
        before = further
    return np.unique(before[session], return_inverse=True)[1].astype(np.int64)


def with_sessions(requests: Requests, places: Ints, wanted: int, until_s: float) -> Requests:
    """The requests of ``wanted`` places that nominally arrive until some time; places come again where there are fewer.

    Parameters
    ----------
    places
        Of every request, as ``places_of`` tells.
    """
    have = int(places.max(initial=-1)) + 1
    parts, columns = [], _columns(requests)
    for copy in range(-(-wanted // have)):
        shift = copy * COPY_SHIFT_S
        kept = np.flatnonzero((places < wanted - copy * have) & (requests.arrival_s < until_s - shift))
        at = np.full(len(requests) + 1, -1, dtype=np.int64)
        at[kept] = np.arange(len(kept))
        parent = at[requests.parent[kept]]  # the last of ``at`` stands for no parent
        parts.append({k: column[kept] for k, column in columns.items()} | {"parent": parent})
        parts[-1]["arrival_s"] = parts[-1]["arrival_s"] + shift
    start = np.cumsum([0, *(len(p["parent"]) for p in parts)])
    for part, begin in zip(parts, start, strict=False):
        part["parent"] = np.where(part["parent"] >= 0, part["parent"] + begin, -1)
    joined: dict[str, Any] = {k: np.concatenate([p[k] for p in parts]) for k in columns}
    order = np.argsort(joined["arrival_s"], kind="stable")
    rank = np.empty(len(order) + 1, dtype=np.int64)
    rank[order], rank[-1] = np.arange(len(order)), -1
    joined = {k: column[order] for k, column in joined.items()}
    joined["parent"] = rank[joined["parent"]].astype(np.int32)
    return replace(requests, **joined)


def _columns(requests: Requests) -> dict[str, Any]:
    """Columns of one number a request."""
    return {k: column for k, column in vars(requests).items() if isinstance(column, np.ndarray)}

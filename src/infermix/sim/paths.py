"""What requests share: the beginnings of their token paths, as a tree of segments.

A request's *path* is its prompt and its answer without the last token. The rules for what two paths share are in
``docs/design/simulator.md``. Here every request gets a *line*, the part of its path that no earlier line has, and
attaches with it to another line; a class-wide beginning is a line without a request. Cutting the lines where others
attach gives the segments.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infermix import jit
from infermix.arrays import Bools, Ints
from infermix.jit import kernel
from infermix.workload.requests import Requests

NONE = -1

Int32s = npt.NDArray[np.int32]

SEGMENT = np.dtype(
    [
        ("parent", "i4"),                             # segment that it goes on from; -1: it is a beginning
        ("from_tokens", "i4"), ("to_tokens", "i4"),  # place in the path: [from, to)
        ("depth", "i4"),                              # segments from the beginning to this one, both counted
    ],
    align=True,
)  # fmt: skip

_NODE = np.dtype([("id", "i8"), ("above", "i4"), ("row", "i4"), ("chain", "i4")], align=True)
"""A prefix of block ids: its last id, the prefix without it, the first row that has it, the next in its bucket."""


@dataclass(frozen=True)
class Paths:
    """The shared beginnings of all requests of a table.

    Attributes
    ----------
    segments
        ``SEGMENT`` rows; a parent has a lower number than its children, which start where it ends.
    segment
        [request] the last segment of its shared path; -1: it shares nothing.
    shared
        [request] tokens of its path that any other request has, too. This is the end of its segment, except for a
        turn of a session that exactly one other goes on from: then the segment goes on, too.
    """

    segments: npt.NDArray[np.void]
    segment: Int32s
    shared: Int32s

    @property
    def depth(self) -> Int32s:
        """[request] segments of its shared path."""
        depths: Int32s = np.append(self.segments["depth"], np.int32(0))[self.segment]
        return depths


def paths_of(requests: Requests) -> Paths:
    """The tree of what the requests of a table share.

    Segments are as long as they can be: cut where paths part, and where the shared path of a request ends. A turn of a
    session that exactly one child (by its parent link, in the same session) goes on from, where the turn's shared path
    ends, does not cut: a child never comes before its parent has ended, so nobody can tell the two apart. A session
    that only grows is one segment.
    """
    lines = _lines(requests)
    return _cut(lines, len(requests))


@dataclass(frozen=True)
class _Lines:
    """Where each request's line attaches. Lines are numbered: one for each class, then one for each request."""

    classes: int
    start: Int32s
    """[request] tokens before its own line."""
    owner: Int32s
    """[request] line that it attaches to; -1: none."""
    mother: Int32s
    """[request] row of its parent where that says what it shares; -1: none."""


def _lines(requests: Requests) -> _Lines:
    n, classes = len(requests), len(requests.class_names)
    start, owner = np.zeros(n, np.int32), np.full(n, NONE, np.int32)
    by_ids = _attach_by_ids(requests, start, owner)
    mother = np.where(by_ids, NONE, _mothers(requests)).astype(np.int32)
    length = (requests.input_tokens + requests.output_tokens - 1).astype(np.int32)
    wanted = np.where(by_ids, 0, requests.cached_tokens).astype(np.int32)
    linked = mother != NONE
    wanted[linked] = np.minimum(wanted[linked], length[mother[linked]])
    class_id = np.ascontiguousarray(requests.class_id, dtype=np.int32)
    for k in range(classes):
        rows = np.flatnonzero((class_id == k) & ~linked & (wanted > 0))
        wanted[rows] = _held_by_two(wanted[rows])
    _attach_by_links(wanted, mother, class_id, classes, start, owner)
    return _Lines(classes, start, owner, mother)


def _mothers(requests: Requests) -> Int32s:
    """Row of the parent where it is of the same session; -1 elsewhere."""
    parent, session = np.asarray(requests.parent), np.asarray(requests.session)
    same = (parent != NONE) & (session >= 0) & (session[parent] == session)
    return np.where(same, parent, np.int32(NONE)).astype(np.int32)


def _held_by_two(tokens: Int32s) -> Int32s:
    """What each row has of one beginning, as far as any other row has it."""
    if len(tokens) < 2:
        return np.zeros_like(tokens)
    held: Int32s = np.minimum(tokens, np.partition(tokens, -2)[-2])
    return held


def _attach_by_ids(requests: Requests, start: Int32s, owner: Int32s) -> Bools:
    """Attach rows that have block ids; returns which they are."""
    n = len(requests)
    if not requests.block_ids:
        return np.zeros(n, np.bool_)
    first, ids = requests.block_start[0], np.ascontiguousarray(requests.block_ids[0], dtype=np.int64)
    counts = np.diff(first)
    whole = np.minimum(counts, requests.input_tokens // requests.block_id_tokens).astype(np.int32)
    total = int(whole.sum())
    nodes = np.empty(total + 1, _NODE)
    buckets = np.full(1 << max(total, 1).bit_length(), NONE, np.int32)
    _walk_ids(np.ascontiguousarray(first), ids, whole, _for_kernel(nodes), buckets, start, owner)
    start *= np.int32(requests.block_id_tokens)
    owner[owner != NONE] += np.int32(len(requests.class_names))
    return np.asarray(counts > 0)


def _for_kernel(rows: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Rows whose fields are attributes: Numba gives that to any record array, plain Python needs a view."""
    return rows if jit.ENABLED else rows.view(np.recarray)


@kernel
def _walk_ids(
    first: Ints, ids: Ints, whole: Int32s, nodes: npt.NDArray[np.void], buckets: Int32s, start: Int32s, owner: Int32s
) -> None:
    """Enter each row's ids into a tree of prefixes: ``start`` blocks are there, put by row ``owner``; the rest is new.

    Node 0 is the empty prefix; the others lie in a hash table by their last id and the prefix before it.
    """
    used = 1
    mask = len(buckets) - 1
    for row in range(len(whole)):
        above = 0
        fresh = False
        for k in range(whole[row]):
            id = int(ids[first[row] + k])
            mixed = (id & 0x3FFFFFFF) * 0x9E3779B1 + (id >> 30 & 0x3FFFFFFF) * 0x85EBCA77 + above * 0x7FEB352D
            bucket = (mixed ^ mixed >> 29) & mask
            node = NONE
            if not fresh:
                node = int(buckets[bucket])
                while node != NONE and (nodes[node].id != id or nodes[node].above != above):
                    node = int(nodes[node].chain)
            if node == NONE:
                fresh = True
                node = used
                used += 1
                nodes[node].id, nodes[node].above, nodes[node].row = id, above, row
                nodes[node].chain = buckets[bucket]
                buckets[bucket] = node
            else:
                start[row] = k + 1
                owner[row] = nodes[node].row
            above = node


@kernel
def _attach_by_links(
    wanted: Int32s, mother: Int32s, class_id: Int32s, classes: int, start: Int32s, owner: Int32s
) -> None:
    """Attach rows to their mother's path, or to their class's line, ``wanted`` tokens from the beginning."""
    for row in range(len(wanted)):
        if wanted[row] == 0:
            continue
        line = classes + mother[row] if mother[row] != NONE else class_id[row]
        while line >= classes and wanted[row] <= start[line - classes]:
            line = owner[line - classes]
        start[row], owner[row] = wanted[row], line


def _cut(lines: _Lines, n: int) -> Paths:
    """Cut lines into pieces where requests attach, and join those that only one turn after the other goes along."""
    classes = lines.classes
    rows = np.flatnonzero(lines.start > 0)
    keys = lines.owner[rows].astype(np.int64) << 32 | lines.start[rows]
    found, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    line, to = (found >> 32).astype(np.int64), (found & 0xFFFFFFFF).astype(np.int32)
    piece = np.arange(len(found), dtype=np.int32)
    change = np.diff(line) != 0
    opens, closes = np.append(True, change)[: len(line)], np.append(change, True)[: len(line)]

    attached = np.full(classes + n, NONE, np.int32)  # [line] the piece at whose end it begins
    attached[classes + rows] = place
    start = np.concatenate([np.zeros(classes, np.int32), lines.start])
    begin = np.where(opens, start[line], np.append(np.int32(0), to)[: len(to)])
    above = np.where(opens, attached[line], piece - np.int32(1)).astype(np.int32)

    last = np.full(classes + n, NONE, np.int32)  # [line] its last piece
    last[line[closes]] = piece[closes]
    one = np.zeros(len(found), np.int64)
    one[place] = rows  # the row that attaches there, where it is one
    alone = closes & (counts == 1) & (line >= classes) & (lines.mother[one] == line - classes)
    joins = opens & (line >= classes) & (above != NONE)
    joins[joins] = alone[above[joins]] & (one[above[joins]] == line[joins] - classes)

    segments = np.zeros(len(found), SEGMENT)
    number = np.zeros(len(found), np.int32)
    kept = _join(begin.astype(np.int32), to, above, joins, _for_kernel(segments), number)
    end = np.where(last[classes:] != NONE, last[classes:], attached[classes:])
    shares = end != NONE
    segment, shared = np.full(n, NONE, np.int32), np.zeros(n, np.int32)
    segment[shares], shared[shares] = number[end[shares]], to[end[shares]]
    return Paths(segments[:kept].copy(), segment, shared)


@kernel
def _join(
    begin: Int32s, to: Int32s, above: Int32s, joins: Bools, segments: npt.NDArray[np.void], number: Int32s
) -> int:
    """Pieces become segments: one that joins goes on the segment above it. Returns how many there are."""
    kept = 0
    for piece in range(len(to)):
        if joins[piece]:
            number[piece] = number[above[piece]]
        else:
            number[piece] = kept
            segments[kept].parent = NONE
            segments[kept].depth = 1
            segments[kept].from_tokens = begin[piece]
            if above[piece] != NONE:
                parent = number[above[piece]]
                segments[kept].parent = parent
                segments[kept].depth = segments[parent].depth + 1
            kept += 1
        segments[number[piece]].to_tokens = to[piece]
    return kept

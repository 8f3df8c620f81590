"""What requests share: the beginnings of their token paths, as a tree of segments.

A request's *path* is its prompt and its answer without the last token. The rules for what two paths share are in
``docs/design/simulator.md``. Here every request gets a *line*, the part of its path that no earlier line has, and
attaches with it to another line; the beginning that requests of a class without session share is a line without a
request. Cutting the lines where others attach gives the segments.
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
    that only grows is one segment. This holds for sessions in which all that share have parent links; where one does
    not, it may come before the turn that it goes on from, and every end cuts.
    """
    return _cut(_lines(requests))


@dataclass(frozen=True)
class _Lines:
    """Where each request's line attaches. Lines are numbered: one for each class, then one for each request."""

    classes: int
    start: Int32s
    """[request] tokens before its own line."""
    owner: Int32s
    """[request] line that it attaches to; -1: none."""
    mother: Int32s
    """[request] row whose path it shares: its parent, or the last row before it of its session; -1: none."""
    comes_after: Bools
    """[request] whether it comes after its mother has ended, as do all of its session that have one."""


def _lines(requests: Requests) -> _Lines:
    n, classes = len(requests), len(requests.class_names)
    start, owner, mother = np.zeros(n, np.int32), np.full(n, NONE, np.int32), np.full(n, NONE, np.int32)
    lines = _Lines(classes, start, owner, mother, np.zeros(n, np.bool_))
    if requests.block_ids:
        _attach_by_ids(requests, lines)
    else:
        _link(requests, lines)
        class_id = np.ascontiguousarray(requests.class_id, dtype=np.int32)
        _attach_by_links(_wanted(requests, lines), lines.mother, class_id, classes, lines.start, lines.owner)
    return lines


def _wanted(requests: Requests, lines: _Lines) -> Int32s:
    """[request] tokens that it shares with its mother, or with its class as far as any other has them."""
    cached, mother = np.asarray(requests.cached_tokens, dtype=np.int32), lines.mother
    wanted, linked = np.zeros(len(cached), np.int32), mother != NONE
    length = requests.input_tokens + requests.output_tokens - 1
    wanted[linked] = np.minimum(cached[linked], length[mother[linked]])
    alone = (requests.session < 0) & (cached > 0)
    for k in range(lines.classes):
        rows = np.flatnonzero(alone & (requests.class_id == k))
        rounded = _rounded_down(cached[rows])
        wanted[rows] = np.minimum(rounded, np.partition(rounded, -2)[-2] if len(rows) > 1 else 0)
    return wanted


def _rounded_down(tokens: Int32s) -> Int32s:
    """Down to a power of two times 1, 1.25, 1.5 or 1.75, in whole tokens: the three highest bits. Tokens are > 0."""
    low_bits = np.maximum(np.frexp(tokens)[1] - 3, 0)
    rounded: Int32s = tokens >> low_bits << low_bits
    return rounded


def _link(requests: Requests, lines: _Lines) -> None:
    """Find the mothers: parents of the same session; without one the last row before of the session."""
    parent, session = np.asarray(requests.parent), np.asarray(requests.session)
    by_parent = (parent != NONE) & (session >= 0) & (session[parent] == session)
    lines.mother[by_parent] = parent[by_parent]
    lines.comes_after[:] = by_parent
    others = np.flatnonzero(~by_parent & (session >= 0) & (requests.cached_tokens > 0))
    if len(others):
        lines.mother[others] = _last_before(session)[others]
        others = others[lines.mother[others] != NONE]
        lines.comes_after[np.isin(session, session[others])] = False


def _last_before(session: Int32s) -> Int32s:
    """[request] the last row before it of its session; -1: it is the first."""
    order = np.argsort(session, kind="stable").astype(np.int32)
    goes_on = session[order[1:]] == session[order[:-1]]
    before = np.full(len(session), NONE, np.int32)
    before[order[1:][goes_on]] = order[:-1][goes_on]
    return before


def _attach_by_ids(requests: Requests, lines: _Lines) -> None:
    first, ids = requests.block_start[0], np.ascontiguousarray(requests.block_ids[0], dtype=np.int64)
    whole = np.minimum(np.diff(first), requests.input_tokens // requests.block_id_tokens).astype(np.int32)
    total = int(whole.sum())
    nodes = np.empty(total + 1, _NODE)
    buckets = np.full(1 << max(total, 1).bit_length(), NONE, np.int32)
    start, owner = lines.start, lines.owner
    _walk_ids(np.ascontiguousarray(first), ids, whole, _for_kernel(nodes), buckets, start, owner)
    start *= np.int32(requests.block_id_tokens)
    owner[owner != NONE] += np.int32(lines.classes)


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


@dataclass(frozen=True)
class _Pieces:
    """Lines cut wherever a request attaches, in order of line and place; what lies after the last cut nobody shares."""

    line: Ints
    from_tokens: Int32s
    to_tokens: Int32s
    above: Int32s
    """The piece that it goes on from, always one before it; -1: none."""
    attached: Ints
    """Requests that attach at its end."""
    last: Int32s
    """[request] the last piece of its shared path; -1: none."""


def _pieces(lines: _Lines) -> _Pieces:
    classes, n = lines.classes, len(lines.start)
    rows = np.flatnonzero(lines.start > 0)
    places = lines.owner[rows].astype(np.int64) << 32 | lines.start[rows]
    found, piece_of, attached = np.unique(places, return_inverse=True, return_counts=True)
    line, to = found >> 32, (found & 0xFFFFFFFF).astype(np.int32)
    before = np.full(classes + n, NONE, np.int32)  # [line] the piece at whose end it begins
    before[classes + rows] = piece_of
    opens = np.diff(line, prepend=NONE) != 0
    start = np.concatenate([np.zeros(classes, np.int32), lines.start])[line]
    last = before.copy()
    last[line] = np.arange(len(line))  # of several on one line the last one stands
    return _Pieces(
        line=line,
        from_tokens=np.where(opens, start, np.roll(to, 1)),
        to_tokens=to,
        above=np.where(opens, before[line], np.arange(-1, len(line) - 1, dtype=np.int32)),
        attached=attached,
        last=last[classes:],
    )


def _cut(lines: _Lines) -> Paths:
    """Pieces become segments; those that only one turn after the other goes along become one."""
    pieces = _pieces(lines)
    segments = np.zeros(len(pieces.line), SEGMENT)
    number = np.zeros(len(pieces.line), np.int32)
    columns = (pieces.from_tokens, pieces.to_tokens, pieces.above, _going_on(lines, pieces))
    kept = _join(*columns, _for_kernel(segments), number)
    segment, shared = np.full(len(lines.start), NONE, np.int32), np.zeros(len(lines.start), np.int32)
    rows = np.flatnonzero(pieces.last != NONE)
    segment[rows], shared[rows] = number[pieces.last[rows]], pieces.to_tokens[pieces.last[rows]]
    return Paths(segments[:kept].copy(), segment, shared)


def _going_on(lines: _Lines, pieces: _Pieces) -> Bools:
    """Pieces with which the only child of a turn goes on where the turn's shared path ends."""
    first = np.flatnonzero((np.diff(pieces.line, prepend=NONE) != 0) & (pieces.above != NONE))
    child, above = pieces.line[first] - lines.classes, pieces.above[first]
    ends = np.append(np.diff(pieces.line) != 0, True)[above]
    goes_on = np.zeros(len(pieces.line), np.bool_)
    of_mother = lines.comes_after[child] & (pieces.line[above] == lines.mother[child] + lines.classes)
    goes_on[first] = of_mother & ends & (pieces.attached[above] == 1)
    return goes_on


@kernel
def _join(
    begin: Int32s, to: Int32s, above: Int32s, goes_on: Bools, segments: npt.NDArray[np.void], number: Int32s
) -> int:
    """Pieces become segments, of which each piece gets the ``number``. Returns how many there are."""
    kept = 0
    for piece in range(len(to)):
        if goes_on[piece]:
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

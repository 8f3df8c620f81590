"""What a session waits for: parent requests, pauses after answers, and stretches of work.

A trace of sessions says when requests came. Here it is told apart what was the model's time
(service) and what was thinking and tools, and sessions are cut where people left.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from infermix.arrays import Floats, Ints, check_equal_lengths
from infermix.errors import InputError
from infermix.workload.rows import Int32s
from infermix.workload.traces import Trace


@dataclass(frozen=True)
class Turns:
    """Requests of a trace of sessions with what each waited for, in the order of the trace.

    Attributes
    ----------
    parent
        Row whose answer the request waited for; -1 for the first of a session.
    think_s
        From the parent's answer to this request [s]: thinking and tools; 0 without a parent.
    service_s
        From arrival to the last token [s].
    repairs
        Service times that were not recorded and are taken to be the median, at most the time to
        the next request; pauses that came out negative and are taken as 0.
    """

    parent: Int32s
    think_s: Floats
    service_s: Floats
    repairs: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_equal_lengths(self)


def turns_of(trace: Trace) -> Turns:
    """Parents, pauses and service times of a trace of sessions.

    Raises
    ------
    InputError
        The trace has no sessions, or no service time at all.
    """
    if not trace.has_sessions:
        raise InputError(
            "the trace has no sessions", where=trace.source, mend='name their column: columns = { session = "…" }'
        )
    if trace.service_s is None or not np.isfinite(trace.service_s).any():
        raise InputError(
            "the trace does not say how long requests were served, so pauses cannot be told",
            where=trace.source,
            mend='name the column: columns = { api_time_s = "…" }',
        )
    parent = _parents(trace)
    child = np.flatnonzero(parent >= 0)
    after = np.full(len(trace), np.inf)
    np.minimum.at(after, parent[child], trace.t_s[child] - trace.t_s[parent[child]])
    missing = ~np.isfinite(trace.service_s)
    service = np.where(missing, np.minimum(np.nanmedian(trace.service_s), after), trace.service_s)
    think = np.zeros(len(trace))
    think[child] = trace.t_s[child] - trace.t_s[parent[child]] - service[parent[child]]
    counts = {
        "service_times_taken_as_median": int(np.count_nonzero(missing)),
        "pauses_raised_to_0": int(np.count_nonzero(think < 0)),
    }
    return Turns(parent, np.maximum(think, 0.0), service, {name: n for name, n in counts.items() if n})


def _parents(trace: Trace) -> Int32s:
    """The last request before each one that is not of a sub-agent, in the same session."""
    rows = np.arange(len(trace))
    main = np.ones(len(trace), bool) if trace.sub_agent is None else ~trace.sub_agent
    last = np.maximum.accumulate(np.where(main, rows, -1))
    before = np.concatenate(([-1], last[:-1]))
    same = (before >= 0) & (trace.session[before] == trace.session)
    return np.where(same, before, -1).astype(np.int32)


@dataclass(frozen=True)
class Stretches:
    """Sessions as stretches of work, one after the other: what a closed loop is made of.

    Attributes
    ----------
    start
        First row of each stretch, and one past the last row.
    length_s
        From the first request to the last answer of each stretch [s].
    input_tokens, cached_tokens, output_tokens
        Lengths of each request.
    offset_s
        Arrival after the start of the stretch [s], with service as recorded.
    parent
        Row of the parent counted from the start of the stretch; -1 for none.
    think_s
        As in ``Turns``.
    """

    start: Ints
    length_s: Floats
    input_tokens: Int32s
    cached_tokens: Int32s
    output_tokens: Int32s
    offset_s: Floats
    parent: Int32s
    think_s: Floats
    repairs: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.length_s)

    @property
    def rate_per_s(self) -> float:
        """Requests a second of one session that is always at work."""
        return len(self.offset_s) / float(self.length_s.sum())


def stretches(trace: Trace, leave_after_s: float) -> Stretches:
    """Cut the sessions of a trace at pauses longer than ``leave_after_s`` [s]: the person had left.

    Requests of a sub-agent go with their parent. Arrivals are laid out anew, each its pause after
    its parent's answer.
    """
    turns = turns_of(trace)
    main = np.ones(len(trace), bool) if trace.sub_agent is None else ~trace.sub_agent
    cut = (turns.parent < 0) & (np.diff(trace.session, prepend=-1) > 0)
    cut |= (turns.think_s > leave_after_s) & main
    number = np.cumsum(cut) - 1
    start = np.append(np.flatnonzero(cut), len(trace))
    parent = np.where((turns.parent >= 0) & (number[turns.parent] == number), turns.parent, -1)
    think = np.where(parent >= 0, turns.think_s, 0.0)
    offset = _laid_out(parent, think, turns.service_s)
    order = np.lexsort((offset, number))
    place = np.empty(len(trace), np.int64)
    place[order] = np.arange(len(trace))
    local = np.where(parent >= 0, place[parent] - start[number], -1)[order].astype(np.int32)
    length = np.maximum.reduceat(offset + turns.service_s, start[:-1])
    return Stretches(
        start=start,
        length_s=length,
        input_tokens=trace.input_tokens[order],
        cached_tokens=trace.cached_tokens[order],
        output_tokens=trace.output_tokens[order],
        offset_s=offset[order],
        parent=local,
        think_s=think[order],
        repairs=turns.repairs,
    )


def _laid_out(parent: Ints, think_s: Floats, service_s: Floats) -> Floats:
    """Arrival of each row after the start of its stretch, along the chain of parents.

    A parent's row comes before its children's, so one pass over the rows in order is enough.
    """
    offset = np.zeros(len(parent))
    for row, (mother, wait) in enumerate(zip(parent.tolist(), think_s.tolist(), strict=True)):
        if mother >= 0:
            offset[row] = offset[mother] + service_s[mother] + wait
    return offset

"""A closed loop: so many sessions at work at every moment, each replaced when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from infermix.arrays import Floats, Ints
from infermix.rng import u01
from infermix.workload.profiles import Profile, Sessions
from infermix.workload.rows import GAP, LENGTH, PHASE, PICK, RANK, TOKENS, Rows
from infermix.workload.synth import positions
from infermix.workload.tables import SLOTS, Sampler
from infermix.workload.turns import Stretches

LIBRARY = 4096
"""Sessions that are drawn from a profile once, for every seed to choose from."""


@dataclass(frozen=True)
class ClosedLoop:
    """``sessions`` places, each with one session at work after the other; ``key`` selects the streams.

    Times in the table are nominal: a request comes when its parent's recorded answer and the recorded pause are
    over. The simulator sets them anew: a request with a parent comes its pause after the answer that the fleet
    gave, and the first of a session when the last answer of the session before it on its place is complete.
    """

    work: Stretches
    sessions: int
    key: int

    @property
    def rate_per_s(self) -> float:
        """Mean rate at recorded service times [1/s]."""
        return self.sessions * self.work.rate_per_s

    @property
    def once_s(self) -> float:
        """Sessions are chosen by lot, so none is owed [s]."""
        return 0.0

    @property
    def dispersion(self) -> float:
        """Rough standard deviation of the count over the root of the count: whole sessions come at once."""
        return float(np.sqrt(len(self.work.offset_s) / len(self.work)))

    @property
    def repairs(self) -> dict[str, int]:
        """What was repaired while reading."""
        return self.work.repairs

    def rows(self, horizon_s: float, seed: int) -> Rows:
        """Requests that arrive in [0, horizon).

        The loop is stationary: at time 0 each place is inside a session that was picked by its
        length, at a uniform point of it; the next session starts when its last answer is complete.
        A request whose parent came before time 0 has none. The first request of a later session has the last one of
        the session before it on the same place as its parent.
        """
        places, picked, begin = self.schedule(horizon_s, seed)
        return self._requests(places, picked, begin, horizon_s)

    def schedule(self, horizon_s: float, seed: int) -> tuple[Ints, Ints, Floats]:
        """(place, stretch, time of its start) of every session that is at work in [0, horizon)."""
        lengths, key = self.work.length_s, self.key
        places = np.arange(self.sessions)
        ends = np.cumsum(lengths)
        at = u01(seed, key + PHASE, places) * ends[-1]
        picked = np.minimum(np.searchsorted(ends, at, side="right"), len(lengths) - 1)
        begin = -(at - (ends[picked] - lengths[picked]))
        found = [(places, picked, begin)]
        now, round_number = begin + lengths[picked], 0
        while len(places := places[now < horizon_s]):
            now = now[now < horizon_s]
            luck = u01(seed, key + PICK, places + round_number * self.sessions)
            picked = (luck * len(lengths)).astype(np.int64)
            found.append((places, picked, now))
            now, round_number = now + lengths[picked], round_number + 1
        return (
            np.concatenate([row[0] for row in found]),
            np.concatenate([row[1] for row in found]),
            np.concatenate([row[2] for row in found]),
        )

    def _requests(self, places: Ints, picked: Ints, begin: Floats, horizon_s: float) -> Rows:
        work = self.work
        sizes = np.diff(work.start)[picked]
        first = np.cumsum(sizes) - sizes
        number = np.repeat(np.arange(len(picked), dtype=np.int32), sizes)
        row = np.arange(int(sizes.sum())) + np.repeat(work.start[picked] - first, sizes)
        arrival = begin[number] + work.offset_s[row]
        parent = np.where(work.parent[row] >= 0, work.parent[row] + first[number], -1)
        keep = np.flatnonzero((arrival >= 0.0) & (arrival < horizon_s))
        place_of = np.full(len(row), -1, np.int64)
        place_of[keep] = np.arange(len(keep))
        mother = parent[keep]
        mother = np.where(mother >= 0, place_of[mother], -1)
        kept = row[keep]
        starts = np.where(
            work.offset_s[kept] == 0.0, _last_before(places, number[keep].astype(np.int64), arrival[keep]), -1
        )
        mother = np.where((mother < 0) & (work.parent[kept] < 0), starts, mother)
        return Rows(
            arrival[keep],
            work.input_tokens[kept],
            work.cached_tokens[kept],
            work.output_tokens[kept],
            number[keep],
            mother.astype(np.int32),
            np.where(mother >= 0, work.think_s[kept], 0.0).astype(np.float32),
        )


def _last_before(places: Ints, number: Ints, arrival_s: Floats) -> Ints:
    """For every request the last request of the session that had its place before; -1 where there was none."""
    last = np.full(len(places), -1, dtype=np.int64)
    order = np.lexsort((arrival_s, number))
    last[number[order]] = order
    before = np.full(len(places), -1, dtype=np.int64)
    held: dict[int, int] = {}
    for session, place in enumerate(places.tolist()):
        before[session] = held.get(place, -1)
        if last[session] >= 0:
            held[place] = int(last[session])
    return before[number]


def profile_stretches(profile: Profile, leave_after_s: float) -> Stretches:
    """Sessions drawn from a profile, cut at pauses longer than ``leave_after_s`` [s].

    Pauses and service times are drawn independently of the lengths.
    """
    assert profile.sessions is not None
    return _library(profile.sessions, profile.sampler(), leave_after_s)


@lru_cache(maxsize=8)
def _library(sessions: Sessions, tables: Sampler, leave_after_s: float) -> Stretches:
    assert sessions.think_s is not None and sessions.service_s is not None
    luck = u01(0, LENGTH, np.arange(LIBRARY))
    sizes = np.maximum(np.rint(sessions.requests.expand()), 1).astype(np.int64)[(luck * SLOTS).astype(np.int64)]
    turn, session = positions(sizes)
    index = np.arange(len(turn))
    think = sessions.think_s.expand()[(u01(0, GAP, index) * SLOTS).astype(np.int64)]
    service = sessions.service_s.expand()[(u01(0, PHASE, index) * SLOTS).astype(np.int64)]
    rank = u01(0, RANK, np.arange(LIBRARY))[session]
    drawn = tables.draw(tables.stratum(turn), rank, u01(0, TOKENS, index))
    cut = (turn == 0) | (think > leave_after_s)
    start = np.append(np.flatnonzero(cut), len(turn))
    number = np.cumsum(cut) - 1
    think = np.where(cut, 0.0, think)
    steps = np.where(cut, 0.0, think + np.concatenate(([0.0], service[:-1])))
    total = np.cumsum(steps)
    offset = total - total[start[:-1]][number]
    last = start[1:] - 1
    return Stretches(
        start=start,
        length_s=offset[last] + service[last],
        input_tokens=drawn.input_tokens,
        cached_tokens=drawn.input_tokens - drawn.uncached_tokens,
        output_tokens=drawn.output_tokens,
        offset_s=offset,
        parent=np.where(cut, -1, index - start[number] - 1).astype(np.int32),
        think_s=think,
    )

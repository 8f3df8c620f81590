"""Arrivals drawn from a profile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints
from infermix.rng import u01, uniforms
from infermix.workload.laws import BLOCK, Arrivals, law_arrivals, renewal
from infermix.workload.profiles import Profile
from infermix.workload.replay import whole_sessions
from infermix.workload.rows import FIRST, GAP, LENGTH, PICK, RANK, START, TOKENS, Rows, without_parents
from infermix.workload.tables import SLOTS, Lengths, Quantiles


@dataclass(frozen=True)
class Synthesis:
    """A profile drawn at a mean rate [1/s]; ``key`` selects the random streams.

    ``law`` replaces the profile's own times between arrivals; not with sessions.
    """

    profile: Profile
    key: int
    rate_per_s: float
    law: Arrivals | None = None

    @property
    def once_s(self) -> float:
        """A profile has no length of its own."""
        return 0.0

    @property
    def dispersion(self) -> float:
        """Rough standard deviation of the count over the root of the count."""
        return max(self.profile.cv if self.law is None else self.law.cv, 1.0)

    @property
    def repairs(self) -> dict[str, int]:
        """Nothing is repaired in a profile."""
        return {}

    def rows(self, horizon_s: float, seed: int) -> Rows:
        """Requests that arrive in [0, horizon), ``rate_per_s`` times horizon in expectation.

        Without sessions: an equilibrium renewal process with the profile's gaps, so a longer
        horizon only adds requests. With sessions: they start uniformly in the horizon, requests
        follow after the profile's gaps, and times wrap around the horizon; the stream is
        stationary, and a session longer than the horizon overlaps itself.
        """
        return self._plain(horizon_s, seed) if self.profile.sessions is None else self._sessions(horizon_s, seed)

    def _plain(self, horizon_s: float, seed: int) -> Rows:
        arrival = self._arrivals(horizon_s, seed)
        n, tables = len(arrival), self.profile.sampler()
        inputs, cached, outputs = (np.empty(n, np.int32) for _ in range(3))
        for low in range(0, n, BLOCK):
            part = slice(low, min(low + BLOCK, n))
            index = np.arange(low, part.stop, dtype=np.uint64)
            drawn = tables.draw(0, u01(seed, self.key + RANK, index), u01(seed, self.key + TOKENS, index))
            inputs[part], outputs[part] = drawn.input_tokens, drawn.output_tokens
            cached[part] = drawn.input_tokens - drawn.uncached_tokens
        return Rows(arrival, inputs, cached, outputs, without_parents(n))

    def _arrivals(self, horizon_s: float, seed: int) -> Floats:
        """An equilibrium renewal process: the first gap is what remains of one picked by its length."""
        key = self.key
        if self.law is not None:
            return law_arrivals(self.law, self.rate_per_s, horizon_s, seed, key + GAP, key + FIRST)
        assert self.profile.gap is not None
        gaps = _unit_gaps(self.profile.gap) / self.rate_per_s
        by_length, within = u01(seed, key + FIRST, np.arange(2))
        sums = np.cumsum(gaps)
        first = float(gaps[np.searchsorted(sums, by_length * sums[-1])] * within)
        return renewal(lambda i: gaps[(u01(seed, key + GAP, i) * SLOTS).astype(np.int32)], first, horizon_s)

    def _sessions(self, horizon_s: float, seed: int) -> Rows:
        assert self.profile.sessions is not None
        sizes = self._session_sizes(self.rate_per_s * horizon_s, seed)
        ends = np.cumsum(sizes)
        n = int(ends[-1]) if len(ends) else 0
        begin, rank = (u01(seed, self.key + stream, np.arange(len(sizes))) for stream in (START, RANK))
        gaps, tables = self.profile.sessions.gap_s.expand(), self.profile.sampler()
        inputs, cached, outputs, of = (np.empty(n, np.int32) for _ in range(4))
        columns = Rows(np.empty(n), inputs, cached, outputs, of)
        first, low = 0, 0
        while first < len(sizes):
            last = max(int(np.searchsorted(ends, low + BLOCK, side="right")), first + 1)
            part = slice(low, int(ends[last - 1]))
            turn, session = positions(sizes[first:last])
            index = np.arange(part.start, part.stop, dtype=np.uint64)
            offset = _offsets(gaps, turn, u01(seed, self.key + GAP, index))
            columns.arrival_s[part] = np.mod(begin[first:last][session] * horizon_s + offset, horizon_s)
            drawn = tables.draw(tables.stratum(turn), rank[first:last][session], u01(seed, self.key + TOKENS, index))
            columns.session[part] = session + np.int32(first)
            _fill(columns, part, drawn)
            first, low = last, part.stop
        return columns

    def _session_sizes(self, target: float, seed: int) -> Ints:
        """Requests of each session, ``target`` in all in expectation."""
        assert self.profile.sessions is not None
        table = np.maximum(np.rint(self.profile.sessions.requests.expand()), 1).astype(np.int64)
        count = int(target / table.mean() * 1.05) + 64
        while True:
            sizes = table[(uniforms(seed, self.key + LENGTH, count) * SLOTS).astype(np.int64)]
            if sizes.sum() > target:
                break
            count *= 2
        return sizes[: whole_sessions(sizes, target, float(u01(seed, self.key + PICK, 0)))]


@lru_cache(maxsize=16)
def _unit_gaps(gap: Quantiles) -> Floats:
    table = gap.expand()
    unit: Floats = table / table.mean()
    return unit


def _fill(columns: Rows, part: slice, drawn: Lengths) -> None:
    columns.input_tokens[part], columns.output_tokens[part] = drawn.input_tokens, drawn.output_tokens
    columns.cached_tokens[part] = drawn.input_tokens - drawn.uncached_tokens


def positions(sizes: Ints) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Position in its session, and session, of each row of adjacent sessions."""
    session = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    turn = np.arange(len(session), dtype=np.int32) - np.repeat((np.cumsum(sizes) - sizes).astype(np.int32), sizes)
    return turn, session


def _offsets(gaps: Floats, turn: npt.NDArray[np.int32], luck: Floats) -> Floats:
    """Seconds after the start of the session; the gap before a first request is dropped."""
    steps = gaps[(luck * SLOTS).astype(np.int32)]
    total = np.cumsum(steps)
    first = np.flatnonzero(turn == 0)
    return total - np.repeat(total[first], np.diff(np.append(first, len(turn))))

"""Arrivals from a recorded trace: as recorded, at another rate, and sessions on a circle of time."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np
import numpy.typing as npt

from infermix.arrays import Floats, Ints
from infermix.rng import u01, uniforms
from infermix.workload.laws import Arrivals, law_arrivals
from infermix.workload.rows import FIRST, GAP, PHASE, PICK, START, THIN, Blocks, Rows, without_parents
from infermix.workload.traces import Trace


@dataclass(frozen=True)
class Replay:
    """A trace played at a mean rate [1/s]; ``rate_per_s`` None means as recorded.

    ``key`` selects the random streams.
    """

    trace: Trace
    key: int
    stated_rate_per_s: float | None = None

    @property
    def rate_per_s(self) -> float:
        """Mean rate [1/s]."""
        return self.trace.rate_per_s if self.stated_rate_per_s is None else self.stated_rate_per_s

    @property
    def once_s(self) -> float:
        """Horizon in which the whole trace is offered once [s], as the sum over its phase-shifted copies."""
        if self.trace.has_sessions:
            return len(self.trace) / self.rate_per_s
        return self.trace.span_s / self._copies()[0]

    @property
    def dispersion(self) -> float:
        """Rough standard deviation of the count over the root of the count."""
        return 1.0

    @property
    def repairs(self) -> dict[str, int]:
        """What was repaired while reading."""
        return self.trace.repairs

    def _copies(self) -> tuple[int, float]:
        """How many copies are superposed, and which share of the last one is kept."""
        if self.stated_rate_per_s is None:
            return 1, 1.0
        factor = self.stated_rate_per_s / self.trace.rate_per_s
        copies = max(ceil(factor - 1e-9), 1)
        return copies, min(factor - (copies - 1), 1.0)

    def rows(self, horizon_s: float, seed: int) -> Rows:
        """Requests that arrive in [0, horizon).

        Without sessions the trace turns on a circle of length ``span_s``. As recorded it starts at
        its first request; at another rate each copy starts at a uniform random phase, keeps that
        phase from round to round, and the last copy is thinned, so that the expected count is
        exactly rate times horizon.

        With sessions, whole passes over all sessions and a random part of them make up rate times
        horizon requests. Each session starts uniformly in the horizon, its requests keep their
        recorded offsets modulo the horizon, and every pass numbers its sessions anew.
        """
        return self._sessions(horizon_s, seed) if self.trace.has_sessions else self._turning(horizon_s, seed)

    def _turning(self, horizon_s: float, seed: int) -> Rows:
        copies, last = self._copies()
        n, span = len(self.trace), self.trace.span_s
        recorded = self.stated_rate_per_s is None
        phases = np.zeros(1) if recorded else u01(seed, self.key + PHASE, np.arange(copies)) * span
        times, rows, users = [], [], []
        for copy, phase in enumerate(phases):
            first, end = (_events_before(self.trace.t_s, span, x) for x in (phase, phase + horizon_s))
            counter = np.arange(first, end)
            if copy == copies - 1 and last < 1.0:
                counter = counter[u01(seed, self.key + THIN, counter) < last]
            lap, row = np.divmod(counter, n)
            times.append(self.trace.t_s[row] + lap * span - phase)
            rows.append(row)
            users.append(lap * copies + copy)
        arrival = np.clip(np.concatenate(times), 0.0, np.nextafter(horizon_s, 0.0))
        row = np.concatenate(rows)
        return self._take(row, arrival, None)._replace(blocks=blocks_of(self.trace, row, np.concatenate(users)))

    def _sessions(self, horizon_s: float, seed: int) -> Rows:
        trace, count = self.trace, self.trace.sessions
        sizes = np.bincount(trace.session)
        passes, rest = divmod(self.rate_per_s * horizon_s, len(trace))
        chosen = [np.arange(count)] * int(passes) + [self._part(sizes, rest, seed)]
        starts = np.concatenate(([0], np.cumsum(sizes)))
        of = np.concatenate(chosen)
        number = np.concatenate([sessions + lap * count for lap, sessions in enumerate(chosen)])
        row = np.arange(sizes[of].sum()) + np.repeat(starts[of] - np.cumsum(sizes[of]) + sizes[of], sizes[of])
        begin = u01(seed, self.key + START, number) * horizon_s
        arrival = np.mod(np.repeat(begin, sizes[of]) + trace.t_s[row], horizon_s)
        return self._take(row, arrival, np.repeat(number, sizes[of]).astype(np.int32))

    def _part(self, sizes: Ints, rest: float, seed: int) -> Ints:
        """A random part of the sessions with ``rest`` requests in expectation; the last is in by luck."""
        order = np.argsort(uniforms(seed, self.key + PICK, len(sizes)), kind="stable")
        return order[: whole_sessions(sizes[order], rest, float(u01(seed, self.key + PICK, len(sizes))))]

    def _take(self, row: Ints, arrival: Floats, session: npt.NDArray[np.int32] | None) -> Rows:
        t = self.trace
        number = without_parents(len(row)) if session is None else session
        return Rows(arrival, t.input_tokens[row], t.cached_tokens[row], t.output_tokens[row], number)


@dataclass(frozen=True)
class Reshuffle:
    """The lengths of a trace on arrivals of a stated law: for traces without times, or with other burstiness."""

    trace: Trace
    key: int
    rate_per_s: float
    law: Arrivals

    @property
    def once_s(self) -> float:
        """Horizon in which every row is expected once [s]."""
        return len(self.trace) / self.rate_per_s

    @property
    def dispersion(self) -> float:
        """Rough standard deviation of the count over the root of the count."""
        return max(self.law.cv, 1.0)

    @property
    def repairs(self) -> dict[str, int]:
        """What was repaired while reading."""
        return self.trace.repairs

    def rows(self, horizon_s: float, seed: int) -> Rows:
        """Requests that arrive in [0, horizon): rows in an order drawn by lot, each once before any comes again."""
        key, t = self.key, self.trace
        arrival = law_arrivals(self.law, self.rate_per_s, horizon_s, seed, key + GAP, key + FIRST)
        order = np.argsort(uniforms(seed, key + PICK, len(t)), kind="stable")
        row = order[np.arange(len(arrival)) % len(t)]
        lengths = (t.input_tokens[row], t.cached_tokens[row], t.output_tokens[row])
        blocks = blocks_of(t, row, np.arange(len(arrival)) // len(t))
        return Rows(arrival, *lengths, without_parents(len(row)), blocks=blocks)


def blocks_of(trace: Trace, row: Ints, copy: Ints) -> Blocks | None:
    """Block ids of rows of a trace; each copy of the trace (a round, or a phase of its own) stands for other users."""
    if not trace.block_ids:
        return None
    return Blocks(trace.block_start[0], trace.block_ids[0]).copies(row, copy)


def whole_sessions(sizes: Ints, target: float, luck: float) -> int:
    """How many leading sessions hold ``target`` requests in expectation; the one across the mark is in by luck.

    >>> whole_sessions(np.array([4, 4]), 6.0, 0.4), whole_sessions(np.array([4, 4]), 6.0, 0.6)
    (2, 1)
    """
    ends = np.cumsum(sizes)
    at = int(np.searchsorted(ends, target, side="right"))
    if at == len(sizes):
        return at
    missing = target - (ends[at] - sizes[at])
    return at + int(luck * sizes[at] < missing)


def _events_before(t_s: Floats, span_s: float, x: float) -> int:
    """Arrivals in [0, x) of a trace that repeats with its span."""
    laps, rest = divmod(x, span_s)
    return int(laps) * len(t_s) + int(np.searchsorted(t_s, rest, side="left"))

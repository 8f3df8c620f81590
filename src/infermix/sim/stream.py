"""Simulate arrivals that come window after window: memory does not grow with their number.

Between windows the requests that are over are handed on, and the others move to the front of the next table. What
comes out is the same, to the last bit, as of one run over all windows together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from infermix import rng
from infermix.arrays import Bools, Floats, Ints
from infermix.errors import InputError
from infermix.route.registry import Policy
from infermix.route.view import FleetView, Promises
from infermix.sim import run as one_run
from infermix.sim.kernel import close
from infermix.sim.prepare import for_kernel, make_promises, make_state, make_view, needs_extras, request_rows
from infermix.sim.result import UNFINISHED, Run
from infermix.sim.rules import FleetRules
from infermix.sim.state import NONE, REQUEST, STARTED, PoolSpec, State
from infermix.sim.totals import Totals
from infermix.workload.requests import Requests, make_requests

Rows = npt.NDArray[np.void]


class Ended(NamedTuple):
    """Requests that are over, or that the end of the simulation found unfinished."""

    number: Ints
    """Which they are, counted over all windows; ascending."""
    run: Run
    """Their columns; those over instances, and ``gaps``, tell the whole simulation up to now."""


Consume = Callable[[Ended], None]
Progress = Callable[[int], None]
"""Called with the number of arrivals simulated so far."""


@dataclass(frozen=True)
class Streamed:
    """What a simulation found out about all windows together."""

    totals: Totals
    end: Run
    """The requests that were over last; its columns over instances, and ``gaps``, are those of the whole simulation."""
    arrived: int
    simulated_s: float
    """Time of the last token [s]."""
    kernel_s: float
    interrupted: bool


def simulate_stream(
    windows: Iterable[Requests],
    pools: list[PoolSpec],
    policy: str | Policy,
    *,
    typical_output_tokens: Floats,
    share: Floats | None = None,
    until_s: float = np.inf,
    promises: Promises | None = None,
    rules: FleetRules | None = None,
    seed: int = 0,
    consume: Consume | None = None,
    progress: Progress | None = None,
) -> Streamed:
    """Simulate requests that come in windows, one after the other, on pools.

    Parameters
    ----------
    windows
        Tables of one set of classes; arrivals ascend within and between them. Read one window ahead.
    typical_output_tokens
        Mean output per class as a gateway would know it from history.
    consume
        Called after each window with what is over by then, and once with the rest.

    The other parameters are those of ``sim.run.simulate_pools``. Requests that arrive after ``until_s`` are not
    counted. An interrupt (Ctrl-C) in the kernel or while a window is drawn ends the simulation cleanly, with
    ``interrupted`` set.

    Raises
    ------
    InputError
        Requests, pools or rules that need more of a request than its arrival, tokens and class; windows that do not
        follow each other, or of other classes; no window at all.
    """
    rules = rules or FleetRules()
    coming = _Windows(iter(windows), pools, rules)
    if coming.window is None:
        raise InputError("no window of requests", where="windows", mend="give a table, if only an empty one")
    names = coming.window.class_names
    promises = promises or make_promises(names, {})
    state = make_state(make_requests(names, [], [], []), pools, typical_output_tokens, seed, rules)
    equal = np.full((len(names), len(pools)), 1.0 / len(pools))
    view = make_view(state, pools, equal if share is None else share, promises)
    table = _Table(names, state, view, *one_run.compile_for(state, view, policy), until_s=until_s, seed=seed)
    return _run(table, coming, Totals(names, promises), consume, progress)


class _Windows:
    """The window to be simulated and the next one that is not empty."""

    def __init__(self, windows: Iterator[Requests], pools: list[PoolSpec], rules: FleetRules) -> None:
        self._windows, self._pools, self._rules = windows, pools, rules
        self.interrupted = False
        self._last_s = -np.inf
        self._class_names: tuple[str, ...] | None = None
        self.window = self._draw()
        self.following = self._next()

    def go_on(self) -> None:
        """On to the next window."""
        self.window, self.following = self.following, self._next()

    def _next(self) -> Requests | None:
        window = self._draw()
        while window is not None and not len(window):
            window = self._draw()
        return window

    def _draw(self) -> Requests | None:
        if self.interrupted:
            return None
        try:
            window = next(self._windows, None)
        except KeyboardInterrupt:
            self.interrupted = True
            return None
        if window is not None:
            self._check(window)
        return window

    def _check(self, window: Requests) -> None:
        self._class_names = self._class_names or window.class_names
        if window.class_names != self._class_names:
            raise InputError("windows differ in their classes", where="windows", value=window.class_names)
        if needs_extras(window, self._pools, self._rules):
            raise InputError(
                "only plain requests can come window after window",
                where="windows",
                allowed="no sessions, parents, block ids, deadlines or priorities; no prefix cache, decode pools, "
                "speculative decoding or events",
                mend="simulate them in one piece",
            )
        if len(window):
            if window.arrival_s[0] < self._last_s:
                raise InputError("a window begins before the last one ends", value=float(window.arrival_s[0]))
            self._last_s = float(window.arrival_s[-1])


@dataclass
class _Table:
    """The requests that the kernel knows at a time: those on their way, then a window."""

    class_names: tuple[str, ...]
    state: State
    view: FleetView
    step: Callable[..., int]
    choose: Policy
    until_s: float
    seed: int
    numbers: Ints = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Of the rows, counted over all windows."""
    kernel_s: float = 0.0

    @property
    def arrived(self) -> int:
        """Requests that have arrived, of all windows."""
        return int(self.state.clock["first_number"][0] + self.state.clock["arrivals"][0])

    def load(self, window: Requests, following: Requests | None) -> None:
        """A window behind those on their way; behind it the next arrival, before which the kernel stops."""
        kept, n = self.state.requests, len(window)
        before = self.arrived
        numbers = before + np.arange(n)
        rows = np.zeros(len(kept) + n + (following is not None), dtype=REQUEST)
        rows[: len(kept)] = kept
        u = rng.u01(self.seed, 0, numbers)
        rows[len(kept) : len(kept) + n] = request_rows(window, u, np.zeros(1, dtype=np.int64))
        if following is not None:
            rows["arrival_s"][-1] = following.arrival_s[0]
        self.state.clock["arrivals"][0] = len(kept)
        self.state.clock["first_number"][0] = before - len(kept)
        self.state = self.state._replace(requests=for_kernel(rows))
        self.numbers = np.concatenate([self.numbers, numbers])

    def simulate(self, n: int, progress: Progress | None) -> bool:
        """Until the n requests of the window have arrived, and on to the next arrival; False if cut short before."""
        done = 0
        while True:
            last = min(n, done + one_run.ARRIVALS_PER_CALL)
            clock = time.perf_counter()
            reached = self.step(self.state, self.view, self.choose, done, last, self.until_s)
            self.kernel_s += time.perf_counter() - clock
            done = reached
            if progress is not None:
                progress(self.arrived)
            if reached < last or last == n:
                return reached == n

    def settle(self) -> Ended:
        """Hand on what is over; the others go to the front, and everything that names them follows."""
        rows = self.state.requests[: self.state.clock["arrivals"][0]]
        kept = ((rows["status"] == UNFINISHED) | (rows["status"] == STARTED)) & (rows["instance"] != NONE)
        found = self._ended(rows, ~kept)
        place = np.where(kept, np.cumsum(kept) - 1, NONE).astype(np.int32)
        rows = rows[kept]
        if len(place):
            rows["behind"] = _moved(rows["behind"], place)
            self.state.queues[...] = _moved(self.state.queues, place)
            self.state.slots["request"] = _moved(self.state.slots["request"], place)
        self.numbers = self.numbers[: len(place)][kept]
        self.state = self.state._replace(requests=rows)
        return found

    def settle_all(self) -> Ended:
        """The end: what is over, and what will not be."""
        close(self.state, self.until_s)
        rows = self.state.requests[: self.state.clock["arrivals"][0]]
        return self._ended(rows, np.ones(len(rows), dtype=np.bool_))

    def _ended(self, rows: Rows, over: Bools) -> Ended:
        picked = rows[over]
        requests = make_requests(
            self.class_names,
            picked["arrival_s"],
            picked["input"],
            picked["output"],
            class_id=picked["class_id"],
            cached_tokens=picked["cached"],
        )
        found = one_run.result_of(requests, self.state._replace(requests=picked), len(picked), False, self.kernel_s)
        return Ended(self.numbers[: len(rows)][over], found)


def _moved(rows: npt.NDArray[np.int32], place: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """New numbers of rows; slots that are free name rows of long ago, and may get any."""
    return np.where(rows >= 0, place.take(rows, mode="clip"), np.int32(NONE))


def _run(
    table: _Table, coming: _Windows, totals: Totals, consume: Consume | None, progress: Progress | None
) -> Streamed:  # fmt: skip
    interrupted = False
    while True:
        window, following = coming.window, coming.following
        assert window is not None
        table.load(window, following)
        try:
            whole = table.simulate(len(window), progress)
        except KeyboardInterrupt:
            interrupted = True
        if interrupted or not whole or following is None or following.arrival_s[0] > table.until_s:
            break
        _hand_on(table.settle(), totals, consume)
        coming.go_on()
    ended = table.settle_all()
    _hand_on(ended, totals, consume)
    return Streamed(
        totals, ended.run, table.arrived, totals.last_s, table.kernel_s, interrupted or coming.interrupted
    )  # fmt: skip


def _hand_on(ended: Ended, totals: Totals, consume: Consume | None) -> None:
    totals.add(ended.run)
    if consume is not None:
        consume(ended)

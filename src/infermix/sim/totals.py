"""What many requests got, without keeping them: counts, sums and histograms by class, added up window by window.

All of it is whole numbers, so that it is the same however the requests were parted into windows. Bins are those of
``sim.state.gap_edges_s``: a percentile is off by 1.6 % at most.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from infermix.arrays import Bools, Floats, Ints
from infermix.metrics.binned import binned_percentiles
from infermix.route.view import Promises
from infermix.sim.result import COMPLETED, REFUSED, UNFINISHED, Run
from infermix.sim.state import GAP_BINS, GAP_EXPONENT, GAP_PARTS, gap_edges_s

TIMES = ("queue_s", "ttft_s", "tpot_s", "e2e_s")
TOKENS = ("input_tokens", "cached_tokens", "output_tokens")
TICKS_PER_S = 1_000_000
"""Sums of times are kept in whole microseconds."""
_SHIFT = 53 - GAP_PARTS.bit_length()
_FIRST = (GAP_EXPONENT + 1022) * GAP_PARTS


def bins_of(times_s: Floats) -> Ints:
    """The bin of each time; what is shorter or longer than all bins is in the first or the last.

    >>> edges = gap_edges_s()
    >>> place = bins_of(np.array([0.0, 0.3, 1e9]))
    >>> place[[0, 2]].tolist(), bool(edges[place[1]] <= 0.3 < edges[place[1] + 1])
    ([0, 2559], True)
    """
    bits = np.ascontiguousarray(times_s, dtype=np.float64).view(np.int64)
    return np.asarray(np.clip((bits >> _SHIFT) - _FIRST, 0, GAP_BINS - 1), dtype=np.int64)


@dataclass
class Totals:
    """Sums over all requests that were added.

    Attributes
    ----------
    counts
        [class, status: unfinished, completed, refused] requests.
    good
        [class] requests that met every promise; all that completed, where nothing was promised.
    bins
        [time of ``TIMES``, class, bin] requests that have such a time.
    ticks
        [time of ``TIMES``, class] sum of those times [microseconds].
    tokens
        [column of ``TOKENS``, class] tokens of completed requests.
    last_s
        The last token of all [s].
    """

    class_names: tuple[str, ...]
    promises: Promises
    counts: Ints = field(init=False)
    good: Ints = field(init=False)
    bins: Ints = field(init=False)
    ticks: Ints = field(init=False)
    tokens: Ints = field(init=False)
    last_s: float = 0.0

    def __post_init__(self) -> None:
        classes = len(self.class_names)
        self.counts = np.zeros((classes, 3), dtype=np.int64)
        self.good = np.zeros(classes, dtype=np.int64)
        self.bins = np.zeros((len(TIMES), classes, GAP_BINS), dtype=np.int64)
        self.ticks = np.zeros((len(TIMES), classes), dtype=np.int64)
        self.tokens = np.zeros((len(TOKENS), classes), dtype=np.int64)

    def add(self, run: Run) -> None:
        """Count the requests of a run, or of a window of one."""
        class_id = run.requests.class_id.astype(np.int64)
        self.counts += np.bincount(3 * class_id + run.status, minlength=self.counts.size).reshape(self.counts.shape)
        for k, name in enumerate(TIMES):
            self._add_times(k, getattr(run, name), class_id)
        done = run.status == COMPLETED
        for k, name in enumerate(TOKENS):
            self.tokens[k] += self._sums(class_id[done], getattr(run.requests, name)[done])
        self.good += np.bincount(class_id[meets_promises(self.promises, run)], minlength=len(self.good))
        self.last_s = max(self.last_s, run.simulated_s)

    def _add_times(self, k: int, times_s: Floats, class_id: Ints) -> None:
        known = np.isfinite(times_s)
        times, classes = times_s[known], class_id[known]
        shape = self.bins[k].shape
        self.bins[k] += np.bincount(classes * GAP_BINS + bins_of(times), minlength=self.bins[k].size).reshape(shape)
        self.ticks[k] += self._sums(classes, np.rint(times * TICKS_PER_S))

    def _sums(self, class_id: Ints, values: Floats) -> Ints:
        """Sums of whole numbers by class; exact below 2^53."""
        return np.bincount(class_id, weights=values, minlength=len(self.class_names)).astype(np.int64)

    @property
    def requests(self) -> int:
        """All that were added."""
        return int(self.counts.sum())

    @property
    def completed(self) -> int:
        """Requests that got all their tokens."""
        return int(self.counts[:, COMPLETED].sum())

    @property
    def refused(self) -> int:
        """Requests that nobody took."""
        return int(self.counts[:, REFUSED].sum())

    @property
    def unfinished(self) -> int:
        """Requests that had arrived and were not over at the end."""
        return int(self.counts[:, UNFINISHED].sum())

    def percentiles(self, time: str, class_id: int) -> dict[str, float]:
        """p50, p90 and p99 of one of ``TIMES`` [s]; NaN when no request of the class has it."""
        return binned_percentiles(self.bins[TIMES.index(time), class_id], gap_edges_s())

    def mean_s(self, time: str, class_id: int) -> float:
        """Mean of one of ``TIMES`` [s]; NaN when no request of the class has it."""
        k = TIMES.index(time)
        count = int(self.bins[k, class_id].sum())
        return float(self.ticks[k, class_id]) / (TICKS_PER_S * count) if count else float("nan")

    def attainment(self, class_id: int) -> float:
        """Share of the requests of a class that met every promise; NaN without requests."""
        count = int(self.counts[class_id].sum())
        return float(self.good[class_id]) / count if count else float("nan")


def meets_promises(promises: Promises, run: Run) -> Bools:
    """Completed requests that met every target of their class, as ``metrics.goodput.meets`` has it."""
    c = run.requests.class_id
    uncached = run.requests.input_tokens - run.requests.cached_tokens
    tpot = run.tpot_s
    good = run.status == COMPLETED
    good = good & (run.ttft_s <= promises.slo_ttft_s[c] + promises.slo_ttft_s_per_token[c] * uncached)
    good = good & ((tpot <= promises.slo_tpot_s[c]) | np.isnan(tpot))
    return np.asarray(good & (run.e2e_s <= promises.slo_e2e_s[c]))

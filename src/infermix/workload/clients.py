"""Traffic of ServeGen's clients: each window's arrivals by its own law, lengths from its distributions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from infermix.arrays import Floats, Ints
from infermix.errors import InputError
from infermix.rng import u01
from infermix.workload.laws import unit_gaps
from infermix.workload.rows import FIRST, GAP, LENGTH, RANK, TOKENS, Int32s, Rows, without_parents
from infermix.workload.servegen import PARTS, ClientPool, Pdf

CHUNK = 1 << 20
"""Requests drawn at a time."""
_PER_WINDOW = 1 << 24
"""Most requests of one client in one window."""
_ITEMS = 64
"""Most images, sounds or videos in one prompt."""


@dataclass(frozen=True)
class Clients:
    """A pool of clients at their recorded rates, or scaled to a mean rate [1/s].

    The rate of a window is what was counted in it, so a window gets that many requests (a fraction
    by luck), spaced by its law and stretched to fill it. After the last window comes the first.
    """

    pool: ClientPool
    key: int
    stated_rate_per_s: float | None = None

    @property
    def rate_per_s(self) -> float:
        """Mean rate over all windows [1/s]."""
        return self.pool.mean_rate_per_s if self.stated_rate_per_s is None else self.stated_rate_per_s

    @property
    def once_s(self) -> float:
        """All windows [s]."""
        return self.pool.span_s

    @property
    def dispersion(self) -> float:
        """Rough standard deviation of the count over the root of the count."""
        return 1.0

    @property
    def repairs(self) -> dict[str, int]:
        """Windows whose lengths had to be taken from elsewhere."""
        return self.pool.repairs

    def rows(self, horizon_s: float, seed: int) -> Rows:
        """Requests that arrive in [0, horizon)."""
        pool = self.pool
        laps = int(np.ceil(horizon_s / pool.span_s))
        number = np.arange(laps * len(pool.start_s))
        lap, window = np.divmod(number, len(pool.start_s))
        begin = pool.start_s[window] + lap * pool.span_s
        reached = begin < horizon_s
        number, window, begin = number[reached], window[reached], begin[reached]
        expected = pool.rate_per_s[window] * pool.window_s * self.rate_per_s / pool.mean_rate_per_s
        counts = np.floor(expected + u01(seed, self.key + FIRST, number)).astype(np.int64)
        if counts.max(initial=0) >= _PER_WINDOW:
            raise InputError("too many requests of one client", where=pool.source, value=int(counts.max()))
        parts, low, until = [], 0, np.cumsum(counts)
        while low < len(number):
            done = int(until[low - 1]) if low else 0
            high = max(int(np.searchsorted(until, done + CHUNK, side="right")), low + 1)
            part = slice(low, high)
            parts.append(self._windows(number[part], window[part], begin[part], counts[part], seed))
            low = high
        columns = [np.concatenate([part[i] for part in parts]) if parts else np.zeros(0) for i in range(3)]
        keep = columns[0] < horizon_s
        arrival, inputs, outputs = (column[keep] for column in columns)
        cached = np.zeros(len(arrival), np.int32)
        return Rows(arrival, inputs.astype(np.int32), cached, outputs.astype(np.int32), without_parents(len(arrival)))

    def _windows(
        self, number: Ints, window: Ints, begin: Floats, counts: Ints, seed: int
    ) -> tuple[Floats, Int32s, Int32s]:
        """(arrivals, input tokens, output tokens) of some windows; ``number`` counts windows over all laps."""
        pool, sizes = self.pool, counts + 1
        first = np.cumsum(sizes) - sizes
        of = np.repeat(np.arange(len(window)), sizes)
        index = number[of] * _PER_WINDOW + np.arange(len(of)) - first[of]
        gaps = unit_gaps(pool.weibull[window][of], pool.shape[window][of], seed, self.key + GAP, index)
        total = np.cumsum(gaps)
        before = total[first] - gaps[first]
        share = (total - before[of]) / np.add.reduceat(gaps, first)[of]
        ask = np.ones(len(of), bool)
        ask[first + counts] = False
        of, index = of[ask], index[ask]
        arrival = begin[of] + np.minimum(share[ask], 1.0 - 1e-12) * pool.window_s
        inputs, outputs = self._lengths(pool.lengths[window][of], index, seed)
        return arrival, inputs, outputs

    def _lengths(self, group: Ints, index: Ints, seed: int) -> tuple[Int32s, Int32s]:
        inputs, outputs = np.empty(len(group), np.int32), np.empty(len(group), np.int32)
        order = np.argsort(group, kind="stable")
        edges = np.flatnonzero(np.diff(group[order], prepend=-1, append=-1))
        for low, high in pairwise(edges.tolist()):
            mine = order[low:high]
            fields = self.pool.pdfs[int(group[mine[0]])]
            outputs[mine] = fields["output_tokens"].at(u01(seed, self.key + TOKENS, index[mine]))
            inputs[mine] = self._prompt(fields, index[mine], seed)
        return np.maximum(inputs, 1), np.maximum(outputs, 1)

    def _prompt(self, fields: Mapping[str, Pdf], index: Ints, seed: int) -> Ints:
        """Input tokens: as given, or text and as many items of each kind as are drawn."""
        luck = u01(seed, self.key + RANK, index)
        if "input_tokens" in fields:
            return fields["input_tokens"].at(luck)
        tokens = fields["text_tokens"].at(luck)
        for k, part in enumerate(PARTS):
            if f"{part}_count" not in fields or f"{part}_tokens" not in fields:
                continue
            base = (index * len(PARTS) + k) * (_ITEMS + 1)
            items = np.minimum(fields[f"{part}_count"].at(u01(seed, self.key + LENGTH, base)), _ITEMS)
            of = np.repeat(np.arange(len(index)), items)
            place = np.arange(len(of)) - np.repeat(np.cumsum(items) - items, items) + 1
            drawn = fields[f"{part}_tokens"].at(u01(seed, self.key + LENGTH, base[of] + place))
            tokens = tokens + np.bincount(of, weights=drawn, minlength=len(index)).astype(np.int64)
        return tokens

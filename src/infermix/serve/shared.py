"""Memory that the workers of a gateway share: each writes its own row of counters, and reads all of them."""

from __future__ import annotations

import mmap

import numpy as np

from infermix.arrays import Ints

INFLIGHT, QUEUED_TOKENS, CONTEXT_TOKENS = 0, 1, 2


class Shared:
    """Counters of all workers, [worker, counter, instance], in memory that forks inherit."""

    def __init__(self, workers: int, instances: int) -> None:
        size = workers * 3 * instances
        self._memory = mmap.mmap(-1, 8 * (size + 2))
        numbers = np.frombuffer(self._memory, dtype=np.int64)
        self.counters = numbers[:size].reshape(workers, 3, instances)
        self._tail = numbers[size:]

    @property
    def lost(self) -> int:
        """Requests that were under way in workers that died."""
        return int(self._tail[0])

    @property
    def deaths(self) -> int:
        """Workers that died."""
        return int(self._tail[1])

    def bury(self, worker: int) -> int:
        """A worker has died: what it had under way is counted as lost; returns how many requests."""
        lost = int(self.counters[worker, INFLIGHT].sum())
        self.counters[worker] = 0
        self._tail[0] += lost
        self._tail[1] += 1
        return lost

    def write(self, worker: int, j: int, inflight: int, queued_tokens: int, context_tokens: int) -> None:
        """What a worker has on an instance."""
        row = self.counters[worker]
        row[INFLIGHT, j], row[QUEUED_TOKENS, j], row[CONTEXT_TOKENS, j] = inflight, queued_tokens, context_tokens

    def total(self) -> Ints:
        """What all workers have together, as of now: [counter, instance]."""
        found: Ints = self.counters.sum(axis=0)
        return found

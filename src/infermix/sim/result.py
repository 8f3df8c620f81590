"""What a simulation found out. Imports neither kernel nor solver: reports read it without loading them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from infermix.arrays import Bools, Floats, Ints
from infermix.workload.requests import Requests

UNFINISHED, COMPLETED, REFUSED = 0, 1, 2
SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """One simulated run: columns over requests, then columns over instances."""

    requests: Requests
    admit_s: Floats
    """Start of the step that it was first part of [s]; NaN if it never left the queue."""
    first_s: Floats
    """Time of the first token [s]; NaN if there was none."""
    last_s: Floats
    instance: npt.NDArray[np.int32]
    """-1: refused before any instance took it."""
    status: npt.NDArray[np.int8]
    pool: Ints
    """Pool of each instance."""
    busy_s: Floats
    steps: Ints
    decode_tokens: Ints
    prompt_tokens: Ints
    kv_peak_blocks: Ints
    preemptions: Ints
    on_s: Floats
    """Time that the instance was not down [s]."""
    link_busy_s: Floats
    """Time that KV travelled over its link [s]."""
    sent_tokens: Ints
    """KV tokens that it handed over."""
    prefill_instance: npt.NDArray[np.int32]
    """Instance that read the prompt of a request that moved on; -1: none."""
    hit_tokens: npt.NDArray[np.int32]
    """Prompt tokens found in the instance's own prefix cache, at the last admission."""
    loaded_tokens: npt.NDArray[np.int32]
    """Prompt tokens loaded from a lower tier, at the last admission."""
    restarts: npt.NDArray[np.int32]
    """Times that a failure sent the request back."""
    seq_steps: Ints
    """Sequences summed over steps: divided by ``steps`` it is the mean batch."""
    gaps: Ints
    """[pool, class, bin] times between two tokens of a request, in the bins of ``sim.state.gap_edges_s``."""
    arrived: int
    """Requests whose arrival was simulated."""
    simulated_s: float
    kernel_s: float
    interrupted: bool = False

    @property
    def came(self) -> Bools:
        """Requests whose arrival was simulated: all, unless the run was cut or interrupted."""
        return np.asarray((self.status != UNFINISHED) | (self.instance >= 0))

    @property
    def queue_s(self) -> Floats:
        """Time from arrival to the first step [s]."""
        return np.asarray(self.admit_s - self.requests.arrival_s)

    @property
    def ttft_s(self) -> Floats:
        """Time to first token [s]."""
        return np.asarray(self.first_s - self.requests.arrival_s)

    @property
    def e2e_s(self) -> Floats:
        """Time to last token [s]."""
        return np.asarray(self.last_s - self.requests.arrival_s)

    @property
    def tpot_s(self) -> Floats:
        """(E2E - TTFT) / (output tokens - 1) [s]; NaN for one token."""
        gaps = self.requests.output_tokens - 1.0
        spans = self.last_s - self.first_s
        return np.asarray(np.divide(spans, gaps, out=np.full(len(gaps), np.nan), where=gaps > 0))

    @property
    def request_pool(self) -> Ints:
        """Pool that took each request (-1: none)."""
        return np.where(self.instance >= 0, self.pool[self.instance], -1)

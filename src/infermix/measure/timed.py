"""Requests whose times were measured: what a log or a probe tells, and what a simulation is held against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from infermix.arrays import Floats, check_equal_lengths
from infermix.sim.result import COMPLETED, Run
from infermix.workload.requests import Requests, take

TIMES = ("ttft_s", "tpot_s", "e2e_s")


@dataclass(frozen=True)
class Timed:
    """Requests in order of arrival, and their times; NaN where one is not known.

    Attributes
    ----------
    ttft_s, e2e_s
        From arrival to the first and to the last token [s].
    left_out
        Reasons → rows of the file that cannot be used.
    began_unix_s
        Date of time 0; NaN where the file does not say.
    closed
        Whether clients asked again when they were answered: requests then have parents.
    """

    requests: Requests
    ttft_s: Floats
    e2e_s: Floats
    source: str = ""
    format: str = ""
    left_out: dict[str, int] = field(default_factory=dict)
    began_unix_s: float = float("nan")
    closed: bool = False

    def __post_init__(self) -> None:
        check_equal_lengths(self)

    def __len__(self) -> int:
        return len(self.ttft_s)

    @property
    def tpot_s(self) -> Floats:
        """(E2E - TTFT) / (output tokens - 1) [s]; NaN for one token."""
        return per_token_s(self.requests, self.ttft_s, self.e2e_s)

    @property
    def first_s(self) -> Floats:
        """Time of the first token [s]."""
        return np.asarray(self.requests.arrival_s + self.ttft_s)

    @property
    def last_s(self) -> Floats:
        """Time of the last token [s]."""
        return np.asarray(self.requests.arrival_s + self.e2e_s)

    def leading(self, count: int) -> Timed:
        """The first requests alone."""
        some = take(self.requests, np.arange(len(self)) < count)
        return replace(self, requests=some, ttft_s=self.ttft_s[:count], e2e_s=self.e2e_s[:count])


def per_token_s(requests: Requests, ttft_s: Floats, e2e_s: Floats) -> Floats:
    """Time per output token of requests [s]; NaN for one token."""
    gaps = requests.output_tokens - 1.0
    return np.asarray(np.divide(e2e_s - ttft_s, gaps, out=np.full(len(gaps), np.nan), where=gaps > 0))


def simulated(run: Run, overhead_s: float) -> Timed:
    """The times of a run as a client saw them, who is ``overhead_s`` away; NaN where a request did not end."""
    ended = run.status == COMPLETED
    ttft = np.where(ended, run.ttft_s + overhead_s, np.nan)
    return Timed(run.requests, ttft, np.where(ended, run.e2e_s + overhead_s, np.nan))

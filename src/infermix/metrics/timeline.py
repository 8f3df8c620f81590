"""What happened when: arrivals, ends and requests in flight in equal bins of time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infermix.arrays import Bools, Floats

BINS = 60


@dataclass(frozen=True)
class Timeline:
    """Columns over bins of equal length.

    Attributes
    ----------
    edges_s
        Ends of the bins [s]; one more than there are bins.
    arrivals_per_s, completions_per_s
        Requests that arrived, and whose last token came out, in a bin [1/s].
    in_flight
        Mean number of requests that had arrived and had neither ended nor been refused.
    attainment
        Of the requests that arrived in a bin, the share that met every target; NaN where none arrived.
    """

    edges_s: Floats
    arrivals_per_s: Floats
    completions_per_s: Floats
    in_flight: Floats
    attainment: Floats


def timeline(arrival_s: Floats, last_s: Floats, taken: Bools, good: Bools, end_s: float, bins: int = BINS) -> Timeline:
    """The course of a run from 0 to ``end_s``.

    Parameters
    ----------
    arrival_s, last_s
        Of each request [s]; ``last_s`` is NaN where it never ended.
    taken
        Whether an instance took it; one that never ended is in flight until the end.
    good
        Whether it met every target.
    """
    edges = np.linspace(0.0, end_s if end_s > 0 else 1.0, bins + 1)
    width = edges[1] - edges[0]
    ended = np.isfinite(last_s)
    arrived = np.histogram(arrival_s, edges)[0]
    met = np.histogram(arrival_s[good], edges)[0]
    came, left = _elapsed(arrival_s[taken], edges), _elapsed(last_s[ended], edges)
    return Timeline(
        edges_s=edges,
        arrivals_per_s=arrived / width,
        completions_per_s=np.histogram(last_s[ended], edges)[0] / width,
        in_flight=np.maximum(np.diff(came - left) / width, 0.0),
        attainment=np.divide(met, arrived, out=np.full(bins, np.nan), where=arrived > 0),
    )


def _elapsed(times_s: Floats, edges: Floats) -> Floats:
    """Seconds since each of the times, summed over those that lie before an edge: the integral of their count."""
    ordered = np.sort(times_s)
    place = np.searchsorted(ordered, edges, side="right")
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    return np.asarray(place * edges - sums[place])

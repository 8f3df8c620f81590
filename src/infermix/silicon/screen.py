"""The fast form of a decode step, for screening designs; ``perf`` answers for those that remain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from infermix.arrays import Floats

REDUCE_SHARE = 3
"""A doubling of the group adds a third of a latency (E16)."""


class Work(NamedTuple):
    """One step of a batch: bytes read, active weights, width and layers of the model, bytes of an activation."""

    read_bytes: Floats
    flop: Floats
    layers: Floats
    activation_bytes: Floats


def memory_s(work: Work, chips: Floats, bytes_per_s: Floats, flop_per_s: Floats) -> Floats:
    """Time of reading or of computing, whichever is longer, on ``chips`` side by side (E16, first term)."""
    return np.maximum(work.read_bytes / (chips * bytes_per_s), work.flop / (chips * flop_per_s))


def sync_s(work: Work, chips: Floats, latency_s: Floats, link_bytes_per_s: Floats) -> Floats:
    """Time of two collectives a layer (E16, second term)."""
    latency = latency_s * (1 + np.log2(chips) / REDUCE_SHARE)
    return 2 * work.layers * (latency + 2 * work.activation_bytes / link_bytes_per_s)


def pipeline_s(work: Work, stages: Floats, hop_s: Floats, link_bytes_per_s: Floats) -> Floats:
    """Time of the hops between stages (E16, third term)."""
    return (stages - 1) * (hop_s + 2 * work.activation_bytes / link_bytes_per_s)

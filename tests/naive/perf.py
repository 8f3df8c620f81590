"""A slow, obvious step time: one layer after another, one operator after another, plain floats.

Shares no arithmetic with ``infermix.perf`` and counts models on its own: only the records (model, chip, efficiency)
are read. Parts: ``perf_model`` (shapes), ``perf_chip`` (peaks, messages), ``perf_memory``, ``perf_hbm``, ``perf_sram``.
"""

from __future__ import annotations

import msgspec

from infermix.perf.deployment import Deployment
from tests.naive import perf_hbm, perf_sram


def twin(d: Deployment) -> perf_hbm.Roofline | perf_sram.Pipeline:
    """The slow model of the machine that a deployment runs on."""
    return perf_sram.Pipeline(d) if d.is_pipeline else perf_hbm.Roofline(d)


def ttft_s(d: Deployment, prompt: int, cached: int = 0) -> float:
    """Unloaded time to first token."""
    alone = msgspec.structs.replace(d, spec=None)  # nothing is drafted while a prompt is read
    return (perf_sram if d.is_pipeline else perf_hbm).ttft_s(alone, prompt, cached)


def interval(d: Deployment) -> tuple[float, float]:
    """Ends of the interval of speed: the family's, cut where a share of a peak would exceed it."""
    figures = d.efficiency.figures
    speed = figures["speed"]
    if d.model.experts and "speed_moe" in figures:
        speed = figures["speed_moe"]
    low, high = speed.low or 1.0, speed.high or 1.0
    if not d.is_pipeline:
        for name, figure in figures.items():
            kinds = ["gemm_", "attention_", *(["mla_"] if d.model.mla_kv_lora else [])]
            kinds += ["moe_"] if d.model.experts else []
            if name.startswith(tuple(kinds)) and ("_flop" in name or name.endswith("_bytes")):
                high = min(high, 1 / figure.value)
    active = d.model.active_params
    if d.model.closed and active.low and active.high:  # a guess stands for a range of parameters
        return low * active.value / active.high, high * active.value / active.low
    return low, high

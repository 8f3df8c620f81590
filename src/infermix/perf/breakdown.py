"""Where the time of a decode step goes, and what it is bound by."""

from __future__ import annotations

import numpy as np

from infermix.perf import dataflow, model_cost, ops, roofline
from infermix.perf.deployment import Deployment
from infermix.perf.memory import fullest_stage


def step_parts_s(d: Deployment, batch: int, context: float) -> dict[str, float]:
    """Seconds of a decode step of ``batch`` sequences with so much context each, by part; they add up to the step."""
    return _pipeline_parts(d, batch, context) if d.is_pipeline else _streaming_parts(d, batch, context)


def _streaming_parts(d: Deployment, batch: int, context: float) -> dict[str, float]:
    sequences = np.array([float(batch)])
    width = d.spec.width if d.spec else 1
    stack = roofline.stack_s(d, sequences * width / d.pp)
    even = fullest_stage(d)
    layers = {name: even * float(part[0]) for name, part in stack._asdict().items()}
    host = d.efficiency.figures["host_s"].value
    done = even * stack.total
    waits = float((roofline.launched_s(d, done) - done)[0])
    hops = float((roofline.base_s(d, sequences * width) - done)[0]) - waits - roofline.head_s(d)
    parts = {
        "attention projections": layers["mixers"],
        "MLP": layers["mlp"],
        "experts": layers["experts"],
        "KV cache": batch * roofline.kv_s(d) * context,
        "logits, windows, states": batch * roofline.per_seq_s(d),
        "vocabulary": roofline.head_s(d) - host,
        "collectives": layers["collectives"],
        "hops": hops if d.pp > 1 else 0.0,
        "drafts": float(roofline.draft_s(d, sequences)[0]),
        "launches": layers["launches"] + waits,
        "host": host,
    }
    return {name: seconds for name, seconds in parts.items() if seconds > 0}


def _pipeline_parts(d: Deployment, batch: int, context: float) -> dict[str, float]:
    line, width = dataflow.places(d), d.spec.width if d.spec else 1
    microbatch = np.array([max(1.0, batch / line) * width])
    whole = line * float(dataflow.stage_s(d, microbatch)[0])
    sync = d.model.layers * dataflow.sync_s(d)
    arithmetic = line * float(microbatch[0]) * model_cost.flop_per_token(d.model) / dataflow.compute(d)
    drafts = float(dataflow.draft_s(d, np.array([float(batch)]))[0])
    parts = {
        "synchronisation": sync,
        "SRAM": whole - sync - arithmetic,
        "arithmetic": arithmetic,
        "KV cache": batch * dataflow.kv_s(d) * context,
        "drafts": drafts,
        "hops": float(dataflow.decode_s(d, np.array([float(batch)]))[0]) - whole - drafts,
    }
    return {name: seconds for name, seconds in parts.items() if seconds > 0}


def bound_by(d: Deployment, batch: int, context: float) -> str:
    """What takes most of a decode step: ``weights``, ``kv``, ``compute``, ``links`` or ``latency``.

    Latency is what faster memory, arithmetic and links would not shorten: launches, synchronisation, the host.
    """
    parts = step_parts_s(d, batch, context)
    step, kv = sum(parts.values()), parts.get("KV cache", 0.0)
    links = parts.get("collectives", 0.0) + (0.0 if d.is_pipeline else parts.get("hops", 0.0))
    return largest_part(d, batch, step=step, kv=kv, links=links)


def largest_part(d: Deployment, batch: int, *, step: float, kv: float, links: float) -> str:
    """The largest part of a decode step of which the whole, the KV cache and the exchange are known [s]."""
    weights, compute = weights_read_s(d, batch), arithmetic_s(d, batch)
    seconds = {"kv": kv, "links": links, "latency": step - kv - links - max(weights, compute)}
    seconds["weights" if weights >= compute else "compute"] = max(weights, compute)
    return max(seconds, key=lambda name: seconds[name])


def weights_read_s(d: Deployment, batch: int) -> float:
    """Seconds to read what a decode step reads of the weights, at the bandwidth that is reached [s]."""
    if d.chip.only_models:
        return 0.0
    rate = d.chip.sram_bytes_per_s if d.is_pipeline else d.chip.mem_bytes_per_s
    assert rate is not None
    reached = 1.0 if d.is_pipeline else d.efficiency.figures["gemm_bytes"].value
    copies, groups = (1, d.pp) if d.is_pipeline or d.ep > 1 else (d.dp, d.pp * d.dp)
    width = d.spec.width if d.spec else 1
    mine = max(1.0, batch * width / groups)
    return model_cost.bytes_read(d.model, d.weights, mine) * copies * d.pp / (d.chips * reached * rate.value)


def arithmetic_s(d: Deployment, batch: int) -> float:
    """Seconds of a decode step's arithmetic in the layers, at the rate that is reached [s]."""
    width = d.spec.width if d.spec else 1
    flop = batch * width * model_cost.flop_per_token(d.model)
    if d.is_pipeline:
        return flop / dataflow.compute(d)
    peak, name = ops.peak_flop_per_s(d.chip, d.weights)
    return flop / (d.chips * peak * d.efficiency.figures[ops.gemm_share(name)].value)

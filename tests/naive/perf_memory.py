"""What fits beside the weights, added up chip by chip."""

from __future__ import annotations

import math

from infermix.perf.deployment import Deployment
from tests.naive import perf_model as count
from tests.naive.perf_chip import value


def fullest(d: Deployment) -> float:
    """Layers of the fullest stage over the mean."""
    if d.is_pipeline:
        return 1.0
    most = 0
    for stage in range(d.pp):
        most = max(most, len([layer for layer in range(d.model.layers) if layer % d.pp == stage]))
    return most / (d.model.layers / d.pp)


def copies(d: Deployment, block: str = "full") -> float:
    """How often the chips of ``tp`` keep the same KV."""
    if d.is_pipeline:
        return 1.0
    if d.model.mla_kv_lora:
        return float(d.tp)
    return max(1.0, d.tp / count.heads_of(d.model, block)[1])


def chips(d: Deployment) -> int:
    """Chips of an instance."""
    return d.stages * d.system.chips if d.is_pipeline else d.tp * d.pp * d.dp


def capacity_bytes(d: Deployment) -> float:
    """What the engine may use of all chips of an instance."""
    memory = d.chip.sram_bytes if d.is_pipeline else d.chip.mem_bytes
    return sum(value(memory) * d.efficiency.figures["memory_use"].value for _ in range(chips(d)))


def weights_held(d: Deployment) -> float:
    """Bytes of weights on all chips."""
    if d.is_pipeline:
        return 0.0 if d.chip.only_models else count.weight_bytes(d.model, d.weights)
    experts = count.expert_bytes(d.model, d.weights)
    total = experts if d.ep > 1 else 0.0
    for _ in range(d.dp):
        total += count.weight_bytes(d.model, d.weights) - experts
        total += 0.0 if d.ep > 1 else experts
    return total * fullest(d)


def draft_held(d: Deployment) -> float:
    """A layer more where a layer drafts: the mean one of the model."""
    if d.spec is None or d.spec.method == "ngram":
        return 0.0
    if d.is_pipeline:
        return count.line_bytes(d.model, d.weights, d.model.experts) / d.model.layers
    experts = count.expert_bytes(d.model, d.weights)
    rest = count.line_bytes(d.model, d.weights, 0)
    return (d.dp * rest + (1 if d.ep > 1 else d.dp) * experts) / d.model.layers


def working_bytes(d: Deployment) -> float:
    """Eight activations a batched token on every chip, and logits of every token that is verified."""
    if d.is_pipeline:
        return 0.0
    total = 0.0
    for _ in range(chips(d)):
        total += 8 * count.BF16 * d.model.hidden * d.max_batched_tokens / d.dp
    verified = 1 + (d.spec.depth if d.spec else 0)
    return total + count.FP32 * d.model.vocab * d.max_num_seqs * verified


def sequences_bytes(d: Deployment) -> float:
    """Windows and states of as many sequences as may run."""
    total = 0.0
    for block in count.blocks_of(d.model):
        if block == "sliding":
            window = d.model.sliding_window or 0
            total += copies(d, block) * window * count.block_kv_bytes(d.model, d.kv, block)
        if block == "linear":
            total += count.FP32 * d.model.linear_state_elements
    return total * d.max_num_seqs


def free_bytes(d: Deployment) -> float:
    """What is left for KV."""
    return capacity_bytes(d) - weights_held(d) - draft_held(d) - working_bytes(d) - sequences_bytes(d)


def kv_tokens_left(d: Deployment) -> float:
    """Tokens that fit; a model that keeps nothing per token takes any."""
    token = count.kept_kv_bytes(d.model, d.kv) * copies(d) * fullest(d)
    if not token:
        return float(d.max_num_seqs * d.model.max_context) if free_bytes(d) > 0 else -math.inf
    return free_bytes(d) / token

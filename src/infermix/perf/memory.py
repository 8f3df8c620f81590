"""Does it fit, and how many KV tokens are left."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from infermix.arrays import Floats
from infermix.catalog import shape
from infermix.perf import model_cost
from infermix.perf.deployment import BLOCK_TOKENS, Deployment

MOST_STAGES = 512


def capacity_bytes(deployment: Deployment) -> float:
    """Memory that an engine may use on all chips of an instance: ``memory_use`` of HBM or SRAM [bytes]."""
    chip = deployment.chip
    memory = chip.sram_bytes if deployment.is_pipeline else chip.mem_bytes
    use = deployment.efficiency.figures["memory_use"].value
    return deployment.chips * use * (memory.value if memory else 0.0)


def fullest_stage(deployment: Deployment) -> float:
    """Layers of the fullest of ``pp`` stages over their mean: what does not divide evenly waits for it."""
    layers, pp = deployment.model.layers, deployment.pp
    return math.ceil(layers / pp) * pp / layers


def weights_bytes(deployment: Deployment) -> float:
    """Weights on all chips of an instance [bytes].

    Each DP group holds a copy; experts are held once where ``ep`` shares them out; weights that are wired into
    the chip take no memory.
    """
    d = deployment
    if d.chip.only_models:
        return 0.0
    parts = model_cost.weight_parts(d.model, d.weights)
    copies = d.dp if d.ep == 1 else 1
    return fullest_stage(d) * (d.dp * (parts.total - parts.experts) + copies * parts.experts)


def draft_bytes(deployment: Deployment) -> float:
    """Weights of the layer that drafts tokens, on all chips of an instance [bytes]."""
    d = deployment
    if d.spec is None or not d.spec.draft_layers:
        return 0.0
    parts = model_cost.weight_parts(d.model, d.weights)
    copies = d.dp if d.ep == 1 else 1
    return (d.dp * (parts.mixers + parts.mlp) + copies * parts.experts) / d.model.layers


def activation_bytes(deployment: Deployment) -> float:
    """Working memory of one step on all chips: a few activations per batched token, and the logits [bytes].

    Eight activations of the hidden width per token is a round figure for the buffers that live at once;
    on SRAM machines tokens pass one by one and the share of memory left free covers them.
    """
    d = deployment
    if d.is_pipeline:
        return 0.0
    per_token = 8 * d.model.hidden * model_cost.ACTIVATION_BYTES
    width = d.spec.width if d.spec else 1
    logits = 4.0 * d.model.vocab * d.max_num_seqs * width
    return d.chips * (d.max_batched_tokens / d.dp * per_token) + logits


def kv_replication(deployment: Deployment, *, sliding: bool = False) -> float:
    """How often a group of ``tp`` chips stores each KV head; MLA's latent cannot be split, so every chip has it."""
    d = deployment
    if d.is_pipeline:
        return 1.0
    return float(d.tp) if shape.is_mla(d.model) else max(1.0, d.tp / shape.heads_of(d.model, sliding).kv)


def sequences_bytes(deployment: Deployment) -> float:
    """What ``max_num_seqs`` sequences keep whatever their length: windows and states [bytes]."""
    d = deployment
    windows = kv_replication(d, sliding=True) * model_cost.window_bytes(d.model, d.kv)
    return d.max_num_seqs * (windows + model_cost.state_bytes_per_sequence(d.model))


def kv_tokens_left(deployment: Deployment) -> int:
    """KV tokens that one instance can hold beside weights and working memory; negative when even those do not fit.

    Windows and states are set aside for ``max_num_seqs`` sequences. A model that keeps nothing per token is
    told the tokens of ``max_num_seqs`` longest contexts.
    """
    d = deployment
    taken = weights_bytes(d) + draft_bytes(d) + activation_bytes(d) + sequences_bytes(d)
    free = capacity_bytes(d) - taken
    per_token = kv_replication(d) * fullest_stage(d) * model_cost.kv_bytes_per_token(d.model, d.kv)
    if per_token:
        return int(free // per_token)
    return d.max_num_seqs * d.model.max_context if free >= 0 else -1


def kv_tokens_left_at(deployment: Deployment, max_num_seqs: Floats, max_batched_tokens: Floats) -> Floats:
    """``kv_tokens_left`` at other engine settings, which broadcast; what is taken grows evenly with both."""
    d = deployment
    if not (per_token := kv_replication(d) * fullest_stage(d) * model_cost.kv_bytes_per_token(d.model, d.kv)):
        pairs = np.broadcast(max_num_seqs, max_batched_tokens)
        settings = [msgspec.structs.replace(d, max_num_seqs=int(n), max_batched_tokens=int(m)) for n, m in pairs]
        return np.array([kv_tokens_left(s) for s in settings], dtype=np.float64).reshape(pairs.shape)
    corners = [_settings_bytes(d, *corner) for corner in ((0, 0), (1, 0), (0, 1))]
    fixed = weights_bytes(d) + draft_bytes(d) + corners[0]
    taken = fixed + max_num_seqs * (corners[1] - corners[0]) + max_batched_tokens * (corners[2] - corners[0])
    return np.asarray(np.floor((capacity_bytes(d) - taken) / per_token))


def _settings_bytes(d: Deployment, max_num_seqs: int, max_batched_tokens: int) -> float:
    """What engine settings take beside the weights [bytes]."""
    other = msgspec.structs.replace(d, max_num_seqs=max_num_seqs, max_batched_tokens=max_batched_tokens)
    return activation_bytes(other) + sequences_bytes(other)


def fewest_stages(deployment: Deployment) -> int | None:
    """Fewest systems in line that hold the model and an eighth of its longest context; None if no number does."""
    for n in range(1, MOST_STAGES + 1):
        if kv_tokens_left(msgspec.structs.replace(deployment, stages=n)) > deployment.model.max_context // 8:
            return n
    return None


def kv_blocks(deployment: Deployment) -> int:
    """KV blocks of one instance (0 when nothing fits)."""
    return max(0, kv_tokens_left(deployment) // BLOCK_TOKENS)

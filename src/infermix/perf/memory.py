"""Does it fit, and how many KV tokens are left."""

from __future__ import annotations

import msgspec

from infermix.perf import model_cost
from infermix.perf.deployment import BLOCK_TOKENS, Deployment


def capacity_bytes(deployment: Deployment) -> float:
    """Memory that an engine may use on all chips of an instance: ``memory_use`` of HBM or SRAM [bytes]."""
    chip = deployment.chip
    memory = chip.sram_bytes if deployment.is_pipeline else chip.mem_bytes
    use = deployment.efficiency.figures["memory_use"].value
    return deployment.chips * use * (memory.value if memory else 0.0)


def weights_bytes(deployment: Deployment) -> float:
    """Weights on all chips of an instance: each DP rank holds a copy [bytes]."""
    return deployment.dp * model_cost.weight_bytes(deployment.model, deployment.weights)


def activation_bytes(deployment: Deployment) -> float:
    """Working memory of one step on all chips: a few activations per batched token, and the logits [bytes].

    Eight activations of the hidden width per token is a round figure for the buffers that live at once;
    on SRAM machines tokens pass one by one and the share of memory left free covers them.
    """
    if deployment.is_pipeline:
        return 0.0
    model = deployment.model
    per_token = 8 * model.hidden * model_cost.ACTIVATION_BYTES
    logits = 4.0 * model.vocab * deployment.max_num_seqs
    return deployment.chips * (deployment.max_batched_tokens / deployment.dp * per_token) + logits


def kv_replication(deployment: Deployment) -> float:
    """How often each KV head is stored: more TP ranks than KV heads hold copies."""
    return max(1.0, deployment.tp / deployment.model.kv_heads)


def kv_tokens_left(deployment: Deployment) -> int:
    """KV tokens that one instance can hold beside weights and working memory; negative when even those do not fit.

    The full windows of sliding layers are set aside for ``max_num_seqs`` sequences.
    """
    model = deployment.model
    copies = kv_replication(deployment)
    windows = deployment.max_num_seqs * copies * model_cost.kv_bytes_per_sequence(model, deployment.kv)
    free = capacity_bytes(deployment) - weights_bytes(deployment) - activation_bytes(deployment) - windows
    return int(free // (copies * model_cost.kv_bytes_per_token(model, deployment.kv)))


MOST_STAGES = 512


def fewest_stages(deployment: Deployment) -> int | None:
    """Fewest systems in line that hold the model and an eighth of its longest context; None if no number does."""
    for n in range(1, MOST_STAGES + 1):
        if kv_tokens_left(msgspec.structs.replace(deployment, stages=n)) > deployment.model.max_context // 8:
            return n
    return None


def kv_blocks(deployment: Deployment) -> int:
    """KV blocks of one instance (0 when nothing fits)."""
    return max(0, kv_tokens_left(deployment) // BLOCK_TOKENS)

"""Prefill on one machine, decode on another: whether somebody runs that pair, has shown it, or nobody has."""

from __future__ import annotations

from typing import Literal

import msgspec

from infermix.perf.deployment import Deployment

Readiness = Literal["shipping", "demonstrated", "hypothetical"]


class Pair(msgspec.Struct, frozen=True):
    """How ready a pair of vendors is, and where that is said."""

    readiness: Readiness
    source: str
    """Address, with what it says in short."""


_NIXL = "https://docs.vllm.ai/en/stable/features/nixl_connector_usage.html"

KNOWN: dict[tuple[str, str], Pair] = {
    ("NVIDIA", "NVIDIA"): Pair("shipping", f"{_NIXL} (NixlConnector of vLLM, NIXL installed from packages)"),
    ("AMD", "AMD"): Pair("shipping", f"{_NIXL} (NixlConnector of vLLM; the ROCm image includes the library)"),
    ("Rebellions", "Rebellions"): Pair(
        "shipping",
        "https://docs.rbln.ai/latest/software/model_serving/vllm_support/features/disaggregated-prefill-decode.html "
        "(RblnNixlConnector)",
    ),
    ("NVIDIA", "Apple"): Pair(
        "demonstrated", "https://blog.exolabs.net/nvidia-dgx-spark (two DGX Spark and a Mac Studio, Llama 3.1 8B)"
    ),
    ("AWS (Annapurna)", "NVIDIA"): Pair(
        "demonstrated", "https://github.com/vllm-project/vllm-neuron/issues/26 (Trainium to H100 over EFA, Qwen3 0.6B)"
    ),
    ("AWS (Annapurna)", "Cerebras"): Pair(
        "hypothetical", "https://www.cerebras.ai/blog/disaggregated-inference (announced, no measurement)"
    ),
    ("NVIDIA", "Intel"): Pair(
        "hypothetical",
        "https://gimletlabs.ai/blog/multivendor-prefill-decode-disaggregation (B200 and Gaudi 3, modelled)",
    ),
}
"""(vendor of the prefill chip, vendor of the decode chip) -> what is known; each was shown
with the chips named, and is taken to hold for the vendors' chips at large."""

UNKNOWN = Pair("hypothetical", "none known")


def readiness(prefill: Deployment, decode: Deployment) -> Pair:
    """How ready it is to read prompts on one deployment and to answer on the other.

    Parts of one vendor of which the table does not tell are hypothetical, too: an engine for a chip does not mean that
    it hands over KV caches.
    """
    return KNOWN.get((prefill.chip.vendor, decode.chip.vendor), UNKNOWN)
